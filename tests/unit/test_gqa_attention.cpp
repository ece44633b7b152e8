// SPDX-License-Identifier: Apache-2.0
#include <larql/gqa_attention.hpp>

#include <support/random.hpp>
#include <support/reference_attention.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

namespace {

using larql::attention_options;
using larql::errc;
using larql::tensor;
using larql::detail::simd_level;
using larql::testing::random_source;
using larql::testing::reference_attention;

template <class E>
tensor<E, 3> random_tensor(random_source& random, std::size_t a, std::size_t b, std::size_t c) {
    tensor<E, 3> out({a, b, c});
    random.fill_normal(out);
    return out;
}

std::vector<simd_level> usable_levels() {
    std::vector<simd_level> levels;
    for (const simd_level level : larql::detail::all_simd_levels)
        if (level <= larql::detail::detected_simd_level()) levels.push_back(level);
    return levels;
}

/// gqa_attention_asym by the code of one level.
template <class Q, class K, class V>
auto attend_at(simd_level level, const Q& q, const K& k, const V& v, const attention_options& options = {}) {
    using compute = larql::detail::attention_compute_t<Q, K, V>;
    larql::attention_scratch scratch;
    return larql::detail::attend_to_tensor<compute>(q, k, v, larql::detail::read_attention_shapes(q, k, v, options),
                                                    options, scratch, level);
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

struct sizes {
    std::size_t tokens, keys, heads, kv_heads, key_size, value_size;
};

std::string describe(const sizes& s) {
    std::string text;
    for (const std::size_t n : {s.tokens, s.keys, s.heads, s.kv_heads, s.key_size, s.value_size})
        text += std::to_string(n) + ' ';
    return text;
}

/// One random problem of these sizes and storage, at every level, against the double reference.
template <class K, class V = K>
void check_against_reference(const sizes& s, const attention_options& options = {}) {
    random_source random(s.tokens * 131 + s.keys * 31 + s.key_size);
    const auto q = random_tensor<float>(random, s.tokens, s.heads, s.key_size);
    const auto k = random_tensor<K>(random, s.keys, s.kv_heads, s.key_size);
    const auto v = random_tensor<V>(random, s.keys, s.kv_heads, s.value_size);
    const auto want = reference_attention<double>(q, k, v, options);
    for (const simd_level level : usable_levels()) {
        CAPTURE(larql::detail::to_string(level));
        CAPTURE(describe(s));
        CHECK(largest_difference(attend_at(level, q, k, v, options), want) <= tolerance(q, k, v, options));
    }
}

template <class F>
errc code_of(F&& f, std::string* text = nullptr) {
    try {
        f();
    } catch (const larql::error& e) {
        if (text != nullptr) *text = e.what();
        return e.code();
    }
    FAIL("no error");
    return errc::io;
}

}  // namespace

TEST_CASE("gqa_attention: agrees with the plain definition at sizes around the edges of blocks") {
    for (const std::size_t keys : {1U, 2U, 7U, 8U, 9U, 127U, 128U, 129U, 257U, 700U})
        for (const std::size_t tokens : {1U, 2U, 5U, 33U}) check_against_reference<float>({tokens, keys, 4, 2, 32, 32});
    for (const std::size_t size : {1U, 3U, 15U, 16U, 17U, 31U, 32U, 33U, 48U, 80U, 96U, 257U, 300U, 576U})
        for (const std::size_t tokens : {1U, 9U}) check_against_reference<float>({tokens, 20, 2, 1, size, 600 - size});
    for (const std::size_t tokens : {31U, 32U, 33U, 127U, 128U, 129U, 257U, 300U})
        check_against_reference<float>({tokens, tokens + 3, 3, 3, 24, 40});
}

TEST_CASE("gqa_attention: agrees with the plain definition for every size of a group") {
    for (const std::size_t group : {1U, 2U, 3U, 4U, 5U, 8U, 9U, 16U, 17U, 32U, 33U, 64U, 128U})
        for (const std::size_t tokens : {1U, 2U, 3U})
            check_against_reference<float>({tokens, 40, 2 * group, 2, 64, 32});
}

TEST_CASE("gqa_attention: reads keys and values in every storage") {
    for (const std::size_t heads : {1U, 4U, 8U, 40U})
        for (const std::size_t tokens : {1U, 6U})
            for (const std::size_t size : {64U, 36U}) {
                const sizes s{tokens, 150, heads, 1, size, size + 16};
                check_against_reference<float>(s);
                check_against_reference<larql::bf16>(s);
                check_against_reference<larql::f16>(s);
                check_against_reference<larql::f16, float>(s);
                check_against_reference<float, larql::bf16>(s);
            }
}
