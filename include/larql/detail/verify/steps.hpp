// SPDX-License-Identifier: Apache-2.0
//
// How far a stored number may be from the one that was encoded: the step of its format, as a bound that holds for each
// number by itself.
//
// | format                       | bound                                                                            |
// |------------------------------|----------------------------------------------------------------------------------|
// | F16, BF16                    | half a unit in the last place, half a subnormal at least                         |
// | Q8_0, Q8_1                   | d/2 + 127 h                                                                      |
// | TQ1_0, TQ2_0, Q2_0           | d/2 + 2 h                                                                        |
// | MXFP4                        | 2 s: codes end at 6 s, and numbers of the block before 8 s                       |
// | NVFP4                        | 1.6 s + 3/512: half of the widest gap, and 6 half steps of the E4M3 scale        |
// | Q4_0, Q5_0                   | 1.5 d + 8 h, 1.5 d + 16 h: there is one code less on one side of zero            |
// | Q4_1, Q5_1                   | d + 15 h, d + 31 h, and half a unit in the last place of the minimum             |
// | Q2_K to Q6_K                 | 2 (g + d + dmin), with the group's scale g = d * its few bits                    |
// | IQ4_NL, IQ4_XS               | 16 g and 16 (g + d) in units of the code book, -127 to 113                       |
// | IQ1, IQ2, IQ3, Q1_0          | a multiple of g that was measured, below                                         |
// | all others                   | 0                                                                                |
//
// d and s are the scale of a block, h is half a unit in the last place of d as an F16. The lines down to NVFP4 follow
// from the format and its nearest codes. For the others encoders may fit the scale by least squares, or by what an
// importance matrix says, and leave a number further off than the nearest code of the largest one would: nearest codes
// are within d (Q4_0, Q5_0) and d/2 (Q4_1, Q5_1), and the multiples here were measured with ggml's encoders and larql's
// over numbers with outliers, of unequal groups and with heavy tails (at most 1.5 where 2 stands). They are no theorem.
// A K format whose d is below the normal range of F16 may lose as many half steps of F16 as its codes and scales have.
//
// Numbers whose scales lie in other tensors (FP8, INT4, AWQ, ...) have the bound 0: a copy of them is held against its
// own format alone.
#ifndef LARQL_DETAIL_VERIFY_STEPS_HPP
#define LARQL_DETAIL_VERIFY_STEPS_HPP

#include <larql/detail/ggml/formats_iq.hpp>
#include <larql/dtype.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <span>

