// SPDX-License-Identifier: Apache-2.0
//
// What a form of attention costs: weights, cache and arithmetic, from the sizes alone.
#ifndef LARQL_ATTENTION_COST_HPP
#define LARQL_ATTENTION_COST_HPP

#include <larql/attention_form.hpp>
#include <larql/attention_spec.hpp>
#include <larql/mla_geometry.hpp>

#include <cstdint>

namespace larql {

/// Costs of one attention block, in numbers (not bytes) and floating-point operations (a multiply-add is two).
struct attention_cost {
    std::uint64_t weights = 0;           ///< elements of all tensors that the form keeps, norms and biases left out
    std::uint64_t cached_per_token = 0;  ///< elements that a decoded token adds to the cache
    std::uint64_t flops_per_token = 0;   ///< projections of one token
    std::uint64_t flops_per_cached_token = 0;  ///< attention of one new token to one cached token
};

/// The costs of a block in a form. Plain attention (kv_lora_rank 0) has the factored form alone.
inline attention_cost cost_of(const mla_geometry& g, attention_form form) noexcept {
    const std::uint64_t width = g.hidden_size, heads = g.num_heads, kv_heads = g.kv_heads(), dim = g.qk_head_dim();
    const std::uint64_t value = g.v_head_dim, q_rank = g.q_lora_rank, rank = g.kv_lora_rank;
    const std::uint64_t nope = g.qk_nope_head_dim, rope = g.qk_rope_head_dim;
    const std::uint64_t output = heads * value * width;
    const std::uint64_t expanded_cache = kv_heads * (dim + value);
    const std::uint64_t expanded_attention = 2 * heads * (dim + value);
    attention_cost cost;
    if (rank == 0 || form == attention_form::dense) {
        const std::uint64_t latent_rows = rank == 0 ? 0 : (q_rank + rank) * width;
        cost.weights = (heads * dim + kv_heads * (dim + value)) * width + latent_rows + output;
        cost.cached_per_token = expanded_cache;
        cost.flops_per_token = 2 * cost.weights;
        cost.flops_per_cached_token = expanded_attention;
        return cost;
    }
    const std::uint64_t query = q_rank == 0 ? heads * dim * width : q_rank * width + heads * dim * q_rank;
    cost.weights = query + (rank + rope) * width + kv_heads * (nope + value) * rank + output;
    if (form == attention_form::factored) {
        cost.cached_per_token = expanded_cache;
        cost.flops_per_token = 2 * cost.weights;
        cost.flops_per_cached_token = expanded_attention;
    } else {  // k_b carries the query of every head into the latent, v_b carries the result of every head back
        cost.cached_per_token = rank + rope;
        cost.flops_per_token = 2 * (query + (rank + rope) * width + heads * (nope + value) * rank + output);
        cost.flops_per_cached_token = 2 * heads * (2 * rank + rope);
    }
    return cost;
}

/// The costs of a block in a form, with what its spec adds to the projections. A sliding window bounds the tokens that
/// flops_per_cached_token counts, not the number for each.
inline attention_cost cost_of(const attention_spec& spec, attention_form form) noexcept {
    if (spec.kind == attention_kind::other) return {};
    attention_cost cost = cost_of(spec.geometry, form);
    if (spec.gate == output_gate::none) return cost;
    const mla_geometry& g = spec.geometry;
    const std::uint64_t rows = spec.gate == output_gate::per_head ? g.num_heads : g.num_heads * g.v_head_dim;
    cost.weights += rows * g.hidden_size;
    cost.flops_per_token += 2 * rows * g.hidden_size;
    return cost;
}

}  // namespace larql

#endif
