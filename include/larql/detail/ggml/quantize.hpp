// SPDX-License-Identifier: Apache-2.0
//
// Encoding float as F16, BF16, Q8_0 and Q4_0. The two block formats give bit for bit what ggml's quantize_row_q8_0_ref
// and quantize_row_q4_0_ref give for finite numbers.
#ifndef LARQL_DETAIL_GGML_QUANTIZE_HPP
#define LARQL_DETAIL_GGML_QUANTIZE_HPP

#include <larql/detail/cpu.hpp>
#include <larql/detail/ggml/lanes.hpp>
#include <larql/detail/ggml/vectors.hpp>
#include <larql/dtype.hpp>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

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

#if LARQL_X86_DISPATCH

LARQL_GGML_AVX2 lane_words x8_to_bf16(float_x8 x) noexcept {
    const auto bits = reinterpret_cast<uint_x8>(x);
    const uint_x8 upper = bits >> 16;
    const uint_x8 rounded = (bits + (upper & 1) + 0x7fff) >> 16;
    return __builtin_convertvector(magnitudes(x) > 0x7f800000 ? upper | 0x40 : rounded, lane_words);
}

/// How many lanes hold overflow <= |x| < infinity.
LARQL_GGML_AVX2 unsigned count_overflowing(float_x8 x, std::uint32_t overflow_bits) noexcept {
    const int_x8 bits = magnitudes(x);
    const auto over = (bits >= static_cast<std::int32_t>(overflow_bits)) & (bits < 0x7f800000);
    return static_cast<unsigned>(
        std::popcount(static_cast<unsigned>(__builtin_ia32_movmskps256(reinterpret_cast<float_x8>(over)))));
}

#endif

struct f16_narrowing {
    static constexpr std::uint32_t overflow_bits = 0x477ff000U;
    static std::uint16_t one(float x) noexcept { return float_to_f16(x); }
#if LARQL_X86_DISPATCH
    LARQL_GGML_AVX2 static lane_words eight(float_x8 x) noexcept { return x8_to_f16(x); }
#endif
};
struct bf16_narrowing {
    static constexpr std::uint32_t overflow_bits = 0x7f7f8000U;
    static std::uint16_t one(float x) noexcept { return float_to_bf16(x); }
#if LARQL_X86_DISPATCH
    LARQL_GGML_AVX2 static lane_words eight(float_x8 x) noexcept { return x8_to_bf16(x); }
#endif
};

#if LARQL_X86_DISPATCH

template <class Narrow>
LARQL_TARGET_AVX2 std::uint64_t narrow_avx2(const float* in, std::byte* out, std::size_t vectors) noexcept {
    std::uint64_t overflowed = 0;
    for (std::size_t k = 0; k < vectors; ++k) {
        const float_x8 x = load_x8(in + 8 * k);
        const lane_words narrowed = Narrow::eight(x);
        std::memcpy(out + 16 * k, &narrowed, sizeof narrowed);
        overflowed += count_overflowing(x, Narrow::overflow_bits);
    }
    return overflowed;
}

#endif

/// Narrows with the level's vector code where there is some, and what is left of eight numbers one by one.
template <class Narrow>
std::uint64_t narrow_all(const float* in, std::byte* out, std::size_t count, simd_level level) noexcept {
    std::uint64_t overflowed = 0;
    std::size_t done = 0;
#if LARQL_X86_DISPATCH
    if (level != simd_level::portable) {
        done = count / 8 * 8;
        overflowed = narrow_avx2<Narrow>(in, out, done / 8);
    }
#endif
    static_cast<void>(level);
    for (; done < count; ++done) {
        store_u16(out + 2 * done, Narrow::one(in[done]));
        overflowed += magnitude_bits(in[done]) >= Narrow::overflow_bits && is_finite(in[done]) ? 1U : 0U;
    }
    return overflowed;
}

