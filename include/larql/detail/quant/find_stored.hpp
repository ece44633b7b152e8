// SPDX-License-Identifier: Apache-2.0
//
// Weights under their own name: plain numbers, or codes with scales beside them (FP8, INT8, FP4).
#ifndef LARQL_DETAIL_QUANT_FIND_STORED_HPP
#define LARQL_DETAIL_QUANT_FIND_STORED_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/quant/config.hpp>
#include <larql/detail/quant/grid.hpp>
#include <larql/detail/quant/parts.hpp>
#include <larql/detail/quant/plain.hpp>
#include <larql/detail/quant/shapes.hpp>

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

inline found_weight find_plain(weight_parts& p, const tensor_info& info) {
    const std::uint32_t block = traits_of(info.type).block_elements;
    if (info.columns() % block != 0)
        fail(errc::shape_mismatch, concat({"rows of ", info.columns(), " elements do not fill whole bytes"}),
             p.where(info));
    auto source = std::make_unique<plain_source>(p.take(info), std::vector<float>{}, 1, p.where(info));
    found_weight out = p.finish(info.shape, info.type, "", std::move(source));
    out.raw = &info;
    return out;
}

inline grid_layout grid_layout_of(std::span<const std::uint64_t> shape, code_format format, stored_part codes,
                                  std::uint64_t row_bytes) {
    const matrix_shape matrix = matrix_shape::of(shape);
    grid_layout layout;
    layout.format = format;
    layout.codes = std::move(codes);
    layout.matrix_rows = matrix.rows;
    layout.columns = matrix.columns;
    layout.row_bytes = row_bytes;
    return layout;
}

/// The shape of two codes per byte along the last dimension.
inline std::vector<std::uint64_t> unpacked_f4_shape(weight_parts& p, const tensor_info& info) {
    std::vector<std::uint64_t> shape = info.shape;
    if (shape.size() < 2)
        fail(errc::shape_mismatch, "expected at least 2 dimensions, got " + shape_text(shape), p.where(info));
    if (shape.back() > std::numeric_limits<std::uint64_t>::max() / 2)
        fail(errc::shape_mismatch, concat({"a row of ", shape.back(), " bytes is too long"}), p.where(info));
    shape.back() *= 2;
    return shape;
}

/// NVFP4's second scale: modelopt's multiplies, compressed-tensors' divides.
inline void add_global_scale(weight_parts& p, grid_layout& layout, const matrix_shape& matrix) {
    const tensor_info* second = p.tensor(p.name() + "_scale_2");
    const tensor_info* global = p.tensor(p.name() + "_global_scale");
    if ((second != nullptr) == (global != nullptr)) {
        if (second == nullptr) p.need(p.name() + "_scale_2");
        fail(errc::bad_value, "expected one global scale, got this and " + quoted_name(second->name), p.where(*global));
    }
    const tensor_info& factor = second != nullptr ? *second : *global;
    p.require_type(factor, {dtype::f32, dtype::bf16, dtype::f16});
    const std::uint64_t elements = factor.element_count();
    if (elements != 1 && elements != matrix.count)
        fail(errc::shape_mismatch, concat({"expected 1 or ", matrix.count, " numbers, got ", shape_text(factor.shape)}),
             p.where(factor));
    layout.factors = p.take(factor).read_all();
    layout.divide_by_factor = global != nullptr;
}

/// FP4 codes with a scale per 32 (E8M0: MXFP4) or per 16 (E4M3: NVFP4) columns.
inline found_weight find_scaled_f4(weight_parts& p, const tensor_info& info, const tensor_info* scale,
                                   std::vector<std::uint64_t> shape) {
    if (scale == nullptr) {
        if (p.config().method.empty()) return find_plain(p, info);
        p.refuse_unscaled(info);
    }
    p.require_scheme(info);
    if (shape.empty() || shape.back() % 2 != 0)
        fail(errc::shape_mismatch, "expected an even number of columns, got " + shape_text(shape), p.where(info));
    p.require_type(*scale, {dtype::f8_e8m0, dtype::u8, dtype::f8_e4m3});
    const bool nvfp4 = scale->type == dtype::f8_e4m3;
    grid_layout layout = grid_layout_of(shape, code_format::f4_e2m1, p.take(info), shape.back() / 2);
    std::vector<std::uint64_t> grid = shape;
    grid.back() = ceil_div(shape.back(), nvfp4 ? 16 : 32);
    p.require_shape(*scale, grid);
    layout.grid = {
        .rows = layout.matrix_rows, .columns = grid.back(), .block_rows = 1, .block_columns = nvfp4 ? 16U : 32U};
    layout.scales = p.take_scales(*scale, {dtype::f8_e8m0, dtype::u8, dtype::f8_e4m3});
    if (nvfp4) add_global_scale(p, layout, matrix_shape::of(shape));
    return p.finish(std::move(shape), info.type, nvfp4 ? "nvfp4" : "mxfp4",
                    std::make_unique<grid_source>(std::move(layout)));
}

