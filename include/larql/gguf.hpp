// SPDX-License-Identifier: Apache-2.0
//
// GGUF checkpoints: one file or all shards of a set as one object, with metadata and tensors.
//
// Goals: nothing is copied that can be viewed, and nothing is believed that was not checked. Opening walks every byte
// of the headers and none of the data. Files of version 1, 2 and 3 are read; big-endian ones are refused by name.
#ifndef LARQL_GGUF_HPP
#define LARQL_GGUF_HPP

#include <larql/detail/gguf_parse.hpp>
#include <larql/detail/gguf_shards.hpp>
#include <larql/detail/gguf_value.hpp>
#include <larql/detail/name_index.hpp>
#include <larql/detail/tensor_reading.hpp>
#include <larql/error.hpp>
#include <larql/mapped_file.hpp>
#include <larql/tensor_info.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace larql {

/// An open GGUF checkpoint. Move-only. Tensor infos, keys, string values and tensor bytes are views into its maps: they
/// stay valid when the object moves and end with it. All const functions may be called from several threads at once.
///
/// Shapes are row-major: GGUF stores dimensions innermost first, and this class turns them round, once.
class gguf_file {
public:
    /// Opens a checkpoint and checks all of it but the numbers inside the tensors.
    ///
    /// @param path  a .gguf file; any shard of a set, also through symbolic links; or a folder that holds one GGUF
    /// model
    /// @throws error io, not_a_file, truncated, bad_magic, unsupported_version, corrupt_header, duplicate_name,
    ///         unknown_dtype, unsupported_dtype, offset_out_of_range, misaligned, shape_mismatch, missing_shard,
    ///         limit_exceeded, bad_value, wrong_type or missing_key (split.* and general.* keys), naming the faulty
    ///         file
    /// @note   Linear in the size of the headers. A set of shards is opened whole, because only its first file holds
    ///         the model's metadata and any file may hold any tensor.
    static gguf_file open(const std::filesystem::path& path) {
        std::error_code ignored;
        const bool folder = std::filesystem::is_directory(path, ignored);
        gguf_file out;
        out.load(folder ? detail::find_gguf_in(path) : path);
        return out;
    }

    gguf_file(gguf_file&&) noexcept = default;
    gguf_file& operator=(gguf_file&&) noexcept = default;
    gguf_file(const gguf_file&) = delete;
    gguf_file& operator=(const gguf_file&) = delete;
    ~gguf_file() = default;

    /// Tensors of all shards, in the order of the files.
    [[nodiscard]] std::span<const tensor_info> tensors() const& noexcept { return m_tensors; }
    std::span<const tensor_info> tensors() const&& = delete;

    /// The tensor of this name, or null.
    [[nodiscard]] const tensor_info* find_tensor(std::string_view name) const& {
        const auto at = m_names.find(name, [this](std::size_t i) { return m_tensors[i].name; });
        return at ? &m_tensors[*at] : nullptr;
    }
    const tensor_info* find_tensor(std::string_view) const&& = delete;

    /// The tensor of this name.
    /// @throws error missing_tensor
    [[nodiscard]] const tensor_info& at_tensor(std::string_view name) const& {
        if (const tensor_info* info = find_tensor(name)) return *info;
        detail::fail(errc::missing_tensor,
                     "no such tensor among the " + std::to_string(m_tensors.size()) + " of the checkpoint",
                     {.file = shard_path(0), .subject = std::string(name)});
    }
    const tensor_info& at_tensor(std::string_view) const&& = delete;

    /// The stored bytes of a tensor of this checkpoint, a view into the map. See mapped_file for what happens if
    /// somebody shortens the file meanwhile.
    [[nodiscard]] std::span<const std::byte> bytes(const tensor_info& info) const& {
        const std::span<const std::byte> all = shard(info).file.bytes();
        if (info.offset > all.size() || info.size_bytes > all.size() - info.offset)
            detail::fail(errc::bad_value,
                         "a tensor of another checkpoint: expected an end within " + std::to_string(all.size()) +
                             " bytes, got " + std::to_string(info.offset) + " + " + std::to_string(info.size_bytes),
                         {.file = shard_path(info.shard), .subject = std::string(info.name)});
        return all.subspan(static_cast<std::size_t>(info.offset), static_cast<std::size_t>(info.size_bytes));
    }
    std::span<const std::byte> bytes(const tensor_info&) const&& = delete;

