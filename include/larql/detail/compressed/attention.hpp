// SPDX-License-Identifier: Apache-2.0
//
// A block of compressed attention (DeepSeek-V4): one key/value head whose keys are its values. A token sees the keys of
// a window and, beyond it, entries that stand for several tokens each, in one softmax with a sink. As values were
// rotated with the keys, the heads' outputs are rotated back before the output projection.
#ifndef LARQL_DETAIL_COMPRESSED_ATTENTION_HPP
#define LARQL_DETAIL_COMPRESSED_ATTENTION_HPP

#include <larql/attention_cost.hpp>
#include <larql/attention_spec.hpp>
#include <larql/attention_weights.hpp>
#include <larql/detail/compressed/choice.hpp>
#include <larql/detail/compressed/entries.hpp>
#include <larql/detail/compressed/state.hpp>
#include <larql/detail/gemm.hpp>
#include <larql/detail/mla/projections.hpp>
#include <larql/detail/model/roles.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/gqa_attention.hpp>
#include <larql/matrix_input.hpp>
#include <larql/rope.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace larql::detail {

/// One call of a block. E is the type in which keys and entries are held: a cache's, or T.
template <class T, class E>
class compressed_attention {
public:
    /// @param state  what came before, or null
    compressed_attention(const attention_spec& spec, const rope_table& rope, const attention_weights<T>& weights,
                         std::span<const float> sinks, const compressed_state<E>* state, executor& threads)
        : m_spec(spec),
          m_rope(rope),
          m_w(weights),
          m_sinks(sinks),
          m_state(state),
          m_threads(threads),
          m_project(spec, rope, weights, m_buffers, threads),
          m_shape(compressed_cache_shape_of(spec, 0, 0)),
          m_first(state != nullptr ? state->size() : 0) {}

    /// Attends over what came before and these tokens.
    /// @param x  [T, E]
    void forward(const matrix_input<T>& x, attention_result<T>& r) {
        m_tokens = x.rows();
        tensor<T, 2> latent = m_project.linear(x, tensor_role::q_a);
        rms_normalise(latent.data(), m_tokens, latent.shape(1), m_spec.latent_norm, m_w.vector(tensor_role::q_a_norm));
        const matrix_input<T> query_latent(latent);
        r.q = query(query_latent);
        r.k = window_keys(x);
        r.v = r.k;
        hold_keys(r.k);
        std::vector<seen_entries> seen(m_tokens);
        if (has_entries(m_spec)) {
            for (std::size_t which = 0; which < (has_index(m_spec) ? 2 : 1); ++which) extend_entries(x, which);
            see_entries(x, query_latent, seen);
        }
        tensor<T, 3> context = attend(r.q, seen);
        apply_rope(context, rope_begin(m_spec.geometry), reversed(m_rope), m_spec.geometry.pairing, m_first);
        r.context = flatten_tokens(std::move(context));
        m_project.output(r.context, r.out);
    }

    /// What the tokens add to the state; valid as long as this object.
    [[nodiscard]] compressed_rows<T, E> added() const {
        compressed_rows<T, E> rows{.tokens = m_tokens, .entries = made_count()};
        rows.keys = m_keys.data() + held_keys() * m_shape.head_dim;
        for (std::size_t i = 0; i < 2; ++i) {
            if (m_rows[i].empty()) continue;
            rows.made_of[i] = m_rows[i].data() + (m_first - first_row()) * m_shape.row_size(entry_size(i));
            rows.made[i] = m_made[i].data();
        }
        return rows;
    }

private:
    static rope_table reversed(rope_table table) {
        for (double& frequency : table.frequencies) frequency = -frequency;
        return table;
    }
    [[nodiscard]] std::size_t entry_size(std::size_t which) const noexcept {
        return which == 0 ? m_shape.head_dim : m_shape.index_head_dim;
    }
    [[nodiscard]] std::size_t first_key() const noexcept { return m_shape.first_key(m_first); }
    [[nodiscard]] std::size_t first_row() const noexcept { return m_shape.first_row(m_first); }
    [[nodiscard]] std::size_t held_keys() const noexcept { return m_first - first_key(); }
    [[nodiscard]] std::size_t held_count() const noexcept { return m_shape.entries_of(m_first); }
    [[nodiscard]] std::size_t made_count() const noexcept {
        return m_shape.entries_of(m_first + m_tokens) - held_count();
    }
    [[nodiscard]] entry_list<E> entries(std::size_t which) const noexcept {
        return {m_state != nullptr ? m_state->entry(which, 0) : nullptr, held_count(), m_made[which].data(),
                entry_size(which)};
    }

