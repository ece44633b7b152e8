// SPDX-License-Identifier: Apache-2.0
//
// The positions of the largest scores.
#ifndef LARQL_DETAIL_INDEXER_TOP_K_HPP
#define LARQL_DETAIL_INDEXER_TOP_K_HPP

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

namespace larql::detail {

/// Fills `list` with the positions of its many largest scores, in ascending order. Of equal scores the one at the lower
/// position goes first; a NaN counts as larger than any number, as in torch.topk.
/// @param list  at most as many as scores
template <class T>
void select_top_k(std::span<const T> scores, std::span<std::uint32_t> list) {
    if (list.size() >= scores.size()) {
        std::iota(list.begin(), list.end(), 0U);
        return;
    }
    std::vector<std::uint32_t> order(scores.size());
    std::iota(order.begin(), order.end(), 0U);
    const auto before = [&](std::uint32_t a, std::uint32_t b) {
        const bool a_is_nan = std::isnan(scores[a]), b_is_nan = std::isnan(scores[b]);
        if (a_is_nan != b_is_nan) return a_is_nan;
        if (!a_is_nan && scores[a] != scores[b]) return scores[a] > scores[b];
        return a < b;
    };
    std::nth_element(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(list.size()), order.end(), before);
    std::copy_n(order.begin(), list.size(), list.begin());
    std::ranges::sort(list);
}

}  // namespace larql::detail

#endif
