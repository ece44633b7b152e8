// SPDX-License-Identifier: Apache-2.0
//
// What a form of attention costs: weights, cache and arithmetic, from the sizes alone.
#ifndef LARQL_ATTENTION_COST_HPP
#define LARQL_ATTENTION_COST_HPP

#include <larql/attention_form.hpp>
#include <larql/attention_spec.hpp>
#include <larql/detail/compressed/shape.hpp>
#include <larql/detail/saturating.hpp>
#include <larql/mla_geometry.hpp>

#include <cstddef>
#include <cstdint>

namespace larql {

/// Costs of one attention block, in numbers (not bytes) and floating-point operations (a multiply-add is two). A cost
/// that 64 bits do not hold is UINT64_MAX.
struct attention_cost {
    std::uint64_t weights = 0;           ///< elements of all tensors that the form keeps, norms and biases left out
    std::uint64_t cached_per_token = 0;  ///< elements that a decoded token adds to the cache
    std::uint64_t flops_per_token = 0;   ///< projections of one token
    std::uint64_t flops_per_cached_token = 0;  ///< attention of one new token to one cached token

    /// Costs of several blocks.
    attention_cost& operator+=(const attention_cost& other) noexcept {
        using detail::saturating;
        weights = (saturating(weights) + other.weights).value();
        cached_per_token = (saturating(cached_per_token) + other.cached_per_token).value();
        flops_per_token = (saturating(flops_per_token) + other.flops_per_token).value();
        flops_per_cached_token = (saturating(flops_per_cached_token) + other.flops_per_cached_token).value();
        return *this;
    }
};

/// The costs of a block in a form. Plain attention (kv_lora_rank 0) has the factored form alone.
inline attention_cost cost_of(const mla_geometry& g, attention_form form) noexcept {
    using detail::saturating;
    const saturating width = g.hidden_size, heads = g.num_heads, kv_heads = g.kv_heads();
    const saturating nope = g.qk_nope_head_dim, rope = g.qk_rope_head_dim, dim = nope + rope;
    const saturating value = g.v_head_dim, q_rank = g.q_lora_rank, rank = g.kv_lora_rank;
    const saturating output = heads * value * width;
    const saturating expanded_cache = kv_heads * (dim + value);
    const saturating expanded_attention = heads * (dim + value) * 2;
    const auto cost = [](saturating weights, saturating cached, saturating used, saturating attention) {
        return attention_cost{.weights = weights.value(),
                              .cached_per_token = cached.value(),
                              .flops_per_token = (used * 2).value(),
                              .flops_per_cached_token = attention.value()};
    };
    if (g.kv_lora_rank == 0 || form == attention_form::dense) {
        const saturating latent_rows = g.kv_lora_rank == 0 ? saturating(0) : (q_rank + rank) * width;
        const saturating weights = (heads * dim + kv_heads * (dim + value)) * width + latent_rows + output;
        return cost(weights, expanded_cache, weights, expanded_attention);
    }
    const saturating query = g.q_lora_rank == 0 ? heads * dim * width : q_rank * width + heads * dim * q_rank;
    const saturating weights = query + (rank + rope) * width + kv_heads * (nope + value) * rank + output;
    if (form == attention_form::factored) return cost(weights, expanded_cache, weights, expanded_attention);
    // k_b carries the query of every head into the latent, v_b carries the result of every head back
    return cost(weights, rank + rope, query + (rank + rope) * width + heads * (nope + value) * rank + output,
                heads * (rank * 2 + rope) * 2);
}

/// The costs of compressed attention. A token adds a share of an entry to the cache, rounded up, and what an indexer
/// leaves of the entries counts as cached tokens.
inline attention_cost compressed_cost_of(const attention_spec& spec) noexcept {
    using detail::saturating;
    const mla_geometry& g = spec.geometry;
    const compression_spec& c = spec.compression;
    const saturating width = g.hidden_size, heads = g.num_heads, dim = g.qk_head_dim(), rank = g.q_lora_rank;
    const saturating joined = saturating(spec.output_groups) * spec.output_rank, attended = heads * dim;
    const saturating halves = c.overlapping ? 2 : 1, index = c.index_heads == 0 ? 0 : c.index_head_dim;
    saturating weights = rank * width + attended * rank + dim * width;
    weights += spec.output_groups == 0 ? attended * width : attended * spec.output_rank + joined * width;
    saturating cached = 0;
    if (c.ratio != 0) {
        weights += halves * (dim + index) * width * 2 + saturating(c.index_heads) * (index * rank + width);
        cached = (dim + index + (c.ratio - 1)) / c.ratio;
    }
    return {.weights = weights.value(),
            .cached_per_token = cached.value(),
            .flops_per_token = (weights * 2).value(),
            .flops_per_cached_token = (attended * 4).value()};
}

/// Operations with which an indexer scores one key for one token.
inline std::uint64_t indexer_flops_per_key(const indexer_spec& indexer) noexcept {
    if (!indexer.own()) return 0;
    return (detail::saturating(indexer.heads) * (detail::saturating(indexer.head_dim) + 1) * 2 / indexer.pool).value();
}

/// The costs of the keys and values, or the latents, that a block attends to, as if they were its own: with its queries
/// and its output. The factored form makes keys and values of shared latents at each call, which counts as attention.
inline attention_cost keys_cost_of(const attention_spec& spec, attention_form form) noexcept {
    using detail::saturating;
    const mla_geometry& g = spec.geometry;
    attention_cost cost = cost_of(g, form);
    if (!spec.shares_latents || form != attention_form::factored) return cost;
    const saturating rank = g.kv_lora_rank,
                     made = saturating(g.kv_heads()) * (saturating(g.qk_nope_head_dim) + g.v_head_dim);
    cost.cached_per_token = (rank + g.qk_rope_head_dim).value();
    cost.flops_per_cached_token = (made * rank * 2 + cost.flops_per_cached_token).value();
    cost.flops_per_token = ((saturating(cost.weights) - made * rank) * 2).value();
    return cost;
}

/// The costs of a block in a form, with what its spec adds to the projections, and its indexer. A sliding window bounds
/// the tokens that flops_per_cached_token counts, and so do an indexer's top_k but for its own scores, not the number
/// for each: attention_plan.hpp counts them. A block that shares another's keys and values adds nothing to a cache.
inline attention_cost cost_of(const attention_spec& spec, attention_form form) noexcept {
    using detail::saturating;
    if (spec.kind == attention_kind::compressed) return compressed_cost_of(spec);
    const mla_geometry& g = spec.geometry;
    attention_cost base = keys_cost_of(spec, form);
    if (spec.kv_layer) {  // projected, and cached, by another block
        const saturating own = spec.kind == attention_kind::gqa
                                   ? saturating(g.kv_heads()) * (saturating(g.qk_head_dim()) + g.v_head_dim)
                                   : saturating(g.kv_lora_rank) + g.qk_rope_head_dim;
        base.weights = (saturating(base.weights) - own * g.hidden_size).value();
        base.flops_per_token = (saturating(base.flops_per_token) - own * g.hidden_size * 2).value();
        base.cached_per_token = 0;
    }
    saturating added = 0, cached = base.cached_per_token, attention = base.flops_per_cached_token;
    if (const indexer_spec& indexer = spec.indexer; indexer.own()) {
        const saturating inputs = saturating(indexer.cached_size()) + indexer.heads;
        added += saturating(indexer.heads) * indexer.head_dim * (indexer.from_input ? g.hidden_size : g.q_lora_rank) +
                 inputs * g.hidden_size;
        cached += indexer.cached_size();
        attention += indexer_flops_per_key(indexer);
    }
    if (spec.kind == attention_kind::gqa && spec.input_width() > g.hidden_size)  // of q, k and v
        added += (saturating(g.num_heads) * g.qk_head_dim() +
                  saturating(spec.kv_layer ? 0 : g.kv_heads()) * (saturating(g.qk_head_dim()) + g.v_head_dim)) *
                 (spec.input_width() - g.hidden_size);
    if (spec.raw_query_latent) added += saturating(g.num_heads) * g.qk_head_dim() * g.q_lora_rank;
    if (spec.gate != output_gate::none) {
        const saturating heads = g.num_heads;
        const saturating rows = spec.gate == output_gate::per_head ? heads : heads * g.v_head_dim;
        added += rows * (spec.raw_query_latent ? saturating(2) * g.q_lora_rank : saturating(spec.input_width()));
    }
    return {.weights = (added + base.weights).value(),
            .cached_per_token = cached.value(),
            .flops_per_token = (added * 2 + base.flops_per_token).value(),
            .flops_per_cached_token = attention.value()};
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

/// Bytes of a block's cache for so many tokens, whatever kind of attention it is; UINT64_MAX where that is too small.
/// @param element_bytes  of a cached element: 4 for float, 2 for bf16 and f16
inline std::uint64_t cache_bytes(const attention_spec& spec, attention_form form, std::size_t capacity,
                                 std::size_t element_bytes, std::size_t rollback = default_rollback) noexcept {
    if (spec.kind == attention_kind::compressed)
        return compressed_cache_shape_of(spec, capacity, rollback).bytes(capacity, element_bytes);
    return (detail::saturating(cost_of(spec, form).cached_per_token) * capacity * element_bytes).value();
}

}  // namespace larql

#endif