    /// Rows of heads as a tensor whose memory stays where it is.
    static tensor<T, 3> in_heads(tensor<T, 2>&& flat, std::size_t heads) {
        const std::size_t rows = flat.shape(0), dim = flat.shape(1) / heads;
        auto x = tensor<T, 3>::from_shape({0, 0, 0});
        x.storage() = std::move(flat.storage());
        x.resize({rows, heads, dim}, true);
        return x;
    }

    [[nodiscard]] tensor<T, 3> query(const matrix_input<T>& latent) const {
        const mla_geometry& g = m_spec.geometry;
        tensor<T, 3> q = in_heads(m_project.linear(latent, tensor_role::q_b), g.num_heads);
        if (m_spec.q_norm.kind != norm_kind::none)
            rms_normalise(q.data(), m_tokens * g.num_heads, g.qk_head_dim(), m_spec.q_norm,
                          m_w.vector(tensor_role::q_norm));
        apply_rope(q, rope_begin(g), m_rope, g.pairing, m_first);
        return q;
    }

    [[nodiscard]] tensor<T, 3> window_keys(const matrix_input<T>& x) const {
        const mla_geometry& g = m_spec.geometry;
        tensor<T, 3> k = in_heads(m_project.linear(x, tensor_role::k), 1);
        if (m_spec.k_norm.kind != norm_kind::none)
            rms_normalise(k.data(), m_tokens, g.qk_head_dim(), m_spec.k_norm, m_w.vector(tensor_role::k_norm));
        apply_rope(k, rope_begin(g), m_rope, g.pairing, m_first);
        return k;
    }

    /// The keys that these tokens' windows reach, as they are held: [held_keys() + T, D].
    void hold_keys(const tensor<T, 3>& k) {
        m_keys.resize((held_keys() + m_tokens) * m_shape.head_dim);
        if (m_state != nullptr) m_state->read_keys(first_key(), m_keys.data());
        std::transform(k.begin(), k.end(), m_keys.data() + held_keys() * m_shape.head_dim, as_stored<E, T>);
    }

    /// Makes the entries (`which` 0), or the indexer's keys (1), that these tokens complete.
    void extend_entries(const matrix_input<T>& x, std::size_t which) {
        using enum tensor_role;
        const bool index = which == 1;
        const std::size_t half = m_shape.row_size(entry_size(which)) / 2, width = 2 * half;
        const tensor<T, 2> summed = m_project.linear(x, index ? indexer_compressor_kv : compressor_kv),
                           gates = m_project.linear(x, index ? indexer_compressor_gate : compressor_gate);
        // What is added repeats after `ratio` tokens; a decoding step reads the one row that it needs.
        const auto& source = m_w[index ? indexer_compressor_position : compressor_position];
        const std::size_t period = std::min(m_tokens, m_shape.ratio);
        std::vector<T> position(period * half);
        for (std::size_t t = 0; t < period; ++t) {
            const std::size_t slot = (m_first + t) % m_shape.ratio;
            source.source().read_rows(slot, slot + 1, position.data() + t * half, half);
        }
        std::vector<T>& rows = m_rows[which];
        rows.resize((m_first + m_tokens - first_row()) * width);
        if (m_state != nullptr) m_state->read_rows(which, first_row(), rows.data());
        T* to = rows.data() + (m_first - first_row()) * width;
        for (std::size_t t = 0; t < m_tokens; ++t, to += width) {
            const T* added = position.data() + t % period * half;
            std::copy_n(summed.data() + t * half, half, to);
            for (std::size_t i = 0; i < half; ++i) to[half + i] = gates.data()[t * half + i] + added[i];
        }
        const tensor<T, 3> made = make_entries(
            entry_rows<T>{rows.data(), first_row(), entry_size(which), m_shape.overlapping}, held_count(),
            held_count() + made_count(), m_shape.ratio, m_spec.compression.norm,
            m_w.vector(index ? indexer_compressor_norm : compressor_norm), m_rope, m_spec.geometry.pairing, m_threads);
        m_made[which].resize(made.size());
        std::transform(made.begin(), made.end(), m_made[which].begin(), as_stored<E, T>);
    }

