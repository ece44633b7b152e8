// SPDX-License-Identifier: Apache-2.0
//
// dequantize of every format that is not float already: one thread, 16 Mi elements to float32. Each result is compared
// with the portable decoder's, bit for bit, before anything is timed.
#include <larql/ggml_blocks.hpp>

#include <support/random.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "least_time.hpp"

namespace {

constexpr std::size_t elements = std::size_t{16} << 20;

/// ggml's spelling of a name: lower case but for the K of its K formats.
std::string ggml_name(larql::dtype type) {
    std::string name(to_string(type));
    for (char& c : name)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (name.ends_with("_k")) name.back() = 'K';
    return name;
}

std::vector<std::byte> random_blocks(std::size_t size_bytes) {
    larql::testing::random_source random(11);
    std::vector<std::byte> out(size_bytes);
    // Drawing every byte would take longer than the benchmark; no cache holds a mebibyte of blocks and its output.
    const std::size_t drawn = std::min(size_bytes, std::size_t{1} << 20);
    for (std::size_t i = 0; i < drawn; ++i) out[i] = static_cast<std::byte>(random.bits() >> 56);
    for (std::size_t i = drawn; i < size_bytes; i += drawn)
        std::memcpy(out.data() + i, out.data(), std::min(drawn, size_bytes - i));
    return out;
}

/// Whether all values are the same; any two NaN are.
bool same_values(const std::vector<float>& a, const std::vector<float>& b) {
    return std::equal(a.begin(), a.end(), b.begin(),
                      [](float x, float y) { return std::memcmp(&x, &y, sizeof x) == 0 || (x != x && y != y); });
}

void dequant(benchmark::State& state, larql::dtype type) {
    const larql::dtype_traits& traits = traits_of(type);
    const std::vector<std::byte> blocks = random_blocks(elements / traits.block_elements * traits.block_bytes);
    std::vector<float> out(elements);
    {
        std::vector<float> expected(elements);
        dequantize(type, blocks, expected, larql::detail::simd_level::portable);
        dequantize(type, blocks, out);
        if (!same_values(out, expected)) return state.SkipWithError("differs from the portable decoder");
    }
    larql::benchmarks::time_least(state, [&] { dequantize(type, blocks, out); });
    state.SetItemsProcessed(static_cast<std::int64_t>(elements));
    state.SetBytesProcessed(static_cast<std::int64_t>(elements * sizeof(float)));  // of output
}

[[maybe_unused]] const bool registered = [] {
    for (const larql::dtype_traits& row : larql::detail::dtype_table)
        if (row.kind != larql::dtype_kind::integer && row.block_bytes < sizeof(float) * row.block_elements)
            larql::benchmarks::add_case("dequant/" + ggml_name(row.type), dequant, row.type);
    return true;
}();

}  // namespace
