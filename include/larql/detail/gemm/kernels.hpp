// SPDX-License-Identifier: Apache-2.0
//
// The innermost loops of the float products, once per instruction set: a block of C that stays in registers while one
// pair of packed panels runs through. Compiled for their level whatever the flags.
#ifndef LARQL_DETAIL_GEMM_KERNELS_HPP
#define LARQL_DETAIL_GEMM_KERNELS_HPP

#include <larql/detail/cpu.hpp>

#include <cstddef>

#if LARQL_X86_DISPATCH
namespace larql::detail {

/// Tile sizes of a level: `rows` of A times `cols` of B in registers, and the stretch of K whose panels stay cached.
struct gemm_tile {
    std::size_t rows;
    std::size_t cols;
    std::size_t depth;
};

/// C[i, col + j] (+)= sum over k < depth of a[k, i] * b[k, j] for one whole tile.
/// @param a    [depth, rows] packed    @param b  [depth, cols] packed, aligned to a vector
/// @param c    one pointer per row     @param add  false overwrites C
/// @param next  memory that is wanted soon: depth / 4 cache lines are fetched into the second-level cache meanwhile
using tile_kernel = void (*)(std::size_t depth, const float* a, const float* b, float* const* c, std::size_t col,
                             bool add, const float* next);

}  // namespace larql::detail

#define LARQL_GEMM_NAMESPACE gemm_avx2
#define LARQL_GEMM_TARGET LARQL_TARGET_AVX2
#define LARQL_GEMM_LANES 8
#define LARQL_GEMM_ROWS 6  // 12 sums in 16 registers
#include <larql/detail/gemm/tile_body.hpp>
#undef LARQL_GEMM_NAMESPACE
#undef LARQL_GEMM_TARGET
#undef LARQL_GEMM_LANES
#undef LARQL_GEMM_ROWS

#define LARQL_GEMM_NAMESPACE gemm_avx512
#define LARQL_GEMM_TARGET LARQL_TARGET_AVX512
#define LARQL_GEMM_LANES 16
#define LARQL_GEMM_ROWS 14  // 28 sums in 32 registers
#include <larql/detail/gemm/tile_body.hpp>
#undef LARQL_GEMM_NAMESPACE
#undef LARQL_GEMM_TARGET
#undef LARQL_GEMM_LANES
#undef LARQL_GEMM_ROWS

namespace larql::detail {

/// The code of one level.
struct gemm_kernels {
    gemm_tile tile;
    tile_kernel multiply_tile;
};

inline constexpr std::size_t largest_tile_rows = gemm_avx512::tile.rows;
inline constexpr std::size_t largest_tile = gemm_avx512::tile.rows * gemm_avx512::tile.cols;  // values

/// @param level  avx2 or avx512
inline gemm_kernels choose_gemm_kernels(simd_level level) noexcept {
    if (level == simd_level::avx512) return {gemm_avx512::tile, &gemm_avx512::multiply_tile};
    return {gemm_avx2::tile, &gemm_avx2::multiply_tile};
}

}  // namespace larql::detail
#endif

#endif
