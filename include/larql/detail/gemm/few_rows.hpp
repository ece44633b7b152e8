// SPDX-License-Identifier: Apache-2.0
//
// C = A B^T for a few rows of A (a decode step): every row of B goes through the processor once and is multiplied with
// all rows of A on the way, since reading B is what takes the time.
#ifndef LARQL_DETAIL_GEMM_FEW_ROWS_HPP
#define LARQL_DETAIL_GEMM_FEW_ROWS_HPP

#include <larql/detail/gemm/kernels.hpp>
#include <larql/detail/gemm/product.hpp>
#include <larql/executor.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

#if LARQL_X86_DISPATCH
namespace larql::detail {

/// With more rows of A than this, packing B pays.
inline constexpr std::size_t few_rows_limit = 8;

/// The float product with at most few_rows_limit rows of A; B's rows are columns of the product.
inline void multiply_few_rows(const product<float>& p, simd_level level, executor& threads) {
    const dot_kernel dot = choose_gemm_kernels(level).dot;
    const std::size_t m = p.m();
    const std::size_t k = p.k();
    aligned_array<float> a_memory(p.a.data != nullptr && p.k_scale == nullptr ? 0 : m * k);
    row_view<float> a = view_rows(p.a, 0, m, a_memory.data());
    if (p.k_scale != nullptr) {
        for (std::size_t i = 0; i < m; ++i)
            for (std::size_t l = 0; l < k; ++l) a_memory.data()[i * k + l] = a.data[i * a.stride + l] * p.k_scale[l];
        a = {a_memory.data(), k};
    }
    std::vector<float*> c(m);
    for (std::size_t i = 0; i < m; ++i) c[i] = p.c_row(i);

    constexpr std::size_t block_bytes = 256 * 1024;  // a quarter of a second-level cache or less
    const std::size_t block = round_to(std::max<std::size_t>(block_bytes / (k * sizeof(float)), 1), dot_rows);
    scratch_pool<aligned_array<float>> scratch;
    threads.run(divide_up(p.n(), block), [&](std::size_t task) {
        const std::size_t begin = task * block;
        const std::size_t end = std::min(p.n(), begin + block);
        const auto make = [&] { return aligned_array<float>(p.b.data != nullptr ? 0 : block * k); };
        scratch.with(make, [&](aligned_array<float>& raw) {
            const row_view<float> b = view_rows(p.b, begin, end, raw.data());
            for (std::size_t j = begin; j < end; j += dot_rows) {
                const std::size_t count = std::min(dot_rows, end - j);
                // Beyond the last row: the last row again, so that the kernel has one form.
                const float* rows[dot_rows];
                for (std::size_t r = 0; r < dot_rows; ++r)
                    rows[r] = b.data + (j - begin + std::min(r, count - 1)) * b.stride;
                for (std::size_t i = 0; i < m; ++i) {
                    float sums[dot_rows];
                    dot(k, a.data + i * a.stride, rows, sums);
                    std::copy_n(sums, count, c[i] + j);
                }
            }
        });
    });
}

}  // namespace larql::detail
#endif

#endif
