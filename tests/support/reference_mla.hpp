// SPDX-License-Identifier: Apache-2.0
//
// Latent attention's projections as plain loops in double: the definition that the library is held against.
#ifndef LARQL_TESTS_SUPPORT_REFERENCE_MLA_HPP
#define LARQL_TESTS_SUPPORT_REFERENCE_MLA_HPP

#include <larql/detail/xtensor.hpp>
#include <larql/mla_absorb.hpp>
#include <larql/mla_geometry.hpp>
#include <support/random.hpp>

#include <cmath>
#include <cstddef>
#include <string>

namespace larql::testing {

using matrix = tensor<double, 2>;
using vector = tensor<double, 1>;

inline matrix random_matrix(random_source& random, std::size_t rows, std::size_t cols, double scale = 1.0) {
    auto m = matrix::from_shape({rows, cols});
    random.fill_normal(m, scale);
    return m;
}

inline vector random_vector(random_source& random, std::size_t size, double mean, double scale) {
    auto v = vector::from_shape({size});
    for (double& x : v) x = mean + scale * random.normal();
    return v;
}

/// x [T, K] times w [M, K] transposed, plus an optional bias.
inline matrix project(const matrix& x, const matrix& w, const vector& bias = {}) {
    matrix y = matrix::from_shape({x.shape(0), w.shape(0)});
    for (std::size_t t = 0; t < x.shape(0); ++t)
        for (std::size_t i = 0; i < w.shape(0); ++i) {
            double sum = bias.size() != 0 ? bias(i) : 0.0;
            for (std::size_t k = 0; k < w.shape(1); ++k) sum += x(t, k) * w(i, k);
            y(t, i) = sum;
        }
    return y;
}

/// The RMS factor of each row over its first `width` elements.
inline vector rms_factors(const matrix& x, std::size_t width, double eps) {
    vector s = vector::from_shape({x.shape(0)});
    for (std::size_t t = 0; t < x.shape(0); ++t) {
        double sum = 0.0;
        for (std::size_t i = 0; i < width; ++i) sum += x(t, i) * x(t, i);
        s(t) = 1.0 / std::sqrt(sum / static_cast<double>(width) + eps);
    }
    return s;
}

/// All the tensors of a layer, in double.
struct layer_tensors {
    matrix q, q_a, q_b, kv_a, kv_b;
    vector q_a_norm, q_a_bias, kv_a_norm, kv_a_bias;
};

inline layer_tensors random_layer(const mla_geometry& g, std::uint64_t seed, bool norms = true, bool biases = true) {
    random_source random(seed);
    layer_tensors w;
    const double width = 1.0 / std::sqrt(static_cast<double>(g.hidden_size));
    if (g.q_lora_rank == 0) {
        w.q = random_matrix(random, g.num_heads * g.qk_head_dim(), g.hidden_size, width);
    } else {
        w.q_a = random_matrix(random, g.q_lora_rank, g.hidden_size, width);
        w.q_b = random_matrix(random, g.num_heads * g.qk_head_dim(), g.q_lora_rank);
        if (norms) w.q_a_norm = random_vector(random, g.q_lora_rank, 1.0, 0.3);
        if (biases) w.q_a_bias = random_vector(random, g.q_lora_rank, 0.0, 0.5);
    }
    w.kv_a = random_matrix(random, g.kv_lora_rank + g.qk_rope_head_dim, g.hidden_size, width);
    w.kv_b = random_matrix(random, g.kv_heads() * (g.qk_nope_head_dim + g.v_head_dim), g.kv_lora_rank);
    if (norms) w.kv_a_norm = random_vector(random, g.kv_lora_rank, 1.0, 0.3);
    if (biases) w.kv_a_bias = random_vector(random, g.kv_lora_rank + g.qk_rope_head_dim, 0.0, 0.5);
    return w;
}

/// The tensors of a layer as the library takes them; the layer must outlive them.
template <class T>
mla_factors<T> factors_of(const layer_tensors& w) {
    mla_factors<T> f;
    if (w.q.size() != 0) f.q = w.q;
    if (w.q_a.size() != 0) f.q_a = w.q_a;
    if (w.q_b.size() != 0) f.q_b = w.q_b;
    f.q_a_norm = w.q_a_norm;
    f.q_a_bias = w.q_a_bias;
    f.kv_a = w.kv_a;
    f.kv_a_norm = w.kv_a_norm;
    f.kv_a_bias = w.kv_a_bias;
    f.kv_b = w.kv_b;
    return f;
}

/// Queries, keys and values of a layer before rotation: heads [nope | rope] in the stored pairing.
struct projections {
    tensor<double, 3> q, k, v;  // [T, heads, dim]
};

/// @param eps  of the latent norms; a layer without gains has no norms
inline projections reference_projections(const matrix& x, const layer_tensors& w, const mla_geometry& g, double eps) {
    const std::size_t tokens = x.shape(0), nope = g.qk_nope_head_dim, rope = g.qk_rope_head_dim;
    const auto normed = [&](matrix latent, std::size_t width, const vector& gains) {
        if (gains.size() == 0) return latent;
        const vector s = rms_factors(latent, width, eps);
        for (std::size_t t = 0; t < tokens; ++t)
            for (std::size_t i = 0; i < width; ++i) latent(t, i) *= s(t) * gains(i);
        return latent;
    };
    const matrix q = g.q_lora_rank == 0
                         ? project(x, w.q)
                         : project(normed(project(x, w.q_a, w.q_a_bias), g.q_lora_rank, w.q_a_norm), w.q_b);
    const matrix kv_a = normed(project(x, w.kv_a, w.kv_a_bias), g.kv_lora_rank, w.kv_a_norm);
    matrix latent = matrix::from_shape({tokens, g.kv_lora_rank});
    for (std::size_t t = 0; t < tokens; ++t)
        for (std::size_t i = 0; i < g.kv_lora_rank; ++i) latent(t, i) = kv_a(t, i);
    const matrix kv = project(latent, w.kv_b);

    projections p;
    p.q = tensor<double, 3>::from_shape({tokens, g.num_heads, nope + rope});
    p.k = tensor<double, 3>::from_shape({tokens, g.kv_heads(), nope + rope});
    p.v = tensor<double, 3>::from_shape({tokens, g.kv_heads(), g.v_head_dim});
    for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t h = 0; h < g.num_heads; ++h)
            for (std::size_t i = 0; i < nope + rope; ++i) p.q(t, h, i) = q(t, h * (nope + rope) + i);
        for (std::size_t h = 0; h < g.kv_heads(); ++h) {
            const std::size_t first = h * (nope + g.v_head_dim);
            for (std::size_t i = 0; i < nope; ++i) p.k(t, h, i) = kv(t, first + i);
            for (std::size_t i = 0; i < rope; ++i) p.k(t, h, nope + i) = kv_a(t, g.kv_lora_rank + i);
            for (std::size_t i = 0; i < g.v_head_dim; ++i) p.v(t, h, i) = kv(t, first + nope + i);
        }
    }
    return p;
}

/// Largest difference over largest magnitude; NaN anywhere gives NaN, which no bound accepts.
template <class A, class B>
double relative_error(const A& got, const B& want) {
    double worst = 0.0, size = 0.0;
    auto g = got.begin();
    for (const auto& w : want) {
        const double d = std::abs(static_cast<double>(*g++) - static_cast<double>(w));
        if (std::isnan(d)) return d;
        worst = std::max(worst, d);
        size = std::max(size, std::abs(static_cast<double>(w)));
    }
    return size == 0.0 ? worst : worst / size;
}

}  // namespace larql::testing

#endif