inline std::uint64_t narrow_f16(const float* in, std::byte* out, std::size_t count, simd_level level) noexcept {
    return narrow_all<f16_narrowing>(in, out, count, level);
}
inline std::uint64_t narrow_bf16(const float* in, std::byte* out, std::size_t count, simd_level level) noexcept {
    return narrow_all<bf16_narrowing>(in, out, count, level);
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

struct stored_scale {
    std::uint16_t bits;
    float inverse;  ///< of the scale before it was rounded to f16
};

/// Writes a block's scale as f16, NaN if it is not finite.
inline stored_scale store_scale(float scale, std::byte* out) noexcept {
    const std::uint16_t bits = is_finite(scale) ? float_to_f16(scale) : f16_nan;
    store_u16(out, bits);
    return {bits, scale != 0.0F ? 1.0F / scale : 0.0F};
}

/// Encodes block after block; returns how many numbers were lost.
template <dtype Type, class EncodeBlock>
std::uint64_t encode_blocks(const float* in, std::byte* out, std::size_t count, EncodeBlock encode) noexcept {
    constexpr const dtype_traits& traits = traits_of(Type);
    std::uint64_t lost = 0;
    for (std::size_t b = 0; b < count / traits.block_elements; ++b)
        lost += encode(in + b * traits.block_elements, out + b * traits.block_bytes);
    return lost;
}

inline std::uint64_t encode_q8_0_block(const float* in, std::byte* out) noexcept {
    const auto [bits, inverse] = store_scale(std::fabs(extreme_of(in, 32)) / 127.0F, out);
    for (std::size_t i = 0; i < 32; ++i) {
        // A subnormal scale has an infinite inverse; ggml gets 0 from the conversion of what follows.
        const float x = rounded_product(in[i], inverse);
        out[2 + i] = static_cast<std::byte>(is_finite(x) ? static_cast<int>(std::round(x)) : 0);
    }
    return lost_to_scale(in, 32, bits);
}

#if LARQL_X86_DISPATCH

/// Rounds to the nearest integer, halves away from zero as std::round does.
LARQL_GGML_AVX2 int_x8 round_away(float_x8 x) noexcept {
    __asm__("" : "+x"(x));  // x is a product, which a compiler would fuse with the subtraction
    const int_x8 sign = reinterpret_cast<int_x8>(x) & std::numeric_limits<std::int32_t>::min();
    constexpr int toward_zero_quietly = 11;
    const float_x8 whole = __builtin_ia32_roundps256(x, toward_zero_quietly);
    const int_x8 half_or_more = reinterpret_cast<float_x8>(magnitudes(x - whole)) >= 0.5F;
    const int_x8 step = half_or_more & (sign | std::bit_cast<std::int32_t>(1.0F));
    return __builtin_convertvector(whole + reinterpret_cast<float_x8>(step), int_x8);
}

LARQL_GGML_AVX2 int_x8 larger_of(int_x8 a, int_x8 b) noexcept { return a > b ? a : b; }

/// The largest lane.
LARQL_GGML_AVX2 std::int32_t largest_of(int_x8 x) noexcept {
    x = larger_of(x, __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3));
    x = larger_of(x, __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5));
    x = larger_of(x, __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6));
    return x[0];
}

LARQL_TARGET_AVX2 inline std::uint64_t encode_q8_0_avx2(const float* in, std::byte* out, std::size_t blocks) noexcept {
    std::uint64_t lost = 0;
    for (std::size_t b = 0; b < blocks; ++b, in += 32, out += 34) {
        float_x8 x[4];
        int_x8 most{};
        for (std::size_t k = 0; k < 4; ++k) {
            x[k] = load_x8(in + 8 * k);
            most = larger_of(most, magnitudes(x[k]));  // the bits compare as the magnitudes do, NaN largest
        }
        const auto largest = static_cast<std::uint32_t>(largest_of(most));
        const float scale = std::bit_cast<float>(largest) / 127.0F;
        if (largest >= 0x7f800000U || scale < 0x1p-125F) {  // not finite, zero, or an inverse that may be infinite
            lost += encode_q8_0_block(in, out);
            continue;
        }
        const std::uint16_t bits = float_to_f16(scale);
        store_u16(out, bits);
        const float inverse = 1.0F / scale;
        int_x8 q[4];
        for (std::size_t k = 0; k < 4; ++k) q[k] = round_away(x[k] * inverse);
        const auto words = __builtin_ia32_packssdw256(q[0], q[1]);
        const auto more_words = __builtin_ia32_packssdw256(q[2], q[3]);
        const auto bytes = reinterpret_cast<int_x8>(__builtin_ia32_packsswb256(words, more_words));
        // Packing works within 128-bit halves.
        const int_x8 ordered = __builtin_shufflevector(bytes, bytes, 0, 4, 1, 5, 2, 6, 3, 7);
        std::memcpy(out + 2, &ordered, sizeof ordered);
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
    return encode_blocks<dtype::q8_0>(in, out, count, encode_q8_0_block);
}

inline std::uint64_t encode_q4_0_block(const float* in, std::byte* out) noexcept {
    const auto [bits, inverse] = store_scale(extreme_of(in, 32) / -8.0F, out);
    const auto code = [factor = inverse](float value) {
        const float x = rounded_product(value, factor) + 8.5F;
        return is_finite(x) ? (x < 15.0F ? static_cast<unsigned>(x) : 15U) : 0U;  // not finite: see encode_q8_0_block
    };
    for (std::size_t i = 0; i < 16; ++i) out[2 + i] = static_cast<std::byte>(code(in[i]) | code(in[i + 16]) << 4);
    return lost_to_scale(in, 32, bits);
}

inline std::uint64_t encode_q4_0(const float* in, std::byte* out, std::size_t count, simd_level) noexcept {
    return encode_blocks<dtype::q4_0>(in, out, count, encode_q4_0_block);
}

}  // namespace larql::detail

#endif
