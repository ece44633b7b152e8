// SPDX-License-Identifier: Apache-2.0
//
// GGUF checkpoints: one file or all shards of a set as one object, with metadata and tensors.
//
// Goals: nothing is copied that can be viewed, and nothing is believed that was not checked. Opening walks every byte
// of the headers and none of the data. Files of version 1, 2 and 3 are read; big-endian ones are refused by name.
#ifndef LARQL_GGUF_HPP
#define LARQL_GGUF_HPP

#include <larql/detail/gguf/parse.hpp>
#include <larql/detail/gguf/shards.hpp>
#include <larql/detail/gguf/value.hpp>
#include <larql/detail/tensors/sharded_tensors.hpp>
#include <larql/error.hpp>
#include <larql/mapped_file.hpp>
#include <larql/tensor_info.hpp>

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
class gguf_file : public detail::sharded_tensors {
public:
    /// Opens a checkpoint and checks all of it but the numbers inside the tensors.
    ///
    /// @param path  a .gguf file; any shard of a set, also through symbolic links; or a folder that holds one GGUF
    ///              model
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

    /// GGUF version of the first shard: 1, 2 or 3.
    [[nodiscard]] std::uint32_t version() const noexcept { return m_contents.front().version; }
    /// Alignment of tensor data in the first shard, in bytes.
    [[nodiscard]] std::uint64_t alignment() const noexcept { return m_contents.front().alignment; }

    /// Metadata of the first shard, which holds the model's, in stored order.
    [[nodiscard]] std::span<const gguf_entry> metadata() const& noexcept { return m_contents.front().entries; }
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
    [[nodiscard]] const gguf_value* find_value(std::string_view key) const& { return m_contents.front().find(key); }
    const gguf_value* find_value(std::string_view) const&& = delete;

    /// The value of a key as T (see gguf_value::to), or nothing if the key is absent.
    /// @throws error wrong_type, or bad_value if a number does not fit T
    template <class T>
    [[nodiscard]] std::optional<T> find(std::string_view key) const& {
        const gguf_value* value = m_contents.front().find(key);
        if (value == nullptr) return std::nullopt;
        return value->to<T>({.file = shard_path(0), .offset = value->offset(), .subject = std::string(key)});
    }
    template <class T>
        requires detail::views_file<T>
    std::optional<T> find(std::string_view) const&& = delete;  // other types own what they hold

    /// The value of a key as T.
    /// @throws error missing_key, wrong_type, or bad_value if a number does not fit T
    template <class T>
    [[nodiscard]] T get(std::string_view key) const& {
        if (auto value = find<T>(key)) return std::move(*value);
        detail::fail(errc::missing_key, "expected " + detail::gguf_type_wanted<T>() + ", got no such metadata key",
                     {.file = shard_path(0), .subject = std::string(key)});
    }
    template <class T>
        requires detail::views_file<T>
    T get(std::string_view) const&& = delete;

private:
    gguf_file() = default;

    struct loaded {
        mapped_file file;
        detail::gguf_contents contents;
    };

    static loaded load_one(const std::filesystem::path& path) {
        mapped_file file = mapped_file::open(path);
        detail::gguf_contents contents = detail::gguf_parser(file.bytes(), file.path()).parse();
        return {std::move(file), std::move(contents)};
    }

    void add(const std::filesystem::path& path, loaded&& shard) {
        const detail::file_identity identity = shard.file.identity();
        add_shard(path, identity, std::move(shard.contents.tensors), std::move(shard.file));
        m_contents.push_back(std::move(shard.contents));
    }

    void load(const std::filesystem::path& path) {
        loaded given = load_one(path);
        const detail::gguf_split split = detail::read_gguf_split(given.contents, given.file.path());
        if (split.count == 0 || (split.count == 1 && !detail::shard_set_at(path, detail::gguf_ending))) {
            add(path, std::move(given));  // a set of one is complete whatever its name
        } else {
            const detail::shard_set set = detail::locate_gguf_shards(path, split);
            for (std::size_t i = 0; i < set.files.size(); ++i) {
                add(set.files[i], i == set.given ? std::move(given) : load_one(set.files[i]));
                check_place(i, set.files.size());
            }
        }
        index_names();
        check_set();
    }

    // A file that was renamed or downloaded twice has the wrong number inside.
    void check_place(std::size_t position, std::size_t count) const {
        const std::string& file = shard_path(position);
        const detail::gguf_split split = detail::read_gguf_split(m_contents[position], file);
        const auto expect = [&](std::string_view key, std::uint64_t expected, std::uint64_t got) {
            if (expected == got) return;
            detail::fail(errc::bad_value,
                         "the file's name and metadata disagree: expected " + std::to_string(expected) +
                             " by its name, got " + std::to_string(got),
                         {.file = file, .subject = std::string(key)});
        };
        expect("split.count", count, split.count);
        expect("split.no", position, split.number);
    }

    void check_set() const {
        if (m_contents.size() < 2) return;
        constexpr std::string_view total = "split.tensors.count";
        constexpr std::string_view architecture = "general.architecture";
        const gguf_value* expected = m_contents.front().find(architecture);
        for (std::size_t i = 0; i < m_contents.size(); ++i) {
            const std::string& file = shard_path(i);
            const auto count = detail::find_gguf_integer(m_contents[i], file, total);
            if (count && *count != tensors().size())
                detail::fail(errc::shape_mismatch,
                             "the shards do not add up: expected " + std::to_string(*count) + " tensors, got " +
                                 std::to_string(tensors().size()),
                             {.file = file, .subject = std::string(total)});
            const gguf_value* repeated = m_contents[i].find(architecture);
            if (expected == nullptr || repeated == nullptr) continue;
            const error_where where{.file = file, .offset = repeated->offset(), .subject = std::string(architecture)};
            const auto first = expected->to<std::string>({.file = shard_path(0), .subject = where.subject});
            const auto other = repeated->to<std::string>(where);
            if (first != other)
                detail::fail(errc::bad_value,
                             "shards of different models: expected " + detail::quoted_name(first) + ", got " +
                                 detail::quoted_name(other),
                             where);
        }
    }

    std::vector<detail::gguf_contents> m_contents{};  // without the tensors
};

}  // namespace larql

#endif
