// SPDX-License-Identifier: Apache-2.0
//
// Keys by other names, or of no account, of the families in gqa_newer.hpp and gqa_mixed.hpp.
#ifndef LARQL_DETAIL_MODEL_FAMILIES_GQA_NEWER_KEYS_HPP
#define LARQL_DETAIL_MODEL_FAMILIES_GQA_NEWER_KEYS_HPP

#include <larql/model_family.hpp>

#include <string_view>

namespace larql::detail {

inline constexpr key_alias layer_norm_alias[] = {{model_key::rms_norm_eps, "layer_norm_eps"}};
inline constexpr key_alias norm_eps_alias[] = {{model_key::rms_norm_eps, "norm_eps"}};
// What multiplies embeddings, residuals and logits, and norms of what attention gives: modeling_hyperclovax.py.
inline constexpr std::string_view hyperclovax_inert[] = {"embedding_multiplier", "residual_multiplier",
                                                         "logits_scaling", "use_post_norm"};
inline constexpr key_alias afmoe_aliases[] = {{model_key::sliding_window_pattern, "global_attn_every_n_layers"}};
inline constexpr std::string_view afmoe_inert[] = {"route_scale", "route_norm"};  // of the router: modeling_afmoe.py
inline constexpr key_alias cohere2_moe_aliases[] = {{model_key::feed_forward_types, "mlp_layer_types"}};
// Dense layers rotate if this is 1: modeling_cohere2_moe.py. Its eps are of norms outside attention.
inline constexpr fixed_key cohere2_moe_fixed[] = {{"prefix_dense_sliding_window_pattern", "1"}};
inline constexpr std::string_view mellum_inert[] = {"mtp_layer_types", "mtp_mlp_layer_types"};  // of prediction blocks
inline constexpr key_alias modernbert_aliases[] = {{model_key::sliding_window_pattern, "global_attn_every_n_layers"},
                                                   {model_key::rope_theta, "global_rope_theta"},
                                                   {model_key::rope_local_theta, "local_rope_theta"}};
inline constexpr std::string_view modernbert_inert[] = {"norm_bias"};  // of norms outside attention
// A share beside the dictionaries, which configuration_laguna.py reads nowhere.
inline constexpr fixed_key laguna_fixed[] = {{"partial_rotary_factor", "1"}};
inline constexpr fixed_key laguna_gated[] = {{"partial_rotary_factor", "1"}, {"gating", "true"}};
inline constexpr std::string_view laguna_inert[] = {"moe_router_logit_softcapping",  // of the router
                                                    "moe_routed_scaling_factor"};
// The published words, and those of transformers' class; layers with a window have as many keys and values as others.
inline constexpr key_alias step3p5_aliases[] = {{model_key::num_key_value_heads, "num_attention_groups"},
                                                {model_key::n_routed_experts, "moe_num_experts"},
                                                {model_key::num_experts_per_tok, "moe_top_k"}};
inline constexpr window_key step3p5_window_keys[] = {
    {model_key::num_attention_heads, "attention_other_setting.num_attention_heads"},
    {model_key::num_attention_heads, "num_sliding_attention_heads"}};  // goes before the other
inline constexpr repeated_key step3p5_repeated[] = {
    {"attention_other_setting.num_attention_groups", "num_attention_groups"},
    {"attention_other_setting.head_dim", "head_dim"},
    {"attention_other_setting.true_head_dim", "head_dim"}};
// What the published code has as switches, and modeling_step3p7.py always does; of a share beside the lists it reads
// nothing.
inline constexpr fixed_key step3p5_fixed[] = {{"attention_other_setting.attention_type", "sliding_attention"},
                                              {"yarn_only_types", "[\"full_attention\"]"},
                                              {"partial_rotary_factor", "1"},
                                              {"gating", "true"},
                                              {"use_head_wise_attn_gate", "true"},
                                              {"use_qk_norm", "true"},
                                              {"zero_centered", "true"},
                                              {"att_impl_type", "GQA"}};
inline constexpr std::string_view step3p5_inert[] = {  // of the router and the weights of experts, of prediction blocks
    "moe_router_scaling_factor", "norm_expert_weight", "need_fp32_gate",    "mtp_layer_types",
    "mtp_mlp_layer_types",       "swiglu_clamp_exp",   "swiglu_clamp_shexp"};
inline constexpr key_alias lfm3_aliases[] = {{model_key::rms_norm_eps, "norm_eps"},
                                             {model_key::mla_use_output_gate, "use_attention_gate"}};
inline constexpr std::string_view lfm3_inert[] = {"use_sandwich_norm"};  // norms of what attention gives
inline constexpr std::string_view minimax_full_inert[] = {  // what residuals are multiplied by: modeling_minimax.py
    "full_attn_alpha_factor", "full_attn_beta_factor", "linear_attn_alpha_factor", "linear_attn_beta_factor"};
inline constexpr key_alias recurrent_gemma_aliases[] = {{model_key::sliding_window, "attention_window_size"},
                                                        {model_key::layer_types, "block_types"}};
inline constexpr std::string_view recurrent_gemma_inert[] = {  // of the logits, and of parameters before training
    "logits_soft_cap", "w_init_variance_scale", "final_w_init_variance_scale"};
inline constexpr std::string_view scaled_embedding_inert[] = {"scale_embedding"};  // modeling_biogpt.py, _xglm.py
inline constexpr key_alias xglm_aliases[] = {{model_key::hidden_size, "d_model"},
                                             {model_key::num_attention_heads, "attention_heads"},
                                             {model_key::num_hidden_layers, "num_layers"}};
inline constexpr std::string_view dbrx_inert[] = {  // of the experts: configuration_dbrx.py
    "moe_top_k", "moe_jitter_eps", "moe_normalize_expert_weights"};
inline constexpr key_alias dbrx_aliases[] = {{model_key::hidden_size, "d_model"},
                                             {model_key::num_attention_heads, "n_heads"},
                                             {model_key::num_hidden_layers, "n_layers"},
                                             {model_key::max_position_embeddings, "max_seq_len"},
                                             {model_key::num_key_value_heads, "attn_config.kv_n_heads"},
                                             {model_key::clip_qkv, "attn_config.clip_qkv"},
                                             {model_key::rope_theta, "attn_config.rope_theta"}};

}  // namespace larql::detail

#endif
