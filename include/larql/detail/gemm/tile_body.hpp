// SPDX-License-Identifier: Apache-2.0
//
// The innermost loops of the float products: a block of C that stays in registers while one pair of packed panels runs
// through. Included once per level of vector code by gemm/kernels.hpp; see simd_levels.hpp.
#ifdef LARQL_SIMD_NAMESPACE

namespace larql::detail::LARQL_SIMD_NAMESPACE::gemm {

/// Sums of two vectors a row, which with two vectors of B and one of A fit the registers.
#if LARQL_SIMD_BYTES == 64
inline constexpr std::size_t tile_rows = 14;
#elif defined(__aarch64__)
inline constexpr std::size_t tile_rows = 8;  // with more, compilers that load several of A at once spill
#else
inline constexpr std::size_t tile_rows = LARQL_SIMD_BYTES == 32 ? 6 : 4;
#endif
inline constexpr gemm_tile tile{tile_rows, 2 * lanes, 256};

/// One step of the sum for a whole tile.
LARQL_SIMD_INLINE void add_step(vfloat (&sums)[tile.rows][2], const float* a, const float* b) noexcept {
    const vfloat b0 = load(b);
    const vfloat b1 = load(b + lanes);
    LARQL_UNROLL for (std::size_t i = 0; i < tile.rows; ++i) {
        const vfloat x = broadcast(a[i]);
        sums[i][0] = multiply_add(x, b0, sums[i][0]);
        sums[i][1] = multiply_add(x, b1, sums[i][1]);
    }
}

/// A tile_kernel.
LARQL_SIMD_FUNCTION inline void multiply_tile(std::size_t depth, const float* a, const float* b, float* const* c,
                                              std::size_t col, bool add, const float* next) {
    vfloat sums[tile.rows][2] = {};
    for (std::size_t i = 0; i < tile.rows; ++i) {
        __builtin_prefetch(c[i] + col, 1);
        __builtin_prefetch(c[i] + col + tile.cols - 1, 1);
    }
    for (; depth >= 4; depth -= 4, a += 4 * tile.rows, b += 4 * tile.cols, next += 16) {
        __builtin_prefetch(next, 0, 2);
        LARQL_UNROLL for (std::size_t u = 0; u < 4; ++u) {
            __builtin_prefetch(a + (u + 8) * tile.rows);
            add_step(sums, a + u * tile.rows, b + u * tile.cols);
        }
    }
    for (; depth > 0; --depth, a += tile.rows, b += tile.cols) add_step(sums, a, b);
    LARQL_UNROLL for (std::size_t i = 0; i < tile.rows; ++i) {
        float* const out = c[i] + col;
        LARQL_UNROLL for (std::size_t j = 0; j < 2; ++j) {
            if (add) sums[i][j] += load(out + j * lanes);
            store(out + j * lanes, sums[i][j]);
        }
    }
}

inline constexpr gemm_kernels kernels{tile, multiply_tile};

}  // namespace larql::detail::LARQL_SIMD_NAMESPACE::gemm

#endif
