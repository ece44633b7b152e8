// SPDX-License-Identifier: Apache-2.0
//
// Which files a path stands for.
#ifndef LARQL_DETAIL_CHECKPOINT_FILES_HPP
#define LARQL_DETAIL_CHECKPOINT_FILES_HPP

#include <larql/detail/safetensors/index.hpp>
#include <larql/detail/vindex/read.hpp>
#include <larql/error.hpp>
#include <larql/gguf.hpp>
#include <larql/safetensors.hpp>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

namespace larql::detail {

/// The files of a checkpoint; at most one of the two formats. What reads from them shares their ownership.
struct checkpoint_files {
    std::string path;
    std::shared_ptr<const gguf_file> gguf;
    std::shared_ptr<const safetensors_file> safetensors;
    bool is_vindex = false;   ///< `safetensors` are those of a vindex folder
    std::string config_path;  ///< of the file that holds config_text
    std::optional<std::string> config_text;
};

/// A path from UTF-8 text, as path_text makes it.
inline std::filesystem::path path_from_text(std::string_view text) { return {std::u8string(text.begin(), text.end())}; }

inline bool folder_has(const std::filesystem::path& folder, std::string_view extension) {
    for (const std::filesystem::path& file : list_files(folder))
        if (file.extension() == extension) return true;
    return false;
}

/// Whether an index in the folder lists shards that are there, in folders within it. Without any of them the
/// configuration beside the index is all there is.
/// @throws error what is wrong with the index
inline bool has_indexed_shards(const std::filesystem::path& folder) {
    for (const std::filesystem::path& file : list_files(folder)) {
        if (!path_text(file.filename()).ends_with(".safetensors.index.json")) continue;
        for (const std::string& shard : parse_safetensors_index(read_text_file(file), path_text(file)).shards) {
            std::error_code ignored;
            if (std::filesystem::exists(folder / path_from_text(shard), ignored)) return true;
        }
    }
    return false;
}

/// Architectures of GGUF files that larql alone reads, and their key that holds a config.json: tensors have
/// transformers' names.
inline constexpr std::string_view own_gguf_prefix = "larql-";
inline constexpr std::string_view own_gguf_config = "larql.config";

/// The configuration in a GGUF file of larql's own.
/// @throws error errc::missing_key
inline void read_own_config(checkpoint_files& files) {
    const auto architecture = files.gguf->find<std::string>("general.architecture");
    if (!architecture || !architecture->starts_with(own_gguf_prefix)) return;
    files.config_path = files.gguf->shard_path(0);
    files.config_text = files.gguf->find<std::string>(own_gguf_config);
    if (!files.config_text)
        fail(errc::missing_key, "required and absent",
             {.file = files.config_path, .subject = std::string(own_gguf_config)});
}

inline checkpoint_files open_checkpoint_files(const std::filesystem::path& path) {
    checkpoint_files files;
    files.path = path_text(path);
    std::error_code ignored;
    const bool folder = std::filesystem::is_directory(path, ignored);
    if (folder && std::filesystem::exists(path / vindex_manifest, ignored) &&
        std::filesystem::exists(path / vindex_index, ignored)) {
        vindex_contents contents = vindex_reader(path).read();
        files.is_vindex = true;
        files.config_path = path_text(path / vindex_index);
        files.config_text = std::move(contents.config);
        files.safetensors =
            std::make_shared<const safetensors_file>(safetensors_file::open_vindex(path, contents.tensors));
        return files;
    }
    const bool safetensors = folder ? folder_has(path, ".safetensors") || folder_has(path, ".json")
                                    : path.extension() == ".safetensors" || path.extension() == ".json";
    std::filesystem::path config = (folder ? path : path.parent_path()) / "config.json";
    // Mistral's own files have another name; a config.json that stands beside it describes the tensors of its own.
    if (!std::filesystem::exists(config, ignored)) config.replace_filename("params.json");
    const bool has_config = std::filesystem::exists(config, ignored);
    const bool has_tensors = !folder || folder_has(path, ".safetensors") || has_indexed_shards(path);
    if (!safetensors || (folder && !has_tensors && folder_has(path, ".gguf"))) {
        files.gguf = std::make_shared<const gguf_file>(gguf_file::open(path));
        read_own_config(files);
        return files;
    }
    if (has_config) {
        files.config_path = path_text(config);
        files.config_text = read_text_file(config, max_config_bytes);
    }
    const bool config_alone =
        folder ? !has_tensors && has_config : path.filename() == "config.json" || path.filename() == "params.json";
    if (!config_alone) files.safetensors = std::make_shared<const safetensors_file>(safetensors_file::open(path));
    return files;
}

}  // namespace larql::detail

#endif
