// SPDX-License-Identifier: Apache-2.0
//
// How each block format without a grid is laid out, and the first half of decoding it: the quantised integers in the
// order of the elements, and the scale of each group. Source of the layouts: ggml-common.h and ggml-quants.c of
// llama.cpp. Offsets count bytes from the start of the block.
#ifndef LARQL_DETAIL_GGML_FORMATS_HPP
#define LARQL_DETAIL_GGML_FORMATS_HPP

#include <larql/detail/ggml/grids.hpp>
#include <larql/detail/ggml/lanes.hpp>
#include <larql/detail/ggml/unpacked.hpp>
#include <larql/dtype.hpp>

#include <cstddef>
#include <cstdint>

namespace larql::detail {

/// What every format states.
template <dtype Type, block_scaling Scaling = block_scaling::scaled>
struct block_format {
    static constexpr std::size_t elements = traits_of(Type).block_elements;
    static constexpr std::size_t bytes = traits_of(Type).block_bytes;
    static constexpr block_scaling scaling = Scaling;
};

/// Byte k as a signed number.
LARQL_GGML_INLINE int signed_lane(const lanes& a, std::size_t k) noexcept { return static_cast<std::int8_t>(a[k]); }

/// The four-bit codes of IQ4_NL and IQ4_XS, and of the E2M1 formats (in halves).
struct iq4_codebook {
    static constexpr std::int8_t values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};
};
struct e2m1_codebook {
    static constexpr std::int8_t values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
};

inline constexpr std::uint64_t nibble_bytes = 0x0f0f0f0f0f0f0f0fULL;

LARQL_GGML_INLINE lanes low_nibbles(lanes a) noexcept { return a & splat(15); }
LARQL_GGML_INLINE lanes high_nibbles(lanes a) noexcept { return field(a, 4, 15); }

// ---------------------------------------------------------------------------------------------------------------------
// 32 elements, one f16 scale. Byte j holds element j in its low nibble and element j + 16 in its high one.

template <dtype Type, std::size_t Quants>
struct nibble_codes_format : block_format<Type, block_scaling::looked_up> {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        const lanes q = load_lanes(in + Quants);
        out.q[0] = low_nibbles(q);
        out.q[1] = high_nibbles(q);
    }
};

struct iq4_nl_format : nibble_codes_format<dtype::iq4_nl, 2>, iq4_codebook {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        nibble_codes_format::unpack(in, out);
        out.scale[0] = out.scale[1] = load_f16(in);
    }
};

struct mxfp4_format : nibble_codes_format<dtype::mxfp4, 1>, e2m1_codebook {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        nibble_codes_format::unpack(in, out);
        // Half of 2^(e - 127), as the code book holds doubled values. ggml gives 0xff no meaning as NaN, nor do we
        // here.
        const std::uint32_t e = load_as<std::uint8_t>(in);
        out.scale[0] = out.scale[1] = std::bit_cast<float>(e < 2 ? 0x00200000U << e : (e - 1) << 23);
    }
};

struct q4_0_format : block_format<dtype::q4_0> {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        const lanes q = load_lanes(in + 2);
        out.q[0] = low_nibbles(q) - splat(8);
        out.q[1] = high_nibbles(q) - splat(8);
        out.scale[0] = out.scale[1] = load_f16(in);
    }
};

struct q4_1_format : block_format<dtype::q4_1, block_scaling::shifted> {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        const lanes q = load_lanes(in + 4);
        out.q[0] = low_nibbles(q);
        out.q[1] = high_nibbles(q);
        out.scale[0] = out.scale[1] = load_f16(in);
        out.offset[0] = out.offset[1] = load_f16(in + 2);
    }
};

/// Sixteen elements' fifth bits as bytes of 0 or 16.
LARQL_GGML_INLINE lanes fifth_bits(const std::byte* in) noexcept {
    return lanes_of(bits_as_bytes[load_as<std::uint8_t>(in)], bits_as_bytes[load_as<std::uint8_t>(in + 1)]) & splat(16);
}

