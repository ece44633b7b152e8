// SPDX-License-Identifier: Apache-2.0
//
// What a server decodes: keys and values in pages, and batches of sequences of unequal lengths in one call, each beside
// the same work done the plain way. Results are compared before anything is timed.
#include <larql/attention_batch.hpp>

#include <support/random.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "least_time.hpp"

namespace {

using larql::f16;
using larql::rows_view;
using larql::tensor;

struct shape {
    const char* name;
    std::size_t heads, kv_heads, key_size, value_size;
    bool latent;  // values are the first columns of the keys
};

constexpr shape shapes[] = {{"h32kv8_qk128_v128", 32, 8, 128, 128, false},
                            {"h128kv1_qk576_v512", 128, 1, 576, 512, true}};

larql::executor& threads() {
    static larql::thread_pool pool(2);
    return pool;
}

template <class E>
std::vector<E> random_numbers(std::size_t count, std::uint64_t seed) {
    larql::testing::random_source random(seed);
    std::vector<float> some(1U << 14);  // drawing every element would take longer than the benchmark
    random.fill_normal(some);
    std::vector<E> out(count);
    for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<E>(some[(i + i / some.size() * 7) % some.size()]);
    return out;
}

/// Keys and values of some tokens, in one piece and in pages that lie in disorder.
struct cached {
    static constexpr std::size_t page_tokens = 64;
    std::vector<f16> k{}, v{}, k_pool{}, v_pool{};
    std::vector<std::uint32_t> pages{};
    rows_view<const f16> k_rows{}, v_rows{}, k_pages{}, v_pages{};

