// SPDX-License-Identifier: Apache-2.0
//
// The few steps of AVX2 and AVX-512 code that encoders and decoders share. GCC's and Clang's vector extensions are used
// instead of <immintrin.h>, which costs every user half a second or more per source file.
#ifndef LARQL_DETAIL_GGML_VECTORS_HPP
#define LARQL_DETAIL_GGML_VECTORS_HPP

#include <larql/detail/cpu.hpp>
#include <larql/detail/ggml/lanes.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

#if LARQL_X86_DISPATCH

// Each function carries its target: without it GCC splits wide vectors before it inlines.
#define LARQL_GGML_AVX2 LARQL_TARGET_AVX2 LARQL_GGML_INLINE
#define LARQL_GGML_AVX512 LARQL_TARGET_AVX512 LARQL_GGML_INLINE

namespace larql::detail {

using char_lanes = char __attribute__((vector_size(16)));  // as the builtin functions call bytes
using short_lanes = short __attribute__((vector_size(16)));
using float_x8 = float __attribute__((vector_size(32)));
using int_x8 = std::int32_t __attribute__((vector_size(32)));
using uint_x8 = std::uint32_t __attribute__((vector_size(32)));
using float_x16 = float __attribute__((vector_size(64)));
using int_x16 = std::int32_t __attribute__((vector_size(64)));

LARQL_GGML_AVX2 float_x8 load_x8(const float* from) noexcept {
    float_x8 x;
    std::memcpy(&x, from, sizeof x);
    return x;
}
LARQL_GGML_AVX2 void store_x8(float* to, float_x8 x) noexcept { std::memcpy(to, &x, sizeof x); }
LARQL_GGML_AVX512 void store_x16(float* to, float_x16 x) noexcept { std::memcpy(to, &x, sizeof x); }

/// Stores past the caches; `to` is a multiple of 32 bytes.
LARQL_GGML_AVX2 void stream_x8(float* to, float_x8 x) noexcept {
#if defined(__clang__)
    __builtin_nontemporal_store(x, reinterpret_cast<float_x8*>(to));
#else
    __builtin_ia32_movntps256(to, x);
#endif
}

/// table[q] for each byte q below 16.
LARQL_GGML_AVX2 lanes look_up(lanes table, lanes q) noexcept {
    return reinterpret_cast<lanes>(
        __builtin_ia32_pshufb128(reinterpret_cast<char_lanes>(table), reinterpret_cast<char_lanes>(q)));
}

// GCC 12 widens to four times the size element by element, hence its builtin functions.

/// The first eight bytes, signed, as float.
LARQL_GGML_AVX2 float_x8 signed_to_x8(lanes q) noexcept {
#if defined(__clang__)
    using signed_bytes = signed char __attribute__((vector_size(16)));
    const auto bytes = reinterpret_cast<signed_bytes>(q);
    const auto wide = __builtin_convertvector(__builtin_shufflevector(bytes, bytes, 0, 1, 2, 3, 4, 5, 6, 7), int_x8);
#else
    const int_x8 wide = __builtin_ia32_pmovsxbd256(reinterpret_cast<char_lanes>(q));
#endif
    return __builtin_convertvector(wide, float_x8);
}
/// All sixteen bytes, signed, as float.
LARQL_GGML_AVX512 float_x16 signed_to_x16(lanes q) noexcept {
#if defined(__clang__)
    using signed_bytes = signed char __attribute__((vector_size(16)));
    const auto wide = __builtin_convertvector(reinterpret_cast<signed_bytes>(q), int_x16);
#else
    const int_x16 wide = __builtin_ia32_pmovsxbd512_mask(reinterpret_cast<char_lanes>(q), int_x16{}, -1);
#endif
    return __builtin_convertvector(wide, float_x16);
}
/// Eight 16-bit numbers as 32 bits each.
LARQL_GGML_AVX2 uint_x8 widened(lane_words x) noexcept {
#if defined(__clang__)
    return __builtin_convertvector(x, uint_x8);
#else
    return reinterpret_cast<uint_x8>(__builtin_ia32_pmovzxwd256(reinterpret_cast<short_lanes>(x)));
#endif
}
LARQL_GGML_AVX2 float_x8 f16_to_x8(lane_words bits) noexcept {
    return __builtin_ia32_vcvtph2ps256(reinterpret_cast<short_lanes>(bits));
}
/// To the nearest f16, ties to even.
LARQL_GGML_AVX2 lane_words x8_to_f16(float_x8 x) noexcept {
    constexpr int nearest_quietly = 8;
    return reinterpret_cast<lane_words>(__builtin_ia32_vcvtps2ph256(x, nearest_quietly));
}

LARQL_GGML_AVX2 int_x8 magnitudes(float_x8 x) noexcept { return reinterpret_cast<int_x8>(x) & 0x7fffffff; }

}  // namespace larql::detail

#endif

#endif
