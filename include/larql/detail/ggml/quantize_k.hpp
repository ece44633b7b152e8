// SPDX-License-Identifier: Apache-2.0
//
// Encoding float as Q4_K and Q6_K. The method is that of llama.cpp's pull request 1684 ("k-quants"): try several
// roundings of each group, fit scale and minimum to each by least squares, and keep the best. All elements count the
// same here, and the six or eight bits of a group's scale are chosen by the error that they leave, not by rounding.
#ifndef LARQL_DETAIL_GGML_QUANTIZE_K_HPP
#define LARQL_DETAIL_GGML_QUANTIZE_K_HPP

#include <larql/detail/ggml/quantize.hpp>

#include <algorithm>

namespace larql::detail {

/// The nearest integer to x, |x| < 2^22.
LARQL_GGML_INLINE int nearest_integer(float x) noexcept {
    return static_cast<int>(std::bit_cast<std::uint32_t>(x + 12582912.0F)) - 0x4b400000;
}

/// x limited to a range, as float, before it becomes an integer of 0 .. top (or low .. top).
LARQL_GGML_INLINE int nearest_within(float x, float low, float top) noexcept {
    return nearest_integer(x < low ? low : x > top ? top : x);
}

struct scale_and_minimum {
    float scale = 0.0F;
    float minimum = 0.0F;  ///< subtracted, not negative
};

/// Sum of (scale q - minimum - x)^2 over a group of 32 with the best q of 0 to 15; q goes to `codes`.
inline float q4_error(const float* x, scale_and_minimum fit, std::uint8_t* codes) noexcept {
    const float inverse = fit.scale > 0.0F ? 1.0F / fit.scale : 0.0F;
    float error = 0.0F;
    for (std::size_t i = 0; i < 32; ++i) {
        const int q = is_finite(inverse) ? nearest_within((x[i] + fit.minimum) * inverse, 0.0F, 15.0F) : 0;
        const float difference = fit.scale * static_cast<float>(q) - fit.minimum - x[i];
        codes[i] = static_cast<std::uint8_t>(q);
        error += difference * difference;
    }
    return error;
}

/// The best scale and minimum of 32 elements for codes 0 to 15.
inline scale_and_minimum fit_q4_group(const float* x) noexcept {
    const auto [least, most] = std::minmax_element(x, x + 32);
    const float low = *least < 0.0F ? *least : 0.0F;
    const float range = *most - low;
    if (!(range > 0x1p-100F) || !is_finite(range)) return {0.0F, -low};
    scale_and_minimum best{range / 15.0F, -low};
    std::uint8_t codes[32];
    float best_error = q4_error(x, best, codes);
    float sum_x = 0.0F;
    for (std::size_t i = 0; i < 32; ++i) sum_x += x[i];
    for (int step = 0; step <= 20; ++step) {
        const float inverse = (14.0F + 0.1F * static_cast<float>(step)) / range;
        int sum_q = 0;
        int sum_qq = 0;
        float sum_xq = 0.0F;
        for (std::size_t i = 0; i < 32; ++i) {
            const int q = nearest_within((x[i] - low) * inverse, 0.0F, 15.0F);
            sum_q += q;
            sum_qq += q * q;
            sum_xq += x[i] * static_cast<float>(q);
        }
        const auto determinant = static_cast<float>(32 * sum_qq - sum_q * sum_q);
        if (!(determinant > 0.0F)) continue;
        scale_and_minimum fit;
        fit.scale = (32.0F * sum_xq - sum_x * static_cast<float>(sum_q)) / determinant;
        fit.minimum = (static_cast<float>(sum_q) * sum_xq - static_cast<float>(sum_qq) * sum_x) / determinant;
        if (fit.minimum < 0.0F) fit = {sum_xq / static_cast<float>(sum_qq), 0.0F};
        const float error = q4_error(x, fit, codes);
        if (error < best_error) {
            best_error = error;
            best = fit;
        }
    }
    return best;
}

/// The 6-bit scale and minimum near `fit` that leave the least error, and the codes that go with them.
inline void choose_q4_steps(const float* x, scale_and_minimum fit, float d, float dmin, int steps[2],
                            std::uint8_t* codes) noexcept {
    const int scale = d > 0.0F ? nearest_within(fit.scale / d, 0.0F, 63.0F) : 0;
    const int minimum = dmin > 0.0F ? nearest_within(fit.minimum / dmin, 0.0F, 63.0F) : 0;
    float best_error = std::numeric_limits<float>::max();
    for (int s = std::max(scale - 1, 0); s <= std::min(scale + 1, 63); ++s)
        for (int m = std::max(minimum - 1, 0); m <= std::min(minimum + 1, 63); ++m) {
            std::uint8_t candidate[32];
            const float error = q4_error(x, {d * static_cast<float>(s), dmin * static_cast<float>(m)}, candidate);
            if (error < best_error) {
                best_error = error;
                steps[0] = s;
                steps[1] = m;
                std::memcpy(codes, candidate, sizeof candidate);
            }
        }
}

/// Makes a block decode to NaN by its f16 scale at `at`; returns how many finite numbers that loses.
inline std::uint64_t encode_nan_block(const float* in, std::byte* at) noexcept {
    store_u16(at, f16_nan);
    return lost_to_scale(in, 256, f16_nan);
}

inline std::uint64_t encode_q4_k_block(const float* in, std::byte* out) noexcept {
    std::memset(out, 0, 144);
    if (!is_finite(extreme_of(in, 256))) return encode_nan_block(in, out);
    scale_and_minimum fit[8];
    scale_and_minimum largest;
    for (std::size_t g = 0; g < 8; ++g) {
        fit[g] = fit_q4_group(in + 32 * g);
        largest.scale = std::max(largest.scale, fit[g].scale);
        largest.minimum = std::max(largest.minimum, fit[g].minimum);
    }
    const std::uint16_t d_bits = float_to_f16(largest.scale / 63.0F);
    const std::uint16_t dmin_bits = float_to_f16(largest.minimum / 63.0F);
    if (d_bits >= 0x7c00U || dmin_bits >= 0x7c00U) return encode_nan_block(in, out);  // beyond f16
    store_u16(out, d_bits);
    store_u16(out + 2, dmin_bits);
    for (std::size_t g = 0; g < 8; ++g) {
        int steps[2] = {};
        std::uint8_t codes[32] = {};
        choose_q4_steps(in + 32 * g, fit[g], f16_to_float(d_bits), f16_to_float(dmin_bits), steps, codes);
        std::byte* packed = out + 4;
        for (std::size_t s = 0; s < 2; ++s) {  // scales, then minima; see unpack_k_scales
            if (g < 4) {
                packed[g + 4 * s] |= static_cast<std::byte>(steps[s]);
            } else {
                packed[g + 4] |= static_cast<std::byte>((steps[s] & 15) << (4 * s));
                packed[g - 4 + 4 * s] |= static_cast<std::byte>(steps[s] >> 4 << 6);
            }
        }
        for (std::size_t i = 0; i < 32; ++i)
            out[16 + 32 * (g / 2) + i] |= static_cast<std::byte>(codes[i] << (g % 2 * 4));
    }
    return 0;
}

/// Sum of (scale q - x)^2 over a group of 16 with the best q of -32 to 31; q + 32 goes to `codes`.
inline float q6_error(const float* x, float scale, std::uint8_t* codes) noexcept {
    const float inverse = scale != 0.0F ? 1.0F / scale : 0.0F;
    float error = 0.0F;
    for (std::size_t i = 0; i < 16; ++i) {
        const int q = is_finite(inverse) ? nearest_within(x[i] * inverse, -32.0F, 31.0F) : 0;
        const float difference = scale * static_cast<float>(q) - x[i];
        codes[i] = static_cast<std::uint8_t>(q + 32);
        error += difference * difference;
    }
    return error;
}

/// The best scale of 16 elements for codes -32 to 31; negative if the element of largest magnitude is positive, since
/// there is one more code below zero.
inline float fit_q6_group(const float* x) noexcept {
    const float extreme = extreme_of(x, 16);
    if (!(std::fabs(extreme) > 0x1p-100F)) return 0.0F;
    float best = 0.0F;
    float best_gain = 0.0F;  // what the fit takes from the sum of squares
    for (int step = -9; step <= 9; ++step) {
        const float inverse = -(32.0F + 0.1F * static_cast<float>(step)) / extreme;
        int sum_qq = 0;
        float sum_xq = 0.0F;
        for (std::size_t i = 0; i < 16; ++i) {
            const int q = nearest_within(x[i] * inverse, -32.0F, 31.0F);
            sum_qq += q * q;
            sum_xq += x[i] * static_cast<float>(q);
        }
        if (sum_qq == 0) continue;
        const float scale = sum_xq / static_cast<float>(sum_qq);
        if (scale * sum_xq > best_gain) {
            best_gain = scale * sum_xq;
            best = scale;
        }
    }
    return best;
}

inline std::uint64_t encode_q6_k_block(const float* in, std::byte* out) noexcept {
    std::memset(out, 0, 210);
    if (!is_finite(extreme_of(in, 256))) return encode_nan_block(in, out + 208);
    float fit[16];
    for (std::size_t g = 0; g < 16; ++g) fit[g] = fit_q6_group(in + 16 * g);
    const float largest =
        *std::max_element(fit, fit + 16, [](float a, float b) { return std::fabs(a) < std::fabs(b); });
    const std::uint16_t d_bits = float_to_f16(largest / -128.0F);
    if ((d_bits & 0x7c00U) == 0x7c00U) return encode_nan_block(in, out + 208);  // beyond f16
    store_u16(out + 208, d_bits);
    const float d = f16_to_float(d_bits);
    for (std::size_t g = 0; g < 16; ++g) {
        const int middle = d != 0.0F ? nearest_within(fit[g] / d, -128.0F, 127.0F) : 0;
        float best_error = std::numeric_limits<float>::max();
        std::uint8_t codes[16] = {};
        for (int s = std::max(middle - 1, -128); s <= std::min(middle + 1, 127); ++s) {
            std::uint8_t candidate[16];
            const float error = q6_error(in + 16 * g, d * static_cast<float>(s), candidate);
            if (error < best_error) {
                best_error = error;
                out[192 + g] = static_cast<std::byte>(s);
                std::memcpy(codes, candidate, sizeof candidate);
            }
        }
        // Per 128 elements: low nibbles of 64, then in the high nibbles those of the other 64; two high bits of each.
        const std::size_t half = g / 8, within = g % 8;
        for (std::size_t i = 0; i < 16; ++i) {
            out[64 * half + 16 * (within % 4) + i] |= static_cast<std::byte>((codes[i] & 15) << (within / 4 * 4));
            out[128 + 32 * half + 16 * (within % 2) + i] |= static_cast<std::byte>(codes[i] >> 4 << (within / 2 * 2));
        }
    }
    return 0;
}

inline std::uint64_t encode_q4_k(const float* in, std::byte* out, std::size_t count, simd_level) noexcept {
    return encode_blocks<dtype::q4_k>(in, out, count, encode_q4_k_block);
}
inline std::uint64_t encode_q6_k(const float* in, std::byte* out, std::size_t count, simd_level) noexcept {
    return encode_blocks<dtype::q6_k>(in, out, count, encode_q6_k_block);
}

/// The encoder of a format that larql writes, null for any other.
inline run_encoder find_encoder(dtype type) noexcept {
    switch (type) {
        case dtype::f32: return copy_f32;
        case dtype::f16: return narrow_f16;
        case dtype::bf16: return narrow_bf16;
        case dtype::q8_0: return encode_q8_0;
        case dtype::q4_0: return encode_q4_0;
        case dtype::q4_k: return encode_q4_k;
        case dtype::q6_k: return encode_q6_k;
        default: return nullptr;
    }
}

}  // namespace larql::detail

#endif
