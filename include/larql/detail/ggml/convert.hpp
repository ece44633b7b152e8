// SPDX-License-Identifier: Apache-2.0
//
// The formats without blocks: each element on its own becomes a float.
#ifndef LARQL_DETAIL_GGML_CONVERT_HPP
#define LARQL_DETAIL_GGML_CONVERT_HPP

#include <larql/detail/cpu.hpp>
#include <larql/detail/ggml/lanes.hpp>
#include <larql/detail/ggml/vectors.hpp>
#include <larql/dtype.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace larql::detail {

/// `convert` of each element of type Stored; `in` need not be aligned.
template <class Stored, class Convert>
void convert_each(const std::byte* in, float* out, std::size_t count, Convert convert) noexcept {
    for (std::size_t i = 0; i < count; ++i) out[i] = convert(load_as<Stored>(in + i * sizeof(Stored)));
}

#if LARQL_X86_DISPATCH

// Eight at a time. AVX-512 gains nothing here, since memory and caches set the pace. Each returns how many elements it
// converted; the rest, below eight, is left to the plain loops.
LARQL_TARGET_AVX2 inline std::size_t convert_f16_avx2(const std::byte* in, float* out, std::size_t count) noexcept {
    std::size_t i = 0;
    for (; i + 8 <= count; i += 8) store_x8(out + i, f16_to_x8(load_as<lane_words>(in + 2 * i)));
    return i;
}

LARQL_TARGET_AVX2 inline std::size_t convert_bf16_avx2(const std::byte* in, float* out, std::size_t count) noexcept {
    std::size_t i = 0;
    for (; i + 8 <= count; i += 8)
        store_x8(out + i, reinterpret_cast<float_x8>(widened(load_as<lane_words>(in + 2 * i)) << 16));
    return i;
}

/// An E5M2 number is the upper byte of an f16.
LARQL_TARGET_AVX2 inline std::size_t convert_e5m2_avx2(const std::byte* in, float* out, std::size_t count) noexcept {
    std::size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const lanes bytes = lanes_of(load_as<std::uint64_t>(in + i), 0);
        store_x8(out + i, f16_to_x8(reinterpret_cast<lane_words>(interleave_low(lanes{}, bytes))));
    }
    return i;
}

/// As f16 bits an E4M3 number is 2^-8 of its value, subnormals included; F16C does not heed a flush-to-zero mode.
LARQL_TARGET_AVX2 inline std::size_t convert_e4m3_avx2(const std::byte* in, float* out, std::size_t count) noexcept {
    std::size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const lanes bytes = lanes_of(load_as<std::uint64_t>(in + i), 0);
        const auto wide = reinterpret_cast<lane_words>(interleave_low(bytes, lanes{}));
        const lane_words magnitude = wide & 0x7f;
        const lane_words nan = reinterpret_cast<lane_words>(magnitude == 0x7f) & 0x7e00;
        store_x8(out + i, f16_to_x8((wide & 0x80) << 8 | magnitude << 7 | nan) * 256.0F);
    }
    return i;
}

#endif

/// Converts with the level's vector code where there is some, the rest with `convert`.
template <class Stored, class Convert, class Vector>
void convert_vectors(const std::byte* in, float* out, std::size_t count, simd_level level, Convert convert,
                     Vector vector) noexcept {
    const std::size_t done = level == simd_level::portable ? 0 : vector(in, out, count);
    convert_each<Stored>(in + done * sizeof(Stored), out + done, count - done, convert);
}

inline void convert_f64(const std::byte* in, float* out, std::size_t count, simd_level) noexcept {
    convert_each<double>(in, out, count, [](double x) { return static_cast<float>(x); });
}
inline void convert_f32(const std::byte* in, float* out, std::size_t count, simd_level) noexcept {
    if (count != 0) std::memcpy(out, in, count * sizeof(float));
}
inline void convert_f8_e8m0(const std::byte* in, float* out, std::size_t count, simd_level) noexcept {
    convert_each<std::uint8_t>(in, out, count, f8_e8m0_to_float);
}
inline void convert_f4_e2m1(const std::byte* in, float* out, std::size_t count, simd_level) noexcept {
    for (std::size_t i = 0; i < count; i += 2) {  // two to a byte, the first one in the low nibble
        const auto pair = load_as<std::uint8_t>(in + i / 2);
        out[i] = f4_e2m1_to_float(pair & 15);
        out[i + 1] = f4_e2m1_to_float(pair >> 4);
    }
}

#if LARQL_X86_DISPATCH
#define LARQL_VECTOR(name) name
#else
#define LARQL_VECTOR(name) [](const std::byte*, float*, std::size_t) noexcept -> std::size_t { return 0; }
#endif
inline void convert_f16(const std::byte* in, float* out, std::size_t count, simd_level level) noexcept {
    convert_vectors<std::uint16_t>(in, out, count, level, f16_to_float, LARQL_VECTOR(convert_f16_avx2));
}
inline void convert_bf16(const std::byte* in, float* out, std::size_t count, simd_level level) noexcept {
    convert_vectors<std::uint16_t>(in, out, count, level, bf16_to_float, LARQL_VECTOR(convert_bf16_avx2));
}
inline void convert_f8_e4m3(const std::byte* in, float* out, std::size_t count, simd_level level) noexcept {
    convert_vectors<std::uint8_t>(in, out, count, level, f8_e4m3_to_float, LARQL_VECTOR(convert_e4m3_avx2));
}
inline void convert_f8_e5m2(const std::byte* in, float* out, std::size_t count, simd_level level) noexcept {
    convert_vectors<std::uint8_t>(in, out, count, level, f8_e5m2_to_float, LARQL_VECTOR(convert_e5m2_avx2));
}
#undef LARQL_VECTOR

/// Integers as the nearest float.
inline void convert_integers(dtype type, const std::byte* in, float* out, std::size_t count) noexcept {
    const auto nearest = [](auto x) { return static_cast<float>(x); };
    switch (type) {
        case dtype::i8: return convert_each<std::int8_t>(in, out, count, nearest);
        case dtype::i16: return convert_each<std::int16_t>(in, out, count, nearest);
        case dtype::i32: return convert_each<std::int32_t>(in, out, count, nearest);
        case dtype::i64: return convert_each<std::int64_t>(in, out, count, nearest);
        case dtype::u8: return convert_each<std::uint8_t>(in, out, count, nearest);
        case dtype::u16: return convert_each<std::uint16_t>(in, out, count, nearest);
        case dtype::u32: return convert_each<std::uint32_t>(in, out, count, nearest);
        case dtype::u64: return convert_each<std::uint64_t>(in, out, count, nearest);
        default: return convert_each<std::uint8_t>(in, out, count, [](std::uint8_t x) { return x != 0 ? 1.0F : 0.0F; });
    }
}

}  // namespace larql::detail

#endif
