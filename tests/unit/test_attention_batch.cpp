// SPDX-License-Identifier: Apache-2.0
//
// What engines ask of attention beyond one sequence in one piece: masks of bits, pages, parts that are joined, batches.
#include <larql/attention_batch.hpp>
#include <larql/attention_part.hpp>
#include <larql/gqa_attention.hpp>

#include <support/attention_checks.hpp>
#include <support/random.hpp>
#include <support/reference_attention.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace {

using larql::attention_options;
using larql::errc;
using larql::key_mask_view;
using larql::rows_view;
using larql::tensor;
using larql::detail::simd_level;
using larql::testing::attend_at;
using larql::testing::code_of;
using larql::testing::largest_difference;
using larql::testing::random_source;
using larql::testing::random_tensor;
using larql::testing::reference_attention;
using larql::testing::tolerance;
using larql::testing::usable_levels;

std::vector<std::uint64_t> random_bits(random_source& random, std::size_t words) {
    std::vector<std::uint64_t> bits(words);
    for (std::uint64_t& word : bits) word = random.bits() ^ random.bits() << 20 ^ random.bits() << 40;
    return bits;
}

/// A tensor as a view.
template <class E>
rows_view<const E> view_of(const tensor<E, 3>& x) {
    const std::size_t heads = x.shape(1), size = x.shape(2);
    return {.data = x.data(),
            .tokens = x.shape(0),
            .heads = heads,
            .size = size,
            .token_stride = static_cast<std::ptrdiff_t>(heads * size),
            .head_stride = static_cast<std::ptrdiff_t>(size)};
}

/// The rows of a tensor in pages that lie in disorder in a pool: [page, token, head, size], or as some engines have
/// them [page, head, token, size].
template <class E>
struct paged {
    std::vector<E> pool{};
    std::vector<std::uint32_t> numbers{};
    rows_view<const E> view{};

    paged(const tensor<E, 3>& x, std::size_t page_tokens, bool head_major = false) {
        const std::size_t tokens = x.shape(0), heads = x.shape(1), size = x.shape(2);
        const std::size_t pages = (tokens + page_tokens - 1) / page_tokens;
        const std::size_t head_stride = head_major ? page_tokens * size : size,
                          page_stride = heads * page_tokens * size;
        const std::size_t token_stride = head_major ? size : heads * size;
        pool.assign((2 * pages + 1) * page_stride, E(std::numeric_limits<float>::quiet_NaN()));
        for (std::size_t i = 0; i < pages; ++i) numbers.push_back(static_cast<std::uint32_t>(2 * (pages - i)));
        for (std::size_t t = 0; t < tokens; ++t)
            for (std::size_t h = 0; h < heads; ++h)
                std::copy_n(
                    x.data() + (t * heads + h) * size, size,
                    pool.data() + numbers[t / page_tokens] * page_stride + h * head_stride + t % page_tokens * token_stride);
        view = {.data = pool.data(),
                .tokens = tokens,
                .heads = heads,
                .size = size,
                .token_stride = static_cast<std::ptrdiff_t>(token_stride),
                .head_stride = static_cast<std::ptrdiff_t>(head_stride),
                .pages = numbers,
                .page_tokens = page_tokens,
                .page_stride = static_cast<std::ptrdiff_t>(page_stride)};
    }
    paged(const paged&) = delete;
    paged& operator=(const paged&) = delete;
};

/// Keys [begin, end) of a tensor.
template <class E>
tensor<E, 3> rows_between(const tensor<E, 3>& x, std::size_t begin, std::size_t end) {
    const std::size_t width = x.shape(1) * x.shape(2);
    auto part = tensor<E, 3>::from_shape({end - begin, x.shape(1), x.shape(2)});
    std::copy_n(x.data() + begin * width, part.size(), part.data());
    return part;
}

/// The first columns of every row.
template <class E>
tensor<E, 3> leading_columns(const tensor<E, 3>& x, std::size_t columns) {
    auto part = tensor<E, 3>::from_shape({x.shape(0), x.shape(1), columns});
    for (std::size_t i = 0; i < x.shape(0) * x.shape(1); ++i)
        std::copy_n(x.data() + i * x.shape(2), columns, part.data() + i * columns);
    return part;
}

}  // namespace

