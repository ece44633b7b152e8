// SPDX-License-Identifier: Apache-2.0
//
// The factors of queries that follow their positions.
#ifndef LARQL_DETAIL_MLA_TEMPERATURE_HPP
#define LARQL_DETAIL_MLA_TEMPERATURE_HPP

#include <larql/attention_spec.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/matrix_input.hpp>
#include <larql/rope.hpp>

#include <cmath>
#include <cstddef>

namespace larql::detail {

/// Multiplies every head of every token by scale * ln(p + 1) + bias, p the token's position.
/// @param q      [T, H, D]
/// @param scale  [H]
/// @param bias   [H]
template <class T>
void apply_head_temperatures(tensor<T, 3>& q, const vector_input<T>& scale, const vector_input<T>& bias,
                             const token_places& at) {
    const std::size_t heads = q.shape(1), width = q.shape(2);
    for (std::size_t t = 0; t < q.shape(0); ++t) {
        const double logarithm = std::log(static_cast<double>(at[t]) + 1.0);
        for (std::size_t h = 0; h < heads; ++h) {
            const auto factor =
                static_cast<T>(static_cast<double>(scale.data()[h]) * logarithm + static_cast<double>(bias.data()[h]));
            T* const head = q.data() + (t * heads + h) * width;
            for (std::size_t i = 0; i < width; ++i) head[i] *= factor;
        }
    }
}

/// The factor of all heads of a token.
inline double temperature_at(const query_temperature& rule, std::size_t position) {
    if (rule.logarithmic) {
        const double logarithm = std::log(static_cast<double>(position + 1)) / std::log(rule.length);
        return logarithm > 1.0 ? rule.scale * logarithm : 1.0;
    }
    return 1.0 + rule.scale * std::log1p(std::floor((static_cast<double>(position) + rule.offset) / rule.length));
}

/// Multiplies the queries of a token by the factor of its position.
/// @param q           [T, H, D]
/// @param scale,bias  [H] of a rule for each head, and unread otherwise
template <class T>
void apply_temperature(tensor<T, 3>& q, const query_temperature& rule, const vector_input<T>& scale,
                       const vector_input<T>& bias, const token_places& at) {
    if (!rule.any()) return;
    if (rule.per_head) return apply_head_temperatures(q, scale, bias, at);
    const std::size_t width = q.shape(1) * q.shape(2);
    for (std::size_t t = 0; t < q.shape(0); ++t) {
        const T factor = static_cast<T>(temperature_at(rule, at[t]));
        for (std::size_t i = 0; i < width; ++i) q.data()[t * width + i] *= factor;
    }
}

}  // namespace larql::detail

#endif
