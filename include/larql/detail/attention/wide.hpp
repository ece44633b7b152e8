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

/// Whether some of these keys have bits that say who may see them.
inline bool has_bits(const key_mask_view& bits, key_range keys) noexcept {
    return !bits.empty() && keys.begin < bits.first_key + bits.keys && bits.first_key < keys.end;
}

/// Scores [keys][width] of keys from `first` on, which a row's bits hide, become -infinity.
/// @param token_and_head  of each of `rows` rows; others of the width are left alone
template <class Row>
void hide_by_bits(const key_mask_view& bits, float* scores, std::size_t first, std::size_t keys, std::size_t width,
                  std::size_t rows, Row token_and_head) noexcept {
    const std::size_t begin = std::max(first, bits.first_key);
    const std::size_t end = std::min(first + keys, bits.first_key + bits.keys);
    for (std::size_t r = 0; r < rows; ++r) {
        const std::size_t token = token_and_head(r).first;
        for (std::size_t j = begin; j < end; ++j)
            if (!bits.allows(token, j)) scores[(j - first) * width + r] = -std::numeric_limits<float>::infinity();
    }
}

/// Calls `use(begin, end)` on each run of keys of a range that a token's bits let through.
template <class F>
void for_each_allowed_run(const key_mask_view& bits, std::size_t token, key_range keys, F use) noexcept {
    if (!has_bits(bits, keys)) return use(keys.begin, keys.end);
    for (std::size_t begin = keys.begin; begin < keys.end;) {
        std::size_t end = begin;
        while (end < keys.end && bits.allows(token, end)) ++end;
        if (begin < end) use(begin, end);
        begin = end + 1;
    }
}

/// Divides the sum of weighted values of one row by the sum of its weights, and stores what the call asks for.
/// @param sums  of the row's values; of no use afterwards
inline void finish_row(const blocked_problem& p, std::size_t token, std::size_t head, float* sums, float maximum,
                       float sum) noexcept {
    const float* const sink = p.sinks == nullptr ? nullptr : p.sinks + head;
    const bool narrowed = p.narrowed.data != nullptr;
    p.level->scale_row(sums, p.value_size, final_factor_base2(maximum, sum, sink),
                       narrowed ? sums : p.out.row(token, head));
    if (narrowed) p.narrowed.store(sums, p.narrowed.row(token, head), p.value_size);
    if (p.log_sum != nullptr) p.log_sum[token * p.heads + head] = log_sum_base2(maximum, sum, sink);
}

/// The same for the item's rows of one head.
inline void finish_rows(const blocked_problem& p, const attention_item& item, std::size_t kv_head, float* sums,
                        std::size_t stride, const float* maximum, const float* sum) noexcept {
    for (std::size_t r = item.row_begin; r < item.row_end; ++r) {
        const std::size_t i = r - item.row_begin;
        finish_row(p, r / p.group(), kv_head * p.group() + r % p.group(), sums + i * stride, maximum[i], sum[i]);
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

/// Adds the weighted values of a block to the rows of a panel, of which the first is row `first_row` of its head.
/// `seen` are the keys of each row, which is ragged when they are not the same.
inline void add_panel_values(const blocked_problem& p, const attention_plan& plan, const wide_block& block, float* out,
                             const key_range* seen, std::size_t rows, key_range keys, bool ragged,
                             std::size_t first_row) noexcept {
    const float* const values = block.values + (keys.begin - block.range.begin) * block.value_stride;
    // A weight of 0 does not silence a NaN: then every row must keep to the keys that it sees.
    const bool one_by_one =
        ragged && !p.level->all_finite(values, block.value_stride, keys.end - keys.begin, plan.out_stride);
    const auto add = one_by_one ? p.level->add_values_one_by_one : p.level->add_values;
    // Rows that see the same keys go together.
    const std::size_t whole_panel = round_up(rows, p.level->value_rows);
    const std::size_t step = one_by_one ? 1 : ragged ? p.level->value_rows : whole_panel;
    for (std::size_t r = 0; r < rows; r += step) {
        const std::size_t first = std::clamp(seen[r].begin, keys.begin, keys.end);
        const std::size_t last = std::clamp(seen[std::min(r + step, rows) - 1].end, first, keys.end);
        const float* keep = block.keep + r;
        const auto add_run = [&](std::size_t begin, std::size_t end) {
            if (begin == end) return;
            const std::size_t j = begin - block.range.begin;
            add(block.scores + j * plan.panel_rows + r, plan.panel_rows, block.values + j * block.value_stride,
                block.value_stride, end - begin, keep, out + r * plan.out_stride, plan.out_stride, step);
        };
        if (!one_by_one || !has_bits(p.bits, keys)) {
            add_run(first, last);
            continue;
        }
        constexpr float whole = 1.0F;
        for_each_allowed_run(p.bits, (first_row + r) / p.group(), {first, last},
                             [&](std::size_t begin, std::size_t end) {
                                 add_run(begin, end);
                                 keep = &whole;  // the first run has scaled what was there
                             });
        if (keep != &whole)  // none of these keys
            p.level->scale_row(out + r * plan.out_stride, plan.out_stride, *keep, out + r * plan.out_stride);
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
    const auto token_and_head = [&](std::size_t r) {
        return std::pair((first_row + r) / p.group(), kv_head * p.group() + (first_row + r) % p.group());
    };
    if (p.alibi != nullptr) add_distance_biases(p, scores, from, n, width, rows, token_and_head);
    const bool by_bits = has_bits(p.bits, {from, to});
    const bool ragged = by_bits || seen[rows - 1].begin > from || seen[0].end < to;
    if (ragged) level.mask_scores(scores, seen, from, n, width);
    if (by_bits) hide_by_bits(p.bits, scores, from, n, width, rows, token_and_head);
    level.weigh_scores(scores, n, width, panel.maximum, panel.sum, block.keep);
    add_panel_values(p, plan, block, panel.out, seen, rows, {from, to}, ragged, first_row);
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
    const auto load = [&](const stored_rows& rows, const storage_kernels& kernels, std::size_t columns, float* to,
                          std::size_t stride) {
        for (std::size_t j = block.range.begin, end = j; j < block.range.end; j = end) {
            end = rows.pages.run_end(j, block.range.end);
            kernels.convert({rows.row(j, head), rows.token_stride, end - j}, columns,
                            to + (j - block.range.begin) * stride, stride);
        }
    };
    load(p.k, *p.k_kernels, p.key_size, block.keys, block.key_stride);
    const std::size_t n = block.range.end - block.range.begin;
    std::fill_n(block.keys + n * block.key_stride, (round_up(n, p.level->score_keys) - n) * block.key_stride, 0.0F);
    if (!p.v_is_k) load(p.v, *p.v_kernels, p.value_size, block.values, block.value_stride);
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
