// SPDX-License-Identifier: Apache-2.0
//
// Safetensors checkpoints: one file, or all shards of an index as one object.
//
// Goals: headers are read and checked at open with ordinary reads; a shard is mapped only when its bytes are asked for,
// so that a model of hundreds of shards opens without touching data. What scales or packed integers mean is not known
// here.
#ifndef LARQL_SAFETENSORS_HPP
#define LARQL_SAFETENSORS_HPP

#include <larql/detail/name_index.hpp>
#include <larql/detail/safetensors_header.hpp>
#include <larql/detail/safetensors_index.hpp>
#include <larql/detail/tensor_reading.hpp>
#include <larql/error.hpp>
#include <larql/mapped_file.hpp>
#include <larql/tensor_info.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace larql {

/// An open safetensors checkpoint. Move-only. Tensor infos and bytes are views into it: they stay valid when the object
/// moves and end with it. All const functions may be called from several threads at once.
class safetensors_file {
public:
    /// Opens a checkpoint and checks the headers of all its files.
    ///
    /// @param path  a .safetensors file; an index (.safetensors.index.json); or a folder that holds model.safetensors,
    /// an
    ///              index, or exactly one safetensors file
    /// @throws error io, not_a_file, truncated, corrupt_header, duplicate_name, unknown_dtype, shape_mismatch,
    ///         offset_out_of_range, missing_tensor, missing_shard, limit_exceeded, bad_value or missing_key, naming the
    ///         faulty file
    /// @note   An index is held against its shards both ways: every mapped tensor must be in its shard. Tensors that
    /// the
    ///         index forgets are read too; a wrong total_size is ignored.
    static safetensors_file open(const std::filesystem::path& path) {
        std::error_code ignored;
        const bool folder = std::filesystem::is_directory(path, ignored);
        const std::filesystem::path file = folder ? detail::find_safetensors_in(path) : path;
        safetensors_file out;
        if (detail::path_text(file.filename()).ends_with(".json")) {
            out.load_index(file);
        } else {
            out.load_shard(file);
            out.index_names();
        }
        return out;
    }

    safetensors_file(safetensors_file&&) noexcept = default;
    safetensors_file& operator=(safetensors_file&&) noexcept = default;
    safetensors_file(const safetensors_file&) = delete;
    safetensors_file& operator=(const safetensors_file&) = delete;
    ~safetensors_file() = default;

