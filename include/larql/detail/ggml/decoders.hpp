// SPDX-License-Identifier: Apache-2.0
//
// Which decoder serves which format.
#ifndef LARQL_DETAIL_GGML_DECODERS_HPP
#define LARQL_DETAIL_GGML_DECODERS_HPP

#include <larql/detail/ggml/convert.hpp>
#include <larql/detail/ggml/expand.hpp>
#include <larql/detail/ggml/formats_iq.hpp>
#include <larql/detail/ggml/stream.hpp>

namespace larql::detail {

/// Decodes blocks by way of a buffer that stays in the first-level cache.
template <class Format>
void decode_blocks(const std::byte* in, float* out, std::size_t count, simd_level level) noexcept {
    const std::size_t blocks = count / Format::elements;
    constexpr std::size_t vectors_at_once = 64;
    constexpr std::size_t vectors = Format::elements / 16;
    constexpr std::size_t blocks_at_once = vectors_at_once / vectors;
    lanes q[vectors_at_once];
    float scale[vectors_at_once];
    float offset[vectors_at_once];
    unpacked_run run{q, scale, offset, nullptr, 0};
    if constexpr (Format::scaling == block_scaling::looked_up) run.table = Format::values;
    for (std::size_t done = 0; done < blocks;) {
        const std::size_t now = blocks - done < blocks_at_once ? blocks - done : blocks_at_once;
        for (std::size_t b = 0; b < now; ++b, in += Format::bytes)
            Format::unpack(in, {q + b * vectors, scale + b * vectors, offset + b * vectors});
        run.count = now * vectors;
        expand<Format::scaling>(run, out, level);
        out += now * Format::elements;
        done += now;
    }
}

/// The decoder of a floating-point or block format, null for integers.
inline run_decoder find_decoder(dtype type) noexcept {
    switch (type) {
        case dtype::f64: return convert_f64;
        case dtype::f32: return convert_f32;
        case dtype::f16: return convert_f16;
        case dtype::bf16: return convert_bf16;
        case dtype::f8_e4m3: return convert_f8_e4m3;
        case dtype::f8_e5m2: return convert_f8_e5m2;
        case dtype::f8_e8m0: return convert_f8_e8m0;
        case dtype::f4_e2m1: return convert_f4_e2m1;
        case dtype::q4_0: return decode_blocks<q4_0_format>;
        case dtype::q4_1: return decode_blocks<q4_1_format>;
        case dtype::q5_0: return decode_blocks<q5_0_format>;
        case dtype::q5_1: return decode_blocks<q5_1_format>;
        case dtype::q8_0: return decode_blocks<q8_0_format>;
        case dtype::q8_1: return decode_blocks<q8_1_format>;
        case dtype::q2_k: return decode_blocks<q2_k_format>;
        case dtype::q3_k: return decode_blocks<q3_k_format>;
        case dtype::q4_k: return decode_blocks<q4_k_format>;
        case dtype::q5_k: return decode_blocks<q5_k_format>;
        case dtype::q6_k: return decode_blocks<q6_k_format>;
        case dtype::q8_k: return decode_blocks<q8_k_format>;
        case dtype::iq1_s: return decode_blocks<iq1_s_format>;
        case dtype::iq1_m: return decode_blocks<iq1_m_format>;
        case dtype::iq2_xxs: return decode_blocks<iq2_xxs_format>;
        case dtype::iq2_xs: return decode_blocks<iq2_xs_format>;
        case dtype::iq2_s: return decode_blocks<iq2_s_format>;
        case dtype::iq3_xxs: return decode_blocks<iq3_xxs_format>;
        case dtype::iq3_s: return decode_blocks<iq3_s_format>;
        case dtype::iq4_nl: return decode_blocks<iq4_nl_format>;
        case dtype::iq4_xs: return decode_blocks<iq4_xs_format>;
        case dtype::tq1_0: return decode_blocks<tq1_0_format>;
        case dtype::tq2_0: return decode_blocks<tq2_0_format>;
        case dtype::mxfp4: return decode_blocks<mxfp4_format>;
        case dtype::nvfp4: return decode_blocks<nvfp4_format>;
        case dtype::q1_0: return decode_blocks<q1_0_format>;
        case dtype::q2_0: return decode_blocks<q2_0_format>;
        default: return nullptr;
    }
}

}  // namespace larql::detail

#endif
