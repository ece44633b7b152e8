// SPDX-License-Identifier: Apache-2.0
#include <larql/detail/attention/alibi.hpp>
#include <larql/gqa_attention.hpp>

#include <support/attention_checks.hpp>
#include <support/random.hpp>
#include <support/reference_attention.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace {

using larql::attention_options;
using larql::errc;
using larql::tensor;
using larql::detail::simd_level;
using larql::testing::attend_at;
using larql::testing::code_of;
using larql::testing::largest_difference;
using larql::testing::largest_magnitude;
using larql::testing::random_source;
using larql::testing::random_tensor;
using larql::testing::reference_attention;
using larql::testing::tolerance;
using larql::testing::usable_levels;

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

TEST_CASE("gqa_attention: agrees with the plain definition for every number of key/value heads") {
    for (const std::size_t kv_heads : {1U, 3U, 5U, 8U, 15U, 16U, 17U, 33U})
        for (const std::size_t group : {1U, 2U, 3U, 8U})
            for (const std::size_t tokens : {1U, 2U}) {
                const sizes s{tokens, 150, group * kv_heads, kv_heads, 32, 48};
                check_against_reference<larql::f16>(s);
                check_against_reference<float>(s, {.softcap = 2.0, .sliding_window = 20});
            }
}

TEST_CASE("gqa_attention: reads keys and values in every storage") {
    for (const std::size_t heads : {1U, 4U, 8U, 40U})
        for (const std::size_t tokens : {1U, 6U})
            for (const std::size_t size : {64U, 36U}) {
                const sizes s{tokens, 150, heads, 1, size, size + 16};
                check_against_reference<float>(s);
                check_against_reference<larql::bf16>(s);
                check_against_reference<larql::f16>(s);
                check_against_reference<larql::f8_e4m3>(s);
                check_against_reference<larql::f16, float>(s);
                check_against_reference<float, larql::bf16>(s);
            }
}

TEST_CASE("gqa_attention: every code of an 8-bit float is read as what it stands for") {
    auto q = tensor<float, 3>::from_shape({40, 1, 16});
    q.fill(0.5F);
    auto one = tensor<float, 3>::from_shape({1, 1, 16});
    one.fill(0.5F);
    auto k = tensor<larql::f8_e4m3, 3>::from_shape({1, 1, 16}), v = tensor<larql::f8_e4m3, 3>::from_shape({1, 1, 256});
    for (std::size_t i = 0; i < 256; ++i) v.data()[i].bits = static_cast<std::uint8_t>(i);
    for (const simd_level level : usable_levels()) {
        CAPTURE(larql::detail::to_string(level));
        const auto few = attend_at(level, one, k, v);
        const auto many = attend_at(level, q, k, v, {.causal = false});
        for (std::size_t i = 0; i < 256; ++i)
            for (const float got : {few(0, 0, i), many(7, 0, i)}) {
                const float want = v.data()[i];
                CHECK((std::isnan(want) ? std::isnan(got) : got == want));
                CHECK(std::isnan(want) == (i % 128 == 127));
            }
    }
}

TEST_CASE("f8_e4m3: numbers round to the nearest code, ties to the even one, and beyond the largest to NaN") {
    random_source random(17);
    for (std::size_t n = 0; n < 20000; ++n) {
        const auto exponent = static_cast<int>(random.below(23)) - 14;
        auto x = static_cast<float>(std::ldexp(random.uniform() * 2 - 1, exponent));
        if (n % 4 == 0) {  // halfway between two codes
            const auto code = static_cast<std::uint8_t>(random.below(126));
            x = (larql::f8_e4m3_to_float(code) + larql::f8_e4m3_to_float(static_cast<std::uint8_t>(code + 1))) / 2;
        }
        std::uint8_t best = 0;
        float distance = std::numeric_limits<float>::infinity();
        for (int code = 0; code < 127; ++code) {
            const float d = std::abs(std::abs(x) - larql::f8_e4m3_to_float(static_cast<std::uint8_t>(code)));
            if (d < distance || (d == distance && code % 2 == 0)) {
                best = static_cast<std::uint8_t>(code);
                distance = d;
            }
        }
        CHECK(larql::float_to_f8_e4m3(x) == (best | (std::signbit(x) ? 0x80 : 0)));
    }
    for (const float x : {464.1F, 480.0F, 1e30F, std::numeric_limits<float>::infinity(), std::nanf("")}) {
        CHECK(larql::float_to_f8_e4m3(x) == 0x7f);
        CHECK(larql::float_to_f8_e4m3(-x) == 0xff);
    }
    CHECK(larql::float_to_f8_e4m3(464.0F) == 0x7e);
    CHECK(larql::float_to_f8_e4m3(-0.0F) == 0x80);
}

TEST_CASE("gqa_attention: every combination of options agrees with the plain definition") {
    const std::vector<float> sinks{0.5F, -1.0F, 3.0F, 0.0F, 20.0F, -30.0F};
    for (const bool causal : {true, false})
        for (const double softcap : {0.0, 2.0})
            for (const std::size_t window : {0U, 1U, 5U, 130U, 1000U})
                for (const bool with_sinks : {false, true})
                    for (const std::size_t tokens : {1U, 3U, 40U}) {
                        attention_options options{.causal = causal, .softcap = softcap, .sliding_window = window};
                        if (with_sinks) options.sinks = sinks;
                        check_against_reference<float>({tokens, 300, 6, 2, 32, 16}, options);
                        options.scale = 0.3;
                        options.first_position = 150;
                        check_against_reference<larql::bf16>({tokens, 300, 6, 2, 20, 10}, options);
                    }
}