TEST_CASE("attention: bits say which keys a token sees, whatever the sizes and the other options") {
    random_source random(1);
    const std::vector<float> sinks{0.5F, -1.0F, 3.0F, 0.0F, 2.0F, -3.0F};
    for (const std::size_t tokens : {1U, 2U, 7U, 40U, 70U})
        for (const std::size_t size : {32U, 20U})
            for (const bool more : {false, true}) {
                const auto q = random_tensor<float>(random, tokens, 6, size);
                const auto k = random_tensor<larql::f16>(random, 300, 2, size);
                const auto v = random_tensor<larql::f16>(random, 300, 2, size);
                for (const auto& [first, count] :
                     {std::pair<std::size_t, std::size_t>{300 - tokens, tokens}, {0, 300}, {100, 65}, {299, 1}}) {
                    const auto bits = random_bits(random, tokens * ((count + 63) / 64));
                    attention_options options{.key_mask = {bits, first, count}};
                    if (more) options.sliding_window = 150, options.softcap = 2, options.sinks = sinks;
                    options.causal = !more;
                    const auto want = reference_attention<double>(q, k, v, options);
                    for (const simd_level level : usable_levels()) {
                        CAPTURE(tokens);
                        CAPTURE(first);
                        CAPTURE(larql::detail::to_string(level));
                        CHECK(largest_difference(attend_at(level, q, k, v, options), want) <=
                              tolerance(q, k, v, options));
                    }
                }
            }
}

TEST_CASE("attention: bits in double, in the weights, and with values that are a prefix of the keys") {
    random_source random(2);
    const auto q = random_tensor<double>(random, 9, 4, 24), k = random_tensor<double>(random, 150, 1, 24);
    const auto bits = random_bits(random, 9 * 2);
    const attention_options options{.key_mask = {bits, 40, 100}};
    auto v = view_of(k);
    v.size = 16;
    const tensor<double, 3> values = leading_columns(k, 16);
    const auto want = reference_attention<double>(q, k, values, options);
    CHECK(largest_difference(larql::gqa_attention_asym(q, k, v, options), want) <= 1e-12);
    const auto both = larql::gqa_attention_with_weights(q, k, values, options);
    CHECK(largest_difference(both.output, want) <= 1e-12);
    for (std::size_t h = 0; h < 4; ++h)
        for (std::size_t t = 0; t < 9; ++t) {
            const auto weights = larql::testing::reference_weights<double>(q, k, options, t, h);
            for (std::size_t j = 0; j < 150; ++j)
                CHECK(both.weights(h, t, j) == doctest::Approx(weights[j]).epsilon(1e-9));
        }
}

TEST_CASE("attention: what bits hide may be anything, and a token of which they hide all is zero") {
    random_source random(3);
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    for (const std::size_t tokens : {2U, 8U, 70U})
        for (const std::size_t size : {32U, 20U}) {
            const auto q = random_tensor<float>(random, tokens, 2, size);
            auto k = random_tensor<float>(random, 260, 1, size), v = random_tensor<float>(random, 260, 1, size);
            // Keys 100 .. 199: token t sees those of its parity, the first token none; no token sees 150 .. 159.
            std::vector<std::uint64_t> bits(tokens * 2, 0);
            for (std::size_t t = 1; t < tokens; ++t)
                for (std::size_t j = 0; j < 100; ++j)
                    if (j % 2 == t % 2 && (j < 50 || j >= 60)) bits[t * 2 + j / 64] |= std::uint64_t{1} << (j % 64);
            const attention_options options{.first_position = 200, .key_mask = {bits, 100, 100}};
            const auto clean = reference_attention<double>(q, k, v, options);
            for (std::size_t j = 150; j < 160; ++j)
                for (std::size_t d = 0; d < size; ++d) k(j, 0, d) = v(j, 0, d) = d % 3 == 0 ? nan : INFINITY;
            for (const simd_level level : usable_levels()) {
                CAPTURE(larql::detail::to_string(level));
                CAPTURE(tokens);
                CHECK(largest_difference(attend_at(level, q, k, v, options), clean) < 1e-5);
            }
            std::vector<std::uint64_t> none(tokens * 5, 0);
            for (const simd_level level : usable_levels()) {
                const auto got = attend_at(level, q, k, v, {.causal = false, .key_mask = {none, 0, 260}});
                CHECK(std::all_of(got.begin(), got.end(), [](float x) { return x == 0.0F; }));
            }
        }
}

