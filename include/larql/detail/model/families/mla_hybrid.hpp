// SPDX-License-Identifier: Apache-2.0
//
// Families whose layers have latent attention or linear attention. Defaults are those of transformers 5.24's
// configuration classes (configuration_*.py).
#ifndef LARQL_DETAIL_MODEL_FAMILIES_MLA_HYBRID_HPP
#define LARQL_DETAIL_MODEL_FAMILIES_MLA_HYBRID_HPP

#include <larql/detail/model/families/mla.hpp>
#include <larql/model_family.hpp>
#include <larql/tensor_role.hpp>

#include <string_view>

namespace larql::detail {

// clang-format off
// Ling and Ring: transformers' modeling_bailing_hybrid.py, the names of the published files (conversion_mapping.py), and
// llama.cpp's conversion/bailingmoe3.py. The gates of both kinds of layers have one name in safetensors.
inline constexpr name_row bailing_own_names[] = {
    {tensor_role::embedding,           "word_embeddings.weight",                           "token_embd.weight"},
    {tensor_role::router_bias,         "layers.{}.mlp.gate.expert_bias",                   "blk.{}.exp_probs_b.bias"},
    {tensor_role::predict_output_norm, "layers.{}.final_layernorm.weight",                 "blk.{}.layer_output_norm.weight"},
    {tensor_role::q,                   "layers.{}.attention.q_proj.weight",                "blk.{}.attn_q.weight"},
    {tensor_role::q_a,                 "layers.{}.attention.q_a_proj.weight",              "blk.{}.attn_q_a.weight"},
    {tensor_role::q_a_norm,            "layers.{}.attention.q_a_layernorm.weight",         "blk.{}.attn_q_a_norm.weight"},
    {tensor_role::q_b,                 "layers.{}.attention.q_b_proj.weight",              "blk.{}.attn_q_b.weight"},
    {tensor_role::kv_a,                "layers.{}.attention.kv_a_proj_with_mqa.weight",    "blk.{}.attn_kv_a_mqa.weight"},
    {tensor_role::kv_a_norm,           "layers.{}.attention.kv_a_layernorm.weight",        "blk.{}.attn_kv_a_norm.weight"},
    {tensor_role::kv_b,                "layers.{}.attention.kv_b_proj.weight",             "blk.{}.attn_kv_b.weight"},
    {tensor_role::k,                   "layers.{}.attention.k_proj.weight",                "blk.{}.attn_k.weight"},
    {tensor_role::v,                   "layers.{}.attention.v_proj.weight",                "blk.{}.attn_v.weight"},
    {tensor_role::gate,                "layers.{}.attention.g_proj.weight",                "blk.{}.attn_gate.weight"},
    {tensor_role::gate,                "layers.{}.self_attn.g_proj.weight"},
    {tensor_role::o,                   "layers.{}.attention.dense.weight",                 "blk.{}.attn_output.weight"},
    {tensor_role::o,                   "layers.{}.self_attn.dense.weight"},
    {tensor_role::linear_conv_q,       "layers.{}.attention.q_conv1d.weight",              "blk.{}.ssm_conv1d_q.weight"},
    {tensor_role::linear_conv_k,       "layers.{}.attention.k_conv1d.weight",              "blk.{}.ssm_conv1d_k.weight"},
    {tensor_role::linear_conv_v,       "layers.{}.attention.v_conv1d.weight",              "blk.{}.ssm_conv1d_v.weight"},
    {tensor_role::linear_beta,         "layers.{}.attention.b_proj.weight",                "blk.{}.ssm_beta.weight"},
    {tensor_role::linear_decay_a,      "layers.{}.attention.f_proj.weight",                "blk.{}.ssm_f_a.weight"},
    {tensor_role::linear_decay_bias,   "layers.{}.attention.dt_bias",                      "blk.{}.ssm_dt.bias"},
    {tensor_role::linear_rate,         "layers.{}.attention.A_log",                        "blk.{}.ssm_a"},
    {tensor_role::linear_gate_a,       "layers.{}.attention.g_proj.weight",                "blk.{}.ssm_g_a.weight"},
    {tensor_role::linear_norm,         "layers.{}.attention.o_norm.weight",                "blk.{}.ssm_norm.weight"},
};

// Kimi-Linear as it is published: modeling_kimi_linear.py, conversion_mapping.py; llama.cpp's conversion/kimi_linear.py.
inline constexpr name_row kimi_expert_names[] = {
    {tensor_role::ffn_gate,            "layers.{}.mlp.gate_proj.weight",                   "blk.{}.ffn_gate.weight"},
    {tensor_role::ffn_up,              "layers.{}.mlp.up_proj.weight",                     "blk.{}.ffn_up.weight"},
    {tensor_role::ffn_down,            "layers.{}.mlp.down_proj.weight",                   "blk.{}.ffn_down.weight"},
    {tensor_role::ffn_gate,            "layers.{}.block_sparse_moe.gate_proj.weight"},  // of transformers' own files
    {tensor_role::ffn_up,              "layers.{}.block_sparse_moe.up_proj.weight"},
    {tensor_role::ffn_down,            "layers.{}.block_sparse_moe.down_proj.weight"},
    {tensor_role::router,              "layers.{}.block_sparse_moe.gate.weight",           "blk.{}.ffn_gate_inp.weight"},
    {tensor_role::router_bias,         "layers.{}.block_sparse_moe.gate.e_score_correction_bias", "blk.{}.exp_probs_b.bias"},
    {tensor_role::expert_gate,         "layers.{}.block_sparse_moe.experts.{}.w1.weight",  "blk.{}.ffn_gate_exps.weight"},
    {tensor_role::expert_down,         "layers.{}.block_sparse_moe.experts.{}.w2.weight",  "blk.{}.ffn_down_exps.weight"},
    {tensor_role::expert_up,           "layers.{}.block_sparse_moe.experts.{}.w3.weight",  "blk.{}.ffn_up_exps.weight"},
    {tensor_role::shared_expert_gate,  "layers.{}.block_sparse_moe.shared_experts.gate_proj.weight", "blk.{}.ffn_gate_shexp.weight"},
    {tensor_role::shared_expert_up,    "layers.{}.block_sparse_moe.shared_experts.up_proj.weight",   "blk.{}.ffn_up_shexp.weight"},
    {tensor_role::shared_expert_down,  "layers.{}.block_sparse_moe.shared_experts.down_proj.weight", "blk.{}.ffn_down_shexp.weight"},
};

// Layers of its linear attention, which GLM-5.3-Flash has too.
inline constexpr name_row delta_attention_names[] = {
    {tensor_role::k,                   "layers.{}.self_attn.k_proj.weight",                "blk.{}.attn_k.weight"},
    {tensor_role::v,                   "layers.{}.self_attn.v_proj.weight",                "blk.{}.attn_v.weight"},
    {tensor_role::linear_conv_q,       "layers.{}.self_attn.q_conv1d.weight",              "blk.{}.ssm_conv1d_q.weight"},
    {tensor_role::linear_conv_k,       "layers.{}.self_attn.k_conv1d.weight",              "blk.{}.ssm_conv1d_k.weight"},
    {tensor_role::linear_conv_v,       "layers.{}.self_attn.v_conv1d.weight",              "blk.{}.ssm_conv1d_v.weight"},
    {tensor_role::linear_beta,         "layers.{}.self_attn.b_proj.weight",                "blk.{}.ssm_beta.weight"},
    {tensor_role::linear_decay_a,      "layers.{}.self_attn.f_a_proj.weight",              "blk.{}.ssm_f_a.weight"},
    {tensor_role::linear_decay_b,      "layers.{}.self_attn.f_b_proj.weight",              "blk.{}.ssm_f_b.weight"},
    {tensor_role::linear_decay_bias,   "layers.{}.self_attn.dt_bias",                      "blk.{}.ssm_dt.bias"},
    {tensor_role::linear_decay,        "layers.{}.self_attn.A_log",                        "blk.{}.ssm_a"},
    {tensor_role::linear_gate_a,       "layers.{}.self_attn.g_a_proj.weight",              "blk.{}.ssm_g_a.weight"},
    {tensor_role::linear_gate_b,       "layers.{}.self_attn.g_b_proj.weight",              "blk.{}.ssm_g_b.weight"},
    {tensor_role::linear_norm,         "layers.{}.self_attn.o_norm.weight",                "blk.{}.ssm_norm.weight"},
};
// clang-format on
// Kimi K3's gate; Kimi-Linear has none. llama.cpp names what weighs residuals after attention.
inline constexpr name_row gate_names[] = {
    {tensor_role::gate, "layers.{}.self_attn.g_proj.weight", "blk.{}.attn_gate.weight"},
    {tensor_role::inert, "", "blk.{}.attn_res_score.weight"}};
inline constexpr auto kimi_linear_names =
    joined(kimi_expert_names, delta_attention_names, deepseek_names, gate_names);  // the first counts
inline constexpr auto bailing_names = joined(bailing_own_names, deepseek_names);   // the first counts

// Of layers with linear attention, and of training: configuration_bailing_hybrid.py, configuration_kimi_linear.py.
inline constexpr std::string_view bailing_inert[] = {
    "kda_safe_gate",     "kda_lower_bound",        "mtp_loss_scaling_factor", "linear_head_dim",
    "linear_num_heads",  "linear_conv_kernel_dim", "short_conv_kernel_size",  "attention.value_length",
    "kda.head_dim",      "kda.safe_gate",          "kda.gate_lower_bound",    "swiglu_clamp_exp",
    "swiglu_clamp_shexp"};
inline constexpr key_alias bailing_aliases[] = {{model_key::full_attention_interval, "layer_group_size"},
                                                {model_key::max_position_embeddings, "model_max_length"},
                                                {model_key::n_routed_experts, "num_experts"},
                                                {model_key::n_shared_experts, "num_shared_experts"},
                                                {model_key::num_experts_per_tok, "num_experts_per_token"},
                                                {model_key::norm_topk_prob, "moe_renormalize"},
                                                {model_key::n_group, "num_expert_group"},
                                                {model_key::scoring_func, "score_function"}};
// Of the published configuration; the class reads it not.
inline constexpr fixed_key bailing_fixed[] = {{"gated_attention_proj_granularity_type", "head_wise"},
                                              {"no_kda_lora", "true"}};
// llama.cpp's src/models/bailingmoe3.cpp knows the bounded gate alone.
inline constexpr fixed_number bailing_constants[] = {{"kda_safe_gate", 1.0}};
// The class takes head_dim for the linear layers', unless linear_head_dim is stated; it makes no difference between the
// experts and the shared ones.
inline constexpr carried_value bailing_carried[] = {
    {"short_conv_kernel_size", "linear_conv_kernel_dim", "ssm.conv_kernel"},
    {"head_dim", "linear_head_dim", "kda.head_dim"},
    {"num_attention_heads", "linear_num_heads", "attention.head_count"},
    {"kda_safe_gate", "", "kda.safe_gate", carried_kind::flag},
    {"kda_lower_bound", "", "kda.gate_lower_bound", carried_kind::number},
    {"moe_shared_expert_intermediate_size", "", "expert_shared_feed_forward_length"},
    {"expert_swiglu_limit_list", "", "swiglu_clamp_exp", carried_kind::of_layers},
    {"share_expert_swiglu_limit_list", "", "swiglu_clamp_shexp", carried_kind::of_layers}};
// In GGUF, value_length is the head_dim of a config.json that nothing reads (llama.cpp conversion/base.py).
inline constexpr std::string_view kimi_linear_inert[] = {
    "linear_head_dim", "linear_num_heads",     "linear_conv_kernel_dim", "attention.value_length",
    "kda.head_dim",    "kda.gate_lower_bound", "attn_res.block_size"};
inline constexpr key_alias kimi_linear_aliases[] = {
    {model_key::max_position_embeddings, "model_max_length"}, {model_key::n_routed_experts, "num_experts"},
    {model_key::n_shared_experts, "num_shared_experts"},      {model_key::num_experts_per_tok, "num_experts_per_token"},
    {model_key::norm_topk_prob, "moe_renormalize"},           {model_key::n_group, "num_expert_group"},
    {model_key::scoring_func, "moe_router_activation_func"}};
// llama.cpp's src/models/kimi-linear.cpp weighs experts so; its converter finds neither key under these names.
inline constexpr fixed_number kimi_linear_constants[] = {{"moe_renormalize", 1.0}};
inline constexpr key_default kimi_linear_unstated[] = {{model_key::norm_topk_prob, 1.0}, {model_key::n_group, 1.0}};
// The heads of both kinds of layers are as many there.
inline constexpr carried_value kimi_linear_carried[] = {
    {"linear_attn_config.short_conv_kernel_size", "linear_conv_kernel_dim", "ssm.conv_kernel"},
    {"linear_attn_config.head_dim", "linear_head_dim", "kda.head_dim"},
    {"linear_attn_config.num_heads", "linear_num_heads", "attention.head_count"}};

inline constexpr model_family mla_hybrid_families[] = {
    latent_attention({.name = "kimi_linear",
                      .model_types = {"kimi_linear"},
                      .classes = {"KimiLinearForCausalLM", "KimiLinearModel"},
                      .gguf_architecture = "kimi-linear",
                      .routing = "sigmoid",
                      .names = kimi_linear_names,
                      .pairing = rope_pairing::none,
                      .linear_layers = true,
                      .gate_by_key = output_gate::per_element,  // Kimi K3
                      .default_rms_norm_eps = 1e-5,
                      .default_q_lora_rank = 0,
                      .gguf_output = {.written = true,
                                      .constants = kimi_linear_constants,
                                      .unstated = kimi_linear_unstated,
                                      .carried = kimi_linear_carried,
                                      .head_dim_as_value_length = true,
                                      .sizes_in_both_dialects = true},
                      .aliases = kimi_linear_aliases,
                      .inert_keys = kimi_linear_inert}),
    latent_attention(
        {.name = "kimi_k3",  // in GGUF; elsewhere a kimi_linear that states its gate
         .model_types = {"kimi_k3"},
         .classes = {"KimiK3ForConditionalGeneration"},
         .gguf_architecture = "kimi-k3",
         .names = kimi_linear_names,
         .pairing = rope_pairing::none,
         .linear_layers = true,
         .gate = output_gate::per_element,
         .default_rms_norm_eps = 1e-5,
         .default_q_lora_rank = 0,
         .gguf_output = {.why_not = "GGUF has the products of its residuals' norms and projections, from which "
                                    "neither comes back"},
         .aliases = kimi_linear_aliases,
         .inert_keys = kimi_linear_inert}),
    latent_attention({.name = "bailing_hybrid",
                      .model_types = {"bailing_hybrid"},
                      .classes = {"BailingHybridForCausalLM", "BailingHybridModel", "BailingMoeV3ForCausalLM",
                                  "BailingMoeV2_5ForCausalLM"},
                      .gguf_architecture = "bailingmoe3",
                      .routing = "sigmoid",
                      .names = bailing_names,
                      .pairing = rope_pairing::interleaved,
                      .linear_layers = true,
                      .gate = output_gate::per_head,
                      .default_rope_theta = 6e6,
                      .default_q_lora_rank = 0,
                      .defaults = {{{model_key::full_attention_interval, 6}}},
                      .gguf_output = {.written = true,
                                      .keeps_predicting = true,
                                      .constants = bailing_constants,
                                      .carried = bailing_carried,
                                      .head_dim_as_value_length = true,
                                      .sizes_in_both_dialects = true},
                      .aliases = bailing_aliases,
                      .inert_keys = bailing_inert,
                      .fixed_keys = bailing_fixed}),
};

}  // namespace larql::detail

#endif