TEST_CASE("gqa_attention: scores fall with the distance of a key by the slope of the head") {
    const std::vector<float> slopes = larql::detail::alibi_slopes(6, 8.0);
    const std::vector<float> sinks{0.5F, -1.0F, 3.0F, 0.0F, 2.0F, -30.0F};
    for (const std::size_t tokens : {1U, 3U, 40U, 150U})
        for (const std::size_t keys : {1U, 7U, 300U, 2500U})
            for (const bool more : {false, true}) {
                attention_options options{.softcap = more ? 2.0 : 0.0, .alibi = slopes};
                if (more) options.sliding_window = 130;
                if (more) options.sinks = sinks;
                check_against_reference<float>({tokens, keys, 6, 2, 32, 16}, options);
                options.first_position = keys / 2;
                check_against_reference<larql::bf16>({tokens, keys, 6, 2, 20, 10}, options);
            }
    check_against_reference<float>({5, 40, 6, 2, 16, 16}, {.causal = false, .alibi = slopes});
}

TEST_CASE("gqa_attention: biases of distance in double, and in the weights") {
    random_source random(91);
    const std::vector<float> slopes = larql::detail::alibi_slopes(3, 8.0);
    const auto q = random_tensor<double>(random, 20, 3, 12), k = random_tensor<double>(random, 90, 1, 12);
    const auto v = random_tensor<double>(random, 90, 1, 9);
    const attention_options options{.alibi = slopes};
    const auto expected = reference_attention<double>(q, k, v, options);
    CHECK(largest_difference(larql::gqa_attention_asym(q, k, v, options), expected) <= 1e-12);
    const auto both = larql::gqa_attention_with_weights(q, k, v, options);
    for (std::size_t h = 0; h < 3; ++h) {
        const auto weights = larql::testing::reference_weights<double>(q, k, options, 19, h);
        for (std::size_t j = 0; j < 90; ++j) CHECK(both.weights(h, 19, j) == doctest::Approx(weights[j]).epsilon(1e-9));
    }
}

TEST_CASE("gqa_attention: slopes of heads are those of the paper, for any number of heads") {
    using larql::detail::alibi_slopes;
    CHECK(alibi_slopes(4, 8.0) == std::vector<float>{0.25F, 0.0625F, 0.015625F, 0.00390625F});
    CHECK(alibi_slopes(8, 8.0).front() == 0.5F);
    CHECK(alibi_slopes(3, 8.0) == std::vector<float>{0.0625F, 0.00390625F, 0.25F});
    CHECK(alibi_slopes(1, 8.0) == std::vector<float>{0.00390625F});
    CHECK(alibi_slopes(2, 4.0) == std::vector<float>{0.25F, 0.0625F});
}

TEST_CASE("gqa_attention: a chunk's tokens see no key of another chunk") {
    for (const std::size_t chunk : {std::size_t{1}, std::size_t{5}, std::size_t{64}, std::size_t{1000}})
        for (const std::size_t window : {std::size_t{0}, std::size_t{7}})
            for (const std::size_t tokens : {std::size_t{1}, std::size_t{3}, std::size_t{150}})
                for (const bool causal : {true, false}) {
                    CAPTURE(chunk);
                    CAPTURE(window);
                    check_against_reference<float>({tokens, 150, 6, 2, 32, 16},
                                                   {.causal = causal, .sliding_window = window, .chunk = chunk});
                }
}

TEST_CASE("gqa_attention: the error is no worse than that of a plain float program") {
    random_source random(11);
    for (const std::size_t tokens : {1U, 20U})
        for (const std::size_t heads : {2U, 64U}) {
            const auto q = random_tensor<float>(random, tokens, heads, 192);
            const auto k = random_tensor<float>(random, 900, 2, 192);
            const auto v = random_tensor<float>(random, 900, 2, 128);
            const auto truth = reference_attention<double>(q, k, v);
            const double plain = largest_difference(reference_attention<float>(q, k, v), truth);
            // The same sums in another order: 2 covers that a maximum over few numbers is itself random.
            for (const simd_level level : usable_levels()) {
                CAPTURE(larql::detail::to_string(level));
                CHECK(largest_difference(attend_at(level, q, k, v), truth) <= 2 * plain);
            }
        }
}

TEST_CASE("gqa_attention: large scores neither overflow nor lose the softmax") {
    random_source random(12);
    const auto q = random_tensor<float>(random, 3, 2, 16);
    const auto k = random_tensor<float>(random, 200, 1, 16);
    const auto v = random_tensor<float>(random, 200, 1, 16);
    const attention_options options{.scale = 300.0};
    const auto want = reference_attention<double>(q, k, v, options);
    for (const simd_level level : usable_levels())
        CHECK(largest_difference(attend_at(level, q, k, v, options), want) <= tolerance(q, k, v, options));
}

