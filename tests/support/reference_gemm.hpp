// SPDX-License-Identifier: Apache-2.0
//
// The definition of a matrix product: plain loops in double, with the magnitude that an error is measured against.
#ifndef LARQL_TESTS_SUPPORT_REFERENCE_GEMM_HPP
#define LARQL_TESTS_SUPPORT_REFERENCE_GEMM_HPP

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace larql::testing {

struct reference_product {
    std::vector<double> value;      ///< [M, N]
    std::vector<double> magnitude;  ///< [M, N] sum of |a| |scale| |b|, for the error bound of a sum of products
};

/// sum over k of a(i,k) * scale(k) * b(k,j), with b given as [K, N] or, if b_transposed, as [N, K].
template <class T>
reference_product reference_gemm(std::size_t m, std::size_t n, std::size_t k, const std::vector<T>& a,
                                 const std::vector<T>* scale, const std::vector<T>& b, bool b_transposed) {
    reference_product out{std::vector<double>(m * n), std::vector<double>(m * n)};
    for (std::size_t i = 0; i < m; ++i)
        for (std::size_t j = 0; j < n; ++j)
            for (std::size_t l = 0; l < k; ++l) {
                const double factor = scale != nullptr ? static_cast<double>((*scale)[l]) : 1.0;
                const double term = static_cast<double>(a[i * k + l]) * factor *
                                    static_cast<double>(b_transposed ? b[j * k + l] : b[l * n + j]);
                out.value[i * n + j] += term;
                out.magnitude[i * n + j] += std::abs(term);
            }
    return out;
}

/// What rounding may do to a sum of k products in T, one rounding per step and two for the factors; relative
/// to the magnitude, and absolute among the denormal numbers.
template <class T>
double gemm_tolerance(std::size_t k, double magnitude) {
    constexpr double epsilon = static_cast<double>(std::numeric_limits<T>::epsilon());
    constexpr double smallest = static_cast<double>(std::numeric_limits<T>::denorm_min());
    return static_cast<double>(k + 2) * (epsilon * magnitude + smallest);
}

}  // namespace larql::testing

#endif
