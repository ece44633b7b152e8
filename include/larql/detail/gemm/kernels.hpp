// SPDX-License-Identifier: Apache-2.0
//
// The innermost loops of the float products, compiled once for every level of vector code.
#ifndef LARQL_DETAIL_GEMM_KERNELS_HPP
#define LARQL_DETAIL_GEMM_KERNELS_HPP

#include <larql/detail/simd.hpp>

#include <algorithm>
#include <cstddef>

namespace larql::detail {

/// Tile sizes of a level: `rows` of A times `cols` of B in registers, and the stretch of K whose panels stay cached.
struct gemm_tile {
    std::size_t rows;
    std::size_t cols;
    std::size_t depth;
};

/// C[i, col + j] (+)= sum over k < depth of a[k, i] * b[k, j] for one whole tile.
/// @param a    [depth, rows] packed    @param b  [depth, cols] packed
/// @param c    one pointer per row     @param add  false overwrites C
/// @param next  memory that is wanted soon: depth / 4 cache lines are fetched into the second-level cache meanwhile
using tile_kernel = void (*)(std::size_t depth, const float* a, const float* b, float* const* c, std::size_t col,
                             bool add, const float* next);

/// The code of one level.
struct gemm_kernels {
    gemm_tile tile;
    tile_kernel multiply_tile;
};

}  // namespace larql::detail

#define LARQL_SIMD_BODY <larql/detail/gemm/tile_body.hpp>
#include <larql/detail/simd_levels.hpp>

namespace larql::detail {

inline const gemm_kernels& choose_gemm_kernels(simd_level level) noexcept {
#if LARQL_X86_DISPATCH
    if (level == simd_level::avx512) return simd_avx512::gemm::kernels;
    if (level == simd_level::avx2) return simd_avx2::gemm::kernels;
#endif
    (void)level;
    return simd_portable::gemm::kernels;
}

/// Of the tiles of all levels.
inline constexpr gemm_tile largest_tile = [] {
    gemm_tile most = simd_portable::gemm::tile;
#if LARQL_X86_DISPATCH
    for (const gemm_tile& tile : {simd_avx2::gemm::tile, simd_avx512::gemm::tile})
        most = {std::max(most.rows, tile.rows), std::max(most.cols, tile.cols), std::max(most.depth, tile.depth)};
#endif
    return most;
}();

}  // namespace larql::detail

#endif