TEST_CASE("gqa_attention: double inputs are computed in double") {
    random_source random(13);
    const auto q = random_tensor<double>(random, 19, 6, 24);
    const auto k = random_tensor<double>(random, 150, 2, 24);
    const auto v = random_tensor<float>(random, 150, 2, 10);
    const std::vector<float> sinks(6, 0.25F);
    for (const attention_options& options :
         {attention_options{}, attention_options{.softcap = 3, .sliding_window = 70, .sinks = sinks}}) {
        const tensor<double, 3> got = larql::gqa_attention_asym(q, k, v, options);
        CHECK(largest_difference(got, reference_attention<double>(q, k, v, options)) < 1e-13);
    }
    const auto half = random_tensor<larql::f16>(random, 150, 2, 24);
    CHECK(largest_difference(larql::gqa_attention(q, half, half), reference_attention<double>(q, half, half)) < 1e-13);
}

TEST_CASE("gqa_attention: asym shape, finiteness, equality with sym within 1e-5, one token returns V") {
    random_source random(14);
    const auto q = random_tensor<float>(random, 12, 8, 64);
    const auto k = random_tensor<float>(random, 12, 2, 64);
    const auto v = random_tensor<float>(random, 12, 2, 64);
    const auto narrow = random_tensor<float>(random, 12, 2, 40);
    const auto asym = larql::gqa_attention_asym(q, k, narrow);
    CHECK(asym.shape()[0] == 12);
    CHECK(asym.shape()[1] == 8);
    CHECK(asym.shape()[2] == 40);
    for (const float x : asym) CHECK(std::isfinite(x));
    CHECK(largest_difference(larql::gqa_attention(q, k, v), larql::gqa_attention_asym(q, k, v)) == 0.0);

    const auto q1 = random_tensor<float>(random, 1, 8, 64);
    const auto k1 = random_tensor<float>(random, 1, 2, 64);
    const auto v1 = random_tensor<float>(random, 1, 2, 40);
    const auto one = larql::gqa_attention_asym(q1, k1, v1);
    for (std::size_t h = 0; h < 8; ++h)
        for (std::size_t c = 0; c < 40; ++c) CHECK(one(0, h, c) == v1(0, h / 4, c));
}

TEST_CASE("gqa_attention: with as many key heads as query heads it is plain multi-head attention, head by head") {
    random_source random(15);
    const auto q = random_tensor<float>(random, 10, 3, 16);
    const auto k = random_tensor<float>(random, 10, 3, 16);
    const auto v = random_tensor<float>(random, 10, 3, 16);
    const auto all = larql::gqa_attention(q, k, v);
    for (std::size_t h = 0; h < 3; ++h) {
        tensor<float, 3> part[3];
        const tensor<float, 3>* whole[3] = {&q, &k, &v};
        for (std::size_t i = 0; i < 3; ++i) {
            part[i].resize({10, 1, 16});
            for (std::size_t t = 0; t < 10; ++t)
                for (std::size_t d = 0; d < 16; ++d) part[i](t, 0, d) = (*whole[i])(t, h, d);
        }
        const auto one = larql::gqa_attention(part[0], part[1], part[2]);
        for (std::size_t t = 0; t < 10; ++t)
            for (std::size_t d = 0; d < 16; ++d) CHECK(std::abs(one(t, 0, d) - all(t, h, d)) < 1e-5F);
    }
}

TEST_CASE("gqa_attention: empty inputs and rows that see nothing give zeros") {
    random_source random(16);
    const auto some = random_tensor<float>(random, 3, 4, 8);
    const tensor<float, 3> none(std::array<std::size_t, 3>{0, 2, 8});
    const auto keys = random_tensor<float>(random, 3, 2, 8);
    const auto no_keys = larql::gqa_attention(some, none, none);
    CHECK(no_keys.shape() == some.shape());
    for (const float x : no_keys) CHECK(x == 0.0F);
    const auto no_tokens = larql::gqa_attention(tensor<float, 3>(std::array<std::size_t, 3>{0, 4, 8}), keys, keys);
    CHECK(no_tokens.shape() == std::array<std::size_t, 3>{0, 4, 8});

    // More tokens than keys: the first two stand before the first key. A window that has left all keys behind.
    const std::vector<float> sinks(4, 1.0F);
    const auto five = random_tensor<float>(random, 5, 4, 8);
    for (const simd_level level : usable_levels()) {
        const auto early = attend_at(level, five, keys, keys, {.sinks = sinks});
        for (std::size_t h = 0; h < 4; ++h)
            for (std::size_t c = 0; c < 8; ++c) {
                CHECK(early(0, h, c) == 0.0F);
                CHECK(early(1, h, c) == 0.0F);
                CHECK(early(2, h, c) != 0.0F);
            }
        for (const float x : attend_at(level, some, keys, keys, {.first_position = 100, .sliding_window = 4}))
            CHECK(x == 0.0F);
    }
    const tensor<float, 3> no_size(std::array<std::size_t, 3>{3, 2, 0});
    const auto mean = larql::gqa_attention_asym(tensor<float, 3>(std::array<std::size_t, 3>{3, 2, 0}), no_size, keys);
    CHECK(std::abs(mean(2, 1, 5) - (keys(0, 1, 5) + keys(1, 1, 5) + keys(2, 1, 5)) / 3) < 1e-6F);
    CHECK(larql::gqa_attention_asym(some, keys, no_size).size() == 0);
}

