// SPDX-License-Identifier: Apache-2.0
//
// Families of latent attention with a sparse indexer. Defaults are those of transformers 5.24's configuration classes.
#ifndef LARQL_DETAIL_MODEL_FAMILIES_INDEXED_HPP
#define LARQL_DETAIL_MODEL_FAMILIES_INDEXED_HPP

#include <larql/detail/model/families/mla.hpp>
#include <larql/detail/model/families/names.hpp>
#include <larql/model_family.hpp>

namespace larql::detail {

// clang-format off
// Sources: transformers' modeling_deepseek_v32.py; llama.cpp's gguf-py/gguf/tensor_mapping.py.
inline constexpr name_row indexer_names[] = {
    {tensor_role::indexer_q_b,         "layers.{}.self_attn.indexer.wq_b.weight",          "blk.{}.indexer.attn_q_b.weight"},
    {tensor_role::indexer_k,           "layers.{}.self_attn.indexer.wk.weight",            "blk.{}.indexer.attn_k.weight"},
    {tensor_role::indexer_k_norm,      "layers.{}.self_attn.indexer.k_norm.weight",        "blk.{}.indexer.k_norm.weight"},
    {tensor_role::indexer_k_norm_bias, "layers.{}.self_attn.indexer.k_norm.bias",          "blk.{}.indexer.k_norm.bias"},
    {tensor_role::indexer_weights,     "layers.{}.self_attn.indexer.weights_proj.weight",  "blk.{}.indexer.proj.weight"},
};
// clang-format on
inline constexpr auto deepseek_indexed_names = joined(deepseek_names, indexer_names);

/// The LayerNorm of an indexer's key, whose eps is neither torch's default nor the configuration's.
inline constexpr norm_spec indexer_k_norm{.kind = norm_kind::layer, .has_bias = true, .eps = 1e-6};

/// What DeepSeek-V3.2 and its relatives share.
constexpr model_family deepseek_indexed(model_family row) {
    const std::string_view architecture = row.gguf_architecture;
    const std::optional<double> eps = row.default_rms_norm_eps;
    row = deepseek(row);
    row.gguf_architecture = architecture;
    row.names = deepseek_indexed_names;
    row.gguf_temperature = false;
    if (eps) row.default_rms_norm_eps = eps;
    return row;
}

inline constexpr model_family indexed_families[] = {
    deepseek_indexed(
        {.name = "deepseek_v32",
         .model_types = {"deepseek_v32"},
         .classes = {"DeepseekV32ForCausalLM", "DeepseekV32Model"},
         .gguf_architecture = "deepseek32",
         .indexer = {.blocks = indexer_blocks::every_block, .k_norm = indexer_k_norm, .default_heads = 64}}),
    deepseek_indexed({.name = "glm_moe_dsa",
                      .model_types = {"glm_moe_dsa"},
                      .classes = {"GlmMoeDsaForCausalLM", "GlmMoeDsaModel"},
                      .gguf_architecture = "glm-dsa",
                      .indexer = {.blocks = indexer_blocks::indexer_types,
                                  .pairing = rope_pairing::interleaved,
                                  .k_norm = indexer_k_norm,
                                  .default_heads = 32,
                                  .period_keys = true},
                      .default_rms_norm_eps = 1e-5}),
};

}  // namespace larql::detail

#endif
