// SPDX-License-Identifier: Apache-2.0
//
// What one attention block computes, as plain data: everything that a layer, the absorber, the cost model and a
// converter ask. model_config.hpp fills one for each block of a checkpoint; an engine may fill its own.
#ifndef LARQL_ATTENTION_SPEC_HPP
#define LARQL_ATTENTION_SPEC_HPP

#include <larql/attention_form.hpp>
#include <larql/mla_geometry.hpp>
#include <larql/rope_config.hpp>
#include <larql/tensor_role.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace larql {

enum class attention_kind : std::uint8_t {
    mla,    ///< multi-head latent attention
    gqa,    ///< multi-head, grouped-query or multi-query attention
    other,  ///< a block of a hybrid model that does not attend in one of these ways; nothing is computed for it
};

constexpr std::string_view to_string(attention_kind kind) noexcept {
    return kind == attention_kind::mla ? "mla" : kind == attention_kind::gqa ? "gqa" : "other";
}

enum class norm_kind : std::uint8_t {
    none,
    rms,    ///< x / sqrt(mean(x^2) + eps)
    layer,  ///< (x - mean(x)) / sqrt(var(x) + eps)
};

constexpr std::string_view to_string(norm_kind kind) noexcept {
    return kind == norm_kind::none ? "none" : kind == norm_kind::rms ? "rms" : "layer";
}

/// A norm of query heads, key heads or a latent.
struct norm_spec {
    norm_kind kind = norm_kind::none;
    bool per_head = true;      ///< over the D elements of each head; false: over all heads together (OLMo 2)
    bool own_gains = false;    ///< every head has gains of its own: [H*D] of them for norms per head (Cohere)
    bool has_gain = true;      ///< multiplied by stored gains
    bool after_rope = false;   ///< applied to rotated heads; false: before rotation
    double gain_offset = 0.0;  ///< added to the stored gains (Gemma: 1)
    double eps = 0.0;          ///< above 0 wherever there is a norm; in a model_family's row, 0 is the configuration's
};

/// A factor of the query that grows with its position p: 1 + scale * ln(1 + floor((p + offset) / length)).
/// @source transformers modeling_mistral4.py get_llama_4_attn_scale (offset 0), modeling_llama4.py (offset 1);
///         llama.cpp deepseek2.cpp, `attention.temperature_*`
struct query_temperature {
    double scale = 0.0;   ///< 0: the query keeps its length
    double length = 0.0;  ///< tokens from one step to the next
    double offset = 0.0;
};

/// A sigmoid of a projection of the block's input that multiplies the heads' outputs before the output projection.
enum class output_gate : std::uint8_t {
    none,
    per_head,     ///< one factor for each head, gate [H, E]
    per_element,  ///< one for each element, gate [H*V, E]
};

constexpr std::string_view to_string(output_gate gate) noexcept {
    return gate == output_gate::none ? "none" : gate == output_gate::per_head ? "per_head" : "per_element";
}

/// The order of the rows of a fused q, k and v.
enum class qkv_order : std::uint8_t {
    in_turn,   ///< the rows of q, of k, of v (Phi-3)
    by_group,  ///< for each key/value head: its H/G query heads, its key head, its value head (InternLM2, GPT-NeoX)
};

constexpr std::string_view to_string(qkv_order order) noexcept {
    return order == qkv_order::in_turn ? "in_turn" : "by_group";
}

/// One attention block. Sizes are in elements; 0 means "has none".
struct attention_spec {
    attention_kind kind = attention_kind::mla;
    attention_form form = attention_form::factored;  ///< of the weights

    /// Sizes, and order and pairing of the rows of the weights. Plain attention has kv_lora_rank 0; its heads are
    /// qk_rope_head_dim rotated and qk_nope_head_dim other elements, in the order that `order` says.
    mla_geometry geometry{};
    rope_config rope{};  ///< of qk_rope_head_dim elements

    double scale = 0.0;              ///< multiplies q.k before everything else, YaRN's m^2 included
    double softcap = 0.0;            ///< scores become softcap * tanh(score / softcap); 0: none
    std::size_t sliding_window = 0;  ///< the token at p sees key j only if p - j < sliding_window; 0: none
    std::size_t chunk = 0;           ///< the token at p sees key j only if p / chunk == j / chunk; 0: none
    double clip = 0.0;               ///< queries, keys and values are limited to [-clip, clip] before rotation; 0: none
    bool value_is_key = false;       ///< values are the projected keys before their norm and rotation: there is no v
    bool sinks = false;              ///< a learned logit per head takes part in the softmax
    output_gate gate = output_gate::none;
    query_temperature temperature{};

    norm_spec q_norm{};                                          ///< of the query heads: plain attention
    norm_spec k_norm{};                                          ///< of the key heads: plain attention
    norm_spec v_norm{};                                          ///< of the value heads: plain attention, no gains
    norm_spec latent_norm{.kind = norm_kind::rms, .eps = 1e-6};  ///< of both latents; none: factors without norms

    role_set biases{};           ///< tensors that have a bias; it is required, and refused elsewhere
    role_set possible_biases{};  ///< tensors that may have one: the file says so by having it

    qkv_order fused = qkv_order::in_turn;  ///< of the rows of a stored qkv
    role_set transposed{};                 ///< tensors that are stored [in, out] (GPT-2)
};

/// Why a block cannot be computed in a form, or "" if it can.
constexpr std::string_view why_not(const attention_spec& spec, attention_form form) noexcept {
    if (spec.kind == attention_kind::other) return "has no softmax attention in this block: larql does not compute it";
    if (form == spec.form) return "";
    if (spec.kind != attention_kind::mla) return "has no latent attention: only the factored form";
    if (spec.form != attention_form::factored) return "is stored in another form; only published factors make others";
    return "";
}

/// The first rotated element of a query or key head.
constexpr std::size_t rope_begin(const mla_geometry& g) noexcept {
    return g.order == head_order::rope_nope ? 0 : g.qk_nope_head_dim;
}

}  // namespace larql

#endif
