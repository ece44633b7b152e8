// SPDX-License-Identifier: Apache-2.0
//
// Keys and values as blocks of Q8_0: read in place, attention to them is attention to what they decode to, bit for bit.
#include <larql/attention_batch.hpp>
#include <larql/attention_layer.hpp>
#include <larql/ggml_blocks.hpp>
#include <larql/gqa_attention.hpp>
#include <larql/kv_cache.hpp>

#include <support/attention_checks.hpp>
#include <support/q8_0_rows.hpp>
#include <support/random.hpp>
#include <support/tiny_model.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace {

using larql::attention_form;
using larql::attention_layer;
using larql::attention_options;
using larql::attention_spec;
using larql::attention_weights;
using larql::cached_sequence;
using larql::errc;
using larql::kv_cache;
using larql::q8_0_block;
using larql::rows_view;
using larql::tensor;
using larql::tensor_role;
using larql::testing::code_of;
using larql::testing::q8_0_rows;
using larql::testing::random_rows;
using larql::testing::random_source;
using larql::testing::random_tensor;
using larql::testing::relative_error;

/// The first columns of the numbers.
tensor<float, 3> floats(const q8_0_rows& rows, std::size_t columns) {
    auto out = tensor<float, 3>::from_shape({rows.numbers.shape(0), rows.numbers.shape(1), columns});
    for (std::size_t t = 0; t < out.shape(0); ++t)
        for (std::size_t h = 0; h < out.shape(1); ++h)
            for (std::size_t c = 0; c < columns; ++c) out(t, h, c) = rows.numbers(t, h, c);
    return out;
}

/// The same rows in pages, last page first.
class paged_rows {
public:
    paged_rows(const q8_0_rows& rows, std::size_t tokens) : m_rows(rows), m_tokens(tokens) {
        const std::size_t held = rows.numbers.shape(0), count = (held + tokens - 1) / tokens, width = rows.width();
        m_blocks.resize(count * tokens * width);
        for (std::size_t p = 0; p < count; ++p) m_pages.push_back(static_cast<std::uint32_t>(count - 1 - p));
        for (std::size_t t = 0; t < held; ++t)
            std::copy_n(rows.blocks.data() + t * width, width,
                        m_blocks.data() + (m_pages[t / tokens] * tokens + t % tokens) * width);
    }
    [[nodiscard]] rows_view<const q8_0_block> view() const {
        auto view = m_rows.view();
        view.data = m_blocks.data();
        view.pages = m_pages;
        view.page_tokens = m_tokens;
        view.page_stride = static_cast<std::ptrdiff_t>(m_tokens * m_rows.width());
        return view;
    }

private:
    const q8_0_rows& m_rows;
    std::size_t m_tokens;
    std::vector<q8_0_block> m_blocks{};
    std::vector<std::uint32_t> m_pages{};
};

/// The numbers that a cache holds.
tensor<float, 3> decoded(const rows_view<const q8_0_block>& rows) {
    auto out = tensor<float, 3>::from_shape({rows.tokens, rows.heads, rows.size});
    for (std::size_t t = 0; t < rows.tokens; ++t)
        for (std::size_t h = 0; h < rows.heads; ++h) {
            const auto* from = rows.data + static_cast<std::ptrdiff_t>(t) * rows.token_stride +
                               static_cast<std::ptrdiff_t>(h) * rows.head_stride;
            larql::dequantize(larql::dtype::q8_0, std::as_bytes(std::span(from, rows.size / 32)),
                              {&out(t, h, 0), rows.size});
        }
    return out;
}

}  // namespace

