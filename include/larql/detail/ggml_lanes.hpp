// SPDX-License-Identifier: Apache-2.0
//
// Sixteen bytes at once, written once for every level of vector code: a function on `lanes` names no instruction set,
// so it is inlined into the portable kernels as well as into those for AVX2 and AVX-512.
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

/// 0xff where the bytes are equal (greater or equal, unsigned), else 0.
LARQL_INLINE lanes equal(lanes a, lanes b) noexcept { return reinterpret_cast<lanes>(a == b); }
LARQL_INLINE lanes at_least(lanes a, lanes b) noexcept { return reinterpret_cast<lanes>(a >= b); }

/// Each byte shifted, without the neighbour's bits. Whole words are shifted since x86 has no shift of bytes.
template <int Bits>
LARQL_INLINE lanes shift_right(lanes a) noexcept {
    return reinterpret_cast<lanes>(reinterpret_cast<lane_words>(a) >> Bits) & static_cast<std::uint8_t>(0xff >> Bits);
}
template <int Bits>
LARQL_INLINE lanes shift_left(lanes a) noexcept {
    return reinterpret_cast<lanes>(reinterpret_cast<lane_words>(a) << Bits) & static_cast<std::uint8_t>(0xff << Bits);
}
#else
struct lanes {
    std::uint8_t v[16];

    template <class F>
    static lanes each(const lanes& a, const lanes& b, F f) noexcept {
        lanes out;
        for (int i = 0; i < 16; ++i) out.v[i] = static_cast<std::uint8_t>(f(a.v[i], b.v[i]));
        return out;
    }
    static lanes all(std::uint8_t x) noexcept {
        lanes out;
        for (std::uint8_t& lane : out.v) lane = x;
        return out;
    }
    friend lanes operator&(lanes a, lanes b) noexcept {
        return each(a, b, [](int x, int y) { return x & y; });
    }
    friend lanes operator|(lanes a, lanes b) noexcept {
        return each(a, b, [](int x, int y) { return x | y; });
    }
    friend lanes operator^(lanes a, lanes b) noexcept {
        return each(a, b, [](int x, int y) { return x ^ y; });
    }
    friend lanes operator+(lanes a, lanes b) noexcept {
        return each(a, b, [](int x, int y) { return x + y; });
    }
    friend lanes operator-(lanes a, lanes b) noexcept {
        return each(a, b, [](int x, int y) { return x - y; });
    }
    friend lanes operator*(lanes a, lanes b) noexcept {
        return each(a, b, [](int x, int y) { return x * y; });
    }
    friend lanes operator&(lanes a, std::uint8_t b) noexcept { return a & all(b); }
    friend lanes operator-(lanes a, std::uint8_t b) noexcept { return a - all(b); }
};
inline lanes equal(lanes a, lanes b) noexcept {
    return lanes::each(a, b, [](int x, int y) { return x == y ? 0xff : 0; });
}
inline lanes at_least(lanes a, lanes b) noexcept {
    return lanes::each(a, b, [](int x, int y) { return x >= y ? 0xff : 0; });
}
template <int Bits>
lanes shift_right(lanes a) noexcept {
    return lanes::each(a, a, [](int x, int) { return x >> Bits; });
}
template <int Bits>
lanes shift_left(lanes a) noexcept {
    return lanes::each(a, a, [](int x, int) { return x << Bits; });
}
#endif

LARQL_INLINE lanes splat(std::uint8_t value) noexcept {
    const std::uint64_t word = value * 0x0101010101010101ULL;
    const std::uint64_t words[2] = {word, word};
    return std::bit_cast<lanes>(words);
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

}  // namespace larql::detail

#endif
