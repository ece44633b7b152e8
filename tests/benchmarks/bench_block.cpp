// SPDX-License-Identifier: Apache-2.0
//
// A whole DeepSeek-V3 attention block in latent form, hidden states to output, against 4096 cached tokens in f16, from
// weights as checkpoints store them: bf16 and q4_K as a kv_b, q8_0 and q4_0 split into k_b and v_b, as GGUF files do.
// Before anything is timed, the output is compared with that of the same layer over decoded rows.
#include <larql/attention_layer.hpp>
#include <larql/detail/ggml/stored.hpp>
#include <larql/ggml_blocks.hpp>

#include <support/random.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "least_time.hpp"

namespace {

using larql::dtype;
using larql::matrix_input;
using larql::tensor_role;

constexpr std::size_t cached = 4096;

larql::executor& threads() {
    static larql::thread_pool pool(2);
    return pool;
}

/// A weight of a type with random numbers. Few rows are encoded, and each stands in many places: encoding all would
/// take longer than the benchmark.
matrix_input<float> random_weight(dtype type, std::size_t rows, std::size_t cols, std::uint64_t seed, bool decoded) {
    constexpr std::size_t distinct = 61;
    const larql::dtype_traits& traits = larql::traits_of(type);
    const std::size_t row_bytes = cols / traits.block_elements * traits.block_bytes;
    larql::testing::random_source random(seed);
    std::vector<float> numbers(distinct * cols);
    random.fill_normal(numbers, 0.02);
    std::vector<std::byte> encoded(distinct * row_bytes);
    larql::quantize(type, numbers, encoded);
    auto memory = std::make_shared<larql::detail::aligned_array<std::byte>>(rows * row_bytes);
    for (std::size_t r = 0; r < rows; ++r)
        std::copy_n(encoded.data() + r * 7 % distinct * row_bytes, row_bytes, memory->data() + r * row_bytes);
    const auto read = [type, cols, row_bytes, memory](std::size_t begin, std::size_t end, float* out,
                                                      std::size_t stride) {
        for (std::size_t r = begin; r < end; ++r, out += stride)
            larql::dequantize(type, {memory->data() + r * row_bytes, row_bytes}, {out, cols});
    };
    if (decoded) return {rows, cols, read};
    return {rows, cols, read, larql::detail::stored_matrix_of(type, memory->data(), cols), memory};
}

larql::attention_layer<float> make_layer(dtype type, bool decoded) {
    using enum tensor_role;
    const bool split = type == dtype::q8_0 || type == dtype::q4_0;
    larql::attention_spec spec{.form = larql::attention_form::latent,
                               .latent_from = split ? larql::latent_factors::split : larql::latent_factors::kv_b,
                               .geometry = {.hidden_size = 7168,
                                            .num_heads = 128,
                                            .q_lora_rank = 1536,
                                            .kv_lora_rank = 512,
                                            .qk_nope_head_dim = 128,
                                            .qk_rope_head_dim = 64,
                                            .v_head_dim = 128,
                                            .order = larql::head_order::nope_rope,
                                            .pairing = larql::rope_pairing::interleaved},
                               .rope = {.rotary_dim = 64, .theta = 10000.0},
                               .scale = 1.0 / std::sqrt(192.0)};
    larql::attention_weights<float> w;
    const auto add = [&](tensor_role role, std::size_t rows, std::size_t cols) {
        w[role] = random_weight(type, rows, cols, static_cast<std::uint64_t>(role) + 1, decoded);
    };
    add(q_a, 1536, 7168);
    add(q_b, std::size_t{128} * 192, 1536);
    add(kv_a, 512 + 64, 7168);
    if (split) {
        add(k_b, std::size_t{128} * 512, 128);
        add(v_b, std::size_t{128} * 128, 512);
    } else {
        add(kv_b, std::size_t{128} * 256, 512);
    }
    add(o, 7168, std::size_t{128} * 128);
    w.vector(q_a_norm) = std::vector<float>(1536, 1.1F);
    w.vector(kv_a_norm) = std::vector<float>(512, 0.9F);
    return {std::move(spec), std::move(w)};
}

larql::tensor<float, 2> hidden_states(std::size_t tokens) {
    auto x = larql::tensor<float, 2>::from_shape({tokens, 7168});
    larql::testing::random_source random(3);
    random.fill_normal(x);
    return x;
}

void fill(larql::kv_cache<larql::f16>& cache) {
    auto rows = larql::tensor<float, 2>::from_shape({cached, 576});
    larql::testing::random_source random(4);
    random.fill_normal(rows);
    cache.append(rows);
}

/// The output for one token is that of a layer whose weights are decoded, a few rows at a time, before they are used.
bool agrees(const larql::attention_layer<float>& layer, dtype type, larql::kv_cache<larql::f16>& cache) {
    const auto x = hidden_states(1);
    const auto got = layer.forward(x, cache, &threads()).out;
    cache.truncate(cached);
    const auto want = make_layer(type, true).forward(x, cache, &threads()).out;
    cache.truncate(cached);
    double error = 0.0, size = 0.0;
    for (std::size_t i = 0; i < want.size(); ++i) {
        error = std::max(error, static_cast<double>(std::abs(got.data()[i] - want.data()[i])));
        size = std::max(size, static_cast<double>(std::abs(want.data()[i])));
    }
    return error <= 1e-4 * size;
}

void block(benchmark::State& state, dtype type, std::size_t tokens) {
    const auto layer = make_layer(type, false);
    auto cache = layer.make_cache<larql::f16>(cached + tokens);
    fill(cache);
    if (tokens == 1 && !agrees(layer, type, cache)) return state.SkipWithError("differs from decoded weights");
    const auto x = hidden_states(tokens);
    larql::attention_result<float> r;
    larql::attention_workspace<float> memory;
    larql::benchmarks::time_least(state, [&] {
        layer.forward_into(x, cache, r, memory, {.threads = &threads()});
        cache.truncate(cached);
    });
    const larql::dtype_traits& traits = larql::traits_of(type);
    constexpr double numbers = 7168.0 * (1536 + 576) + 1536.0 * 128 * 192 + 512.0 * 128 * 256 + 7168.0 * 128 * 128;
    const double bytes = numbers / traits.block_elements * traits.block_bytes + cached * 576.0 * 2;
    state.counters["bytes"] = benchmark::Counter(bytes, benchmark::Counter::kIsIterationInvariantRate);
}

const bool registered = [] {
    constexpr std::pair<const char*, dtype> types[] = {
        {"bf16", dtype::bf16}, {"q8_0", dtype::q8_0}, {"q4_0", dtype::q4_0}, {"q4_K", dtype::q4_k}};
    for (const std::size_t tokens : {1U, 4U, 512U})
        for (const auto& [name, type] : types)
            larql::benchmarks::add_case("block/v3_h128_kv4096_t" + std::to_string(tokens) + "/" + name, block, type,
                                        tokens);
    return true;
}();

}  // namespace
