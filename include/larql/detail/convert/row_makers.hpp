// SPDX-License-Identifier: Apache-2.0
//
// How rows of a conversion come about: stored bytes as they are, numbers in another type.
#ifndef LARQL_DETAIL_CONVERT_ROW_MAKERS_HPP
#define LARQL_DETAIL_CONVERT_ROW_MAKERS_HPP

#include <larql/checkpoint.hpp>
#include <larql/detail/convert/conversion_row.hpp>
#include <larql/error.hpp>
#include <larql/ggml_blocks.hpp>
#include <larql/matrix_input.hpp>
#include <larql/weight_reader.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace larql::detail {

/// Memory of this thread for one purpose, of the wanted size at least; what it held is lost. Pieces are megabytes,
/// which the system would hand out page by page, zeroed, each time anew.
template <class T, int Purpose>
std::span<T> thread_scratch(std::size_t size) {
    static thread_local std::vector<T> kept;
    if (kept.size() < size) kept.resize(size);
    return {kept.data(), size};
}

/// Fills `out` with a stored tensor's bytes from `first` on, by ordinary reads. Keeps the file open by itself.
using tensor_bytes = std::function<void(std::uint64_t first, std::span<std::byte> out)>;

inline tensor_bytes bytes_of(const checkpoint& source, const tensor_info& info) {
    if (const auto file = source.gguf())
        return [file, &info](std::uint64_t first, std::span<std::byte> out) { file->read_bytes(info, first, out); };
    return [file = source.safetensors(), &info](std::uint64_t first, std::span<std::byte> out) {
        file->read_bytes(info, first, out);
    };
}

/// Numbers as bytes of a type.
/// @throws error errc::bad_value if one is beyond the type's range
inline void encode_numbers(dtype type, std::span<const float> values, std::span<std::byte> out,
                           const std::string& name) {
    const quantize_report report = quantize(type, values, out);
    if (report.overflowed != 0)
        fail(errc::bad_value,
             concat(
                 {report.overflowed, " numbers are beyond the range of ", to_string(type), "; BF16 and F32 hold them"}),
             {.subject = name});
}

/// A stored tensor's rows, byte for byte.
/// @param first  the stored row that is row 0
inline row_maker copied_rows(const checkpoint& source, const tensor_info& info, std::uint64_t first = 0) {
    const std::uint64_t row_bytes = info.rows() == 0 ? 0 : info.size_bytes / info.rows();
    return [read = bytes_of(source, info), row_bytes, first](std::uint64_t begin, std::uint64_t,
                                                             std::span<std::byte> out) {
        if (!out.empty()) read((first + begin) * row_bytes, out);
    };
}

/// The same with the rows of every run of order.size() in another order.
inline row_maker reordered_rows(row_maker rows, std::uint64_t row_bytes, std::vector<std::size_t> order) {
    return [rows = std::move(rows), row_bytes, order = std::move(order)](std::uint64_t begin, std::uint64_t end,
                                                                         std::span<std::byte> out) {
        const std::uint64_t run = order.size(), first = begin / run * run, last = (end + run - 1) / run * run;
        const auto whole = thread_scratch<std::byte, 0>(static_cast<std::size_t>((last - first) * row_bytes));
        rows(first, last, whole);
        for (std::uint64_t r = begin; r < end; ++r) {
            const std::uint64_t from = r / run * run + order[static_cast<std::size_t>(r % run)] - first;
            std::memcpy(out.data() + (r - begin) * row_bytes, whole.data() + from * row_bytes,
                        static_cast<std::size_t>(row_bytes));
        }
    };
}

/// Rows of a matrix in a type.
inline row_maker encoded_rows(matrix_input<float> from, dtype type, std::string name) {
    return [from = std::move(from), type, name = std::move(name)](std::uint64_t begin, std::uint64_t end,
                                                                  std::span<std::byte> out) {
        const auto values = thread_scratch<float, 0>(static_cast<std::size_t>(end - begin) * from.cols());
        from.read_rows(static_cast<std::size_t>(begin), static_cast<std::size_t>(end), values.data(), from.cols());
        encode_numbers(type, values, out, name);
    };
}

/// Rows [begin, end) of a weight as numbers.
inline matrix_input<float> numbers_of(const weight& stored, std::uint64_t begin, std::uint64_t end) {
    return matrix_input<float>(static_cast<std::size_t>(end - begin), static_cast<std::size_t>(stored.columns()),
                               [stored, begin](std::size_t b, std::size_t e, float* out, std::size_t stride) {
                                   stored.read_rows(begin + b, begin + e, out, stride);
                               });
}
inline matrix_input<float> numbers_of(const weight& stored) { return numbers_of(stored, 0, stored.rows()); }

/// Matrices of equal width below each other.
inline matrix_input<float> stacked(std::vector<matrix_input<float>> parts) {
    std::size_t rows = 0;
    for (const matrix_input<float>& part : parts) rows += part.rows();
    const std::size_t cols = parts.front().cols();
    return matrix_input<float>(
        rows, cols, [parts = std::move(parts)](std::size_t begin, std::size_t end, float* out, std::size_t stride) {
            std::size_t first = 0;
            for (const matrix_input<float>& part : parts) {
                const std::size_t b = std::max(begin, first);
                const std::size_t e = std::min(end, first + part.rows());
                if (b < e) part.read_rows(b - first, e - first, out + (b - begin) * stride, stride);
                first += part.rows();
            }
        });
}

/// Few numbers (gains, biases, routers) that are in memory.
inline conversion_row small_row(std::string name, dtype type, std::vector<std::uint64_t> shape,
                                std::vector<float> values) {
    std::vector<std::byte> bytes(values.size() * traits_of(type).block_bytes);
    encode_numbers(type, values, bytes, name);
    planned_tensor tensor{std::move(name), type, std::move(shape)};
    const std::uint64_t row_bytes = tensor.row_bytes();
    return {
        .tensors = {std::move(tensor)},
        .rows = [bytes = std::move(bytes), row_bytes](std::uint64_t begin, std::uint64_t, std::span<std::byte> out) {
            std::ranges::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(begin * row_bytes),
                                static_cast<std::ptrdiff_t>(out.size()), out.begin());
        }};
}

/// A stored tensor byte for byte.
inline conversion_row copy_row(const checkpoint& source, std::string name, const tensor_info& info) {
    return {.tensors = {{std::move(name), info.type, info.shape}}, .rows = copied_rows(source, info)};
}

}  // namespace larql::detail

#endif
