// SPDX-License-Identifier: Apache-2.0
//
// Runs the items of a plan on the threads of an executor, and joins what items that share rows have left unfinished.
#ifndef LARQL_DETAIL_ATTENTION_BLOCKED_HPP
#define LARQL_DETAIL_ATTENTION_BLOCKED_HPP

#include <larql/detail/attention/generic.hpp>
#include <larql/detail/attention/kernels.hpp>
#include <larql/detail/attention/narrow.hpp>
#include <larql/detail/attention/plan.hpp>
#include <larql/detail/attention/problem.hpp>
#include <larql/detail/attention/wide.hpp>
#include <larql/executor.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <limits>
#include <new>
#include <type_traits>

namespace larql::detail {

/// Item number i: the splits of a block follow each other, and the blocks of rows with most keys come first.
inline attention_item make_attention_item(const attention_call<float>& p, const attention_plan& plan, std::size_t i,
                                          float* partials) {
    const std::size_t split = i % plan.splits;
    const std::size_t block = i / plan.splits;
    const std::size_t head = block % plan.head_blocks * plan.head_block;
    const std::size_t row_block = plan.row_blocks - 1 - block / plan.head_blocks;
    const std::size_t row = row_block * plan.row_block;
    const std::size_t key = plan.first_key + split * plan.split_keys;
    float* const partial = plan.splits == 1 ? nullptr : partials + i * plan.partial_floats;
    return {head,
            std::min(head + plan.head_block, p.kv_heads),
            row,
            std::min(row + plan.row_block, p.rows()),
            {key, std::min(key + plan.split_keys, plan.last_key)},
            partial};
}

/// Joins the partial results of the item's rows of one head, always in the order of the keys.
/// @param partials  of all splits, one after another
inline void join_partials(const blocked_problem& p, const attention_plan& plan, const attention_item& item,
                          std::size_t kv_head, float* partials) {
    for (std::size_t r = item.row_begin; r < item.row_end; ++r) {
        const std::size_t i = (kv_head - item.head_begin) * plan.row_block + r - item.row_begin;
        const std::size_t head = kv_head * p.group() + r % p.group();
        const auto part = [&](std::size_t s) { return attention_partial(plan, partials + s * plan.partial_floats); };
        float top = -std::numeric_limits<float>::infinity();
        for (std::size_t s = 0; s < plan.splits; ++s) top = std::max(top, part(s).maximum[i]);
        const float base = std::isinf(top) && top < 0 ? 0.0F : top;
        float sum = 0;
        float* const out = p.out.row(r / p.group(), head);
        std::fill_n(out, p.value_size, 0.0F);
        for (std::size_t s = 0; s < plan.splits; ++s) {
            if (part(s).sum[i] == 0.0F) continue;  // saw no key
            const float weight = std::exp2(part(s).maximum[i] - base);
            sum += part(s).sum[i] * weight;
            p.level->add_scaled_row(part(s).out + i * plan.out_stride, p.value_size, weight, out);
        }
        const float factor = final_factor_base2(top, sum, p.sinks == nullptr ? nullptr : p.sinks + head);
        p.level->scale_row(out, p.value_size, factor, out);
    }
}

/// The whole call.
inline void attend_blocked(const blocked_problem& p, executor& threads, aligned_buffer& memory) {
    const bool heads_adjacent = std::abs(p.k.head_stride) < std::abs(p.k.token_stride);
    const attention_plan plan = make_attention_plan(p, p.level->tile, heads_adjacent, thread_count(threads));
    const auto attend_item = plan.narrow ? attend_narrow : attend_wide;
    const std::size_t items = plan.items();
    const std::size_t workers = std::min(items, thread_count(threads));
    const std::size_t blocks = plan.head_blocks * plan.row_blocks;
    const bool split = plan.splits > 1;
    const std::size_t partial_floats = split ? items * plan.partial_floats : 0;
    const std::size_t counters = split ? round_up(blocks * sizeof(std::atomic<std::size_t>), 64) / sizeof(float) : 0;
    float* const scratch = memory.get<float>(counters + partial_floats + workers * plan.scratch_floats);
    auto* const unfinished = reinterpret_cast<std::atomic<std::size_t>*>(scratch);
    float* const partials = scratch + counters;
    float* const own = partials + partial_floats;
    for (std::size_t i = 0; split && i < blocks; ++i) new (unfinished + i) std::atomic<std::size_t>(plan.splits);
    std::atomic<std::size_t> next{0};
    threads.run(workers, [&](std::size_t worker) {
        for (std::size_t i = next.fetch_add(1); i < items; i = next.fetch_add(1)) {
            const attention_item item = make_attention_item(p, plan, i, partials);
            attend_item(p, plan, item, own + worker * plan.scratch_floats);
            if (!split || unfinished[i / plan.splits].fetch_sub(1, std::memory_order_acq_rel) != 1) continue;
            float* const parts = partials + i / plan.splits * plan.splits * plan.partial_floats;
            for (std::size_t head = item.head_begin; head < item.head_end; ++head)
                join_partials(p, plan, item, head, parts);
        }
    });
}

/// Chooses the path: vector code for float, plain code for double.
template <class T, class K, class V>
void run_attention(const attention_problem<T, K, V>& p, simd_level level, executor& threads, aligned_buffer& memory) {
    if constexpr (std::is_same_v<T, float>) {
        blocked_problem blocked{p, stored_rows(p.k), stored_rows(p.v)};
        blocked.k_kernels = &choose_storage_kernels<K>(level);
        blocked.v_kernels = &choose_storage_kernels<V>(level);
        blocked.level = &choose_level_kernels(level);
        attend_blocked(blocked, threads, memory);
    } else {
        attention_generic::attend(p, threads, memory);
    }
}

}  // namespace larql::detail

#endif
