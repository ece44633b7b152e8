// SPDX-License-Identifier: Apache-2.0
//
// What the tensors of an attention block are called: one row for each role, in transformers' names and in GGUF's.
#ifndef LARQL_DETAIL_CHECKPOINT_TENSOR_ROLES_HPP
#define LARQL_DETAIL_CHECKPOINT_TENSOR_ROLES_HPP

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string_view>

namespace larql {

/// What a tensor is for within an attention block.
enum class attention_role : std::uint8_t {
    q,
    q_a,
    q_a_norm,
    q_b,
    kv_a,
    kv_a_norm,
    kv_a_latent,
    kv_b,
    k_b,
    v_b,
    k,
    v,
    o,
};

namespace detail {

struct role_names {
    attention_role role;
    std::string_view safetensors;  ///< within layers.N.self_attn.
    std::string_view gguf;         ///< within blk.N.; empty where GGUF has no such tensor
};

// Sources: transformers' modeling_deepseek_v3.py and modeling_llama.py; llama.cpp's llama-arch.cpp. k_b_proj, v_b_proj
// and kv_a_proj (latent rows alone) are larql's own, for the latent and the dense form.
inline constexpr role_names role_table[] = {
    {attention_role::q, "q_proj", "attn_q"},
    {attention_role::q_a, "q_a_proj", "attn_q_a"},
    {attention_role::q_a_norm, "q_a_layernorm", "attn_q_a_norm"},
    {attention_role::q_b, "q_b_proj", "attn_q_b"},
    {attention_role::kv_a, "kv_a_proj_with_mqa", "attn_kv_a_mqa"},
    {attention_role::kv_a_norm, "kv_a_layernorm", "attn_kv_a_norm"},
    {attention_role::kv_a_latent, "kv_a_proj", ""},
    {attention_role::kv_b, "kv_b_proj", "attn_kv_b"},
    {attention_role::k_b, "k_b_proj", "attn_k_b"},
    {attention_role::v_b, "v_b_proj", "attn_v_b"},
    {attention_role::k, "k_proj", "attn_k"},
    {attention_role::v, "v_proj", "attn_v"},
    {attention_role::o, "o_proj", "attn_output"},
};
static_assert(std::size(role_table) == static_cast<std::size_t>(attention_role::o) + 1, "one row per role");

constexpr const role_names& names_of(attention_role role) noexcept {
    return role_table[static_cast<std::size_t>(role)];
}

}  // namespace detail
}  // namespace larql

#endif
