// SPDX-License-Identifier: Apache-2.0
//
// Which files a path stands for, and the sizes that a configuration implies.
#ifndef LARQL_DETAIL_CHECKPOINT_FILES_HPP
#define LARQL_DETAIL_CHECKPOINT_FILES_HPP

#include <larql/detail/safetensors/index.hpp>
#include <larql/error.hpp>
#include <larql/gguf.hpp>
#include <larql/mla_geometry.hpp>
#include <larql/model_config.hpp>
#include <larql/safetensors.hpp>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>

namespace larql::detail {

/// The files of a checkpoint; at most one of the two formats. Held by pointer, because weights refer to them.
struct checkpoint_files {
    std::string path;
    std::unique_ptr<gguf_file> gguf;
    std::unique_ptr<safetensors_file> safetensors;
    std::string config_path;
    std::optional<std::string> config_text;
};

inline bool folder_has(const std::filesystem::path& folder, std::string_view extension) {
    for (const std::filesystem::path& file : list_files(folder))
        if (file.extension() == extension) return true;
    return false;
}

inline checkpoint_files open_checkpoint_files(const std::filesystem::path& path) {
    checkpoint_files files;
    files.path = path.string();
    std::error_code ignored;
    const bool folder = std::filesystem::is_directory(path, ignored);
    const bool safetensors = folder ? folder_has(path, ".safetensors") || folder_has(path, ".json")
                                    : path.extension() == ".safetensors" || path.extension() == ".json";
    const std::filesystem::path config = (folder ? path : path.parent_path()) / "config.json";
    const bool has_config = std::filesystem::exists(config, ignored);
    const bool has_tensors = !folder || folder_has(path, ".safetensors");
    if (!safetensors || (folder && !has_tensors && folder_has(path, ".gguf"))) {
        files.gguf = std::make_unique<gguf_file>(gguf_file::open(path));
        return files;
    }
    if (has_config) {
        files.config_path = config.string();
        files.config_text = read_text_file(config);
    }
    const bool config_alone = folder ? !has_tensors && has_config : path.filename() == "config.json";
    if (!config_alone) files.safetensors = std::make_unique<safetensors_file>(safetensors_file::open(path));
    return files;
}

/// The sizes of a model's attention blocks. Plain attention rotates the leading elements of a head.
inline mla_geometry geometry_of(const model_config& model) {
    const bool latent = model.attention == attention_kind::mla;
    const std::size_t rotated = latent ? model.qk_rope_head_dim : model.rope.rotary_dim;
    return {.hidden_size = model.hidden_size,
            .num_heads = model.num_attention_heads,
            .num_kv_heads = model.num_key_value_heads,
            .q_lora_rank = model.q_lora_rank,
            .kv_lora_rank = model.kv_lora_rank,
            .qk_nope_head_dim = latent ? model.qk_nope_head_dim : model.head_dim - rotated,
            .qk_rope_head_dim = rotated,
            .v_head_dim = model.v_head_dim,
            .order = latent ? model.order : head_order::rope_nope,
            .pairing = model.pairing};
}

}  // namespace larql::detail

#endif
