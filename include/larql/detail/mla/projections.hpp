// SPDX-License-Identifier: Apache-2.0
//
// The projections of an attention block: hidden states to queries, keys and values in each form, and context to output.
#ifndef LARQL_DETAIL_MLA_PROJECTIONS_HPP
#define LARQL_DETAIL_MLA_PROJECTIONS_HPP

#include <larql/attention_form.hpp>
#include <larql/attention_spec.hpp>
#include <larql/attention_weights.hpp>
#include <larql/detail/gemm.hpp>
#include <larql/detail/mla/norm.hpp>
#include <larql/detail/mla/rows.hpp>
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
                     executor& threads)
        : m_spec(spec), m_g(spec.geometry), m_form(spec.form), m_rope(rope), m_w(weights), m_threads(threads) {}

    /// q, k and v of the new tokens, rotated.
    /// @param query_latent  gets the normed query latent [T, Rq], times its gains, which an indexer reads; null: unread
    /// @param latents       gets [T, 2*Rq], the same and the latent before its norm, where queries and a gate read both
    void query_key_value(const matrix_input<T>& x, std::size_t first_position, attention_result<T>& r,
                         tensor<T, 2>* query_latent, tensor<T, 2>& latents) const {
        r.q = query(x, query_latent, latents);
        if (m_spec.kind == attention_kind::gqa) {
            plain_query_key_value(x, first_position, r);
            return;
        }
        if (m_form == attention_form::dense) {
            dense_key_value(x, r);
        } else {
            factored_key_value(x, r);
        }
        apply_rope(r.q, rope_begin(m_g), m_rope, m_g.pairing, first_position);
        apply_temperature(r.q, first_position);
        if (m_form == attention_form::latent) {
            apply_rope(r.k, m_g.kv_lora_rank, m_rope, m_g.pairing, first_position);
            r.q = to_latent(r.q);
            r.v = leading_columns(r.k, m_g.kv_lora_rank);
        } else if (m_form == attention_form::factored) {
            spread_rotated(r.k, first_position);
        } else {
            apply_rope(r.k, rope_begin(m_g), m_rope, m_g.pairing, first_position);
        }
    }

    /// Each head's weighted latent [T, H, R] to its output [T, H, V]: v_b times it.
    [[nodiscard]] tensor<T, 3> from_latent(const tensor<T, 3>& weighted) const {
        auto out = tensor<T, 3>::from_shape({weighted.shape(0), m_g.num_heads, m_g.v_head_dim});
        for (std::size_t h = 0; h < m_g.num_heads; ++h) {
            const std::size_t kv = kv_head(h);
            const matrix_input<T> v_b = m_w[tensor_role::v_b].row_range(kv * m_g.v_head_dim, (kv + 1) * m_g.v_head_dim);
            multiply_head(weighted, h, 0, v_b, out, h, 0);
        }
        return out;
    }

    /// Multiplies the heads' outputs [T, H*V] by the block's gate, if it has one.
    /// @param x  what the gate reads: the block's input, or `latents` of query_key_value
    void apply_gate(const matrix_input<T>& x, tensor<T, 2>& context) const {
        if (m_spec.gate == output_gate::none) return;
        const tensor<T, 2> gate = linear(x, tensor_role::gate);
        const std::size_t shared = context.shape(1) / gate.shape(1);  // elements that one factor multiplies
        for (std::size_t i = 0; i < context.size(); ++i)
            context.data()[i] *= T(1) / (T(1) + std::exp(-gate.data()[i / shared]));
    }

    /// Context [T, H*V] to the block's output [T, E]: by o, or by o_b after o_a, whose groups of rows each multiply
    /// their part of the context.
    [[nodiscard]] tensor<T, 2> output(const tensor<T, 2>& context) const {
        if (!grouped_output(m_spec)) return linear(context, tensor_role::o);
        const std::size_t groups = m_spec.output_groups, rank = m_spec.output_rank, cols = context.shape(1) / groups;
        auto joined = tensor<T, 2>::from_shape({context.shape(0), groups * rank});
        for (std::size_t g = 0; g < groups; ++g) {
            const matrix_input<T> rows = m_w[tensor_role::o_a].row_range(g * rank, (g + 1) * rank);
            const dense_rows<T> part{context.data() + g * cols, context.shape(0), cols, context.shape(1)};
            gemm_nt<T>(
                part.source(), rows.source(), [&](std::size_t t) { return joined.data() + (t * groups + g) * rank; },
                m_threads);
        }
        return linear(joined, tensor_role::o_b);
    }

    /// x w^T + bias.
    [[nodiscard]] tensor<T, 2> linear(const matrix_input<T>& x, tensor_role role) const {
        const matrix_input<T>& w = m_w[role];
        const vector_input<T>& bias = m_w.bias(role);
        auto y = tensor<T, 2>::from_shape({x.rows(), w.rows()});
        const std::size_t cols = w.rows();
        gemm_nt<T>(
            x.source(), w.source(), [&](std::size_t i) { return y.data() + i * cols; }, m_threads);
        if (!bias.empty())
            for (std::size_t t = 0; t < x.rows(); ++t)
                for (std::size_t i = 0; i < cols; ++i) y.data()[t * cols + i] += bias.data()[i];
        return y;
    }

