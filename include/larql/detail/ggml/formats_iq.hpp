// SPDX-License-Identifier: Apache-2.0
//
// The IQ formats, whose quants are points of a grid with signs apart. All have 256 elements. Source of the layouts:
// ggml-common.h and ggml-quants.c of llama.cpp. Offsets count bytes from the start of the block.
#ifndef LARQL_DETAIL_GGML_FORMATS_IQ_HPP
#define LARQL_DETAIL_GGML_FORMATS_IQ_HPP

#include <larql/detail/ggml/formats.hpp>

namespace larql::detail {

/// Bytes with the sign turned where `negative` is 0xff.
LARQL_GGML_INLINE lanes with_signs(lanes magnitudes, lanes negative) noexcept {
    return (magnitudes ^ negative) - negative;
}

/// (d (0.5 + s)) / 4, the scale of the IQ2 formats; exact, so only the value counts, not the order.
LARQL_GGML_INLINE float iq2_scale(float d, unsigned s) noexcept {
    return d * (0.5F + static_cast<float>(static_cast<int>(s))) * 0.25F;
}

struct iq2_xxs_format : block_format<dtype::iq2_xxs> {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        const float d = load_f16(in);
        for (std::size_t g = 0; g < 8; ++g) {
            const std::byte* at = in + 2 + 8 * g;
            const auto code = load_as<std::uint32_t>(at + 4);  // four 7-bit sign codes, then the scale
            const auto point = [at](std::size_t l) { return iq2_xxs_grid[load_as<std::uint8_t>(at + l)]; };
            out.q[2 * g] =
                with_signs(lanes_of(point(0), point(1)), lanes_of(even_signs[code & 127], even_signs[code >> 7 & 127]));
            out.q[2 * g + 1] = with_signs(lanes_of(point(2), point(3)),
                                          lanes_of(even_signs[code >> 14 & 127], even_signs[code >> 21 & 127]));
            out.scale[2 * g] = out.scale[2 * g + 1] = iq2_scale(d, code >> 28);
        }
    }
};

struct iq2_xs_format : block_format<dtype::iq2_xs> {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        const float d = load_f16(in);
        for (std::size_t k = 0; k < 16; ++k) {
            const unsigned a = load_as<std::uint16_t>(in + 2 + 4 * k);  // 9 bits of grid index, 7 of signs
            const unsigned b = load_as<std::uint16_t>(in + 4 + 4 * k);
            out.q[k] = with_signs(lanes_of(iq2_xs_grid[a & 511], iq2_xs_grid[b & 511]),
                                  lanes_of(even_signs[a >> 9], even_signs[b >> 9]));
            out.scale[k] = iq2_scale(d, load_as<std::uint8_t>(in + 66 + k / 2) >> (k % 2 * 4) & 15U);
        }
    }
};

struct iq2_s_format : block_format<dtype::iq2_s> {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        const float d = load_f16(in);
        for (std::size_t k = 0; k < 16; ++k) {
            const unsigned high = load_as<std::uint8_t>(in + 66 + k / 2) >> (k % 2 * 4);
            const unsigned a = load_as<std::uint8_t>(in + 2 + 2 * k) | (high & 3U) << 8;
            const unsigned b = load_as<std::uint8_t>(in + 3 + 2 * k) | (high >> 2 & 3U) << 8;
            out.q[k] = with_signs(lanes_of(iq2_s_grid[a], iq2_s_grid[b]),
                                  lanes_of(bits_as_bytes[load_as<std::uint8_t>(in + 34 + 2 * k)],
                                           bits_as_bytes[load_as<std::uint8_t>(in + 35 + 2 * k)]));
            out.scale[k] = iq2_scale(d, load_as<std::uint8_t>(in + 74 + k / 2) >> (k % 2 * 4) & 15U);
        }
    }
};

struct iq3_xxs_format : block_format<dtype::iq3_xxs> {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        const float d = load_f16(in);
        for (std::size_t g = 0; g < 8; ++g) {
            const std::byte* at = in + 2 + 8 * g;
            const auto code = load_as<std::uint32_t>(in + 66 + 4 * g);  // four 7-bit sign codes, then the scale
            const auto point = [at](std::size_t l) { return iq3_xxs_grid[load_as<std::uint8_t>(at + l)]; };
            out.q[2 * g] = with_signs(lanes_of(point(0), point(1), point(2), point(3)),
                                      lanes_of(even_signs[code & 127], even_signs[code >> 7 & 127]));
            out.q[2 * g + 1] = with_signs(lanes_of(point(4), point(5), point(6), point(7)),
                                          lanes_of(even_signs[code >> 14 & 127], even_signs[code >> 21 & 127]));
            out.scale[2 * g] = out.scale[2 * g + 1] =
                d * (0.5F + static_cast<float>(static_cast<int>(code >> 28))) * 0.5F;
        }
    }
};

