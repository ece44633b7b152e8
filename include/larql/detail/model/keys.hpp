// SPDX-License-Identifier: Apache-2.0
//
// The keys of a configuration: one row for each thing that it can state, with its names in config.json and in GGUF, its
// type, its bounds, and which families read it. The readers of both, the printer and the tests walk these rows.
//
// The world is closed: a key that looks as if it changed attention and that no row claims is an error, and so is a
// claimed key that the model's family does not read, unless its value says "none".
#ifndef LARQL_DETAIL_MODEL_KEYS_HPP
#define LARQL_DETAIL_MODEL_KEYS_HPP

#include <larql/model_family.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace larql::detail {

enum class value_type : std::uint8_t {
    integer,
    number,
    flag,
    text,
    texts,
    numbers,
    token,
    period,  ///< an integer, or the pattern itself: "LLLG" is 4
};

/// Sizes are capped so that no product of three of them leaves 64 bits.
inline constexpr double max_dimension = 1 << 20;
inline constexpr double max_layers = 4096;
inline constexpr double max_vocabulary = 1 << 28;
inline constexpr double max_length = 1099511627776.0;  // 2^40 tokens
// Bounds of numbers that have no others. Kernels compute with these in float, whose range they leave room in.
inline constexpr double above_zero = 1e-30;
inline constexpr double any_finite = 1e30;

/// One key.
struct key_row {
    model_key key;
    value_type type;
    double low, high;                                ///< bounds of an integer or a number, inclusive
    std::array<std::string_view, 3> hf;              ///< the first that is there counts
    std::array<std::string_view, 2> gguf{};          ///< below "<architecture>."; the first that is there counts
    bool (*read_by)(const model_family&) = nullptr;  ///< null: by every family
    double neutral = 0.0;                            ///< what a family that does not read it may find all the same
};

constexpr bool reads_mla(const model_family& f) { return f.kind == attention_kind::mla; }
constexpr bool reads_compressed(const model_family& f) { return f.kind == attention_kind::compressed; }
constexpr bool reads_value_size(const model_family& f) { return reads_mla(f) || f.lists(model_key::v_head_dim); }
constexpr bool reads_query_rank(const model_family& f) { return reads_mla(f) || reads_compressed(f); }
constexpr bool reads_biases(const model_family& f) { return !f.biases_by_key.empty(); }
constexpr bool reads_window(const model_family& f) { return f.windows != window_rule::none; }
constexpr bool reads_layer_types(const model_family& f) {
    if (f.linear_layers || reads_compressed(f) || f.indexer.blocks == indexer_blocks::layer_types) return true;
    return f.windows != window_rule::none && f.windows != window_rule::every_block && f.windows != window_rule::period;
}
constexpr bool reads_attention_layers(const model_family& f) { return f.linear_layers; }
constexpr bool reads_parts(const model_family& f) { return f.attentions_per_layer > 1; }
constexpr bool reads_nope(const model_family& f) { return reads_mla(f) && f.pairing == rope_pairing::none; }
constexpr bool reads_gate(const model_family& f) { return f.gate_by_key != output_gate::none; }
constexpr bool reads_latent_scales(const model_family& f) { return f.scaled_latents; }
constexpr bool reads_layer_ropes(const model_family& f) {
    return f.windows == window_rule::layer_types || f.windows == window_rule::pattern ||
           f.windows == window_rule::but_period || reads_compressed(f);
}
constexpr bool reads_window_switch(const model_family& f) {  // transformers' Mistral has a window whatever it says
    return reads_window(f) && (f.windows != window_rule::every_block || !f.window_by_default);
}
constexpr bool reads_pattern(const model_family& f) {
    return f.windows == window_rule::pattern || f.lists(model_key::sliding_window_pattern);
}
constexpr bool reads_chunks(const model_family& f) {
    return f.windows == window_rule::chunks || f.lists(model_key::attention_chunk_size);
}
constexpr bool reads_local_theta(const model_family& f) { return f.default_local_theta.has_value(); }
constexpr bool reads_no_rope(const model_family& f) { return f.nope == nope_rule::listed; }
constexpr bool reads_query_scalar(const model_family& f) { return f.scale == scale_rule::inverse_sqrt_stated; }
constexpr bool reads_attention_interval(const model_family& f) {
    return f.linear_layers && f.default_of(model_key::full_attention_interval).has_value();
}
constexpr bool reads_tuning(const model_family& f) { return f.temperature_unrotated; }
template <model_key K>
constexpr bool lists(const model_family& f) {
    return f.lists(K);
}
/// What `layer_types` calls blocks with an indexer, now and in older files (transformers configuration_utils.py
/// _LEGACY_LAYER_TYPE_REMAP).
constexpr bool is_indexed_type(std::string_view type) noexcept {
    return type == "indexed_attention" || type == "deepseek_sparse_attention";
}
constexpr bool reads_indexer(const model_family& f) { return f.indexer.blocks != indexer_blocks::none; }
constexpr bool reads_index_sizes(const model_family& f) { return reads_indexer(f) || reads_compressed(f); }
constexpr bool reads_indexer_switch(const model_family& f) { return f.indexer.by_switch; }
constexpr bool reads_indexer_types(const model_family& f) { return f.indexer.blocks == indexer_blocks::indexer_types; }
constexpr bool reads_indexer_pool(const model_family& f) { return f.indexer.default_pool != 0; }
constexpr bool reads_indexer_period(const model_family& f) { return f.indexer.period_keys; }
constexpr bool reads_softcap(const model_family& f) { return f.softcap; }
constexpr bool reads_multiplier(const model_family& f) {
    return f.scale == scale_rule::stated || f.scale == scale_rule::stated_or_usual;
}
constexpr bool reads_temperature(const model_family& f) { return f.temperature; }
/// Whether GGUF states sizes for each layer.
constexpr bool reads_gguf_layers(const model_family& f) {
    return f.kind == attention_kind::gqa &&
           (f.head_counts || f.block_configs || !f.window_keys.empty() || f.lists(model_key::global_head_dim));
}
/// Whether blocks with a window rotate by keys of their own in GGUF, and not unscaled by a base alone.
constexpr bool reads_gguf_ropes(const model_family& f) {
    return f.kind == attention_kind::gqa && !f.default_local_theta &&
           (f.dictionaries == dictionary_rule::by_layer_type || f.lists(model_key::global_head_dim));
}
constexpr bool reads_partial(const model_family& f) { return f.partial_rotary; }
constexpr bool reads_magnitudes(const model_family& f) { return f.longrope == longrope_rule::short_alone; }
constexpr bool reads_alpha(const model_family& f) { return f.dynamic_alpha; }

