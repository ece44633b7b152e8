// SPDX-License-Identifier: Apache-2.0
//
// Attention as the formula says, in plain loops: the definition that larql's kernels are held against. With Real =
// double it is the truth, with Real = float the plain float program whose rounding errors are the yardstick.
#ifndef LARQL_TESTS_SUPPORT_REFERENCE_ATTENTION_HPP
#define LARQL_TESTS_SUPPORT_REFERENCE_ATTENTION_HPP

#include <larql/gqa_attention.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace larql::testing {

/// The weights of one query token and head over all keys; 0 where a key is not visible.
template <class Real, class Q, class K>
std::vector<Real> reference_weights(const Q& q, const K& k, const attention_options& options, std::size_t t,
                                    std::size_t h) {
    const std::size_t keys = k.shape()[0];
    const std::size_t size = k.shape()[2];
    const std::size_t group = q.shape()[1] / k.shape()[1];
    const auto before = static_cast<long>(options.first_key_position);  // positions before that of key 0
    const auto position =
        static_cast<long>(t) + (options.first_position ? static_cast<long>(*options.first_position)
                                                       : static_cast<long>(keys) - static_cast<long>(q.shape()[0]));
    const Real scale = static_cast<Real>(options.scale.value_or(1.0 / std::sqrt(static_cast<double>(size))));
    const Real cap = static_cast<Real>(options.softcap);
    const auto visible = [&](std::size_t key) {
        const auto j = static_cast<long>(key) + before;
        const auto listed = [&] {
            const auto list = options.key_lists.of(t);
            return std::find(list.begin(), list.end(), key) != list.end();
        };
        const key_mask_view& mask = options.key_mask;
        const auto let_through = [&] {
            const std::size_t bit = key - mask.first_key, words = (mask.keys + 63) / 64;
            return (mask.bits[t * words + bit / 64] >> bit % 64) % 2 == 1;
        };
        const bool has_bit = key >= mask.first_key && key < mask.first_key + mask.keys;
        return (options.key_lists.empty() || listed()) && (!has_bit || let_through()) &&
               (!options.causal || j <= position) &&
               // Windows and chunks are unsigned, and may be longer than any position.
               (options.sliding_window == 0 || position < j ||
                static_cast<std::size_t>(position - j) < options.sliding_window) &&
               (options.chunk == 0 || position < 0 ||
                static_cast<std::size_t>(position) / options.chunk ==
                    (key + options.first_key_position) / options.chunk);
    };
    std::vector<Real> weights(keys, Real(0));
    Real top = -std::numeric_limits<Real>::infinity();
    for (std::size_t j = 0; j < keys; ++j) {
        if (!visible(j)) continue;
        Real s = 0;
        for (std::size_t d = 0; d < size; ++d)
            s += static_cast<Real>(q(t, h, d)) * static_cast<Real>(k(j, h / group, d));
        s *= scale;
        if (cap > 0) s = cap * std::tanh(s / cap);
        if (!options.alibi.empty())
            s += static_cast<Real>(options.alibi[h]) * static_cast<Real>(static_cast<long>(j) + before - position);
        weights[j] = s;
        top = std::max(top, s);
    }
    Real sum = 0;
    if (!options.sinks.empty()) {
        top = std::max(top, static_cast<Real>(options.sinks[h]));
        sum = std::exp(static_cast<Real>(options.sinks[h]) - top);
    }
    for (std::size_t j = 0; j < keys; ++j)
        if (visible(j)) sum += weights[j] = std::exp(weights[j] - top);
    for (Real& w : weights) w = sum == 0 ? Real(0) : w / sum;
    return weights;
}

/// One row of the result, [V].
template <class Real, class Q, class K, class V>
std::vector<Real> reference_row(const Q& q, const K& k, const V& v, const attention_options& options, std::size_t t,
                                std::size_t h) {
    const std::vector<Real> weights = reference_weights<Real>(q, k, options, t, h);
    const std::size_t group = q.shape()[1] / k.shape()[1];
    std::vector<Real> out(v.shape()[2], Real(0));
    for (std::size_t j = 0; j < weights.size(); ++j)
        for (std::size_t c = 0; weights[j] != 0 && c < out.size(); ++c)
            out[c] += weights[j] * static_cast<Real>(v(j, h / group, c));
    return out;
}

/// q [T, H, D], k [S, G, D], v [S, G, V] of any number type; result [T, H, V].
template <class Real, class Q, class K, class V>
tensor<Real, 3> reference_attention(const Q& q, const K& k, const V& v, const attention_options& options = {}) {
    tensor<Real, 3> out({q.shape()[0], q.shape()[1], v.shape()[2]});
    for (std::size_t t = 0; t < out.shape()[0]; ++t)
        for (std::size_t h = 0; h < out.shape()[1]; ++h) {
            const std::vector<Real> row = reference_row<Real>(q, k, v, options, t, h);
            for (std::size_t c = 0; c < row.size(); ++c) out(t, h, c) = row[c];
        }
    return out;
}

}  // namespace larql::testing

#endif
