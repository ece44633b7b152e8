// SPDX-License-Identifier: Apache-2.0
//
// Matrix products over factors that are read by rows, so that a stored (also quantised) weight enters a product without
// ever existing as a whole float matrix.
#ifndef LARQL_DETAIL_GEMM_HPP
#define LARQL_DETAIL_GEMM_HPP

#include <larql/detail/amx.hpp>
#include <larql/detail/cpu.hpp>
#include <larql/detail/function_ref.hpp>
#include <larql/detail/gemm/amx.hpp>
#include <larql/detail/gemm/blas.hpp>
#include <larql/detail/gemm/few_rows.hpp>
#include <larql/detail/gemm/packed.hpp>
#include <larql/detail/gemm/source.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>

namespace larql::detail {

/// How a product is computed. Double always goes through BLAS.
enum class gemm_path { blas, avx2, avx512, amx };

inline std::string_view to_string(gemm_path path) noexcept {
    switch (path) {
        case gemm_path::blas: return "blas";
        case gemm_path::avx2: return "avx2";
        case gemm_path::avx512: return "avx512";
        case gemm_path::amx: return "amx";
    }
    return "unknown";
}

/// The fastest path that this process may use.
inline gemm_path best_gemm_path() noexcept {
    switch (active_simd_level()) {
        case simd_level::portable: return gemm_path::blas;
        case simd_level::avx2: return gemm_path::avx2;
        case simd_level::avx512: return amx_permitted() ? gemm_path::amx : gemm_path::avx512;
    }
    return gemm_path::blas;
}

#if LARQL_AMX
// AMX, and for the rows that it leaves out the vector kernels.
inline void multiply_amx(const product<float>& p, executor& threads) {
    for (const index_range left : amx_product(p, threads).run()) {
        auto read = [&](std::size_t begin, std::size_t end, float* out, std::size_t stride) {
            p.a.read_rows(left.begin + begin, left.begin + end, out, stride);
        };
        auto c_row = [&](std::size_t i) { return p.c_row(left.begin + i); };
        const float* data = p.a.data == nullptr ? nullptr : p.a.data + left.begin * p.a.row_stride;
        const matrix_source<float> rows{left.size(), p.k(), read, data, p.a.row_stride};
        const product<float> rest{rows, p.k_scale, p.b, p.b_rows, c_row, p.shared_bytes};
        packed_product(rest, simd_level::avx512, threads).run();
    }
}
#endif

template <class T>
void multiply(const product<T>& p, executor& threads, gemm_path path) {
    const std::size_t b_depth = p.b_rows == row_role::depth ? p.b.rows : p.b.cols;
    if (p.k() != b_depth)
        fail(errc::shape_mismatch, "matrix product: the first factor has " + std::to_string(p.k()) +
                                       " columns, the second has depth " + std::to_string(b_depth));
    if (p.m() == 0 || p.n() == 0) return;
    if (p.k() == 0) {
        for (std::size_t i = 0; i < p.m(); ++i) std::fill_n(p.c_row(i), p.n(), T{});
        return;
    }
#if LARQL_X86_DISPATCH
    if constexpr (std::is_same_v<T, float>) {
        if (path != gemm_path::blas) {
            const simd_level level = path == gemm_path::avx2 ? simd_level::avx2 : simd_level::avx512;
            if (p.b_rows == row_role::column && p.m() <= few_rows_limit) return multiply_few_rows(p, level, threads);
#if LARQL_AMX
            if (path == gemm_path::amx && p.b_rows == row_role::depth && p.m() >= amx_block)
                return multiply_amx(p, threads);
#endif
            return packed_product(p, level, threads).run();
        }
    }
#endif
    static_cast<void>(path);
    blas_product<T>(p, threads).run();
}

/// C[i,:] = sum over k of A[i,k] * k_scale[k] * B[k,:].
///
/// A row of B is read once, a row of A a few times (see for_each_stretch). Besides the result it needs about 36 MiB.
///
/// @param a        [M, K]
/// @param k_scale  [K], or null for ones
/// @param b        [K, N]
/// @param c_row    where row i of the product is written: N contiguous values, rows apart from each other; what was
///                 there is not read. Called from several threads
/// @param path     for tests; the processor must have it
/// @throws error shape_mismatch if the factors disagree about K; whatever a reader throws
template <class T>
void gemm_nn(const matrix_source<T>& a, const std::type_identity_t<T>* k_scale, const matrix_source<T>& b,
             std::type_identity_t<function_ref<T*(std::size_t)>> c_row, executor& threads,
             gemm_path path = best_gemm_path()) {
    multiply(product<T>{a, k_scale, b, row_role::depth, c_row}, threads, path);
}

/// C[i,j] = sum over k of A[i,k] * B[j,k]: a projection, x W^T. A row of A is read once, a row of B once per 32 MiB of
/// A. Parameters as in gemm_nn, but for
///
/// @param b  [N, K]
template <class T>
void gemm_nt(const matrix_source<T>& a, const matrix_source<T>& b,
             std::type_identity_t<function_ref<T*(std::size_t)>> c_row, executor& threads,
             gemm_path path = best_gemm_path()) {
    multiply(product<T>{a, nullptr, b, row_role::column, c_row}, threads, path);
}

}  // namespace larql::detail

#endif