// clang-format off

/// Keys at the top of a language model's configuration.
inline constexpr key_row top_keys[] = {

    {model_key::hidden_size,                value_type::integer, 1,          max_dimension,  {"hidden_size"},                      {"embedding_length"}},
    {model_key::num_hidden_layers,          value_type::integer, 1,          max_layers,     {"num_hidden_layers"},                {"block_count"}},
    {model_key::num_attention_heads,        value_type::integer, 1,          max_dimension,  {"num_attention_heads"},              {"attention.head_count"}},
    {model_key::num_key_value_heads,        value_type::integer, 1,          max_dimension,  {"num_key_value_heads"},              {"attention.head_count_kv"}},
    {model_key::head_dim,                   value_type::integer, 0,          max_dimension,  {"head_dim"},                         {"attention.key_length"}},
    {model_key::q_lora_rank,                value_type::integer, 0,          max_dimension,  {"q_lora_rank"},                      {},                                   reads_query_rank},
    {model_key::kv_lora_rank,               value_type::integer, 1,          max_dimension,  {"kv_lora_rank"},                     {},                                   reads_mla},
    {model_key::qk_nope_head_dim,           value_type::integer, 1,          max_dimension,  {"qk_nope_head_dim"},                 {},                                   reads_mla},
    {model_key::qk_rope_head_dim,           value_type::integer, 0,          max_dimension,  {"qk_rope_head_dim"},                 {},                                   reads_query_rank},
    {model_key::v_head_dim,                 value_type::integer, 1,          max_dimension,  {"v_head_dim"},                       {},                                   reads_value_size},
    {model_key::max_position_embeddings,    value_type::integer, 1,          max_length,     {"max_position_embeddings"},          {"context_length"}},
    {model_key::rms_norm_eps,               value_type::number,  above_zero, 1.0,            {"rms_norm_eps"},                     {"attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"}},
    {model_key::attention_bias,             value_type::flag,    0,          1,              {"attention_bias"},                   {},                                   reads_biases},
    {model_key::attention_out_bias,         value_type::flag,    0,          1,              {"attention_out_bias"},               {},                                   lists<model_key::attention_out_bias>},
    {model_key::qk_norm,                    value_type::flag,    0,          1,              {"use_qk_norm", "qk_layernorm", "qk_norm"}, {},                             lists<model_key::qk_norm>},
    {model_key::clip_qkv,                   value_type::number,  above_zero, any_finite,     {"clip_qkv"},                         {"attention.clamp_kqv"},              lists<model_key::clip_qkv>},
    {model_key::multi_query,                value_type::flag,    0,          1,              {"multi_query"},                      {},                                   lists<model_key::multi_query>},
    {model_key::new_decoder_architecture,   value_type::flag,    0,          1,              {"new_decoder_architecture"},         {},                                   lists<model_key::multi_query>},
    {model_key::global_head_dim,            value_type::integer, 1,          max_dimension,  {"global_head_dim"},                  {},                                   lists<model_key::global_head_dim>},
    {model_key::num_global_key_value_heads, value_type::integer, 1,          max_dimension,  {"num_global_key_value_heads"},       {},                                   lists<model_key::global_head_dim>},
    {model_key::attention_k_eq_v,           value_type::flag,    0,          1,              {"attention_k_eq_v"},                 {},                                   lists<model_key::global_head_dim>},
    {model_key::num_kv_shared_layers,       value_type::integer, 0,          max_layers,     {"num_kv_shared_layers"},             {"attention.shared_kv_layers"},       lists<model_key::num_kv_shared_layers>},
    {model_key::kv_source_layers,           value_type::numbers, 0,          max_layers,     {"kv_source_layers"},                 {},                                   lists<model_key::kv_source_layers>},  // for each layer one before it, or itself
    {model_key::bidirectional_attention,    value_type::text,    0,          0,              {"use_bidirectional_attention"},      {},                                   lists<model_key::bidirectional_attention>},
    {model_key::sliding_window,             value_type::integer, 0,          max_length,     {"sliding_window"},                   {"attention.sliding_window"},         reads_window},
    {model_key::previous_tokens,            value_type::integer, 1,          max_length,     {},                                   {},                                   lists<model_key::previous_tokens>},  // that a token sees beside itself; by the aliases of a row
    {model_key::window_pattern,             value_type::numbers, 0,          1,              {"hybrid_layer_pattern"},             {},                                   lists<model_key::window_pattern>},
    {model_key::use_sliding_window,         value_type::flag,    0,          1,              {"use_sliding_window"},               {},                                   reads_window_switch},
    {model_key::max_window_layers,          value_type::integer, 0,          max_length,     {"max_window_layers"},                {}},  // without a window from a block on it means nothing
    {model_key::layer_types,                value_type::texts,   0,          0,              {"layer_types"},                      {},                                   reads_layer_types},
    {model_key::index_topk,                 value_type::integer, 1,          max_length,     {"index_topk"},                       {"attention.indexer.top_k"},          reads_index_sizes},
    {model_key::index_n_heads,              value_type::integer, 1,          max_dimension,  {"index_n_heads"},                    {"attention.indexer.head_count"},     reads_index_sizes},
    {model_key::index_head_dim,             value_type::integer, 1,          max_dimension,  {"index_head_dim"},                   {"attention.indexer.key_length"},     reads_index_sizes},
    {model_key::use_indexer,                value_type::flag,    0,          1,              {"use_dsa"},                          {},                                   reads_indexer_switch},
    {model_key::indexer_types,              value_type::texts,   0,          0,              {"indexer_types"},                    {},                                   reads_indexer_types},
    {model_key::index_topk_freq,            value_type::integer, 0,          max_layers,     {"index_topk_freq"},                  {},                                   reads_indexer_period},
    {model_key::index_skip_topk_offset,     value_type::integer, 0,          max_layers,     {"index_skip_topk_offset"},           {},                                   reads_indexer_period},
    {model_key::index_topk_pattern,         value_type::text,    0,          0,              {"index_topk_pattern"},               {},                                   reads_indexer_period},
    {model_key::indexer_rope_interleave,    value_type::flag,    0,          1,              {"indexer_rope_interleave"},          {},                                   reads_indexer},
    {model_key::index_kpool,                value_type::integer, 1,          max_length,     {"index_kpool"},                      {"attention.indexer.kpool"},          reads_indexer_pool},
    {model_key::index_kpool_always_select_tail, value_type::flag, 0,         1,              {"index_kpool_always_select_tail"},   {"attention.indexer.kpool_select_tail"}, reads_indexer_pool},
    {model_key::mla_use_nope,               value_type::flag,    0,          1,              {"mla_use_nope"},                     {},                                   reads_nope},
    {model_key::mla_use_output_gate,        value_type::flag,    0,          1,              {"mla_use_output_gate"},              {},                                   reads_gate},
    {model_key::full_attention_layers,      value_type::numbers, 1,          max_layers,     {"linear_attn_config.full_attn_layers"}, {},                                reads_attention_layers},  // counted from 1
    {model_key::full_attention_indexes,     value_type::numbers, 0,          max_layers,     {"full_attn_idxs"},                   {},                                   reads_attention_layers},  // counted from 0
    {model_key::hybrid_pattern,             value_type::text,    0,          0,              {"hybrid_override_pattern"},          {},                                   reads_attention_layers},  // a letter for each layer
    {model_key::full_attention_interval,    value_type::integer, 1,          max_layers,     {"full_attention_interval"},          {},                                   reads_attention_interval},
    {model_key::cross_attention_layers,     value_type::numbers, 0,          max_layers,     {"cross_attention_layers"},           {},                                   lists<model_key::cross_attention_layers>},  // counted from 0
    {model_key::feed_forward_types,         value_type::texts,   0,          0,              {},                                   {},                                   lists<model_key::feed_forward_types>},  // by the aliases of a row
    {model_key::layer_rope_theta,           value_type::numbers, 0,          any_finite,     {"layer_rope_theta"},                 {},                                   lists<model_key::layer_rope_theta>},  // 0: the layer does not rotate
    {model_key::local_attention,            value_type::integer, 0,          max_length,     {"local_attention"},                  {},                                   lists<model_key::local_attention>},  // twice the window
    {model_key::attention_layer_period,     value_type::integer, 1,          max_layers,     {"attn_layer_period"},                {},                                   lists<model_key::attention_layer_period>},
    {model_key::attention_layer_offset,     value_type::integer, 0,          max_layers,     {"attn_layer_offset"},                {},                                   lists<model_key::attention_layer_period>},
    {model_key::position_type,              value_type::text,    0,          0,              {},                                   {},                                   lists<model_key::position_type>},  // by the aliases of a row
    {model_key::num_layers,                 value_type::integer, 1,          max_layers,     {"num_layers"},                       {},                                   reads_parts},
    {model_key::mla_scale_q_lora,           value_type::flag,    0,          1,              {"mla_scale_q_lora"},                 {},                                   reads_latent_scales},
    {model_key::mla_scale_kv_lora,          value_type::flag,    0,          1,              {"mla_scale_kv_lora"},                {},                                   reads_latent_scales},
    {model_key::sliding_window_pattern,     value_type::period,  0,          max_layers,     {"sliding_window_pattern", "_sliding_window_pattern"}, {},                  reads_pattern},
    {model_key::attention_chunk_size,       value_type::integer, 1,          max_length,     {"attention_chunk_size"},             {"attention.chunk_size"},             reads_chunks},
    {model_key::no_rope_layers,             value_type::numbers, 0,          1,              {"no_rope_layers"},                   {},                                   reads_no_rope},
    {model_key::no_rope_layer_interval,     value_type::integer, 1,          max_layers,     {"no_rope_layer_interval"},           {},                                   reads_no_rope},
    {model_key::softcap,                    value_type::number,  0,          any_finite,     {"attn_logit_softcapping"},           {"attn_logit_softcapping"},           reads_softcap},
    {model_key::attention_multiplier,       value_type::number,  above_zero, any_finite,     {"attention_multiplier"},             {"attention.scale"},                  reads_multiplier},
    {model_key::key_multiplier,             value_type::number,  above_zero, any_finite,     {"key_multiplier"},                   {},                                   lists<model_key::key_multiplier>, 1.0},
    {model_key::value_scale,                value_type::number,  above_zero, any_finite,     {"attention_value_scale"},            {"attention.value_scale"},            lists<model_key::value_scale>, 1.0},
    {model_key::query_pre_attn_scalar,      value_type::number,  above_zero, any_finite,     {"query_pre_attn_scalar"},            {},                                   reads_query_scalar},
    {model_key::temperature_tuning,         value_type::flag,    0,          1,              {"attn_temperature_tuning"},          {},                                   reads_tuning},
    {model_key::temperature_scale,          value_type::number,  above_zero, any_finite,     {"attn_scale"},                       {},                                   reads_tuning},
    {model_key::temperature_length,         value_type::number,  above_zero, any_finite,     {"floor_scale"},                      {},                                   reads_tuning},
    {model_key::rope_interleave,            value_type::flag,    0,          1,              {"rope_interleave"},                  {}},
    {model_key::rope_theta,                 value_type::number,  above_zero, any_finite,     {"rope_theta"},                       {"rope.freq_base"}},
    {model_key::rope_local_theta,           value_type::number,  above_zero, any_finite,     {"rope_local_base_freq"},             {"rope.freq_base_swa"},                                   reads_local_theta},
    {model_key::partial_rotary_factor,      value_type::number,  above_zero, 1.0,            {"partial_rotary_factor"},            {},                                   reads_partial,     1.0},
    {model_key::rotary_dim,                 value_type::integer, 2,          max_dimension,  {"rotary_dim"},                       {},                                   lists<model_key::rotary_dim>},
    {model_key::rope_ratio,                 value_type::number,  above_zero, any_finite,     {"rope_ratio"},                       {},                                   lists<model_key::rope_ratio>, 1.0},
    {model_key::dynamic_ntk,                value_type::flag,    0,          1,              {"use_dynamic_ntk"},                  {},                                   lists<model_key::dynamic_ntk>},
    {model_key::logn,                       value_type::flag,    0,          1,              {"use_logn_attn"},                    {},                                   lists<model_key::logn>},
    {model_key::rope_original_max_position, value_type::integer, 1,          max_length,     {"original_max_position_embeddings"}, {}},
    {model_key::o_groups,                   value_type::integer, 1,          max_dimension,  {"o_groups"},                         {"attention.output_group_count"},     reads_compressed},
    {model_key::o_lora_rank,                value_type::integer, 1,          max_dimension,  {"o_lora_rank"},                      {"attention.output_lora_rank"},       reads_compressed},
    {model_key::compress_ratios,            value_type::numbers, 0,          max_dimension,  {"compress_ratios"},                  {"attention.compress_ratios"},        reads_compressed},
    {model_key::compress_rate_csa,          value_type::integer, 1,          max_dimension,  {"compress_rate_csa"},                {},                                   reads_compressed},
    {model_key::compress_rate_hca,          value_type::integer, 1,          max_dimension,  {"compress_rate_hca"},                {},                                   reads_compressed},
    {model_key::compress_rope_theta,        value_type::number,  above_zero, any_finite,     {"compress_rope_theta"},              {"attention.compress_rope_freq_base"}, reads_compressed},

    {model_key::vocab_size,                 value_type::integer, 1,          max_vocabulary, {"vocab_size"},                       {"vocab_size"}},
    {model_key::num_nextn_predict_layers,   value_type::integer, 0,          max_layers,     {"num_nextn_predict_layers"},         {"nextn_predict_layers"}},
    {model_key::intermediate_size,          value_type::integer, 1,          max_vocabulary, {"intermediate_size"},                {"feed_forward_length"}},
    {model_key::hidden_act,                 value_type::text,    0,          0,              {"hidden_act"}},
    {model_key::n_routed_experts,           value_type::integer, 0,          max_dimension,  {"n_routed_experts"},                 {"expert_count"}},
    {model_key::n_shared_experts,           value_type::integer, 0,          max_dimension,  {"n_shared_experts"},                 {"expert_shared_count"}},
    {model_key::num_experts_per_tok,        value_type::integer, 0,          max_dimension,  {"num_experts_per_tok"},              {"expert_used_count"}},
    {model_key::moe_intermediate_size,      value_type::integer, 1,          max_vocabulary, {"moe_intermediate_size"},            {"expert_feed_forward_length"}},
    {model_key::first_k_dense_replace,      value_type::integer, 0,          max_layers,     {"first_k_dense_replace"},            {"leading_dense_block_count"}},
    {model_key::n_group,                    value_type::integer, 0,          max_dimension,  {"n_group"},                          {"expert_group_count"}},
    {model_key::topk_group,                 value_type::integer, 0,          max_dimension,  {"topk_group"},                       {"expert_group_used_count"}},
    {model_key::norm_topk_prob,             value_type::flag,    0,          1,              {"norm_topk_prob"},                   {"expert_weights_norm"}},
    {model_key::routed_scaling_factor,      value_type::number,  0,          any_finite,     {"routed_scaling_factor"},            {"expert_weights_scale"}},
    {model_key::scoring_func,               value_type::text,    0,          0,              {"scoring_func"}},
    {model_key::topk_method,                value_type::text,    0,          0,              {"topk_method"}},
    {model_key::tie_word_embeddings,        value_type::flag,    0,          1,              {"tie_word_embeddings"}},
    {model_key::bos_token_id,               value_type::token,   0,          max_vocabulary, {"bos_token_id"}},
    {model_key::eos_token_id,               value_type::token,   0,          max_vocabulary, {"eos_token_id"}},
};

