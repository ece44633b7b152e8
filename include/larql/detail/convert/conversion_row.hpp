// SPDX-License-Identifier: Apache-2.0
//
// A conversion as data: rows, each of which says what tensors it makes and how, piece by piece.
#ifndef LARQL_DETAIL_CONVERT_CONVERSION_ROW_HPP
#define LARQL_DETAIL_CONVERT_CONVERSION_ROW_HPP

#include <larql/dtype.hpp>
#include <larql/executor.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace larql::detail {

/// A tensor that a conversion writes.
struct planned_tensor {
    std::string name;
    dtype type = dtype::f32;
    std::vector<std::uint64_t> shape;  ///< row-major; empty for a scalar

    [[nodiscard]] std::uint64_t columns() const noexcept { return shape.empty() ? 1 : shape.back(); }
    [[nodiscard]] std::uint64_t rows() const noexcept {
        std::uint64_t n = 1;
        for (std::size_t i = 0; i + 1 < shape.size(); ++i) n *= shape[i];
        return n;
    }
    /// A row is a whole number of blocks.
    [[nodiscard]] std::uint64_t row_bytes() const noexcept {
        return columns() / traits_of(type).block_elements * traits_of(type).block_bytes;
    }
    [[nodiscard]] std::uint64_t size_bytes() const noexcept { return rows() * row_bytes(); }
};

/// Makes the bytes of a tensor's rows [begin, end). Any number of threads may call it at once.
using row_maker = std::function<void(std::uint64_t begin, std::uint64_t end, std::span<std::byte> out)>;

/// Where products go.
class product_sink {
public:
    product_sink() = default;
    product_sink(const product_sink&) = delete;
    product_sink& operator=(const product_sink&) = delete;
    virtual ~product_sink() = default;

    /// Rows of a tensor from `first` on, as many as `values` has.
    virtual void rows(std::size_t tensor, std::uint64_t first, std::span<const float> values, executor& threads) = 0;
};

/// Makes tensors together that share their work, by the threads it is given.
using product_maker = std::function<void(product_sink&, executor&)>;

/// A unit of a conversion, made as a whole or not at all. It has one tensor and `rows`, or any and `products`.
struct conversion_row {
    std::vector<planned_tensor> tensors;
    row_maker rows{};
    product_maker products{};
    std::uint64_t granule = 1;  ///< pieces begin at multiples of so many rows, where `rows` would do work twice

    [[nodiscard]] std::uint64_t size_bytes() const noexcept {
        std::uint64_t bytes = 0;
        for (const planned_tensor& tensor : tensors) bytes += tensor.size_bytes();
        return bytes;
    }
};

}  // namespace larql::detail

#endif