struct iq3_s_format : block_format<dtype::iq3_s> {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        const float d = load_f16(in);
        for (std::size_t k = 0; k < 16; ++k) {
            const std::byte* at = in + 2 + 4 * k;
            const unsigned ninth = load_as<std::uint8_t>(in + 66 + k / 2) >> (k % 2 * 4);  // bits of four indices
            const auto point = [at, ninth](unsigned l) {
                return iq3_s_grid[load_as<std::uint8_t>(at + l) | (ninth >> l & 1U) << 8];
            };
            out.q[k] = with_signs(lanes_of(point(0), point(1), point(2), point(3)),
                                  lanes_of(bits_as_bytes[load_as<std::uint8_t>(in + 74 + 2 * k)],
                                           bits_as_bytes[load_as<std::uint8_t>(in + 75 + 2 * k)]));
        }
        for (std::size_t g = 0; g < 8; ++g) {
            const int s = load_as<std::uint8_t>(in + 106 + g / 2) >> (g % 2 * 4) & 15;
            out.scale[2 * g] = out.scale[2 * g + 1] = d * static_cast<float>(1 + 2 * s);
        }
    }
};

/// The values of IQ1_S and IQ1_M are grid + 1/8 or grid - 1/8 with a grid of -1, 0, 1. Here they are counted in eighths
/// and the scale is divided by 8, which is exact.
LARQL_GGML_INLINE std::uint64_t iq1_shift(bool negative) noexcept {
    return negative ? 0xffffffffffffffffULL : 0x0101010101010101ULL;
}
LARQL_GGML_INLINE float iq1_scale(float d, unsigned s) noexcept {
    return d * static_cast<float>(static_cast<int>(2 * s + 1)) * 0.125F;
}

struct iq1_s_format : block_format<dtype::iq1_s> {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        const float d = load_f16(in);
        for (std::size_t g = 0; g < 8; ++g) {
            const unsigned high = load_as<std::uint16_t>(in + 34 + 2 * g);  // four times 3 bits of index, scale, sign
            const auto point = [in, g, high](std::size_t l) {
                return iq1_grid[load_as<std::uint8_t>(in + 2 + 4 * g + l) | (high >> (3 * l) & 7U) << 8];
            };
            const std::uint64_t shift = iq1_shift((high & 0x8000U) != 0);
            out.q[2 * g] = lanes_of(point(0), point(1)) + lanes_of(shift, shift);
            out.q[2 * g + 1] = lanes_of(point(2), point(3)) + lanes_of(shift, shift);
            out.scale[2 * g] = out.scale[2 * g + 1] = iq1_scale(d, high >> 12 & 7U);
        }
    }
};

struct iq1_m_format : block_format<dtype::iq1_m> {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        // The top nibbles of four words are the f16 scale of the block, the other 12 bits four scales of 3 bits.
        const auto words = load_as<std::uint64_t>(in + 48);
        const auto d_bits = static_cast<std::uint16_t>((words >> 12 & 0xfU) | (words >> 24 & 0xf0U) |
                                                       (words >> 36 & 0xf00U) | (words >> 48 & 0xf000U));
        const float d = load_f16(reinterpret_cast<const std::byte*>(&d_bits));
        for (std::size_t k = 0; k < 16; ++k) {
            const unsigned high = load_as<std::uint8_t>(in + 32 + k);  // per point 3 bits of index and a sign
            const unsigned a = load_as<std::uint8_t>(in + 2 * k) | (high & 7U) << 8;
            const unsigned b = load_as<std::uint8_t>(in + 2 * k + 1) | (high >> 4 & 7U) << 8;
            out.q[k] = lanes_of(iq1_grid[a], iq1_grid[b]) +
                       lanes_of(iq1_shift((high & 0x08U) != 0), iq1_shift((high & 0x80U) != 0));
            out.scale[k] = iq1_scale(d, static_cast<unsigned>(words >> (k / 4 * 16 + k % 4 * 3)) & 7U);
        }
    }
};

struct iq4_xs_format : block_format<dtype::iq4_xs, block_scaling::looked_up>, iq4_codebook {
    static void unpack(const std::byte* in, const block_parts& out) noexcept {
        const float d = load_f16(in);
        const int high = load_as<std::uint16_t>(in + 2);
        for (std::size_t g = 0; g < 8; ++g) {
            const lanes q = load_lanes(in + 8 + 16 * g);
            out.q[2 * g] = low_nibbles(q);
            out.q[2 * g + 1] = high_nibbles(q);
            const int low = load_as<std::uint8_t>(in + 4 + g / 2) >> (g % 2 * 4) & 15;
            out.scale[2 * g] = out.scale[2 * g + 1] = d * static_cast<float>((low | (high >> (2 * g) & 3) << 4) - 32);
        }
    }
};

}  // namespace larql::detail

#endif