TEST_CASE("gqa_attention: containers of any layout, strided and lazy expressions give the same numbers") {
    random_source random(17);
    for (const std::size_t tokens : {1U, 20U}) {
        const auto q = random_tensor<float>(random, tokens, 4, 32);
        const auto k = random_tensor<float>(random, 70, 2, 32);
        const auto v = random_tensor<float>(random, 70, 2, 32);
        const auto want = larql::gqa_attention(q, k, v);
        const auto same = [&](const auto& a, const auto& b, const auto& c) {
            return largest_difference(larql::gqa_attention(a, b, c), want) == 0.0;
        };
        const xt::xtensor<float, 3, xt::layout_type::column_major> columns_q = q;
        const xt::xtensor<float, 3, xt::layout_type::column_major> columns_k = k;
        const xt::xarray<float> dynamic_v = v;
        CHECK(same(columns_q, columns_k, dynamic_v));
        CHECK(same(q * 1.0F, k + 0.0F, v));

        // A head-major cache with room to spare, [G, capacity, D] seen as [S, G, D].
        std::vector<float> cache(2 * 100 * 32, std::numeric_limits<float>::quiet_NaN());
        for (std::size_t j = 0; j < 70; ++j)
            for (std::size_t g = 0; g < 2; ++g)
                for (std::size_t d = 0; d < 32; ++d) cache[(g * 100 + j) * 32 + d] = k(j, g, d);
        const std::array<std::size_t, 3> shape{70, 2, 32};
        const std::array<std::ptrdiff_t, 3> strides{32, 100 * 32, 1};
        // Heads that lie apart are taken one by one, so that sums may round in another order.
        const auto heads_apart =
            xt::adapt(cache.data(), shape[0] * shape[1] * shape[2], xt::no_ownership(), shape, strides);
        CHECK(largest_difference(larql::gqa_attention(q, heads_apart, v), want) <= tolerance(q, k, v, {}));

        // Backwards in memory: strides may be negative.
        std::vector<float> backwards(v.size());
        for (std::size_t j = 0; j < 70; ++j) std::copy_n(v.data() + j * 64, 64, backwards.data() + (69 - j) * 64);
        const std::array<std::ptrdiff_t, 3> negative{-64, 32, 1};
        CHECK(same(q, k, xt::adapt(backwards.data() + 69 * 64, v.size(), xt::no_ownership(), shape, negative)));

        // Two dimensions, heads in the options.
        const auto flat = [](const tensor<float, 3>& x) {
            return xt::adapt(x.data(), x.size(), xt::no_ownership(),
                             std::array<std::size_t, 2>{x.shape()[0], x.shape()[1] * x.shape()[2]});
        };
        const attention_options heads{.num_q_heads = 4, .num_kv_heads = 2};
        CHECK(largest_difference(larql::gqa_attention(flat(q), flat(k), flat(v), heads), want) == 0.0);
    }
}

TEST_CASE("gqa_attention: values that are a prefix of the keys' memory are the same as a copy of them") {
    random_source random(18);
    for (const std::size_t heads : {1U, 16U, 128U})
        for (const std::size_t tokens : {1U, 3U}) {
            const auto q = random_tensor<float>(random, tokens, heads, 80);
            const auto check = [&](const auto& k) {
                using element = typename std::decay_t<decltype(k)>::value_type;
                tensor<element, 3> copy({k.shape()[0], 1, 64});
                for (std::size_t j = 0; j < k.shape()[0]; ++j) std::copy_n(k.data() + j * 80, 64, copy.data() + j * 64);
                const std::array<std::size_t, 3> shape{k.shape()[0], 1, 64};
                const std::array<std::size_t, 3> strides{80, 80, 1};
                const auto prefix = xt::adapt(k.data(), k.shape()[0] * 64, xt::no_ownership(), shape, strides);
                for (const simd_level level : usable_levels())
                    CHECK(largest_difference(attend_at(level, q, k, prefix), attend_at(level, q, k, copy)) == 0.0);
            };
            check(random_tensor<float>(random, 300, 1, 80));
            check(random_tensor<larql::f16>(random, 300, 1, 80));
        }
}

