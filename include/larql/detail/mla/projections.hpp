// SPDX-License-Identifier: Apache-2.0
//
// The projections of an attention block: hidden states to queries, keys and values in each form, and context to output.
#ifndef LARQL_DETAIL_MLA_PROJECTIONS_HPP
#define LARQL_DETAIL_MLA_PROJECTIONS_HPP

#include <larql/attention_form.hpp>
#include <larql/attention_spec.hpp>
#include <larql/attention_weights.hpp>
#include <larql/detail/gemm.hpp>
#include <larql/detail/mla/gate.hpp>
#include <larql/detail/mla/norm.hpp>
#include <larql/detail/mla/projection_buffers.hpp>
#include <larql/detail/mla/rows.hpp>
#include <larql/detail/mla/temperature.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/executor.hpp>
#include <larql/matrix_input.hpp>
#include <larql/mla_geometry.hpp>
#include <larql/rope.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

namespace larql {

template <class T>
struct attention_result;

namespace detail {

/// The projections of one block on one executor.
template <class T>
class block_projection {
public:
    block_projection(const attention_spec& spec, const rope_table& rope, const attention_weights<T>& weights,
                     projection_buffers<T>& buffers, executor& threads)
        : m_spec(spec),
          m_g(spec.geometry),
          m_form(spec.form),
          m_rope(rope),
          m_w(weights),
          m_buffers(buffers),
          m_threads(threads) {}

    /// q, k and v of the new tokens, rotated.
    /// @param query_latent  gets the normed query latent [T, Rq], times its gains, which an indexer reads; null: unread
    void query_key_value(const matrix_input<T>& x, const token_places& at, attention_result<T>& r,
                         tensor<T, 2>* query_latent = nullptr) const {
        tensor<T, 3>& q = m_form == attention_form::latent ? m_buffers.query : r.q;
        query(x, query_latent, q);
        if (m_spec.kind == attention_kind::gqa) {
            plain_query_key_value(x, at, r);
            return;
        }
        if (m_form == attention_form::dense) {
            dense_key_value(x, r);
        } else {
            factored_key_value(x, r);
        }
        apply_rope(q, rope_begin(m_g), m_rope, m_g.pairing, at);
        set_temperature(q, at);
        if (m_form == attention_form::latent) to_latent(q, r.q);
        if (caches_latents(m_spec)) {
            apply_rope(r.k, m_g.kv_lora_rank, m_rope, m_g.pairing, at);
            leading_columns(r.k, m_g.kv_lora_rank, r.v);
        } else if (m_form == attention_form::factored) {
            spread_rotated(r.k, at);
        } else {
            apply_rope(r.k, rope_begin(m_g), m_rope, m_g.pairing, at);
        }
    }

    /// Each head's weighted latent [T, H, R] to its output, in context [T, H*V]: the head's rows of v_b times it.
    void from_latent(const tensor<T, 3>& weighted, tensor<T, 2>& context) const {
        const std::size_t heads = m_g.num_heads, rank = m_g.kv_lora_rank, value = m_g.v_head_dim;
        fit(context, weighted.shape(0), heads * value);
        const bool whole = m_spec.latent_from == latent_factors::kv_b;  // its rows behind the keys' are v_b
        multiply_heads<T>({.weight = m_w[whole ? tensor_role::kv_b : tensor_role::v_b].source(),
                           .rows = value,
                           .tokens = weighted.shape(0),
                           .x = weighted.data(),
                           .x_token = heads * rank,
                           .out = context.data(),
                           .out_token = heads * value,
                           .heads = heads,
                           .group = heads / m_g.kv_heads(),
                           .head_rows = whole ? m_g.qk_nope_head_dim + value : value,
                           .first_row = whole ? m_g.qk_nope_head_dim : 0,
                           .x_head = rank,
                           .out_head = value},
                          m_threads);
    }

    /// Makes anew what query_key_value keeps of these tokens for the gate: where it was another call that made it.
    void remake_gate_input(const matrix_input<T>& x) const {
        if (m_spec.gate != output_gate::none && m_spec.raw_query_latent) keep_both_latents(linear(x, tensor_role::q_a));
    }