TEST_CASE("attention: masks that do not fit are refused") {
    random_source random(4);
    const auto q = random_tensor<float>(random, 3, 2, 8), k = random_tensor<float>(random, 70, 1, 8);
    const std::vector<std::uint64_t> bits(6, ~std::uint64_t{0});
    const std::vector<std::size_t> begins{0, 0, 0, 0};
    const auto attempt = [&](const attention_options& options) {
        std::string text;
        const errc code = code_of([&] { (void)larql::gqa_attention(q, k, k, options); }, &text);
        return std::string(larql::to_string(code)) + " " + text;
    };
    CHECK(largest_difference(larql::gqa_attention(q, k, k, {.key_mask = {bits, 0, 70}}),
                             larql::gqa_attention(q, k, k)) == 0.0);
    CHECK(attempt({.key_mask = {bits, 1, 70}}) ==
          "shape_mismatch key_mask: has bits of 70 keys from 1 on, there are 70");
    CHECK(attempt({.key_mask = {bits, SIZE_MAX, 70}}).starts_with("shape_mismatch"));
    CHECK(attempt({.key_mask = {bits, 0, 60}}) == "shape_mismatch key_mask: 6 words, expected 1 for each of 3 tokens");
    CHECK(attempt({.key_mask = {std::span(bits).first(5), 0, 70}}).starts_with("shape_mismatch key_mask: 5 words"));
    CHECK(attempt({.key_lists = {begins, {}}, .key_mask = {bits, 0, 70}}) ==
          "bad_value key_mask: is given together with key_lists");
}

TEST_CASE("attention: keys whose first ones have been dropped keep their positions") {
    random_source random(5);
    const std::vector<float> slopes{0.1F, 0.02F};
    for (const std::size_t tokens : {1U, 5U, 60U}) {
        const auto q = random_tensor<float>(random, tokens, 2, 16);
        const auto k = random_tensor<float>(random, 500, 1, 16), v = random_tensor<float>(random, 500, 1, 16);
        for (attention_options options : {attention_options{.sliding_window = 90}, attention_options{.chunk = 64},
                                          attention_options{.sliding_window = 90, .alibi = slopes}}) {
            options.first_position = 500 - tokens;
            const auto want = larql::gqa_attention(q, k, v, options);
            for (const std::size_t dropped : {1U, 63U, 64U, 300U}) {
                if (options.chunk != 0 && dropped > (500 - tokens) / 64 * 64) continue;
                options.first_key_position = dropped;
                const auto got =
                    larql::gqa_attention(q, rows_between(k, dropped, 500), rows_between(v, dropped, 500), options);
                CAPTURE(dropped);
                CHECK(largest_difference(got, want) < 2e-6);
                CHECK(largest_difference(reference_attention<double>(q, rows_between(k, dropped, 500),
                                                                     rows_between(v, dropped, 500), options),
                                         want) < 2e-6);
            }
            options.first_key_position = 0;
        }
    }
    const auto q = random_tensor<float>(random, 1, 1, 8), k = random_tensor<float>(random, 4, 1, 8);
    CHECK(code_of([&] { (void)larql::gqa_attention(q, k, k, {.first_key_position = 3}); }) == errc::bad_value);
}

TEST_CASE("attention: views of rows, in one piece and in pages, give the bits that tensors give") {
    random_source random(6);
    for (const std::size_t tokens : {1U, 4U, 50U})
        for (const std::size_t kv_heads : {1U, 3U})
            for (const std::size_t size : {64U, 36U})
                for (const std::size_t keys : {1U, 40U, 700U}) {
                    const auto q = random_tensor<float>(random, tokens, 3, size);
                    const auto k = random_tensor<larql::f16>(random, keys, kv_heads, size);
                    const auto v = random_tensor<larql::bf16>(random, keys, kv_heads, size + 16);
                    const auto dq = tensor<double, 3>(q);
                    const attention_options options{.sliding_window = 500};
                    for (const simd_level level : usable_levels()) {
                        CAPTURE(larql::detail::to_string(level));
                        const auto want = attend_at(level, q, k, v, options);
                        CHECK(attend_at(level, view_of(q), view_of(k), view_of(v), options) == want);
                        for (const std::size_t page : {1U, 16U, 17U, 64U, 256U}) {
                            CAPTURE(page);
                            const paged<larql::f16> k_pages(k, page);
                            const paged<larql::bf16> v_pages(v, page + 3);
                            CHECK(attend_at(level, q, k_pages.view, v_pages.view, options) == want);
                            const paged<larql::f16> k_heads(k, page, true);
                            const paged<larql::bf16> v_heads(v, page, true);
                            CHECK(largest_difference(attend_at(level, q, k_heads.view, v_heads.view, options), want) <=
                                  tolerance(q, k, v, options));
                        }
                    }
                    const paged<larql::f16> k_pages(k, 16);
                    CHECK(larql::gqa_attention(dq, k_pages.view, k_pages.view) == larql::gqa_attention(dq, k, k));
                }
}