struct q5_0_format : block_format<dtype::q5_0> {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        const lanes q = load_lanes(in + 6);
        out.q[0] = (low_nibbles(q) | fifth_bits(in + 2)) - splat(16);
        out.q[1] = (high_nibbles(q) | fifth_bits(in + 4)) - splat(16);
        out.scale[0] = out.scale[1] = load_f16(in);
    }
};

struct q5_1_format : block_format<dtype::q5_1, block_scaling::shifted> {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        const lanes q = load_lanes(in + 8);
        out.q[0] = low_nibbles(q) | fifth_bits(in + 4);
        out.q[1] = high_nibbles(q) | fifth_bits(in + 6);
        out.scale[0] = out.scale[1] = load_f16(in);
        out.offset[0] = out.offset[1] = load_f16(in + 2);
    }
};

/// Signed bytes behind a header: Q8_0, Q8_1 (whose second half is a sum for dot products) and Q8_K.
template <dtype Type, std::size_t Quants>
struct signed_bytes_format : block_format<Type> {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        const float d = Type == dtype::q8_k ? load_as<float>(in) : load_f16(in);
        LARQL_GGML_UNROLL
        for (std::size_t k = 0; k < signed_bytes_format::elements / 16; ++k) {
            out.q[k] = load_lanes(in + Quants + 16 * k);
            out.scale[k] = d;
        }
    }
};
using q8_0_format = signed_bytes_format<dtype::q8_0, 2>;
using q8_1_format = signed_bytes_format<dtype::q8_1, 4>;
using q8_k_format = signed_bytes_format<dtype::q8_k, 4>;

// ---------------------------------------------------------------------------------------------------------------------
// K formats: 256 elements. Two bits of element 128 n + 32 j + i are bits 2 j and 2 j + 1 of byte 32 n + i.

/// Lane vector k of such two-bit quants: elements 16 k to 16 k + 15.
LARQL_GGML_INLINE lanes crumbs(const std::byte* quants, std::size_t k) noexcept {
    return field(load_lanes(quants + 32 * (k / 8) + 16 * (k % 2)), static_cast<int>(k % 8 / 2 * 2), 3);
}

struct q2_k_format : block_format<dtype::q2_k, block_scaling::shifted> {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        const float d = load_f16(in + 80);
        const float dmin = load_f16(in + 82);
        LARQL_GGML_UNROLL
        for (std::size_t k = 0; k < 16; ++k) {
            const int packed = load_as<std::uint8_t>(in + k);
            out.q[k] = crumbs(in + 16, k);
            out.scale[k] = d * static_cast<float>(packed & 15);
            out.offset[k] = -dmin * static_cast<float>(packed >> 4);
        }
    }
};

struct q3_k_format : block_format<dtype::q3_k> {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        const float d = load_f16(in + 108);
        // 6-bit scales: 4 low bits of 16 in 8 bytes, then 2 high bits of 16 in 4 bytes.
        const auto low = load_as<std::uint64_t>(in + 96);
        const std::uint64_t high = load_as<std::uint32_t>(in + 104) * 0x100000001ULL;
        const lanes scales =
            lanes_of((low & nibble_bytes) | (high >> 0 & 0x03030303U) << 4 | (high >> 34 & 0x03030303U) << 36,
                     (low >> 4 & nibble_bytes) | (high >> 4 & 0x03030303U) << 4 | (high >> 38 & 0x03030303U) << 36) -
            splat(32);
        LARQL_GGML_UNROLL
        for (std::size_t k = 0; k < 16; ++k) {
            // A set bit of the mask at offset 0 means that 4 is not subtracted.
            const lanes mask = field(load_lanes(in + 16 * (k % 2)), static_cast<int>(k / 2), 1);
            out.q[k] = (crumbs(in + 32, k) | shifted_left(mask, 2)) - splat(4);
            out.scale[k] = d * static_cast<float>(signed_lane(scales, k));
        }
    }
};