    /// Fills `out` with stored bytes of a tensor, from its byte `first` on, by ordinary reads.
    /// @throws error source_changed if the file was changed, replaced or shortened since it was opened, bad_value if
    /// the
    ///         range leaves the tensor
    void read_bytes(const tensor_info& info, std::uint64_t first, std::span<std::byte> out) const {
        detail::read_tensor_bytes(reopen(info), info, shard_path(info.shard), first, out);
    }

    /// Reads rows [row_begin, row_end) of a tensor as float, whatever its format; a row is the innermost dimension.
    ///
    /// @param out  [row_end - row_begin, columns] the caller's memory
    /// @throws error unsupported_dtype for integers, bad_value if there are no such rows, source_changed as read_bytes
    /// @note   Ordinary reads of the rows asked for and nothing else; 128 KiB of scratch.
    void read_rows(const tensor_info& info, std::uint64_t row_begin, std::uint64_t row_end, float* out) const {
        detail::read_tensor_rows(reopen(info), info, shard_path(info.shard), row_begin, row_end, out);
    }

    /// All of a tensor as float, in its row-major shape.
    /// @throws error missing_tensor, shape_mismatch if it has not `Rank` dimensions, and as read_rows
    template <std::size_t Rank>
    [[nodiscard]] tensor<float, Rank> read(std::string_view name) const {
        const tensor_info& info = at_tensor(name);
        return detail::read_tensor<Rank>(reopen(info), info, shard_path(info.shard));
    }

    /// All of a tensor of integers (or bools, as 0 and 1) as T, checked for range.
    /// @throws error missing_tensor, shape_mismatch if it has not `Rank` dimensions, unsupported_dtype if it does not
    /// hold
    ///         integers, bad_value if one does not fit T
    template <class T, std::size_t Rank>
    [[nodiscard]] tensor<T, Rank> read_integers(std::string_view name) const {
        const tensor_info& info = at_tensor(name);
        return detail::read_integer_tensor<T, Rank>(reopen(info), info, shard_path(info.shard));
    }

    [[nodiscard]] std::size_t shard_count() const noexcept { return m_shards.size(); }
    /// Path of a shard, from 0.
    [[nodiscard]] const std::string& shard_path(std::size_t index) const { return m_shards.at(index).file.path(); }
    /// GGUF version of the first shard: 1, 2 or 3.
    [[nodiscard]] std::uint32_t version() const noexcept { return m_shards.front().contents.version; }
    /// Alignment of tensor data in the first shard, in bytes.
    [[nodiscard]] std::uint64_t alignment() const noexcept { return m_shards.front().contents.alignment; }

    /// Metadata of the first shard, which holds the model's, in stored order.
    [[nodiscard]] std::span<const gguf_entry> metadata() const& noexcept { return m_shards.front().contents.entries; }
    std::span<const gguf_entry> metadata() const&& = delete;

    /// The metadata keys in stored order, as views.
    [[nodiscard]] std::vector<std::string_view> keys() const& {
        std::vector<std::string_view> out;
        out.reserve(metadata().size());
        for (const gguf_entry& entry : metadata()) out.push_back(entry.key);
        return out;
    }
    std::vector<std::string_view> keys() const&& = delete;

    /// The value of a key, or null. Nothing is copied.
    [[nodiscard]] const gguf_value* find_value(std::string_view key) const& {
        return m_shards.front().contents.find(key);
    }
    const gguf_value* find_value(std::string_view) const&& = delete;

    /// The value of a key as T (see gguf_value::to), or nothing if the key is absent.
    /// @throws error wrong_type, or bad_value if a number does not fit T
    template <class T>
    [[nodiscard]] std::optional<T> find(std::string_view key) const {
        const gguf_value* value = m_shards.front().contents.find(key);
        if (value == nullptr) return std::nullopt;
        return value->to<T>({.file = shard_path(0), .offset = value->offset(), .subject = std::string(key)});
    }

    /// The value of a key as T.
    /// @throws error missing_key, wrong_type, or bad_value if a number does not fit T
    template <class T>
    [[nodiscard]] T get(std::string_view key) const {
        if (auto value = find<T>(key)) return std::move(*value);
        detail::fail(errc::missing_key, "expected " + detail::gguf_type_wanted<T>() + ", got no such metadata key",
                     {.file = shard_path(0), .subject = std::string(key)});
    }

    /// Checks that every shard still is the file that was opened, with the same size and modification time.
    /// @throws error source_changed naming the shard
    void verify_unchanged() const {
        for (const loaded& shard : m_shards) shard.file.verify_unchanged();
    }

private:
    struct loaded {
        mapped_file file;
        detail::gguf_contents contents;
    };

