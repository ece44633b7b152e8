// SPDX-License-Identifier: Apache-2.0
//
// Weights under packed names: compressed-tensors' `weight_packed` and GPT-OSS's `_blocks`.
#ifndef LARQL_DETAIL_QUANT_FIND_PACKED_HPP
#define LARQL_DETAIL_QUANT_FIND_PACKED_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/quant/find_stored.hpp>
#include <larql/detail/quant/grid.hpp>
#include <larql/detail/quant/parts.hpp>
#include <larql/detail/quant/shapes.hpp>
#include <larql/detail/quant/transposed.hpp>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// The logical shape, from `weight_shape` and checked against the packed rows.
inline std::vector<std::uint64_t> packed_shape(weight_parts& p, const tensor_info& info) {
    const tensor_info& stored = p.need(p.name() + "_shape");
    p.require_type(stored, {dtype::i64, dtype::i32});
    const std::vector<std::byte> bytes = p.read_all(stored);
    std::vector<std::uint64_t> shape = info.shape;
    if (shape.size() < 2 || stored.element_count() != shape.size())
        fail(errc::shape_mismatch,
             "expected as many numbers as " + std::string(info.name) + " " + shape_text(info.shape) +
                 " has dimensions, got " + shape_text(stored.shape),
             p.where(stored));
    for (std::size_t i = 0; i < shape.size(); ++i) {
        const std::byte* in = bytes.data() + i * traits_of(stored.type).block_bytes;
        std::uint64_t extent = load_u32_le(in);
        if (stored.type == dtype::i64) extent |= static_cast<std::uint64_t>(load_u32_le(in + 4)) << 32;
        const bool last = i + 1 == shape.size();
        // A word of 32 bits holds at most 32 codes; packed_bits(p) then checks the exact count.
        if (last ? extent / 32 > shape[i] : extent != shape[i])
            fail(errc::shape_mismatch,
                 concat({"dimension ", i, " is ", extent, ", but ", info.name, " is ", shape_text(info.shape)}),
                 p.where(stored));
        shape[i] = extent;
    }
    return shape;
}

/// The width of the codes: the configuration's, or else the only one that fills the packed rows.
inline unsigned packed_bits(weight_parts& p, const tensor_info& info, std::uint64_t columns) {
    const std::vector<std::uint64_t> widths =
        p.config().bits.empty() ? std::vector<std::uint64_t>{2, 4, 8} : p.config().bits;
    std::uint64_t found = 0;
    std::string tried;
    for (const std::uint64_t bits : widths) {
        tried += concat({(tried.empty() ? "" : " or "), bits});
        if (bits > 8 || ceil_div(columns * bits, 32) != info.columns()) continue;
        if (found != 0)
            fail(errc::bad_value,
                 concat({info.columns(), " words for ", columns, " codes fit ", found, " and ", bits,
                         " bits: expected num_bits in quantization_config"}),
                 p.where(info));
        found = bits;
    }
    if (found == 0)
        fail(errc::shape_mismatch,
             concat({"expected the words of ", columns, " codes of ", tried, " bits, got ", info.columns(),
                     " words a row"}),
             p.where(info));
    if (found != 2 && found != 4 && found != 8)
        fail(errc::unsupported_dtype,
             concat({"pack-quantized codes of ", found, " bits are not supported; larql reads 2, 4 and 8"}),
             p.where(info));
    return static_cast<unsigned>(found);
}

/// The grid of a weight whose columns name their groups: [..., rows, groups].
inline scale_grid indexed_grid(weight_parts& p, std::span<const std::uint64_t> shape, const tensor_info& scale) {
    std::vector<std::uint64_t> wanted(shape.begin(), shape.end());
    wanted.back() = scale.columns();
    p.require_shape(scale, wanted);
    const std::uint64_t groups = std::max<std::uint64_t>(scale.columns(), 1);
    return {.rows = matrix_shape::of(shape).rows,
            .columns = scale.columns(),
            .block_rows = 1,
            .block_columns = std::max<std::uint64_t>(ceil_div(shape.back(), groups), 1)};
}

inline void add_group_index(weight_parts& p, grid_layout& layout, const tensor_info& g_idx,
                            std::span<const std::uint64_t> shape, const tensor_info& scale) {
    p.require_shape(g_idx, shape.last(1));
    layout.group_index = read_group_index(g_idx.type, p.read_all(g_idx), layout.grid.columns, p.where(g_idx));
    if (layout.group_index.empty())  // stored but unused: columns are in order
        layout.grid = resolve_scale_grid(shape, scale.shape, p.config().blocks, p.config().blocks_only, p.where(scale));
}

