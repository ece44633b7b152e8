// SPDX-License-Identifier: Apache-2.0
//
// The bodies of safetensors.hpp.
#ifndef LARQL_DETAIL_BODIES_SAFETENSORS_HPP
#define LARQL_DETAIL_BODIES_SAFETENSORS_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/io/input_file.hpp>
#include <larql/detail/io/name_arena.hpp>
#include <larql/detail/io/shard_names.hpp>
#include <larql/detail/safetensors/header.hpp>
#include <larql/detail/safetensors/index.hpp>
#include <larql/detail/separate.hpp>
#include <larql/detail/vindex/read.hpp>
#include <larql/error.hpp>
#include <larql/safetensors.hpp>
#include <larql/tensor_info.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace larql {

LARQL_INLINE safetensors_file safetensors_file::open(const std::filesystem::path& path) {
    std::error_code ignored;
    const bool folder = std::filesystem::is_directory(path, ignored);
    const std::filesystem::path file = folder ? detail::find_safetensors_in(path) : path;
    safetensors_file out;
    if (detail::path_text(file.filename()).ends_with(".json")) {
        out.load_index(file, read_index(file));
    } else {
        out.load_file(file);
    }
    return out;
}

LARQL_INLINE safetensors_file safetensors_file::open_vindex(const std::filesystem::path& folder,
                                                            const std::vector<detail::vindex_tensor>& tensors) {
    safetensors_file out;
    std::map<std::string, std::vector<tensor_info>> files;
    auto names = std::make_unique<detail::name_arena>();
    for (const detail::vindex_tensor& tensor : tensors)
        files[tensor.file].push_back({.name = names->add(tensor.name),
                                      .shape = tensor.shape,
                                      .type = tensor.type,
                                      .shard = 0,
                                      .offset = tensor.offset,
                                      .size_bytes = tensor.size_bytes});
    for (auto& [name, infos] : files) {
        const std::filesystem::path path = folder / std::filesystem::path(std::u8string(name.begin(), name.end()));
        const detail::input_file file = detail::input_file::open(path);
        for (const tensor_info& info : infos)
            if (info.offset > file.size_bytes() || info.size_bytes > file.size_bytes() - info.offset)
                detail::fail(errc::offset_out_of_range,
                             detail::concat({"expected an end within ", file.size_bytes(), " bytes, got ", info.offset,
                                             " + ", info.size_bytes}),
                             {.file = detail::path_text(path), .offset = {}, .subject = std::string(info.name)});
        out.add_shard(path, file.identity(), std::move(infos));
    }
    out.m_names.push_back(std::move(names));
    out.index_names();
    return out;
}

LARQL_INLINE void safetensors_file::load_shard(const std::filesystem::path& path) {
    const detail::input_file file = detail::input_file::open(path);
    detail::safetensors_contents contents =
        detail::parse_safetensors(file.size_bytes(), detail::path_text(path),
                                  [&](std::uint64_t offset, std::span<std::byte> out) { file.read_at(offset, out); });
    add_shard(path, file.identity(), std::move(contents.tensors));
    m_metadata.merge(contents.metadata);
    m_names.push_back(std::move(contents.names));
}

LARQL_INLINE detail::safetensors_index safetensors_file::read_index(const std::filesystem::path& path) {
    return detail::parse_safetensors_index(detail::read_text_file(path), detail::path_text(path));
}

LARQL_INLINE void safetensors_file::load_file(const std::filesystem::path& path) {
    const std::string text = detail::path_text(path.filename());
    std::vector<std::filesystem::path> files = {path};
    std::error_code ignored;
    // What is no file at all is left to the opening of it.
    if (const auto name = detail::parse_shard_name(text, detail::safetensors_ending);
        name && std::filesystem::is_regular_file(path, ignored)) {
        const std::filesystem::path at = path.parent_path() / std::filesystem::path(detail::index_name_of(*name));
        if (std::filesystem::exists(at, ignored)) {
            detail::safetensors_index index = read_index(at);
            if (std::binary_search(index.shards.begin(), index.shards.end(), text))
                return load_index(at, std::move(index));
        }
        files = detail::numbered_shards(path, *name);
    }
    for (const std::filesystem::path& file : files) load_shard(file);
    index_names();
}

LARQL_INLINE void safetensors_file::load_index(const std::filesystem::path& path, detail::safetensors_index&& index) {
    const std::string name = detail::path_text(path);
    set_path(name);
    for (const std::string& shard : index.shards) {
        const std::filesystem::path file =
            path.parent_path() / std::filesystem::path(std::u8string(shard.begin(), shard.end()));
        std::error_code ignored;
        if (!std::filesystem::exists(file, ignored))
            detail::fail(errc::missing_shard,
                         detail::concat({"a shard is missing: expected the ", index.shards.size(), " files of ", name,
                                         ", of which this one is absent"}),
                         {.file = detail::path_text(file)});
        load_shard(file);
    }
    index_names();
    std::vector<detail::placed_name> absent;
    for (const auto& [tensor, shard] : index.weight_map) {
        const tensor_info* info = find_tensor(tensor);
        if (info != nullptr && info->shard == shard) continue;
        if (info == nullptr) {
            absent.push_back({tensor, shard});
            continue;
        }
        detail::fail(errc::missing_tensor,
                     "the index names a tensor that is not in its shard: expected it in " + index.shards[shard] +
                         ", got it in " + shard_path(info->shard),
                     {.file = shard_path(shard), .subject = std::string(tensor)});
    }
    set_absent(std::move(absent), std::move(index.names));
}

}  // namespace larql

#endif
