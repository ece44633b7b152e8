// SPDX-License-Identifier: Apache-2.0
//
// Words of the vector code that is included once per level (simd_body.hpp and what follows it); simd_unscope.hpp takes
// them back. No include guard: each use has its own scope.
#include <larql/detail/cpu.hpp>

// Arrays of sums become registers only if every loop over them is unrolled, which GCC does not do at -O2 unasked.
#if defined(__clang__)
#define LARQL_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LARQL_UNROLL _Pragma("GCC unroll 16")
#endif
#if defined(__has_builtin)
#define LARQL_HAS_BUILTIN(name) __has_builtin(name)
#else
#define LARQL_HAS_BUILTIN(name) 0
#endif
#if defined(__clang__)
#define LARQL_SIMD_NO_FUSION _Pragma("clang fp contract(off)")
#else
#define LARQL_SIMD_NO_FUSION  // GCC says by __FP_FAST_FMAF that there is nothing to fuse with
#endif
#define LARQL_SIMD_INLINE LARQL_SIMD_TARGET __attribute__((always_inline)) inline
#define LARQL_SIMD_FUNCTION LARQL_SIMD_TARGET

// What LARQL_SIMD_FUSED is at the portable level.
#if defined(__FMA__) || defined(__FP_FAST_FMAF) || defined(__aarch64__)
#define LARQL_SIMD_PORTABLE_FUSED 1
#else
#define LARQL_SIMD_PORTABLE_FUSED 0
#endif
