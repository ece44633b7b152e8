// SPDX-License-Identifier: Apache-2.0
//
// Families of latent attention with a sparse indexer. Defaults are those of transformers 5.24's configuration classes.
#ifndef LARQL_DETAIL_MODEL_FAMILIES_INDEXED_HPP
#define LARQL_DETAIL_MODEL_FAMILIES_INDEXED_HPP

#include <larql/detail/model/families/mla.hpp>
#include <larql/detail/model/families/mla_hybrid.hpp>
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
    row.names = deepseek_indexed_names;
    row = deepseek(row);
    row.gguf_architecture = architecture;
    row.gguf_temperature = false;
    row.gguf_output.keeps_predicting = true;
    return row;
}

// clang-format off
// modeling_hy_v4.py, and the names of the published files (conversion_mapping.py).
inline constexpr name_row hy_v4_own_names[] = {
    {tensor_role::gate,                "layers.{}.self_attn.linear_gate.weight"},
    {tensor_role::gate,                "layers.{}.self_attn.gate_proj.weight"},
    {tensor_role::sinks,               "layers.{}.self_attn.learnable_sink_param"},
    {tensor_role::sinks,               "layers.{}.self_attn.sinks"},
};
// modeling_glm5_next.py, and the names of the published files (conversion_mapping.py); llama.cpp's conversion/glm.py.
inline constexpr name_row glm5_next_own_names[] = {
    {tensor_role::indexer_pool_gate,   "layers.{}.self_attn.indexer.index_kpool_compress_gate", "blk.{}.indexer_compressor_gate.weight"},
    {tensor_role::indexer_pool_bias,   "layers.{}.self_attn.indexer.index_kpool_compress_ape",  "blk.{}.indexer_compressor_ape.weight"},
    {tensor_role::hyper_attention_mix,   "layers.{}.hc_attn_fn",                             "blk.{}.hc_attn_fn.weight"},
    {tensor_role::hyper_attention_bias,  "layers.{}.hc_attn_base",                           "blk.{}.hc_attn_base.weight"},
    {tensor_role::hyper_attention_scale, "layers.{}.hc_attn_scale",                          "blk.{}.hc_attn_scale.weight"},
    {tensor_role::hyper_ffn_mix,         "layers.{}.hc_ffn_fn",                              "blk.{}.hc_ffn_fn.weight"},
    {tensor_role::hyper_ffn_bias,        "layers.{}.hc_ffn_base",                            "blk.{}.hc_ffn_base.weight"},
    {tensor_role::hyper_ffn_scale,       "layers.{}.hc_ffn_scale",                           "blk.{}.hc_ffn_scale.weight"},
};
// clang-format on
inline constexpr auto hy_v4_names = joined(deepseek_names, indexer_names, hy_v4_own_names);
inline constexpr auto glm5_next_names =
    joined(delta_attention_names, deepseek_names, indexer_names, glm5_next_own_names);

/// Of connections around attention, and of training.
inline constexpr std::string_view hy_v4_inert[] = {"hc_eps", "hc_magnitude", "learnable_sink_init"};
/// Of connections around attention, and of layers with linear attention.
inline constexpr std::string_view glm5_next_inert[] = {"hc_eps",
                                                       "hc_sinkhorn_iters",
                                                       "linear_head_dim",
                                                       "linear_num_heads",
                                                       "linear_conv_kernel_dim",
                                                       "linear_lower_bound",
                                                       "kda.head_dim",
                                                       "kda.gate_lower_bound",
                                                       "swiglu_clamp_exp",
                                                       "swiglu_clamp_shexp",
                                                       "hyper_connection.epsilon",
                                                       "hyper_connection.sinkhorn_iterations"};
inline constexpr carried_value glm5_next_carried[] = {
    {"linear_attn_config.short_conv_kernel_size", "linear_conv_kernel_dim", "ssm.conv_kernel"},
    {"linear_attn_config.head_dim", "linear_head_dim", "kda.head_dim"},
    {"linear_attn_config.num_heads", "linear_num_heads", "attention.head_count"},
    {"linear_attn_config.gate_lower_bound", "linear_lower_bound", "kda.gate_lower_bound", carried_kind::number},
    {"hc_mult", "", "hyper_connection.count"},
    {"hc_sinkhorn_iters", "", "hyper_connection.sinkhorn_iterations"},
    {"hc_eps", "", "hyper_connection.epsilon", carried_kind::number},
    {"swiglu_limit", "", "swiglu_clamp_exp", carried_kind::repeated},
    {"swiglu_limit", "", "swiglu_clamp_shexp", carried_kind::repeated}};
