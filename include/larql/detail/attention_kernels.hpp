// SPDX-License-Identifier: Apache-2.0
//
// The vector code of attention, compiled once for every level, and the choice among them at run time.
#ifndef LARQL_DETAIL_ATTENTION_KERNELS_HPP
#define LARQL_DETAIL_ATTENTION_KERNELS_HPP

#include <larql/detail/attention_plan.hpp>
#include <larql/detail/attention_problem.hpp>
#include <larql/detail/cpu.hpp>
#include <larql/dtype.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

// Vector extensions and little-endian halves are needed; other compilers take the generic path.
#if defined(__GNUC__) && !defined(LARQL_NO_VECTOR_EXTENSIONS)
#define LARQL_VECTOR_EXTENSIONS 1
#else
#define LARQL_VECTOR_EXTENSIONS 0
#endif

#if LARQL_VECTOR_EXTENSIONS

// Arrays of sums become registers only if every loop over them is unrolled, which GCC does not do at -O2 unasked.
#if defined(__clang__)
#define LARQL_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LARQL_UNROLL _Pragma("GCC unroll 16")
#endif
#define LARQL_SIMD_INLINE LARQL_SIMD_TARGET __attribute__((always_inline)) inline
#define LARQL_SIMD_FUNCTION LARQL_SIMD_TARGET

#define LARQL_SIMD_NAMESPACE attention_portable
#define LARQL_SIMD_TARGET
#define LARQL_SIMD_BYTES 16
#include <larql/detail/simd_body.hpp>

#include <larql/detail/attention_wide_body.hpp>

#include <larql/detail/attention_narrow_body.hpp>
#undef LARQL_SIMD_NAMESPACE
#undef LARQL_SIMD_TARGET
#undef LARQL_SIMD_BYTES

#if LARQL_X86_DISPATCH
#define LARQL_SIMD_NAMESPACE attention_avx2
#define LARQL_SIMD_TARGET LARQL_TARGET_AVX2
#define LARQL_SIMD_BYTES 32
#include <larql/detail/simd_body.hpp>

#include <larql/detail/attention_wide_body.hpp>

#include <larql/detail/attention_narrow_body.hpp>
#undef LARQL_SIMD_NAMESPACE
#undef LARQL_SIMD_TARGET
#undef LARQL_SIMD_BYTES

#define LARQL_SIMD_NAMESPACE attention_avx512
#define LARQL_SIMD_TARGET LARQL_TARGET_AVX512
#define LARQL_SIMD_BYTES 64
#include <larql/detail/simd_body.hpp>

#include <larql/detail/attention_wide_body.hpp>

#include <larql/detail/attention_narrow_body.hpp>
#undef LARQL_SIMD_NAMESPACE
#undef LARQL_SIMD_TARGET
#undef LARQL_SIMD_BYTES
#endif

#undef LARQL_SIMD_FUNCTION
#undef LARQL_SIMD_INLINE
#undef LARQL_UNROLL

namespace larql::detail {

/// The code of one level for one pair of storage types.
template <class K, class V>
struct attention_kernel {
    attention_tile tile;
    void (*attend_item)(const attention_problem<float, K, V>&, const attention_plan&, const attention_item&,
                        float* scratch);
};

template <class K, class V>
attention_kernel<K, V> choose_attention_kernel(simd_level level) noexcept {
#if LARQL_X86_DISPATCH
    if (level == simd_level::avx512)
        return {{attention_avx512::lanes, attention_avx512::narrow_rows}, attention_avx512::attend_item<K, V>};
    if (level == simd_level::avx2)
        return {{attention_avx2::lanes, attention_avx2::narrow_rows}, attention_avx2::attend_item<K, V>};
#endif
    (void)level;
    return {{attention_portable::lanes, attention_portable::narrow_rows}, attention_portable::attend_item<K, V>};
}

}  // namespace larql::detail

#endif
#endif
