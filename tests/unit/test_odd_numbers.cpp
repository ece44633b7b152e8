// SPDX-License-Identifier: Apache-2.0
//
// Attention of numbers that are not what models mostly hold: infinite, not a number, denormal, zero, very large; and
// options at the ends of their ranges. Held against the plain definition in double.
#include <larql/attention_layer.hpp>
#include <larql/checkpoint.hpp>
#include <larql/gqa_attention.hpp>
#include <larql/kv_cache.hpp>

#include <support/files.hpp>
#include <support/random.hpp>
#include <support/reference_attention.hpp>
#include <support/tiny_model.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace {

using larql::attention_options;
using larql::errc;
using larql::kv_cache;
using larql::tensor;
using larql::testing::random_source;
using larql::testing::reference_attention;
using tensor3 = tensor<float, 3>;

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float largest = std::numeric_limits<float>::max();

tensor3 random_tensor(random_source& random, std::size_t a, std::size_t b, std::size_t c, double scale = 1.0) {
    tensor3 out({a, b, c});
    random.fill_normal(out, scale);
    return out;
}

struct operands {
    tensor3 q, k, v;
};

/// `tokens` for the kernels of few rows and of many; 70 keys, so that no block is full.
operands make_operands(std::size_t tokens, double q_scale = 1.0, double k_scale = 1.0, double v_scale = 1.0) {
    random_source random(tokens);
    return {random_tensor(random, tokens, 4, 24, q_scale), random_tensor(random, 70, 2, 24, k_scale),
            random_tensor(random, 70, 2, 16, v_scale)};
}

/// The largest difference from the double reference, in units of the largest value.
double error_of(const operands& o, const attention_options& options) {
    const auto got = larql::gqa_attention_asym(o.q, o.k, o.v, options);
    const auto want = reference_attention<double>(o.q, o.k, o.v, options);
    double worst = 0, unit = 0;
    for (const float x : o.v) unit = std::max(unit, std::abs(static_cast<double>(x)));
    for (std::size_t i = 0; i < got.size(); ++i) {
        const double difference = std::abs(static_cast<double>(got.data()[i]) - want.data()[i]);
        if (!(difference <= worst)) worst = difference;  // takes a NaN
        if (std::isnan(worst)) return worst;
    }
    return worst / unit;
}

/// Tokens of whose rows any element is not finite.
std::set<std::size_t> odd_rows(const tensor3& x) {
    std::set<std::size_t> rows;
    const std::size_t row = x.shape(1) * x.shape(2);
    for (std::size_t i = 0; i < x.size(); ++i)
        if (!std::isfinite(x.data()[i])) rows.insert(i / row);
    return rows;
}

constexpr std::array<std::size_t, 2> few_and_many = {3, 40};

}  // namespace

TEST_CASE("odd numbers: a scale of 0 weighs all keys the same, of either sign and any cap") {
    for (const std::size_t tokens : few_and_many) {
        const operands o = make_operands(tokens);
        for (const double scale : {0.0, -0.0, 1e-300, -0.7})
            for (const double softcap : {0.0, 3.0}) CHECK(error_of(o, {.scale = scale, .softcap = softcap}) < 1e-5);
        const auto got = larql::gqa_attention_asym(o.q, o.k, o.v, {.scale = 0.0, .first_position = 0});
        for (std::size_t c = 0; c < 16; ++c) CHECK(got(0, 0, c) == o.v(0, 0, c));  // one key, and all of it
    }
}

TEST_CASE("odd numbers: rows of zeros in queries, keys and values are numbers like others") {
    for (const std::size_t tokens : few_and_many)
        for (int which = 0; which < 3; ++which) {
            operands o = make_operands(tokens);
            tensor3& zeroed = which == 0 ? o.q : which == 1 ? o.k : o.v;
            const std::size_t row = zeroed.shape(1) * zeroed.shape(2);
            std::fill_n(zeroed.data() + row, row, 0.0F);
            CHECK(error_of(o, {}) < 1e-5);
            std::fill(zeroed.begin(), zeroed.end(), 0.0F);
            const auto got = larql::gqa_attention_asym(o.q, o.k, o.v);
            CHECK(odd_rows(got).empty());
            if (which == 2) CHECK(std::all_of(got.begin(), got.end(), [](float x) { return x == 0.0F; }));
        }
}

