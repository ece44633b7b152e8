// SPDX-License-Identifier: Apache-2.0
//
// The words in which larql says how an attention layer is stored. They are explicit everywhere and never implied.
#ifndef LARQL_ATTENTION_FORM_HPP
#define LARQL_ATTENTION_FORM_HPP

#include <cstdint>
#include <optional>
#include <string_view>

namespace larql {

/// Three sets of tensors that compute the same attention.
enum class attention_form : std::uint8_t {
    factored,  ///< as published: low-rank factors with an RMSNorm between them; ordinary attention counts as factored
    dense,     ///< Q, K, V, O as in standard attention, plus the latent rows q_a and kv_a that the norms need
    latent,    ///< k_b folded into the query: multi-query attention over the cached latent
};

/// Order of the two parts within a query or key head.
enum class head_order : std::uint8_t {
    nope_rope,  ///< [nope | rope], as the published weights
    rope_nope,  ///< [rope | nope], larql's dense convention: a partial-rotary kernel rotates the leading elements
};

constexpr std::string_view to_string(attention_form form) noexcept {
    switch (form) {
        case attention_form::factored: return "factored";
        case attention_form::dense: return "dense";
        case attention_form::latent: return "latent";
    }
    return "unknown";
}

constexpr std::string_view to_string(head_order order) noexcept {
    return order == head_order::nope_rope ? "nope_rope" : "rope_nope";
}

/// The form with this name, or nothing.
constexpr std::optional<attention_form> attention_form_from_name(std::string_view name) noexcept {
    for (const attention_form form : {attention_form::factored, attention_form::dense, attention_form::latent})
        if (to_string(form) == name) return form;
    return std::nullopt;
}

/// The order with this name, or nothing.
constexpr std::optional<head_order> head_order_from_name(std::string_view name) noexcept {
    for (const head_order order : {head_order::nope_rope, head_order::rope_nope})
        if (to_string(order) == name) return order;
    return std::nullopt;
}

}  // namespace larql

#endif
