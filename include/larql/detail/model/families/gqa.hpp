// SPDX-License-Identifier: Apache-2.0
//
// Families of multi-head and grouped-query attention. Defaults are those of transformers 5.24's configuration classes
// (configuration_*.py) and default_theta of PreTrainedConfig.
#ifndef LARQL_DETAIL_MODEL_FAMILIES_GQA_HPP
#define LARQL_DETAIL_MODEL_FAMILIES_GQA_HPP

#include <larql/detail/model/families/names.hpp>
#include <larql/model_family.hpp>

#include <string_view>

namespace larql::detail {

// clang-format off
// Sources: transformers' modeling_llama.py and modeling_qwen3.py; llama.cpp's gguf-py/gguf/tensor_mapping.py.
inline constexpr name_row llama_attention_names[] = {
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
// clang-format on
inline constexpr auto llama_names = joined(names_around_attention, llama_attention_names);
inline constexpr auto qwen3_names = joined(llama_names, head_norm_names);

// What multiplies embeddings, the sum with the residual and logits is outside attention: modeling_granite.py.
inline constexpr std::string_view granite_inert[] = {"embedding_multiplier", "residual_multiplier", "logits_scaling",
                                                     "embedding_scale",      "residual_scale",      "logit_scale"};

inline constexpr model_family gqa_families[] = {
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
};

}  // namespace larql::detail

#endif
