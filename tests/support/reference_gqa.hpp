// SPDX-License-Identifier: Apache-2.0
//
// A block of plain attention with everything that families add to it, as plain loops in double.
#ifndef LARQL_TESTS_SUPPORT_REFERENCE_GQA_HPP
#define LARQL_TESTS_SUPPORT_REFERENCE_GQA_HPP

#include <support/reference_attention.hpp>
#include <support/reference_mla.hpp>

#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

namespace larql::testing {

struct gqa_tensors {
    matrix q{}, k{}, v{}, o{}, gate{};    // gate [H, E], or empty
    vector q_bias{}, k_bias{}, v_bias{};  // or empty
    vector q_norm{}, k_norm{};            // gains over each head, or empty
    std::vector<float> sinks{};
};

struct gqa_rules {
    std::size_t heads = 0, groups = 0, dim = 0;
    double scale = 0.0, eps = 0.0;
    std::vector<double> frequencies{};  // of the pairs (j, j + D/2)
    double magnitude = 1.0;
    std::size_t window = 0;
};

inline tensor<double, 3> in_heads(const matrix& flat, std::size_t heads) {
    auto x = tensor<double, 3>::from_shape({flat.shape(0), heads, flat.shape(1) / heads});
    std::copy(flat.begin(), flat.end(), x.begin());
    return x;
}

inline void rms_norm_heads(tensor<double, 3>& x, const vector& gains, double eps) {
    if (gains.size() == 0) return;
    for (std::size_t t = 0; t < x.shape(0); ++t)
        for (std::size_t h = 0; h < x.shape(1); ++h) {
            double sum = 0.0;
            for (std::size_t i = 0; i < x.shape(2); ++i) sum += x(t, h, i) * x(t, h, i);
            const double factor = 1.0 / std::sqrt(sum / static_cast<double>(x.shape(2)) + eps);
            for (std::size_t i = 0; i < x.shape(2); ++i) x(t, h, i) *= factor * gains(i);
        }
}

inline void rotate_halves(tensor<double, 3>& x, const std::vector<double>& frequencies, double magnitude) {
    const std::size_t half = frequencies.size();
    for (std::size_t t = 0; t < x.shape(0); ++t)
        for (std::size_t h = 0; h < x.shape(1); ++h)
            for (std::size_t j = 0; j < half; ++j) {
                const double angle = static_cast<double>(t) * frequencies[j];
                const double a = x(t, h, j), b = x(t, h, j + half);
                x(t, h, j) = magnitude * (a * std::cos(angle) - b * std::sin(angle));
                x(t, h, j + half) = magnitude * (a * std::sin(angle) + b * std::cos(angle));
            }
}

/// Context and output of a block for tokens at positions 0, 1, ...
inline std::pair<matrix, matrix> reference_gqa(const matrix& x, const gqa_tensors& w, const gqa_rules& rules) {
    auto q = in_heads(project(x, w.q, w.q_bias), rules.heads), k = in_heads(project(x, w.k, w.k_bias), rules.groups);
    const auto v = in_heads(project(x, w.v, w.v_bias), rules.groups);
    rms_norm_heads(q, w.q_norm, rules.eps);
    rms_norm_heads(k, w.k_norm, rules.eps);
    rotate_halves(q, rules.frequencies, rules.magnitude);
    rotate_halves(k, rules.frequencies, rules.magnitude);
    const attention_options options{.scale = rules.scale, .sliding_window = rules.window, .sinks = w.sinks};
    matrix context = matrix::from_shape({x.shape(0), rules.heads * rules.dim});
    const matrix gate = w.gate.size() != 0 ? project(x, w.gate) : matrix{};
    for (std::size_t t = 0; t < x.shape(0); ++t)
        for (std::size_t h = 0; h < rules.heads; ++h) {
            const auto row = reference_row<double>(q, k, v, options, t, h);
            const double factor = gate.size() != 0 ? 1.0 / (1.0 + std::exp(-gate(t, h))) : 1.0;
            for (std::size_t i = 0; i < rules.dim; ++i) context(t, h * rules.dim + i) = factor * row[i];
        }
    return {context, project(context, w.o)};
}

}  // namespace larql::testing

#endif