/// Of the norm of an indexer's keys.
inline constexpr fixed_number glm5_next_stated[] = {{"attention.layer_norm_epsilon", indexer_k_norm.eps}};

/// Hunyuan 4, whose text-only and whose multimodal model differ in pairing and in an eps.
constexpr model_family hy_v4(model_family row) {
    row.names = hy_v4_names;
    row.gate = output_gate::per_element;
    row.sinks = true;
    row.indexer.blocks = indexer_blocks::indexer_types;
    row.indexer.order = head_order::nope_rope;
    row.indexer.pairing = row.pairing;
    row.indexer.k_norm = {.kind = norm_kind::layer, .has_bias = true};
    row.indexer.default_period = 4;
    row.default_rms_norm_eps = 1e-5;
    row.inert_keys = hy_v4_inert;
    return latent_attention(row);
}

// clang-format off
// modeling_dots3_note.py
inline constexpr name_row dots3_own_names[] = {
    {tensor_role::k_rope_norm,         "layers.{}.self_attn.k_rope_only_layernorm.weight"},
    {tensor_role::gate,                "layers.{}.self_attn.g_proj.weight"},
};
// configuration_dots3_note.py; a key/value head for each query head, whatever is stated
inline constexpr window_key dots3_window_keys[] = {
    {model_key::num_attention_heads,   "swa_num_attention_heads", 64},
    {model_key::num_key_value_heads,   "swa_num_key_value_heads", 64},
    {model_key::q_lora_rank,           "swa_q_lora_rank",         1024},
    {model_key::kv_lora_rank,          "swa_kv_lora_rank",        1024},
    {model_key::head_dim,              "swa_head_dim",            256},
    {model_key::qk_nope_head_dim,      "swa_qk_nope_head_dim",    192},
    {model_key::v_head_dim,            "swa_v_head_dim",          128},
    {model_key::qk_rope_head_dim,      "swa_qk_rope_head_dim"},
};
// clang-format on
// modeling_axk2.py, and the names of the published files (conversion_mapping.py). The parts by themselves are larql's.
inline constexpr name_row axk2_own_names[] = {
    {tensor_role::q_gate_b, "layers.{}.self_attn.q_b_proj.weight"},
    {tensor_role::q_gate_b, "layers.{}.self_attn.q_gate_proj.weight"},
    {tensor_role::q_b, "layers.{}.self_attn.q_b_normed_proj.weight"},
    {tensor_role::q_b_raw, "layers.{}.self_attn.q_b_raw_proj.weight"},
    {tensor_role::gate, "layers.{}.self_attn.g_proj.weight"},
};
inline constexpr auto axk2_names = joined(axk2_own_names, deepseek_names, indexer_names);  // the first of a name counts
inline constexpr std::string_view axk2_inert[] = {"gated_norm_rank"};                      // of norms outside attention
inline constexpr auto dots3_names = joined(deepseek_names, indexer_names, dots3_own_names);
inline constexpr key_alias dots3_aliases[] = {{model_key::rope_local_theta, "swa_rope_theta"},
                                              {model_key::sliding_window, "sliding_window_size"},
                                              {model_key::mla_scale_q_lora, "apply_mla_qkv_lora_rescale"}};
/// Of the published configuration; the class reads none of them.
inline constexpr fixed_key dots3_fixed[] = {{"attention_gate_type", "headwise"},
                                            {"swa_attention_gate_type", "headwise"},
                                            {"k_rope_only_layernorm", "true"},
                                            {"normalization", "RMSNorm"},
                                            {"final_norm", "RMSNorm"}};
inline constexpr std::string_view dots3_inert[] = {"partial_rotary_factor"};  // set to what the sizes say

/// dots3-note, whose scale has no YaRN in it, and whose blocks with a window have sizes of their own.
constexpr model_family dots3(model_family row) {
    row = latent_attention(row);
    row.scale = scale_rule::inverse_sqrt_head;
    return row;
}

