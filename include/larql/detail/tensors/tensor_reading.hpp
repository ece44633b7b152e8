// SPDX-License-Identifier: Apache-2.0
//
// Stored tensors as numbers in the caller's memory, for every file format. Ordinary reads in small pieces: no more of
// the file is touched than was asked for, and a file that shrinks meanwhile is an error, not a signal.
#ifndef LARQL_DETAIL_TENSORS_TENSOR_READING_HPP
#define LARQL_DETAIL_TENSORS_TENSOR_READING_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/io/byte_reader.hpp>
#include <larql/detail/io/input_file.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/error.hpp>
#include <larql/ggml_blocks.hpp>
#include <larql/tensor_info.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace larql::detail {

inline constexpr std::size_t read_piece_bytes = std::size_t{1} << 17;  // stays in the second-level cache

inline error_where place_of(const tensor_info& info, const std::string& file) {
    return {.file = file, .offset = info.offset, .subject = std::string(info.name)};
}

/// Reads out.size() stored bytes, from byte `first` of the tensor on.
inline void read_tensor_bytes(const input_file& source, const tensor_info& info, const std::string& file,
                              std::uint64_t first, std::span<std::byte> out) {
    if (first > info.size_bytes || out.size() > info.size_bytes - first)
        fail(errc::bad_value,
             concat({"read beyond the tensor: expected at most ", info.size_bytes, " bytes, got ", first, " + ",
                     out.size()}),
             place_of(info, file));
    source.read_at(info.offset + first, out);
}

/// Calls `use(piece, first element of the piece, elements)` for the elements [first, last) of a tensor, in order. Both
/// ends are on block boundaries.
template <class Use>
void for_each_piece(const input_file& source, const tensor_info& info, std::uint64_t first, std::uint64_t last,
                    const Use& use) {
    const dtype_traits& traits = traits_of(info.type);
    const std::uint64_t step = read_piece_bytes / traits.block_bytes * traits.block_elements;
    std::vector<std::byte> buffer;
    while (first < last) {
        const std::uint64_t count = std::min(step, last - first);
        const std::uint64_t bytes = count / traits.block_elements * traits.block_bytes;
        buffer.resize(static_cast<std::size_t>(bytes));
        source.read_at(info.offset + first / traits.block_elements * traits.block_bytes, buffer);
        use(std::span<const std::byte>(buffer), first, static_cast<std::size_t>(count));
        first += count;
    }
}

/// Rows [row_begin, row_end) as float, row r at out + (r - row_begin) * stride.
inline void read_tensor_rows(const input_file& source, const tensor_info& info, const std::string& file,
                             std::uint64_t row_begin, std::uint64_t row_end, float* out, std::size_t stride) {
    const dtype_traits& traits = traits_of(info.type);
    if (traits.kind == dtype_kind::integer)
        fail(errc::unsupported_dtype,
             "expected numbers to read as float, got integers of type " + std::string(traits.name) +
                 ", which are read with read_integers only",
             place_of(info, file));
    if (row_begin > row_end || row_end > info.rows())
        fail(errc::bad_value,
             concat(
                 {"rows out of range: expected rows within 0 to ", info.rows(), ", got ", row_begin, " to ", row_end}),
             place_of(info, file));
    const std::uint64_t first = row_begin * info.columns();
    const std::uint64_t last = row_end * info.columns();
    if (first % traits.block_elements != 0 || last % traits.block_elements != 0)
        fail(errc::shape_mismatch,
             concat({"rows that do not begin and end on bytes: expected a multiple of ", traits.block_elements,
                     " elements of ", traits.name, ", got ", first, " to ", last}),
             place_of(info, file));
    if (stride == info.columns()) {  // as if it were one row
        if (info.type == dtype::f32)
            return source.read_at(info.offset + first * sizeof(float),
                                  std::as_writable_bytes(std::span(out, static_cast<std::size_t>(last - first))));
        return for_each_piece(source, info, first, last,
                              [&](std::span<const std::byte> piece, std::uint64_t at, std::size_t count) {
                                  dequantize(info.type, piece, std::span<float>(out + (at - first), count));
                              });
    }
    if (info.columns() % traits.block_elements != 0)
        fail(errc::shape_mismatch,
             concat({"rows that do not begin and end on bytes: expected a multiple of ", traits.block_elements,
                     " elements of ", traits.name, ", got ", info.columns()}),
             place_of(info, file));
    for_each_piece(
        source, info, first, last, [&](std::span<const std::byte> piece, std::uint64_t at, std::size_t count) {
            while (count != 0) {  // up to the end of a row, or of the piece
                const std::uint64_t row = at / info.columns(), column = at % info.columns();
                const auto run = static_cast<std::size_t>(std::min<std::uint64_t>(count, info.columns() - column));
                const std::size_t bytes = run / traits.block_elements * traits.block_bytes;
                float* const to = out + static_cast<std::size_t>(row - row_begin) * stride + column;
                dequantize(info.type, piece.first(bytes), std::span<float>(to, run));
                piece = piece.subspan(bytes);
                at += run;
                count -= run;
            }
        });
}

