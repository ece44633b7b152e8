// SPDX-License-Identifier: Apache-2.0
//
// Encoding float as F16, BF16, Q8_0 and Q4_0. The two block formats give bit for bit what ggml's quantize_row_q8_0_ref
// and quantize_row_q4_0_ref give for finite numbers.
#ifndef LARQL_DETAIL_GGML_QUANTIZE_HPP
#define LARQL_DETAIL_GGML_QUANTIZE_HPP

#include <larql/detail/cpu.hpp>
#include <larql/detail/ggml_lanes.hpp>
#include <larql/dtype.hpp>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#if LARQL_X86_DISPATCH
#include <immintrin.h>
#endif

namespace larql::detail {

/// Encodes `count` elements, a multiple of the block; returns how many finite ones became infinite or NaN.
using run_encoder = std::uint64_t (*)(const float* in, std::byte* out, std::size_t count, simd_level level) noexcept;

// On the bits, since a program may be compiled to take for granted that no number is infinite.
LARQL_GGML_INLINE std::uint32_t magnitude_bits(float x) noexcept {
    return std::bit_cast<std::uint32_t>(x) & 0x7fffffffU;
}
LARQL_GGML_INLINE bool is_finite(float x) noexcept { return magnitude_bits(x) < 0x7f800000U; }

LARQL_GGML_INLINE void store_u16(std::byte* to, std::uint16_t bits) noexcept { std::memcpy(to, &bits, sizeof bits); }

inline std::uint64_t copy_f32(const float* in, std::byte* out, std::size_t count, simd_level) noexcept {
    if (count != 0) std::memcpy(out, in, count * sizeof(float));
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------------
// Sixteen-bit floats. The smallest magnitude that becomes infinite is 65520 in f16; in bf16 it lies halfway between the
// largest finite number and the next step.

inline constexpr std::uint32_t f16_overflow_bits = 0x477ff000U;
inline constexpr std::uint32_t bf16_overflow_bits = 0x7f7f8000U;

template <class Narrow>
std::uint64_t narrow_each(const float* in, std::byte* out, std::size_t count, std::uint32_t overflow_bits,
                          Narrow narrow) noexcept {
    std::uint64_t overflowed = 0;
    for (std::size_t i = 0; i < count; ++i) {
        store_u16(out + 2 * i, narrow(in[i]));
        overflowed += magnitude_bits(in[i]) >= overflow_bits && is_finite(in[i]) ? 1U : 0U;
    }
    return overflowed;
}

#if LARQL_X86_DISPATCH

/// Lanes with overflow <= |x| < infinity, each as -1.
LARQL_TARGET_AVX2 inline __m256i overflowing_lanes(__m256i bits, std::uint32_t overflow_bits) noexcept {
    const __m256i magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff));
    return _mm256_and_si256(_mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(static_cast<int>(overflow_bits - 1))),
                            _mm256_cmpgt_epi32(_mm256_set1_epi32(0x7f800000), magnitude));
}

LARQL_TARGET_AVX2 inline std::uint64_t narrow_f16_avx2(const float* in, std::byte* out, std::size_t vectors) noexcept {
    std::uint64_t overflowed = 0;
    for (std::size_t k = 0; k < vectors; ++k) {
        const __m256 x = _mm256_loadu_ps(in + 8 * k);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16 * k),
                         _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        const __m256i over = overflowing_lanes(_mm256_castps_si256(x), f16_overflow_bits);
        overflowed +=
            static_cast<unsigned>(std::popcount(static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(over)))));
    }
    return overflowed;
}

