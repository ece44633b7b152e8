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

#if defined(__GNUC__)
#define LARQL_INLINE inline __attribute__((always_inline))
#else
#define LARQL_INLINE inline
#endif

namespace larql::detail {

static_assert(std::endian::native == std::endian::little, "larql reads little-endian files on little-endian machines");

template <class T>
LARQL_INLINE T load_as(const std::byte* from) noexcept {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

#if defined(__GNUC__)
using lanes = std::uint8_t __attribute__((vector_size(16)));
using lane_words = std::uint16_t __attribute__((vector_size(16)));

/// Each byte shifted right by `bits`, of which `mask` keeps what the byte itself had there. Whole words are shifted
/// since x86 has no shift of bytes.
LARQL_INLINE lanes field(lanes a, int bits, std::uint8_t mask) noexcept {
    return reinterpret_cast<lanes>(reinterpret_cast<lane_words>(a) >> bits) & mask;
}
/// Each byte shifted left; no set bit may leave its byte.
LARQL_INLINE lanes shifted_left(lanes a, int bits) noexcept {
    return reinterpret_cast<lanes>(reinterpret_cast<lane_words>(a) << bits);
}
/// 0xff where the byte is at least `bound`, else 0.
LARQL_INLINE lanes at_least(lanes a, std::uint8_t bound) noexcept { return reinterpret_cast<lanes>(a >= bound); }
#else
/// The same in plain C++, as much of it as the formats use.
struct lanes {
    std::uint8_t v[16];

    template <class F>
    lanes each(F f) const noexcept {
        lanes out;
        for (int i = 0; i < 16; ++i) out.v[i] = static_cast<std::uint8_t>(f(i, static_cast<int>(v[i])));
        return out;
    }
    friend lanes operator&(const lanes& a, int b) noexcept {
        return a.each([&](int, int x) { return x & b; });
    }
    friend lanes operator|(const lanes& a, const lanes& b) noexcept {
        return a.each([&](int i, int x) { return x | b.v[i]; });
    }
    friend lanes operator^(const lanes& a, const lanes& b) noexcept {
        return a.each([&](int i, int x) { return x ^ b.v[i]; });
    }
    friend lanes operator+(const lanes& a, const lanes& b) noexcept {
        return a.each([&](int i, int x) { return x + b.v[i]; });
    }
    friend lanes operator-(const lanes& a, const lanes& b) noexcept {
        return a.each([&](int i, int x) { return x - b.v[i]; });
    }
    friend lanes operator-(const lanes& a, int b) noexcept {
        return a.each([&](int, int x) { return x - b; });
    }
};

inline lanes field(const lanes& a, int bits, std::uint8_t mask) noexcept {
    return a.each([&](int, int x) { return (x >> bits) & mask; });
}
inline lanes shifted_left(const lanes& a, int bits) noexcept {
    return a.each([&](int, int x) { return x << bits; });
}
inline lanes at_least(const lanes& a, std::uint8_t bound) noexcept {
    return a.each([&](int, int x) { return x >= bound ? 0xff : 0; });
}
#endif

/// The eight bytes of `low`, then those of `high`, each from its lowest byte up.
LARQL_INLINE lanes lanes_of(std::uint64_t low, std::uint64_t high) noexcept {
    const struct {
        std::uint64_t words[2];
    } pair{{low, high}};
    return std::bit_cast<lanes>(pair);
}
LARQL_INLINE lanes splat(std::uint8_t value) noexcept {
    return lanes_of(value * 0x0101010101010101ULL, value * 0x0101010101010101ULL);
}
LARQL_INLINE lanes load_lanes(const std::byte* from) noexcept { return load_as<lanes>(from); }

/// The f16 at `from`, without a branch on its kind: scales below the smallest normal f16 are common.
LARQL_INLINE float load_f16(const std::byte* from) noexcept {
    const std::uint32_t bits = load_as<std::uint16_t>(from);
    const std::uint32_t magnitude = bits & 0x7fffU;
    const std::uint32_t normal = (magnitude << 13) + (magnitude >= 0x7c00U ? 0x70000000U : 0x38000000U);
    const auto subnormal = std::bit_cast<std::uint32_t>(static_cast<float>(static_cast<int>(magnitude)) * 0x1p-24F);
    return std::bit_cast<float>((magnitude < 0x400U ? subnormal : normal) | (bits & 0x8000U) << 16);
}

/// ggml rounds a product before it adds. Plain code states that by way of double, where the product of an f16 scale or
/// a float with a small integer is exact; x86 without FMA has nothing to fuse with, so float serves there.
LARQL_INLINE float rounded_product(float a, float b) noexcept {
#if LARQL_X86_DISPATCH && !defined(__FMA__)
    return a * b;
#else
    return static_cast<float>(static_cast<double>(a) * static_cast<double>(b));
#endif
}

}  // namespace larql::detail

#endif