TEST_CASE("gqa_attention: a NaN stays in the rows that see it") {
    random_source random(19);
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    constexpr float infinity = std::numeric_limits<float>::infinity();
    for (const std::size_t tokens : {3U, 40U})
        for (const auto& [heads, kv_heads] : {std::pair{1U, 1U}, {4U, 1U}, {3U, 3U}})
            for (const float poison : {nan, infinity})
                for (const simd_level level : usable_levels()) {
                    CAPTURE(larql::detail::to_string(level));
                    auto q = random_tensor<float>(random, tokens, heads, 16);
                    auto k = random_tensor<float>(random, tokens + 5, kv_heads, 16);
                    auto v = random_tensor<float>(random, tokens + 5, kv_heads, 16);
                    const auto clean = attend_at(level, q, k, v);
                    const auto rows_changed = [&] {
                        const auto got = attend_at(level, q, k, v);
                        std::vector<bool> changed(tokens);
                        for (std::size_t i = 0; i < got.size(); ++i)
                            if (!(got.data()[i] == clean.data()[i])) changed[i / (heads * 16)] = true;
                        return changed;
                    };
                    v(tokens + 3, kv_heads - 1, 2) = poison;  // seen by the last two tokens
                    auto changed = rows_changed();
                    for (std::size_t t = 0; t < tokens; ++t) CHECK(changed[t] == (t + 2 >= tokens));
                    v(tokens + 3, kv_heads - 1, 2) = 0.5F;
                    k(tokens + 4, 0, 0) = nan;  // seen by the last token
                    changed = rows_changed();
                    CHECK(changed[tokens - 1]);
                    k(tokens + 4, 0, 0) = 0.5F;
                    q(1, 0, 0) = nan;
                    const auto got = attend_at(level, q, k, v);
                    for (std::size_t c = 0; c < 16; ++c) {
                        CHECK(std::isnan(got(1, 0, c)));
                        CHECK(std::isfinite(got(0, 0, c)));
                        CHECK(std::isfinite(got(2, 0, c)));
                        if (heads > 1) CHECK(std::isfinite(got(1, 1, c)));
                    }
                }
}

// Which kernel adds a block of values depends on what its neighbours see, on NaN among them, and on the number of
// threads. So however a compiler treats each of them, the bits must be the same.
TEST_CASE("gqa_attention: kernels for several rows and for one add values with the same bits") {
    random_source random(23);
    constexpr std::size_t keys = 100, width = 32;
    for (const simd_level level : usable_levels()) {
        CAPTURE(larql::detail::to_string(level));
        const larql::detail::level_kernels& kernels = larql::detail::choose_level_kernels(level);
        const std::size_t columns = 5 * kernels.tile.lanes;  // groups of vectors and single ones
        const auto values = random_tensor<float>(random, 1, keys, columns);
        auto weights = random_tensor<float>(random, 1, keys, width);
        const auto before = random_tensor<float>(random, 1, width, columns);
        const auto keep = random_tensor<float>(random, 1, 1, width);
        const auto same = [&](const tensor<float, 3>& a, const tensor<float, 3>& b, std::size_t rows) {
            return std::equal(a.data(), a.data() + rows * columns, b.data());
        };

        auto together = before;
        auto alone = before;
        const std::size_t several = 2 * kernels.value_rows;
        kernels.add_values(weights.data(), width, values.data(), columns, keys, keep.data(), together.data(), columns,
                           several);
        kernels.add_values_one_by_one(weights.data(), width, values.data(), columns, keys, keep.data(), alone.data(),
                                      columns, several);
        CHECK(same(together, alone, several));

        const larql::detail::storage_kernels& few = larql::detail::choose_storage_kernels<float>(level);
        const larql::detail::stored_heads stored{reinterpret_cast<const std::byte*>(values.data()),
                                                 static_cast<std::ptrdiff_t>(columns * sizeof(float)), 0, keys, 1};
        for (std::size_t i = 0; i < larql::detail::few_rows_count && few.add[i] != nullptr; ++i) {
            const std::size_t rows = larql::detail::few_rows[i];
            CAPTURE(rows);
            together = before;
            alone = before;
            few.add[i](stored, columns, weights.data(), width, together.data());
            for (std::size_t r = 0; r < rows; ++r)
                few.add[0](stored, columns, weights.data() + r, width, alone.data() + r * columns);
            CHECK(same(together, alone, rows));
        }
    }
}

TEST_CASE("gqa_attention: the number of threads changes no bit of the result") {
    random_source random(20);
    const sizes shapes[] = {
        {130, 130, 4, 2, 32, 16}, {1, 3000, 4, 2, 32, 32}, {1, 2500, 128, 1, 72, 64}, {5, 1100, 8, 2, 33, 20}};
    for (const sizes& s : shapes) {
        const auto q = random_tensor<float>(random, s.tokens, s.heads, s.key_size);
        const auto k = random_tensor<larql::bf16>(random, s.keys, s.kv_heads, s.key_size);
        const auto v = random_tensor<larql::bf16>(random, s.keys, s.kv_heads, s.value_size);
        const auto want = reference_attention<double>(q, k, v);
        larql::serial_executor serial;
        for (const simd_level level : usable_levels()) {
            const auto one = attend_at(level, q, k, v, {.threads = &serial});
            CHECK(largest_difference(one, want) <= tolerance(q, k, v, {}));
            for (const std::size_t threads : {2U, 3U, 4U}) {
                larql::thread_pool pool(threads);
                for (int round = 0; round < 3; ++round)
                    CHECK(largest_difference(attend_at(level, q, k, v, {.threads = &pool}), one) == 0.0);
            }
        }
    }
}

