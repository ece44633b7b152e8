// SPDX-License-Identifier: Apache-2.0
//
// How one attention call is cut into pieces of work. Blocks of rows and heads do not change any result; the cut along
// the keys does in the last bits, so it depends on the sizes alone and never on the number of threads.
#ifndef LARQL_DETAIL_ATTENTION_PLAN_HPP
#define LARQL_DETAIL_ATTENTION_PLAN_HPP

#include <larql/detail/attention/problem.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <limits>

namespace larql::detail {

/// What the kernels of one level of vector code ask for.
struct attention_tile {
    std::size_t lanes;        // floats in a vector
    std::size_t narrow_rows;  // query rows up to which lanes are elements of a head, not query rows
};

/// Keys that are scored before their values are weighted: their block stays in the second-level cache, a panel's
/// scores in the first. Splits are a multiple of it.
inline constexpr std::size_t attention_key_block = 128;

/// Numbers of query rows of a head that kernels for few exist for.
inline constexpr std::size_t few_rows[] = {1, 2, 4, 8};
inline constexpr std::size_t few_rows_count = 4;
inline constexpr std::size_t most_narrow_heads = 16;
/// Tokens whose keys are read side by side: as many as the ways of a first-level cache, since a token's keys of all
/// heads are often a multiple of 4 KiB. (Measured on an AMD EPYC, 128 heads of 192 elements in f16: 8 tokens take 0.6
/// of the time of 16.)
inline constexpr std::size_t most_rows_aside = 8;
inline constexpr std::size_t most_narrow_rows = most_narrow_heads * 8;  // of an item

struct attention_plan {
    bool narrow = false;
    std::size_t lanes = 0;
    std::size_t head_block = 1;  // key/value heads of one item; more than 1 only when narrow
    std::size_t head_blocks = 0;
    std::size_t key_block = 0;   // keys that are scored before their values are weighted
    std::size_t panel_rows = 0;  // query rows whose scores lie beside each other: lanes
    std::size_t row_block = 0;   // query rows of a head in one item; wide: a multiple of panel_rows
    std::size_t row_blocks = 0;
    std::size_t first_key = 0;  // of all keys that any token sees
    std::size_t last_key = 0;
    std::size_t split_keys = 0;  // keys of one item, a multiple of attention_key_block
    std::size_t splits = 0;
    std::size_t key_stride = 0;  // floats between converted keys, values, and rows of results
    std::size_t value_stride = 0;
    std::size_t out_stride = 0;
    std::size_t scratch_floats = 0;  // of one worker
    std::size_t partial_floats = 0;  // of one item, when splits > 1

