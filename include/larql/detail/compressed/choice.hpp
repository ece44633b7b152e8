// SPDX-License-Identifier: Apache-2.0
//
// Which entries a token of compressed attention sees: all that are complete, or those that an indexer scores highest.
#ifndef LARQL_DETAIL_COMPRESSED_CHOICE_HPP
#define LARQL_DETAIL_COMPRESSED_CHOICE_HPP

#include <larql/attention_spec.hpp>
#include <larql/detail/gemm.hpp>
#include <larql/executor.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

namespace larql::detail {

/// Rows of entries, held ones first and then new ones.
template <class E>
struct entry_list {
    const E* held = nullptr;
    std::size_t held_count = 0;
    const E* made = nullptr;
    std::size_t size = 0;  ///< d

    [[nodiscard]] const E* row(std::size_t index) const noexcept {
        return index < held_count ? held + index * size : made + (index - held_count) * size;
    }
};

/// The entries that one token sees: the first `count`, or if `chosen` is not empty those, in rising order.
struct seen_entries {
    std::size_t count = 0;
    std::vector<std::uint32_t> chosen{};
};

/// The `wanted` highest scores of n, as rising indices. Of equal scores the earlier entry goes first; ReLU makes ties
/// at 0, and torch.topk does not say which it takes. NaN counts as the highest, as it does there.
template <class T>
std::vector<std::uint32_t> highest(std::vector<T>& scores, std::size_t n, std::size_t wanted) {
    for (std::size_t i = 0; i < n; ++i)
        if (std::isnan(scores[i])) scores[i] = std::numeric_limits<T>::infinity();
    std::vector<std::uint32_t> order(n);
    std::iota(order.begin(), order.end(), std::uint32_t{0});
    const auto before = [&](std::uint32_t a, std::uint32_t b) {
        return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
    };
    std::nth_element(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(wanted), order.end(), before);
    order.resize(wanted);
    std::ranges::sort(order);
    return order;
}

/// What the indexer of a block knows of T new tokens.
template <class T>
struct index_query {
    const T* queries;  ///< [T, nI, dI], rotated
    const T* weights;  ///< [T, nI], before their scale
};

/// Chooses for tokens first_position ..: score(w) = sum over heads i of u_i * ReLU(q_i . k_w), scaled, which does not
/// change an order, as published.
/// @param keys  of the indexer, as many as there are entries
template <class T, class E>
class entry_chooser {
public:
    entry_chooser(const compression_spec& spec, const index_query<T>& query, const entry_list<E>& keys,
                  executor& threads)
        : m_spec(spec), m_query(query), m_keys(keys), m_threads(threads) {}

    /// Fills `seen` of those tokens that see more entries than the indexer leaves; their `count` is set.
    void choose(std::vector<seen_entries>& seen) const {
        std::size_t begin = 0;  // counts never fall from token to token
        while (begin < seen.size() && seen[begin].count <= m_spec.index_top_k) ++begin;
        constexpr std::size_t most_scores = std::size_t{1} << 22;
        while (begin < seen.size()) {
            const std::size_t per_token = m_spec.index_heads * seen.back().count;
            const std::size_t end = std::min(seen.size(), begin + std::max<std::size_t>(most_scores / per_token, 1));
            choose_block(seen, begin, end);
            begin = end;
        }
    }

private:
    void choose_block(std::vector<seen_entries>& seen, std::size_t begin, std::size_t end) const {
        const std::size_t heads = m_spec.index_heads, size = m_spec.index_head_dim, keys = seen[end - 1].count;
        std::vector<T> products((end - begin) * heads * keys);
        const dense_rows<T> queries{m_query.queries + begin * heads * size, (end - begin) * heads, size, size};
        const auto read_keys = [&](std::size_t first, std::size_t last, T* out, std::size_t stride) {
            for (std::size_t w = first; w < last; ++w, out += stride)
                for (std::size_t d = 0; d < size; ++d) out[d] = static_cast<T>(m_keys.row(w)[d]);
        };
        const matrix_source<T> key_rows{keys, size, read_keys};
        gemm_nt<T>(
            queries.source(), key_rows, [&](std::size_t row) { return products.data() + row * keys; }, m_threads);
        m_threads.run(end - begin, [&](std::size_t i) {
            seen_entries& token = seen[begin + i];
            std::vector<T> scores(token.count, T(0));
            const T scale = static_cast<T>(1.0 / std::sqrt(static_cast<double>(heads * size)));
            for (std::size_t h = 0; h < heads; ++h) {
                const T weight = m_query.weights[(begin + i) * heads + h] * scale;
                const T* product = products.data() + (i * heads + h) * keys;
                for (std::size_t w = 0; w < token.count; ++w) scores[w] += weight * std::max(product[w], T(0));
            }
            token.chosen = highest(scores, token.count, m_spec.index_top_k);
        });
    }

    const compression_spec& m_spec;
    const index_query<T>& m_query;
    const entry_list<E>& m_keys;
    executor& m_threads;
};

}  // namespace larql::detail

#endif
