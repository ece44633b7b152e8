// SPDX-License-Identifier: Apache-2.0
//
// The softmax weights themselves, for those who want to look at them: one row of S numbers per query row.
#ifndef LARQL_DETAIL_ATTENTION_WEIGHTS_HPP
#define LARQL_DETAIL_ATTENTION_WEIGHTS_HPP

#include <larql/detail/attention/generic.hpp>
#include <larql/detail/attention/problem.hpp>
#include <larql/detail/attention/stored_element.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

namespace larql::detail {

/// The score of a key that a token's list leaves out is -infinity.
template <class T>
void hide_unlisted(std::span<const std::uint32_t> list, key_range seen, T* scores) {
    auto next = std::ranges::lower_bound(list, seen.begin);
    for (std::size_t j = seen.begin; j < seen.end; ++j) {
        if (next != list.end() && *next == j)
            ++next;
        else
            scores[j] = -std::numeric_limits<T>::infinity();
    }
}

/// Fills `weights` [S] for one token and head. `q` is a scratch row of D numbers, `key` another.
template <class T, class K, class V>
void softmax_weights_row(const attention_problem<T, K, V>& p, std::size_t token, std::size_t head, T* q, T* key,
                         T* weights) {
    const key_range seen = p.mask.visible(token);
    std::fill_n(weights, p.keys, T(0));
    for (std::size_t d = 0; d < p.key_size; ++d) q[d] = p.q.row(token, head)[d] * static_cast<T>(p.scale);
    attention_generic::running_softmax<T> state;
    for (std::size_t j = seen.begin; j < seen.end; ++j) {
        const K* row = p.k.row(j, head / p.group());
        for (std::size_t d = 0; d < p.key_size; ++d) key[d] = number_in<T>(row, d);
        const T s = attention_generic::dot<T>(q, key, p.key_size);
        const auto cap = static_cast<T>(p.softcap);
        weights[j] = cap > 0 ? cap * std::tanh(s / cap) : s;
        if (p.alibi != nullptr) weights[j] += p.distance_bias(token, head, j);
        if (!p.bits.allows(token, j)) weights[j] = -std::numeric_limits<T>::infinity();
    }
    if (!p.lists.empty()) hide_unlisted(p.lists.of(token), seen, weights);
    attention_generic::update_row<T>(state, weights + seen.begin, seen.end - seen.begin, nullptr, 0);
    const T factor = attention_generic::final_factor(state, p.sinks == nullptr ? nullptr : p.sinks + head);
    for (std::size_t j = seen.begin; j < seen.end; ++j) weights[j] *= factor;
}

/// Weights of the tokens from `token0` on, [H, T - token0, S].
template <class T, class K, class V>
void softmax_weights(const attention_problem<T, K, V>& p, std::size_t token0, executor& threads, T* weights) {
    const std::size_t tokens = p.tokens - token0;
    const std::size_t items = p.heads * tokens;
    const std::size_t workers = std::min(items, thread_count(threads));
    const std::size_t stride = round_up(2 * p.key_size + 1, aligned_buffer::alignment);
    aligned_buffer memory;
    T* scratch = memory.get<T>(stride * workers);
    std::atomic<std::size_t> next{0};
    threads.run(workers, [&](std::size_t worker) {
        T* q = scratch + worker * stride;
        for (std::size_t i = next.fetch_add(1); i < items; i = next.fetch_add(1))
            softmax_weights_row(p, token0 + i % tokens, i / tokens, q, q + p.key_size, weights + i * p.keys);
    });
}

}  // namespace larql::detail

#endif