namespace larql::detail {

/// The bound of a block format: scale * |group's scale| + half_units * h + minimum * h(|offset|)
/// + super * (|d| + |dmin|) + constant. Formats whose groups have scales of few bits say where d and dmin stand; their
/// h counts only where d is subnormal, since they choose these bits after d was rounded.
struct step_rule {
    dtype type;
    double scale;
    double half_units = 0.0;
    double minimum = 0.0;
    double super = 0.0;
    double constant = 0.0;
    int d_at = -1, dmin_at = -1;  ///< bytes from the start of the block; -1: none
};

inline constexpr step_rule step_rules[] = {
    {.type = dtype::q8_0, .scale = 0.5, .half_units = 127.0},
    {.type = dtype::q8_1, .scale = 0.5, .half_units = 127.0},
    {.type = dtype::q4_0, .scale = 1.5, .half_units = 8.0},
    {.type = dtype::q5_0, .scale = 1.5, .half_units = 16.0},
    {.type = dtype::q4_1, .scale = 1.0, .half_units = 15.0, .minimum = 1.0},
    {.type = dtype::q5_1, .scale = 1.0, .half_units = 31.0, .minimum = 1.0},
    {.type = dtype::tq1_0, .scale = 0.5, .half_units = 2.0},
    {.type = dtype::tq2_0, .scale = 0.5, .half_units = 2.0},
    {.type = dtype::q2_0, .scale = 0.5, .half_units = 2.0},
    // The code book of both holds doubled values, so that a scale here is half of s.
    {.type = dtype::mxfp4, .scale = 4.0},
    {.type = dtype::nvfp4, .scale = 3.2, .constant = 3.0 / 512.0},
    {.type = dtype::q2_k, .scale = 2.0, .half_units = 60.0, .super = 2.0, .d_at = 80, .dmin_at = 82},
    {.type = dtype::q3_k, .scale = 2.0, .half_units = 128.0, .super = 2.0, .d_at = 108},
    {.type = dtype::q4_k, .scale = 2.0, .half_units = 1008.0, .super = 2.0, .d_at = 0, .dmin_at = 2},
    {.type = dtype::q5_k, .scale = 2.0, .half_units = 2016.0, .super = 2.0, .d_at = 0, .dmin_at = 2},
    {.type = dtype::q6_k, .scale = 2.0, .half_units = 4096.0, .super = 2.0, .d_at = 208},
    {.type = dtype::iq4_nl, .scale = 16.0},
    {.type = dtype::iq4_xs, .scale = 16.0, .super = 16.0, .d_at = 0},
    // Measured with ggml's encoders on normal numbers of which a few are outliers: 3, 26, 22, 27, 34, 13, 18, 12.
    {.type = dtype::iq3_s, .scale = 5.0},
    {.type = dtype::iq3_xxs, .scale = 40.0},
    {.type = dtype::iq2_s, .scale = 40.0},
    {.type = dtype::iq2_xs, .scale = 40.0},
    {.type = dtype::iq2_xxs, .scale = 50.0},
    {.type = dtype::iq1_s, .scale = 25.0},
    {.type = dtype::iq1_m, .scale = 25.0},
    {.type = dtype::q1_0, .scale = 16.0},
};

/// The rule of a block format, or null.
inline const step_rule* find_step_rule(dtype type) noexcept {
    const auto* const found =
        std::find_if(std::begin(step_rules), std::end(step_rules), [&](const step_rule& r) { return r.type == type; });
    return found == std::end(step_rules) ? nullptr : found;
}

/// Half a unit in the last place of a number with so many significant bits, whose smallest normal is 2^lowest.
inline double half_unit(double x, int significant_bits, int lowest) noexcept {
    const double magnitude = std::fabs(x);
    const int exponent = magnitude == 0.0 ? lowest : std::max(std::ilogb(magnitude), lowest);
    return std::ldexp(0.5, exponent - significant_bits + 1);
}
inline double half_unit_of_f16(double x) noexcept { return half_unit(x, 11, -14); }
inline double half_unit_of_bf16(double x) noexcept { return half_unit(x, 8, -126); }

/// The scales and offsets of a block's groups of 16.
template <class Format>
void unpack_scales(const std::byte* in, float* scales, float* offsets) noexcept {
    lanes codes[Format::elements / 16];
    Format::unpack(in, {codes, scales, offsets});
}

using scale_unpacker = void (*)(const std::byte* in, float* scales, float* offsets) noexcept;

inline scale_unpacker find_scale_unpacker(dtype type) noexcept {
    switch (type) {
        case dtype::q4_0: return unpack_scales<q4_0_format>;
        case dtype::q4_1: return unpack_scales<q4_1_format>;
        case dtype::q5_0: return unpack_scales<q5_0_format>;
        case dtype::q5_1: return unpack_scales<q5_1_format>;
        case dtype::q8_0: return unpack_scales<q8_0_format>;
        case dtype::q8_1: return unpack_scales<q8_1_format>;
        case dtype::q2_k: return unpack_scales<q2_k_format>;
        case dtype::q3_k: return unpack_scales<q3_k_format>;
        case dtype::q4_k: return unpack_scales<q4_k_format>;
        case dtype::q5_k: return unpack_scales<q5_k_format>;
        case dtype::q6_k: return unpack_scales<q6_k_format>;
        case dtype::iq1_s: return unpack_scales<iq1_s_format>;
        case dtype::iq1_m: return unpack_scales<iq1_m_format>;
        case dtype::iq2_xxs: return unpack_scales<iq2_xxs_format>;
        case dtype::iq2_xs: return unpack_scales<iq2_xs_format>;
        case dtype::iq2_s: return unpack_scales<iq2_s_format>;
        case dtype::iq3_xxs: return unpack_scales<iq3_xxs_format>;
        case dtype::iq3_s: return unpack_scales<iq3_s_format>;
        case dtype::iq4_nl: return unpack_scales<iq4_nl_format>;
        case dtype::iq4_xs: return unpack_scales<iq4_xs_format>;
        case dtype::tq1_0: return unpack_scales<tq1_0_format>;
        case dtype::tq2_0: return unpack_scales<tq2_0_format>;
        case dtype::mxfp4: return unpack_scales<mxfp4_format>;
        case dtype::nvfp4: return unpack_scales<nvfp4_format>;
        case dtype::q1_0: return unpack_scales<q1_0_format>;
        case dtype::q2_0: return unpack_scales<q2_0_format>;
        default: return nullptr;
    }
}

/// Bounds of the elements of whole blocks.
/// @param blocks  stored bytes of a format that has a rule
/// @param steps   one for each element
inline void steps_of_blocks(dtype type, std::span<const std::byte> blocks, std::span<float> steps) noexcept {
    constexpr double slack = 1.0 + 0x1p-18;  // encoders compute in float
    const step_rule& rule = *find_step_rule(type);
    const dtype_traits& traits = traits_of(type);
    const scale_unpacker unpack = find_scale_unpacker(type);
    float scales[16] = {}, offsets[16] = {};
    for (std::size_t at = 0, b = 0; at < steps.size(); at += traits.block_elements, b += traits.block_bytes) {
        const std::byte* const block = blocks.data() + b;
        unpack(block, scales, offsets);
        double super = 0.0, lost = 0.0;
        for (const int where : {rule.d_at, rule.dmin_at}) {
            if (where < 0) continue;
            const double d = std::fabs(static_cast<double>(load_f16(block + where)));
            super += d;
            if (d < 0x1p-14) lost = rule.half_units * half_unit_of_f16(d);
        }
        for (std::size_t g = 0; g < traits.block_elements / 16; ++g) {
            const double scale = scales[g];
            const double rounding = rule.d_at < 0 ? rule.half_units * half_unit_of_f16(scale) : lost;
            const double bound = rule.scale * std::fabs(scale) + rounding +
                                 rule.minimum * half_unit_of_f16(offsets[g]) + rule.super * super + rule.constant;
            std::fill_n(steps.data() + at + 16 * g, 16, static_cast<float>(bound * slack));
        }
    }
}

/// Bounds of numbers of a floating-point format, from their values.
inline void steps_of_floats(dtype type, std::span<const float> values, std::span<float> steps) noexcept {
    for (std::size_t i = 0; i < values.size(); ++i)
        steps[i] = type == dtype::f16    ? static_cast<float>(half_unit_of_f16(values[i]))
                   : type == dtype::bf16 ? static_cast<float>(half_unit_of_bf16(values[i]))
                                         : 0.0F;
}

}  // namespace larql::detail

#endif