/// One byte per element: FP8, INT8.
inline found_weight find_scaled_bytes(weight_parts& p, const tensor_info& info, const tensor_info* scale,
                                      code_format format) {
    if (scale == nullptr) {
        if (p.config().method.empty() && format != code_format::int8) return find_plain(p, info);
        p.refuse_unscaled(info);
    }
    p.require_scheme(info);
    grid_layout layout = grid_layout_of(info.shape, format, p.take(info), info.columns());
    layout.grid =
        resolve_scale_grid(info.shape, scale->shape, p.config().blocks, p.config().blocks_only, p.where(*scale));
    layout.scales = format == code_format::int8
                        ? p.take_scales(*scale, {dtype::f32, dtype::bf16, dtype::f16})
                        : p.take_scales(*scale, {dtype::f32, dtype::bf16, dtype::f16, dtype::f8_e8m0, dtype::u8});
    if (const tensor_info* zero = p.tensor(p.name() + "_zero_point")) {
        p.require_type(*zero, {dtype::i8, info.type, dtype::f32, dtype::bf16, dtype::f16});
        p.require_shape(*zero, scale->shape);
        layout.zeros = p.take(*zero);
    }
    const bool single = layout.grid.block_columns >= info.columns();
    const std::string_view scheme = format == code_format::int8 ? (single ? "int8" : "int8-group")
                                    : single                    ? "fp8"
                                                                : "fp8-block";
    return p.finish(info.shape, info.type, scheme, std::make_unique<grid_source>(std::move(layout)));
}

inline std::optional<found_weight> find_int8(weight_parts& p, const tensor_info& info, const tensor_info* scale) {
    if (scale != nullptr && (scale->type == dtype::f8_e8m0 || scale->type == dtype::u8))
        return find_scaled_f4(p, info, scale, unpacked_f4_shape(p, info));  // DeepSeek-V4: two E2M1 codes per byte
    if (scale == nullptr && p.module().empty()) return find_plain(p, info);
    if (scale == nullptr && p.config().method.empty()) {
        p.refuse_foreign();
        return find_plain(p, info);
    }
    return find_scaled_bytes(p, info, scale, code_format::int8);
}

inline std::optional<found_weight> find_uint8(weight_parts& p, const tensor_info& info, const tensor_info* scale) {
    if (scale != nullptr) return find_scaled_f4(p, info, scale, unpacked_f4_shape(p, info));
    if (!p.module().empty()) {
        p.refuse_foreign();
        if (!p.config().method.empty()) {
            p.refuse_unscaled(info);
        }
    }
    return find_plain(p, info);
}

inline const tensor_info* find_scale(weight_parts& p) {
    const tensor_info* found = nullptr;
    const bool module = !p.module().empty();
    for (const std::string& name : {p.name() + "_scale_inv", p.name() + "_scale", module ? p.module() + ".scale" : "",
                                    module ? p.module() + ".qscale_weight" : ""}) {
        const tensor_info* info = name.empty() ? nullptr : p.tensor(name);
        if (info == nullptr) continue;
        if (found != nullptr)
            fail(errc::bad_value, "expected one scale tensor, got this and " + quoted_name(found->name),
                 p.where(*info));
        found = info;
    }
    return found;
}

inline std::optional<found_weight> find_stored(weight_parts& p, const tensor_info& info) {
    if (p.is_part()) return find_plain(p, info);
    const tensor_info* scale = find_scale(p);
    switch (info.type) {
        case dtype::f64:
        case dtype::f32:
        case dtype::f16:
        case dtype::bf16:
            // compressed-tensors keeps the scales of weights that it stores dense; other schemes have none.
            if (scale != nullptr && p.config().method != "compressed-tensors" && scale->name.ends_with("_scale_inv"))
                fail(errc::unsupported_dtype,
                     "a scale beside a weight that is stored as " + std::string(to_string(info.type)) +
                         ": no scheme that larql reads scales it",
                     p.where(*scale));
            return find_plain(p, info);
        case dtype::f8_e4m3: return find_scaled_bytes(p, info, scale, code_format::f8_e4m3);
        case dtype::f8_e5m2: return find_scaled_bytes(p, info, scale, code_format::f8_e5m2);
        case dtype::f4_e2m1: return find_scaled_f4(p, info, scale, info.shape);
        case dtype::i8: return find_int8(p, info, scale);
        case dtype::u8: return find_uint8(p, info, scale);
        default:
            if (!p.module().empty() && (scale != nullptr || !p.config().method.empty())) p.refuse_unscaled(info);
            return find_plain(p, info);
    }
}

}  // namespace larql::detail

#endif