    /// Multiplies the heads' outputs [T, H*V] by the block's gate, if it has one.
    /// @param x  the block's input, which the gate reads, unless it reads both query latents
    void apply_gate(const matrix_input<T>& x, tensor<T, 2>& context) const {
        if (m_spec.gate == output_gate::none) return;
        tensor<T, 2>& gate = m_buffers.gate;
        linear(m_spec.raw_query_latent ? matrix_input<T>(m_buffers.both_latents) : x, tensor_role::gate, gate);
        multiply_by_gate(gate, m_spec.gated_by, context);
    }

    /// Context [T, H*V] to the block's output [T, E]: by o, or by o_b after o_a, whose groups of rows each multiply
    /// their part of the context.
    void output(const tensor<T, 2>& context, tensor<T, 2>& out) const {
        if (!grouped_output(m_spec)) return linear(context, tensor_role::o, out);
        const std::size_t groups = m_spec.output_groups, rank = m_spec.output_rank, cols = context.shape(1);
        tensor<T, 2>& parts = m_buffers.output_parts;
        fit(parts, context.shape(0), groups * rank);
        multiply_heads<T>({.weight = m_w[tensor_role::o_a].source(),
                           .rows = rank,
                           .tokens = context.shape(0),
                           .x = context.data(),
                           .x_token = cols,
                           .out = parts.data(),
                           .out_token = groups * rank,
                           .heads = groups,
                           .head_rows = rank,
                           .x_head = cols / groups,
                           .out_head = rank},
                          m_threads);
        linear(parts, tensor_role::o_b, out);
    }

    /// x w^T + bias.
    void linear(const matrix_input<T>& x, tensor_role role, tensor<T, 2>& y) const {
        fit(y, x.rows(), m_w[role].rows());
        linear(x.source(), role, y.data());
    }
    [[nodiscard]] tensor<T, 2> linear(const matrix_input<T>& x, tensor_role role) const {
        auto y = tensor<T, 2>::from_shape({0, 0});
        linear(x, role, y);
        return y;
    }

private:
    /// x w^T + bias into y [T, rows of w].
    void linear(const matrix_source<T>& x, tensor_role role, T* y) const {
        const matrix_input<T>& w = m_w[role];
        const vector_input<T>& bias = m_w.bias(role);
        const std::size_t cols = w.rows();
        gemm_nt<T>(
            x, w.source(), [&](std::size_t i) { return y + i * cols; }, m_threads);
        if (!bias.empty())
            for (std::size_t t = 0; t < x.rows; ++t)
                for (std::size_t i = 0; i < cols; ++i) y[t * cols + i] += bias.data()[i];
    }
    /// The same as heads, [T, heads, rows of w / heads].
    void linear(const matrix_source<T>& x, tensor_role role, std::size_t heads, tensor<T, 3>& y) const {
        fit(y, x.rows, heads, m_w[role].rows() / heads);
        linear(x, role, y.data());
    }

    /// The gains of a latent's norm, or none where they are multiplied into what follows.
    [[nodiscard]] const vector_input<T>& gains(tensor_role norm) const noexcept {
        static const vector_input<T> none;
        const bool folded = m_form == attention_form::latent && m_spec.latent_from == latent_factors::folded;
        return folded ? none : m_w.vector(norm);
    }

    /// scale / sqrt(mean(row^2) + eps) of the first `width` elements of a row; `scale` for a model without norms.
    [[nodiscard]] T norm_factor(const T* row, std::size_t width, double scale) const {
        if (m_spec.latent_norm.kind == norm_kind::none) return static_cast<T>(scale);
        double sum = 0.0;
        for (std::size_t i = 0; i < width; ++i) sum += static_cast<double>(row[i]) * static_cast<double>(row[i]);
        return static_cast<T>(scale / std::sqrt(sum / static_cast<double>(width) + m_spec.latent_norm.eps));
    }
    [[nodiscard]] std::vector<T> norm_factors(const tensor<T, 2>& x, std::size_t width, double scale) const {
        std::vector<T> factors(x.shape(0));
        for (std::size_t t = 0; t < x.shape(0); ++t) factors[t] = norm_factor(x.data() + t * x.shape(1), width, scale);
        return factors;
    }

