// SPDX-License-Identifier: Apache-2.0
//
// GGUF checkpoints: one file or all shards of a set as one object, with metadata and tensors.
//
// Goals: nothing is believed that was not checked, and nothing that was checked can change. Opening reads the headers
// into memory, once, and none of the data. Files of version 1, 2 and 3 are read; big-endian ones are refused by name.
#ifndef LARQL_GGUF_HPP
#define LARQL_GGUF_HPP

#include <larql/detail/gguf/contents.hpp>
#include <larql/detail/gguf/value.hpp>
#include <larql/detail/io/header_memory.hpp>
#include <larql/detail/io/input_file.hpp>
#include <larql/detail/separate.hpp>
#include <larql/detail/tensors/sharded_tensors.hpp>
#include <larql/error.hpp>
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

/// An open GGUF checkpoint. Move-only. Tensor infos, keys and string values are views into its copies of the headers,
/// tensor bytes into its maps, made when they are first asked for: all stay valid when the object moves and end with
/// it. All const functions may be called from several threads at once.
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
    /// @note   Linear in the size of the headers, in time and memory. A set of shards is opened whole, because only its
    /// first file holds
    ///         the model's metadata and any file may hold any tensor.
    static gguf_file open(const std::filesystem::path& path);

    /// GGUF version of the first shard: 1, 2 or 3.
    [[nodiscard]] std::uint32_t version() const noexcept { return m_contents.front().version; }
    /// Alignment of tensor data in the first shard, in bytes.
    [[nodiscard]] std::uint64_t alignment() const noexcept { return m_contents.front().alignment; }

    /// Metadata of the first shard, which holds the model's, in stored order.
    [[nodiscard]] std::span<const gguf_entry> metadata() const& noexcept { return m_contents.front().entries; }
    std::span<const gguf_entry> metadata() const&& = delete;

    /// The metadata keys in stored order, as views.
    [[nodiscard]] std::vector<std::string_view> keys() const&;
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
        std::string name;
        detail::file_identity identity;
        detail::header_memory header;
        detail::gguf_contents contents{};
    };

    static loaded load_one(const std::filesystem::path& path);

    void add(const std::filesystem::path& path, loaded&& shard);

    void load(const std::filesystem::path& path);

    // A file that was renamed or downloaded twice has the wrong number inside.
    void check_place(std::size_t position, std::size_t count) const;

    void check_set() const;

    std::vector<detail::gguf_contents> m_contents{};  // without the tensors
    std::vector<detail::header_memory> m_headers{};   // what they and the tensors' names view
};

}  // namespace larql

#ifndef LARQL_SEPARATE
#include <larql/detail/bodies/gguf.hpp>
#endif

#endif
