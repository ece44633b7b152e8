// SPDX-License-Identifier: Apache-2.0
#include <larql/rope.hpp>
#include <support/random.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <vector>

namespace {

using larql::make_rope_table;
using larql::rope_config;
using larql::rope_kind;
using larql::rope_pairing;
using larql::rope_table;
using larql::tensor;

/// Frequencies that transformers 5.23 computes in float32: ROPE_INIT_FUNCTIONS[kind](config), printed with repr().
void check_frequencies(const rope_config& rope, const std::vector<double>& want, double magnitude,
                       double sequence_length = 0) {
    const rope_table table = make_rope_table(rope, sequence_length);
    REQUIRE(table.frequencies.size() == want.size());
    for (std::size_t j = 0; j < want.size(); ++j)
        CHECK(table.frequencies[j] == doctest::Approx(want[j]).epsilon(3e-7));  // a few float32 roundings
    CHECK(table.magnitude == doctest::Approx(magnitude).epsilon(1e-7));
}

}  // namespace

TEST_CASE("rope: frequencies of every kind are those of transformers"){
#include "rope_golden.inc"
}

TEST_CASE("rope: the softmax factor m") {
    rope_config rope{.kind = rope_kind::yarn, .rotary_dim = 4, .factor = 40.0};
    CHECK(larql::attention_mscale(rope) == 1.0);  // no mscale_all_dim
    rope.mscale_all_dim = 1.0;
    CHECK(larql::attention_mscale(rope) == doctest::Approx(1.3688879454));
    rope.factor = 0.5;
    CHECK(larql::attention_mscale(rope) == 1.0);
    rope.factor = 40.0;
    rope.kind = rope_kind::standard;
    CHECK(larql::attention_mscale(rope) == 1.0);
}

TEST_CASE("rope: rotates pairs by the position's angle, in both pairings, and nothing else") {
    rope_table table{.frequencies = {1.0, 0.25}, .magnitude = 2.0};
    for (const rope_pairing pairing : {rope_pairing::interleaved, rope_pairing::half_split}) {
        auto x = tensor<double, 3>::from_shape({2, 2, 6});
        larql::testing::random_source random(3);
        random.fill_normal(x);
        const auto before = x;
        larql::apply_rope(x, 1, table, pairing, 5);
        const std::size_t step = pairing == rope_pairing::interleaved ? 2 : 1;
        const std::size_t other = pairing == rope_pairing::interleaved ? 1 : 2;
        for (std::size_t t = 0; t < 2; ++t)
            for (std::size_t h = 0; h < 2; ++h) {
                CHECK(x(t, h, 0) == before(t, h, 0));
                CHECK(x(t, h, 5) == before(t, h, 5));
                for (std::size_t j = 0; j < 2; ++j) {
                    const double angle = static_cast<double>(5 + t) * table.frequencies[j];
                    const double a = before(t, h, 1 + j * step), b = before(t, h, 1 + j * step + other);
                    CHECK(x(t, h, 1 + j * step) ==
                          doctest::Approx(2.0 * (a * std::cos(angle) - b * std::sin(angle))).epsilon(1e-14));
                    CHECK(x(t, h, 1 + j * step + other) ==
                          doctest::Approx(2.0 * (a * std::sin(angle) + b * std::cos(angle))).epsilon(1e-14));
                }
            }
    }
}

TEST_CASE("rope: no pairing and no rotated elements leave heads as they are") {
    auto x = tensor<float, 3>::from_shape({1, 1, 4});
    x.fill(3.0F);
    const auto before = x;
    larql::apply_rope(x, 0, rope_table{.frequencies = {1.0, 1.0}}, rope_pairing::none, 9);
    CHECK(x == before);
    larql::apply_rope(x, 0, rope_table{}, rope_pairing::half_split, 9);
    CHECK(x == before);
}

TEST_CASE("rope: float angles stay exact at position 163839") {
    rope_table table{.frequencies = {1.0}};
    auto x = tensor<float, 3>::from_shape({1, 1, 2});
    x(0, 0, 0) = 1.0F;
    x(0, 0, 1) = 0.0F;
    larql::apply_rope(x, 0, table, rope_pairing::interleaved, 163839);
    CHECK(x(0, 0, 0) == static_cast<float>(std::cos(163839.0)));
    CHECK(x(0, 0, 1) == static_cast<float>(std::sin(163839.0)));
}

TEST_CASE("rope: permuted rows rotated in the new pairing are the old rows rotated in the old one") {
    larql::testing::random_source random(4);
    const std::size_t heads = 2, dim = 7, begin = 1, rope = 6;
    auto weight = tensor<double, 2>::from_shape({heads * dim, 3});
    random.fill_normal(weight);
    const rope_table table = make_rope_table({.rotary_dim = rope, .theta = 100.0});
    const auto rotated = [&](const tensor<double, 2>& w, rope_pairing pairing) {
        auto x = tensor<double, 3>::from_shape({1, heads, dim});
        for (std::size_t i = 0; i < heads * dim; ++i) x.data()[i] = w(i, 0) - 2.0 * w(i, 1) + 0.5 * w(i, 2);
        larql::apply_rope(x, begin, table, pairing, 11);
        return x;
    };
    for (const auto& [from, to] : {std::pair{rope_pairing::interleaved, rope_pairing::half_split},
                                   std::pair{rope_pairing::half_split, rope_pairing::interleaved}}) {
        const auto permuted = larql::permute_rope_rows(weight, dim, begin, rope, from, to);
        CHECK(permuted != weight);
        CHECK(larql::permute_rope_rows(permuted, dim, begin, rope, to, from) == weight);
        const auto old_heads = rotated(weight, from), new_heads = rotated(permuted, to);
        const auto order = larql::rope_row_order(rope, from, to);
        for (std::size_t h = 0; h < heads; ++h) {
            CHECK(new_heads(0, h, 0) == old_heads(0, h, 0));
            for (std::size_t i = 0; i < rope; ++i)
                CHECK(new_heads(0, h, begin + i) == doctest::Approx(old_heads(0, h, begin + order[i])).epsilon(1e-13));
        }
    }
    CHECK(larql::rope_row_order(4, rope_pairing::interleaved, rope_pairing::half_split) ==
          std::vector<std::size_t>{0, 2, 1, 3});
}

TEST_CASE("rope: refuses odd sizes, wrong factors and heads that are too short") {
    CHECK_THROWS_AS(make_rope_table({.rotary_dim = 5}), larql::error);
    CHECK_THROWS_AS(larql::rope_row_order(5, rope_pairing::interleaved, rope_pairing::half_split), larql::error);
    CHECK_THROWS_AS(make_rope_table({.rotary_dim = 4, .theta = -1.0}), larql::error);
    CHECK_THROWS_AS(make_rope_table({.kind = rope_kind::linear, .rotary_dim = 4, .factor = 0.0}), larql::error);
    CHECK_THROWS_AS(make_rope_table({.kind = rope_kind::divisors, .rotary_dim = 4, .divisors = {1.0}}), larql::error);
    CHECK_THROWS_AS(make_rope_table({.kind = rope_kind::yarn, .rotary_dim = 4, .factor = 2.0}), larql::error);
    auto x = tensor<float, 3>::from_shape({1, 1, 3});
    CHECK_THROWS_WITH_AS(larql::apply_rope(x, 2, rope_table{.frequencies = {1.0}}, rope_pairing::half_split),
                         "apply_rope: rotated elements end at 4, the head has 3", larql::error);
}