    /// RMSNorm of the first `width` elements of every row, times `scale`, in place; without gains, the division alone.
    void normalise(tensor<T, 2>& x, std::size_t width, double scale, const vector_input<T>& gains) const {
        for (std::size_t t = 0; t < x.shape(0); ++t) {
            T* row = x.data() + t * x.shape(1);
            const T factor = norm_factor(row, width, scale);
            for (std::size_t i = 0; i < width; ++i) row[i] *= gains.empty() ? factor : factor * gains.data()[i];
        }
    }

    void query(const matrix_input<T>& x, tensor<T, 2>* latent, tensor<T, 3>& q) const {
        const std::size_t heads = m_g.num_heads;
        if (!query_latent(m_spec)) return linear(x.source(), tensor_role::q, heads, q);
        tensor<T, 2>& a = m_buffers.query_latent;
        linear(x, tensor_role::q_a, a);
        if (latent != nullptr) {
            *latent = a;
            normalise(*latent, m_g.q_lora_rank, m_spec.q_latent_scale, m_w.vector(tensor_role::q_a_norm));
        }
        if (m_spec.raw_query_latent) {
            linear(a, tensor_role::q_b_raw, m_buffers.raw_query);
            keep_both_latents(a);
        }
        if (m_form == attention_form::dense) {
            const std::vector<T> factors = norm_factors(a, m_g.q_lora_rank, m_spec.q_latent_scale);
            linear(x.source(), tensor_role::q, heads, q);
            const std::size_t width = q.shape(1) * q.shape(2);
            for (std::size_t t = 0; t < q.shape(0); ++t)
                for (std::size_t i = 0; i < width; ++i) q.data()[t * width + i] *= factors[t];
        } else {
            normalise(a, m_g.q_lora_rank, m_spec.q_latent_scale, gains(tensor_role::q_a_norm));
            const dense_rows<T> rows{a.data(), a.shape(0), a.shape(1), a.shape(1)};
            linear(rows.source(), tensor_role::q_b, heads, q);
        }
        if (!m_spec.raw_query_latent) return;
        for (std::size_t i = 0; i < q.size(); ++i) q.data()[i] += m_buffers.raw_query.data()[i];
    }

    /// [the normed latent times its gains, the latent], for each token: what a gate reads.
    void keep_both_latents(const tensor<T, 2>& a) const {
        const std::size_t tokens = a.shape(0), rank = a.shape(1);
        tensor<T, 2> normed = a;
        normalise(normed, rank, m_spec.q_latent_scale, m_w.vector(tensor_role::q_a_norm));
        fit(m_buffers.both_latents, tokens, 2 * rank);
        for (std::size_t t = 0; t < tokens; ++t) {
            T* const row = m_buffers.both_latents.data() + t * 2 * rank;
            std::copy_n(normed.data() + t * rank, rank, row);
            std::copy_n(a.data() + t * rank, rank, row + rank);
        }
    }

    /// Plain attention: norms of the heads before or after rotation.
    void plain_query_key_value(const matrix_input<T>& x, const token_places& at, attention_result<T>& r) const {
        if (!m_spec.kv_layer) linear(x.source(), tensor_role::k, m_g.kv_heads(), r.k);
        if (m_spec.kv_layer) fit(r.k, std::size_t{0}, m_g.kv_heads(), m_g.qk_head_dim());
        if (m_spec.value_is_key)
            r.v = r.k;
        else if (m_spec.kv_layer)
            fit(r.v, std::size_t{0}, m_g.kv_heads(), m_g.v_head_dim);
        else
            linear(x.source(), tensor_role::v, m_g.kv_heads(), r.v);
        const auto rotate = [&](tensor<T, 3>& heads, const norm_spec& norm, tensor_role role) {
            if (!norm.after_rope) normalise_heads(heads, norm, m_w.vector(role), m_w.bias(role));
            clip(heads);
            apply_rope(heads, rope_begin(m_g), m_rope, m_g.pairing, at);
            if (norm.after_rope) normalise_heads(heads, norm, m_w.vector(role), m_w.bias(role));
        };
        rotate(r.q, m_spec.q_norm, tensor_role::q_norm);
        rotate(r.k, m_spec.k_norm, tensor_role::k_norm);
        normalise_heads(r.v, m_spec.v_norm, {}, {});
        clip(r.v);
        if (m_spec.value_scale != 1.0)
            for (std::size_t i = 0; i < r.v.size(); ++i) r.v.data()[i] *= static_cast<T>(m_spec.value_scale);
        set_temperature(r.q, at);
    }