    cached(const shape& s, std::size_t tokens, std::uint64_t seed) {
        const std::size_t count = (tokens + page_tokens - 1) / page_tokens;
        for (std::size_t i = 0; i < count; ++i) pages.push_back(static_cast<std::uint32_t>((i * 37 + 11) % count));
        std::sort(pages.begin(), pages.end());
        pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
        for (std::size_t i = 0; i + 1 < pages.size(); i += 2) std::swap(pages[i], pages[pages.size() - 1 - i]);
        const auto fill = [&](std::size_t size, std::uint64_t of, std::vector<f16>& rows, std::vector<f16>& pool,
                              rows_view<const f16>& plain, rows_view<const f16>& paged) {
            const std::size_t width = s.kv_heads * size;
            rows = random_numbers<f16>(tokens * width, of);
            pool.resize(count * page_tokens * width);
            for (std::size_t t = 0; t < tokens; ++t)
                std::copy_n(rows.data() + t * width, width,
                            pool.data() + (pages[t / page_tokens] * page_tokens + t % page_tokens) * width);
            plain = {.data = rows.data(),
                     .tokens = tokens,
                     .heads = s.kv_heads,
                     .size = size,
                     .token_stride = static_cast<std::ptrdiff_t>(width),
                     .head_stride = static_cast<std::ptrdiff_t>(size)};
            paged = plain;
            paged.data = pool.data();
            paged.pages = pages;
            paged.page_tokens = page_tokens;
            paged.page_stride = static_cast<std::ptrdiff_t>(page_tokens * width);
        };
        fill(s.key_size, seed, k, k_pool, k_rows, k_pages);
        if (s.latent) {
            v_rows = k_rows;
            v_pages = k_pages;
            v_rows.size = v_pages.size = s.value_size;
        } else {
            fill(s.value_size, seed + 1, v, v_pool, v_rows, v_pages);
        }
    }
    cached(const cached&) = delete;
    cached& operator=(const cached&) = delete;
};

void decode(benchmark::State& state, const shape& s, bool in_pages) {
    constexpr std::size_t tokens = 4096;
    const cached kv(s, tokens, 2);
    const auto q_numbers = random_numbers<float>(s.heads * s.key_size, 1);
    const rows_view<const float> q{.data = q_numbers.data(),
                                   .tokens = 1,
                                   .heads = s.heads,
                                   .size = s.key_size,
                                   .token_stride = 0,
                                   .head_stride = static_cast<std::ptrdiff_t>(s.key_size)};
    const larql::attention_options options{.threads = &threads()};
    auto out = tensor<float, 3>::from_shape({1, s.heads, s.value_size});
    larql::attention_scratch scratch;
    const auto &k = in_pages ? kv.k_pages : kv.k_rows, &v = in_pages ? kv.v_pages : kv.v_rows;
    larql::gqa_attention_into(q, k, v, out, options, scratch);
    if (out != larql::gqa_attention_asym(q, kv.k_rows, kv.v_rows, options))
        return state.SkipWithError("pages give other numbers");
    larql::benchmarks::time_least(state, [&] { larql::gqa_attention_into(q, k, v, out, options, scratch); });
    const std::size_t row = s.kv_heads * (s.key_size + (s.latent ? 0 : s.value_size));
    state.counters["bytes"] =
        benchmark::Counter(static_cast<double>(tokens * row * 2), benchmark::Counter::kIsIterationInvariantRate);
}

/// One new token of each of eight sequences.
void batch(benchmark::State& state, const shape& s, const std::vector<std::size_t>& lengths, bool in_one_call) {
    std::vector<std::unique_ptr<cached>> kv;
    std::vector<larql::attention_sequence<f16>> sequences;
    for (std::size_t i = 0; i < lengths.size(); ++i) {
        kv.push_back(std::make_unique<cached>(s, lengths[i], 10 * i + 5));
        sequences.push_back({.tokens = 1, .k = kv.back()->k_rows, .v = kv.back()->v_rows});
    }
    const auto q_numbers = random_numbers<float>(lengths.size() * s.heads * s.key_size, 1);
    auto out = tensor<float, 3>::from_shape({lengths.size(), s.heads, s.value_size});
    const auto q_rows = [&](std::size_t first, std::size_t count) {
        const std::size_t width = s.heads * s.key_size;
        return rows_view<const float>{.data = q_numbers.data() + first * width,
                                      .tokens = count,
                                      .heads = s.heads,
                                      .size = s.key_size,
                                      .token_stride = static_cast<std::ptrdiff_t>(width),
                                      .head_stride = static_cast<std::ptrdiff_t>(s.key_size)};
    };
    const larql::attention_options options{.threads = &threads()};
    larql::attention_scratch scratch;
    const auto one_call = [&] {
        larql::gqa_attention_batch(q_rows(0, lengths.size()), sequences, out, options, scratch);
    };
    const auto single_calls = [&] {
        const std::size_t width = s.heads * s.value_size;
        for (std::size_t i = 0; i < lengths.size(); ++i)
            larql::gqa_attention_into(q_rows(i, 1), sequences[i].k, sequences[i].v,
                                      rows_view<float>{.data = out.data() + i * width,
                                                       .tokens = 1,
                                                       .heads = s.heads,
                                                       .size = s.value_size,
                                                       .token_stride = static_cast<std::ptrdiff_t>(width),
                                                       .head_stride = static_cast<std::ptrdiff_t>(s.value_size)},
                                      options, scratch);
    };
    single_calls();
    const auto want = out;
    one_call();
    if (out != want) return state.SkipWithError("a batch gives other numbers");
    larql::benchmarks::time_least(state, [&] { in_one_call ? one_call() : single_calls(); });
}

const bool registered = [] {
    const std::pair<const char*, std::vector<std::size_t>> lengths[] = {
        {"kv512to8192", {512, 8192, 1024, 4096, 700, 2048, 6000, 512}},
        {"kv16to256", {16, 256, 32, 128, 20, 64, 200, 16}},
    };
    for (const shape& s : shapes) {
        for (const bool pages : {false, true})
            larql::benchmarks::add_case(
                "paged/" + std::string(s.name) + "_kv4096/f16/" + (pages ? "pages64" : "contiguous"),
                [&s, pages](benchmark::State& state) { decode(state, s, pages); });
        for (const auto& [name, list] : lengths)
            for (const bool one : {true, false})
                larql::benchmarks::add_case(
                    "batch/" + std::string(s.name) + "_" + name + "_b8/f16/" + (one ? "one_call" : "single_calls"),
                    [&s, list, one](benchmark::State& state) { batch(state, s, list, one); });
    }
    return true;
}();

}  // namespace