TEST_CASE("attention: pages of a latent cache are read once for keys and values; views may also be converted") {
    random_source random(7);
    const auto q = random_tensor<float>(random, 2, 16, 96);
    const auto k = random_tensor<larql::f16>(random, 330, 1, 96);
    const paged<larql::f16> pages(k, 32);
    auto values = pages.view;
    values.size = 64;
    CHECK(larql::gqa_attention_asym(q, pages.view, values) == larql::gqa_attention_asym(q, k, leading_columns(k, 64)));
    const tensor<float, 3> wide = xt::cast<float>(k);
    CHECK(larql::gqa_attention(tensor<double, 3>(q), view_of(wide), view_of(wide)) ==
          larql::gqa_attention(tensor<double, 3>(q), wide, wide));
    auto few = pages.view;
    few.pages = few.pages.first(3);
    CHECK(code_of([&] { (void)larql::gqa_attention(q, few, few); }) == errc::shape_mismatch);
    few.page_tokens = 0;
    CHECK(code_of([&] { (void)larql::gqa_attention(q, few, few); }) == errc::shape_mismatch);
}

TEST_CASE("attention: results go to half-precision rows, rounded once, and to views") {
    random_source random(8);
    for (const std::size_t keys : {40U, 5000U})
        for (const std::size_t tokens : {1U, 70U}) {
            const auto q = random_tensor<float>(random, tokens, 4, 32), k = random_tensor<float>(random, keys, 2, 32);
            const auto want = larql::gqa_attention(q, k, k);
            const auto check = [&]<class E>(E) {
                auto out = tensor<E, 3>::from_shape({tokens, 4, 40});
                out.fill(E(7.0F));
                const rows_view<E> view{.data = out.data() + 3,
                                        .tokens = tokens,
                                        .heads = 4,
                                        .size = 32,
                                        .token_stride = 160,
                                        .head_stride = 40};
                larql::gqa_attention_into(q, k, k, view);
                auto whole = tensor<E, 3>::from_shape({tokens, 4, 32});
                larql::gqa_attention_into(q, k, k, whole);
                for (std::size_t t = 0; t < tokens; ++t)
                    for (std::size_t h = 0; h < 4; ++h)
                        for (std::size_t d = 0; d < 40; ++d) {
                            const bool inside = d >= 3 && d < 35;
                            const float expected =
                                static_cast<float>(inside ? static_cast<E>(want(t, h, d - 3)) : E(7.0F));
                            CHECK(static_cast<float>(out(t, h, d)) == expected);
                            if (inside) CHECK(static_cast<float>(whole(t, h, d - 3)) == expected);
                        }
            };
            check(larql::f16{});
            check(larql::bf16{});
            check(float{});
            // Lists of keys, which are attended to apart.
            std::vector<std::size_t> begins(tokens + 1);
            std::vector<std::uint32_t> lists;
            for (std::size_t t = 0; t < tokens; ++t) {
                for (std::uint32_t j = 0; j < 30; j += 2) lists.push_back(j);
                begins[t + 1] = lists.size();
            }
            const attention_options listed{.first_position = 30, .key_lists = {begins, lists}};
            auto half = tensor<larql::f16, 3>::from_shape({tokens, 4, 32});
            larql::gqa_attention_into(q, k, k, half, listed);
            const auto of_lists = larql::gqa_attention(q, k, k, listed);
            for (std::size_t i = 0; i < half.size(); ++i)
                CHECK(static_cast<float>(half.data()[i]) ==
                      static_cast<float>(static_cast<larql::f16>(of_lists.data()[i])));
        }
}

