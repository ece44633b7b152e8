// SPDX-License-Identifier: Apache-2.0
//
// Compressed attention (DeepSeek-V4) as plain loops in double: the definition that the library is held against.
#ifndef LARQL_TESTS_SUPPORT_REFERENCE_COMPRESSED_HPP
#define LARQL_TESTS_SUPPORT_REFERENCE_COMPRESSED_HPP

#include <larql/attention_spec.hpp>
#include <larql/attention_weights.hpp>
#include <larql/rope.hpp>
#include <support/random.hpp>
#include <support/reference_mla.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <map>
#include <vector>

namespace larql::testing {

/// The tensors of a block, by role; their numbers are those of floats.
struct compressed_tensors {
    std::map<tensor_role, matrix> matrices;
    std::map<tensor_role, vector> vectors;
};

inline compressed_tensors random_compressed(const attention_spec& spec, std::uint64_t seed) {
    random_source random(seed);
    compressed_tensors w;
    for (const detail::role_row& row : detail::attention_roles) {
        if (!row.needed(spec, attention_form::factored)) continue;
        const std::size_t rows = detail::size_of(row.rows, spec), cols = detail::size_of(row.cols, spec);
        if (row.is_vector()) {
            const bool gains = row.role != tensor_role::sinks;
            vector v = random_vector(random, cols, gains ? 1.0 : 0.0, gains ? 0.4 : 1.5);
            for (double& x : v) x = static_cast<double>(static_cast<float>(x));
            w.vectors[row.role] = v;
        } else {
            const bool position =
                row.role == tensor_role::compressor_position || row.role == tensor_role::indexer_compressor_position;
            w.matrices[row.role] =
                random_matrix(random, rows, cols, position ? 1.0 : 1.5 / std::sqrt(static_cast<double>(cols)));
        }
    }
    return w;
}

/// As the library takes them; `w` must outlive them.
template <class T>
attention_weights<T> weights_of(const compressed_tensors& w) {
    attention_weights<T> out;
    for (const auto& [role, m] : w.matrices) out[role] = m;
    for (const auto& [role, v] : w.vectors) out.vector(role) = v;
    return out;
}

class compressed_reference {
public:
    compressed_reference(const attention_spec& spec, const compressed_tensors& w)
        : m_spec(spec), m_w(w), m_frequencies(make_rope_table(spec.rope).frequencies) {}

    struct result {
        matrix context, out;
    };

    [[nodiscard]] result forward(const matrix& x) const {
        using role = tensor_role;
        const std::size_t tokens = x.shape(0), heads = m_spec.geometry.num_heads, dim = m_spec.geometry.qk_head_dim();
        const matrix latent = norm(project(x, m(role::q_a)), v(role::q_a_norm), m_spec.latent_norm.eps);
        matrix q = project(latent, m(role::q_b));
        matrix k = norm(project(x, m(role::k)), v(role::k_norm), m_spec.k_norm.eps);
        for (std::size_t t = 0; t < tokens; ++t) {
            for (std::size_t h = 0; h < heads; ++h) {
                double* head = &q(t, h * dim);
                if (m_spec.q_norm.kind != norm_kind::none) divide_by_rms(head, dim, m_spec.q_norm.eps);
                rotate(head, dim, static_cast<double>(t));
            }
            rotate(&k(t, 0), dim, static_cast<double>(t));
        }
        const matrix entries = compress(x, role::compressor_kv, role::compressor_gate, role::compressor_position,
                                        role::compressor_norm, dim);
        matrix context = matrix::from_shape({tokens, heads * dim});
        for (std::size_t t = 0; t < tokens; ++t) {
            std::vector<const double*> seen;
            for (std::size_t s = 0; s <= t; ++s)
                if (t - s < m_spec.sliding_window) seen.push_back(&k(s, 0));
            for (const std::size_t entry : visible(x, latent, t)) seen.push_back(&entries(entry, 0));
            for (std::size_t h = 0; h < heads; ++h) attend(&q(t, h * dim), seen, h, t, &context(t, h * dim));
        }
        return {context, output(context)};
    }