/// The tensor's shape for a container of rank `Rank`.
template <std::size_t Rank>
std::array<std::size_t, Rank> fixed_shape(const tensor_info& info, const std::string& file) {
    if (info.shape.size() != Rank)
        fail(errc::shape_mismatch, concat({"expected ", Rank, " dimensions, got ", info.shape.size()}),
             place_of(info, file));
    std::array<std::size_t, Rank> out{};
    for (std::size_t i = 0; i < Rank; ++i) out[i] = static_cast<std::size_t>(info.shape[i]);
    return out;
}

/// All of a tensor as float.
template <std::size_t Rank>
tensor<float, Rank> read_tensor(const input_file& source, const tensor_info& info, const std::string& file) {
    auto out = tensor<float, Rank>::from_shape(fixed_shape<Rank>(info, file));
    read_tensor_rows(source, info, file, 0, info.rows(), out.data(), static_cast<std::size_t>(info.columns()));
    return out;
}

/// Integers of the stored type `From`, each checked to fit T.
template <class From, class T>
void convert_checked(std::span<const std::byte> piece, T* out, const tensor_info& info, const std::string& file) {
    for (std::size_t i = 0; i < piece.size() / sizeof(From); ++i) {
        const From value = load_little_endian<From>(piece.data() + i * sizeof(From));
        if (!std::in_range<T>(value))
            fail(errc::bad_value,
                 concat({"integer out of range: expected ", std::numeric_limits<T>::min(), " to ",
                         std::numeric_limits<T>::max(), ", got ", value}),
                 place_of(info, file));
        out[i] = static_cast<T>(value);
    }
}

template <class T>
void convert_integers_checked(std::span<const std::byte> piece, T* out, const tensor_info& info,
                              const std::string& file) {
    switch (info.type) {
        case dtype::i8: return convert_checked<std::int8_t>(piece, out, info, file);
        case dtype::i16: return convert_checked<std::int16_t>(piece, out, info, file);
        case dtype::i32: return convert_checked<std::int32_t>(piece, out, info, file);
        case dtype::i64: return convert_checked<std::int64_t>(piece, out, info, file);
        case dtype::u8:
        case dtype::boolean: return convert_checked<std::uint8_t>(piece, out, info, file);
        case dtype::u16: return convert_checked<std::uint16_t>(piece, out, info, file);
        case dtype::u32: return convert_checked<std::uint32_t>(piece, out, info, file);
        case dtype::u64: return convert_checked<std::uint64_t>(piece, out, info, file);
        default:
            fail(errc::unsupported_dtype, "expected integers, got type " + std::string(to_string(info.type)),
                 place_of(info, file));
    }
}

/// All of a tensor of integers.
template <class T, std::size_t Rank>
tensor<T, Rank> read_integer_tensor(const input_file& source, const tensor_info& info, const std::string& file) {
    static_assert(std::is_integral_v<T> && !std::is_same_v<T, bool>);
    auto out = tensor<T, Rank>::from_shape(fixed_shape<Rank>(info, file));
    if (traits_of(info.type).kind != dtype_kind::integer) convert_integers_checked<T>({}, out.data(), info, file);
    for_each_piece(source, info, 0, info.element_count(),
                   [&](std::span<const std::byte> piece, std::uint64_t at, std::size_t) {
                       convert_integers_checked<T>(piece, out.data() + at, info, file);
                   });
    return out;
}

}  // namespace larql::detail

#endif