TEST_CASE("attention: parts over some of the keys join to the attention over all") {
    random_source random(9);
    const std::vector<float> sinks{0.5F, -1.0F, 3.0F, 0.0F};
    for (const std::size_t tokens : {1U, 3U, 50U})
        for (const std::size_t size : {32U, 20U}) {
            const auto q = random_tensor<float>(random, tokens, 4, size);
            const auto k = random_tensor<float>(random, 700, 2, size), v = random_tensor<float>(random, 700, 2, size);
            attention_options options{.first_position = 650, .sliding_window = 520};
            const auto part_of = [&](std::size_t begin, std::size_t end, bool with_sinks) {
                attention_options own = options;
                own.first_key_position = begin;
                if (with_sinks) own.sinks = sinks;
                return larql::gqa_attention_part(q, rows_between(k, begin, end), rows_between(v, begin, end), own);
            };
            for (const bool with_sinks : {false, true}) {
                const std::vector parts{part_of(600, 690, false), part_of(0, 100, false), part_of(100, 600, with_sinks),
                                        part_of(690, 700, false)};
                const auto joined = larql::join_attention<float>(parts);
                if (with_sinks) options.sinks = sinks;
                const auto whole = larql::gqa_attention_part(q, k, v, options);
                options.sinks = {};
                CHECK(largest_difference(joined.output, whole.output) < 3e-6);
                CHECK(largest_difference(joined.log_sum, whole.log_sum) < 3e-6);
                CHECK(std::isinf(parts[1].log_sum(0, 0)));
                CHECK(parts[1].log_sum(0, 0) < 0);
                // In steps, as a ring of devices does.
                const std::vector first{larql::join_attention<float>(std::span(parts).first(2)),
                                        larql::join_attention<float>(std::span(parts).last(2))};
                CHECK(largest_difference(larql::join_attention<float>(first).output, whole.output) < 3e-6);
            }
            CHECK(larql::gqa_attention_part(q, k, v, options).output == larql::gqa_attention(q, k, v, options));
        }
    CHECK(code_of([] { (void)larql::join_attention<float>({}); }) == errc::shape_mismatch);
}

TEST_CASE("attention: the logarithm of the sums of a part is that of the definition, in float and double") {
    random_source random(10);
    const std::vector<float> sinks{4.0F, -1.0F};
    for (const std::size_t tokens : {1U, 30U})
        for (const std::size_t keys : {3U, 2000U})
            for (const bool with_sinks : {false, true}) {
                const auto q = random_tensor<double>(random, tokens, 2, 16),
                           k = random_tensor<double>(random, keys, 1, 16);
                attention_options options{.causal = false, .softcap = 3.0};
                if (with_sinks) options.sinks = sinks;
                const auto part = larql::gqa_attention_part(q, k, k, options);
                const tensor<float, 3> q32 = xt::cast<float>(q), k32 = xt::cast<float>(k);
                const auto part32 = larql::gqa_attention_part(q32, k32, k32, options);
                for (std::size_t t = 0; t < tokens; ++t)
                    for (std::size_t h = 0; h < 2; ++h) {
                        double sum = with_sinks ? std::exp(static_cast<double>(sinks[h])) : 0.0;
                        for (std::size_t j = 0; j < keys; ++j) {
                            double s = 0;
                            for (std::size_t d = 0; d < 16; ++d) s += q(t, h, d) * k(j, 0, d);
                            sum += std::exp(3.0 * std::tanh(s / 4.0 / 3.0));
                        }
                        CHECK(part.log_sum(t, h) == doctest::Approx(std::log(sum)).epsilon(1e-12));
                        CHECK(part32.log_sum(t, h) == doctest::Approx(std::log(sum)).epsilon(1e-6));
                    }
            }
}

