// SPDX-License-Identifier: Apache-2.0
//
// The sparse indexer of one block: its keys, and the keys that it selects for each token.
#ifndef LARQL_DETAIL_INDEXER_SELECTOR_HPP
#define LARQL_DETAIL_INDEXER_SELECTOR_HPP

#include <larql/attention_spec.hpp>
#include <larql/attention_weights.hpp>
#include <larql/detail/ceil_div.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/gemm.hpp>
#include <larql/detail/indexer/top_k.hpp>
#include <larql/detail/mla/norm.hpp>
#include <larql/detail/mla/temperature.hpp>
#include <larql/detail/model/roles.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/key_selection.hpp>
#include <larql/matrix_input.hpp>
#include <larql/rope.hpp>
#include <larql/rows_view.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace larql::detail {

/// Rows [S, 1, Di] of a cache as a matrix of another type, which reads the cache.
template <class T, class E>
matrix_input<T> rows_of_cached(const rows_view<const E>& keys) {
    return matrix_input<T>(keys.tokens, keys.size,
                           [keys](std::size_t begin, std::size_t end, T* out, std::size_t stride) {
                               for (std::size_t r = begin; r < end; ++r, out += stride) {
                                   const E* row = keys.data + static_cast<std::ptrdiff_t>(r) * keys.token_stride;
                                   for (std::size_t i = 0; i < keys.size; ++i) out[i] = number_in<T>(row, i);
                               }
                           });
}

/// The indexer of one block on one executor. T new tokens, S keys, Hi heads, Di elements.
template <class T>
class block_indexer {
public:
    block_indexer(const attention_spec& spec, const rope_table& rope, const attention_weights<T>& weights,
                  executor& threads)
        : m_spec(spec), m_rope(rope), m_w(weights), m_threads(threads) {}

    /// What a cache holds of new tokens: keys, normed and rotated, and with pools what weighs them, [T, 1, Di or 2*Di].
    /// @param x  [T, E]  the block's input
    [[nodiscard]] tensor<T, 3> keys(const matrix_input<T>& x, const token_places& at) const {
        tensor<T, 3> made = heads(x, tensor_role::indexer_k, 1);
        normalise_rows(made.data(), made.shape(0), made.shape(2), m_spec.indexer.k_norm,
                       m_w.vector(tensor_role::indexer_k_norm), m_w.vector(tensor_role::indexer_k_norm_bias));
        rotate(made, at);
        return m_spec.indexer.pool > 1 ? beside(made, heads(x, tensor_role::indexer_pool_gate, 1)) : made;
    }

    /// What new tokens, of one sequence or of many, score keys with.
    struct token_queries {
        tensor<T, 3> queries;  ///< [T, Hi, Di], rotated
        tensor<T, 3> weights;  ///< [T, 1, Hi]
    };
    /// @param x       [T, E]   the block's input
    /// @param latent  [T, Rq]  its normed query latent; unread where queries are made from the input
    [[nodiscard]] token_queries queries(const matrix_input<T>& x, const matrix_input<T>& latent,
                                        const token_places& at) const {
        return {query_heads(m_spec.indexer.from_input ? normed(x) : latent, at),
                heads(x, tensor_role::indexer_weights, 1)};
    }