    gguf_file() = default;

    static loaded load_one(const std::filesystem::path& path) {
        mapped_file file = mapped_file::open(path);
        detail::gguf_contents contents = detail::gguf_parser(file.bytes(), file.path()).parse();
        return {std::move(file), std::move(contents)};
    }

    void load(const std::filesystem::path& path) {
        loaded given = load_one(path);
        const detail::gguf_split split = detail::read_gguf_split(given.contents, given.file.path());
        if (split.count == 0 || (split.count == 1 && !detail::gguf_set_at(path))) {
            m_shards.push_back(std::move(given));  // a set of one is complete whatever its name
        } else {
            const detail::gguf_shard_set set = detail::locate_gguf_shards(path, split);
            for (std::size_t i = 0; i < set.files.size(); ++i) {
                m_shards.push_back(i == set.given ? std::move(given) : load_one(set.files[i]));
                check_place(i, set.files.size());
            }
        }
        gather_tensors();
        check_set();
    }

    // A file that was renamed or downloaded twice has the wrong number inside.
    void check_place(std::size_t position, std::size_t count) const {
        const loaded& shard = m_shards[position];
        const detail::gguf_split split = detail::read_gguf_split(shard.contents, shard.file.path());
        const auto expect = [&](std::string_view key, std::uint64_t expected, std::uint64_t got) {
            if (expected == got) return;
            detail::fail(errc::bad_value,
                         "the file's name and metadata disagree: expected " + std::to_string(expected) +
                             " by its name, got " + std::to_string(got),
                         {.file = shard.file.path(), .subject = std::string(key)});
        };
        expect("split.count", count, split.count);
        expect("split.no", position, split.number);
    }

    void gather_tensors() {
        std::size_t count = 0;
        for (const loaded& shard : m_shards) count += shard.contents.tensors.size();
        m_tensors.reserve(count);
        for (std::size_t i = 0; i < m_shards.size(); ++i) {
            for (tensor_info& info : m_shards[i].contents.tensors) {
                info.shard = i;
                m_tensors.push_back(std::move(info));
            }
            m_shards[i].contents.tensors = {};
        }
        const auto twice = m_names.build(m_tensors.size(), [this](std::size_t i) { return m_tensors[i].name; });
        if (!twice) return;
        const tensor_info& first = m_tensors[twice->first];
        const tensor_info& second = m_tensors[twice->second];
        detail::fail(errc::duplicate_name,
                     "tensor stored twice: as tensors " + std::to_string(twice->first) + " (" +
                         shard_path(first.shard) + ") and " + std::to_string(twice->second),
                     {.file = shard_path(second.shard), .offset = second.offset, .subject = std::string(second.name)});
    }

    void check_set() const {
        if (m_shards.size() < 2) return;
        constexpr std::string_view total = "split.tensors.count";
        constexpr std::string_view architecture = "general.architecture";
        const gguf_value* expected = m_shards.front().contents.find(architecture);
        for (const loaded& shard : m_shards) {
            const std::string& file = shard.file.path();
            const auto count = detail::find_gguf_integer(shard.contents, file, total);
            if (count && *count != m_tensors.size())
                detail::fail(errc::shape_mismatch,
                             "the shards do not add up: expected " + std::to_string(*count) + " tensors, got " +
                                 std::to_string(m_tensors.size()),
                             {.file = file, .subject = std::string(total)});
            const gguf_value* repeated = shard.contents.find(architecture);
            if (expected == nullptr || repeated == nullptr) continue;
            const error_where where{.file = file, .offset = repeated->offset(), .subject = std::string(architecture)};
            const auto first = expected->to<std::string>({.file = shard_path(0), .subject = where.subject});
            const auto other = repeated->to<std::string>(where);
            if (first != other)
                detail::fail(errc::bad_value,
                             "shards of different models: expected \"" + first + "\", got \"" + other + "\"", where);
        }
    }

    detail::input_file reopen(const tensor_info& info) const { return shard(info).file.reopen(); }

    const loaded& shard(const tensor_info& info) const {
        if (info.shard >= m_shards.size())
            detail::fail(errc::bad_value,
                         "a tensor of another checkpoint: expected a shard below " + std::to_string(m_shards.size()) +
                             ", got " + std::to_string(info.shard),
                         {.subject = std::string(info.name)});
        return m_shards[info.shard];
    }

    std::vector<loaded> m_shards{};
    std::vector<tensor_info> m_tensors{};
    detail::name_index m_names{};
};

}  // namespace larql

#endif