    /// Tensors of all shards, in the order of the files and of the data in each.
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
                     {.file = m_path, .subject = std::string(name)});
    }
    const tensor_info& at_tensor(std::string_view) const&& = delete;

    /// The stored bytes of a tensor of this checkpoint, a view into the map of its shard, which the first call makes.
    /// See mapped_file for what happens if somebody shortens the file meanwhile.
    /// @throws error source_changed if the shard is not the file whose header was read
    [[nodiscard]] std::span<const std::byte> bytes(const tensor_info& info) const& {
        const std::span<const std::byte> all = shard_of(info).map();
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

    /// The strings of `__metadata__`, of all shards; where two shards differ, the first one's.
    [[nodiscard]] const std::map<std::string, std::string>& metadata() const& noexcept { return m_metadata; }
    const std::map<std::string, std::string>& metadata() const&& = delete;

    [[nodiscard]] std::size_t shard_count() const noexcept { return m_shards.size(); }
    /// Path of a shard, from 0.
    [[nodiscard]] const std::string& shard_path(std::size_t index) const { return m_shards.at(index)->text; }
    /// True once a shard's data has been mapped.
    [[nodiscard]] bool is_mapped(std::size_t index) const { return m_shards.at(index)->is_mapped(); }

    /// Checks that every shard still is the file that was opened, with the same size and modification time.
    /// @throws error source_changed naming the shard
    void verify_unchanged() const {
        for (const auto& shard : m_shards) (void)detail::open_unchanged(shard->path, shard->identity);
    }

private:
    // Behind a pointer: a mutex does not move.
    struct lazy_shard {
        std::filesystem::path path;  // absolute
        std::string text;            // as the user sees it
        detail::file_identity identity;
        std::unique_ptr<std::deque<std::string>> names;
        mutable std::mutex mutex{};
        mutable std::optional<mapped_file> file{};

        std::span<const std::byte> map() const {
            const std::lock_guard lock(mutex);
            if (!file) {
                mapped_file opened = mapped_file::open(path);
                if (opened.identity() != identity)
                    detail::fail(errc::source_changed,
                                 "the file changed after its header was read: expected " +
                                     std::to_string(identity.size_bytes) + " bytes, got " +
                                     std::to_string(opened.size_bytes()) + ", or it was modified or replaced",
                                 {.file = text});
                file.emplace(std::move(opened));
            }
            return file->bytes();
        }
        bool is_mapped() const {
            const std::lock_guard lock(mutex);
            return file.has_value();
        }
    };

    safetensors_file() = default;

    void load_shard(const std::filesystem::path& path) {
        const detail::input_file file = detail::input_file::open(path);
        auto shard = std::make_unique<lazy_shard>();
        shard->text = detail::path_text(path);
        shard->identity = file.identity();
        std::error_code failed;
        shard->path = std::filesystem::absolute(path, failed);
        if (failed) shard->path = path;
        detail::safetensors_contents contents = detail::parse_safetensors(
            file.size_bytes(), shard->text,
            [&](std::uint64_t offset, std::span<std::byte> out) { file.read_at(offset, out); });
        for (tensor_info& info : contents.tensors) {
            info.shard = m_shards.size();
            m_tensors.push_back(std::move(info));
        }
        m_metadata.merge(contents.metadata);
        shard->names = std::move(contents.names);
        if (m_path.empty()) m_path = shard->text;
        m_shards.push_back(std::move(shard));
    }

    void index_names() {
        const auto twice = m_names.build(m_tensors.size(), [this](std::size_t i) { return m_tensors[i].name; });
        if (!twice) return;
        const tensor_info& first = m_tensors[twice->first];
        const tensor_info& second = m_tensors[twice->second];
        detail::fail(errc::duplicate_name,
                     "tensor stored twice: in " + shard_path(first.shard) + " at byte " + std::to_string(first.offset) +
                         " and again",
                     {.file = shard_path(second.shard), .offset = second.offset, .subject = std::string(second.name)});
    }

    void load_index(const std::filesystem::path& path) {
        m_path = detail::path_text(path);
        const std::string text = detail::read_text_file(path);
        const detail::safetensors_index index = detail::parse_safetensors_index(text, m_path);
        for (const std::string& shard : index.shards) {
            const std::filesystem::path file =
                path.parent_path() / std::filesystem::path(std::u8string(shard.begin(), shard.end()));
            std::error_code ignored;
            if (!std::filesystem::exists(file, ignored))
                detail::fail(errc::missing_shard,
                             "a shard is missing: expected the " + std::to_string(index.shards.size()) + " files of " +
                                 m_path + ", of which this one is absent",
                             {.file = detail::path_text(file)});
            load_shard(file);
        }
        index_names();
        for (const auto& [name, shard] : index.weight_map) {
            const tensor_info* info = find_tensor(name);
            if (info != nullptr && info->shard == shard) continue;
            detail::fail(errc::missing_tensor,
                         "the index names a tensor that is not in its shard: expected it in " + index.shards[shard] +
                             ", got " + (info == nullptr ? "no such tensor" : "it in " + shard_path(info->shard)),
                         {.file = shard_path(shard), .subject = name});
        }
    }

    detail::input_file reopen(const tensor_info& info) const {
        const lazy_shard& shard = shard_of(info);
        return detail::open_unchanged(shard.path, shard.identity);
    }

    const lazy_shard& shard_of(const tensor_info& info) const {
        if (info.shard >= m_shards.size())
            detail::fail(errc::bad_value,
                         "a tensor of another checkpoint: expected a shard below " + std::to_string(m_shards.size()) +
                             ", got " + std::to_string(info.shard),
                         {.subject = std::string(info.name)});
        return *m_shards[info.shard];
    }

    std::string m_path{};
    std::vector<std::unique_ptr<lazy_shard>> m_shards{};
    std::vector<tensor_info> m_tensors{};
    detail::name_index m_names{};
    std::map<std::string, std::string> m_metadata{};
};

}  // namespace larql

#endif