// clang-format off
// modeling_mistral_large4.py, and the names of the published files (conversion_mapping.py).
inline constexpr name_row mistral_large4_own_names[] = {
    {tensor_role::rope_log_multipliers, "rotary_emb.alpha"},
    {tensor_role::rope_log_multipliers, "lerope.alpha"},
    {tensor_role::temperature_scale,   "layers.{}.self_attn.softmax_scaling.scale"},
    {tensor_role::temperature_scale,   "layers.{}.attention.ssmax_scaling.s"},
    {tensor_role::temperature_bias,    "layers.{}.self_attn.softmax_scaling.bias"},
    {tensor_role::temperature_bias,    "layers.{}.attention.ssmax_scaling.b"},
    {tensor_role::indexer_q_norm,      "layers.{}.self_attn.indexer.q_input_norm.weight"},
    {tensor_role::indexer_q_norm_bias, "layers.{}.self_attn.indexer.q_input_norm.bias"},
    {tensor_role::indexer_temperature_scale, "layers.{}.self_attn.indexer.softmax_scaling.scale"},
    {tensor_role::indexer_temperature_bias,  "layers.{}.self_attn.indexer.softmax_scaling.bias"},
    {tensor_role::o,                   "layers.{}.attention.o_proj.weight"},
    {tensor_role::indexer_q_b,         "layers.{}.attention.indexer.wq_b.weight"},
    {tensor_role::indexer_q_norm,      "layers.{}.attention.indexer.q_input_norm.weight"},
    {tensor_role::indexer_q_norm_bias, "layers.{}.attention.indexer.q_input_norm.bias"},
    {tensor_role::indexer_k,           "layers.{}.attention.indexer.wk.weight"},
    {tensor_role::indexer_k_norm,      "layers.{}.attention.indexer.k_norm.weight"},
    {tensor_role::indexer_k_norm_bias, "layers.{}.attention.indexer.k_norm.bias"},
    {tensor_role::indexer_weights,     "layers.{}.attention.indexer.weights_proj.weight"},
    {tensor_role::indexer_temperature_scale, "layers.{}.attention.indexer.ssmax_scaling.s"},
    {tensor_role::indexer_temperature_bias,  "layers.{}.attention.indexer.ssmax_scaling.b"},
};
// clang-format on
inline constexpr auto mistral_large4_names = joined(mistral4_names, indexer_names, mistral_large4_own_names,
                                                    params_names_around_attention, mistral_large_3_attention_names);
// configuration_mistral_large4.py: what its class makes where no dictionary is stated
inline constexpr key_default mistral_large4_rope[] = {
    {model_key::rope_theta, 10000.0},  {model_key::rope_factor, 2048.0}, {model_key::rope_original_max_position, 512.0},
    {model_key::rope_beta_fast, 32.0}, {model_key::rope_beta_slow, 1.0}, {model_key::rope_attention_factor, 1.0}};
inline constexpr std::string_view mistral_large4_inert[] = {"final_logit_softcapping"};  // of the logits