TEST_CASE("q8_0: attention to blocks is attention to their numbers, bit for bit, at every level") {
    random_source random(1);
    for (const std::size_t tokens : {1U, 2U, 7U, 40U})
        for (const std::size_t group : {1U, 2U, 4U, 12U})
            for (const std::size_t keys : {1U, 9U, 150U, 700U}) {
                const auto q = random_tensor<float>(random, tokens, 2 * group, 96);
                const q8_0_rows k(random_tensor<float>(random, keys, 2, 96));
                const q8_0_rows v(random_tensor<float>(random, keys, 2, 160));
                const paged_rows paged_k(k, 16), paged_v(v, 16);
                for (const attention_options& options :
                     {attention_options{}, attention_options{.causal = false, .softcap = 3.0, .sliding_window = 20}})
                    for (const auto level : larql::testing::usable_levels()) {
                        CAPTURE(larql::detail::to_string(level));
                        using larql::testing::attend_at;
                        const auto want = attend_at(level, q, k.numbers, v.numbers, options);
                        CHECK(attend_at(level, q, k.view(), v.view(), options) == want);
                        CHECK(attend_at(level, q, paged_k.view(), paged_v.view(), options) == want);
                        CHECK(attend_at(level, q, k.view(), v.numbers, options) == want);
                        // Values that are the first columns of the keys.
                        CHECK(attend_at(level, q, k.view(), k.view(64), options) ==
                              attend_at(level, q, k.numbers, floats(k, 64), options));
                    }
            }
}

TEST_CASE("q8_0: every code and every kind of scale is read as ggml reads it") {
    auto q = tensor<float, 3>::from_shape({40, 1, 32});
    q.fill(0.5F);
    auto one = tensor<float, 3>::from_shape({1, 1, 32});
    one.fill(0.5F);
    q8_0_rows k(tensor<float, 3>({1, 1, 32}, 0.0F));
    for (const int scale : {0x0000, 0x0001, 0x03ff, 0x0400, 0x3c00, 0x7bff, 0x8001, 0xbc00, 0x7c00, 0x7e00}) {
        q8_0_rows v(tensor<float, 3>({1, 1, 256}, 0.0F));
        for (std::size_t i = 0; i < 256; ++i) {
            v.blocks[i / 32].scale.bits = static_cast<std::uint16_t>(scale);
            v.blocks[i / 32].codes[i % 32] = static_cast<std::int8_t>(static_cast<int>(i) - 128);
        }
        const auto want = decoded(v.view());
        for (const auto level : larql::testing::usable_levels()) {
            const auto few = larql::testing::attend_at(level, one, k.view(), v.view());
            const auto many = larql::testing::attend_at(level, q, k.view(), v.view(), {.causal = false});
            for (std::size_t i = 0; i < 256; ++i)
                for (const float got : {few(0, 0, i), many(7, 0, i)})
                    CHECK((std::isnan(want(0, 0, i)) ? std::isnan(got) : got == want(0, 0, i)));
        }
    }
}

TEST_CASE("q8_0: lists of keys, weights, batches and double queries read blocks, too") {
    random_source random(2);
    const auto q = random_tensor<float>(random, 5, 8, 64);
    const q8_0_rows k(random_tensor<float>(random, 60, 2, 64)), v(random_tensor<float>(random, 60, 2, 32));
    larql::key_selection lists;
    for (std::size_t t = 0; t < 5; ++t) {
        std::vector<std::uint32_t> list;
        for (std::uint32_t j = static_cast<std::uint32_t>(t); j <= 50; j += 3) list.push_back(j);
        lists.append(list);
    }
    const attention_options options{.key_lists = lists.view()};
    CHECK(larql::gqa_attention_asym(q, k.view(), v.view(), options) ==
          larql::gqa_attention_asym(q, k.numbers, v.numbers, options));
    CHECK(larql::gqa_attention_with_weights(q, k.view(), v.view()).weights ==
          larql::gqa_attention_with_weights(q, k.numbers, v.numbers).weights);

    const tensor<double, 3> doubles = xt::cast<double>(q);
    CHECK(larql::gqa_attention_asym(doubles, k.view(), v.view()) ==
          larql::gqa_attention_asym(doubles, k.numbers, v.numbers));

    const std::vector<larql::attention_sequence<q8_0_block>> list = {
        {.tokens = 2, .k = k.view(), .v = v.view()}, {.tokens = 3, .k = k.view(), .v = v.view(), .first_position = 20}};
    auto out = tensor<float, 3>::from_shape({5, 8, 32});
    larql::gqa_attention_batch(q, list, out);
    const auto part = [&](std::size_t first, std::size_t tokens, const attention_options& own) {
        auto rows = tensor<float, 3>::from_shape({tokens, 8, 64});
        std::copy_n(q.data() + first * 8 * 64, rows.size(), rows.data());
        const auto want = larql::gqa_attention_asym(rows, k.numbers, v.numbers, own);
        CHECK(std::equal(want.begin(), want.end(), out.data() + first * 8 * 32));
    };
    part(0, 2, {});
    part(2, 3, {.first_position = 20});
}

