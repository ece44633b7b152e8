// SPDX-License-Identifier: Apache-2.0
//
// Attention with linear biases: the score of a key falls with its distance, by a slope of each head.
#ifndef LARQL_DETAIL_ATTENTION_ALIBI_HPP
#define LARQL_DETAIL_ATTENTION_ALIBI_HPP

#include <bit>
#include <cmath>
#include <cstddef>
#include <vector>

namespace larql::detail {

/// Slopes of H heads: with P the least power of two that is not below H, 2^(-max_bias * i / P) for i = 1 .. P, of which
/// a number of heads that is no power of two takes every second one from i = 2 on, and then those from i = 1 on.
/// @source arXiv 2108.12409; transformers modeling_bloom.py _get_alibi_slopes, modeling_mpt.py build_mpt_alibi_tensor
inline std::vector<float> alibi_slopes(std::size_t heads, double max_bias) {
    const std::size_t power = std::bit_ceil(heads);
    std::vector<float> slopes(heads);
    for (std::size_t h = 0; h < heads; ++h) {
        const std::size_t half = power / 2;
        const std::size_t i = power == heads ? h + 1 : h < half ? 2 * (h + 1) : 2 * (h - half) + 1;
        slopes[h] = static_cast<float>(std::exp2(-max_bias * static_cast<double>(i) / static_cast<double>(power)));
    }
    return slopes;
}

}  // namespace larql::detail

#endif
