// SPDX-License-Identifier: Apache-2.0
//
// Includes LARQL_SIMD_BODY, which the includer defines, once for every level of vector code that this target has. No
// include guard: each use compiles another body. A body is told its level by macros:
//   LARQL_SIMD_NAMESPACE  where the level's vectors are (simd_body.hpp); the body's code goes into a namespace within
//   LARQL_SIMD_TARGET     the target attribute; empty for portable
//   LARQL_SIMD_BYTES      size of a vector
//   LARQL_SIMD_FUSED      whether the level has an instruction that multiplies and adds with one rounding
// Each function carries the target attribute, by LARQL_SIMD_FUNCTION or LARQL_SIMD_INLINE: without it GCC splits wide
// vectors before it inlines.
#ifdef LARQL_SIMD_BODY

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

#define LARQL_SIMD_NAMESPACE simd_portable
#define LARQL_SIMD_TARGET
#define LARQL_SIMD_BYTES 16
#if defined(__FMA__) || defined(__FP_FAST_FMAF) || defined(__aarch64__)
#define LARQL_SIMD_FUSED 1
#else
#define LARQL_SIMD_FUSED 0
#endif
#include LARQL_SIMD_BODY
#undef LARQL_SIMD_NAMESPACE
#undef LARQL_SIMD_TARGET
#undef LARQL_SIMD_BYTES
#undef LARQL_SIMD_FUSED

#if LARQL_X86_DISPATCH
#define LARQL_SIMD_NAMESPACE simd_avx2
#define LARQL_SIMD_TARGET LARQL_TARGET_AVX2
#define LARQL_SIMD_BYTES 32
#define LARQL_SIMD_FUSED 1
#include LARQL_SIMD_BODY
#undef LARQL_SIMD_NAMESPACE
#undef LARQL_SIMD_TARGET
#undef LARQL_SIMD_BYTES
#undef LARQL_SIMD_FUSED

#define LARQL_SIMD_NAMESPACE simd_avx512
#define LARQL_SIMD_TARGET LARQL_TARGET_AVX512
#define LARQL_SIMD_BYTES 64
#define LARQL_SIMD_FUSED 1
#include LARQL_SIMD_BODY
#undef LARQL_SIMD_NAMESPACE
#undef LARQL_SIMD_TARGET
#undef LARQL_SIMD_BYTES
#undef LARQL_SIMD_FUSED
#endif

#undef LARQL_SIMD_FUNCTION
#undef LARQL_SIMD_INLINE
#undef LARQL_SIMD_NO_FUSION
#undef LARQL_HAS_BUILTIN
#undef LARQL_UNROLL
#undef LARQL_SIMD_BODY

#endif
