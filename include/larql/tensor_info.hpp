// SPDX-License-Identifier: Apache-2.0
//
// What a checkpoint file says about one tensor, whatever the format of the file.
#ifndef LARQL_TENSOR_INFO_HPP
#define LARQL_TENSOR_INFO_HPP

#include <larql/dtype.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace larql {

/// A tensor of an open checkpoint. `name` points into the checkpoint that handed it out and lives as long.
struct tensor_info {
    std::string_view name;
    std::vector<std::uint64_t> shape;  ///< row-major, outermost dimension first; empty for a scalar
    dtype type = dtype::f32;
    std::uint32_t shard = 0;   ///< index of the file in the checkpoint
    std::uint64_t offset = 0;  ///< bytes from the start of that file
    std::uint64_t size_bytes = 0;

    /// Product of the shape; the readers have checked that it does not overflow.
    [[nodiscard]] std::uint64_t element_count() const noexcept {
        std::uint64_t n = 1;
        for (const std::uint64_t extent : shape) n *= extent;
        return n;
    }
    /// Length of a row: the innermost dimension, 1 for a scalar.
    [[nodiscard]] std::uint64_t columns() const noexcept { return shape.empty() ? 1 : shape.back(); }
    /// Number of rows: all dimensions but the innermost, multiplied.
    [[nodiscard]] std::uint64_t rows() const noexcept {
        std::uint64_t n = 1;
        for (std::size_t i = 0; i + 1 < shape.size(); ++i) n *= shape[i];
        return n;
    }
};

}  // namespace larql

#endif
