// SPDX-License-Identifier: Apache-2.0
//
// Norms of rows in memory.
#ifndef LARQL_DETAIL_MLA_NORM_HPP
#define LARQL_DETAIL_MLA_NORM_HPP

#include <larql/attention_spec.hpp>
#include <larql/matrix_input.hpp>

#include <cmath>
#include <cstddef>

namespace larql::detail {

/// Norms rows in place, in double.
/// @param x       [rows, width], without gaps
/// @param gains   [width], or none
/// @param biases  [width], or none
template <class T>
void normalise_rows(T* x, std::size_t rows, std::size_t width, const norm_spec& norm, const vector_input<T>& gains,
                    const vector_input<T>& biases = {}) {
    if (norm.kind == norm_kind::none) return;
    for (T* row = x; row != x + rows * width; row += width) {
        double mean = 0.0, squares = 0.0;
        if (norm.kind == norm_kind::layer)
            for (std::size_t i = 0; i < width; ++i) mean += static_cast<double>(row[i]) / static_cast<double>(width);
        for (std::size_t i = 0; i < width; ++i) {
            const double centred = static_cast<double>(row[i]) - mean;
            squares += centred * centred;
        }
        const double factor = 1.0 / std::sqrt(squares / static_cast<double>(width) + norm.eps);
        for (std::size_t i = 0; i < width; ++i) {
            const double gain = gains.empty() ? 1.0 : static_cast<double>(gains.data()[i]) + norm.gain_offset;
            const double bias = biases.empty() ? 0.0 : static_cast<double>(biases.data()[i]);
            row[i] = static_cast<T>((static_cast<double>(row[i]) - mean) * factor * gain + bias);
        }
    }
}

}  // namespace larql::detail

#endif