/// The header of Q4_K and Q5_K: d, dmin, then a 6-bit scale and a 6-bit minimum for each of 8 groups of 32 in 12 bytes.
inline void unpack_k_scales(const std::byte* in, const block_parts& out) noexcept {
    const float d = load_f16(in);
    const float dmin = load_f16(in + 2);
    const std::uint64_t a = load_as<std::uint32_t>(in + 4);   // scales 0 to 3, high bits of scales 4 to 7
    const std::uint64_t b = load_as<std::uint32_t>(in + 8);   // the same for the minima
    const std::uint64_t c = load_as<std::uint32_t>(in + 12);  // low bits of scales and minima 4 to 7
    const lanes both = lanes_of((a & 0x3f3f3f3fU) | (c & 0x0f0f0f0fU) << 32 | (a & 0xc0c0c0c0U) << 30,
                                (b & 0x3f3f3f3fU) | (c >> 4 & 0x0f0f0f0fU) << 32 | (b & 0xc0c0c0c0U) << 30);
    LARQL_GGML_UNROLL
    for (std::size_t k = 0; k < 8; ++k) {
        out.scale[2 * k] = out.scale[2 * k + 1] = d * static_cast<float>(signed_lane(both, k));
        out.offset[2 * k] = out.offset[2 * k + 1] = -(dmin * static_cast<float>(signed_lane(both, k + 8)));
    }
}

/// Lane vector k of nibbles that come as 32 low ones, then 32 high ones, from 32 bytes.
LARQL_GGML_INLINE lanes nibbles_by_64(const std::byte* quants, std::size_t k) noexcept {
    const lanes q = load_lanes(quants + 32 * (k / 4) + 16 * (k % 2));
    return field(q, k % 4 < 2 ? 0 : 4, 15);
}

struct q4_k_format : block_format<dtype::q4_k, block_scaling::shifted> {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        unpack_k_scales(in, out);
        LARQL_GGML_UNROLL
        for (std::size_t k = 0; k < 16; ++k) out.q[k] = nibbles_by_64(in + 16, k);
    }
};

struct q5_k_format : block_format<dtype::q5_k, block_scaling::shifted> {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        unpack_k_scales(in, out);
        LARQL_GGML_UNROLL
        for (std::size_t k = 0; k < 16; ++k) {
            const lanes fifth = field(load_lanes(in + 16 + 16 * (k % 2)), static_cast<int>(k / 2), 1);
            out.q[k] = nibbles_by_64(in + 48, k) | shifted_left(fifth, 4);
        }
    }
};

struct q6_k_format : block_format<dtype::q6_k> {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        const float d = load_f16(in + 208);
        LARQL_GGML_UNROLL
        for (std::size_t k = 0; k < 16; ++k) {
            // Per 128 elements: 64 low nibbles, then the high nibbles of the same 64 bytes.
            const lanes low = field(load_lanes(in + 64 * (k / 8) + 16 * (k % 4)), k % 8 < 4 ? 0 : 4, 15);
            out.q[k] = (low | shifted_left(crumbs(in + 128, k), 4)) - splat(32);
            out.scale[k] = d * static_cast<float>(load_as<std::int8_t>(in + 192 + k));
        }
    }
};

// ---------------------------------------------------------------------------------------------------------------------
// Ternary, binary and two-bit formats

struct tq2_0_format : block_format<dtype::tq2_0> {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        const float d = load_f16(in + 64);
        LARQL_GGML_UNROLL
        for (std::size_t k = 0; k < 16; ++k) {
            out.q[k] = crumbs(in, k) - splat(1);
            out.scale[k] = d;
        }
    }
};

