// SPDX-License-Identifier: Apache-2.0
//
// The two products that larql takes from a BLAS, as plain loops: for machines of which only a compiler is here.
#include <larql/detail/blas.hpp>

#include <cstddef>

namespace {

template <class T>
void multiply(bool transposed, CBLAS_INT m, CBLAS_INT n, CBLAS_INT k, const T* a, CBLAS_INT lda, const T* b,
              CBLAS_INT ldb, T beta, T* c, CBLAS_INT ldc) {
    for (std::ptrdiff_t i = 0; i < m; ++i)
        for (std::ptrdiff_t j = 0; j < n; ++j) {
            T sum = beta == T{} ? T{} : beta * c[i * ldc + j];
            for (std::ptrdiff_t l = 0; l < k; ++l)
                sum += a[i * lda + l] * (transposed ? b[j * ldb + l] : b[l * ldb + j]);
            c[i * ldc + j] = sum;
        }
}

}  // namespace

extern "C" {
// Row-major, the first factor as it stands, and alpha 1: as larql calls them.
void cblas_sgemm(CBLAS_ORDER, CBLAS_TRANSPOSE, CBLAS_TRANSPOSE b_order, CBLAS_INT m, CBLAS_INT n, CBLAS_INT k, float,
                 const float* a, CBLAS_INT lda, const float* b, CBLAS_INT ldb, float beta, float* c, CBLAS_INT ldc) {
    multiply(b_order == CblasTrans, m, n, k, a, lda, b, ldb, beta, c, ldc);
}
void cblas_dgemm(CBLAS_ORDER, CBLAS_TRANSPOSE, CBLAS_TRANSPOSE b_order, CBLAS_INT m, CBLAS_INT n, CBLAS_INT k, double,
                 const double* a, CBLAS_INT lda, const double* b, CBLAS_INT ldb, double beta, double* c,
                 CBLAS_INT ldc) {
    multiply(b_order == CblasTrans, m, n, k, a, lda, b, ldb, beta, c, ldc);
}
}
