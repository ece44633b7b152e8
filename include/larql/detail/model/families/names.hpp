// SPDX-License-Identifier: Apache-2.0
//
// What families call the tensors around attention, and how tables are joined.
#ifndef LARQL_DETAIL_MODEL_FAMILIES_NAMES_HPP
#define LARQL_DETAIL_MODEL_FAMILIES_NAMES_HPP

#include <larql/model_family.hpp>

#include <array>
#include <cstddef>
#include <string_view>
#include <type_traits>

namespace larql::detail {

template <class Table>
inline constexpr std::size_t rows_in = std::extent_v<Table>;
template <class Row, std::size_t N>
inline constexpr std::size_t rows_in<std::array<Row, N>> = N;

/// Tables as one.
template <class First, class... Others>
constexpr auto joined(const First& first, const Others&... others) {
    using row = std::remove_cvref_t<decltype(first[0])>;
    std::array<row, (rows_in<First> + ... + rows_in<Others>)> all{};
    std::size_t end = 0;
    const auto append = [&](const auto& table) {
        for (const row& one : table) all[end++] = one;
    };
    append(first);
    (append(others), ...);
    return all;
}

// clang-format off
// Mistral's own files: mistral-inference; vLLM's mistral_large_3.py has the same names.
inline constexpr name_row params_names_around_attention[] = {
    {tensor_role::embedding,           "tok_embeddings.weight",                            "token_embd.weight"},
    {tensor_role::output_norm,         "norm.weight",                                      "output_norm.weight"},
    {tensor_role::output,              "output.weight",                                    "output.weight"},
    {tensor_role::input_norm,          "layers.{}.attention_norm.weight",                  "blk.{}.attn_norm.weight"},
    {tensor_role::ffn_norm,            "layers.{}.ffn_norm.weight",                        "blk.{}.ffn_norm.weight"},
    {tensor_role::o,                   "layers.{}.attention.wo.weight",                    "blk.{}.attn_output.weight"},
};
inline constexpr key_alias params_aliases[] = {
    {model_key::hidden_size,         "dim"},
    {model_key::num_hidden_layers,   "n_layers"},
    {model_key::num_attention_heads, "n_heads"},
    {model_key::num_key_value_heads, "n_kv_heads"},
    {model_key::intermediate_size,   "hidden_dim"},
    {model_key::rms_norm_eps,        "norm_eps"},
    {model_key::tie_word_embeddings, "tied_embeddings"},
};
// Objects that are read by themselves (params_source.hpp), and the experts.
inline constexpr std::string_view params_inert[] = {"yarn", "llama_4_scaling", "moe"};

// Sources: transformers' modeling_llama.py; llama.cpp's gguf-py/gguf/tensor_mapping.py.
inline constexpr name_row names_around_attention[] = {
    {tensor_role::embedding,           "embed_tokens.weight",                              "token_embd.weight"},
    {tensor_role::output_norm,         "norm.weight",                                      "output_norm.weight"},
    {tensor_role::output,              "lm_head.weight",                                   "output.weight", true},
    {tensor_role::input_norm,          "layers.{}.input_layernorm.weight",                 "blk.{}.attn_norm.weight"},
    {tensor_role::ffn_norm,            "layers.{}.post_attention_layernorm.weight",        "blk.{}.ffn_norm.weight"},
    {tensor_role::ffn_gate,            "layers.{}.mlp.gate_proj.weight",                   "blk.{}.ffn_gate.weight"},
    {tensor_role::ffn_up,              "layers.{}.mlp.up_proj.weight",                     "blk.{}.ffn_up.weight"},
    {tensor_role::ffn_down,            "layers.{}.mlp.down_proj.weight",                   "blk.{}.ffn_down.weight"},
    {tensor_role::rope_divisors,       "",                                                 "rope_freqs.weight"},
    {tensor_role::rope_long_factors,   "",                                                 "rope_factors_long.weight"},
    {tensor_role::rope_short_factors,  "",                                                 "rope_factors_short.weight"},
};
// clang-format on

}  // namespace larql::detail

#endif
