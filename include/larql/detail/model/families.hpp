// SPDX-License-Identifier: Apache-2.0
//
// The families that larql implements, and what their tensors are called. Adding one is a row here.
#ifndef LARQL_DETAIL_MODEL_FAMILIES_HPP
#define LARQL_DETAIL_MODEL_FAMILIES_HPP

#include <larql/model_family.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

namespace larql::detail {

// clang-format off

// Sources: transformers' modeling_llama.py; llama.cpp's gguf-py/gguf/tensor_mapping.py.
#define LARQL_NAMES_AROUND_ATTENTION \
    {tensor_role::embedding,           "embed_tokens.weight",                              "token_embd.weight"}, \
    {tensor_role::output_norm,         "norm.weight",                                      "output_norm.weight"}, \
    {tensor_role::output,              "lm_head.weight",                                   "output.weight", true}, \
    {tensor_role::input_norm,          "layers.{}.input_layernorm.weight",                 "blk.{}.attn_norm.weight"}, \
    {tensor_role::ffn_norm,            "layers.{}.post_attention_layernorm.weight",        "blk.{}.ffn_norm.weight"}, \
    {tensor_role::ffn_gate,            "layers.{}.mlp.gate_proj.weight",                   "blk.{}.ffn_gate.weight"}, \
    {tensor_role::ffn_up,              "layers.{}.mlp.up_proj.weight",                     "blk.{}.ffn_up.weight"}, \
    {tensor_role::ffn_down,            "layers.{}.mlp.down_proj.weight",                   "blk.{}.ffn_down.weight"}, \
    {tensor_role::rope_divisors,       "",                                                 "rope_freqs.weight"}, \
    {tensor_role::rope_long_factors,   "",                                                 "rope_factors_long.weight"}, \
    {tensor_role::rope_short_factors,  "",                                                 "rope_factors_short.weight"}

inline constexpr name_row llama_names[] = {
    LARQL_NAMES_AROUND_ATTENTION,
    {tensor_role::q,                   "layers.{}.self_attn.q_proj.weight",                "blk.{}.attn_q.weight"},
    {tensor_role::k,                   "layers.{}.self_attn.k_proj.weight",                "blk.{}.attn_k.weight"},
    {tensor_role::v,                   "layers.{}.self_attn.v_proj.weight",                "blk.{}.attn_v.weight"},
    {tensor_role::o,                   "layers.{}.self_attn.o_proj.weight",                "blk.{}.attn_output.weight"},
    {tensor_role::inert,               "layers.{}.self_attn.rotary_emb.inv_freq",          "blk.{}.attn_rot_embd.weight"},
};

inline constexpr name_row head_norm_names[] = {
    {tensor_role::q_norm,              "layers.{}.self_attn.q_norm.weight",                "blk.{}.attn_q_norm.weight"},
    {tensor_role::k_norm,              "layers.{}.self_attn.k_norm.weight",                "blk.{}.attn_k_norm.weight"},
};

/// Two sets of names as one.
template <std::size_t A, std::size_t B>
constexpr std::array<name_row, A + B> joined(const name_row (&a)[A], const name_row (&b)[B]) {
    std::array<name_row, A + B> all{};
    std::copy_n(b, B, std::copy_n(a, A, all.begin()));
    return all;
}
inline constexpr auto qwen3_names = joined(llama_names, head_norm_names);  // modeling_qwen3.py

// Sources: transformers' modeling_deepseek_v3.py; llama.cpp's conversion/deepseek.py. k_b_proj and v_b_proj are larql's
// latent form; q_proj, k_proj, v_proj and kv_a_proj beside q_a_proj its dense form.
inline constexpr name_row deepseek_names[] = {
    LARQL_NAMES_AROUND_ATTENTION,
    {tensor_role::q,                   "layers.{}.self_attn.q_proj.weight",                "blk.{}.attn_q.weight"},
    {tensor_role::q_a,                 "layers.{}.self_attn.q_a_proj.weight",              "blk.{}.attn_q_a.weight"},
    {tensor_role::q_a_norm,            "layers.{}.self_attn.q_a_layernorm.weight",         "blk.{}.attn_q_a_norm.weight"},
    {tensor_role::q_b,                 "layers.{}.self_attn.q_b_proj.weight",              "blk.{}.attn_q_b.weight"},
    {tensor_role::kv_a,                "layers.{}.self_attn.kv_a_proj_with_mqa.weight",    "blk.{}.attn_kv_a_mqa.weight"},
    {tensor_role::kv_a_latent,         "layers.{}.self_attn.kv_a_proj.weight"},
    {tensor_role::kv_a_norm,           "layers.{}.self_attn.kv_a_layernorm.weight",        "blk.{}.attn_kv_a_norm.weight"},
    {tensor_role::kv_b,                "layers.{}.self_attn.kv_b_proj.weight",             "blk.{}.attn_kv_b.weight"},
    {tensor_role::k_b,                 "layers.{}.self_attn.k_b_proj.weight",              "blk.{}.attn_k_b.weight"},
    {tensor_role::v_b,                 "layers.{}.self_attn.v_b_proj.weight",              "blk.{}.attn_v_b.weight"},
    {tensor_role::k,                   "layers.{}.self_attn.k_proj.weight"},
    {tensor_role::v,                   "layers.{}.self_attn.v_proj.weight"},
    {tensor_role::o,                   "layers.{}.self_attn.o_proj.weight",                "blk.{}.attn_output.weight"},
    {tensor_role::inert,               "layers.{}.self_attn.rotary_emb.inv_freq"},
    {tensor_role::router,              "layers.{}.mlp.gate.weight",                        "blk.{}.ffn_gate_inp.weight"},
    {tensor_role::router_bias,         "layers.{}.mlp.gate.e_score_correction_bias",       "blk.{}.exp_probs_b.bias"},
    {tensor_role::expert_gate,         "layers.{}.mlp.experts.{}.gate_proj.weight",        "blk.{}.ffn_gate_exps.weight"},
    {tensor_role::expert_up,           "layers.{}.mlp.experts.{}.up_proj.weight",          "blk.{}.ffn_up_exps.weight"},
    {tensor_role::expert_down,         "layers.{}.mlp.experts.{}.down_proj.weight",        "blk.{}.ffn_down_exps.weight"},
    {tensor_role::shared_expert_gate,  "layers.{}.mlp.shared_experts.gate_proj.weight",    "blk.{}.ffn_gate_shexp.weight"},
    {tensor_role::shared_expert_up,    "layers.{}.mlp.shared_experts.up_proj.weight",      "blk.{}.ffn_up_shexp.weight"},
    {tensor_role::shared_expert_down,  "layers.{}.mlp.shared_experts.down_proj.weight",    "blk.{}.ffn_down_shexp.weight"},
};

#undef LARQL_NAMES_AROUND_ATTENTION
// clang-format on

// What multiplies embeddings, the sum with the residual and logits is outside attention: modeling_granite.py.
inline constexpr std::string_view granite_inert[] = {"embedding_multiplier", "residual_multiplier", "logits_scaling",
                                                     "embedding_scale",      "residual_scale",      "logit_scale"};

/// What DeepSeek-V2, V3 and their relatives share.
constexpr model_family deepseek(model_family row) {
    row.gguf_architecture = "deepseek2";
    row.names = deepseek_names;
    row.kind = attention_kind::mla;
    row.pairing = rope_pairing::interleaved;
    row.scale = scale_rule::yarn_mscale;
    row.biases_by_key = {tensor_role::q_a, tensor_role::kv_a, tensor_role::o};
    row.default_rope_theta = 10000.0;
    row.default_rms_norm_eps = 1e-6;
    row.gguf_log_multiplier = 0.1;
    row.gguf_temperature = true;
    return row;
}

// Defaults are those of transformers 5.24's configuration classes (configuration_*.py: llama, mistral, qwen2, qwen3,
// granite, deepseek_v2, deepseek_v3) and default_theta of PreTrainedConfig.
inline constexpr model_family families[] = {
    {.name = "llama",
     .model_types = {"llama"},
     .classes = {"LlamaForCausalLM", "LlamaModel", "LlamaForSequenceClassification", "LlamaForTokenClassification",
                 "LlamaForQuestionAnswering", "LLaMAForCausalLM", "LlamaForRewardModel"},
     .gguf_architecture = "llama",
     .names = llama_names,
     .biases_by_key = {tensor_role::q, tensor_role::k, tensor_role::v, tensor_role::o},
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .stored = gguf_rows::interleaved,
     .gguf_loses = "a sliding window, dynamic rope scaling"},
    {.name = "mistral",
     .model_types = {"mistral"},
     .classes = {"MistralForCausalLM", "MistralModel", "MistralForSequenceClassification",
                 "MistralForTokenClassification", "MistralForQuestionAnswering"},
     .gguf_architecture = "llama",
     .names = llama_names,
     .windows = window_rule::every_block,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .default_sliding_window = 4096,
     .stored = gguf_rows::interleaved,
     .gguf_loses = "a sliding window, dynamic rope scaling"},
    {.name = "qwen2",
     .model_types = {"qwen2"},
     .classes = {"Qwen2ForCausalLM", "Qwen2Model", "Qwen2ForSequenceClassification", "Qwen2ForTokenClassification",
                 "Qwen2ForQuestionAnswering", "Qwen2ForRewardModel", "Qwen2ForProcessRewardModel"},
     .gguf_architecture = "qwen2",
     .names = llama_names,
     .windows = window_rule::from_block,
     .window_by_default = false,
     .biases = {tensor_role::q, tensor_role::k, tensor_role::v},
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .default_sliding_window = 4096,
     .default_max_window_layers = 28,
     .gguf_loses = "a sliding window, dynamic rope scaling"},
    {.name = "qwen3",
     .model_types = {"qwen3"},
     .classes = {"Qwen3ForCausalLM", "Qwen3Model", "Qwen3ForSequenceClassification", "Qwen3ForTokenClassification",
                 "Qwen3ForQuestionAnswering"},
     .gguf_architecture = "qwen3",
     .names = qwen3_names,
     .q_norm = {.kind = norm_kind::rms},
     .k_norm = {.kind = norm_kind::rms},
     .windows = window_rule::from_block,
     .window_by_default = false,
     .biases_by_key = {tensor_role::q, tensor_role::k, tensor_role::v, tensor_role::o},
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .default_head_dim = 128,
     .default_sliding_window = 4096,
     .default_max_window_layers = 28,
     .gguf_loses = "a sliding window, dynamic rope scaling"},
    {.name = "granite",
     .model_types = {"granite"},
     .classes = {"GraniteForCausalLM", "GraniteModel"},
     .gguf_architecture = "granite",
     .names = llama_names,
     .scale = scale_rule::stated,
     .biases_by_key = {tensor_role::q, tensor_role::k, tensor_role::v, tensor_role::o},
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .stored = gguf_rows::interleaved,
     .gguf_loses = "dynamic rope scaling, a head_dim other than hidden_size / num_attention_heads",
     .inert_keys = granite_inert},
    deepseek({.name = "deepseek_v2",
              .model_types = {"deepseek_v2"},
              .classes = {"DeepseekV2ForCausalLM", "DeepseekV2Model", "DeepseekV2ForSequenceClassification"},
              .routing = "softmax"}),
    deepseek({.name = "deepseek_v3",
              .model_types = {"deepseek_v3"},
              .classes = {"DeepseekV3ForCausalLM", "DeepseekV3Model", "DeepseekV3ForSequenceClassification",
                          "DeepseekV3ForTokenClassification"},
              .routing = "sigmoid",
              .interleave_key = true}),
    deepseek({.name = "kimi_k2",  // runs DeepSeek-V3's class
              .model_types = {"kimi_k2"},
              .classes = {"DeepseekV3ForCausalLM", "KimiK2ForCausalLM"},
              .routing = "sigmoid",
              .interleave_key = true}),
};

}  // namespace larql::detail

#endif