TEST_CASE("gqa_attention_into: fills containers, strided views and other number types, and reuses its scratch") {
    random_source random(21);
    const auto q = random_tensor<float>(random, 5, 4, 16);
    const auto k = random_tensor<float>(random, 9, 2, 16);
    const auto v = random_tensor<float>(random, 9, 2, 24);
    const auto want = larql::gqa_attention_asym(q, k, v);
    larql::attention_scratch scratch;
    tensor<float, 3> out({5, 4, 24});
    larql::gqa_attention_into(q, k, v, out, {}, scratch);
    CHECK(largest_difference(out, want) == 0.0);
    const std::size_t used = scratch.size_bytes();
    CHECK(used > 0);
    const float* const memory = out.data();
    larql::gqa_attention_into(q, k, v, out, {}, scratch);
    CHECK(scratch.size_bytes() == used);
    CHECK(out.data() == memory);

    // Rows with a gap between them, which stays as it was; two dimensions; column-major; double.
    std::vector<float> gaps(5 * 100, -7.0F);
    const std::array<std::size_t, 3> shape{5, 4, 24};
    const std::array<std::size_t, 3> strides{100, 24, 1};
    larql::gqa_attention_into(q, k, v, xt::adapt(gaps.data(), 5 * 96, xt::no_ownership(), shape, strides));
    for (std::size_t t = 0; t < 5; ++t) {
        CHECK(gaps[t * 100 + 95] == want(t, 3, 23));
        CHECK(gaps[t * 100 + 96] == -7.0F);
    }
    tensor<float, 2> flat(std::array<std::size_t, 2>{5, 96});
    larql::gqa_attention_into(q, k, v, flat);
    CHECK(flat(4, 25) == want(4, 1, 1));
    xt::xtensor<double, 3, xt::layout_type::column_major> columns(std::array<std::size_t, 3>{5, 4, 24});
    larql::gqa_attention_into(q, k, v, columns);
    CHECK(columns(4, 1, 1) == static_cast<double>(want(4, 1, 1)));

    tensor<float, 3> wrong({5, 4, 16});
    std::string text;
    CHECK(code_of([&] { larql::gqa_attention_into(q, k, v, wrong); }, &text) == errc::shape_mismatch);
    CHECK(text == "out: shape [5, 4, 16], expected [5, 4, 24]");
}

TEST_CASE("gqa_attention_with_weights: weights are the softmax, and agree with the output") {
    random_source random(22);
    const auto q = random_tensor<float>(random, 6, 4, 16);
    const auto k = random_tensor<larql::bf16>(random, 11, 2, 16);
    const auto v = random_tensor<larql::bf16>(random, 11, 2, 8);
    const std::vector<float> sinks{0.0F, 1.0F, -2.0F, 5.0F};
    for (const attention_options& options :
         {attention_options{}, attention_options{.softcap = 1.5, .sliding_window = 4, .sinks = sinks}}) {
        const auto all = larql::gqa_attention_with_weights(q, k, v, options);
        const auto last = larql::gqa_attention_with_last_weights(q, k, v, options);
        CHECK(all.weights.shape() == std::array<std::size_t, 3>{4, 6, 11});
        CHECK(last.weights.shape() == std::array<std::size_t, 2>{4, 11});
        CHECK(largest_difference(all.output, larql::gqa_attention_asym(q, k, v, options)) == 0.0);
        CHECK(largest_difference(last.output, all.output) == 0.0);
        for (std::size_t h = 0; h < 4; ++h)
            for (std::size_t t = 0; t < 6; ++t) {
                const auto want = larql::testing::reference_weights<double>(q, k, options, t, h);
                for (std::size_t j = 0; j < 11; ++j) {
                    CHECK(std::abs(static_cast<double>(all.weights(h, t, j)) - want[j]) < 2e-6);
                    if (want[j] == 0) CHECK(all.weights(h, t, j) == 0.0F);
                    if (t == 5) CHECK(last.weights(h, j) == all.weights(h, t, j));
                }
            }
    }
}

/// Lists of different lengths: none, one key, a few, all; some reach beyond what the token may see.
larql::key_selection random_lists(random_source& random, std::size_t tokens, std::size_t keys) {
    larql::key_selection lists;
    for (std::size_t t = 0; t < tokens; ++t) {
        const double share = std::array{0.0, 1.0, 0.02, 0.5, 0.9}[(t + keys) % 5];
        std::vector<std::uint32_t> list;
        for (std::size_t j = 0; j < keys; ++j)
            if (random.uniform() < share) list.push_back(static_cast<std::uint32_t>(j));
        if (t % 7 == 3) list = {static_cast<std::uint32_t>(t % keys)};
        lists.append(list);
    }
    return lists;
}

TEST_CASE("gqa_attention: tokens with lists of keys see these alone, whatever the storage and the other options") {
    random_source random(30);
    const std::vector<float> sinks{0.5F, -1.0F, 3.0F, 0.0F, 20.0F, -30.0F};
    for (const std::size_t tokens : {1U, 2U, 7U, 40U})
        for (const std::size_t keys : {1U, 33U, 300U, 700U})
            for (const bool causal : {true, false})
                for (const std::size_t window : {0U, 150U}) {
                    const larql::key_selection lists = random_lists(random, tokens, keys);
                    attention_options options{.causal = causal, .sliding_window = window, .key_lists = lists.view()};
                    check_against_reference<float>({tokens, keys, 6, 2, 32, 16}, options);
                    check_against_reference<larql::f16>({tokens, keys, 6, 6, 24, 40}, options);
                    options.softcap = 2.0;
                    options.sinks = sinks;
                    check_against_reference<larql::bf16>({tokens, keys, 6, 1, 72, 64}, options);
                    options.first_position = keys / 2;
                    check_against_reference<larql::bf16>({tokens, keys, 6, 1, 20, 10}, options);
                }
}

