// SPDX-License-Identifier: Apache-2.0
//
// The innermost loops of the float products for one level of vector instructions. Included once per level by
// gemm/kernels.hpp, which names the level by macros:
//   LARQL_GEMM_NAMESPACE  where the code goes
//   LARQL_GEMM_TARGET     the target attribute, which each function carries: without it GCC splits wide vectors before
//                         it inlines
//   LARQL_GEMM_LANES      floats in a vector
//   LARQL_GEMM_ROWS       rows of a tile, whose sums of two vectors each fill most of the registers
#ifdef LARQL_GEMM_NAMESPACE

namespace larql::detail::LARQL_GEMM_NAMESPACE {

inline constexpr std::size_t lanes = LARQL_GEMM_LANES;
inline constexpr gemm_tile tile{LARQL_GEMM_ROWS, 2 * lanes, 256};

// Name the unaligned type where it is used: `auto` and template deduction lose the lowered alignment.
using vector [[gnu::vector_size(4 * lanes), gnu::may_alias]] = float;
using vector_unaligned [[gnu::vector_size(4 * lanes), gnu::may_alias, gnu::aligned(4)]] = float;

// acc += a * b with one rounding. As assembly because compilers contract the expression where they see fit, and
// intrinsics cost each including file three quarters of a second.
[[gnu::always_inline]] LARQL_GEMM_TARGET inline void multiply_add(vector& acc, vector a, vector b) {
    asm("vfmadd231ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
}

// All lanes equal to *p.
[[gnu::always_inline]] LARQL_GEMM_TARGET inline void broadcast(vector& out, const float* p) {
    asm("vbroadcastss %1, %0" : "=v"(out) : "m"(*p));
}

// One step of the sum for a whole tile.
[[gnu::always_inline]] LARQL_GEMM_TARGET inline void add_step(vector (&sums)[tile.rows][2], const float* a,
                                                              const float* b) {
    const vector b0 = *reinterpret_cast<const vector*>(b);
    const vector b1 = *reinterpret_cast<const vector*>(b + lanes);
#pragma GCC unroll 14
    for (std::size_t i = 0; i < tile.rows; ++i) {
        vector x;
        broadcast(x, a + i);
        multiply_add(sums[i][0], x, b0);
        multiply_add(sums[i][1], x, b1);
    }
}

/// A tile_kernel.
LARQL_GEMM_TARGET inline void multiply_tile(std::size_t depth, const float* a, const float* b, float* const* c,
                                            std::size_t col, bool add, const float* next) {
    vector sums[tile.rows][2] = {};
    for (std::size_t i = 0; i < tile.rows; ++i) {
        __builtin_prefetch(c[i] + col, 1);
        __builtin_prefetch(c[i] + col + tile.cols - 1, 1);
    }
    for (; depth >= 4; depth -= 4, a += 4 * tile.rows, b += 4 * tile.cols, next += 16) {
        __builtin_prefetch(next, 0, 2);
#pragma GCC unroll 4
        for (std::size_t u = 0; u < 4; ++u) {
            __builtin_prefetch(a + (u + 8) * tile.rows);
            add_step(sums, a + u * tile.rows, b + u * tile.cols);
        }
    }
    for (; depth > 0; --depth, a += tile.rows, b += tile.cols) add_step(sums, a, b);
#pragma GCC unroll 14
    for (std::size_t i = 0; i < tile.rows; ++i) {
        vector_unaligned* out = reinterpret_cast<vector_unaligned*>(c[i] + col);
        if (add) {
            sums[i][0] += out[0];
            sums[i][1] += out[1];
        }
        out[0] = sums[i][0];
        out[1] = sums[i][1];
    }
}

}  // namespace larql::detail::LARQL_GEMM_NAMESPACE

#endif