    void clip(tensor<T, 3>& x) const {
        if (m_spec.clip == 0.0) return;
        const T limit = static_cast<T>(m_spec.clip);
        for (std::size_t i = 0; i < x.size(); ++i)  // as torch's clamp, NaN stays
            x.data()[i] = x.data()[i] > limit ? limit : x.data()[i] < -limit ? -limit : x.data()[i];
    }

    /// A norm over each head, or over all heads of a token, in place.
    static void normalise_heads(tensor<T, 3>& x, const norm_spec& norm, const vector_input<T>& gains,
                                const vector_input<T>& bias) {
        const std::size_t width = norm.per_head ? x.shape(2) : x.shape(1) * x.shape(2);
        normalise_rows(x.data(), x.size() / width, width, norm, gains, bias);
    }

    /// Multiplies the queries of a token by the factor of its position.
    void set_temperature(tensor<T, 3>& q, const token_places& at) const {
        apply_temperature(q, m_spec.temperature, m_w.vector(tensor_role::temperature_scale),
                          m_w.vector(tensor_role::temperature_bias), at);
    }

    /// Dense: the scalar of a token multiplies its values and the unrotated part of its keys, not the rotated part.
    void dense_key_value(const matrix_input<T>& x, attention_result<T>& r) const {
        const std::vector<T> factors =
            norm_factors(linear(x, tensor_role::kv_a_latent), m_g.kv_lora_rank, m_spec.kv_latent_scale);
        linear(x.source(), tensor_role::k, m_g.kv_heads(), r.k);
        linear(x.source(), tensor_role::v, m_g.kv_heads(), r.v);
        const std::size_t nope_begin = m_g.order == head_order::rope_nope ? m_g.qk_rope_head_dim : 0;
        const std::size_t dim = m_g.qk_head_dim(), value = m_g.v_head_dim, heads = m_g.kv_heads();
        for (std::size_t t = 0; t < factors.size(); ++t)
            for (std::size_t h = 0; h < heads; ++h) {
                T* key = r.k.data() + (t * heads + h) * dim + nope_begin;
                for (std::size_t i = 0; i < m_g.qk_nope_head_dim; ++i) key[i] *= factors[t];
                T* val = r.v.data() + (t * heads + h) * value;
                for (std::size_t i = 0; i < value; ++i) val[i] *= factors[t];
            }
        normalise_rotated(r.k.data() + rope_begin(m_g), factors.size() * heads, dim);
    }

    /// The norm of the part of every key that will be rotated, in place: `rows` of them, `stride` apart.
    void normalise_rotated(T* first, std::size_t rows, std::size_t stride) const {
        if (m_spec.k_rope_norm.kind == norm_kind::none) return;
        for (std::size_t row = 0; row < rows; ++row)
            normalise_rows(first + row * stride, 1, m_g.qk_rope_head_dim, m_spec.k_rope_norm,
                           m_w.vector(tensor_role::k_rope_norm));
    }

