// SPDX-License-Identifier: Apache-2.0
//
// The bodies of linear.hpp.
#ifndef LARQL_DETAIL_BODIES_LINEAR_HPP
#define LARQL_DETAIL_BODIES_LINEAR_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/gemm.hpp>
#include <larql/detail/quant/source.hpp>
#include <larql/detail/separate.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/linear.hpp>
#include <larql/matrix_input.hpp>
#include <larql/weight_reader.hpp>

#include <algorithm>
#include <cstddef>
#include <string>

namespace larql {

LARQL_INLINE matrix_input<float> matrix_of(const weight& w) {
    return {static_cast<std::size_t>(w.rows()), static_cast<std::size_t>(w.columns()),
            [source = w.source()](std::size_t begin, std::size_t end, float* out, std::size_t stride) {
                source->read_rows(begin, end, out, stride);
            },
            w.source()->in_memory(), w.source()};
}

LARQL_INLINE void linear(const matrix_input<float>& w, const float* x, std::size_t tokens, float* y,
                         const linear_options& options) {
    const std::size_t end = std::min(options.row_end, w.rows()), cols = w.cols();
    const auto disagree = [](const char* subject, std::size_t expected, std::size_t got) {
        detail::fail(errc::shape_mismatch, detail::concat({"expected ", expected, " or more, got ", got}),
                     {.subject = subject});
    };
    if (options.row_begin > end) disagree("row_end", options.row_begin, end);
    const std::size_t rows = end - options.row_begin;
    const std::size_t x_stride = options.x_stride == 0 ? cols : options.x_stride;
    const std::size_t y_stride = options.y_stride == 0 ? rows : options.y_stride;
    if (x_stride < cols) disagree("x_stride", cols, x_stride);
    if (y_stride < rows) disagree("y_stride", rows, y_stride);
    if (!options.bias.empty() && options.bias.size() != rows)
        detail::fail(errc::shape_mismatch, detail::concat({"expected ", rows, " elements, got ", options.bias.size()}),
                     {.subject = "bias"});
    constexpr std::size_t worth_threads = 4'000'000;  // a millisecond on one core
    detail::with_executor(options.threads, rows * cols * tokens > worth_threads, [&](executor& threads) {
        const detail::matrix_source<float> source = w.source();
        detail::multiply_heads<float>({.weight = source,
                                       .rows = rows,
                                       .tokens = tokens,
                                       .x = x,
                                       .x_token = x_stride,
                                       .out = y,
                                       .out_token = y_stride,
                                       .first_row = options.row_begin},
                                      threads);
    });
    if (options.bias.empty()) return;
    for (std::size_t t = 0; t < tokens; ++t)
        for (std::size_t i = 0; i < rows; ++i) y[t * y_stride + i] += options.bias[i];
}

}  // namespace larql

#endif