TEST_CASE("gqa_attention: lists of keys in double, with values that are a prefix of the keys, and with weights") {
    random_source random(31);
    const auto q = random_tensor<double>(random, 9, 4, 24);
    const auto k = random_tensor<double>(random, 21, 1, 24);
    const std::array<std::size_t, 3> shape{21, 1, 16}, strides{24, 24, 1};
    const auto v = xt::adapt(k.data(), 21 * 16, xt::no_ownership(), shape, strides);
    const larql::key_selection lists = random_lists(random, 9, 21);
    const attention_options options{.key_lists = lists.view()};
    CHECK(largest_difference(larql::gqa_attention_asym(q, k, v, options),
                             reference_attention<double>(q, k, v, options)) < 1e-13);
    const tensor<float, 3> single = xt::cast<float>(k);
    const tensor<float, 3> single_q = xt::cast<float>(q);
    const auto prefix = xt::adapt(single.data(), 21 * 16, xt::no_ownership(), shape, strides);
    CHECK(largest_difference(larql::gqa_attention_asym(single_q, single, prefix, options),
                             reference_attention<double>(single_q, single, prefix, options)) <
          tolerance(single_q, single, prefix, options));
    const auto weighed = larql::gqa_attention_with_weights(q, k, v, options);
    for (std::size_t t = 0; t < 9; ++t) {
        const auto want = larql::testing::reference_weights<double>(q, k, options, t, 1);
        for (std::size_t j = 0; j < 21; ++j) {
            CHECK(std::abs(weighed.weights(1, t, j) - want[j]) < 1e-13);
            if (want[j] == 0) CHECK(weighed.weights(1, t, j) == 0.0);
        }
    }
}

TEST_CASE("gqa_attention: lists of every key give what no lists give, and threads change no bit") {
    random_source random(32);
    const auto q = random_tensor<float>(random, 20, 8, 64);
    const auto k = random_tensor<larql::bf16>(random, 900, 2, 64);
    const auto v = random_tensor<larql::bf16>(random, 900, 2, 48);
    larql::key_selection all;
    std::vector<std::uint32_t> positions(900);
    for (std::uint32_t j = 0; j < 900; ++j) positions[j] = j;
    for (int t = 0; t < 20; ++t) all.append(positions);
    larql::serial_executor serial;
    CHECK(largest_difference(larql::gqa_attention_asym(q, k, v, {.key_lists = all.view(), .threads = &serial}),
                             larql::gqa_attention_asym(q, k, v, {.threads = &serial})) == 0.0);
    const larql::key_selection lists = random_lists(random, 20, 900);
    tensor<float, 3> last({1, 8, 64});
    std::copy_n(q.data() + 19 * 8 * 64, 8 * 64, last.data());
    larql::key_selection of_last;
    of_last.append(std::vector<std::uint32_t>(positions.begin() + 3, positions.end() - 2));
    const auto one = larql::gqa_attention_asym(q, k, v, {.key_lists = lists.view(), .threads = &serial});
    const auto one_last = larql::gqa_attention_asym(last, k, v, {.key_lists = of_last.view(), .threads = &serial});
    for (const std::size_t threads : {2U, 3U, 30U}) {
        larql::thread_pool pool(threads);
        CHECK(largest_difference(larql::gqa_attention_asym(q, k, v, {.key_lists = lists.view(), .threads = &pool}),
                                 one) == 0.0);
        CHECK(largest_difference(larql::gqa_attention_asym(last, k, v, {.key_lists = of_last.view(), .threads = &pool}),
                                 one_last) == 0.0);
    }
    // Memory is reused from call to call.
    larql::attention_scratch scratch;
    tensor<float, 3> out({20, 8, 48});
    const attention_options options{.key_lists = lists.view(), .threads = &serial};
    larql::gqa_attention_into(q, k, v, out, options, scratch);
    const std::size_t used = scratch.size_bytes();
    larql::gqa_attention_into(q, k, v, out, options, scratch);
    CHECK(scratch.size_bytes() == used);
    CHECK(largest_difference(out, one) == 0.0);
}

TEST_CASE("gqa_attention: keys in no list are not read") {
    random_source random(33);
    const auto q = random_tensor<float>(random, 4, 2, 16);
    auto k = random_tensor<float>(random, 40, 2, 16), v = random_tensor<float>(random, 40, 2, 16);
    larql::key_selection lists;
    for (int t = 0; t < 4; ++t) lists.append(std::vector<std::uint32_t>{1, 5, 30});
    const auto want = larql::gqa_attention(q, k, v, {.key_lists = lists.view()});
    for (std::size_t j = 0; j < 40; ++j)
        if (j != 1 && j != 5 && j != 30)
            for (std::size_t d = 0; d < 16; ++d) k(j, 1, d) = v(j, 0, d) = std::nanf("");
    CHECK(largest_difference(larql::gqa_attention(q, k, v, {.key_lists = lists.view()}), want) == 0.0);
}