/// Five base-3 digits a byte, as a fraction of 256: the leading digit is byte * 3 / 256, the rest follows from
/// byte * 3 modulo 256.
struct tq1_0_format : block_format<dtype::tq1_0> {
    LARQL_GGML_INLINE static lanes times_three(lanes a) noexcept { return a + a + a; }
    LARQL_GGML_INLINE static lanes digit_minus_one(lanes a) noexcept {
        return splat(255) - at_least(a, 86) - at_least(a, 171);
    }
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        lanes a = load_lanes(in), b = load_lanes(in + 16), c = load_lanes(in + 32);
        for (std::size_t n = 0; n < 5; ++n) {  // digit n of 32 bytes, then digit n of 16 bytes
            out.q[2 * n] = digit_minus_one(a);
            out.q[2 * n + 1] = digit_minus_one(b);
            out.q[10 + n] = digit_minus_one(c);
            a = times_three(a), b = times_three(b), c = times_three(c);
        }
        std::uint8_t last[16];  // digit n of 4 bytes, four digits
        for (std::size_t j = 0; j < 4; ++j) {
            unsigned power = load_as<std::uint8_t>(in + 48 + j);
            for (std::size_t n = 0; n < 4; ++n, power *= 3) last[4 * n + j] = static_cast<std::uint8_t>(power);
        }
        out.q[15] = digit_minus_one(load_lanes(reinterpret_cast<const std::byte*>(last)));
        const float d = load_f16(in + 52);
        LARQL_GGML_UNROLL
        for (std::size_t k = 0; k < 16; ++k) out.scale[k] = d;
    }
};

struct q1_0_format : block_format<dtype::q1_0> {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        const float d = load_f16(in);
        for (std::size_t k = 0; k < 8; ++k) {
            const lanes set = lanes_of(bits_as_bytes[load_as<std::uint8_t>(in + 2 + 2 * k)],
                                       bits_as_bytes[load_as<std::uint8_t>(in + 3 + 2 * k)]);
            out.q[k] = (set & splat(2)) - splat(1);
            out.scale[k] = d;
        }
    }
};

struct q2_0_format : block_format<dtype::q2_0> {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        const lanes q = load_lanes(in + 2);  // elements 4 i to 4 i + 3 in byte i
        const lanes low[2] = {interleave_low(field(q, 0, 3), field(q, 4, 3)),
                              interleave_high(field(q, 0, 3), field(q, 4, 3))};
        const lanes high[2] = {interleave_low(field(q, 2, 3), field(q, 6, 3)),
                               interleave_high(field(q, 2, 3), field(q, 6, 3))};
        const float d = load_f16(in);
        LARQL_GGML_UNROLL
        for (std::size_t k = 0; k < 2; ++k) {
            out.q[2 * k] = interleave_low(low[k], high[k]) - splat(1);
            out.q[2 * k + 1] = interleave_high(low[k], high[k]) - splat(1);
            out.scale[2 * k] = out.scale[2 * k + 1] = d;
        }
    }
};

struct nvfp4_format : block_format<dtype::nvfp4, block_scaling::looked_up>, e2m1_codebook {
    /// Half of an unsigned E4M3 number. ggml reads 0x7f as zero and ignores the highest bit otherwise.
    LARQL_GGML_INLINE static float half_of_ue4m3(std::uint32_t bits) noexcept {
        const std::uint32_t magnitude = bits & 0x7fU;
        const auto subnormal = std::bit_cast<std::uint32_t>(static_cast<float>(static_cast<int>(magnitude)) * 0x1p-10F);
        const std::uint32_t normal = (magnitude << 20) + (119U << 23);
        return std::bit_cast<float>(bits == 0x7fU ? 0U : magnitude < 8 ? subnormal : normal);
    }
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        for (std::size_t k = 0; k < 4; ++k) {
            const auto q = load_as<std::uint64_t>(in + 4 + 8 * k);
            out.q[k] = lanes_of(q & nibble_bytes, q >> 4 & nibble_bytes);
            out.scale[k] = half_of_ue4m3(load_as<std::uint8_t>(in + k));
        }
    }
};

}  // namespace larql::detail

#endif
