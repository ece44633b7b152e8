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
#include <span>
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
        float* const out = part(0).out + i * plan.out_stride;
        const bool in_first = part(0).sum[i] != 0.0F;
        p.level->scale_row(out, p.value_size, in_first ? std::exp2(part(0).maximum[i] - base) : 0.0F, out);
        for (std::size_t s = 0; s < plan.splits; ++s) {
            if (part(s).sum[i] == 0.0F) continue;  // saw no key
            const float weight = std::exp2(part(s).maximum[i] - base);
            sum += part(s).sum[i] * weight;
            if (s != 0) p.level->add_scaled_row(part(s).out + i * plan.out_stride, p.value_size, weight, out);
        }
        finish_row(p, r / p.group(), head, out, top, sum);
    }
}

/// One call cut into items, which threads take in any order, each once. Whoever finishes the last split of a block
/// joins it.
class blocked_call {
public:
    blocked_call(const blocked_problem& p, std::size_t concurrency)
        : m_p(p),
          m_plan(make_attention_plan(p, p.level->tile, std::abs(p.k.head_stride) < std::abs(p.k.token_stride),
                                     concurrency)) {}

    [[nodiscard]] std::size_t items() const noexcept { return m_plan.items(); }
    [[nodiscard]] double flops() const noexcept { return m_p.flops(); }
    /// Floats of a worker, and of all workers together.
    [[nodiscard]] std::size_t scratch_floats() const noexcept { return m_plan.scratch_floats; }
    [[nodiscard]] std::size_t shared_floats() const noexcept {
        return split() ? counter_floats() + items() * m_plan.partial_floats : 0;
    }

    /// @param shared  shared_floats() of them, for as long as items run
    void start(float* shared) noexcept {
        if (!split()) return;
        m_unfinished = reinterpret_cast<std::atomic<std::size_t>*>(shared);
        m_partials = shared + counter_floats();
        for (std::size_t i = 0; i < blocks(); ++i) new (m_unfinished + i) std::atomic<std::size_t>(m_plan.splits);
    }

    /// @param scratch  scratch_floats() of the worker that calls
    void run(std::size_t i, float* scratch) const noexcept {
        const attention_item item = make_attention_item(m_p, m_plan, i, m_partials);
        (m_plan.narrow ? attend_narrow : attend_wide)(m_p, m_plan, item, scratch);
        const std::size_t block = i / m_plan.splits;
        if (!split() || m_unfinished[block].fetch_sub(1, std::memory_order_acq_rel) != 1) return;
        float* const parts = m_partials + block * m_plan.splits * m_plan.partial_floats;
        for (std::size_t head = item.head_begin; head < item.head_end; ++head)
            join_partials(m_p, m_plan, item, head, parts);
    }

private:
    [[nodiscard]] bool split() const noexcept { return m_plan.splits > 1; }
    [[nodiscard]] std::size_t blocks() const noexcept { return m_plan.head_blocks * m_plan.row_blocks; }
    [[nodiscard]] std::size_t counter_floats() const noexcept {
        return round_up(blocks() * sizeof(std::atomic<std::size_t>), 64) / sizeof(float);
    }

    blocked_problem m_p;
    attention_plan m_plan;
    std::atomic<std::size_t>* m_unfinished = nullptr;
    float* m_partials = nullptr;
};

/// All items of some calls, those of the first calls first.
inline void run_calls(std::span<blocked_call> calls, executor& threads, aligned_buffer& memory) {
    std::size_t items = 0, shared = 0, own = 0;
    for (const blocked_call& call : calls) {
        items += call.items();
        shared += call.shared_floats();
        own = std::max(own, call.scratch_floats());
    }
    const std::size_t workers = std::min(items, thread_count(threads));
    float* const scratch = memory.get<float>(shared + workers * own);
    float* next_shared = scratch;
    for (blocked_call& call : calls) {
        call.start(next_shared);
        next_shared += call.shared_floats();
    }
    std::atomic<std::size_t> next{0};
    threads.run(workers, [&](std::size_t worker) {
        std::size_t call = 0, before = 0;  // items of the calls before
        for (std::size_t i = next.fetch_add(1); i < items; i = next.fetch_add(1)) {
            while (i - before >= calls[call].items()) before += calls[call++].items();
            calls[call].run(i - before, scratch + shared + worker * own);
        }
    });
}

/// A call whose keys and values are of these types, with the code for them.
template <class K, class V>
blocked_problem make_blocked_problem(const attention_problem<float, K, V>& p, simd_level level) {
    blocked_problem blocked{p, stored_rows(p.k), stored_rows(p.v)};
    blocked.k_kernels = &choose_storage_kernels<K>(level);
    blocked.v_kernels = &choose_storage_kernels<V>(level);
    blocked.level = &choose_level_kernels(level);
    return blocked;
}

/// Chooses the path: vector code for float, plain code for double.
template <class T, class K, class V>
void run_attention(const attention_problem<T, K, V>& p, simd_level level, executor& threads, aligned_buffer& memory) {
    if constexpr (std::is_same_v<T, float>) {
        blocked_call call(make_blocked_problem(p, level), thread_count(threads));
        run_calls({&call, 1}, threads, memory);
    } else {
        attention_generic::attend(p, threads, memory);
    }
}

}  // namespace larql::detail

#endif