/// Keys of a rope dictionary: rope_scaling or rope_parameters, or one of those that rope_parameters holds by layer type.
inline constexpr key_row rope_keys[] = {
    {model_key::rope_type,                  value_type::text,    0,          0,          {"rope_type", "type"},                {"rope.scaling.type"}},
    {model_key::rope_theta,                 value_type::number,  above_zero, any_finite, {"rope_theta"},                       {}},
    {model_key::partial_rotary_factor,      value_type::number,  above_zero, 1.0,        {"partial_rotary_factor"},            {},                                           reads_partial,     1.0},
    {model_key::rope_factor,                value_type::number,  above_zero, any_finite, {"factor"},                           {"rope.scaling.factor", "rope.scale_linear"}},
    {model_key::rope_original_max_position, value_type::integer, 1,          max_length, {"original_max_position_embeddings"}, {"rope.scaling.original_context_length"}},
    {model_key::max_position_embeddings,    value_type::integer, 1,          max_length, {"max_position_embeddings"},          {}},
    {model_key::rope_attention_factor,      value_type::number,  above_zero, any_finite, {"attention_factor"},                 {}},
    {model_key::rope_magnitude_factor,      value_type::number,  above_zero, any_finite, {},                                   {"rope.scaling.attn_factor"}},
    {model_key::rope_beta_fast,             value_type::number,  above_zero, any_finite, {"beta_fast"},                        {"rope.scaling.yarn_beta_fast"}},
    {model_key::rope_beta_slow,             value_type::number,  above_zero, any_finite, {"beta_slow"},                        {"rope.scaling.yarn_beta_slow"}},
    {model_key::rope_mscale,                value_type::number,  0,          any_finite, {"mscale"},                           {}},
    {model_key::rope_mscale_all_dim,        value_type::number,  0,          any_finite, {"mscale_all_dim"},                   {"rope.scaling.yarn_log_multiplier"}},
    {model_key::rope_truncate,              value_type::flag,    0,          1,          {"truncate"},                         {}},
    {model_key::rope_low_freq_factor,       value_type::number,  above_zero, any_finite, {"low_freq_factor"},                  {}},
    {model_key::rope_high_freq_factor,      value_type::number,  above_zero, any_finite, {"high_freq_factor"},                 {}},
    {model_key::rope_alpha,                 value_type::number,  above_zero, any_finite, {"alpha"},                            {"rope.scaling.alpha"},                       reads_alpha},
    {model_key::rope_short_magnitude,       value_type::number,  above_zero, any_finite, {"short_mscale"},                     {},                                           reads_magnitudes},
    {model_key::rope_long_magnitude,        value_type::number,  above_zero, any_finite, {"long_mscale"},                      {},                                           reads_magnitudes},
    {model_key::rope_short_factor,          value_type::numbers, above_zero, any_finite, {"short_factor"},                     {}},
    {model_key::rope_long_factor,           value_type::numbers, above_zero, any_finite, {"long_factor"},                      {}},
    {model_key::rope_mrope_section,         value_type::numbers, 0,          any_finite, {"mrope_section"},                    {}},
    {model_key::temperature_scale,          value_type::number,  0,          any_finite, {"llama_4_scaling_beta"},             {},                                           reads_temperature},
};

/// Keys of `compress_rates`: tokens of an entry, by layer type. What stands beside the object goes before it.
inline constexpr key_row compress_rate_keys[] = {
    {model_key::compress_rate_csa,          value_type::integer, 1,          max_dimension, {"compressed_sparse_attention"}},
    {model_key::compress_rate_hca,          value_type::integer, 1,          max_dimension, {"heavily_compressed_attention"}},
};

// clang-format on

}  // namespace larql::detail

#endif
