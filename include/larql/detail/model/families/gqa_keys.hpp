// SPDX-License-Identifier: Apache-2.0
//
// What rows of grouped-query attention have in common: sets of biases, norms, and keys by other names or of no account.
#ifndef LARQL_DETAIL_MODEL_FAMILIES_GQA_KEYS_HPP
#define LARQL_DETAIL_MODEL_FAMILIES_GQA_KEYS_HPP

#include <larql/model_family.hpp>

#include <string_view>

namespace larql::detail {

inline constexpr role_set q_k_v_o = {tensor_role::q, tensor_role::k, tensor_role::v, tensor_role::o};
inline constexpr role_set q_k_v = {tensor_role::q, tensor_role::k, tensor_role::v};
inline constexpr norm_spec rms_heads = {.kind = norm_kind::rms};                     // of each head
inline constexpr norm_spec rms_whole = {.kind = norm_kind::rms, .per_head = false};  // of all heads together
inline constexpr norm_spec rms_zero = {.kind = norm_kind::rms, .gain_offset = 1.0};  // of each head, gains around 0
inline constexpr norm_spec layer_heads = {.kind = norm_kind::layer};

// What multiplies embeddings, the sum with the residual and logits is outside attention: modeling_granite.py.
inline constexpr std::string_view granite_inert[] = {"embedding_multiplier", "residual_multiplier", "logits_scaling",
                                                     "embedding_scale",      "residual_scale",      "logit_scale"};

// Keys about what stands outside attention, or that the modeling code reads nowhere; each with its source.
inline constexpr std::string_view gemma_inert[] = {
    "final_logit_softcapping",  // of the logits: modeling_gemma2.py
    "sliding_window_size",      // a copy of sliding_window in published configurations
    "top_k_experts",            // of the router: modeling_gemma4.py
    "cache_implementation"};
inline constexpr std::string_view gemma3n_inert[] = {
    // Of what predicts the residual streams, of the feed-forward part and of the logits: modeling_gemma3n.py.
    "altup_coef_clip",           "altup_correct_scale",     "altup_lr_multiplier",
    "activation_sparsity_scale", "final_logit_softcapping",
    "intermediate_size",      // one for each layer
    "query_pre_attn_scalar",  // read nowhere: its scale is 1
    "cache_implementation"};
inline constexpr std::string_view gpt_oss_inert[] = {"initial_context_length", "swiglu_alpha", "swiglu_limit"};
inline constexpr std::string_view logit_scale_inert[] = {"logit_scale"};  // of the logits: modeling_cohere.py
inline constexpr std::string_view cohere2_inert[] = {
    "logit_scale", "cache_implementation",
    "order_of_interleaved_layers",  // "local_attn_first", what layer_types say: configuration_cohere2.py reads it
                                    // nowhere
    "use_gated_activation", "use_embedding_sharing", "position_embedding_type"};
inline constexpr std::string_view minimax_inert[] = {
    "qk_norm_type",  // "per_layer", which is what modeling_minimax_m2.py computes
    "use_routing_bias",
    "mtp_transformer_layers",
    "num_mtp_modules",
    "shared_moe_mode",
    "layernorm_full_attention_beta",
    "layernorm_linear_attention_beta",
    "layernorm_mlp_beta",
    "attn_type_list"};
inline constexpr std::string_view gpt2_inert[] = {
    "n_ctx",      "n_inner",     "activation_function",
    "embd_pdrop", "resid_pdrop", "reorder_and_upcast_attn"};  // how the same is computed

inline constexpr std::string_view gpt_bigcode_inert[] = {
    "n_inner",     "activation_function", "embd_pdrop",
    "resid_pdrop", "pad_key_length",      "scale_attention_softmax_in_fp32"};  // how the same is computed
inline constexpr std::string_view ernie_moe_inert[] = {  // of the router, and which layers have experts
    "moe_k", "moe_norm_min", "moe_layer_start_index", "moe_layer_end_index"};
// Beside the feed-forward part or before it, and with how many norms.
inline constexpr std::string_view falcon_inert[] = {"parallel_attn", "num_ln_in_parallel_attn"};
inline constexpr std::string_view neox_inert[] = {"use_parallel_residual"};  // likewise: modeling_gpt_neox.py
inline constexpr std::string_view llama4_inert[] = {"nope_layer_interval", "for_llm_compressor"};  // read nowhere
inline constexpr key_default llama4_assumed[] = {{model_key::attention_chunk_size, 8192.0},  // llama.cpp's llama4.cpp
                                                 {model_key::no_rope_layer_interval, 4.0},
                                                 {model_key::temperature_tuning, 1.0},
                                                 {model_key::temperature_scale, 0.1},
                                                 {model_key::temperature_length, 8192.0}};
// What multiplies the base, or divides positions: see the row's rope_ratio.
inline constexpr fixed_number chatglm_base[] = {{"rope.freq_base", 10000.0}};
inline constexpr fixed_number ministral3_multiplier[] = {{"rope.scaling.yarn_log_multiplier", 1.0}};

inline constexpr std::string_view qwen3_next_inert[] = {  // of blocks with linear attention, and what is always so
    "linear_conv_kernel_dim", "linear_key_head_dim", "linear_value_head_dim", "linear_num_key_heads",
    "linear_num_value_heads", "mamba_ssm_dtype",     "attn_output_gate"};

// What multiplies embeddings, the sum with the residual and logits: modeling_minicpm.py, published with the models.
inline constexpr std::string_view minicpm_inert[] = {"scale_emb",       "scale_depth",     "dim_model_base",
                                                     "mup_denominator", "embedding_scale", "residual_scale",
                                                     "logit_scale"};
inline constexpr key_alias exaone_aliases[] = {{model_key::num_hidden_layers, "num_layers"},
                                               {model_key::rms_norm_eps, "layer_norm_epsilon"}};
inline constexpr std::string_view falcon_h1_inert[] = {  // of the state space, and of what is read and given
    "attention_in_multiplier", "attention_out_multiplier",
    "ssm_multipliers",         "ssm_in_multiplier",
    "ssm_out_multiplier",      "mlp_multipliers",
    "embedding_multiplier",    "lm_head_multiplier",
    "mamba_chunk_size",        "mamba_d_head",
    "mamba_n_heads",           "mamba_norm_before_gate",
    "mamba_rms_norm",          "key_value_multiplier"};
inline constexpr key_alias sarvam_moe_aliases[] = {{model_key::attention_bias, "use_qkv_bias"}};
inline constexpr fixed_key hy_v3_fixed[] = {{"qk_norm", "true"}, {"use_qk_norm", "true"}};
inline constexpr std::string_view hy_v3_inert[] = {"router_scaling_factor"};
inline constexpr std::string_view lfm2_inert[] = {"block_ffn_dim_multiplier"};
inline constexpr key_alias lfm2_aliases[] = {{model_key::rms_norm_eps, "norm_eps"}};
inline constexpr std::string_view nemotron_h_inert[] = {  // of the other layers, and of prediction blocks
    "mamba_head_dim",        "mamba_num_heads", "chunk_size", "rescale_prenorm_residual", "mtp_hybrid_override_pattern",
    "mtp_layers_block_type", "moe_latent_size"};
inline constexpr key_alias nemotron_h_aliases[] = {{model_key::layer_types, "layers_block_type"},
                                                   {model_key::head_dim, "attention_head_dim"}};
inline constexpr fixed_key chatglm_fixed[] = {{"multi_query_attention", "true"},
                                              {"rmsnorm", "true"},
                                              {"original_rope", "true"},
                                              {"position_encoding_2d", "false"},
                                              {"add_bias_linear", "false"},
                                              {"rope_ratio", "1",
                                               "it divides positions in ChatGLM2's code and multiplies the base in "
                                               "ChatGLM3's, and no key tells them apart: state with --config "
                                               "rope_ratio 1 and what is meant, rope_theta or a linear rope_scaling"}};
inline constexpr fixed_key glm4_fixed[] = {{"multi_query_attention", "true"},
                                           {"rmsnorm", "true"},
                                           {"original_rope", "true"},
                                           {"position_encoding_2d", "false"},
                                           {"add_bias_linear", "false"}};
// How the same softmax is computed, and where residuals are added.
inline constexpr std::string_view chatglm_inert[] = {"apply_query_key_layer_scaling",
                                                     "apply_residual_connection_post_layernorm",
                                                     "fp32_residual_connection", "post_layer_norm"};
inline constexpr key_alias chatglm_aliases[] = {{model_key::num_hidden_layers, "num_layers"},
                                                {model_key::head_dim, "kv_channels"},
                                                {model_key::num_key_value_heads, "multi_query_group_num"},
                                                {model_key::rms_norm_eps, "layernorm_epsilon"},
                                                {model_key::max_position_embeddings, "seq_length"},
                                                {model_key::attention_bias, "add_qkv_bias"}};

inline constexpr key_alias bloom_aliases[] = {{model_key::hidden_size, "n_embed"},
                                              {model_key::num_hidden_layers, "n_layer"},
                                              {model_key::num_attention_heads, "n_head"},
                                              {model_key::rms_norm_eps, "layer_norm_epsilon"}};
inline constexpr std::string_view bloom_inert[] = {  // of training, of residuals, and read nowhere
    "apply_residual_connection_post_layernorm", "masked_softmax_fusion", "offset_alibi", "skip_bias_add_qkv"};
inline constexpr key_alias mpt_aliases[] = {{model_key::hidden_size, "d_model"},
                                            {model_key::num_hidden_layers, "n_layers"},
                                            {model_key::num_attention_heads, "n_heads"},
                                            {model_key::max_position_embeddings, "max_seq_len"},
                                            {model_key::rms_norm_eps, "layer_norm_epsilon"},
                                            {model_key::clip_qkv, "attn_config.clip_qkv"}};
inline constexpr fixed_key mpt_fixed[] = {{"no_bias", "true"},
                                          {"attn_config.alibi", "true"},
                                          {"attn_config.alibi_bias_max", "8"},  // which modeling_mpt.py does not read
                                          {"attn_config.attn_type", "multihead_attention"},
                                          {"attn_config.prefix_lm", "false"},
                                          {"attn_config.attn_uses_sequence_id", "false"},
                                          {"norm_type", "low_precision_layernorm"}};
inline constexpr window_key mimo_v2_window_keys[] = {{model_key::num_attention_heads, "swa_num_attention_heads"},
                                                     {model_key::num_key_value_heads, "swa_num_key_value_heads"},
                                                     {model_key::head_dim, "swa_head_dim"},
                                                     {model_key::v_head_dim, "swa_v_head_dim"}};
inline constexpr key_alias mimo_v2_aliases[] = {{model_key::previous_tokens, "sliding_window_size"}};
// What configuration_mimo_v2_flash.py assumes whatever these say; others stand in rope_parameters by layer type.
inline constexpr fixed_key mimo_v2_fixed[] = {{"layernorm_epsilon", "1e-05"},
                                              {"rope_theta", "5000000"},
                                              {"swa_rope_theta", "10000"},
                                              {"partial_rotary_factor", "0.334"},
                                              {"add_swa_attention_sink_bias", "true"},
                                              {"add_full_attention_sink_bias", "false"}};
inline constexpr key_alias stablelm_epoch_aliases[] = {{model_key::attention_bias, "use_qkv_bias"},
                                                       {model_key::partial_rotary_factor, "rope_pct"},
                                                       {model_key::rms_norm_eps, "norm_eps"}};
inline constexpr std::string_view phi4mm_inert[] = {"vision_lora", "speech_lora", "embd_layer", "img_processor"};
inline constexpr key_alias enable_bias_alias[] = {{model_key::attention_bias, "enable_bias"}};
inline constexpr std::string_view opt_inert[] = {  // which side of the block its norm is on, and of what gains it has
    "do_layer_norm_before", "layer_norm_elementwise_affine", "_remove_final_layer_norm"};
inline constexpr std::string_view mamba_inert[] = {  // of the state space
    "mamba_chunk_size",   "mamba_d_head",         "mamba_n_heads",       "mamba_d_state",  "mamba_n_groups",
    "z_loss_coefficient", "embedding_multiplier", "residual_multiplier", "logits_scaling", "mamba_inner_layernorms",
    "embedding_scale",    "residual_scale",       "logit_scale"};
inline constexpr fixed_key bamba_fixed[] = {{"partial_rotary_factor", "0.5"}};  // whatever it says: BambaConfig
inline constexpr key_alias bamba_aliases[] = {{model_key::full_attention_indexes, "attn_layer_indices"},
                                              {model_key::rotary_dim, "attn_rotary_emb"}};
inline constexpr key_alias granite_hybrid_aliases[] = {{model_key::position_type, "position_embedding_type"}};
inline constexpr fixed_key granite_hybrid_fixed[] = {{"normalization_function", "rmsnorm"}};
inline constexpr fixed_key gptj_fixed[] = {{"rotary", "true"}, {"rope_theta", "10000"}};
inline constexpr fixed_key fixed_theta[] = {{"rope_theta", "10000"}};  // the code knows no other
inline constexpr key_alias gpt_neo_aliases[] = {{model_key::num_hidden_layers, "num_layers"},
                                                {model_key::num_attention_heads, "num_heads"},
                                                {model_key::sliding_window, "window_size"},
                                                {model_key::layer_types, "attention_types"},
                                                {model_key::rms_norm_eps, "layer_norm_epsilon"}};
// What attention_types say, layer by layer: configuration_gpt_neo.py makes it anew.
inline constexpr std::string_view gpt_neo_inert[] = {"activation_function", "attention_layers"};
inline constexpr std::string_view phi_msft_inert[] = {  // as gpt2, and which kernel computes the same
    "n_inner", "activation_function", "embd_pdrop", "resid_pdrop", "flash_attn", "flash_rotary", "fused_dense"};
inline constexpr key_alias phi_msft_aliases[] = {{model_key::hidden_size, "n_embd"},
                                                 {model_key::num_attention_heads, "n_head"},
                                                 {model_key::num_key_value_heads, "n_head_kv"},
                                                 {model_key::num_hidden_layers, "n_layer"},
                                                 {model_key::max_position_embeddings, "n_positions"},
                                                 {model_key::rms_norm_eps, "layer_norm_epsilon"}};
inline constexpr key_alias qwen_aliases[] = {{model_key::head_dim, "kv_channels"},
                                             {model_key::rope_original_max_position, "seq_length"},
                                             {model_key::rope_theta, "rotary_emb_base"},
                                             {model_key::partial_rotary_factor, "rotary_pct"},
                                             {model_key::rms_norm_eps, "layer_norm_epsilon"}};
// Words of transformers that its code does not read.
inline constexpr repeated_key qwen_repeated[] = {{"rope_theta", "rotary_emb_base"},
                                                 {"partial_rotary_factor", "rotary_pct"},
                                                 {"original_max_position_embeddings", "seq_length"}};
inline constexpr fixed_key qwen_fixed[] = {{"no_bias", "true"}};
inline constexpr key_alias molmo_aliases[] = {{model_key::attention_bias, "qkv_bias"},
                                              {model_key::qk_norm, "attention_layer_norm"},
                                              {model_key::rms_norm_eps, "layer_norm_eps"}};
inline constexpr fixed_key molmo_fixed[] = {
    {"layer_norm_type", "rms"}, {"attention_layer_norm_with_affine", "true"}, {"rope", "true"}};
inline constexpr std::string_view molmo_inert[] = {"norm_after"};  // which side of the block its norm is on
inline constexpr fixed_key without_mla[] = {{"use_mla", "false"}};
// One layer, which alone reads both; keys of the model that it drafts for, of which the head's class reads none.
inline constexpr fixed_key eagle3_fixed[] = {{"num_hidden_layers", "1"}};
inline constexpr std::string_view eagle3_inert[] = {"draft_vocab_size", "use_qk_norm", "attention_head_dim",
                                                    "cla_share_factor",
                                                    "norm_before_residual"};         // which of the two the residual is
inline constexpr std::string_view minicpmv_inert[] = {"query_num", "slice_config"};  // of the resampler of images
// MLC's word for the window, which transformers does not read.
inline constexpr repeated_key mistral_repeated[] = {{"sliding_window_size", "sliding_window"}};
// Of the smaller Baichuan models, whose code has no other base.
inline constexpr std::string_view baichuan_why =
    "models of hidden_size 4096 rotate and state max_position_embeddings, the larger ones have ALiBi and do not";
inline constexpr fixed_key baichuan_fixed[] = {{"rope_theta", "10000"}, {"hidden_size", "4096", baichuan_why}};
inline constexpr fixed_key mimo_fixed[] = {{"attention_bias", "true"}};  // of q, k and v: modeling_mimo.py is Qwen2's
inline constexpr repeated_key stablelm_epoch_repeated[] = {{"partial_rotary_factor", "rope_pct"}};
inline constexpr fixed_key stablelm_epoch_fixed[] = {{"rotary_scaling_factor", "1"}};

inline constexpr key_alias qkv_bias_alias[] = {{model_key::attention_bias, "qkv_bias"}};
inline constexpr key_alias use_bias_alias[] = {{model_key::attention_bias, "use_bias"}};
inline constexpr key_alias bias_alias[] = {{model_key::attention_bias, "bias"}};
inline constexpr key_alias layer_norm_aliases[] = {{model_key::rms_norm_eps, "layer_norm_eps"},
                                                   {model_key::rms_norm_eps, "norm_eps"}};
inline constexpr key_alias starcoder2_aliases[] = {{model_key::attention_bias, "use_bias"},
                                                   {model_key::rms_norm_eps, "norm_epsilon"}};
inline constexpr key_alias stablelm_aliases[] = {{model_key::attention_bias, "use_qkv_bias"},
                                                 {model_key::rms_norm_eps, "layer_norm_eps"}};
inline constexpr key_alias gpt2_aliases[] = {{model_key::hidden_size, "n_embd"},
                                             {model_key::num_attention_heads, "n_head"},
                                             {model_key::num_hidden_layers, "n_layer"},
                                             {model_key::max_position_embeddings, "n_positions"},
                                             {model_key::rms_norm_eps, "layer_norm_epsilon"}};
inline constexpr key_alias neox_aliases[] = {{model_key::rope_theta, "rotary_emb_base"},
                                             {model_key::partial_rotary_factor, "rotary_pct"},
                                             {model_key::rms_norm_eps, "layer_norm_eps"}};
inline constexpr key_alias falcon_aliases[] = {{model_key::num_attention_heads, "n_head"},
                                               {model_key::num_hidden_layers, "n_layer"},
                                               {model_key::hidden_size, "n_embed"},
                                               {model_key::num_key_value_heads, "num_kv_heads"},
                                               {model_key::num_key_value_heads, "n_head_kv"},
                                               {model_key::attention_bias, "bias"},
                                               {model_key::rms_norm_eps, "layer_norm_epsilon"}};

}  // namespace larql::detail

#endif
