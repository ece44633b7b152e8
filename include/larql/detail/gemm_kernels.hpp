// SPDX-License-Identifier: Apache-2.0
//
// The innermost loops of the float products, once per instruction set: a block of C that stays in registers while one
// pair of packed panels runs through, and dot products for few rows. Compiled for their level whatever the flags.
#ifndef LARQL_DETAIL_GEMM_KERNELS_HPP
#define LARQL_DETAIL_GEMM_KERNELS_HPP

#include <larql/detail/cpu.hpp>

#include <cstddef>

#if LARQL_X86_DISPATCH
namespace larql::detail {

// Name the unaligned types where they are used: `auto` and template deduction lose the lowered alignment.
using float_x8 [[gnu::vector_size(32), gnu::may_alias]] = float;
using float_x8_unaligned [[gnu::vector_size(32), gnu::may_alias, gnu::aligned(4)]] = float;
using float_x16 [[gnu::vector_size(64), gnu::may_alias]] = float;
using float_x16_unaligned [[gnu::vector_size(64), gnu::may_alias, gnu::aligned(4)]] = float;

// acc += a * b with one rounding. As assembly because a compiler in ISO mode does not contract the expression, and
// intrinsics cost each including file three quarters of a second.
[[gnu::always_inline]] LARQL_TARGET_AVX2 inline void multiply_add(float_x8& acc, float_x8 a, float_x8 b) {
    asm("vfmadd231ps %2, %1, %0" : "+x"(acc) : "x"(a), "x"(b));
}
[[gnu::always_inline]] LARQL_TARGET_AVX512 inline void multiply_add(float_x16& acc, float_x16 a, float_x16 b) {
    asm("vfmadd231ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
}

// All partial equal to *p.
[[gnu::always_inline]] LARQL_TARGET_AVX2 inline void broadcast(float_x8& out, const float* p) {
    asm("vbroadcastss %1, %0" : "=x"(out) : "m"(*p));
}
[[gnu::always_inline]] LARQL_TARGET_AVX512 inline void broadcast(float_x16& out, const float* p) {
    asm("vbroadcastss %1, %0" : "=v"(out) : "m"(*p));
}

/// Tile sizes of a level: `rows` of A times `cols` of B in registers, and the stretch of K whose panels stay cached.
struct gemm_tile {
    std::size_t rows;
    std::size_t cols;
    std::size_t depth;
};
inline constexpr gemm_tile avx2_tile{6, 16, 256};     // 12 sums in 16 registers
inline constexpr gemm_tile avx512_tile{14, 32, 256};  // 28 sums in 32 registers
inline constexpr std::size_t largest_tile_rows = 14;
inline constexpr std::size_t largest_tile = 14 * 32;  // values

/// C[i, col + j] (+)= sum over k < depth of a[k, i] * b[k, j] for one whole tile.
/// @param a    [depth, rows] packed    @param b  [depth, cols] packed, aligned to a vector
/// @param c    one pointer per row     @param add  false overwrites C
/// @param next  memory that is wanted soon: depth / 4 cache lines are fetched into the second-level cache meanwhile
using tile_kernel = void (*)(std::size_t depth, const float* a, const float* b, float* const* c, std::size_t col,
                             bool add, const float* next);

// One step of the sum for a whole tile.
[[gnu::always_inline]] LARQL_TARGET_AVX2 inline void add_step(float_x8 (&sums)[6][2], const float* a, const float* b) {
    const float_x8 b0 = *reinterpret_cast<const float_x8*>(b);
    const float_x8 b1 = *reinterpret_cast<const float_x8*>(b + 8);
#pragma GCC unroll 6
    for (std::size_t i = 0; i < 6; ++i) {
        float_x8 x;
        broadcast(x, a + i);
        multiply_add(sums[i][0], x, b0);
        multiply_add(sums[i][1], x, b1);
    }
}

LARQL_TARGET_AVX2 inline void multiply_tile_avx2(std::size_t depth, const float* a, const float* b, float* const* c,
                                                 std::size_t col, bool add, const float* next) {
    constexpr std::size_t rows = avx2_tile.rows;
    constexpr std::size_t cols = avx2_tile.cols;
    float_x8 sums[rows][2] = {};
    for (std::size_t i = 0; i < rows; ++i) {
        __builtin_prefetch(c[i] + col, 1);
        __builtin_prefetch(c[i] + col + cols - 1, 1);
    }
    for (; depth >= 4; depth -= 4, a += 4 * rows, b += 4 * cols, next += 16) {
        __builtin_prefetch(next, 0, 2);
#pragma GCC unroll 4
        for (std::size_t u = 0; u < 4; ++u) {
            add_step(sums, a + u * rows, b + u * cols);
        }
    }
    for (; depth > 0; --depth, a += rows, b += cols) add_step(sums, a, b);
#pragma GCC unroll 6
    for (std::size_t i = 0; i < rows; ++i) {
        float_x8_unaligned* out = reinterpret_cast<float_x8_unaligned*>(c[i] + col);
        if (add) {
            sums[i][0] += out[0];
            sums[i][1] += out[1];
        }
        out[0] = sums[i][0];
        out[1] = sums[i][1];
    }
}

// One step of the sum for a whole tile.
[[gnu::always_inline]] LARQL_TARGET_AVX512 inline void add_step(float_x16 (&sums)[14][2], const float* a,
                                                                const float* b) {
    const float_x16 b0 = *reinterpret_cast<const float_x16*>(b);
    const float_x16 b1 = *reinterpret_cast<const float_x16*>(b + 16);
#pragma GCC unroll 14
    for (std::size_t i = 0; i < 14; ++i) {
        float_x16 x;
        broadcast(x, a + i);
        multiply_add(sums[i][0], x, b0);
        multiply_add(sums[i][1], x, b1);
    }
}

LARQL_TARGET_AVX512 inline void multiply_tile_avx512(std::size_t depth, const float* a, const float* b, float* const* c,
                                                     std::size_t col, bool add, const float* next) {
    constexpr std::size_t rows = avx512_tile.rows;
    constexpr std::size_t cols = avx512_tile.cols;
    float_x16 sums[rows][2] = {};
    for (std::size_t i = 0; i < rows; ++i) {
        __builtin_prefetch(c[i] + col, 1);
        __builtin_prefetch(c[i] + col + cols - 1, 1);
    }
    for (; depth >= 4; depth -= 4, a += 4 * rows, b += 4 * cols, next += 16) {
        __builtin_prefetch(next, 0, 2);
#pragma GCC unroll 4
        for (std::size_t u = 0; u < 4; ++u) {
            __builtin_prefetch(a + (u + 8) * rows);
            add_step(sums, a + u * rows, b + u * cols);
        }
    }
    for (; depth > 0; --depth, a += rows, b += cols) add_step(sums, a, b);
#pragma GCC unroll 14
    for (std::size_t i = 0; i < rows; ++i) {
        float_x16_unaligned* out = reinterpret_cast<float_x16_unaligned*>(c[i] + col);
        if (add) {
            sums[i][0] += out[0];
            sums[i][1] += out[1];
        }
        out[0] = sums[i][0];
        out[1] = sums[i][1];
    }
}

inline constexpr std::size_t dot_rows = 4;

/// sums[r] = sum over k < depth of x[k] * rows[r][k] for dot_rows rows, none of which need be aligned.
using dot_kernel = void (*)(std::size_t depth, const float* x, const float* const* rows, float* sums);

LARQL_TARGET_AVX2 inline void dot_rows_avx2(std::size_t depth, const float* x, const float* const* rows, float* sums) {
    float_x8 partial[dot_rows][2] = {};
    std::size_t k = 0;
    for (; k + 16 <= depth; k += 16) {
        const float_x8 x0 = *reinterpret_cast<const float_x8_unaligned*>(x + k);
        const float_x8 x1 = *reinterpret_cast<const float_x8_unaligned*>(x + k + 8);
#pragma GCC unroll 4
        for (std::size_t r = 0; r < dot_rows; ++r) {
            multiply_add(partial[r][0], x0, *reinterpret_cast<const float_x8_unaligned*>(rows[r] + k));
            multiply_add(partial[r][1], x1, *reinterpret_cast<const float_x8_unaligned*>(rows[r] + k + 8));
        }
    }
#pragma GCC unroll 4
    for (std::size_t r = 0; r < dot_rows; ++r) {
        const float_x8 both = partial[r][0] + partial[r][1];
        float sum = 0.0F;
        for (std::size_t i = 0; i < 8; ++i) sum += both[i];
        for (std::size_t i = k; i < depth; ++i) sum += x[i] * rows[r][i];
        sums[r] = sum;
    }
}

LARQL_TARGET_AVX512 inline void dot_rows_avx512(std::size_t depth, const float* x, const float* const* rows,
                                                float* sums) {
    float_x16 partial[dot_rows][2] = {};
    std::size_t k = 0;
    for (; k + 32 <= depth; k += 32) {
        const float_x16 x0 = *reinterpret_cast<const float_x16_unaligned*>(x + k);
        const float_x16 x1 = *reinterpret_cast<const float_x16_unaligned*>(x + k + 16);
#pragma GCC unroll 4
        for (std::size_t r = 0; r < dot_rows; ++r) {
            multiply_add(partial[r][0], x0, *reinterpret_cast<const float_x16_unaligned*>(rows[r] + k));
            multiply_add(partial[r][1], x1, *reinterpret_cast<const float_x16_unaligned*>(rows[r] + k + 16));
        }
    }
#pragma GCC unroll 4
    for (std::size_t r = 0; r < dot_rows; ++r) {
        const float_x16 both = partial[r][0] + partial[r][1];
        float sum = 0.0F;
        for (std::size_t i = 0; i < 16; ++i) sum += both[i];
        for (std::size_t i = k; i < depth; ++i) sum += x[i] * rows[r][i];
        sums[r] = sum;
    }
}

}  // namespace larql::detail
#endif

#endif
