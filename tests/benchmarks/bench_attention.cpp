// SPDX-License-Identifier: Apache-2.0
//
// gqa_attention over the shapes of prefill and decoding. Keys and values lie as a cache holds them, [S, G, D]. Rows of
// every result are compared with the plain reference before anything is timed.
#include <larql/gqa_attention.hpp>

#include <support/q8_0_rows.hpp>
#include <support/random.hpp>
#include <support/reference_attention.hpp>

#include <benchmark/benchmark.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "least_time.hpp"

namespace {

struct attention_case {
    std::string name;
    std::size_t tokens, keys, heads, kv_heads, key_size, value_size;
    bool latent = false;  // values are the first columns of the keys
    bool one_thread = false;
};

larql::executor& threads(bool one) {
    static larql::thread_pool pool(2);
    static larql::serial_executor serial;
    if (one) return serial;
    return pool;
}

template <class E>
larql::tensor<E, 3> random_tensor(std::size_t a, std::size_t b, std::size_t c, std::uint64_t seed) {
    larql::tensor<E, 3> out({a, b, c});
    larql::testing::random_source random(seed);
    std::vector<float> pool(1U << 14);  // drawing every element would take longer than the benchmark
    random.fill_normal(pool);
    std::size_t at = 0;
    for (E& x : out) {
        x = static_cast<E>(pool[at]);
        at = (at + 1 + (at == 0 ? random.below(pool.size() / 2) : 0)) % pool.size();
    }
    return out;
}

template <class Q, class K, class V, class Out>
bool agrees(const Q& q, const K& k, const V& v, const Out& out) {
    larql::testing::random_source random(7);
    for (int sample = 0; sample < 24; ++sample) {
        const std::size_t t = sample == 0 ? q.shape()[0] - 1 : random.below(q.shape()[0]);
        const std::size_t h = random.below(q.shape()[1]);
        const auto want = larql::testing::reference_row<double>(q, k, v, {}, t, h);
        for (std::size_t c = 0; c < want.size(); ++c)
            if (!(std::abs(want[c] - static_cast<double>(out(t, h, c))) < 2e-5)) return false;
    }
    return true;
}

/// @param k_numbers, v_numbers  what k and v hold
template <class E, class K, class V, class KNumbers, class VNumbers>
void run(benchmark::State& state, const attention_case& c, const K& k, const V& v, const KNumbers& k_numbers,
         const VNumbers& v_numbers) {
    const auto q = random_tensor<float>(c.tokens, c.heads, c.key_size, 1);
    larql::tensor<float, 3> out({c.tokens, c.heads, c.value_size});
    larql::attention_scratch scratch;
    const larql::attention_options options{.threads = &threads(c.one_thread)};
    larql::gqa_attention_into(q, k, v, out, options, scratch);
    if (!agrees(q, k_numbers, v_numbers, out)) return state.SkipWithError("differs from the reference");
    larql::benchmarks::time_least(state, [&] { larql::gqa_attention_into(q, k, v, out, options, scratch); });
    const double pairs = static_cast<double>(c.heads * c.tokens) * static_cast<double>(c.keys);
    const double flops = (c.tokens > 1 ? 1.0 : 2.0) * pairs * static_cast<double>(c.key_size + c.value_size);
    const double row = static_cast<double>(c.latent ? c.key_size : c.key_size + c.value_size);
    const double bytes = static_cast<double>(c.keys * c.kv_heads * sizeof(E)) * row /
                         static_cast<double>(larql::detail::element_numbers<E>);
    state.counters["scratch_bytes"] = static_cast<double>(scratch.size_bytes());
    state.counters["flop"] = benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
    state.counters["bytes"] = benchmark::Counter(bytes, benchmark::Counter::kIsIterationInvariantRate);
}

/// The first columns of the rows of one head, as a view.
template <class E>
auto first_columns(const larql::tensor<E, 3>& rows, std::size_t columns) {
    const std::array<std::size_t, 3> shape{rows.shape(0), 1, columns};
    const std::array<std::size_t, 3> strides{rows.shape(2), rows.shape(2), 1};
    return xt::adapt(rows.data(), rows.shape(0) * columns, xt::no_ownership(), shape, strides);
}

template <class E>
void bench(benchmark::State& state, const attention_case& c) {
    const auto k = random_tensor<E>(c.keys, c.kv_heads, c.key_size, 2);
    if (c.latent) {
        const auto v = first_columns(k, c.value_size);
        return run<E>(state, c, k, v, k, v);
    }
    const auto v = random_tensor<E>(c.keys, c.kv_heads, c.value_size, 3);
    run<E>(state, c, k, v, k, v);
}

void bench_q8_0(benchmark::State& state, const attention_case& c) {
    using block = larql::q8_0_block;
    const larql::testing::q8_0_rows k(random_tensor<float>(c.keys, c.kv_heads, c.key_size, 2));
    if (c.latent) {
        return run<block>(state, c, k.view(c.key_size), k.view(c.value_size), k.numbers,
                          first_columns(k.numbers, c.value_size));
    }
    const larql::testing::q8_0_rows v(random_tensor<float>(c.keys, c.kv_heads, c.value_size, 3));
    run<block>(state, c, k.view(c.key_size), v.view(c.value_size), k.numbers, v.numbers);
}

const attention_case cases[] = {
    {"prefill/h16kv16_qk192_v128_s1024", 1024, 1024, 16, 16, 192, 128},
    {"prefill/h32kv8_qk128_v128_s1024", 1024, 1024, 32, 8, 128, 128},
    {"prefill/h16kv16_qk192_v128_s4096", 4096, 4096, 16, 16, 192, 128},
    {"decode/h128kv1_qk576_v512_kv4096", 1, 4096, 128, 1, 576, 512, true},
    {"decode/h32kv8_qk128_v128_kv4096", 1, 4096, 32, 8, 128, 128},
    {"decode/h128kv128_qk192_v128_kv1024", 1, 1024, 128, 128, 192, 128},
};

// For growth with length and with threads, beside the cases above.
const attention_case float_cases[] = {
    {"prefill/h16kv16_qk192_v128_s512", 512, 512, 16, 16, 192, 128},
    {"prefill/h16kv16_qk192_v128_s2048", 2048, 2048, 16, 16, 192, 128},
};
const attention_case half_cases[] = {
    {"decode/h32kv8_qk128_v128_kv1024", 1, 1024, 32, 8, 128, 128},
    {"decode/h32kv8_qk128_v128_kv2048", 1, 2048, 32, 8, 128, 128},
    {"decode/h32kv8_qk128_v128_kv8192", 1, 8192, 32, 8, 128, 128},
    {"decode/h32kv8_qk128_v128_kv16384", 1, 16384, 32, 8, 128, 128},
};
const attention_case one_thread = {"prefill/h16kv16_qk192_v128_s1024", 1024, 1024, 16, 16, 192, 128, false, true};

void add(const attention_case& c, const char* variant, void (*function)(benchmark::State&, const attention_case&)) {
    larql::benchmarks::add_case(c.name + variant, function, c);
}

const bool registered = [] {
    for (const attention_case& c : cases) {
        add(c, "/f32", bench<float>);
        add(c, "/bf16", bench<larql::bf16>);
        add(c, "/f16", bench<larql::f16>);
        if (c.tokens == 1) add(c, "/q8_0", bench_q8_0);
    }
    for (const attention_case& c : float_cases) add(c, "/f32", bench<float>);
    for (const attention_case& c : half_cases) add(c, "/f16", bench<larql::f16>);
    add(one_thread, "/f32/t1", bench<float>);
    return true;
}();

}  // namespace
