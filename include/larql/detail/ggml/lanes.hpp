// SPDX-License-Identifier: Apache-2.0
//
// Sixteen bytes at once, as the formats unpack their integers: vector code without naming an instruction set.
#ifndef LARQL_DETAIL_GGML_LANES_HPP
#define LARQL_DETAIL_GGML_LANES_HPP

#include <larql/detail/cpu.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define LARQL_GGML_INLINE inline __attribute__((always_inline))

// Before a loop over the vectors of a block, so that shifts and offsets become constants.
#if defined(__clang__)
#define LARQL_GGML_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LARQL_GGML_UNROLL _Pragma("GCC unroll 16")
#endif

namespace larql::detail {

template <class T>
LARQL_GGML_INLINE T load_as(const std::byte* from) noexcept {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

using lanes = std::uint8_t __attribute__((vector_size(16)));
using lane_words = std::uint16_t __attribute__((vector_size(16)));
using lane_quads = std::uint32_t __attribute__((vector_size(16)));
using lane_halves = std::uint64_t __attribute__((vector_size(16)));

/// The bytes of each number, from its lowest up, one number after the other.
LARQL_GGML_INLINE lanes lanes_of(std::uint64_t a, std::uint64_t b) noexcept {
    return reinterpret_cast<lanes>(lane_halves{a, b});
}
LARQL_GGML_INLINE lanes lanes_of(std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) noexcept {
    return reinterpret_cast<lanes>(lane_quads{a, b, c, d});
}

/// Each byte shifted right by `bits`, of which `mask` keeps what the byte itself had there. Whole words are shifted
/// since x86 has no shift of bytes.
LARQL_GGML_INLINE lanes field(lanes a, int bits, std::uint8_t mask) noexcept {
    return reinterpret_cast<lanes>(reinterpret_cast<lane_words>(a) >> bits) & mask;
}
/// Each byte shifted left; no set bit may leave its byte.
LARQL_GGML_INLINE lanes shifted_left(lanes a, int bits) noexcept {
    return reinterpret_cast<lanes>(reinterpret_cast<lane_words>(a) << bits);
}
/// 0xff where the byte is at least `bound`, else 0.
LARQL_GGML_INLINE lanes at_least(lanes a, std::uint8_t bound) noexcept { return reinterpret_cast<lanes>(a >= bound); }
#if defined(__clang__)
#define LARQL_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define LARQL_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, lanes{__VA_ARGS__})
#endif
/// The first (last) eight bytes of a and of b, in turn.
LARQL_GGML_INLINE lanes interleave_low(lanes a, lanes b) noexcept {
    return LARQL_SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
LARQL_GGML_INLINE lanes interleave_high(lanes a, lanes b) noexcept {
    return LARQL_SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
#undef LARQL_SHUFFLE

LARQL_GGML_INLINE lanes splat(std::uint8_t value) noexcept {
    return lanes_of(value * 0x0101010101010101ULL, value * 0x0101010101010101ULL);
}
LARQL_GGML_INLINE lanes load_lanes(const std::byte* from) noexcept { return load_as<lanes>(from); }

/// The f16 at `from`, without a branch on its kind: scales below the smallest normal f16 are common.
LARQL_GGML_INLINE float load_f16(const std::byte* from) noexcept {
    const std::uint32_t bits = load_as<std::uint16_t>(from);
    const std::uint32_t magnitude = bits & 0x7fffU;
    const std::uint32_t normal = (magnitude << 13) + (magnitude >= 0x7c00U ? 0x70000000U : 0x38000000U);
    const auto subnormal = std::bit_cast<std::uint32_t>(static_cast<float>(static_cast<int>(magnitude)) * 0x1p-24F);
    return std::bit_cast<float>((magnitude < 0x400U ? subnormal : normal) | (bits & 0x8000U) << 16);
}

}  // namespace larql::detail

#endif
