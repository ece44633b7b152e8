// SPDX-License-Identifier: Apache-2.0
//
// Absorption of a quarter of a DeepSeek-V3 layer's heads into dense Q, K, V, beside what bounds it on this machine:
// OpenBLAS's product of the same size with its best kernels, and a copy in memory.
#include <larql/amx.hpp>
#include <larql/detail/blas.hpp>
#include <larql/dtype.hpp>
#include <larql/mla_absorb.hpp>
#include <larql/openblas.hpp>

#include <support/random.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <functional>
#include <type_traits>
#include <vector>

#include "least_time.hpp"

namespace {

larql::thread_pool& threads() {
    static larql::thread_pool pool(2);
    return pool;
}

// Values of the size that weights have. Drawn from a pool: drawing each would take longer than the benchmark.
template <class E>
larql::tensor<E, 2> random_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed) {
    auto out = larql::tensor<E, 2>::from_shape({rows, cols});
    larql::testing::random_source random(seed);
    std::vector<float> pool(1U << 16);
    random.fill_normal(pool, 0.02);
    for (std::size_t i = 0; i < rows; ++i) {
        const std::size_t start = random.below(pool.size());
        for (std::size_t j = 0; j < cols; ++j) out(i, j) = static_cast<E>(pool[(start + j) % pool.size()]);
    }
    return out;
}

// Sampled elements of a * diag(gains) * b against sums in double.
template <class A, class B>
bool agrees(const larql::tensor<float, 2>& product, const A& a, const std::vector<float>& gains, const B& b,
            auto product_row) {
    larql::testing::random_source random(9);
    for (int sample = 0; sample < 200; ++sample) {
        const std::size_t i = random.below(a.shape()[0]);
        const std::size_t j = random.below(b.shape()[1]);
        double want = 0.0;
        double magnitude = 0.0;
        for (std::size_t k = 0; k < gains.size(); ++k) {
            const double term = static_cast<double>(static_cast<float>(a(i, k))) * static_cast<double>(gains[k]) *
                                static_cast<double>(static_cast<float>(b(k, j)));
            want += term;
            magnitude += std::abs(term);
        }
        if (!(std::abs(static_cast<double>(product(product_row(i), j)) - want) <= 1e-6 * magnitude)) return false;
    }
    return true;
}

template <class E>
larql::matrix_input<float> as_input(const larql::tensor<E, 2>& m) {
    if constexpr (std::is_same_v<E, float>)
        return m;
    else  // rows are widened as they are read
        return {m.shape(0), m.shape(1), [&m](std::size_t begin, std::size_t end, float* out, std::size_t stride) {
                    for (std::size_t r = begin; r < end; ++r, out += stride) {
                        const E* from = m.data() + r * m.shape(1);
                        for (std::size_t c = 0; c < m.shape(1); ++c) out[c] = from[c];
                    }
                }};
}

template <class E>
void absorb_dense(benchmark::State& state, larql::executor& executor) {
    larql::enable_amx();
    const larql::mla_geometry geometry{.hidden_size = 7168,
                                       .num_heads = 32,
                                       .q_lora_rank = 1536,
                                       .kv_lora_rank = 512,
                                       .qk_nope_head_dim = 128,
                                       .qk_rope_head_dim = 64,
                                       .v_head_dim = 128,
                                       .order = larql::head_order::nope_rope,
                                       .pairing = larql::rope_pairing::half_split};
    const auto q_a = random_matrix<E>(1536, 7168, 1);
    const auto q_b = random_matrix<E>(std::size_t{32} * 192, 1536, 2);
    const auto kv_a = random_matrix<E>(512 + 64, 7168, 3);
    const auto kv_b = random_matrix<E>(std::size_t{32} * 256, 512, 4);
    std::vector<float> q_gains(1536);
    std::vector<float> kv_gains(512);
    larql::testing::random_source random(5);
    for (std::vector<float>* gains : {&q_gains, &kv_gains})
        for (float& g : *gains) g = static_cast<float>(larql::bf16(static_cast<float>(1.0 + 0.2 * random.normal())));
    const larql::mla_factors<float> factors{.q_a = as_input(q_a),
                                            .q_a_norm = q_gains,
                                            .q_b = as_input(q_b),
                                            .kv_a = as_input(kv_a),
                                            .kv_a_norm = kv_gains,
                                            .kv_b = as_input(kv_b)};
    const larql::absorb_options options{
        .order = larql::head_order::nope_rope, .keep_latent_rows = false, .threads = &executor};
    larql::dense_mla<float> layer = larql::absorb(factors, geometry, options);
    {
        if (!agrees(layer.q, q_b, q_gains, q_a, [](std::size_t i) { return i; }))
            return state.SkipWithError("Q is wrong");
        // Of kv_b's rows only the keys' are in K: look at one head's, then at one head's values.
        auto keys = larql::tensor<E, 2>::from_shape({128, 512});
        auto values = larql::tensor<E, 2>::from_shape({128, 512});
        constexpr std::size_t head = 17;
        std::copy_n(kv_b.data() + head * 256 * 512, keys.size(), keys.data());
        std::copy_n(kv_b.data() + (head * 256 + 128) * 512, values.size(), values.data());
        if (!agrees(layer.k, keys, kv_gains, kv_a, [](std::size_t i) { return head * 192 + i; }) ||
            !agrees(layer.v, values, kv_gains, kv_a, [](std::size_t i) { return head * 128 + i; }))
            return state.SkipWithError("K or V is wrong");
    }
    larql::benchmarks::time_least(state, [&] {  // into memory that exists, like the products that it is compared with
        larql::absorb_into(factors, geometry, layer.q, layer.k, layer.v, options);
    });
    const double flops = 2.0 * 7168 * 32 * (192.0 * 1536 + 256.0 * 512);
    state.counters["flops"] = benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
}

void sgemm(benchmark::State& state) {
    larql::openblas_use_best_kernels();
    const std::size_t m = 6144;
    const std::size_t n = 7168;
    const std::size_t k = 1536;
    const auto a = random_matrix<float>(m, k, 1);
    const auto b = random_matrix<float>(k, n, 2);
    auto c = larql::tensor<float, 2>::from_shape({m, n});
    larql::benchmarks::time_least(state, [&] {
        larql::detail::blas_gemm<float>(m, n, k, {a.data(), k}, {b.data(), n}, false, {c.data(), n}, false);
    });
    state.SetLabel(larql::openblas_status().message);
    state.counters["flops"] =
        benchmark::Counter(2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k),
                           benchmark::Counter::kIsIterationInvariantRate);
}

void copy(benchmark::State& state) {
    const std::size_t size = std::size_t{256} << 20;
    std::vector<char> from(size, 1);
    std::vector<char> to(size, 2);
    larql::benchmarks::time_least(state, [&] {
        constexpr std::size_t parts = 16;
        threads().run(parts, [&](std::size_t i) {
            std::memcpy(to.data() + i * (size / parts), from.data() + i * (size / parts), size / parts);
        });
    });
    state.SetBytesProcessed(2 * static_cast<std::int64_t>(size));
}

const bool registered = [] {
    static larql::serial_executor one;
    using larql::benchmarks::add_case;
    add_case("sgemm/6144x7168x1536", sgemm);
    add_case("copy/256MiB", copy);
    add_case("absorb_dense/v3_32heads", absorb_dense<float>, std::ref(threads()));
    add_case("absorb_dense/v3_32heads/bf16", absorb_dense<larql::bf16>, std::ref(threads()));
    add_case("absorb_dense/v3_32heads/t1", absorb_dense<float>, std::ref(one));
    return true;
}();

}  // namespace