TEST_CASE("odd numbers: scores of ten thousand keep what float keeps of them") {
    // A score of 1e4 has an error of about 1e-3, by which the weights then differ, relatively.
    for (const std::size_t tokens : few_and_many)
        for (const double softcap : {0.0, 50.0, 2e4}) {
            const operands o = make_operands(tokens, 50.0, 50.0);
            CHECK(error_of(o, {.scale = 1.0, .softcap = softcap}) < 1e-2);
            CHECK(error_of(o, {.scale = -1.0, .softcap = softcap}) < 1e-2);
        }
}

TEST_CASE("odd numbers: denormals are neither flushed nor in the way") {
    for (const std::size_t tokens : few_and_many) {
        CHECK(error_of(make_operands(tokens, 1e-40, 1e-40), {}) < 1e-5);
        CHECK(error_of(make_operands(tokens, 1e-20, 1e20), {}) < 1e-5);
        // Of values this small, sums are exact to about one unit in the last place for every key.
        const operands small = make_operands(tokens, 1.0, 1.0, 1e-41);
        const auto got = larql::gqa_attention_asym(small.q, small.k, small.v);
        const auto want = reference_attention<double>(small.q, small.k, small.v);
        double worst = 0;
        for (std::size_t i = 0; i < got.size(); ++i)
            worst = std::max(worst, std::abs(static_cast<double>(got.data()[i]) - want.data()[i]));
        CHECK(worst < 80 * static_cast<double>(std::numeric_limits<float>::denorm_min()));
    }
}

TEST_CASE("odd numbers: windows and chunks of any 64-bit length") {
    for (const std::size_t tokens : few_and_many) {
        const operands o = make_operands(tokens);
        const auto all = larql::gqa_attention_asym(o.q, o.k, o.v);
        for (const std::size_t length :
             {std::size_t{70}, std::size_t{1} << 32, std::size_t{1} << 62, std::size_t{1} << 63, SIZE_MAX}) {
            CAPTURE(length);
            CHECK(error_of(o, {.sliding_window = length}) < 1e-5);
            CHECK(error_of(o, {.chunk = length}) < 1e-5);
            CHECK(larql::gqa_attention_asym(o.q, o.k, o.v, {.sliding_window = length}) == all);
            CHECK(larql::gqa_attention_asym(o.q, o.k, o.v, {.chunk = length}) == all);
        }
        CHECK(error_of(o, {.sliding_window = 1}) < 1e-5);
        CHECK(error_of(o, {.chunk = 1}) < 1e-5);
    }
}

TEST_CASE("odd numbers: what no row may see changes nothing, not even rows that see no key") {
    for (const std::size_t tokens : few_and_many)
        for (const float poison : {not_a_number, infinity}) {
            operands o = make_operands(tokens);
            // The last keys stand behind every token, and a window has left the first ones behind.
            const attention_options options{.first_position = 20, .sliding_window = 10};
            const auto clean = larql::gqa_attention_asym(o.q, o.k, o.v, options);
            for (const std::size_t key : {std::size_t{0}, std::size_t{10}, 20 + tokens, std::size_t{69}}) {
                if (key >= 70) continue;
                o.k(key, 0, 3) = o.k(key, 1, 0) = o.v(key, 0, 0) = o.v(key, 1, 15) = poison;
            }
            CHECK(larql::gqa_attention_asym(o.q, o.k, o.v, options) == clean);
            std::fill(o.k.begin(), o.k.end(), poison);
            std::fill(o.v.begin(), o.v.end(), poison);
            const auto none = larql::gqa_attention_asym(o.q, o.k, o.v, {.first_position = 500, .sliding_window = 100});
            CHECK(std::all_of(none.begin(), none.end(), [](float x) { return x == 0.0F; }));
        }
}

