// SPDX-License-Identifier: Apache-2.0
//
// What tests of attention share: random operands, calls at each level of vector code, differences and what rounding may
// make of them.
#ifndef LARQL_TESTS_SUPPORT_ATTENTION_CHECKS_HPP
#define LARQL_TESTS_SUPPORT_ATTENTION_CHECKS_HPP

#include <larql/gqa_attention.hpp>

#include <support/random.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

namespace larql::testing {

template <class E>
tensor<E, 3> random_tensor(random_source& random, std::size_t a, std::size_t b, std::size_t c) {
    tensor<E, 3> out({a, b, c});
    random.fill_normal(out);
    return out;
}

inline std::vector<detail::simd_level> usable_levels() {
    std::vector<detail::simd_level> levels;
    for (const detail::simd_level level : detail::all_simd_levels)
        if (level <= detail::detected_simd_level()) levels.push_back(level);
    return levels;
}

/// gqa_attention_asym by the code of one level.
template <class Q, class K, class V>
auto attend_at(detail::simd_level level, const Q& q, const K& k, const V& v, const attention_options& options = {}) {
    using compute = detail::attention_compute_t<Q, K, V>;
    attention_scratch scratch;
    return detail::attend_to_tensor<compute>(q, k, v, detail::read_attention_shapes(q, k, v, options), options, scratch,
                                             level);
}

template <class A, class B>
double largest_difference(const A& a, const B& b) {
    REQUIRE(a.shape() == b.shape());
    double worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const double difference = std::abs(static_cast<double>(a.data()[i]) - static_cast<double>(b.data()[i]));
        if (!(difference <= worst)) worst = difference;  // takes a NaN
        if (std::isnan(worst)) return worst;
    }
    return worst;
}

template <class A>
double largest_magnitude(const A& a) {
    double most = 0;
    for (const auto x : a) most = std::max(most, std::abs(static_cast<double>(static_cast<float>(x))));
    return most;
}

/// What rounding may do to a result in float: a score's error is that of a sum of D products and scales with the sum
/// of their magnitudes; it moves a weight by as much, relatively. Weights sum to 1, so the values' magnitude is the
/// unit.
template <class Q, class K, class V>
double tolerance(const Q& q, const K& k, const V& v, const attention_options& options) {
    const auto size = static_cast<double>(q.shape()[2]);
    const double scale = std::abs(options.scale.value_or(1 / std::sqrt(size)));
    const double score = scale * largest_magnitude(q) * largest_magnitude(k) * std::sqrt(size);
    constexpr double epsilon = std::numeric_limits<float>::epsilon();
    return epsilon * (8 + score * std::sqrt(size) + std::sqrt(static_cast<double>(k.shape()[0]))) *
           (1 + largest_magnitude(v));
}

template <class F>
errc code_of(F&& f, std::string* text = nullptr) {
    try {
        f();
    } catch (const error& e) {
        if (text != nullptr) *text = e.what();
        return e.code();
    }
    FAIL("no error");
    return errc::io;
}

}  // namespace larql::testing

#endif
