// SPDX-License-Identifier: Apache-2.0
//
// From the shape of a scale tensor to the block of elements that each scale covers. Never guessed: a shape that fits
// nothing, or two things, is refused.
#ifndef LARQL_DETAIL_QUANT_SHAPES_HPP
#define LARQL_DETAIL_QUANT_SHAPES_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/quant/config.hpp>
#include <larql/detail/quant/grid.hpp>
#include <larql/detail/quant/source.hpp>

#include <limits>
#include <optional>

namespace larql::detail {

/// A weight seen as matrices: all dimensions but the last two are folded into `count`.
struct matrix_shape {
    std::uint64_t count = 1;
    std::uint64_t rows = 1;
    std::uint64_t columns = 1;

    static matrix_shape of(std::span<const std::uint64_t> shape) {
        matrix_shape out;
        if (!shape.empty()) out.columns = shape.back();
        if (shape.size() > 1) out.rows = shape[shape.size() - 2];
        for (std::size_t i = 0; i + 2 < shape.size(); ++i) out.count *= shape[i];
        return out;
    }
};

/// The one block length for which `extent` elements make `count` blocks, ceil-divided; nothing if several do.
/// A single block is as long as the extent: longer ones decode alike.
inline std::optional<std::uint64_t> only_block_length(std::uint64_t extent, std::uint64_t count) {
    if (count == 1) return extent;
    if (count == 0 || count > extent) return std::nullopt;
    const std::uint64_t shortest = ceil_div(extent, count);
    const std::uint64_t longest = ceil_div(extent, count - 1) - 1;
    return shortest == longest ? std::optional(shortest) : std::nullopt;
}

inline bool block_fits(const matrix_shape& weight, const quantization_config::block_size& block,
                       std::uint64_t grid_rows, std::uint64_t grid_columns) {
    return ceil_div(weight.rows, block.rows) == grid_rows && ceil_div(weight.columns, block.columns) == grid_columns;
}

inline std::string blocks_text(std::span<const quantization_config::block_size> blocks) {
    std::string text;
    for (const auto& block : blocks) text += concat({(text.empty() ? "" : " or "), block.rows, " x ", block.columns});
    return text;
}

/// A scale tensor's shape with its matrices, rows and columns told apart.
struct scale_shape {
    std::uint64_t count = 1;  ///< grids; 1 also when all matrices share one
    std::uint64_t rows = 1;
    std::uint64_t columns = 1;
};

/// Splits the shape of the scales of a weight: [...matrices, rows, columns] in full, [...matrices, rows] by row,
/// [...matrices] by matrix (more than one), or a single number. Nothing if none of these.
inline std::optional<scale_shape> split_scale_shape(std::span<const std::uint64_t> weight,
                                                    std::span<const std::uint64_t> scale) {
    std::uint64_t elements = 1;
    for (const std::uint64_t n : scale) elements *= n;
    if (elements == 1) return scale_shape{};
    const std::size_t leading = weight.size() < 2 ? 0 : weight.size() - 2;
    if (scale.size() < leading || scale.size() > leading + 2) return std::nullopt;
    scale_shape out;
    for (std::size_t i = 0; i < leading; ++i) {
        if (scale[i] != weight[i]) return std::nullopt;
        out.count *= scale[i];
    }
    if (scale.size() > leading) out.rows = scale[leading];
    if (scale.size() > leading + 1) out.columns = scale[leading + 1];
    return out;
}

/// Finds which elements each scale of a weight covers.
///
/// @param blocks  block sizes that the configuration allows; the one that explains the grid is taken
/// @param strict  only `blocks` will do: a scale per row or tensor is refused
/// @throws error shape_mismatch with both shapes, missing_key when only the configuration could tell, bad_value when
///         two block sizes of the configuration explain the grid differently
inline scale_grid resolve_scale_grid(std::span<const std::uint64_t> weight, std::span<const std::uint64_t> scale,
                                     std::span<const quantization_config::block_size> blocks, bool strict,
                                     const error_where& where) {
    const matrix_shape matrix = matrix_shape::of(weight);
    const auto mismatch = [&](const std::string& wanted) {
        fail(errc::shape_mismatch,
             "scales " + shape_text(scale) + " do not fit the weight " + shape_text(weight) + ": expected " + wanted,
             where);
    };
    const auto split = split_scale_shape(weight, scale);
    if (!split) mismatch("the weight's leading dimensions and at most two more");
    scale_grid grid{.rows = split->rows, .columns = split->columns, .shared = split->count != matrix.count};

    // Lengths beyond the extent decode alike, so they count as one.
    const auto whole = [](std::uint64_t extent) { return std::max<std::uint64_t>(extent, 1); };
    std::optional<quantization_config::block_size> found;
    for (quantization_config::block_size block : blocks) {
        if (!block_fits(matrix, block, grid.rows, grid.columns)) continue;
        if (grid.rows == 1) block.rows = whole(matrix.rows);
        if (grid.columns == 1) block.columns = whole(matrix.columns);
        if (found && *found != block)
            fail(errc::bad_value,
                 "scales " + shape_text(scale) + " fit blocks of " + blocks_text(blocks) +
                     " alike: expected one size to fit",
                 where);
        found = block;
    }
    const bool simple = grid.columns == 1 && (grid.rows == 1 || grid.rows == matrix.rows);
    if (!found && simple && !strict)
        found = quantization_config::block_size{grid.rows == 1 ? whole(matrix.rows) : 1, whole(matrix.columns)};
    if (!found && (strict || !blocks.empty())) mismatch("blocks of " + blocks_text(blocks));
    if (!found) {
        const auto rows = only_block_length(matrix.rows, grid.rows);
        const auto columns = only_block_length(matrix.columns, grid.columns);
        if (grid.rows > matrix.rows || grid.columns > matrix.columns || grid.rows == 0 || grid.columns == 0)
            mismatch("at most one scale per element");
        if (!rows || !columns)
            fail(errc::missing_key,
                 "scales " + shape_text(scale) + " of the weight " + shape_text(weight) +
                     " fit several block sizes: expected weight_block_size in quantization_config",
                 where);
        found = quantization_config::block_size{*rows, *columns};
    }
    grid.block_rows = found->rows;
    grid.block_columns = found->columns;
    return grid;
}

}  // namespace larql::detail

#endif
