// SPDX-License-Identifier: Apache-2.0
//
// The product through BLAS: for double, and for float on x86 processors without AVX2. Blocks of rows are
// read by the executor's threads; BLAS then multiplies on its own.
#ifndef LARQL_DETAIL_GEMM_BLAS_HPP
#define LARQL_DETAIL_GEMM_BLAS_HPP

#include <larql/detail/blas.hpp>
#include <larql/detail/gemm/product.hpp>
#include <larql/executor.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace larql::detail {

template <class T>
class blas_product {
public:
    blas_product(const product<T>& p, executor& threads) : m_p(p), m_threads(threads) {}

    void run() {
        for_each_stretch(m_p, sizeof(T), 1, 1, [this](index_range columns, index_range depth) {
            const index_range b_rows = m_p.b_rows == row_role::depth ? depth : columns;
            const row_view<T> b = read(m_p.b, b_rows, m_b);
            for (std::size_t i = 0; i < m_p.m(); i += block_rows)
                multiply({i, std::min(m_p.m(), i + block_rows)}, b, columns, depth);
        });
    }

private:
    static constexpr std::size_t block_rows = 256;

    // Rows of a source, where they are or in `buffer`.
    row_view<T> read(const matrix_source<T>& source, index_range rows, std::vector<T>& buffer) {
        if (source.data != nullptr) return {source.data + rows.begin * source.row_stride, source.row_stride};
        buffer.resize(rows.size() * source.cols);
        constexpr std::size_t chunk = 16;
        m_threads.run(divide_up(rows.size(), chunk), [&](std::size_t part) {
            const std::size_t begin = rows.begin + part * chunk;
            source.read_rows(begin, std::min(rows.end, begin + chunk),
                             buffer.data() + (begin - rows.begin) * source.cols, source.cols);
        });
        return {buffer.data(), source.cols};
    }

    void multiply(index_range rows, row_view<T> b, index_range columns, index_range depth) {
        row_view<T> a = read(m_p.a, rows, m_a);
        a.data += depth.begin;
        if (m_p.k_scale != nullptr) a = scaled(a, rows.size(), depth);
        const bool transposed = m_p.b_rows == row_role::column;
        const bool add = depth.begin != 0;
        const blas_matrix<const T> left{a.data, a.stride};
        const blas_matrix<const T> right{b.data, b.stride};
        if (const std::optional<std::size_t> stride = even_spacing(rows)) {
            const blas_matrix<T> c{m_p.c_row(rows.begin) + columns.begin, *stride};
            blas_gemm<T>(rows.size(), columns.size(), depth.size(), left, right, transposed, c, add);
            return;
        }
        m_c.resize(rows.size() * columns.size());
        blas_gemm<T>(rows.size(), columns.size(), depth.size(), left, right, transposed, {m_c.data(), columns.size()},
                     false);
        for (std::size_t i = 0; i < rows.size(); ++i) {
            const T* from = m_c.data() + i * columns.size();
            T* to = m_p.c_row(rows.begin + i) + columns.begin;
            for (std::size_t j = 0; j < columns.size(); ++j) to[j] = add ? to[j] + from[j] : from[j];
        }
    }

    row_view<T> scaled(row_view<T> a, std::size_t count, index_range depth) {
        m_scaled.resize(count * depth.size());
        for (std::size_t i = 0; i < count; ++i)
            for (std::size_t k = 0; k < depth.size(); ++k)
                m_scaled[i * depth.size() + k] = a.data[i * a.stride + k] * m_p.k_scale[depth.begin + k];
        return {m_scaled.data(), depth.size()};
    }

    // The distance between these rows of C in values if it is the same for all, so that BLAS can write them in place.
    [[nodiscard]] std::optional<std::size_t> even_spacing(index_range rows) const {
        const std::size_t n = m_p.n();
        if (rows.size() == 1) return n;
        const auto address = [&](std::size_t row) { return reinterpret_cast<std::uintptr_t>(m_p.c_row(row)); };
        const std::uintptr_t first = address(rows.begin);
        const std::uintptr_t distance = address(rows.begin + 1) - first;  // wraps if rows descend: then too large
        const std::size_t stride = distance / sizeof(T);
        if (distance % sizeof(T) != 0 || stride < n || stride > std::size_t{1} << 30) return std::nullopt;
        for (std::size_t i = 2; i < rows.size(); ++i)
            if (address(rows.begin + i) - first != i * distance) return std::nullopt;
        return stride;
    }

    const product<T>& m_p;
    executor& m_threads;
    std::vector<T> m_a{};
    std::vector<T> m_b{};
    std::vector<T> m_c{};
    std::vector<T> m_scaled{};
};

}  // namespace larql::detail

#endif
