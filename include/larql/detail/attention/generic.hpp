// SPDX-License-Identifier: Apache-2.0
//
// Attention in plain C++ for any arithmetic type: the path of double. Blocks of keys, online softmax, O(block) scratch.
#ifndef LARQL_DETAIL_ATTENTION_GENERIC_HPP
#define LARQL_DETAIL_ATTENTION_GENERIC_HPP

#include <larql/detail/attention/problem.hpp>
#include <larql/detail/attention/stored_element.hpp>

#include <atomic>
#include <cmath>

namespace larql::detail::attention_generic {

inline constexpr std::size_t key_block = 64;
inline constexpr std::size_t row_block = 16;

/// Numbers of type T that one worker needs.
template <class Problem>
std::size_t scratch_size(const Problem& p) {
    return row_block * (key_block + p.value_size + p.key_size + 2) + key_block * std::max(p.key_size, p.value_size);
}

/// Running softmax of one row: the maximum so far, and the sum of exponentials relative to it.
template <class T>
struct running_softmax {
    T maximum = -std::numeric_limits<T>::infinity();
    T sum = 0;
};

template <class T>
T dot(const T* a, const T* b, std::size_t n) {
    constexpr std::size_t lanes = 8;  // independent sums, for vector units and for accuracy
    T sums[lanes] = {};
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes)
        for (std::size_t l = 0; l < lanes; ++l) sums[l] += a[i + l] * b[i + l];
    for (; i < n; ++i) sums[i % lanes] += a[i] * b[i];
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/// Turns the scores of one row into weights, and rescales what the row has accumulated so far.
template <class T>
void update_row(running_softmax<T>& state, T* scores, std::size_t n, T* out, std::size_t value_size) {
    T maximum = state.maximum;
    for (std::size_t j = 0; j < n; ++j)
        if (!(scores[j] <= maximum)) maximum = scores[j];  // takes a NaN, and keeps it
    const T base = maximum == -std::numeric_limits<T>::infinity() ? T(0) : maximum;
    const T keep = std::exp(state.maximum - base);
    T sum = 0;
    for (std::size_t j = 0; j < n; ++j) sum += scores[j] = std::exp(scores[j] - base);
    for (std::size_t c = 0; c < value_size; ++c) out[c] *= keep;
    state = {maximum, state.sum * keep + sum};
}

/// What the sum of weighted values is multiplied by at the end: 1 / sum, with the sink's share of the softmax. 0 for a
/// row that saw no key.
template <class T>
T final_factor(const running_softmax<T>& state, const float* sink) {
    if (state.sum == 0) return 0;
    if (sink == nullptr) return 1 / state.sum;
    const T maximum = std::max(state.maximum, static_cast<T>(*sink));
    const T factor = std::exp(state.maximum - maximum);
    return factor / (state.sum * factor + std::exp(static_cast<T>(*sink) - maximum));
}

/// The logarithm of a row's sum of exponentials, its sink's among them: -infinity for a row that saw neither.
template <class T>
T log_sum(const running_softmax<T>& state, const float* sink) {
    if (state.sum == 0) return sink == nullptr ? -std::numeric_limits<T>::infinity() : static_cast<T>(*sink);
    if (sink == nullptr) return state.maximum + std::log(state.sum);
    const T top = std::max(state.maximum, static_cast<T>(*sink));
    return top + std::log(state.sum * std::exp(state.maximum - top) + std::exp(static_cast<T>(*sink) - top));
}

template <class T, class E>
void convert_rows(const attention_rows<const E>& rows, std::size_t head, key_range range, std::size_t n, T* out) {
    for (std::size_t j = range.begin; j < range.end; ++j) {
        const E* row = rows.row(j, head);
        for (std::size_t d = 0; d < n; ++d) *out++ = number_in<T>(row, d);
    }
}

/// Rows [row0, row1) of key/value head g.
template <class T, class K, class V>
void attend_rows(const attention_problem<T, K, V>& p, std::size_t g, std::size_t row0, std::size_t row1, T* scratch) {
    T* scores = scratch;
    T* q = scores + row_block * key_block;
    T* sums = q + row_block * p.key_size;
    T* block = sums + row_block * p.value_size;
    running_softmax<T> state[row_block];
    key_range range[row_block];
    for (std::size_t r = row0; r < row1; ++r) {
        const T* source = p.q.row(r / p.group(), g * p.group() + r % p.group());
        for (std::size_t d = 0; d < p.key_size; ++d)
            q[(r - row0) * p.key_size + d] = source[d] * static_cast<T>(p.scale);
        range[r - row0] = p.mask.visible(r / p.group());
    }
    std::fill_n(sums, row_block * p.value_size, T(0));
    for (std::size_t j0 = range[0].begin; j0 < range[row1 - row0 - 1].end; j0 += key_block) {
        const std::size_t j1 = std::min(j0 + key_block, range[row1 - row0 - 1].end);
        convert_rows(p.k, g, {j0, j1}, p.key_size, block);
        const auto part = [&](std::size_t r) {
            const std::size_t begin = std::max(range[r].begin, j0);
            return key_range{begin, std::max(begin, std::min(range[r].end, j1))};
        };
        for (std::size_t r = 0; r < row1 - row0; ++r) {
            const key_range seen = part(r);
            T* row = scores + r * key_block;
            for (std::size_t j = seen.begin; j < seen.end; ++j) {
                const T s = dot(q + r * p.key_size, block + (j - j0) * p.key_size, p.key_size);
                const auto cap = static_cast<T>(p.softcap);
                row[j - seen.begin] = cap > 0 ? cap * std::tanh(s / cap) : s;
                if (p.alibi != nullptr)
                    row[j - seen.begin] +=
                        p.distance_bias((row0 + r) / p.group(), g * p.group() + (row0 + r) % p.group(), j);
                if (!p.bits.allows((row0 + r) / p.group(), j))
                    row[j - seen.begin] = -std::numeric_limits<T>::infinity();
            }
            update_row(state[r], row, seen.end - seen.begin, sums + r * p.value_size, p.value_size);
        }
        convert_rows(p.v, g, {j0, j1}, p.value_size, block);
        for (std::size_t r = 0; r < row1 - row0; ++r) {
            const key_range seen = part(r);
            T* out = sums + r * p.value_size;
            for (std::size_t j = seen.begin; j < seen.end; ++j) {
                if (!p.bits.allows((row0 + r) / p.group(), j)) continue;  // a weight of 0 does not silence a NaN
                const T weight = scores[r * key_block + j - seen.begin];
                const T* value = block + (j - j0) * p.value_size;
                for (std::size_t c = 0; c < p.value_size; ++c) out[c] += weight * value[c];
            }
        }
    }
    for (std::size_t r = 0; r < row1 - row0; ++r) {
        const std::size_t head = g * p.group() + (row0 + r) % p.group();
        const float* const sink = p.sinks == nullptr ? nullptr : p.sinks + head;
        const T factor = final_factor(state[r], sink);
        T* out = p.out.row((row0 + r) / p.group(), head);
        if (p.log_sum != nullptr) p.log_sum[(row0 + r) / p.group() * p.heads + head] = log_sum(state[r], sink);
        for (std::size_t c = 0; c < p.value_size; ++c) out[c] = sums[r * p.value_size + c] * factor;
    }
}

/// The whole call.
template <class T, class K, class V>
void attend(const attention_problem<T, K, V>& p, executor& threads, aligned_buffer& memory) {
    const std::size_t blocks = ceil_div(p.rows(), row_block);
    const std::size_t items = blocks * p.kv_heads;
    const std::size_t workers = std::min(items, thread_count(threads));
    const std::size_t stride = round_up(scratch_size(p), aligned_buffer::alignment);
    T* scratch = memory.get<T>(stride * workers);
    std::atomic<std::size_t> next{0};
    const auto work = [&](std::size_t worker) {
        for (std::size_t i = next.fetch_add(1); i < items; i = next.fetch_add(1)) {
            const std::size_t row0 = (blocks - 1 - i / p.kv_heads) * row_block;  // the longest rows first
            attend_rows(p, i % p.kv_heads, row0, std::min(row0 + row_block, p.rows()), scratch + worker * stride);
        }
    };
    threads.run(workers, work);
}

}  // namespace larql::detail::attention_generic

#endif