TEST_CASE("q8_0: rows that are not whole blocks are refused by name") {
    random_source random(3);
    const auto q = random_tensor<float>(random, 1, 2, 48);
    const q8_0_rows k(random_tensor<float>(random, 4, 2, 64));
    std::string text;
    CHECK(code_of([&] { (void)larql::gqa_attention_asym(q, k.view(48), k.view(32)); }, &text) == errc::shape_mismatch);
    CHECK(text == "k: rows of 48 numbers are not whole blocks of 32");
    CHECK(code_of([&] { kv_cache<q8_0_block>({.capacity = 4, .kv_heads = 1, .key_size = 48, .value_size = 32}); },
                  &text) == errc::shape_mismatch);
    CHECK(text == "kv_cache: rows of 48 numbers are not whole blocks of 32");
    CHECK(code_of([&] { (void)kv_cache<q8_0_block>::latent(4, 48, 16); }) == errc::shape_mismatch);
    CHECK(code_of([&] { (void)kv_cache<q8_0_block>::latent(4, 64, 32, 16); }) == errc::shape_mismatch);
    CHECK(code_of([&] { (void)kv_cache<q8_0_block>::compressed({}); }) == errc::unsupported_dtype);
}

TEST_CASE("q8_0: a cache holds what quantize makes of the rows, and forks, drops and truncates like others") {
    random_source random(4);
    const auto k = random_tensor<float>(random, 9, 2, 96), v = random_tensor<float>(random, 9, 2, 64);
    const q8_0_rows want_k(k), want_v(v);
    const auto rows = [](const tensor<float, 3>& from, std::size_t begin, std::size_t end) {
        auto out = tensor<float, 3>::from_shape({end - begin, from.shape(1), from.shape(2)});
        std::copy_n(from.data() + begin * from.shape(1) * from.shape(2), out.size(), out.data());
        return out;
    };
    const larql::kv_cache_shape shape{.capacity = 12, .kv_heads = 2, .key_size = 96, .value_size = 64};
    kv_cache<q8_0_block> cache(shape);
    CHECK(cache.bytes_per_token() == 2 * (3 + 2) * 34);
    cache.append(rows(k, 0, 4), rows(v, 0, 4));
    cache.append(xt::eval(xt::cast<double>(rows(k, 4, 9))), rows(v, 4, 9) * 1.0F);
    CHECK(decoded(cache.keys()) == want_k.numbers);
    CHECK(decoded(cache.values()) == want_v.numbers);
    CHECK(decoded(cache.key_rows()) == want_k.numbers);

    kv_cache<q8_0_block> fork({.capacity = 20, .kv_heads = 2, .key_size = 96, .value_size = 64});
    fork.append_from(cache, 0, 6);
    fork.append(want_k.view(), want_v.view());  // blocks go over as they are
    const auto held = decoded(fork.key_rows());
    CHECK(rows(held, 0, 6) == rows(want_k.numbers, 0, 6));
    CHECK(rows(held, 6, 15) == want_k.numbers);
    fork.drop_front(5);
    fork.truncate(8);
    CHECK(rows(decoded(fork.value_rows()), 1, 8) == rows(want_v.numbers, 0, 7));
    CHECK(fork.first_position() == 5);

    auto broken = rows(k, 0, 1);
    broken(0, 1, 40) = std::numeric_limits<float>::infinity();  // its block is NaN, the others are what they are
    cache.append(broken, rows(v, 0, 1));
    const auto last = rows(decoded(cache.key_rows()), 9, 10);
    for (std::size_t h = 0; h < 2; ++h)
        for (std::size_t d = 0; d < 96; ++d)
            CHECK((h == 1 && d >= 32 && d < 64 ? std::isnan(last(0, h, d)) : last(0, h, d) == want_k.numbers(0, h, d)));
}

