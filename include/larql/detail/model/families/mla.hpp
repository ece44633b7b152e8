// SPDX-License-Identifier: Apache-2.0
//
// Families of multi-head latent attention. Defaults are those of transformers 5.24's configuration classes
// (configuration_*.py).
#ifndef LARQL_DETAIL_MODEL_FAMILIES_MLA_HPP
#define LARQL_DETAIL_MODEL_FAMILIES_MLA_HPP

#include <larql/detail/model/families/names.hpp>
#include <larql/model_family.hpp>

namespace larql::detail {

// clang-format off
// Sources: transformers' modeling_deepseek_v3.py; llama.cpp's conversion/deepseek.py. k_b_proj and v_b_proj are larql's
// latent form; q_proj, k_proj, v_proj and kv_a_proj beside q_a_proj its dense form.
inline constexpr name_row deepseek_attention_names[] = {
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
// clang-format on
inline constexpr auto deepseek_names = joined(names_around_attention, deepseek_attention_names);

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

inline constexpr model_family mla_families[] = {
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