TEST_CASE("gqa_attention: lists that do not fit are refused") {
    random_source random(34);
    const auto q = random_tensor<float>(random, 2, 2, 8);
    const auto k = random_tensor<float>(random, 5, 2, 8);
    std::string text;
    const auto refused = [&](std::vector<std::size_t> begins, std::vector<std::uint32_t> keys) {
        return code_of([&] { larql::gqa_attention(q, k, k, {.key_lists = {begins, keys}}); }, &text);
    };
    CHECK(refused({0, 1}, {0}) == errc::shape_mismatch);
    CHECK(text == "key_lists: 1 lists, q has 2 tokens");
    CHECK(refused({0, 1, 2}, {0, 5}) == errc::shape_mismatch);
    CHECK(text == "key_lists: list 1 has key 5, there are 5");
    CHECK(refused({0, 2, 3}, {1, 1, 0}) == errc::bad_value);
    CHECK(text == "key_lists: expected ascending positions, list 0 has 1, 1");
    CHECK(refused({0, 0, 2}, {3, 2}) == errc::bad_value);
    CHECK(refused({1, 1, 2}, {3, 4}) == errc::bad_value);
    CHECK(text == "key_lists: expected begins from 0 to 2, got 1 to 2");
    CHECK(refused({0, 1, 3}, {3, 4}) == errc::bad_value);
    CHECK(refused({0, 3, 2}, {3, 4}) == errc::bad_value);
    CHECK(text == "key_lists: list 0 ends at 3, it begins at 0 of 2");
}

TEST_CASE("gqa_attention: slopes that do not fit are refused") {
    random_source random(92);
    const auto q = random_tensor<float>(random, 2, 2, 4), k = random_tensor<float>(random, 3, 1, 4);
    const std::vector<float> slopes{0.5F, 0.25F, 0.125F};
    std::string text;
    CHECK(code_of([&] { (void)larql::gqa_attention(q, k, k, {.alibi = slopes}); }, &text) == errc::shape_mismatch);
    CHECK(text.find("3 slopes, q has 2 heads") != text.npos);
    const std::vector<std::size_t> begins{0, 1, 1};
    const std::vector<std::uint32_t> keys{0};
    const attention_options both{.alibi = std::span(slopes).first(2), .key_lists = {.begins = begins, .keys = keys}};
    CHECK(code_of([&] { (void)larql::gqa_attention(q, k, k, both); }) == errc::bad_value);
}

TEST_CASE("gqa_attention: sizes that disagree are refused with both numbers") {
    const auto zeros = [](std::size_t a, std::size_t b, std::size_t c) {
        return tensor<float, 3>(std::array<std::size_t, 3>{a, b, c}, 0.0F);
    };
    std::string text;
    const auto refused = [&](const auto& q, const auto& k, const auto& v, const attention_options& options = {}) {
        CHECK(code_of([&] { (void)larql::gqa_attention(q, k, v, options); }, &text) == errc::shape_mismatch);
        return text;
    };
    CHECK(refused(zeros(2, 4, 8), zeros(3, 2, 9), zeros(3, 2, 9)) == "k: head size 9, q has 8");
    CHECK(refused(zeros(2, 4, 8), zeros(3, 2, 8), zeros(4, 2, 8)) == "v: 4 tokens, k has 3");
    CHECK(refused(zeros(2, 4, 8), zeros(3, 2, 8), zeros(3, 1, 8)) == "v: 1 heads, k has 2");
    CHECK(refused(zeros(2, 5, 8), zeros(3, 2, 8), zeros(3, 2, 8)) ==
          "q: 5 heads are not a multiple of the 2 key/value heads");
    CHECK(refused(zeros(2, 4, 8), zeros(3, 2, 8), zeros(3, 2, 6)) ==
          "v: value head size 6, key head size 8; gqa_attention_asym takes unequal sizes");
    CHECK(refused(zeros(2, 4, 8), zeros(3, 2, 8), zeros(3, 2, 8), {.num_q_heads = 3}) ==
          "q: has 4 heads, num_q_heads says 3");
    const std::vector<float> three(3);
    CHECK(refused(zeros(2, 4, 8), zeros(3, 2, 8), zeros(3, 2, 8), {.sinks = three}) ==
          "sinks: 3 logits, q has 4 heads");
    const tensor<float, 2> flat(std::array<std::size_t, 2>{2, 32}, 0.0F);
    CHECK(refused(flat, zeros(3, 2, 8), zeros(3, 2, 8)) == "q: of 2 dimensions needs num_q_heads");
    CHECK(refused(flat, zeros(3, 2, 8), zeros(3, 2, 8), {.num_q_heads = 5}) ==
          "q: has rows of 32 elements, not a multiple of num_q_heads = 5");
    const tensor<float, 1> line(std::array<std::size_t, 1>{8}, 0.0F);
    CHECK(refused(line, zeros(3, 2, 8), zeros(3, 2, 8)) ==
          "q: has 1 dimensions, expected 3, or 2 with the heads in the options");
    CHECK(code_of([&] {
              (void)larql::gqa_attention(zeros(1, 1, 1), zeros(1, 1, 1), zeros(1, 1, 1), {.softcap = -1});
          }) == errc::bad_value);
}