private:
    [[nodiscard]] std::size_t kv_head(std::size_t head) const noexcept {
        return head / (m_g.num_heads / m_g.kv_heads());
    }

    /// scale / sqrt(mean(row^2) + eps) of the first `width` elements of every row; `scale` for a model without norms.
    [[nodiscard]] std::vector<T> norm_factors(const tensor<T, 2>& x, std::size_t width, double scale) const {
        std::vector<T> factors(x.shape(0), static_cast<T>(scale));
        if (m_spec.latent_norm.kind == norm_kind::none) return factors;
        for (std::size_t t = 0; t < x.shape(0); ++t) {
            double sum = 0.0;
            const T* row = x.data() + t * x.shape(1);
            for (std::size_t i = 0; i < width; ++i) sum += static_cast<double>(row[i]) * static_cast<double>(row[i]);
            factors[t] = static_cast<T>(scale / std::sqrt(sum / static_cast<double>(width) + m_spec.latent_norm.eps));
        }
        return factors;
    }

    /// RMSNorm of the first `width` elements of every row, times `scale`, in place; without gains, the division alone.
    void normalise(tensor<T, 2>& x, std::size_t width, double scale, const vector_input<T>& gains) const {
        const std::vector<T> factors = norm_factors(x, width, scale);
        for (std::size_t t = 0; t < x.shape(0); ++t) {
            T* row = x.data() + t * x.shape(1);
            for (std::size_t i = 0; i < width; ++i) row[i] *= gains.empty() ? factors[t] : factors[t] * gains.data()[i];
        }
    }

    [[nodiscard]] static tensor<T, 3> heads_of(tensor<T, 2>&& flat, std::size_t heads) {
        const std::size_t rows = flat.shape(0), dim = flat.shape(1) / heads;
        auto x = tensor<T, 3>::from_shape({0, 0, 0});
        x.storage() = std::move(flat.storage());
        x.resize({rows, heads, dim}, true);
        return x;
    }

    [[nodiscard]] tensor<T, 3> query(const matrix_input<T>& x, tensor<T, 2>* latent, tensor<T, 2>& latents) const {
        if (!query_latent(m_spec)) return heads_of(linear(x, tensor_role::q), m_g.num_heads);
        tensor<T, 2> a = linear(x, tensor_role::q_a);
        if (latent != nullptr) {
            *latent = a;
            normalise(*latent, m_g.q_lora_rank, m_spec.q_latent_scale, m_w.vector(tensor_role::q_a_norm));
        }
        tensor<T, 2> raw;  // what queries take of the latent before its norm
        if (m_spec.raw_query_latent) {
            raw = linear(a, tensor_role::q_b_raw);
            latents = both_latents(a);
        }
        const auto with_raw = [&](tensor<T, 2>&& q) {
            for (std::size_t i = 0; i < raw.size(); ++i) q.data()[i] += raw.data()[i];
            return heads_of(std::move(q), m_g.num_heads);
        };
        if (m_form == attention_form::dense) {
            const std::vector<T> factors = norm_factors(a, m_g.q_lora_rank, m_spec.q_latent_scale);
            tensor<T, 2> q = linear(x, tensor_role::q);
            for (std::size_t t = 0; t < q.shape(0); ++t)
                for (std::size_t i = 0; i < q.shape(1); ++i) q.data()[t * q.shape(1) + i] *= factors[t];
            return with_raw(std::move(q));
        }
        normalise(a, m_g.q_lora_rank, m_spec.q_latent_scale,
                  m_form == attention_form::latent ? vector_input<T>{} : m_w.vector(tensor_role::q_a_norm));
        return with_raw(linear(a, tensor_role::q_b));
    }

    /// [the normed latent times its gains, the latent], for each token.
    [[nodiscard]] tensor<T, 2> both_latents(const tensor<T, 2>& a) const {
        const std::size_t tokens = a.shape(0), rank = a.shape(1);
        tensor<T, 2> normed = a;
        normalise(normed, rank, m_spec.q_latent_scale, m_w.vector(tensor_role::q_a_norm));
        auto both = tensor<T, 2>::from_shape({tokens, 2 * rank});
        for (std::size_t t = 0; t < tokens; ++t) {
            std::copy_n(normed.data() + t * rank, rank, both.data() + t * 2 * rank);
            std::copy_n(a.data() + t * rank, rank, both.data() + t * 2 * rank + rank);
        }
        return both;
    }

    /// Plain attention: norms of the heads before or after rotation.
    void plain_query_key_value(const matrix_input<T>& x, std::size_t first_position, attention_result<T>& r) const {
        r.k = heads_of(linear(x, tensor_role::k), m_g.kv_heads());
        r.v = m_spec.value_is_key ? r.k : heads_of(linear(x, tensor_role::v), m_g.kv_heads());
        const auto rotate = [&](tensor<T, 3>& heads, const norm_spec& norm, tensor_role role) {
            if (!norm.after_rope) normalise_heads(heads, norm, m_w.vector(role), m_w.bias(role));
            clip(heads);
            apply_rope(heads, rope_begin(m_g), m_rope, m_g.pairing, first_position);
            if (norm.after_rope) normalise_heads(heads, norm, m_w.vector(role), m_w.bias(role));
        };
        rotate(r.q, m_spec.q_norm, tensor_role::q_norm);
        rotate(r.k, m_spec.k_norm, tensor_role::k_norm);
        normalise_heads(r.v, m_spec.v_norm, {}, {});
        clip(r.v);
        apply_temperature(r.q, first_position);
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
    void apply_temperature(tensor<T, 3>& q, std::size_t first_position) const {
        const query_temperature& rule = m_spec.temperature;
        if (rule.scale == 0.0) return;
        const std::size_t width = q.shape(1) * q.shape(2);
        for (std::size_t t = 0; t < q.shape(0); ++t) {
            const double steps = std::floor((static_cast<double>(first_position + t) + rule.offset) / rule.length);
            const T factor = static_cast<T>(1.0 + rule.scale * std::log1p(steps));
            for (std::size_t i = 0; i < width; ++i) q.data()[t * width + i] *= factor;
        }
    }

    /// Dense: the scalar of a token multiplies its values and the unrotated part of its keys, not the rotated part.
    void dense_key_value(const matrix_input<T>& x, attention_result<T>& r) const {
        const std::vector<T> factors =
            norm_factors(linear(x, tensor_role::kv_a_latent), m_g.kv_lora_rank, m_spec.kv_latent_scale);
        r.k = heads_of(linear(x, tensor_role::k), m_g.kv_heads());
        r.v = heads_of(linear(x, tensor_role::v), m_g.kv_heads());
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
    /// Latent: the normed latent and the shared part are the key.
    void factored_key_value(const matrix_input<T>& x, attention_result<T>& r) const {
        const std::size_t rank = m_g.kv_lora_rank, rope = m_g.qk_rope_head_dim, nope = m_g.qk_nope_head_dim;
        const std::size_t value = m_g.v_head_dim, heads = m_g.kv_heads(), tokens = x.rows();
        tensor<T, 2> latent = linear(x, tensor_role::kv_a);
        normalise(latent, rank, m_spec.kv_latent_scale,
                  m_form == attention_form::latent ? vector_input<T>{} : m_w.vector(tensor_role::kv_a_norm));
        normalise_rotated(latent.data() + rank, tokens, rank + rope);
        if (m_form == attention_form::latent) {
            r.k = heads_of(std::move(latent), 1);
            return;
        }
        const matrix_input<T> normed(tokens, rank, [&](std::size_t b, std::size_t e, T* out, std::size_t stride) {
            for (std::size_t t = b; t < e; ++t, out += stride)
                std::copy_n(latent.data() + t * (rank + rope), rank, out);
        });
        const tensor<T, 2> kv = linear(normed, tensor_role::kv_b);
        r.k = tensor<T, 3>::from_shape({tokens, heads, nope + rope});
        r.v = tensor<T, 3>::from_shape({tokens, heads, value});
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
    void spread_rotated(tensor<T, 3>& k, std::size_t first_position) const {
        const std::size_t tokens = k.shape(0), heads = k.shape(1), dim = k.shape(2), rope = m_g.qk_rope_head_dim;
        const std::size_t rotated = rope_begin(m_g);
        auto shared = tensor<T, 3>::from_shape({tokens, 1, rope});
        for (std::size_t t = 0; t < tokens; ++t)
            std::copy_n(k.data() + t * heads * dim + rotated, rope, shared.data() + t * rope);
        apply_rope(shared, 0, m_rope, m_g.pairing, first_position);
        for (std::size_t t = 0; t < tokens; ++t)
            for (std::size_t h = 0; h < heads; ++h)
                std::copy_n(shared.data() + t * rope, rope, k.data() + (t * heads + h) * dim + rotated);
    }

    /// The query of each head carried into the latent: [k_b q_nope | q_rope], [T, H, R + P].
    [[nodiscard]] tensor<T, 3> to_latent(const tensor<T, 3>& q) const {
        const std::size_t tokens = q.shape(0), rank = m_g.kv_lora_rank, rope = m_g.qk_rope_head_dim;
        const bool rope_first = m_g.order == head_order::rope_nope;
        const std::size_t rotated = rope_begin(m_g);
        auto out = tensor<T, 3>::from_shape({tokens, m_g.num_heads, rank + rope});
        for (std::size_t h = 0; h < m_g.num_heads; ++h) {
            const std::size_t kv = kv_head(h);
            multiply_head(q, h, rope_first ? rope : 0, m_w[tensor_role::k_b].row_range(kv * rank, (kv + 1) * rank), out,
                          h, 0);
            for (std::size_t t = 0; t < tokens; ++t)
                std::copy_n(q.data() + (t * m_g.num_heads + h) * q.shape(2) + rotated, rope,
                            out.data() + (t * m_g.num_heads + h) * (rank + rope) + rank);
        }
        return out;
    }

    /// out[t, to_head, to_begin + i] = sum over k of w[i, k] * x[t, head, begin + k], for every token.
    void multiply_head(const tensor<T, 3>& x, std::size_t head, std::size_t begin, const matrix_input<T>& w,
                       tensor<T, 3>& out, std::size_t to_head, std::size_t to_begin) const {
        const std::size_t stride = x.shape(1) * x.shape(2), out_stride = out.shape(1) * out.shape(2);
        const T* first = x.data() + head * x.shape(2) + begin;
        T* first_out = out.data() + to_head * out.shape(2) + to_begin;
        const dense_rows<T> rows{first, x.shape(0), w.cols(), stride};
        gemm_nt<T>(
            rows.source(), w.source(), [&](std::size_t t) { return first_out + t * out_stride; }, m_threads);
    }

    [[nodiscard]] static tensor<T, 3> leading_columns(const tensor<T, 3>& x, std::size_t columns) {
        auto out = tensor<T, 3>::from_shape({x.shape(0), x.shape(1), columns});
        for (std::size_t i = 0; i < x.shape(0) * x.shape(1); ++i)
            std::copy_n(x.data() + i * x.shape(2), columns, out.data() + i * columns);
        return out;
    }

    const attention_spec& m_spec;
    const mla_geometry& m_g;
    attention_form m_form;
    const rope_table& m_rope;
    const attention_weights<T>& m_w;
    executor& m_threads;
};

}  // namespace detail
}  // namespace larql

#endif
