// SPDX-License-Identifier: Apache-2.0
//
// What a form of attention costs: weights, cache and arithmetic, from the sizes alone.
#ifndef LARQL_ATTENTION_COST_HPP
#define LARQL_ATTENTION_COST_HPP

#include <larql/attention_form.hpp>
#include <larql/attention_spec.hpp>
#include <larql/detail/compressed/shape.hpp>
#include <larql/mla_geometry.hpp>

#include <cstddef>
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

/// The costs of compressed attention. A token adds a share of an entry to the cache, rounded up, and what an indexer
/// leaves of the entries counts as cached tokens.
inline attention_cost compressed_cost_of(const attention_spec& spec) noexcept {
    const mla_geometry& g = spec.geometry;
    const compression_spec& c = spec.compression;
    const std::uint64_t width = g.hidden_size, heads = g.num_heads, dim = g.qk_head_dim(), rank = g.q_lora_rank;
    const std::uint64_t joined = spec.output_groups * spec.output_rank, attended = heads * dim;
    const std::uint64_t halves = c.overlapping ? 2 : 1, index = c.index_heads == 0 ? 0 : c.index_head_dim;
    attention_cost cost;
    cost.weights = rank * width + attended * rank + dim * width;
    cost.weights += joined == 0 ? attended * width : attended * spec.output_rank + joined * width;
    if (c.ratio != 0) {
        cost.weights += 2 * halves * (dim + index) * width + c.index_heads * (index * rank + width);
        cost.cached_per_token = (dim + index + c.ratio - 1) / c.ratio;
    }
    cost.flops_per_token = 2 * cost.weights;
    cost.flops_per_cached_token = 4 * attended;
    return cost;
}

/// The costs of a block in a form, with what its spec adds to the projections, and its indexer. A sliding window bounds
/// the tokens that flops_per_cached_token counts, and so do an indexer's top_k but for its own scores, not the number
/// for each.
inline attention_cost cost_of(const attention_spec& spec, attention_form form) noexcept {
    if (spec.kind == attention_kind::compressed) return compressed_cost_of(spec);
    attention_cost cost = cost_of(spec.geometry, form);
    const mla_geometry& g = spec.geometry;
    if (const indexer_spec& indexer = spec.indexer; indexer.own()) {
        const std::uint64_t dim = indexer.head_dim, index_heads = indexer.heads;
        const std::uint64_t inputs = indexer.cached_size() + index_heads;
        const std::uint64_t weights = index_heads * dim * g.q_lora_rank + inputs * g.hidden_size;
        cost.weights += weights;
        cost.cached_per_token += indexer.cached_size();
        cost.flops_per_token += 2 * weights;
        cost.flops_per_cached_token += 2 * index_heads * (dim + 1) / indexer.pool;
    }
    const auto project = [&](std::uint64_t weights) {
        cost.weights += weights;
        cost.flops_per_token += 2 * weights;
    };
    if (spec.raw_query_latent) project(g.num_heads * g.qk_head_dim() * g.q_lora_rank);
    if (spec.gate == output_gate::none) return cost;
    const std::uint64_t rows = spec.gate == output_gate::per_head ? g.num_heads : g.num_heads * g.v_head_dim;
    project(rows * (spec.raw_query_latent ? 2 * g.q_lora_rank : g.hidden_size));
    return cost;
}

/// Sizes of the cache that a block of compressed attention needs.
/// @param capacity  tokens
/// @param rollback  tokens that can always be taken back, see attention_layer::make_cache
inline compressed_cache_shape compressed_cache_shape_of(const attention_spec& spec, std::size_t capacity,
                                                        std::size_t rollback = default_rollback) noexcept {
    const compression_spec& c = spec.compression;
    return {.capacity = capacity,
            .head_dim = spec.geometry.qk_head_dim(),
            .window = spec.sliding_window,
            .ratio = c.ratio,
            .overlapping = c.overlapping,
            .index_head_dim = c.ratio != 0 && c.index_heads != 0 ? c.index_head_dim : 0,
            .rollback = rollback};
}

/// Bytes of a block's cache for so many tokens, whatever kind of attention it is.
/// @param element_bytes  of a cached element: 4 for float, 2 for bf16 and f16
inline std::uint64_t cache_bytes(const attention_spec& spec, attention_form form, std::size_t capacity,
                                 std::size_t element_bytes, std::size_t rollback = default_rollback) noexcept {
    if (spec.kind == attention_kind::compressed)
        return compressed_cache_shape_of(spec, capacity, rollback).bytes(capacity, element_bytes);
    return cost_of(spec, form).cached_per_token * capacity * element_bytes;
}

}  // namespace larql

#endif