    /// The keys that the last tokens of a sequence see: all, up to top_k; the best top_k, of those that a token may
    /// see, beyond. Of pools, the best top_k / pool and what lies behind the last whole one.
    /// @param of      has rows [first, first + tokens) for them
    /// @param cached  [S, Di or 2*Di]  `keys` of all the sequence's tokens, these included
    /// @throws error limit_exceeded for more keys than positions of 32 bits
    [[nodiscard]] key_selection select(const token_queries& of, std::size_t first, std::size_t tokens,
                                       const matrix_input<T>& cached) const {
        const indexer_spec& spec = m_spec.indexer;
        const std::size_t first_position = cached.rows() - tokens;
        if (cached.rows() > std::numeric_limits<std::uint32_t>::max())
            fail(errc::limit_exceeded, concat({cached.rows(), " keys, whose positions need more than 32 bits"}),
                 {.subject = "selection"});
        key_selection out;
        out.begins.assign(1, 0);
        for (std::size_t t = 0; t < tokens; ++t) {
            const std::size_t seen = first_position + t + 1;
            const std::size_t pools = std::min(seen / spec.pool, spec.top_k / spec.pool);
            out.begins.push_back(out.begins.back() + pools * spec.pool + seen % spec.pool);
        }
        out.keys.resize(out.begins.back());

        const matrix_input<T> pools = spec.pool > 1 ? matrix_input<T>(pooled(cached)) : cached;
        const std::size_t step = std::clamp<std::size_t>(most_products / (spec.heads * key_block), 1, 64);
        for (std::size_t t = 0; t < tokens; t += step) {
            const std::size_t end = std::min(t + step, tokens), width = (first_position + end) / spec.pool;
            const std::vector<T> scores = score(of, pools, first + t, first + end, width);
            m_threads.run(end - t, [&](std::size_t i) {
                const std::span<std::uint32_t> list(out.keys.data() + out.begins[t + i],
                                                    out.begins[t + i + 1] - out.begins[t + i]);
                const std::size_t seen = first_position + t + i + 1;
                fill_list({scores.data() + i * width, seen / spec.pool}, seen, list);
            });
        }
        return out;
    }

private:
    static constexpr std::size_t key_block = 2048;
    static constexpr std::size_t most_products = std::size_t{1} << 22;  // held at once

    /// x w^T as heads, [T, heads, rows / heads].
    [[nodiscard]] tensor<T, 3> heads(const matrix_input<T>& x, tensor_role role, std::size_t count) const {
        const matrix_input<T>& w = m_w[role];
        auto y = tensor<T, 3>::from_shape({x.rows(), count, w.rows() / count});
        gemm_nt<T>(
            x.source(), w.source(), [&](std::size_t i) { return y.data() + i * w.rows(); }, m_threads);
        return y;
    }

    /// What queries are made from, where that is the input: its norm, [T, E].
    [[nodiscard]] matrix_input<T> normed(const matrix_input<T>& x) const {
        if (!norms_index_input(m_spec)) return x;
        tensor<T, 2> rows = x.to_tensor();
        normalise_rows(rows.data(), rows.shape(0), rows.shape(1), m_spec.indexer.q_norm,
                       m_w.vector(tensor_role::indexer_q_norm), m_w.vector(tensor_role::indexer_q_norm_bias));
        return matrix_input<T>(std::move(rows));
    }

    /// Queries, rotated, [T, Hi, Di].
    [[nodiscard]] tensor<T, 3> query_heads(const matrix_input<T>& from, const token_places& at) const {
        tensor<T, 3> made = heads(from, tensor_role::indexer_q_b, m_spec.indexer.heads);
        rotate(made, at);
        if (m_spec.indexer.per_head)
            apply_head_temperatures(made, m_w.vector(tensor_role::indexer_temperature_scale),
                                    m_w.vector(tensor_role::indexer_temperature_bias), at);
        return made;
    }

    void rotate(tensor<T, 3>& x, const token_places& at) const {
        const bool rope_first = m_spec.indexer.order == head_order::rope_nope;
        apply_rope(x, rope_first ? 0 : x.shape(2) - m_rope.rotary_dim(), m_rope, m_spec.indexer.pairing, at);
    }

    /// The keys of a token: its best pools, and what lies behind the last whole one.
    /// @param scores  of the pools that it sees whole
    void fill_list(std::span<const T> scores, std::size_t seen, std::span<std::uint32_t> list) const {
        const std::size_t pool = m_spec.indexer.pool, tail = seen % pool, chosen = (list.size() - tail) / pool;
        const std::span<std::uint32_t> pools = list.first(chosen);
        select_top_k<T>(scores, pools);
        for (std::size_t i = list.size() - tail; i-- > 0;)  // from the end, as pools are read where keys are written
            list[i] = static_cast<std::uint32_t>(pools[i / pool] * pool + i % pool);
        for (std::size_t i = 0; i < tail; ++i)
            list[list.size() - tail + i] = static_cast<std::uint32_t>(seen - tail + i);
    }

