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
/// @param gains   [width], or of several rows in turn [n * width], or none
/// @param biases  likewise
template <class T>
void normalise_rows(T* x, std::size_t rows, std::size_t width, const norm_spec& norm, const vector_input<T>& gains,
                    const vector_input<T>& biases = {}) {
    if (norm.kind == norm_kind::none) return;
    const auto of_row = [width](const vector_input<T>& values, std::size_t r) {
        return values.empty() ? nullptr : values.data() + r * width % values.size();
    };
    for (std::size_t r = 0; r < rows; ++r) {
        T* const row = x + r * width;
        const T* const gain_of = of_row(gains, r);
        const T* const bias_of = of_row(biases, r);
        double mean = 0.0, squares = 0.0;
        if (norm.kind == norm_kind::layer)
            for (std::size_t i = 0; i < width; ++i) mean += static_cast<double>(row[i]) / static_cast<double>(width);
        for (std::size_t i = 0; i < width; ++i) {
            const double centred = static_cast<double>(row[i]) - mean;
            squares += centred * centred;
        }
        const double factor = 1.0 / std::sqrt(squares / static_cast<double>(width) + norm.eps);
        for (std::size_t i = 0; i < width; ++i) {
            const double gain = gain_of == nullptr ? 1.0 : static_cast<double>(gain_of[i]) + norm.gain_offset;
            const double bias = bias_of == nullptr ? 0.0 : static_cast<double>(bias_of[i]);
            row[i] = static_cast<T>((static_cast<double>(row[i]) - mean) * factor * gain + bias);
        }
    }
}

}  // namespace larql::detail

#endif
