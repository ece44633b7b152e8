// SPDX-License-Identifier: Apache-2.0
//
// What a block costs at a context: keys that tokens see, numbers that a cache holds, and operations.
#ifndef LARQL_DETAIL_PLANNED_COSTS_HPP
#define LARQL_DETAIL_PLANNED_COSTS_HPP

#include <larql/attention_cost.hpp>
#include <larql/attention_form.hpp>
#include <larql/attention_spec.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/model/roles.hpp>
#include <larql/detail/saturating.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>

namespace larql::detail {

/// A number of tokens as the type of memory's sizes, which may have 32 bits.
constexpr std::size_t as_size(std::uint64_t tokens) noexcept {
    return static_cast<std::size_t>(std::min<std::uint64_t>(tokens, std::numeric_limits<std::size_t>::max()));
}

/// 1 + 2 + ... + n, each at most `limit`; 0 is no limit.
constexpr saturating sum_up_to(std::uint64_t n, std::uint64_t limit) noexcept {
    const std::uint64_t rising = limit == 0 ? n : std::min(n, limit);
    const saturating even = rising % 2 == 0 ? rising / 2 : rising;
    const saturating other = rising % 2 == 0 ? rising + 1 : rising / 2 + 1;
    return even * other + saturating(n - rising) * rising;
}

/// The most keys that a token sees of those that are open to it; 0: all.
constexpr std::uint64_t keys_limit(const attention_spec& spec) noexcept {
    const std::uint64_t window = spec.sliding_window;
    if (!spec.indexer.any()) return window;
    const std::uint64_t selected = spec.indexer.top_k + spec.indexer.pool - 1;  // and the keys behind the last pool
    return window == 0 ? selected : std::min(window, selected);
}

/// Keys that the last of `tokens` tokens sees.
constexpr std::uint64_t keys_of_last(const attention_spec& spec, std::uint64_t tokens) noexcept {
    const std::uint64_t open = spec.chunk == 0 || tokens == 0 ? tokens : (tokens - 1) % spec.chunk + 1;
    const std::uint64_t limit = keys_limit(spec);
    return limit == 0 ? open : std::min(open, limit);
}

/// Keys that all of `tokens` tokens see together.
constexpr saturating keys_of_all(const attention_spec& spec, std::uint64_t tokens) noexcept {
    const std::uint64_t limit = keys_limit(spec);
    if (spec.chunk == 0) return sum_up_to(tokens, limit);
    return sum_up_to(spec.chunk, limit) * (tokens / spec.chunk) + sum_up_to(tokens % spec.chunk, limit);
}

/// Entries of compressed attention that the last of `tokens` tokens sees.
constexpr std::uint64_t entries_of_last(const compression_spec& c, std::uint64_t tokens) noexcept {
    if (c.ratio == 0) return 0;
    const std::uint64_t complete = tokens / c.ratio;
    return c.index_heads == 0 ? complete : std::min<std::uint64_t>(complete, c.index_top_k);
}

/// Entries that all tokens see together, or with `scored` those that their indexer scores: token t of t = 1, 2, ...
/// may see t / ratio.
constexpr saturating entries_of_all(const compression_spec& c, std::uint64_t tokens, bool scored) noexcept {
    if (c.ratio == 0) return 0;
    const std::uint64_t complete = tokens / c.ratio;
    const std::uint64_t limit = c.index_heads == 0 || scored ? 0 : c.index_top_k;
    if (complete == 0) return 0;
    // `ratio` tokens for each number of entries but the last, for which there may be fewer tokens.
    const std::uint64_t last = limit == 0 ? complete : std::min(complete, limit);
    return sum_up_to(complete - 1, limit) * c.ratio + saturating(tokens - complete * c.ratio + 1) * last;
}

/// What a token costs on average if `sum` keys of all tokens cost `each`: rounded down, without the product of all.
constexpr saturating mean_of(saturating sum, std::uint64_t tokens, saturating each) noexcept {
    if (!sum.is_exact()) return sum;
    return saturating(sum.value() / tokens) * each + saturating(sum.value() % tokens) * each / tokens;
}

/// A block's share of a plan.
struct block_plan {
    saturating cache_numbers = 0;   ///< that larql's cache holds, of the storage type
    saturating cache_floats = 0;    ///< that it holds as float whatever its storage
    saturating seen_numbers = 0;    ///< of the former, what the next token may still see
    saturating read_numbers = 0;    ///< of these, what the last token reads
    saturating shared_numbers = 0;  ///< that it reads in the cache of another block, which has counted them
    saturating decode_flops = 0;
    saturating prefill_flops = 0;  ///< of a token on average
};

inline block_plan plan_compressed(const attention_spec& spec, std::uint64_t context) {
    const compressed_cache_shape shape = compressed_cache_shape_of(spec, as_size(context), 0);
    const attention_cost cost = compressed_cost_of(spec);
    const compression_spec& c = spec.compression;
    const saturating dim = shape.head_dim, index = shape.index_head_dim;
    const saturating complete = shape.entries_of(as_size(context));
    const saturating index_flops = c.ratio == 0 ? saturating(0) : saturating(c.index_heads) * (index + 1) * 2;
    const std::uint64_t chosen = entries_of_last(c, context);
    block_plan out;
    out.cache_numbers = saturating(shape.kept_keys()) * dim + complete * (dim + index);
    out.cache_floats =
        saturating(shape.kept_rows()) * (shape.row_size(shape.head_dim) + shape.row_size(shape.index_head_dim));
    out.seen_numbers = out.cache_numbers;
    out.read_numbers = saturating(keys_of_last(spec, context)) * dim + saturating(chosen) * dim + complete * index;
    out.decode_flops = saturating(cost.flops_per_token) +
                       (saturating(keys_of_last(spec, context)) + chosen) * cost.flops_per_cached_token +
                       complete * index_flops;
    out.prefill_flops =
        saturating(cost.flops_per_token) +
        mean_of(keys_of_all(spec, context) + entries_of_all(c, context, false), context, cost.flops_per_cached_token) +
        mean_of(entries_of_all(c, context, true), context, index_flops);
    return out;
}

inline block_plan plan_block(const attention_spec& spec, attention_form form, std::uint64_t context) {
    if (spec.kind == attention_kind::compressed) return plan_compressed(spec, context);
    const attention_cost cost = cost_of(spec, form), bare = keys_cost_of(spec, form);
    const indexer_spec& indexer = spec.indexer;
    const std::uint64_t index_size = indexer.own() ? indexer.cached_size() : 0;
    // Scores are computed, and index keys read, once there is something to choose.
    const bool scores = indexer.own() && indexer.selects(as_size(context));
    const saturating score = scores ? indexer_flops_per_key(indexer) : 0;
    const std::uint64_t seen = keys_of_last(spec, context);
    // Keys and values of shared latents are made at each call of all that is cached, of a prompt once.
    const saturating pair = cost_of(spec.geometry, form).flops_per_cached_token;
    const saturating made = saturating(bare.flops_per_cached_token) - pair;
    // Of a window or chunk the rest is gone for good; an indexer may come back to any key.
    attention_spec without_indexer = spec;
    without_indexer.indexer = {};
    block_plan out;
    out.cache_numbers = saturating(cost.cached_per_token) * context;
    out.seen_numbers =
        saturating(keys_of_last(without_indexer, context)) * bare.cached_per_token + saturating(context) * index_size;
    if (spec.kv_layer) {
        out.seen_numbers = saturating(context) * index_size;
        out.shared_numbers = saturating(bare.cached_per_token) * context;
    }
    out.read_numbers = saturating(seen) * bare.cached_per_token + saturating(scores ? context : 0) * index_size;
    out.decode_flops = saturating(cost.flops_per_token) + saturating(seen) * pair + (made + score) * context;
    out.prefill_flops = saturating(cost.flops_per_token) + made + mean_of(keys_of_all(spec, context), context, pair) +
                        mean_of(sum_up_to(context, 0), context, score);
    return out;
}

inline std::uint64_t planned(saturating count, const char* what) {
    if (!count.is_exact())
        fail(errc::limit_exceeded, "the number does not fit 64 bits: the model or the context is larger than any",
             {.subject = what});
    return count.value();
}

/// What absorption makes new for a form; its other tensors are stored ones.
inline constexpr role_set made_for_dense{tensor_role::q, tensor_role::k, tensor_role::v};

/// Bytes of the tensors that a block computes with in a form.
/// @param made  type of tensors that absorption would have to make, and of all in a configuration without tensors
inline saturating weight_bytes_of(const checkpoint& model, std::size_t block, attention_form form, dtype made) {
    const attention_spec& spec = model.spec(block);
    // The latent form of published factors computes from these as they are: k_b and v_b are rows of kv_b.
    const bool from_stored = form == spec.form || form == attention_form::latent;
    const attention_form tensors = from_stored ? spec.form : form;
    saturating bytes = 0;
    for (const role_row& row : attention_roles) {
        if (!row.needed(spec, tensors)) continue;
        const saturating elements = saturating(size_of(row.rows, spec)) * size_of(row.cols, spec);
        const bool new_tensor = !from_stored && made_for_dense.contains(row.role);
        // Rows of a stored kv_a.
        const tensor_role stored_role = row.role == tensor_role::kv_a_latent && spec.form == attention_form::factored
                                            ? tensor_role::kv_a
                                            : row.role;
        const auto recipe = model.format().empty() || new_tensor ? std::nullopt : model.locate(stored_role, block);
        if (!recipe) {
            bytes += elements * traits_of(made).block_bytes / traits_of(made).block_elements;
            continue;
        }
        for (const larql::stored_rows& part : recipe->parts) {
            const weight stored = model.weights().at(part.name);
            const std::uint64_t rows = std::max<std::uint64_t>(stored.rows(), 1);
            // A share of a fused tensor, or of one with more rows than the role has.
            const std::uint64_t share = row.is_vector() ? rows
                                        : stored_role != row.role
                                            ? std::min<std::uint64_t>(size_of(row.rows, spec), rows)
                                            : std::min<std::uint64_t>((part.end - part.begin) * part.runs, rows);
            bytes += saturating(stored.stored_bytes()) * share / rows;
        }
    }
    return bytes;
}

}  // namespace larql::detail

#endif