    /// Two rows [T, 1, Di] as one.
    [[nodiscard]] static tensor<T, 3> beside(const tensor<T, 3>& a, const tensor<T, 3>& b) {
        const std::size_t tokens = a.shape(0), size = a.shape(2);
        auto both = tensor<T, 3>::from_shape({tokens, 1, 2 * size});
        for (std::size_t t = 0; t < tokens; ++t) {
            std::copy_n(a.data() + t * size, size, both.data() + 2 * t * size);
            std::copy_n(b.data() + t * size, size, both.data() + (2 * t + 1) * size);
        }
        return both;
    }

    /// The keys of whole pools, [S / pool, Di].
    [[nodiscard]] tensor<T, 2> pooled(const matrix_input<T>& cached) const {
        const std::size_t pool = m_spec.indexer.pool, dim = m_spec.indexer.head_dim, pools = cached.rows() / pool;
        const tensor<T, 2> bias = m_w[tensor_role::indexer_pool_bias].to_tensor();
        auto keys = tensor<T, 2>::from_shape({pools, dim});
        m_threads.run(pools, [&](std::size_t p) {
            std::vector<T> rows(pool * 2 * dim);
            cached.read_rows(p * pool, (p + 1) * pool, rows.data(), 2 * dim);
            for (std::size_t d = 0; d < dim; ++d) {
                const auto logit = [&](std::size_t i) {
                    return rows[(2 * i + 1) * dim + d] + bias.data()[i * dim + d];
                };
                T top = logit(0), sum = 0, mean = 0;
                for (std::size_t i = 1; i < pool; ++i) top = std::max(top, logit(i));
                for (std::size_t i = 0; i < pool; ++i) {
                    const T weight = std::exp(logit(i) - top);
                    sum += weight;
                    mean += weight * rows[2 * i * dim + d];
                }
                keys.data()[p * dim + d] = mean / sum;
            }
        });
        return keys;
    }

    /// Scores by rows [begin, end) of the queries, [tokens, width]. What lies behind a token is scored with the rest,
    /// and not read.
    /// @param keys   [at least width, Di]
    [[nodiscard]] std::vector<T> score(const token_queries& of, const matrix_input<T>& keys, std::size_t begin,
                                       std::size_t end, std::size_t width) const {
        const std::size_t count = end - begin, heads = of.queries.shape(1), dim = of.queries.shape(2);
        std::vector<T> scores(count * width, T(0)), products(count * heads * std::min(key_block, width));
        const dense_rows<T> q{of.queries.data() + begin * heads * dim, count * heads, dim, dim};
        for (std::size_t first = 0; first < width; first += key_block) {
            const std::size_t n = std::min(key_block, width - first);
            const matrix_input<T> part = keys.row_range(first, first + n);
            gemm_nt<T>(
                q.source(), part.source(), [&](std::size_t i) { return products.data() + i * n; }, m_threads);
            constexpr std::size_t piece = 256;
            const std::size_t pieces = ceil_div(n, piece);
            m_threads.run(count * pieces, [&](std::size_t task) {
                const std::size_t t = task / pieces, j = task % pieces * piece;
                add_scores(products.data() + t * heads * n + j, n, of.weights.data() + (begin + t) * heads, heads,
                           {scores.data() + t * width + first + j, std::min(piece, n - j)});
            });
        }
        return scores;
    }

    /// scores[j] += sum over heads of w[h] * max(0, products[h][j]).
    static void add_scores(const T* products, std::size_t stride, const T* w, std::size_t heads, std::span<T> scores) {
        for (std::size_t h = 0; h < heads; ++h)
            for (std::size_t j = 0; j < scores.size(); ++j) {
                const T product = products[h * stride + j];
                scores[j] += w[h] * (product < T(0) ? T(0) : product);  // keeps a NaN
            }
    }

    const attention_spec& m_spec;
    const rope_table& m_rope;
    const attention_weights<T>& m_w;
    executor& m_threads;
};

}  // namespace larql::detail

#endif
