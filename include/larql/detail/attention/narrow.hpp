// SPDX-License-Identifier: Apache-2.0
//
// An item of few query rows, as when decoding, whose lanes are elements of a head. The heads of an item share each
// step, so that memory is read in the order in which a cache [S, G, D] lies.
#ifndef LARQL_DETAIL_ATTENTION_NARROW_HPP
#define LARQL_DETAIL_ATTENTION_NARROW_HPP

#include <larql/detail/attention/kernels.hpp>
#include <larql/detail/attention/plan.hpp>
#include <larql/detail/attention/problem.hpp>
#include <larql/detail/attention/wide.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <utility>

namespace larql::detail {

/// The query rows of an item and what they have accumulated. Row r of head h is number h * row_block + r everywhere;
/// rows beyond the last repeat it.
struct narrow_state {
    float* q;         // [rows][D], times the scale
    float* out;       // [rows][V]
    float* maximum;   // [rows], in powers of two
    float* sum;       // [rows]
    float* keep;      // [rows]
    float* scores;    // [key_block][panel_rows]
    key_range* seen;  // [panel_rows], the keys of each row
};

inline narrow_state start_narrow(const blocked_problem& p, const attention_plan& plan, const attention_item& item,
                                 float factor, key_range* seen, float* scratch) noexcept {
    float_arena arena(scratch);
    const std::size_t rows = plan.item_rows();
    const std::size_t sums = plan.item_row_sums();
    narrow_state all{arena.take(rows * p.key_size),
                     arena.take(rows * p.value_size),
                     arena.take(sums),
                     arena.take(sums),
                     arena.take(sums),
                     arena.take((plan.key_block + most_rows_aside) * plan.panel_rows),
                     seen};
    if (item.partial != nullptr) {
        const attention_partial partial(plan, item.partial);
        all.out = partial.out;
        all.maximum = partial.maximum;
        all.sum = partial.sum;
    }
    for (std::size_t i = 0; i < std::max(rows, plan.panel_rows); ++i) {
        const std::size_t head = std::min(item.head_begin + i / plan.row_block, item.head_end - 1);
        const std::size_t row = std::min(item.row_begin + i % plan.row_block, item.row_end - 1);
        const std::size_t token = row / p.group();
        seen[i] = p.mask.visible(token);
        seen[i].begin = std::clamp(seen[i].begin, item.keys.begin, item.keys.end);
        seen[i].end = std::clamp(seen[i].end, seen[i].begin, item.keys.end);
        if (i < rows)
            p.level->scale_row(p.q.row(token, head * p.group() + row % p.group()), p.key_size, factor,
                               all.q + i * p.key_size);
    }
    std::fill_n(all.out, rows * p.value_size, 0.0F);
    std::fill_n(all.maximum, sums, -std::numeric_limits<float>::infinity());
    std::fill_n(all.sum, sums, 0.0F);
    std::fill_n(all.scores, plan.key_block * plan.panel_rows, 0.0F);  // what no row writes is finite
    return all;
}

inline stored_heads rows_of_keys(const stored_rows& rows, const attention_item& item, key_range keys) noexcept {
    return {rows.row(keys.begin, item.head_begin), rows.token_stride, rows.head_stride, keys.end - keys.begin,
            item.head_end - item.head_begin};
}

/// Adds the weighted values of a block, of which some rows see only a part: row by row, as a weight of 0 does not
/// silence a NaN that the row does not see.
inline void add_ragged_values(const blocked_problem& p, const attention_plan& plan, const attention_item& item,
                              key_range keys, const narrow_state& all) noexcept {
    for (std::size_t h = item.head_begin; h < item.head_end; ++h) {
        for (std::size_t r = 0; r < item.row_end - item.row_begin; ++r) {
            const std::size_t i = (h - item.head_begin) * plan.row_block + r;
            const std::size_t first = std::clamp(all.seen[i].begin, keys.begin, keys.end);
            const std::size_t last = std::clamp(all.seen[i].end, first, keys.end);
            const auto add_run = [&](std::size_t begin, std::size_t end) {
                for (std::size_t j = begin, to = j; j < end; j = to) {
                    to = p.v.pages.run_end(j, end);
                    p.v_kernels->add[0]({p.v.row(j, h), p.v.token_stride, p.v.head_stride, to - j, 1}, p.value_size,
                                        all.scores + (j - keys.begin) * plan.panel_rows + i, plan.panel_rows,
                                        all.out + i * p.value_size);
                }
            };
            for_each_allowed_run(p.bits, (item.row_begin + r) / p.group(), {first, last}, add_run);
        }
    }
}

/// All rows against one block of keys. `kernel` is the number of the kernels for these rows.
inline void attend_few(const blocked_problem& p, const attention_plan& plan, const attention_item& item,
                       std::size_t kernel, key_range keys, float cap, const narrow_state& all) noexcept {
    const std::size_t n = keys.end - keys.begin;
    const std::size_t width = plan.panel_rows;
    for (std::size_t j = keys.begin, end = j; j < keys.end; j = end) {
        end = p.k.pages.run_end(j, keys.end);
        p.k_kernels->score[kernel](rows_of_keys(p.k, item, {j, end}), all.q, p.key_size,
                                   all.scores + (j - keys.begin) * width, width);
    }
    if (cap > 0) p.level->cap_scores(all.scores, round_up(n * width, plan.lanes), cap);
    const auto token_and_head = [&](std::size_t i) {
        const std::size_t head = std::min(item.head_begin + i / plan.row_block, item.head_end - 1);
        const std::size_t row = std::min(item.row_begin + i % plan.row_block, item.row_end - 1);
        return std::pair(row / p.group(), head * p.group() + row % p.group());
    };
    if (p.alibi != nullptr) add_distance_biases(p, all.scores, keys.begin, n, width, plan.item_rows(), token_and_head);
    const key_range& first = all.seen[0];
    const key_range& last = all.seen[item.row_end - item.row_begin - 1];
    const bool by_bits = has_bits(p.bits, keys);
    const bool ragged = by_bits || last.begin > keys.begin || first.end < keys.end;
    if (ragged) p.level->mask_scores(all.scores, all.seen, keys.begin, n, width);
    if (by_bits) hide_by_bits(p.bits, all.scores, keys.begin, n, width, plan.item_rows(), token_and_head);
    p.level->weigh_scores(all.scores, n, width, all.maximum, all.sum, all.keep);
    for (std::size_t i = 0; i < plan.item_rows(); ++i) {
        float* const out = all.out + i * p.value_size;
        if (all.keep[i] != 1.0F) p.level->scale_row(out, p.value_size, all.keep[i], out);
    }
    if (ragged) return add_ragged_values(p, plan, item, keys, all);
    for (std::size_t j = keys.begin, end = j; j < keys.end; j = end) {
        end = p.v.pages.run_end(j, keys.end);
        p.v_kernels->add[kernel](rows_of_keys(p.v, item, {j, end}), p.value_size, all.scores + (j - keys.begin) * width,
                                 width, all.out);
    }
}

inline void attend_narrow(const blocked_problem& p, const attention_plan& plan, const attention_item& item,
                          float* scratch) noexcept {
    const logit_factors factors = make_logit_factors(p.scale, p.softcap);
    key_range seen[most_narrow_rows];
    const narrow_state all = start_narrow(p, plan, item, factors.query, seen, scratch);
    std::size_t kernel = 0;
    while (few_rows[kernel] < plan.row_block) ++kernel;
    const std::size_t end = seen[item.row_end - item.row_begin - 1].end;
    for (std::size_t first = seen[0].begin; first < end; first += plan.key_block)
        attend_few(p, plan, item, kernel, {first, std::min(first + plan.key_block, end)}, factors.cap, all);
    for (std::size_t h = item.head_begin; item.partial == nullptr && h < item.head_end; ++h) {
        const std::size_t i = (h - item.head_begin) * plan.row_block;
        finish_rows(p, item, h, all.out + i * p.value_size, p.value_size, all.maximum + i, all.sum + i);
    }
}

}  // namespace larql::detail

#endif
