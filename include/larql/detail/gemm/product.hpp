// SPDX-License-Identifier: Apache-2.0
//
// A matrix product as every implementation of it takes it, and how it is cut into pieces.
#ifndef LARQL_DETAIL_GEMM_PRODUCT_HPP
#define LARQL_DETAIL_GEMM_PRODUCT_HPP

#include <larql/detail/gemm/source.hpp>

#include <algorithm>
#include <cstddef>

namespace larql::detail {

/// What the rows of B are: steps of the sum (C = A B) or columns of the product (C = A B^T).
enum class row_role { depth, column };

/// Memory for the stretch of B that all threads share.
inline constexpr std::size_t shared_panel_bytes = std::size_t{32} << 20;

/// One product, as every implementation takes it. M, N and K are at least 1 and agree.
template <class T>
struct product {
    const matrix_source<T>& a;  ///< [M, K]
    const T* k_scale;           ///< [K] or null
    const matrix_source<T>& b;  ///< [K, N] or [N, K]
    row_role b_rows;
    function_ref<T*(std::size_t)> c_row;
    std::size_t shared_bytes = shared_panel_bytes;  ///< fewer only in tests

    [[nodiscard]] std::size_t m() const noexcept { return a.rows; }
    [[nodiscard]] std::size_t k() const noexcept { return a.cols; }
    [[nodiscard]] std::size_t n() const noexcept { return b_rows == row_role::depth ? b.cols : b.rows; }
};

/// A range of rows, columns or steps.
struct index_range {
    std::size_t begin;
    std::size_t end;
    [[nodiscard]] std::size_t size() const noexcept { return end - begin; }
};

/// Calls use(columns, depth) for each stretch of B, in order of depth: all N times as much of K as fits the shared
/// memory, or all K times as much of N, so that whole rows are used.
/// @param bytes_per_value  packed     @param width  columns are packed by so many
template <class T, class Use>
void for_each_stretch(const product<T>& p, std::size_t bytes_per_value, std::size_t width, std::size_t depth_step,
                      Use&& use) {
    const std::size_t budget = p.shared_bytes / bytes_per_value;
    if (p.b_rows == row_role::depth) {
        const std::size_t limit = std::max<std::size_t>(budget / round_to(p.n(), width), 128);
        const std::size_t part = even_part(p.k(), limit, depth_step);
        for (std::size_t k = 0; k < p.k(); k += part)
            use(index_range{0, p.n()}, index_range{k, std::min(p.k(), k + part)});
    } else {
        const std::size_t part = even_part(p.n(), budget / p.k(), width);
        for (std::size_t j = 0; j < p.n(); j += part)
            use(index_range{j, std::min(p.n(), j + part)}, index_range{0, p.k()});
    }
}

/// How the product of one stretch is cut into tasks: `rows` of A times `cols` of B each.
class task_grid {
public:
    std::size_t rows;
    std::size_t cols;

    /// Blocks of A first; columns are cut too when there are fewer blocks than keep the threads evenly busy.
    task_grid(std::size_t m, std::size_t n, std::size_t row_limit, std::size_t row_step, std::size_t col_step,
              std::size_t threads)
        : rows(even_part(m, row_limit, row_step)),
          cols(n),
          m_row_parts(divide_up(m, rows)),
          m_col_parts(1),
          m_m(m),
          m_n(n) {
        if (threads > 1 && m_row_parts < 4 * threads) {
            const std::size_t wanted = divide_up(4 * threads, m_row_parts);
            cols = round_to(std::max(divide_up(n, wanted), std::min<std::size_t>(n, 128)), col_step);
            m_col_parts = divide_up(n, cols);
        }
    }

    [[nodiscard]] std::size_t tasks() const noexcept { return m_row_parts * m_col_parts; }
    [[nodiscard]] index_range rows_of(std::size_t task) const noexcept {
        const std::size_t begin = task / m_col_parts * rows;
        return {begin, std::min(m_m, begin + rows)};
    }
    [[nodiscard]] index_range cols_of(std::size_t task) const noexcept {
        const std::size_t begin = task % m_col_parts * cols;
        return {begin, std::min(m_n, begin + cols)};
    }

private:
    std::size_t m_row_parts;
    std::size_t m_col_parts;
    std::size_t m_m;
    std::size_t m_n;
};

}  // namespace larql::detail

#endif
