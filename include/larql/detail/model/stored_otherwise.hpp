// SPDX-License-Identifier: Apache-2.0
//
// Tensors whose numbers or shape GGUF has otherwise than safetensors.
// Source: llama.cpp's conversion/kimi_linear.py and conversion/bailingmoe3.py (modify_tensors).
#ifndef LARQL_DETAIL_MODEL_STORED_OTHERWISE_HPP
#define LARQL_DETAIL_MODEL_STORED_OTHERWISE_HPP

#include <larql/tensor_role.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <span>
#include <vector>

namespace larql::detail {

/// What GGUF has for a logarithm of a rate: minus the rate.
inline float minus_exponential(float logarithm) {
    return -static_cast<float>(std::exp(static_cast<double>(logarithm)));
}

/// The logarithm of a rate that GGUF has with a minus. Below 1 several floats have one exponential: of these the one
/// with the shortest mantissa, which is that of a model in bfloat16 or float16. The exponential may be that of torch,
/// whose last bit is not always the nearest, so that a bfloat16 may miss it by that bit.
inline float logarithm_of_minus(float stored) {
    const float rate = -stored;
    const auto nearest = static_cast<float>(std::log(static_cast<double>(rate)));
    if (!std::isfinite(nearest)) return nearest;
    constexpr unsigned mantissa_bits = 23, bfloat16_drops = 16;
    for (unsigned dropped = mantissa_bits - 1; dropped != 0; --dropped) {
        const std::uint32_t unit = std::uint32_t{1} << dropped;
        const auto shorter = std::bit_cast<float>((std::bit_cast<std::uint32_t>(nearest) + unit / 2) & ~(unit - 1));
        const float again = -minus_exponential(shorter);
        const bool by_a_bit = again == std::nextafter(rate, 0.0F) || again == std::nextafter(rate, 2.0F * rate);
        if (again == rate || (by_a_bit && dropped == bfloat16_drops)) return shorter;
    }
    return nearest;
}

/// The same for a rate that GGUF has as it is.
inline float exponential(float logarithm) { return -minus_exponential(logarithm); }
inline float logarithm_of(float stored) { return logarithm_of_minus(-stored); }

/// The shapes of a tensor in safetensors and in GGUF.
enum class shapes_rule : std::uint8_t {
    convolution,  ///< [channels, 1, kernel], and [1, channels, 1, kernel] in GGUF
    kept,         ///< [1, 1, heads, 1] or [heads], in both the same
    column,       ///< [heads], and [heads, 1] in GGUF
};

/// A role that the two containers store differently. All are few numbers, which llama.cpp has as float32.
struct stored_otherwise_row {
    tensor_role role;
    float (*to_gguf)(float) = nullptr;    ///< null: the same numbers
    float (*from_gguf)(float) = nullptr;  ///< its inverse, as far as float32 has one
    shapes_rule shapes = shapes_rule::kept;
};
inline constexpr stored_otherwise_row stored_otherwise_rows[] = {
    {.role = tensor_role::linear_conv_q, .shapes = shapes_rule::convolution},
    {.role = tensor_role::linear_conv_k, .shapes = shapes_rule::convolution},
    {.role = tensor_role::linear_conv_v, .shapes = shapes_rule::convolution},
    {.role = tensor_role::linear_decay, .to_gguf = minus_exponential, .from_gguf = logarithm_of_minus},
    {.role = tensor_role::linear_rate,
     .to_gguf = exponential,
     .from_gguf = logarithm_of,
     .shapes = shapes_rule::column},
};

/// The row of a role, or null for one that both containers store alike.
inline const stored_otherwise_row* find_stored_otherwise(tensor_role role) {
    const auto found = std::ranges::find(stored_otherwise_rows, role, &stored_otherwise_row::role);
    return found == std::end(stored_otherwise_rows) ? nullptr : &*found;
}

/// The shape of such a tensor in the other container. Quantised GGUF files drop extents of 1 at the outer end.
inline std::vector<std::uint64_t> shape_otherwise(const stored_otherwise_row& row, bool to_gguf,
                                                  std::span<const std::uint64_t> stored, std::uint64_t rows,
                                                  std::uint64_t columns) {
    using shape = std::vector<std::uint64_t>;
    switch (row.shapes) {
        case shapes_rule::convolution: return to_gguf ? shape{1, rows, 1, columns} : shape{rows, 1, columns};
        case shapes_rule::column: return to_gguf ? shape{rows * columns, 1} : shape{rows * columns};
        case shapes_rule::kept: break;
    }
    return stored.size() == 1 ? shape{stored.front()} : shape{1, 1, rows, columns};
}

}  // namespace larql::detail

#endif
