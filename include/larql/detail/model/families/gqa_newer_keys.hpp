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
