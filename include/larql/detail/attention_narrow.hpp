// SPDX-License-Identifier: Apache-2.0
//
// An item of few query rows, as when decoding, whose lanes are elements of a head. Heads take turns at each block of
// keys, so that memory is read in the order in which a cache [S, G, D] lies, and asked for a block ahead.
#ifndef LARQL_DETAIL_ATTENTION_NARROW_HPP
#define LARQL_DETAIL_ATTENTION_NARROW_HPP

#include <larql/detail/attention_kernels.hpp>
#include <larql/detail/attention_plan.hpp>
#include <larql/detail/attention_problem.hpp>
#include <larql/detail/attention_wide.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>

#if LARQL_VECTOR_EXTENSIONS

namespace larql::detail {

/// The query rows of one head and what they have accumulated.
struct narrow_state {
    float* q;        // [rows][D], times the scale
    float* out;      // [rows][V]
    float* maximum;  // [rows], in powers of two
    float* sum;
};

/// What does not change during an item.
struct narrow_item {
    std::size_t rows;         // query rows
    std::size_t kernel_rows;  // those that the kernels work on
    score_few_kernel score;
    add_few_kernel add;
    add_few_kernel add_one;
    key_range seen[few_rows[few_rows_count - 1]];  // the keys of each row
    float cap;
    float* scores;
};

/// Memory and first values for the rows of one head; rows beyond the item's last repeat it.
inline narrow_state start_narrow(const blocked_problem& p, const attention_plan& plan, const attention_item& item,
                                 std::size_t head, std::size_t rows, float factor, float_arena& arena) noexcept {
    narrow_state state{arena.take(rows * p.key_size), arena.take(rows * p.value_size), arena.take(rows),
                       arena.take(rows)};
    if (item.partial != nullptr) {
        const std::size_t offset = (head - item.head_begin) * plan.splits * plan.partial_floats;
        const attention_partial partial(plan, item.partial + offset);
        state.out = partial.out;
        state.maximum = partial.maximum;
        state.sum = partial.sum;
    }
    for (std::size_t r = 0; r < rows; ++r) {
        const std::size_t row = std::min(item.row_begin + r, item.row_end - 1);
        p.level->scale_row(p.q.row(row / p.group(), head * p.group() + row % p.group()), p.key_size, factor,
                           state.q + r * p.key_size);
    }
    std::fill_n(state.out, rows * p.value_size, 0.0F);
    std::fill_n(state.maximum, rows, -std::numeric_limits<float>::infinity());
    std::fill_n(state.sum, rows, 0.0F);
    return state;
}

inline narrow_item make_narrow_item(const blocked_problem& p, const attention_item& item, float cap,
                                    float_arena& arena) noexcept {
    narrow_item few{};
    few.rows = item.row_end - item.row_begin;
    std::size_t i = 0;
    while (few_rows[i] < few.rows) ++i;
    few.kernel_rows = few_rows[i];
    few.score = p.k_kernels->score[i];
    few.add = p.v_kernels->add[i];
    few.add_one = p.v_kernels->add[0];
    for (std::size_t r = 0; r < few.kernel_rows; ++r) {
        key_range& seen = few.seen[r];
        seen = p.mask.visible(std::min(item.row_begin + r, item.row_end - 1) / p.group());
        seen.begin = std::clamp(seen.begin, item.keys.begin, item.keys.end);
        seen.end = std::clamp(seen.end, seen.begin, item.keys.end);
    }
    few.cap = cap;
    few.scores = arena.take(few.kernel_rows * narrow_key_block);
    return few;
}

/// One head against one block of keys.
inline void attend_few(const blocked_problem& p, const narrow_item& few, std::size_t head, key_range keys,
                       const narrow_state& state, memory_ahead& next_keys, memory_ahead& next_values) noexcept {
    const std::size_t n = keys.end - keys.begin;
    few.score({p.k.row(keys.begin, head), p.k.token_stride, n}, state.q, p.key_size, few.scores, next_keys);
    float keep[few_rows[few_rows_count - 1]];
    bool ragged = false;
    for (std::size_t r = 0; r < few.kernel_rows; ++r) {
        const std::size_t begin = std::clamp(few.seen[r].begin, keys.begin, keys.end) - keys.begin;
        const std::size_t end = std::clamp(few.seen[r].end, keys.begin + begin, keys.end) - keys.begin;
        keep[r] = p.level->weigh_row(few.scores + r * narrow_key_block, {begin, end}, n, few.cap, state.maximum[r],
                                     state.sum[r]);
        if (begin > 0 || end < n) ragged = true;
    }
    if (!ragged)
        return few.add({p.v.row(keys.begin, head), p.v.token_stride, n}, p.value_size, few.scores, keep, state.out,
                       next_values);
    // Row by row: a weight of 0 does not silence a NaN that the row does not see.
    for (std::size_t r = 0; r < few.rows; ++r) {
        const std::size_t begin = std::clamp(few.seen[r].begin, keys.begin, keys.end);
        const std::size_t end = std::clamp(few.seen[r].end, begin, keys.end);
        if (begin < end)
            few.add_one({p.v.row(begin, head), p.v.token_stride, end - begin}, p.value_size,
                        few.scores + r * narrow_key_block + begin - keys.begin, keep + r, state.out + r * p.value_size,
                        next_values);
    }
}

/// The rows of one head for some keys.
inline memory_ahead rows_ahead(const stored_rows& rows, std::size_t row_bytes, std::size_t head,
                               key_range keys) noexcept {
    return {rows.row(keys.begin, head), rows.token_stride, row_bytes, keys.end - keys.begin};
}

inline void attend_narrow(const blocked_problem& p, const attention_plan& plan, const attention_item& item,
                          float* scratch) noexcept {
    const std::size_t heads = item.head_end - item.head_begin;
    const logit_factors factors = make_logit_factors(p.scale, p.softcap);
    float_arena arena(scratch);
    const narrow_item few = make_narrow_item(p, item, factors.cap, arena);
    narrow_state states[narrow_heads];
    for (std::size_t h = 0; h < heads; ++h)
        states[h] = start_narrow(p, plan, item, item.head_begin + h, few.kernel_rows, factors.query, arena);

    const std::size_t last = few.seen[few.rows - 1].end;
    const std::size_t step = plan.narrow_step;
    for (std::size_t first = few.seen[0].begin; first < last; first += step) {
        const key_range keys{first, std::min(first + step, last)};
        const key_range next{keys.end, std::min(keys.end + step, last)};
        for (std::size_t h = 0; h < heads; ++h) {
            const std::size_t turn = h + plan.prefetch_heads;
            const std::size_t head = item.head_begin + turn % heads;
            const key_range ahead = turn < heads ? keys : next;
            memory_ahead next_keys = rows_ahead(p.k, p.key_size * p.k_kernels->element_bytes, head, ahead);
            memory_ahead next_values = rows_ahead(p.v, p.value_size * p.v_kernels->element_bytes, head, ahead);
            attend_few(p, few, item.head_begin + h, keys, states[h], next_keys, next_values);
        }
    }
    for (std::size_t h = 0; item.partial == nullptr && h < heads; ++h)
        finish_rows(p, item, item.head_begin + h, states[h].out, p.value_size, states[h].maximum, states[h].sum);
}

}  // namespace larql::detail

#endif
#endif
