// SPDX-License-Identifier: Apache-2.0
//
// The sparse indexer of one block: its keys, and the keys that it selects for each token.
#ifndef LARQL_DETAIL_INDEXER_SELECTOR_HPP
#define LARQL_DETAIL_INDEXER_SELECTOR_HPP

#include <larql/attention_spec.hpp>
#include <larql/attention_weights.hpp>
#include <larql/detail/ceil_div.hpp>
#include <larql/detail/gemm.hpp>
#include <larql/detail/indexer/top_k.hpp>
#include <larql/detail/mla/norm.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/executor.hpp>
#include <larql/key_selection.hpp>
#include <larql/matrix_input.hpp>
#include <larql/rope.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace larql::detail {

/// A view [S, 1, Di] of a cache as a matrix of another type, which reads the cache.
template <class T, class View>
matrix_input<T> rows_of_cached(const View& keys) {
    const std::size_t rows = keys.shape()[0], width = keys.shape()[2];
    return matrix_input<T>(rows, width,
                           [data = keys.data(), width](std::size_t begin, std::size_t end, T* out, std::size_t stride) {
                               for (std::size_t r = begin; r < end; ++r, out += stride)
                                   for (std::size_t i = 0; i < width; ++i) out[i] = static_cast<T>(data[r * width + i]);
                           });
}

/// The indexer of one block on one executor. T new tokens, S keys, Hi heads, Di elements.
template <class T>
class block_indexer {
public:
    block_indexer(const attention_spec& spec, const rope_table& rope, const attention_weights<T>& weights,
                  executor& threads)
        : m_spec(spec), m_rope(rope), m_w(weights), m_threads(threads) {}

    /// Keys of new tokens, normed and rotated.
    /// @param x  [T, E]  the block's input
    /// @return   [T, 1, Di]
    [[nodiscard]] tensor<T, 3> keys(const matrix_input<T>& x, std::size_t first_position) const {
        tensor<T, 3> made = heads(x, tensor_role::indexer_k, 1);
        normalise_rows(made.data(), made.shape(0), made.shape(2), m_spec.indexer.k_norm,
                       m_w.vector(tensor_role::indexer_k_norm), m_w.vector(tensor_role::indexer_k_norm_bias));
        rotate(made, first_position);
        return made;
    }

    /// The keys that new tokens see: all, up to top_k; the best top_k, of those that a token may see, beyond.
    /// @param x       [T, E]   the block's input
    /// @param latent  [T, Rq]  its normed query latent
    /// @param keys    [S, Di]  of all tokens, the new ones included
    [[nodiscard]] key_selection select(const matrix_input<T>& x, const matrix_input<T>& latent,
                                       const matrix_input<T>& keys) const {
        const std::size_t tokens = x.rows(), first_position = keys.rows() - tokens;
        key_selection out;
        out.begins.assign(1, 0);
        for (std::size_t t = 0; t < tokens; ++t)
            out.begins.push_back(out.begins.back() + std::min(first_position + t + 1, m_spec.indexer.top_k));
        out.keys.resize(out.begins.back());

        tensor<T, 3> queries = heads(latent, tensor_role::indexer_q_b, m_spec.indexer.heads);
        rotate(queries, first_position);
        const tensor<T, 3> weights = heads(x, tensor_role::indexer_weights, 1);
        const std::size_t step = std::clamp<std::size_t>(most_products / (m_spec.indexer.heads * key_block), 1, 64);
        for (std::size_t t = 0; t < tokens; t += step) {
            const token_range block{t, std::min(t + step, tokens), first_position};
            const std::vector<T> scores = score(queries, weights, keys, block);
            const std::size_t width = first_position + block.end;
            m_threads.run(block.end - block.begin, [&](std::size_t i) {
                const std::size_t token = block.begin + i;
                const std::span<std::uint32_t> list(out.keys.data() + out.begins[token],
                                                    out.begins[token + 1] - out.begins[token]);
                select_top_k<T>({scores.data() + i * width, first_position + token + 1}, list);
            });
        }
        return out;
    }

private:
    static constexpr std::size_t key_block = 2048;
    static constexpr std::size_t most_products = std::size_t{1} << 22;  // held at once

    struct token_range {
        std::size_t begin, end, first_position;
    };

    /// x w^T as heads, [T, heads, rows / heads].
    [[nodiscard]] tensor<T, 3> heads(const matrix_input<T>& x, tensor_role role, std::size_t count) const {
        const matrix_input<T>& w = m_w[role];
        auto y = tensor<T, 3>::from_shape({x.rows(), count, w.rows() / count});
        gemm_nt<T>(
            x.source(), w.source(), [&](std::size_t i) { return y.data() + i * w.rows(); }, m_threads);
        return y;
    }

    void rotate(tensor<T, 3>& x, std::size_t first_position) const {
        const bool rope_first = m_spec.indexer.order == head_order::rope_nope;
        apply_rope(x, rope_first ? 0 : x.shape(2) - m_rope.rotary_dim(), m_rope, m_spec.indexer.pairing,
                   first_position);
    }

    /// Scores of some tokens, [tokens of the block, keys up to the last of them]. What lies behind a token is scored
    /// with the rest, and not read.
    [[nodiscard]] std::vector<T> score(const tensor<T, 3>& queries, const tensor<T, 3>& weights,
                                       const matrix_input<T>& keys, const token_range& block) const {
        const std::size_t count = block.end - block.begin, width = block.first_position + block.end;
        const std::size_t heads = queries.shape(1), dim = queries.shape(2);
        std::vector<T> scores(count * width, T(0)), products(count * heads * std::min(key_block, width));
        const dense_rows<T> q{queries.data() + block.begin * heads * dim, count * heads, dim, dim};
        for (std::size_t first = 0; first < width; first += key_block) {
            const std::size_t n = std::min(key_block, width - first);
            const matrix_input<T> part = keys.row_range(first, first + n);
            gemm_nt<T>(
                q.source(), part.source(), [&](std::size_t i) { return products.data() + i * n; }, m_threads);
            constexpr std::size_t piece = 256;
            const std::size_t pieces = ceil_div(n, piece);
            m_threads.run(count * pieces, [&](std::size_t task) {
                const std::size_t t = task / pieces, j = task % pieces * piece;
                add_scores(products.data() + t * heads * n + j, n, weights.data() + (block.begin + t) * heads, heads,
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
