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

template <class Format>
void unpack_blocks(const std::byte* in, std::size_t blocks, const block_parts& out) noexcept {
    constexpr std::size_t vectors = Format::elements / 16;
    for (std::size_t b = 0; b < blocks; ++b, in += Format::bytes)
        Format::unpack(in, {out.q + b * vectors, out.scale + b * vectors, out.offset + b * vectors});
}

template <class Format>
constexpr block_unpacker make_unpacker() noexcept {
    const std::int8_t* table = nullptr;
    if constexpr (Format::scaling == block_scaling::looked_up) table = Format::values;
    return {Format::elements, Format::bytes, Format::scaling, table, unpack_blocks<Format>};
}
template <class Format>
inline constexpr block_unpacker unpacker_of = make_unpacker<Format>();

/// Decodes blocks by way of a buffer that stays in the first-level cache.
inline void decode_unpacked(const block_unpacker& format, const std::byte* in, float* out, std::size_t count,
                            simd_level level) noexcept {
    lanes q[unpacked_vectors];
    float scale[unpacked_vectors];
    float offset[unpacked_vectors];
    unpacked_run run{q, scale, offset, format.table, 0};
    const std::size_t blocks_at_once = unpacked_vectors * 16 / format.elements;
    std::size_t blocks = count / format.elements;
    while (blocks != 0) {
        const std::size_t now = blocks < blocks_at_once ? blocks : blocks_at_once;
        format.unpack(in, now, {q, scale, offset});
        run.count = now * (format.elements / 16);
        switch (format.scaling) {
            case block_scaling::scaled: expand<block_scaling::scaled>(run, out, level); break;
            case block_scaling::shifted: expand<block_scaling::shifted>(run, out, level); break;
            case block_scaling::looked_up: expand<block_scaling::looked_up>(run, out, level); break;
        }
        in += now * format.bytes;
        out += now * format.elements;
        blocks -= now;
    }
}

template <class Format>
void decode_blocks(const std::byte* in, float* out, std::size_t count, simd_level level) noexcept {
    decode_unpacked(unpacker_of<Format>, in, out, count, level);
}

/// The decoder of a floating-point format without blocks, or null.
inline run_decoder find_converter(dtype type) noexcept {
    switch (type) {
        case dtype::f64: return convert_f64;
        case dtype::f32: return convert_f32;
        case dtype::f16: return convert_f16;
        case dtype::bf16: return convert_bf16;
        case dtype::f8_e4m3: return convert_f8_e4m3;
        case dtype::f8_e5m2: return convert_f8_e5m2;
        case dtype::f8_e8m0: return convert_f8_e8m0;
        case dtype::f4_e2m1: return convert_f4_e2m1;
        default: return nullptr;
    }
}

/// A format of blocks, or null for other types.
struct block_decoder {
    const block_unpacker* unpacker = nullptr;
    run_decoder decode = nullptr;
};
template <class Format>
inline constexpr block_decoder block_decoder_of{&unpacker_of<Format>, decode_blocks<Format>};

inline block_decoder find_block_decoder(dtype type) noexcept {
    switch (type) {
        case dtype::q4_0: return block_decoder_of<q4_0_format>;
        case dtype::q4_1: return block_decoder_of<q4_1_format>;
        case dtype::q5_0: return block_decoder_of<q5_0_format>;
        case dtype::q5_1: return block_decoder_of<q5_1_format>;
        case dtype::q8_0: return block_decoder_of<q8_0_format>;
        case dtype::q8_1: return block_decoder_of<q8_1_format>;
        case dtype::q2_k: return block_decoder_of<q2_k_format>;
        case dtype::q3_k: return block_decoder_of<q3_k_format>;
        case dtype::q4_k: return block_decoder_of<q4_k_format>;
        case dtype::q5_k: return block_decoder_of<q5_k_format>;
        case dtype::q6_k: return block_decoder_of<q6_k_format>;
        case dtype::q8_k: return block_decoder_of<q8_k_format>;
        case dtype::iq1_s: return block_decoder_of<iq1_s_format>;
        case dtype::iq1_m: return block_decoder_of<iq1_m_format>;
        case dtype::iq2_xxs: return block_decoder_of<iq2_xxs_format>;
        case dtype::iq2_xs: return block_decoder_of<iq2_xs_format>;
        case dtype::iq2_s: return block_decoder_of<iq2_s_format>;
        case dtype::iq3_xxs: return block_decoder_of<iq3_xxs_format>;
        case dtype::iq3_s: return block_decoder_of<iq3_s_format>;
        case dtype::iq4_nl: return block_decoder_of<iq4_nl_format>;
        case dtype::iq4_xs: return block_decoder_of<iq4_xs_format>;
        case dtype::tq1_0: return block_decoder_of<tq1_0_format>;
        case dtype::tq2_0: return block_decoder_of<tq2_0_format>;
        case dtype::mxfp4: return block_decoder_of<mxfp4_format>;
        case dtype::nvfp4: return block_decoder_of<nvfp4_format>;
        case dtype::q1_0: return block_decoder_of<q1_0_format>;
        case dtype::q2_0: return block_decoder_of<q2_0_format>;
        default: return {};
    }
}

/// The decoder of a floating-point or block format, null for integers.
inline run_decoder find_decoder(dtype type) noexcept {
    const block_decoder blocks = find_block_decoder(type);
    return blocks.decode != nullptr ? blocks.decode : find_converter(type);
}

}  // namespace larql::detail

#endif