    /// Which entries each token sees: those whose tokens are all at or before it, or the indexer's choice of them.
    void see_entries(const matrix_input<T>& x, const matrix_input<T>& latent, std::vector<seen_entries>& seen) const {
        for (std::size_t t = 0; t < m_tokens; ++t) seen[t].count = m_shape.entries_of(m_first + t + 1);
        const compression_spec& c = m_spec.compression;
        if (!has_index(m_spec) || seen.empty() || seen.back().count <= c.index_top_k) return;
        tensor<T, 3> queries = in_heads(m_project.linear(latent, tensor_role::indexer_q_b), c.index_heads);
        apply_rope(queries, c.index_head_dim - m_rope.rotary_dim(), m_rope, m_spec.geometry.pairing, m_first);
        const tensor<T, 2> weights = m_project.linear(x, tensor_role::indexer_weights);
        const index_query<T> query{queries.data(), weights.data()};
        const entry_list<E> keys = entries(1);
        entry_chooser<T, E>(c, query, keys, m_threads).choose(seen);
    }

    /// What a thread works with.
    struct token_scratch {
        std::vector<E> keys;
        attention_scratch memory;
    };

    [[nodiscard]] tensor<T, 3> attend(const tensor<T, 3>& q, const std::vector<seen_entries>& seen) const {
        const std::size_t dim = m_shape.head_dim, first = first_key(), held = held_keys() + m_tokens;
        if (!has_entries(m_spec)) {
            const auto keys = rows_of(m_keys.data(), held, 1);
            return gqa_attention_asym(q, keys, keys,
                                      {.scale = m_spec.scale,
                                       .first_position = m_first - first,
                                       .sliding_window = m_spec.sliding_window,
                                       .sinks = m_sinks,
                                       .threads = &m_threads});
        }
        auto context = tensor<T, 3>::from_shape({m_tokens, m_spec.geometry.num_heads, dim});
        scratch_pool<token_scratch> pool;
        const auto one = [&](std::size_t t, executor& threads) {
            pool.with([] { return token_scratch{}; },
                      [&](token_scratch& scratch) { attend_token(q, t, seen[t], scratch, threads, context); });
        };
        if (m_tokens >= m_threads.concurrency()) {
            m_threads.run(m_tokens, [&](std::size_t t) {
                serial_executor here;
                one(t, here);
            });
        } else {  // too few tokens for all threads, which share the heads of each
            for (std::size_t t = 0; t < m_tokens; ++t) one(t, m_threads);
        }
        return context;
    }

    /// One token: the keys of its window and its entries side by side, which makes it plain attention.
    void attend_token(const tensor<T, 3>& q, std::size_t token, const seen_entries& seen, token_scratch& scratch,
                      executor& threads, tensor<T, 3>& context) const {
        const std::size_t dim = m_shape.head_dim, heads = m_spec.geometry.num_heads, position = m_first + token;
        const std::size_t begin = m_shape.first_key(position), window = position + 1 - begin;
        const std::size_t chosen = seen.chosen.empty() ? seen.count : seen.chosen.size();
        scratch.keys.resize((window + chosen) * dim);
        E* to = std::copy_n(m_keys.data() + (begin - first_key()) * dim, window * dim, scratch.keys.data());
        const entry_list<E> list = entries(0);
        for (std::size_t i = 0; i < chosen; ++i)
            to = std::copy_n(list.row(seen.chosen.empty() ? i : seen.chosen[i]), dim, to);
        const auto keys = rows_of(scratch.keys.data(), window + chosen, 1);
        const auto query = rows_of(q.data() + token * heads * dim, 1, heads);
        T* out = context.data() + token * heads * dim;
        gqa_attention_into(query, keys, keys,
                           xt::adapt(out, heads * dim, xt::no_ownership(), std::array<std::size_t, 3>{1, heads, dim}),
                           {.scale = m_spec.scale, .causal = false, .sinks = m_sinks, .threads = &threads},
                           scratch.memory);
    }

    template <class X>
    [[nodiscard]] auto rows_of(const X* data, std::size_t tokens, std::size_t heads) const {
        const std::array<std::size_t, 3> shape{tokens, heads, m_shape.head_dim};
        return xt::adapt(data, tokens * heads * m_shape.head_dim, xt::no_ownership(), shape);
    }

    const attention_spec& m_spec;
    const rope_table& m_rope;
    const attention_weights<T>& m_w;
    std::span<const float> m_sinks;
    const compressed_state<E>* m_state;
    executor& m_threads;
    projection_buffers<T> m_buffers;
    block_projection<T> m_project;
    compressed_cache_shape m_shape;
    std::size_t m_first, m_tokens = 0;
    std::vector<E> m_keys;       // from first_key() on
    std::vector<T> m_rows[2]{};  // from first_row() on; of entries and of the indexer's keys, as is what follows
    std::vector<E> m_made[2]{};  // from held_count() on
};

}  // namespace larql::detail

#endif