TEST_CASE("odd numbers: NaN and infinity stay in the rows that see them, with windows and chunks") {
    for (const std::size_t tokens : few_and_many)
        for (const float poison : {not_a_number, infinity, -infinity}) {
            operands o = make_operands(tokens);
            const std::size_t first = 70 - tokens, key = first + tokens / 2;
            o.v(key, 1, 7) = poison;
            std::set<std::size_t> all, two;
            for (std::size_t t = tokens / 2; t < tokens; ++t) all.insert(t);
            for (std::size_t t = tokens / 2; t < std::min(tokens, tokens / 2 + 2); ++t) two.insert(t);
            CHECK(odd_rows(larql::gqa_attention_asym(o.q, o.k, o.v)) == all);
            CHECK(odd_rows(larql::gqa_attention_asym(o.q, o.k, o.v, {.sliding_window = 2})) == two);
            o.v(key, 1, 7) = 0.0F;
            o.k(key, 1, 7) = not_a_number;
            CHECK(odd_rows(larql::gqa_attention_asym(o.q, o.k, o.v)) == all);
            CHECK(odd_rows(larql::gqa_attention_asym(o.q, o.k, o.v, {.sliding_window = 2})) == two);
            o.k(key, 1, 7) = 0.0F;
            o.q(1, 3, 0) = not_a_number;
            CHECK(odd_rows(larql::gqa_attention_asym(o.q, o.k, o.v)) == std::set<std::size_t>{1});
        }
}

TEST_CASE_TEMPLATE("odd numbers: a cache forgets what was taken back, whatever it was", T, float, larql::bf16,
                   larql::f16) {
    const operands o = make_operands(1);
    for (const bool latent : {false, true}) {
        auto cache = latent ? kv_cache<T>::latent(80, 16, 8) : kv_cache<T>({80, 2, 24, 16});
        const auto key = [&](std::size_t t, float value) {
            tensor3 row({1, latent ? 1U : 2U, 24});
            for (std::size_t i = 0; i < row.size(); ++i) row.data()[i] = value == 0 ? o.k.data()[t * 48 + i] : value;
            return row;
        };
        const auto append = [&](std::size_t t, float value) {
            if (latent) return cache.append(key(t, value));
            tensor3 v({1, 2, 16});
            for (std::size_t i = 0; i < v.size(); ++i) v.data()[i] = value == 0 ? o.v.data()[t * 32 + i] : value;
            cache.append(key(t, value), v);
        };
        for (std::size_t t = 0; t < 5; ++t) append(t, 0);
        const auto clean = larql::gqa_attention_asym(o.q, cache.keys(), cache.values());
        for (const float poison : {not_a_number, infinity}) {
            for (std::size_t t = 0; t < 70; ++t) append(0, poison);
            CHECK(!odd_rows(larql::gqa_attention_asym(o.q, cache.keys(), cache.values())).empty());
            cache.truncate(5);
            CHECK(larql::gqa_attention_asym(o.q, cache.keys(), cache.values()) == clean);
        }
    }
}