    [[nodiscard]] std::size_t items() const noexcept { return head_blocks * row_blocks * splits; }
    /// Rows of results that one item has room for, and of their maxima and sums, in whole vectors.
    [[nodiscard]] std::size_t item_rows() const noexcept { return head_block * row_block; }
    [[nodiscard]] std::size_t item_row_sums() const noexcept { return round_up(item_rows(), 16); }
};

/// One piece of work: some rows of some key/value heads, against some of the keys.
struct attention_item {
    std::size_t head_begin;
    std::size_t head_end;
    std::size_t row_begin;
    std::size_t row_end;
    key_range keys;
    float* partial;  // where to leave unfinished sums; null: finish the rows
};

/// Floats from one row to the next so that neighbouring rows do not compete for the same lines of a cache.
constexpr std::size_t padded_stride(std::size_t n) noexcept {
    const std::size_t lines = ceil_div(n, 16);
    return (lines | 1U) * 16;
}

/// Few query rows: heads whose rows lie side by side in memory are worked on together, so that it is read in order.
inline void plan_narrow(attention_plan& plan, const attention_call<float>& p, bool heads_adjacent) {
    plan.narrow = true;
    plan.row_block = *std::lower_bound(few_rows, few_rows + few_rows_count, p.rows());
    if (heads_adjacent) {
        constexpr std::size_t cache_floats = 8 * 1024;  // queries and results, in the first-level cache
        const std::size_t fitting = cache_floats / (plan.row_block * (p.key_size + p.value_size));
        plan.head_block = std::clamp<std::size_t>(fitting, 1, std::min(most_narrow_heads, p.kv_heads));
    }
    constexpr std::size_t cached_scores = 4 * 1024;
    const std::size_t rows = plan.item_rows();
    plan.panel_rows = rows < 16 ? std::bit_ceil(rows) : round_up(rows, 16);
    plan.key_block = std::min(cached_scores / plan.panel_rows / 16 * 16, attention_key_block);
    plan.scratch_floats = rows * (p.key_size + plan.out_stride) + 3 * plan.item_row_sums() +
                          (plan.key_block + most_rows_aside) * plan.panel_rows + 16;
}

/// Many: panels of one or two vectors of query rows of one head.
inline void plan_wide(attention_plan& plan, const attention_call<float>& p) {
    plan.panel_rows = p.rows() <= plan.lanes ? plan.lanes : 2 * plan.lanes;
    constexpr std::size_t cache_floats = 160 * 1024;  // queries and results of a block, in the second-level cache
    const std::size_t fitting = cache_floats / (p.key_size + plan.out_stride) / plan.panel_rows * plan.panel_rows;
    plan.row_block = std::clamp<std::size_t>(fitting, plan.panel_rows, 16 * plan.panel_rows);
    plan.row_block = std::min(plan.row_block, round_up(p.rows(), plan.panel_rows));
    plan.key_block = attention_key_block;
    plan.key_stride = padded_stride(p.key_size);
    plan.value_stride = padded_stride(p.value_size);
    plan.scratch_floats = plan.row_block * (p.key_size + plan.out_stride + 2) +  // queries, results, maxima, sums
                          plan.panel_rows * (plan.key_block + 1) +               // scores, factors
                          plan.key_block * (plan.key_stride + plan.value_stride);
}

/// @param heads_adjacent  whether the heads of one token lie closer together than the tokens of one head
inline attention_plan make_attention_plan(const attention_call<float>& p, const attention_tile& tile,
                                          bool heads_adjacent, std::size_t concurrency) {
    attention_plan plan;
    plan.lanes = tile.lanes;
    plan.first_key = p.mask.visible(0).begin;
    plan.last_key = std::max(plan.first_key, p.mask.visible(p.tokens - 1).end);
    plan.out_stride = round_up(p.value_size, tile.lanes);
    if (p.rows() <= tile.narrow_rows && p.key_size % tile.lanes == 0 && p.value_size % tile.lanes == 0)
        plan_narrow(plan, p, heads_adjacent);
    else
        plan_wide(plan, p);
    plan.row_blocks = ceil_div(p.rows(), plan.row_block);
    plan.head_blocks = ceil_div(p.kv_heads, plan.head_block);

    const std::size_t keys = plan.last_key - plan.first_key;
    constexpr std::size_t wanted_items = 32;
    // Where threads can share rows instead, longer splits: each packs its queries and leaves sums to be joined.
    const std::size_t least_keys = (plan.row_block > plan.panel_rows ? 4 : 2) * attention_key_block;
    const std::size_t wanted_splits = ceil_div(wanted_items, plan.head_blocks * plan.row_blocks);
    plan.splits = std::max<std::size_t>(1, std::min(wanted_splits, keys / least_keys));
    plan.split_keys = round_up(std::max<std::size_t>(1, ceil_div(keys, plan.splits)), attention_key_block);
    plan.splits = std::max<std::size_t>(1, ceil_div(keys, plan.split_keys));

    // More threads than pieces: smaller blocks of rows, down to one panel.
    while (!plan.narrow && plan.row_block > plan.panel_rows && plan.items() < 2 * concurrency) {
        plan.row_block = round_up(plan.row_block / 2, plan.panel_rows);
        plan.row_blocks = ceil_div(p.rows(), plan.row_block);
    }

    plan.partial_floats = round_up(plan.item_rows() * plan.out_stride, 16) + 2 * plan.item_row_sums();
    plan.scratch_floats = round_up(plan.scratch_floats + 8 * aligned_buffer::alignment, aligned_buffer::alignment);
    return plan;
}

/// Hands out aligned pieces of a worker's scratch.
class float_arena {
public:
    explicit float_arena(float* memory) noexcept : m_next(memory) {}
    [[nodiscard]] float* take(std::size_t count) noexcept {
        float* const piece = m_next;
        m_next += round_up(count, aligned_buffer::alignment / sizeof(float));
        return piece;
    }

private:
    float* m_next;
};

/// The unfinished sums of an item: results [item_rows][out_stride], relative to 2^maximum, and per row the maximum of
/// the scores (in powers of two) and the sum of the weights. Row r of head h of the item is h * row_block + r.
struct attention_partial {
    float* out;
    float* maximum;
    float* sum;

    attention_partial(const attention_plan& plan, float* memory) noexcept
        : out(memory),
          maximum(out + round_up(plan.item_rows() * plan.out_stride, 16)),
          sum(maximum + plan.item_row_sums()) {}
};

/// Scores in powers of two: the weight of a key is 2^(score - maximum).
struct logit_factors {
    float query;  // what queries are multiplied by
    float cap;    // 0 = no cap; else the score is cap * tanh(product)
};

inline logit_factors make_logit_factors(double scale, double softcap) noexcept {
    constexpr double log2_e = 1.4426950408889634;
    if (softcap > 0) return {static_cast<float>(scale / softcap), static_cast<float>(softcap * log2_e)};
    return {static_cast<float>(scale * log2_e), 0.0F};
}

/// A sink's logit in powers of two. One above all that float holds takes all of the softmax, as any far above the
/// scores does.
inline float sink_base2(float sink) noexcept {
    return std::min(sink * 1.4426950408889634F, std::numeric_limits<float>::max());
}

/// What the sum of weighted values is multiplied by at the end: 1 / sum, with the sink's share of the softmax. 0 for a
/// row that saw no key.
inline float final_factor_base2(float maximum, float sum, const float* sink) noexcept {
    if (sum == 0.0F) return 0.0F;
    if (sink == nullptr) return 1.0F / sum;
    const float logit = sink_base2(*sink);
    const float top = std::max(maximum, logit);
    const float factor = std::exp2(maximum - top);
    return factor / (sum * factor + std::exp2(logit - top));
}

/// The logarithm of a row's sum of exponentials, its sink's among them: -infinity for a row that saw neither.
inline float log_sum_base2(float maximum, float sum, const float* sink) noexcept {
    constexpr float ln_2 = 0.6931471805599453F;
    const float none = -std::numeric_limits<float>::infinity();
    if (sum == 0.0F) return sink == nullptr ? none : *sink;
    if (sink == nullptr) return (maximum + std::log2(sum)) * ln_2;
    const float logit = sink_base2(*sink), top = std::max(maximum, logit);
    return (top + std::log2(sum * std::exp2(maximum - top) + std::exp2(logit - top))) * ln_2;
}

}  // namespace larql::detail

#endif