LARQL_TARGET_AVX2 inline std::uint64_t narrow_bf16_avx2(const float* in, std::byte* out, std::size_t vectors) noexcept {
    std::uint64_t overflowed = 0;
    for (std::size_t k = 0; k < vectors; ++k) {
        const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + 8 * k));
        const __m256i upper = _mm256_srli_epi32(bits, 16);
        const __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
        const __m256i rounded =
            _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, odd), _mm256_set1_epi32(0x7fff)), 16);
        const __m256i is_nan =
            _mm256_cmpgt_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff)), _mm256_set1_epi32(0x7f800000));
        const __m256i quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
        const __m256i wide = _mm256_blendv_epi8(rounded, quiet, is_nan);
        const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(wide, wide), 0x08);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16 * k), _mm256_castsi256_si128(packed));
        const __m256i over = overflowing_lanes(bits, bf16_overflow_bits);
        overflowed +=
            static_cast<unsigned>(std::popcount(static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(over)))));
    }
    return overflowed;
}

#endif

inline std::uint64_t narrow_f16(const float* in, std::byte* out, std::size_t count, simd_level level) noexcept {
    std::uint64_t overflowed = 0;
    std::size_t done = 0;
#if LARQL_X86_DISPATCH
    if (level != simd_level::portable) {
        overflowed = narrow_f16_avx2(in, out, count / 8);
        done = count / 8 * 8;
    }
#endif
    static_cast<void>(level);
    return overflowed + narrow_each(in + done, out + 2 * done, count - done, f16_overflow_bits, float_to_f16);
}

inline std::uint64_t narrow_bf16(const float* in, std::byte* out, std::size_t count, simd_level level) noexcept {
    std::uint64_t overflowed = 0;
    std::size_t done = 0;
#if LARQL_X86_DISPATCH
    if (level != simd_level::portable) {
        overflowed = narrow_bf16_avx2(in, out, count / 8);
        done = count / 8 * 8;
    }
#endif
    static_cast<void>(level);
    return overflowed + narrow_each(in + done, out + 2 * done, count - done, bf16_overflow_bits, float_to_bf16);
}

// ---------------------------------------------------------------------------------------------------------------------
// Q8_0 and Q4_0: 32 elements, one scale

inline constexpr std::uint16_t f16_nan = 0x7e00;

/// How many finite numbers of a block are lost when its scale is `scale_bits`.
inline std::uint64_t lost_to_scale(const float* in, std::size_t count, std::uint16_t scale_bits) noexcept {
    if ((scale_bits & 0x7c00U) != 0x7c00U) return 0;
    std::uint64_t lost = 0;
    for (std::size_t i = 0; i < count; ++i) lost += is_finite(in[i]) ? 1U : 0U;
    return lost;
}

/// The product as float: by way of double, where it is exact, so that it cannot be fused with a sum that follows.
LARQL_GGML_INLINE float rounded_product(float a, float b) noexcept {
    return static_cast<float>(static_cast<double>(a) * static_cast<double>(b));
}

/// The element of largest magnitude, the first of several; NaN if any element is NaN or infinite.
inline float extreme_of(const float* in, std::size_t count) noexcept {
    float extreme = 0.0F;
    for (std::size_t i = 0; i < count; ++i) {
        if (!is_finite(in[i])) return std::numeric_limits<float>::quiet_NaN();
        if (magnitude_bits(in[i]) > magnitude_bits(extreme)) extreme = in[i];
    }
    return extreme;
}

inline std::uint64_t encode_q8_0_block(const float* in, std::byte* out) noexcept {
    const float scale = std::fabs(extreme_of(in, 32)) / 127.0F;
    const std::uint16_t bits = is_finite(scale) ? float_to_f16(scale) : f16_nan;
    store_u16(out, bits);
    const float inverse = scale != 0.0F ? 1.0F / scale : 0.0F;
    for (std::size_t i = 0; i < 32; ++i) {
        // A subnormal scale has an infinite inverse; ggml gets 0 from the conversion of what follows.
        const float x = rounded_product(in[i], inverse);
        out[2 + i] = static_cast<std::byte>(is_finite(x) ? static_cast<int>(std::round(x)) : 0);
    }
    return lost_to_scale(in, 32, bits);
}

#if LARQL_X86_DISPATCH