    /// The entries that the token at t sees.
    [[nodiscard]] std::vector<std::size_t> visible(const matrix& x, const matrix& latent, std::size_t t) const {
        using role = tensor_role;
        const compression_spec& c = m_spec.compression;
        std::vector<std::size_t> all;
        for (std::size_t w = 0; c.ratio != 0 && (w + 1) * c.ratio <= t + 1; ++w) all.push_back(w);
        if (c.index_heads == 0 || all.size() <= c.index_top_k) return all;
        const matrix keys =
            compress(x, role::indexer_compressor_kv, role::indexer_compressor_gate, role::indexer_compressor_position,
                     role::indexer_compressor_norm, c.index_head_dim);
        matrix q = project(latent, m(role::indexer_q_b));
        const matrix weights = project(x, m(role::indexer_weights));
        std::vector<double> scores(all.size(), 0.0);
        for (std::size_t h = 0; h < c.index_heads; ++h) {
            double* head = &q(t, h * c.index_head_dim);
            rotate(head, c.index_head_dim, static_cast<double>(t));
            for (const std::size_t w : all) {
                double product = 0.0;
                for (std::size_t i = 0; i < c.index_head_dim; ++i) product += head[i] * keys(w, i);
                scores[w] += weights(t, h) * std::max(product, 0.0);
            }
        }
        std::ranges::stable_sort(all, [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
        all.resize(c.index_top_k);
        return all;
    }

private:
    [[nodiscard]] const matrix& m(tensor_role role) const { return m_w.matrices.at(role); }
    [[nodiscard]] const vector& v(tensor_role role) const { return m_w.vectors.at(role); }

    static void divide_by_rms(double* row, std::size_t size, double eps) {
        double sum = 0.0;
        for (std::size_t i = 0; i < size; ++i) sum += row[i] * row[i];
        const double rms = std::sqrt(sum / static_cast<double>(size) + eps);
        for (std::size_t i = 0; i < size; ++i) row[i] /= rms;
    }
    static matrix norm(matrix x, const vector& gains, double eps) {
        for (std::size_t t = 0; t < x.shape(0); ++t) {
            divide_by_rms(&x(t, 0), x.shape(1), eps);
            for (std::size_t i = 0; i < x.shape(1); ++i) x(t, i) *= gains(i);
        }
        return x;
    }
    /// The last elements turn, in pairs of neighbours.
    void rotate(double* row, std::size_t size, double position) const {
        for (std::size_t j = 0; j < m_frequencies.size(); ++j) {
            double& a = row[size - 2 * m_frequencies.size() + 2 * j];
            double& b = row[size - 2 * m_frequencies.size() + 2 * j + 1];
            const double angle = position * m_frequencies[j], old = a;
            a = old * std::cos(angle) - b * std::sin(angle);
            b = old * std::sin(angle) + b * std::cos(angle);
        }
    }

    /// Complete entries of `size` elements.
    [[nodiscard]] matrix compress(const matrix& x, tensor_role kv, tensor_role gate, tensor_role position,
                                  tensor_role gains, std::size_t size) const {
        const compression_spec& c = m_spec.compression;
        if (c.ratio == 0) return {};
        const matrix summed = project(x, m(kv)), gates = project(x, m(gate));
        const std::size_t count = x.shape(0) / c.ratio, second = c.overlapping ? size : 0;
        matrix entries = matrix::from_shape({count, size});
        for (std::size_t w = 0; w < count; ++w)
            for (std::size_t i = 0; i < size; ++i) {
                double total = 0.0, sum = 0.0;  // gates are small enough for exp
                const auto add = [&](std::size_t token, std::size_t channel) {
                    const double weight = std::exp(gates(token, channel) + m(position)(token % c.ratio, channel));
                    total += weight;
                    sum += weight * summed(token, channel);
                };
                for (std::size_t s = 0; s < c.ratio; ++s) {
                    add(w * c.ratio + s, second + i);
                    if (c.overlapping && w != 0) add((w - 1) * c.ratio + s, i);
                }
                entries(w, i) = sum / total;
            }
        entries = norm(entries, v(gains), c.norm.eps);
        for (std::size_t w = 0; w < count; ++w) rotate(&entries(w, 0), size, static_cast<double>(w * c.ratio));
        return entries;
    }

    void attend(const double* q, const std::vector<const double*>& seen, std::size_t head, std::size_t t,
                double* out) const {
        const std::size_t dim = m_spec.geometry.qk_head_dim();
        std::vector<double> scores;
        double top = m_spec.sinks ? v(tensor_role::sinks)(head) : -std::numeric_limits<double>::infinity();
        for (const double* key : seen) {
            double score = 0.0;
            for (std::size_t i = 0; i < dim; ++i) score += q[i] * key[i];
            scores.push_back(score * m_spec.scale);
            top = std::max(top, scores.back());
        }
        double total = m_spec.sinks ? std::exp(v(tensor_role::sinks)(head) - top) : 0.0;
        for (const double score : scores) total += std::exp(score - top);
        std::fill_n(out, dim, 0.0);
        for (std::size_t j = 0; j < seen.size(); ++j)
            for (std::size_t i = 0; i < dim; ++i) out[i] += std::exp(scores[j] - top) / total * seen[j][i];
        rotate(out, dim, -static_cast<double>(t));
    }

    [[nodiscard]] matrix output(const matrix& context) const {
        const std::size_t groups = m_spec.output_groups, rank = m_spec.output_rank, cols = context.shape(1) / groups;
        matrix joined = xt::zeros<double>({context.shape(0), groups * rank});
        for (std::size_t t = 0; t < context.shape(0); ++t)
            for (std::size_t r = 0; r < groups * rank; ++r)
                for (std::size_t i = 0; i < cols; ++i)
                    joined(t, r) += m(tensor_role::o_a)(r, i) * context(t, r / rank * cols + i);
        return project(joined, m(tensor_role::o_b));
    }

    const attention_spec& m_spec;
    const compressed_tensors& m_w;
    std::vector<double> m_frequencies;
};

/// A block without entries whose sizes all differ.
inline attention_spec tiny_compressed_spec() {
    attention_spec spec;
    spec.kind = attention_kind::compressed;
    spec.geometry = {.hidden_size = 22,
                     .num_heads = 6,
                     .num_kv_heads = 1,
                     .q_lora_rank = 18,
                     .qk_nope_head_dim = 10,
                     .qk_rope_head_dim = 6,
                     .v_head_dim = 16,
                     .order = head_order::nope_rope,
                     .pairing = rope_pairing::interleaved};
    spec.rope = {.rotary_dim = 6, .theta = 90.0};
    spec.scale = 0.31;
    spec.sliding_window = 5;
    spec.sinks = true;
    spec.output_groups = 3;
    spec.output_rank = 7;
    spec.q_norm = {.kind = norm_kind::rms, .has_gain = false, .eps = 0.02};
    spec.k_norm = {.kind = norm_kind::rms, .eps = 0.03};
    spec.latent_norm = {.kind = norm_kind::rms, .eps = 0.01};
    return spec;
}

/// The same with an entry for every `ratio` tokens; with `top_k`, entries overlap and an indexer chooses so many.
inline attention_spec tiny_compressed_spec(std::size_t ratio, std::size_t top_k = 0) {
    attention_spec spec = tiny_compressed_spec();
    spec.compression.ratio = ratio;
    spec.compression.norm = {.kind = norm_kind::rms, .eps = 0.04};
    if (top_k == 0) return spec;
    spec.compression.overlapping = true;
    spec.compression.index_heads = 15;
    spec.compression.index_head_dim = 12;
    spec.compression.index_top_k = top_k;
    return spec;
}

}  // namespace larql::testing

#endif