inline constexpr model_family indexed_families[] = {
    deepseek_indexed(
        {.name = "deepseek_v32",
         .model_types = {"deepseek_v32"},
         .classes = {"DeepseekV32ForCausalLM", "DeepseekV32Model"},
         .gguf_architecture = "deepseek32",
         .routing = "sigmoid",
         .indexer = {.blocks = indexer_blocks::every_block, .k_norm = indexer_k_norm, .default_heads = 64}}),
    deepseek_indexed({.name = "glm_moe_dsa",
                      .model_types = {"glm_moe_dsa"},
                      .classes = {"GlmMoeDsaForCausalLM", "GlmMoeDsaModel"},
                      .gguf_architecture = "glm-dsa",
                      .routing = "sigmoid",
                      .indexer = {.blocks = indexer_blocks::indexer_types,
                                  .pairing = rope_pairing::interleaved,
                                  .k_norm = indexer_k_norm,
                                  .default_heads = 32,
                                  .period_keys = true},
                      .default_rms_norm_eps = 1e-5,
                      .gguf_output = {.splitting = "glm4", .tokens = glm_tokens}}),
    hy_v4({.name = "hy_v4",
           .model_types = {"hy_v4"},
           .classes = {"HYV4ForCausalLM", "HYV4Model"},
           .indexer = {.default_heads = 16},
           .gguf_output =
               {.why_not =
                    "llama.cpp's \"hy_v4\" rotates neighbours where transformers rotates halves, over the same rows"}}),
    hy_v4({.name = "hy_v4_vl",
           .model_types = {"hy_v4_vl", "hy_v4_vl_text"},
           .classes = {"HYV4VLForConditionalGeneration", "HYV4VLModel", "HYV4VLTextModel"},
           .pairing = rope_pairing::interleaved,
           .latent_eps = 0.0,
           .indexer = {.default_heads = 32},
           .gguf_output = {.why_not = no_architecture}}),
    latent_attention({.name = "glm5_next",
                      .model_types = {"glm5_next_text", "glm5_next"},  // the model alone first
                      .classes = {"Glm5NextTextModel", "Glm5NextModel", "Glm5NextForConditionalGeneration"},
                      .gguf_architecture = "glm5-next",
                      .routing = "sigmoid",
                      .names = glm5_next_names,
                      .pairing = rope_pairing::none,
                      .latent_eps = 0.0,
                      .dense_by_list = true,
                      .linear_layers = true,
                      .indexer = {.blocks = indexer_blocks::indexer_types,
                                  .pairing = rope_pairing::none,
                                  .k_norm = indexer_k_norm,
                                  .default_heads = 32,
                                  .default_pool = 16,
                                  .period_keys = true},
                      .default_rms_norm_eps = 1e-5,
                      .gguf_output = {.written = true,
                                      .keeps_predicting = true,
                                      .splitting = "glm4",
                                      .tokens = glm_tokens,
                                      .carried = glm5_next_carried,
                                      .stated = glm5_next_stated},
                      .inert_keys = glm5_next_inert}),
    latent_attention(
        {.name = "axk2",
         .model_types = {"axk2"},
         .classes = {"AXK2ForCausalLM", "AXK2Model", "AXK2ForSequenceClassification", "AXK2ForTokenClassification"},
         .names = axk2_names,
         .pairing = rope_pairing::interleaved,
         .gate = output_gate::per_element,
         .raw_query_latent = true,
         .indexer = {.blocks = indexer_blocks::every_block, .k_norm = indexer_k_norm, .default_heads = 16},
         .gguf_output = {.why_not = no_architecture},
         .inert_keys = axk2_inert}),
    latent_attention(
        {.name = "mistral_large4",
         .model_types = {"mistral_large4", "mistral_large4_text"},
         .classes = {"MistralLarge4ForConditionalGeneration", "MistralLarge4Model", "MistralLarge4TextModel"},
         .names = mistral_large4_names,
         .pairing = rope_pairing::interleaved,
         .latent_eps = 0.0,
         .nope = nope_rule::listed,
         .indexer = {.blocks = indexer_blocks::indexer_types,
                     .pairing = rope_pairing::interleaved,
                     .k_norm = indexer_k_norm,
                     .default_heads = 32,
                     .from_input = true,
                     .q_norm = indexer_k_norm,
                     .per_head = true,
                     .period_keys = true},
         .temperature_per_head = true,
         .learned_frequencies = true,
         .reads = {model_key::kv_source_layers},
         .default_rms_norm_eps = 1e-5,
         .default_rope_type = "yarn",
         .default_rope = mistral_large4_rope,
         .default_q_lora_rank = 0,
         .defaults = {{{model_key::no_rope_layer_interval, 4.0}}},
         .gguf_output = {.why_not = no_architecture},
         .inert_keys = mistral_large4_inert}),
    dots3({.name = "dots3_note",
           .model_types = {"dots3_note", "dots3_note_text"},
           .classes = {"Dots3NoteForCausalLM", "Dots3NoteForConditionalGeneration", "Dots3NoteTextForCausalLM",
                       "Dots3NoteTextModel", "Dots3NoteModel"},
           .names = dots3_names,
           .pairing = rope_pairing::interleaved,
           .latent_eps = 0.0,
           .scaled_latents = true,
           .k_rope_norm = {.kind = norm_kind::rms},
           .windows = window_rule::but_period,
           .window_period = 4,
           .window_offset = 1,
           .gate = output_gate::per_head,
           .indexer = {.blocks = indexer_blocks::layer_types,
                       .pairing = rope_pairing::interleaved,
                       .k_norm = indexer_k_norm,
                       .default_heads = 64,
                       .by_switch = true},
           .default_rope_theta = 8e7,
           .default_rms_norm_eps = 1e-5,
           .default_sliding_window = 512,
           .default_local_theta = 5e4,
           .dictionary_for_windows = true,
           .gguf_output =
               {.why_not =
                    "llama.cpp's \"dots3note\" rotates halves in its indexer where transformers rotates neighbours, "
                    "over the same rows"},
           .window_keys = dots3_window_keys,
           .aliases = dots3_aliases,
           .inert_keys = dots3_inert,
           .fixed_keys = dots3_fixed}),
};

}  // namespace larql::detail

#endif
