// SPDX-License-Identifier: Apache-2.0
//
// An item of many query rows, whose lanes are query rows: keys and values of a block become floats once, and meet one
// panel of query rows after the other.
#ifndef LARQL_DETAIL_ATTENTION_WIDE_HPP
#define LARQL_DETAIL_ATTENTION_WIDE_HPP

#include <larql/detail/attention/kernels.hpp>
#include <larql/detail/attention/plan.hpp>
#include <larql/detail/attention/problem.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <utility>

namespace larql::detail {

/// A call whose keys and values may be of any type, and the code for them at one level.
struct blocked_problem : attention_call<float> {
    stored_rows k{};
    stored_rows v{};
    const storage_kernels* k_kernels = nullptr;
    const storage_kernels* v_kernels = nullptr;
    const level_kernels* level = nullptr;
};

/// Adds the biases of distance, in powers of two, to the scores [keys][width] of keys from `first` on.
/// @param token_and_head  of each of `rows` rows; others of the width are left alone
template <class Row>
void add_distance_biases(const blocked_problem& p, float* scores, std::size_t first, std::size_t keys,
                         std::size_t width, std::size_t rows, Row token_and_head) noexcept {
    constexpr float log2_e = 1.4426950408889634F;
    for (std::size_t r = 0; r < rows; ++r) {
        const auto [token, head] = token_and_head(r);
        const float slope = p.alibi[head] * log2_e;
        const std::ptrdiff_t distance =
            static_cast<std::ptrdiff_t>(first) - (p.mask.first + static_cast<std::ptrdiff_t>(token));
        for (std::size_t j = 0; j < keys; ++j)
            scores[j * width + r] += slope * static_cast<float>(distance + static_cast<std::ptrdiff_t>(j));
    }
}

/// Divides the sums of the item's rows of one head by the sums of their weights.
inline void finish_rows(const blocked_problem& p, const attention_item& item, std::size_t kv_head, const float* sums,
                        std::size_t stride, const float* maximum, const float* sum) noexcept {
    for (std::size_t r = item.row_begin; r < item.row_end; ++r) {
        const std::size_t i = r - item.row_begin;
        const std::size_t head = kv_head * p.group() + r % p.group();
        const float factor = final_factor_base2(maximum[i], sum[i], p.sinks == nullptr ? nullptr : p.sinks + head);
        p.level->scale_row(sums + i * stride, p.value_size, factor, p.out.row(r / p.group(), head));
    }
}

/// The rows of an item and what they have accumulated. `width` rows make a panel.
struct wide_rows {
    float* q;        // [panels][D][width], times the scale
    float* out;      // [panels * width][out_stride]
    float* maximum;  // [panels * width], in powers of two
    float* sum;
};

/// A block of keys and their values as floats, and what working on it needs.
struct wide_block {
    float* keys;
    float* values;
    std::size_t key_stride;
    std::size_t value_stride;
    float* scores;    // [key_block][width]
    float* keep;      // [width]
    key_range range;  // absolute
};

/// Adds the weighted values of a block to the rows of a panel. `seen` are the keys of each row, which is ragged when
/// they are not the same.
inline void add_panel_values(const blocked_problem& p, const attention_plan& plan, const wide_block& block, float* out,
                             const key_range* seen, std::size_t rows, key_range keys, bool ragged) noexcept {
    const float* const values = block.values + (keys.begin - block.range.begin) * block.value_stride;
    // A weight of 0 does not silence a NaN: then every row must keep to the keys that it sees.
    const bool one_by_one =
        ragged && !p.level->all_finite(values, block.value_stride, keys.end - keys.begin, plan.out_stride);
    const std::size_t step = one_by_one ? 1 : p.level->value_rows;
    const auto add = one_by_one ? p.level->add_values_of_one : p.level->add_values;
    for (std::size_t r = 0; r < rows; r += step) {
        const std::size_t begin = std::clamp(seen[r].begin, keys.begin, keys.end);
        const std::size_t end = std::clamp(seen[std::min(r + step, rows) - 1].end, begin, keys.end);
        if (begin == end) continue;
        const std::size_t j = begin - block.range.begin;
        add(block.scores + j * plan.panel_rows + r, plan.panel_rows, block.values + j * block.value_stride,
            block.value_stride, end - begin, block.keep + r, out + r * plan.out_stride, plan.out_stride);
    }
}

/// One panel against one block of keys. `seen` has the keys of each row of the panel, `rows` of which are real; the
/// first is row `first_row` of key/value head `kv_head`.
inline void attend_panel(const blocked_problem& p, const attention_plan& plan, const wide_block& block,
                         const wide_rows& panel, const key_range* seen, std::size_t rows, float cap,
                         std::size_t kv_head, std::size_t first_row) noexcept {
    const level_kernels& level = *p.level;
    const std::size_t width = plan.panel_rows;
    const std::size_t first = block.range.begin;
    const std::size_t from = std::max(seen[0].begin, first);
    const std::size_t to = std::min(seen[rows - 1].end, block.range.end);
    if (from >= to) return;
    const std::size_t scored = (from - first) / level.score_keys * level.score_keys;
    level.score_panel(block.keys + scored * block.key_stride, block.key_stride,
                      round_up(to - first - scored, level.score_keys), panel.q, p.key_size, width,
                      block.scores + scored * width);
    float* const scores = block.scores + (from - first) * width;
    const std::size_t n = to - from;
    if (cap > 0) level.cap_scores(scores, n * width, cap);
    if (p.alibi != nullptr)
        add_distance_biases(p, scores, from, n, width, rows, [&](std::size_t r) {
            return std::pair((first_row + r) / p.group(), kv_head * p.group() + (first_row + r) % p.group());
        });
    const bool ragged = seen[rows - 1].begin > from || seen[0].end < to;
    if (ragged) level.mask_scores(scores, seen, from, n, width);
    level.weigh_scores(scores, n, width, panel.maximum, panel.sum, block.keep);
    add_panel_values(p, plan, block, panel.out, seen, rows, {from, to}, ragged);
}

/// Packs the rows of an item as panels, times `factor`; rows beyond the last are zero.
inline void pack_queries(const blocked_problem& p, const attention_item& item, std::size_t width, float factor,
                         float* q) noexcept {
    constexpr std::size_t most_lanes = 16;
    const std::size_t step = p.level->tile.lanes;
    const std::size_t rows = item.row_end - item.row_begin;
    for (std::size_t i = 0; i < round_up(rows, width); i += step) {
        const float* from[most_lanes] = {};
        for (std::size_t l = 0; l < step && i + l < rows; ++l) {
            const std::size_t r = item.row_begin + i + l;
            from[l] = p.q.row(r / p.group(), item.head_begin * p.group() + r % p.group());
        }
        p.level->pack_lanes(from, p.key_size, width, factor, q + i / width * width * p.key_size + i % width);
    }
}

/// Converts the keys and values of block.range. Keys up to a whole tile are zero.
inline void load_block(const blocked_problem& p, std::size_t head, const wide_block& block) noexcept {
    const std::size_t n = block.range.end - block.range.begin;
    p.k_kernels->convert({p.k.row(block.range.begin, head), p.k.token_stride, n}, p.key_size, block.keys,
                         block.key_stride);
    std::fill_n(block.keys + n * block.key_stride, (round_up(n, p.level->score_keys) - n) * block.key_stride, 0.0F);
    if (!p.v_is_k)
        p.v_kernels->convert({p.v.row(block.range.begin, head), p.v.token_stride, n}, p.value_size, block.values,
                             block.value_stride);
}

/// Memory and first values for the rows of an item.
inline wide_rows start_wide(const blocked_problem& p, const attention_plan& plan, const attention_item& item,
                            float factor, float_arena& arena) noexcept {
    const std::size_t padded = round_up(item.row_end - item.row_begin, plan.panel_rows);
    wide_rows all{arena.take(padded * p.key_size), arena.take(padded * plan.out_stride), arena.take(padded),
                  arena.take(padded)};
    if (item.partial != nullptr) {
        const attention_partial partial(plan, item.partial);
        all.out = partial.out;
        all.maximum = partial.maximum;
        all.sum = partial.sum;
    }
    pack_queries(p, item, plan.panel_rows, factor, all.q);
    std::fill_n(all.out, padded * plan.out_stride, 0.0F);
    std::fill_n(all.maximum, padded, -std::numeric_limits<float>::infinity());
    std::fill_n(all.sum, padded, 0.0F);
    return all;
}

inline void attend_wide(const blocked_problem& p, const attention_plan& plan, const attention_item& item,
                        float* scratch) noexcept {
    constexpr std::size_t most_panel_rows = 32;
    const std::size_t width = plan.panel_rows;
    const std::size_t rows = item.row_end - item.row_begin;
    const logit_factors factors = make_logit_factors(p.scale, p.softcap);
    float_arena arena(scratch);
    const wide_rows all = start_wide(p, plan, item, factors.query, arena);
    wide_block block{};
    block.keys = arena.take(plan.key_block * plan.key_stride);
    block.key_stride = plan.key_stride;
    block.values = p.v_is_k ? block.keys : arena.take(plan.key_block * plan.value_stride);
    block.value_stride = p.v_is_k ? plan.key_stride : plan.value_stride;
    block.scores = arena.take(plan.key_block * width);
    block.keep = arena.take(width);
    const std::size_t end = std::min(item.keys.end, p.mask.visible((item.row_end - 1) / p.group()).end);
    std::size_t first = std::max(item.keys.begin, p.mask.visible(item.row_begin / p.group()).begin);
    first -= (first - plan.first_key) % plan.key_block;  // the same blocks whatever the rows
    for (; first < end; first += plan.key_block) {
        block.range = {first, std::min(first + plan.key_block, end)};
        load_block(p, item.head_begin, block);
        for (std::size_t i = 0; i < rows; i += width) {
            const std::size_t real = std::min(width, rows - i);
            key_range seen[most_panel_rows];
            for (std::size_t r = 0; r < width; ++r)
                seen[r] = p.mask.visible((item.row_begin + i + std::min(r, real - 1)) / p.group());
            const wide_rows panel{all.q + i * p.key_size, all.out + i * plan.out_stride, all.maximum + i, all.sum + i};
            attend_panel(p, plan, block, panel, seen, real, factors.cap, item.head_begin, item.row_begin + i);
        }
    }
    if (item.partial == nullptr) finish_rows(p, item, item.head_begin, all.out, plan.out_stride, all.maximum, all.sum);
}

}  // namespace larql::detail

#endif
