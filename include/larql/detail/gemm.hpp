// SPDX-License-Identifier: Apache-2.0
//
// Matrix products over factors that are read by rows, so that a stored (also quantised) weight enters a product without
// ever existing as a whole float matrix.
#ifndef LARQL_DETAIL_GEMM_HPP
#define LARQL_DETAIL_GEMM_HPP

#include <larql/detail/function_ref.hpp>
#include <larql/executor.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace larql::detail {

/// A matrix that is read by rows. `read_rows(begin, end, out, stride)` writes rows [begin, end) of `cols` values each
/// to out, out + stride, ...; it may be called from several threads at once, in any order, and more than once per row.
/// A source that has its rows in memory also sets `data`, and then read_rows is not called for it.
///
/// It refers to its reader and owns nothing: name the callable, so that it outlives the source.
template <class T>
struct matrix_source {
    std::size_t rows;
    std::size_t cols;
    function_ref<void(std::size_t begin, std::size_t end, T* out, std::size_t stride)> read_rows;
    const T* data = nullptr;     ///< row r is data + r * row_stride, contiguous, or null
    std::size_t row_stride = 0;  ///< in values
};

/// A row-major matrix in memory as a reader; `source()` refers to this object.
template <class T>
struct dense_rows {
    const T* data;
    std::size_t rows;
    std::size_t cols;
    std::size_t row_stride;

    void operator()(std::size_t begin, std::size_t end, T* out, std::size_t stride) const {
        for (std::size_t r = begin; r < end; ++r, out += stride) std::copy_n(data + r * row_stride, cols, out);
    }
    [[nodiscard]] matrix_source<T> source() const& { return {rows, cols, *this, data, row_stride}; }
    matrix_source<T> source() const&& = delete;
};

/// C[i,:] = sum over k of A[i,k] * k_scale[k] * B[k,:].
///
/// @param a        [M, K]
/// @param k_scale  [K], or null for ones
/// @param b        [K, N]
/// @param c_row    where row i of the product is written: N contiguous values, rows apart from each other
template <class T>
void gemm_nn(const matrix_source<T>& a, const T* k_scale, const matrix_source<T>& b,
             function_ref<T*(std::size_t)> c_row, executor& threads) {
    const std::size_t k_block = 256;
    const std::size_t m_block = 16;
    const std::size_t n = b.cols;
    const std::size_t blocks = (a.rows + m_block - 1) / m_block;
    for (std::size_t i = 0; i < a.rows; ++i) std::fill_n(c_row(i), n, T{});
    std::vector<T> panel(std::min(k_block, b.rows) * n);
    for (std::size_t k0 = 0; k0 < b.rows; k0 += k_block) {
        const std::size_t k1 = std::min(b.rows, k0 + k_block);
        b.read_rows(k0, k1, panel.data(), n);
        threads.run(blocks, [&](std::size_t block) {
            const std::size_t i0 = block * m_block;
            const std::size_t i1 = std::min(a.rows, i0 + m_block);
            std::vector<T> rows((i1 - i0) * a.cols);
            a.read_rows(i0, i1, rows.data(), a.cols);
            for (std::size_t i = i0; i < i1; ++i) {
                T* c = c_row(i);
                for (std::size_t k = k0; k < k1; ++k) {
                    T factor = rows[(i - i0) * a.cols + k];
                    if (k_scale != nullptr) factor *= k_scale[k];
                    const T* row = panel.data() + (k - k0) * n;
                    for (std::size_t j = 0; j < n; ++j) c[j] += factor * row[j];
                }
            }
        });
    }
}

/// C[i,j] = sum over k of A[i,k] * B[j,k]: a projection, x W^T.
///
/// @param a      [M, K]
/// @param b      [N, K]
/// @param c_row  where row i of the product is written: N contiguous values, rows apart from each other
template <class T>
void gemm_nt(const matrix_source<T>& a, const matrix_source<T>& b, function_ref<T*(std::size_t)> c_row,
             executor& threads) {
    const std::size_t n_block = 16;
    const std::size_t k = a.cols;
    std::vector<T> left(a.rows * k);
    a.read_rows(0, a.rows, left.data(), k);
    threads.run((b.rows + n_block - 1) / n_block, [&](std::size_t block) {
        const std::size_t j0 = block * n_block;
        const std::size_t j1 = std::min(b.rows, j0 + n_block);
        std::vector<T> rows((j1 - j0) * k);
        b.read_rows(j0, j1, rows.data(), k);
        for (std::size_t i = 0; i < a.rows; ++i) {
            T* c = c_row(i);
            for (std::size_t j = j0; j < j1; ++j) {
                T sum[8] = {};
                const T* x = left.data() + i * k;
                const T* y = rows.data() + (j - j0) * k;
                std::size_t l = 0;
                for (; l + 8 <= k; l += 8)
                    for (std::size_t u = 0; u < 8; ++u) sum[u] += x[l + u] * y[l + u];
                for (; l < k; ++l) sum[0] += x[l] * y[l];
                c[j] = ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
            }
        }
    });
}

}  // namespace larql::detail

#endif
