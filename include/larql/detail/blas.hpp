// SPDX-License-Identifier: Apache-2.0
//
// The only header that names a BLAS: xtensor-blas's declarations of the CBLAS interface, and matrix products whose
// sizes are checked against its index type.
#ifndef LARQL_DETAIL_BLAS_HPP
#define LARQL_DETAIL_BLAS_HPP

#include <larql/detail/concat.hpp>
#include <larql/error.hpp>

#if !__has_include(<xflens/cxxblas/drivers/cblas.h>)
#error "larql needs xtensor-blas 0.20 or later on the include path (Debian: libxtensor-blas-dev)"
#endif
#include <xflens/cxxblas/drivers/cblas.h>

#include <concepts>
#include <cstddef>
#include <limits>
#include <string>

namespace larql::detail {

/// The integer that the CBLAS interface counts with.
using blas_int = CBLAS_INT;

/// @throws error limit_exceeded if `value` does not fit
inline blas_int to_blas_int(std::size_t value, const char* what) {
    constexpr auto limit = static_cast<std::size_t>(std::numeric_limits<blas_int>::max());
    if (value > limit)
        fail(errc::limit_exceeded, concat({what, " of a matrix product: BLAS counts up to ", limit, ", got ", value}));
    return static_cast<blas_int>(value);
}

/// A matrix for BLAS: row-major, rows `stride` values apart.
template <class T>
struct blas_matrix {
    T* data;
    std::size_t stride;
};

/// C = A B (b_transposed false: B is [k, n]) or A B^T (B is [n, k]), added to C if `add`. A is [m, k], C [m, n].
/// Runs on the threads of the BLAS. @throws error limit_exceeded for sizes that its integers cannot hold
template <class T>
    requires std::same_as<T, float> || std::same_as<T, double>
void blas_gemm(std::size_t m, std::size_t n, std::size_t k, blas_matrix<const T> a, blas_matrix<const T> b,
               bool b_transposed, blas_matrix<T> c, bool add) {
    const blas_int rows = to_blas_int(m, "rows");
    const blas_int cols = to_blas_int(n, "columns");
    const blas_int depth = to_blas_int(k, "depth");
    const blas_int lda = to_blas_int(a.stride, "row stride");
    const blas_int ldb = to_blas_int(b.stride, "row stride");
    const blas_int ldc = to_blas_int(c.stride, "row stride");
    const auto b_order = b_transposed ? CblasTrans : CblasNoTrans;
    const T beta = add ? T{1} : T{0};
    if constexpr (std::same_as<T, float>)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, b_order, rows, cols, depth, 1.0F, a.data, lda, b.data, ldb, beta,
                    c.data, ldc);
    else
        cblas_dgemm(CblasRowMajor, CblasNoTrans, b_order, rows, cols, depth, 1.0, a.data, lda, b.data, ldb, beta,
                    c.data, ldc);
}

}  // namespace larql::detail

#endif