TEST_CASE("attention: a batch of sequences gives row by row the bits of single calls") {
    random_source random(11);
    const std::vector<float> sinks{0.5F, -1.0F, 3.0F, 0.0F};
    struct one {
        std::size_t tokens, keys;
        tensor<larql::f16, 3> k{}, v{};
        std::vector<std::uint64_t> bits{};
    };
    std::vector<one> all;
    for (const auto& [tokens, keys] :
         {std::pair<std::size_t, std::size_t>{1, 900}, {1, 3}, {0, 17}, {40, 400}, {3, 64}, {1, 5000}, {2, 0}}) {
        all.push_back({tokens, keys, random_tensor<larql::f16>(random, keys, 2, 32),
                       random_tensor<larql::f16>(random, keys, 2, 48), random_bits(random, tokens)});
    }
    std::size_t total = 0;
    for (const one& s : all) total += s.tokens;
    const auto q = random_tensor<float>(random, total, 4, 32);
    larql::thread_pool pool(3);
    for (const bool more : {false, true}) {
        attention_options shared{.threads = &pool};
        if (more) shared.sinks = sinks, shared.sliding_window = 300;
        std::vector<std::size_t> begins{0, 3, 5, 5};
        const std::vector<std::uint32_t> keys{0, 7, 61, 5, 6};
        std::vector<larql::attention_sequence<larql::f16>> sequences;
        for (const one& s : all) {
            sequences.push_back({.tokens = s.tokens, .k = view_of(s.k), .v = view_of(s.v)});
            if (more && s.keys == 64) sequences.back().key_lists = {begins, keys};
            if (more && s.keys == 400) {
                sequences.back().first_position = 300;
                sequences.back().key_mask = {s.bits, 250, 64};
            }
        }
        auto got = tensor<float, 3>::from_shape({total, 4, 48});
        larql::attention_scratch scratch;
        for (std::size_t repeat = 0; repeat < 2; ++repeat) {
            got.fill(-1.0F);
            larql::gqa_attention_batch(q, sequences, got, shared, scratch);
            std::size_t first = 0;
            for (std::size_t i = 0; i < all.size(); first += all[i++].tokens) {
                attention_options own = shared;
                own.first_position = sequences[i].first_position;
                own.key_lists = sequences[i].key_lists;
                own.key_mask = sequences[i].key_mask;
                const auto want =
                    larql::gqa_attention_asym(rows_between(q, first, first + all[i].tokens), all[i].k, all[i].v, own);
                CAPTURE(i);
                CHECK(rows_between(got, first, first + all[i].tokens) == want);
            }
        }
        // Double, and serial.
        const tensor<double, 3> wide(q);
        auto got64 = tensor<double, 3>::from_shape({total, 4, 48});
        shared.threads = nullptr;
        larql::gqa_attention_batch(wide, sequences, got64, shared);
        CHECK(largest_difference(got64, got) < 1e-5);
    }
}

TEST_CASE("attention: a batch that does not fit is refused, naming the sequence") {
    random_source random(12);
    const auto q = random_tensor<float>(random, 3, 2, 8), k = random_tensor<float>(random, 5, 1, 8);
    auto out = tensor<float, 3>::from_shape({3, 2, 8});
    std::vector<larql::attention_sequence<float>> sequences{{.tokens = 1, .k = view_of(k), .v = view_of(k)},
                                                            {.tokens = 2, .k = view_of(k), .v = view_of(k)}};
    const auto attempt = [&](const attention_options& options = {}) {
        std::string text;
        const errc code = code_of([&] { larql::gqa_attention_batch(q, sequences, out, options); }, &text);
        return std::string(larql::to_string(code)) + " " + text;
    };
    larql::gqa_attention_batch(q, sequences, out);
    CHECK(attempt({.first_position = 3}) ==
          "bad_value options: positions, key_lists and key_mask are each sequence's own");
    sequences[1].tokens = 3;
    CHECK(attempt() == "shape_mismatch sequences: q has 3 rows, out 3, the sequences have 4 tokens");
    sequences[1].tokens = 2;
    sequences[1].v.tokens = 4;
    CHECK(attempt() == "shape_mismatch sequence 1: v: 4 tokens, k has 5");
    sequences[1].k.tokens = 4;
    sequences[1].v.size = 7;
    CHECK(attempt() == "shape_mismatch sequence 1: v: value head size 7, out has 8");
    sequences[1].v.size = 8;
    sequences[0].k.heads = sequences[0].v.heads = 3;
    CHECK(attempt().starts_with("shape_mismatch sequence 0: q: 2 heads are not a multiple of the 3"));
}