namespace {

/// A block of latent attention with random weights, whose cached rows are whole blocks.
attention_layer<float> random_block(attention_form form) {
    using enum tensor_role;
    attention_spec spec{.form = form,
                        .latent_from = larql::latent_factors::kv_b,
                        .geometry = {.hidden_size = 96,
                                     .num_heads = 4,
                                     .q_lora_rank = 64,
                                     .kv_lora_rank = 64,
                                     .qk_nope_head_dim = 32,
                                     .qk_rope_head_dim = 32,
                                     .v_head_dim = 32,
                                     .order = larql::head_order::nope_rope,
                                     .pairing = larql::rope_pairing::interleaved},
                        .rope = {.rotary_dim = 32, .theta = 10000.0},
                        .scale = 0.125};
    random_source random(11);
    attention_weights<float> w;
    const auto add = [&](tensor_role role, std::size_t rows, std::size_t cols) {
        auto m = random_rows(random, rows, cols);
        m *= 1.0F / std::sqrt(static_cast<float>(cols));
        w[role] = std::move(m);
    };
    add(q_a, 64, 96);
    add(q_b, 4 * 64, 64);
    add(kv_a, 64 + 32, 96);
    add(kv_b, 4 * 64, 64);
    add(o, 96, 4 * 32);
    w.vector(q_a_norm) = std::vector<float>(64, 1.1F);
    w.vector(kv_a_norm) = std::vector<float>(64, 0.9F);
    return {std::move(spec), std::move(w)};
}

}  // namespace

TEST_CASE("q8_0: a block attends to what its cache holds of the tokens, in one call, in many, and in a batch") {
    random_source random(5);
    for (const attention_form form : {attention_form::factored, attention_form::latent}) {
        CAPTURE(std::string(larql::to_string(form)));
        const auto layer = random_block(form);
        for (const std::size_t tokens : {1U, 3U, 200U}) {  // the latter by way of each head's keys
            const auto before = random_rows(random, 40, 96), x = random_rows(random, tokens, 96);
            auto cache = layer.make_cache<q8_0_block>(240);
            (void)layer.forward(before, cache);
            // What the block makes of attention to the numbers that a cache holds: rows of x are the last in it.
            const auto by_numbers = [&](const kv_cache<q8_0_block>& held, const tensor<float, 2>& rows) {
                const std::size_t first = held.size() - rows.shape(0);
                std::vector<std::size_t> positions(rows.shape(0));
                std::iota(positions.begin(), positions.end(), first);
                attention_options options = layer.options();
                options.first_position = first;
                const auto attended = larql::gqa_attention_asym(
                    layer.project(rows, positions).q, decoded(held.key_rows()), decoded(held.value_rows()), options);
                return layer.finish(attended, rows);
            };
            const auto got = layer.forward(x, cache);
            CHECK(relative_error(by_numbers(cache, x), got.out) < 5e-6);

            // Rounding costs what it costs: half a step of 127 in each number.
            auto exact = layer.make_cache<float>(240);
            (void)layer.forward(before, exact);
            const double loss = relative_error(layer.forward(x, exact).out, got.out);
            CHECK(loss < 0.02);
            CHECK(loss > 1e-5);

            auto steps = layer.make_cache<q8_0_block>(240), batched = layer.make_cache<q8_0_block>(240);
            for (auto* to : {&steps, &batched}) (void)layer.forward(before, *to);
            const std::vector<cached_sequence<q8_0_block>> list = {{.cache = &batched, .tokens = tokens}};
            const auto of_batch = layer.forward_batch(x, std::span(list)).out;
            CHECK(relative_error(by_numbers(batched, x), of_batch) < 5e-6);
            CHECK(decoded(batched.key_rows()) == decoded(cache.key_rows()));
            for (std::size_t t = 0; t < tokens; ++t) {
                const auto one = larql::testing::rows_of(x, t, 1);
                const auto step = layer.forward(one, steps).out;
                CHECK(relative_error(by_numbers(steps, one), step) < 5e-6);
            }
        }
    }
}
