// SPDX-License-Identifier: Apache-2.0
//
// Safetensors checkpoints: one file, or all shards of an index as one object.
//
// Goals: headers are read and checked at open with ordinary reads; a shard is mapped only when its bytes are asked for,
// so that a model of hundreds of shards opens without touching data. What scales or packed integers mean is not known
// here.
#ifndef LARQL_SAFETENSORS_HPP
#define LARQL_SAFETENSORS_HPP

#include <larql/detail/io/name_arena.hpp>
#include <larql/detail/separate.hpp>
#include <larql/detail/tensors/sharded_tensors.hpp>
#include <larql/error.hpp>
#include <larql/tensor_info.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace larql {

namespace detail {
struct safetensors_index;
struct vindex_tensor;
}  // namespace detail

/// An open safetensors checkpoint. Move-only. Tensor infos and bytes are views into it: they stay valid when the object
/// moves and end with it. All const functions may be called from several threads at once.
class safetensors_file : public detail::sharded_tensors {
public:
    /// Opens a checkpoint and checks the headers of all its files.
    ///
    /// @param path  a .safetensors file; any of the numbered shards of a model, NAME-00001-of-00003.safetensors; an
    /// index
    ///              (.safetensors.index.json); or a folder that holds model.safetensors, an index, or exactly one
    ///              safetensors file or set of numbered shards
    /// @throws error io, not_a_file, truncated, corrupt_header, duplicate_name, unknown_dtype, shape_mismatch,
    ///         offset_out_of_range, missing_tensor, missing_shard, limit_exceeded, bad_magic, bad_value or missing_key,
    ///         naming the faulty file
    /// @note   An index is held against its shards both ways. Every shard must be there, and no tensor in another one
    ///         than the index says. A tensor that the index names and no shard has is missing_tensor when it is asked
    ///         for: published models lack tensors that nothing uses. Tensors that the index forgets are read too; a
    ///         wrong total_size is ignored. Numbered shards are read by their index if it lists them.
    static safetensors_file open(const std::filesystem::path& path);

    /// Opens files without headers, whose tensors another file describes.
    /// @throws error offset_out_of_range for a tensor beyond its file's end, duplicate_name, io
    static safetensors_file open_vindex(const std::filesystem::path& folder,
                                        const std::vector<detail::vindex_tensor>& tensors);

    /// The strings of `__metadata__`, of all shards; where two shards differ, the first one's.
    [[nodiscard]] const std::map<std::string, std::string>& metadata() const& noexcept { return m_metadata; }
    const std::map<std::string, std::string>& metadata() const&& = delete;

    /// True once a shard's data has been mapped.
    [[nodiscard]] bool is_mapped(std::size_t index) const { return is_shard_mapped(index); }

private:
    safetensors_file() = default;

    void load_shard(const std::filesystem::path& path);

    static detail::safetensors_index read_index(const std::filesystem::path& path);

    void load_file(const std::filesystem::path& path);

    void load_index(const std::filesystem::path& path, detail::safetensors_index&& index);

    std::vector<std::unique_ptr<detail::name_arena>> m_names{};  // what the infos of each shard point into
    std::map<std::string, std::string> m_metadata{};
};

}  // namespace larql

#ifndef LARQL_SEPARATE
#include <larql/detail/bodies/safetensors.hpp>
#endif

#endif
