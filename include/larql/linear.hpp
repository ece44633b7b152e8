// SPDX-License-Identifier: Apache-2.0
//
// Linear layers that compute from weights as a checkpoint stores them: what an engine needs for its feed-forward
// networks, experts and output head, beside the attention blocks that larql computes itself.
#ifndef LARQL_LINEAR_HPP
#define LARQL_LINEAR_HPP

#include <larql/detail/gemm.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/matrix_input.hpp>
#include <larql/weight_reader.hpp>

#include <cstddef>
#include <limits>
#include <span>
#include <string>

namespace larql {

/// A weight as a matrix [rows(), columns()].
///
/// Where its numbers stand in memory (weight::in), products with few tokens compute from them in their stored type:
/// f32, f16, bf16, E4M3 with its scales, and all of ggml's blocks. What is stored otherwise is decoded, a few rows at a
/// time. The matrix shares the weight's ownership.
[[nodiscard]] inline matrix_input<float> matrix_of(const weight& w) {
    return {static_cast<std::size_t>(w.rows()), static_cast<std::size_t>(w.columns()),
            [source = w.source()](std::size_t begin, std::size_t end, float* out, std::size_t stride) {
                source->read_rows(begin, end, out, stride);
            },
            w.source()->in_memory(), w.source()};
}

/// What a linear layer may be given beside its weight and input.
struct linear_options {
    std::size_t row_begin = 0;  ///< rows [row_begin, row_end) of the weight only, such as those of one expert
    std::size_t row_end = std::numeric_limits<std::size_t>::max();  ///< beyond the last: the last
    std::size_t x_stride = 0;                                       ///< floats from a token to the next; 0: C
    std::size_t y_stride = 0;                                       ///< likewise; 0: as many as rows are taken
    std::span<const float> bias{};                                  ///< one for each row that is taken, or empty
    executor* threads = nullptr;  ///< null: threads of the call's own when the work is worth starting them
};

/// y = x W^T + bias.
///
/// @param w       [N, C]  any matrix_input: a matrix_of a weight, a container, bf16 or f16 memory
/// @param x       [T, C]  activations, C floats each
/// @param tokens  T
/// @param y       [T, rows taken]  row r of the weight gives column r - row_begin
/// @throws error errc::shape_mismatch for rows that do not exist, a stride that is too short, or a bias of another
///         length; whatever a reader throws
/// @note   Up to 16 tokens read each stored row once, in its type; more decode it once, to panels of float. Sums are
///         float, of the numbers that decoding gives: the type of storage costs no exactness. The bits of a token's
///         result depend neither on the number of threads nor, up to 16 tokens, on the others. Nothing is allocated for
///         up to 16 tokens and a weight in memory; y must not overlap x.
inline void linear(const matrix_input<float>& w, const float* x, std::size_t tokens, float* y,
                   const linear_options& options = {}) {
    const std::size_t end = std::min(options.row_end, w.rows()), cols = w.cols();
    const auto disagree = [](const char* subject, std::size_t expected, std::size_t got) {
        detail::fail(errc::shape_mismatch,
                     "expected " + std::to_string(expected) + " or more, got " + std::to_string(got),
                     {.subject = subject});
    };
    if (options.row_begin > end) disagree("row_end", options.row_begin, end);
    const std::size_t rows = end - options.row_begin;
    const std::size_t x_stride = options.x_stride == 0 ? cols : options.x_stride;
    const std::size_t y_stride = options.y_stride == 0 ? rows : options.y_stride;
    if (x_stride < cols) disagree("x_stride", cols, x_stride);
    if (y_stride < rows) disagree("y_stride", rows, y_stride);
    if (!options.bias.empty() && options.bias.size() != rows)
        detail::fail(errc::shape_mismatch,
                     "expected " + std::to_string(rows) + " elements, got " + std::to_string(options.bias.size()),
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