inline void add_zero_points(weight_parts& p, grid_layout& layout, const tensor_info& scale, unsigned bits) {
    const tensor_info* zero = p.tensor(p.name() + "_zero_point");
    if (zero == nullptr) {
        if (p.config().asymmetric) p.need(p.name() + "_zero_point");
        return;
    }
    p.require_type(*zero, {dtype::i32, dtype::i8, dtype::f32, dtype::bf16, dtype::f16});
    if (zero->type != dtype::i32) {  // not packed: numbers, in the codes' signed range
        p.require_shape(*zero, scale.shape);
        layout.zeros = p.take(*zero);
        return;
    }
    std::vector<std::uint64_t> wanted = scale.shape;
    if (wanted.size() < 2 || layout.grid.block_rows != 1)
        fail(errc::shape_mismatch,
             "packed zero points need a scale for every row, got scales " + shape_text(scale.shape), p.where(*zero));
    wanted[wanted.size() - 2] = ceil_div(layout.matrix_rows, 32 / bits);
    p.require_shape(*zero, wanted);
    layout.zeros = p.take(*zero);
    layout.packed_zero_bits = bits;
    layout.zero_offset = 0.0F;  // both the codes and the zero points carry the offset
}

/// compressed-tensors: `weight_packed`, FP4 in U8 or integers in I32.
inline found_weight find_packed(weight_parts& p, const tensor_info& info) {
    p.require_scheme(info);
    p.require_type(info, {dtype::u8, dtype::i32});
    const tensor_info& scale = p.need(p.name() + "_scale");
    if (info.type == dtype::u8) return find_scaled_f4(p, info, &scale, unpacked_f4_shape(p, info));
    const std::vector<std::uint64_t> shape = packed_shape(p, info);
    const unsigned bits = packed_bits(p, info, shape.back());
    const code_format format = bits == 8 ? code_format::uint8 : bits == 4 ? code_format::uint4 : code_format::uint2;
    grid_layout layout = grid_layout_of(shape, format, p.take(info), info.columns() * 4);
    const tensor_info* g_idx = p.tensor(p.name() + "_g_idx");
    layout.grid = g_idx != nullptr ? indexed_grid(p, shape, scale)
                                   : resolve_scale_grid(shape, scale.shape, p.config().blocks, p.config().blocks_only,
                                                        p.where(scale));
    layout.scales = p.take_scales(scale, {dtype::f32, dtype::bf16, dtype::f16});
    layout.zero_offset = static_cast<float>(1U << (bits - 1));
    add_zero_points(p, layout, scale, bits);
    if (g_idx != nullptr) add_group_index(p, layout, *g_idx, shape, scale);
    if (layout.group_index.empty() && (layout.grid.block_columns * bits) % 8 != 0 &&
        layout.grid.block_columns < layout.columns)
        fail(errc::unsupported_dtype,
             concat({"groups of ", layout.grid.block_columns, " codes do not fill whole bytes"}), p.where(info));
    return p.finish(shape, info.type,
                    bits == 4   ? "int4-packed"
                    : bits == 8 ? "int8-packed"
                                : "int2-packed",
                    std::make_unique<grid_source>(std::move(layout)));
}

/// GPT-OSS: `X_blocks` [.., rows, blocks, 16] and `X_scales` [.., rows, blocks].
inline found_weight find_mxfp4_blocks(weight_parts& p, const tensor_info& info, std::string_view scale_ending,
                                      bool transposed) {
    p.require_scheme(info);
    p.require_type(info, {dtype::u8});
    const tensor_info& scale = p.need(p.name() + std::string(scale_ending));
    p.require_type(scale, {dtype::u8, dtype::f8_e8m0});
    const std::size_t rank = info.shape.size();
    if (rank < 3 || (transposed && rank != 4) || info.shape.back() != 16)
        fail(errc::shape_mismatch, "expected [experts, rows, blocks, 16], got " + shape_text(info.shape),
             p.where(info));
    p.require_shape(scale, std::span(info.shape).first(rank - 1));
    const std::uint64_t row_blocks = info.shape[rank - 2];
    const std::uint64_t rows = info.shape[rank - 3];
    std::vector<std::uint64_t> shape(info.shape.begin(), info.shape.end() - 2);  // ends in the rows
    shape.push_back(row_blocks * 32);  // at most twice the stored bytes: cannot overflow
    if (transposed) {
        std::swap(shape[rank - 3], shape[rank - 2]);
        auto source = std::make_unique<transposed_mxfp4_source>(p.map(info), p.map(scale), rows, row_blocks);
        return p.finish(std::move(shape), info.type, "mxfp4-blocks", std::move(source));
    }
    grid_layout layout = grid_layout_of(shape, code_format::f4_e2m1, p.take(info), row_blocks * 16);
    layout.grid = {.rows = rows, .columns = row_blocks, .block_rows = 1, .block_columns = 32};
    layout.scales = p.take_scales(scale, {dtype::u8, dtype::f8_e8m0});
    return p.finish(std::move(shape), info.type, "mxfp4-blocks", std::make_unique<grid_source>(std::move(layout)));
}

}  // namespace larql::detail

#endif
