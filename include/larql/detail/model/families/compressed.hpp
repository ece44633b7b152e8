// SPDX-License-Identifier: Apache-2.0
//
// Families of compressed attention: DeepSeek-V4. Defaults are those of transformers 5.24's
// configuration_deepseek_v4.py.
#ifndef LARQL_DETAIL_MODEL_FAMILIES_COMPRESSED_HPP
#define LARQL_DETAIL_MODEL_FAMILIES_COMPRESSED_HPP

#include <larql/detail/model/families/names.hpp>
#include <larql/model_family.hpp>

#include <string_view>

namespace larql::detail {

// clang-format off
// Sources: transformers' conversion_mapping.py ("deepseek_v4") and modeling_deepseek_v4.py; llama.cpp's
// gguf-py/gguf/tensor_mapping.py. The first row of a role is the published name and llama.cpp's. What transformers
// writes differs in one: kv_norm is "norm" there.
inline constexpr name_row deepseek_v4_published_names[] = {
    {tensor_role::q_a,                         "layers.{}.attn.wq_a.weight",                        "blk.{}.attn_q_a.weight"},
    {tensor_role::q_a_norm,                    "layers.{}.attn.q_norm.weight",                      "blk.{}.attn_q_a_norm.weight"},
    {tensor_role::q_b,                         "layers.{}.attn.wq_b.weight",                        "blk.{}.attn_q_b.weight"},
    {tensor_role::k,                           "layers.{}.attn.wkv.weight",                         "blk.{}.attn_kv.weight"},
    {tensor_role::k_norm,                      "layers.{}.attn.kv_norm.weight",                     "blk.{}.attn_kv_a_norm.weight"},
    {tensor_role::k_norm,                      "layers.{}.attn.norm.weight"},
    {tensor_role::o_a,                         "layers.{}.attn.wo_a.weight",                        "blk.{}.attn_output_a.weight"},
    {tensor_role::o_b,                         "layers.{}.attn.wo_b.weight",                        "blk.{}.attn_output_b.weight"},
    {tensor_role::sinks,                       "layers.{}.attn.attn_sink",                          "blk.{}.attn_sinks.weight"},
    {tensor_role::compressor_kv,               "layers.{}.attn.compressor.wkv.weight",              "blk.{}.attn_compressor_kv.weight"},
    {tensor_role::compressor_gate,             "layers.{}.attn.compressor.wgate.weight",            "blk.{}.attn_compressor_gate.weight"},
    {tensor_role::compressor_position,         "layers.{}.attn.compressor.ape",                     "blk.{}.attn_compressor_ape.weight"},
    {tensor_role::compressor_norm,             "layers.{}.attn.compressor.norm.weight",             "blk.{}.attn_compressor_norm.weight"},
    {tensor_role::indexer_q_b,                   "layers.{}.attn.indexer.wq_b.weight",                "blk.{}.indexer.attn_q_b.weight"},
    {tensor_role::indexer_weights,             "layers.{}.attn.indexer.weights_proj.weight",        "blk.{}.indexer.proj.weight"},
    {tensor_role::indexer_compressor_kv,       "layers.{}.attn.indexer.compressor.wkv.weight",      "blk.{}.indexer_compressor_kv.weight"},
    {tensor_role::indexer_compressor_gate,     "layers.{}.attn.indexer.compressor.wgate.weight",    "blk.{}.indexer_compressor_gate.weight"},
    {tensor_role::indexer_compressor_position, "layers.{}.attn.indexer.compressor.ape",             "blk.{}.indexer_compressor_ape.weight"},
    {tensor_role::indexer_compressor_norm,     "layers.{}.attn.indexer.compressor.norm.weight",     "blk.{}.indexer_compressor_norm.weight"},
};

// What transformers' model calls them in memory; and the dialect of the "ds4" GGUF files, which ik_llama.cpp reads,
// too.
inline constexpr name_row deepseek_v4_other_names[] = {
    {tensor_role::q_a,                         "layers.{}.self_attn.q_a_proj.weight"},
    {tensor_role::q_a_norm,                    "layers.{}.self_attn.q_a_norm.weight"},
    {tensor_role::q_b,                         "layers.{}.self_attn.q_b_proj.weight"},
    {tensor_role::k,                           "layers.{}.self_attn.kv_proj.weight",                "blk.{}.attn_kv_latent.weight"},
    {tensor_role::k,                           "",                                                  "blk.{}.attn_kv_a_mqa.weight"},
    {tensor_role::k_norm,                      "layers.{}.self_attn.kv_norm.weight"},
    {tensor_role::o_a,                         "layers.{}.self_attn.o_a_proj.weight"},
    {tensor_role::o_b,                         "layers.{}.self_attn.o_b_proj.weight"},
    {tensor_role::sinks,                       "layers.{}.self_attn.sinks",                         "blk.{}.attn_sinks"},
    {tensor_role::compressor_kv,               "layers.{}.self_attn.compressor.kv_proj.weight",     "blk.{}.attn_compress_kv.weight"},
    {tensor_role::compressor_gate,             "layers.{}.self_attn.compressor.gate_proj.weight",   "blk.{}.attn_compress_gate.weight"},
    {tensor_role::compressor_position,         "layers.{}.self_attn.compressor.position_bias",      "blk.{}.attn_compress_ape.weight"},
    {tensor_role::compressor_position,         "",                                                  "blk.{}.attn_compress_ape"},
    {tensor_role::compressor_norm,             "layers.{}.self_attn.compressor.kv_norm.weight",     "blk.{}.attn_compress_norm.weight"},
    {tensor_role::indexer_q_b,                   "layers.{}.self_attn.compressor.indexer.q_b_proj.weight"},
    {tensor_role::indexer_weights,             "layers.{}.self_attn.compressor.indexer.scorer.weights_proj.weight"},
    {tensor_role::indexer_compressor_kv,       "layers.{}.self_attn.compressor.indexer.kv_proj.weight",    "blk.{}.indexer.compress_kv.weight"},
    {tensor_role::indexer_compressor_gate,     "layers.{}.self_attn.compressor.indexer.gate_proj.weight",  "blk.{}.indexer.compress_gate.weight"},
    {tensor_role::indexer_compressor_position, "layers.{}.self_attn.compressor.indexer.position_bias",     "blk.{}.indexer.compress_ape.weight"},
    {tensor_role::indexer_compressor_position, "",                                                         "blk.{}.indexer.compress_ape"},
    {tensor_role::indexer_compressor_norm,     "layers.{}.self_attn.compressor.indexer.kv_norm.weight",    "blk.{}.indexer.compress_norm.weight"},
};

// The rest of a layer. Hyper-connections make the block's input and take its output; they are no part of it.
inline constexpr name_row deepseek_v4_layer_names[] = {
    {tensor_role::inert,                       "layers.{}.hc_attn_fn",                              "blk.{}.hc_attn_fn.weight"},
    {tensor_role::inert,                       "layers.{}.hc_attn_base",                            "blk.{}.hc_attn_base.weight"},
    {tensor_role::inert,                       "layers.{}.hc_attn_scale",                           "blk.{}.hc_attn_scale.weight"},
    {tensor_role::inert,                       "layers.{}.attn_hc.fn",                              "blk.{}.hc_attn_fn"},
    {tensor_role::inert,                       "layers.{}.attn_hc.base",                            "blk.{}.hc_attn_base"},
    {tensor_role::inert,                       "layers.{}.attn_hc.scale",                           "blk.{}.hc_attn_scale"},
    {tensor_role::input_norm,                  "layers.{}.attn_norm.weight",                        "blk.{}.attn_norm.weight"},
    {tensor_role::ffn_norm,                    "layers.{}.ffn_norm.weight",                         "blk.{}.ffn_norm.weight"},
    {tensor_role::embedding,                   "embed.weight",                                      "token_embd.weight"},
    {tensor_role::output,                      "head.weight",                                       "output.weight", true},
};
// clang-format on
inline constexpr auto deepseek_v4_names =
    joined(deepseek_v4_published_names, deepseek_v4_other_names, deepseek_v4_layer_names, names_around_attention);

// Hyper-connections, routing and the feed-forward part: modeling_deepseek_v4.py.
inline constexpr std::string_view deepseek_v4_inert[] = {"hc_eps",
                                                         "hc_mult",
                                                         "hc_sinkhorn_iters",
                                                         "mlp_layer_types",
                                                         "swiglu_limit",
                                                         "hyper_connection.count",
                                                         "hyper_connection.epsilon",
                                                         "hyper_connection.sinkhorn_iterations",
                                                         "swiglu_clamp_exp",
                                                         "swiglu_clamp_shexp"};

inline constexpr model_family compressed_families[] = {
    {.name = "deepseek_v4",
     .model_types = {"deepseek_v4", "deepseek_ref"},  // the second in sgl-project's files
     .classes = {"DeepseekV4ForCausalLM", "DeepseekV4Model"},
     .gguf_architecture = "deepseek4",
     .names = deepseek_v4_names,
     .kind = attention_kind::compressed,
     .pairing = rope_pairing::interleaved,
     .q_norm = {.kind = norm_kind::rms, .has_gain = false},
     .k_norm = {.kind = norm_kind::rms},
     .latent_eps = 0.0,
     .windows = window_rule::every_block,
     .sinks = true,
     .partial_rotary = true,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .default_compress_rope_theta = 160000.0,
     .default_head_dim = 512,
     .default_sliding_window = 128,
     .defaults = {{{model_key::partial_rotary_factor, 64.0 / 512.0}}},
     .inert_keys = deepseek_v4_inert},
    {.name = "deepseek_v41",
     .model_types = {"deepseek_v41"},
     .classes = {"DeepseekV41ForCausalLM"},
     .gguf_architecture = "deepseek41",
     .refused =
         "layers share compressors, entries are chosen in two levels of top-k, and keys, entries and the indexer "
         "are quantised and back within the forward pass (fake quantisation)"},
};

}  // namespace larql::detail

#endif