/// Rounds to the nearest integer, halves away from zero as std::round does.
LARQL_TARGET_AVX2 inline __m256i round_away(__m256 x) noexcept {
    __asm__("" : "+x"(x));  // x is a product, which a compiler would fuse with the subtraction
    const __m256 sign_mask = _mm256_set1_ps(-0.0F);
    const __m256 whole = _mm256_round_ps(x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
    const __m256 rest = _mm256_andnot_ps(sign_mask, _mm256_sub_ps(x, whole));
    const __m256 one = _mm256_or_ps(_mm256_and_ps(x, sign_mask), _mm256_set1_ps(1.0F));
    const __m256 step = _mm256_and_ps(_mm256_cmp_ps(rest, _mm256_set1_ps(0.5F), _CMP_GE_OQ), one);
    return _mm256_cvttps_epi32(_mm256_add_ps(whole, step));
}

LARQL_TARGET_AVX2 inline std::uint64_t encode_q8_0_avx2(const float* in, std::byte* out, std::size_t blocks) noexcept {
    const __m256i magnitude_mask = _mm256_set1_epi32(0x7fffffff);
    std::uint64_t lost = 0;
    for (std::size_t b = 0; b < blocks; ++b, in += 32, out += 34) {
        __m256 x[4];
        __m256i most = _mm256_setzero_si256();
        for (std::size_t k = 0; k < 4; ++k) {
            x[k] = _mm256_loadu_ps(in + 8 * k);  // bits of magnitudes compare as the magnitudes do, NaN largest
            most = _mm256_max_epi32(most, _mm256_and_si256(_mm256_castps_si256(x[k]), magnitude_mask));
        }
        __m128i m = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
        m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
        m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
        const auto largest = static_cast<std::uint32_t>(_mm_cvtsi128_si32(m));
        const float scale = std::bit_cast<float>(largest) / 127.0F;
        if (largest >= 0x7f800000U || scale < 0x1p-125F) {  // not finite, zero, or an inverse that may be infinite
            lost += encode_q8_0_block(in, out);
            continue;
        }
        const std::uint16_t bits = float_to_f16(scale);
        store_u16(out, bits);
        const __m256 inverse = _mm256_set1_ps(1.0F / scale);
        __m256i q[4];
        for (std::size_t k = 0; k < 4; ++k) q[k] = round_away(_mm256_mul_ps(x[k], inverse));
        const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // packing works within 128-bit halves
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 2), _mm256_permutevar8x32_epi32(bytes, order));
        lost += lost_to_scale(in, 32, bits);
    }
    return lost;
}

#endif

inline std::uint64_t encode_q8_0(const float* in, std::byte* out, std::size_t count, simd_level level) noexcept {
#if LARQL_X86_DISPATCH
    if (level != simd_level::portable) return encode_q8_0_avx2(in, out, count / 32);
#endif
    static_cast<void>(level);
    std::uint64_t lost = 0;
    for (std::size_t b = 0; b < count / 32; ++b) lost += encode_q8_0_block(in + 32 * b, out + 34 * b);
    return lost;
}

inline std::uint64_t encode_q4_0_block(const float* in, std::byte* out) noexcept {
    const float scale = extreme_of(in, 32) / -8.0F;
    const std::uint16_t bits = is_finite(scale) ? float_to_f16(scale) : f16_nan;
    store_u16(out, bits);
    const float inverse = scale != 0.0F ? 1.0F / scale : 0.0F;
    const auto code = [inverse](float value) {
        const float x = rounded_product(value, inverse) + 8.5F;
        return is_finite(x) ? (x < 15.0F ? static_cast<unsigned>(x) : 15U) : 0U;  // not finite: see encode_q8_0_block
    };
    for (std::size_t i = 0; i < 16; ++i) out[2 + i] = static_cast<std::byte>(code(in[i]) | code(in[i + 16]) << 4);
    return lost_to_scale(in, 32, bits);
}

inline std::uint64_t encode_q4_0(const float* in, std::byte* out, std::size_t count, simd_level) noexcept {
    std::uint64_t lost = 0;
    for (std::size_t b = 0; b < count / 32; ++b) lost += encode_q4_0_block(in + 32 * b, out + 18 * b);
    return lost;
}

}  // namespace larql::detail

#endif
