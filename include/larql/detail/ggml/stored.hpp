// SPDX-License-Identifier: Apache-2.0
//
// Rows of a checkpoint's types as the products of few rows read them.
#ifndef LARQL_DETAIL_GGML_STORED_HPP
#define LARQL_DETAIL_GGML_STORED_HPP

#include <larql/detail/gemm/stored_matrix.hpp>
#include <larql/detail/ggml/decoders.hpp>
#include <larql/dtype.hpp>

#include <cstddef>
#include <cstdint>

namespace larql::detail {

/// The values of codes of four bits.
inline constexpr std::int8_t q4_0_values[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
inline constexpr std::int8_t q4_k_values[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/// Rows of `columns` numbers each, without gaps, or nothing for a type, or numbers out of line, that products decode
/// first.
inline stored_matrix stored_matrix_of(dtype type, const std::byte* data, std::size_t columns) noexcept {
    const dtype_traits& traits = traits_of(type);
    if (columns % traits.block_elements != 0) return {};
    const bool number = traits.kind == dtype_kind::floating;
    if (number && reinterpret_cast<std::uintptr_t>(data) % traits.block_bytes != 0) return {};
    stored_matrix out{.data = data, .row_bytes = columns / traits.block_elements * traits.block_bytes};
    switch (type) {
        case dtype::f32: out.kind = row_kind::f32; return out;
        case dtype::f16: out.kind = row_kind::f16; return out;
        case dtype::bf16: out.kind = row_kind::bf16; return out;
        case dtype::f8_e4m3: out.kind = row_kind::f8_e4m3; return out;
        case dtype::q8_0:
            out.kind = row_kind::q8_0;
            out.table = q4_0_values;  // not looked at
            break;
        case dtype::q4_0:
            out.kind = row_kind::nibbles;
            out.table = q4_0_values;
            break;
        case dtype::iq4_nl:
            out.kind = row_kind::nibbles;
            out.table = iq4_codebook::values;
            break;
        case dtype::q4_k:
            out.kind = row_kind::q4_k;
            out.table = q4_k_values;
            break;
        default: out.kind = row_kind::blocks; break;
    }
    out.blocks = find_block_decoder(type).unpacker;
    return out.blocks == nullptr ? stored_matrix{} : out;
}

}  // namespace larql::detail

#endif
