// SPDX-License-Identifier: Apache-2.0
#ifndef LARQL_TESTS_SUPPORT_Q8_0_ROWS_HPP
#define LARQL_TESTS_SUPPORT_Q8_0_ROWS_HPP

#include <larql/detail/xtensor.hpp>
#include <larql/dtype.hpp>
#include <larql/ggml_blocks.hpp>
#include <larql/rows_view.hpp>

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace larql::testing {

/// Rows of blocks [S, G, D / 32], and the numbers [S, G, D] that they stand for by ggml's decoding.
struct q8_0_rows {
    tensor<float, 3> numbers;
    std::vector<q8_0_block> blocks;

    /// @param floats  what the blocks are made of
    explicit q8_0_rows(tensor<float, 3> floats) : numbers(std::move(floats)), blocks(numbers.size() / 32) {
        const auto bytes = std::as_writable_bytes(std::span(blocks));
        quantize(dtype::q8_0, {numbers.data(), numbers.size()}, bytes);
        dequantize(dtype::q8_0, bytes, {numbers.data(), numbers.size()});
    }

    /// Blocks of a token.
    [[nodiscard]] std::size_t width() const { return numbers.shape(1) * numbers.shape(2) / 32; }

    /// The first columns of each row.
    [[nodiscard]] rows_view<const q8_0_block> view(std::size_t columns) const {
        return {.data = blocks.data(),
                .tokens = numbers.shape(0),
                .heads = numbers.shape(1),
                .size = columns,
                .token_stride = static_cast<std::ptrdiff_t>(width()),
                .head_stride = static_cast<std::ptrdiff_t>(numbers.shape(2) / 32)};
    }
    [[nodiscard]] rows_view<const q8_0_block> view() const { return view(numbers.shape(2)); }
};

}  // namespace larql::testing

#endif
