// SPDX-License-Identifier: Apache-2.0
//
// Linear layers that compute from weights as a checkpoint stores them: what an engine needs for its feed-forward
// networks, experts and output head, beside the attention blocks that larql computes itself.
#ifndef LARQL_LINEAR_HPP
#define LARQL_LINEAR_HPP

#include <larql/detail/separate.hpp>
#include <larql/executor.hpp>
#include <larql/matrix_input.hpp>
#include <larql/weight_reader.hpp>

#include <cstddef>
#include <limits>
#include <span>

namespace larql {

/// A weight as a matrix [rows(), columns()].
///
/// Where its numbers stand in memory (weight::in), products with few tokens compute from them in their stored type:
/// f32, f16, bf16, E4M3 with its scales, and all of ggml's blocks. What is stored otherwise is decoded, a few rows at a
/// time. The matrix shares the weight's ownership.
[[nodiscard]] LARQL_INLINE matrix_input<float> matrix_of(const weight& w);

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
LARQL_INLINE void linear(const matrix_input<float>& w, const float* x, std::size_t tokens, float* y,
                         const linear_options& options = {});

}  // namespace larql

#ifndef LARQL_SEPARATE
#include <larql/detail/bodies/linear.hpp>
#endif

#endif