TEST_CASE("odd numbers: a layer keeps them in their tokens, heads and output columns") {
    const larql::testing::temporary_folder folder;
    larql::testing::tiny_model model;
    model.config = larql::testing::tiny_llama_config();
    (void)larql::testing::add_llama_layer(model, "model.");
    const auto result_of = [&](const std::function<void(larql::attention_weights<float>&)>& change, float in_token) {
        model.write(folder.path());
        const auto opened = larql::checkpoint::open(folder.path());
        auto weights = opened.stored_weights(0);
        change(weights);
        const larql::attention_layer<float> layer(opened.spec(0), std::move(weights));
        random_source random(3);
        tensor<float, 2> hidden({6, larql::testing::tiny_width});
        random.fill_normal(hidden);
        if (in_token != 0) hidden(2, 5) = in_token;
        return layer.forward(hidden);
    };
    for (const float poison : {not_a_number, infinity}) {
        const auto seen = result_of([](auto&) {}, poison);
        for (std::size_t t = 0; t < 6; ++t)
            for (std::size_t c = 0; c < larql::testing::tiny_width; ++c)
                CHECK(std::isfinite(seen.out(t, c)) == (t < 2));

        // A weight of the second key/value head reaches the query heads 2 and 3 alone.
        tensor<float, 2> v = xt::ones<float>({std::size_t{16}, larql::testing::tiny_width});
        v(8 + 3, 0) = poison;
        const auto of_head = result_of([&](auto& w) { w[larql::tensor_role::v] = larql::matrix_input<float>(v); }, 0);
        for (std::size_t t = 0; t < 6; ++t)
            for (std::size_t i = 0; i < 32; ++i)
                CHECK(std::isfinite(of_head.context(t, i)) == (i != 2 * 8 + 3 && i != 3 * 8 + 3));

        tensor<float, 2> out = xt::ones<float>({larql::testing::tiny_width, std::size_t{32}});
        out(7, 1) = poison;
        const auto of_output =
            result_of([&](auto& w) { w[larql::tensor_role::o] = larql::matrix_input<float>(out); }, 0);
        for (std::size_t t = 0; t < 6; ++t)
            for (std::size_t c = 0; c < larql::testing::tiny_width; ++c)
                CHECK(std::isfinite(of_output.out(t, c)) == (c != 7));
    }
}

TEST_CASE("odd numbers: scales and caps that the arithmetic does not hold are refused, with their value") {
    const operands o = make_operands(3);
    const auto refused = [&](const attention_options& options, std::string_view text) {
        LARQL_CHECK_ERROR(larql::gqa_attention_asym(o.q, o.k, o.v, options), errc::bad_value, text);
    };
    refused({.scale = std::nan("")}, "scale: is nan, expected a number well within the range");
    refused({.scale = -HUGE_VAL}, "scale: is -inf");
    refused({.scale = 3e38}, "scale: is 3e+38");
    refused({.softcap = -1}, "softcap: is -1, expected 0 or a positive number");
    refused({.softcap = std::nan("")}, "softcap: is nan");
    refused({.softcap = HUGE_VAL}, "softcap: is inf");
    for (const double cap : {5e-324, 1e-40, 3e38, 1e300}) refused({.softcap = cap}, "softcap: is ");
    refused({.scale = 1e10, .softcap = 1e-37}, "softcap: is 1e-37, expected a number that the scale can be divided by");
    const tensor<double, 3> q = o.q, k = o.k, v = o.v;  // double holds more
    CHECK(std::isfinite(larql::gqa_attention_asym(q, k, v, {.scale = 3e38, .softcap = 1e40})(0, 0, 0)));
    LARQL_CHECK_ERROR(larql::gqa_attention_asym(q, k, v, {.softcap = 5e-324}), errc::bad_value,
                      "softcap: is 4.94066e-324");
    for (const std::size_t tokens : few_and_many)
        for (const double cap : {1e-30, 1e-3, 1e6, 1e30})
            CHECK(error_of(make_operands(tokens), {.softcap = cap}) < 1e-5);
}

TEST_CASE("odd numbers: a sink takes nothing, or all") {
    for (const std::size_t tokens : few_and_many) {
        const operands o = make_operands(tokens);
        for (const float sink : {largest, 3e38F, 1e4F, 0.0F, -1e4F, -largest, -infinity}) {
            CAPTURE(sink);
            const std::vector<float> sinks(4, sink);
            CHECK(error_of(o, {.sinks = sinks}) < 1e-5);
        }
    }
}