    /// Factored: the normed latent goes through kv_b; the shared rotated part is put into every head afterwards.
    /// Where latents are cached: the normed latent and the shared part are the key; none if they are another block's.
    void factored_key_value(const matrix_input<T>& x, attention_result<T>& r) const {
        const std::size_t rank = m_g.kv_lora_rank, rope = m_g.qk_rope_head_dim, nope = m_g.qk_nope_head_dim;
        const std::size_t value = m_g.v_head_dim, heads = m_g.kv_heads(), tokens = x.rows();
        if (m_spec.kv_layer) return fit(r.k, std::size_t{0}, std::size_t{1}, rank + rope);
        tensor<T, 2>& latent = m_buffers.key_latent;
        linear(x, tensor_role::kv_a, latent);
        normalise(latent, rank, m_spec.kv_latent_scale, gains(tensor_role::kv_a_norm));
        normalise_rotated(latent.data() + rank, tokens, rank + rope);
        if (caches_latents(m_spec)) {
            fit(r.k, tokens, std::size_t{1}, rank + rope);
            std::copy_n(latent.data(), latent.size(), r.k.data());
            return;
        }
        const dense_rows<T> normed{latent.data(), tokens, rank, rank + rope};
        tensor<T, 2>& kv = m_buffers.key_value;
        fit(kv, tokens, heads * (nope + value));
        linear(normed.source(), tensor_role::kv_b, kv.data());
        fit(r.k, tokens, heads, nope + rope);
        fit(r.v, tokens, heads, value);
        const std::size_t nope_begin = m_g.order == head_order::rope_nope ? rope : 0;
        const std::size_t rotated = rope_begin(m_g);
        for (std::size_t t = 0; t < tokens; ++t)
            for (std::size_t h = 0; h < heads; ++h) {
                const T* source = kv.data() + (t * heads + h) * (nope + value);
                T* key = r.k.data() + (t * heads + h) * (nope + rope);
                std::copy_n(source, nope, key + nope_begin);
                std::copy_n(latent.data() + t * (rank + rope) + rank, rope, key + rotated);
                std::copy_n(source + nope, value, r.v.data() + (t * heads + h) * value);
            }
    }

    /// Rotates the key part that all heads share once, in the first head, and copies it to the others.
    void spread_rotated(tensor<T, 3>& k, const token_places& at) const {
        const std::size_t tokens = k.shape(0), heads = k.shape(1), dim = k.shape(2), rope = m_g.qk_rope_head_dim;
        const std::size_t rotated = rope_begin(m_g);
        for (std::size_t t = 0; t < tokens; ++t) {
            T* const shared = k.data() + t * heads * dim + rotated;
            apply_rope(shared, 1, dim, at.table(t, m_rope), m_g.pairing, at[t]);
            for (std::size_t h = 1; h < heads; ++h) std::copy_n(shared, rope, shared + h * dim);
        }
    }

    /// The query of each head carried into the latent: [k_b q_nope | q_rope], [T, H, R + P].
    void to_latent(const tensor<T, 3>& q, tensor<T, 3>& out) const {
        const std::size_t tokens = q.shape(0), heads = m_g.num_heads, dim = q.shape(2);
        const std::size_t rank = m_g.kv_lora_rank, rope = m_g.qk_rope_head_dim, rotated = rope_begin(m_g);
        fit(out, tokens, heads, rank + rope);
        const bool whole = m_spec.latent_from == latent_factors::kv_b;  // its rows before the values' are k_b^T
        multiply_heads<T>({.weight = m_w[whole ? tensor_role::kv_b : tensor_role::k_b].source(),
                           .rows = whole ? m_g.qk_nope_head_dim : rank,
                           .tokens = tokens,
                           .x = q.data() + (m_g.order == head_order::rope_nope ? rope : 0),
                           .x_token = heads * dim,
                           .out = out.data(),
                           .out_token = heads * (rank + rope),
                           .heads = heads,
                           .group = heads / m_g.kv_heads(),
                           .head_rows = whole ? m_g.qk_nope_head_dim + m_g.v_head_dim : rank,
                           .x_head = dim,
                           .out_head = rank + rope,
                           .role = whole ? row_role::depth : row_role::column},
                          m_threads);
        for (std::size_t i = 0; i < tokens * heads; ++i)
            std::copy_n(q.data() + i * dim + rotated, rope, out.data() + i * (rank + rope) + rank);
    }

    static void leading_columns(const tensor<T, 3>& x, std::size_t columns, tensor<T, 3>& out) {
        fit(out, x.shape(0), x.shape(1), columns);
        for (std::size_t i = 0; i < x.shape(0) * x.shape(1); ++i)
            std::copy_n(x.data() + i * x.shape(2), columns, out.data() + i * columns);
    }

    const attention_spec& m_spec;
    const mla_geometry& m_g;
    attention_form m_form;
    const rope_table& m_rope;
    const attention_weights<T>& m_w;
    projection_buffers<T>& m_buffers;
    executor& m_threads;
};

}  // namespace detail
}  // namespace larql

#endif
