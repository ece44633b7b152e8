// SPDX-License-Identifier: Apache-2.0
//
// A weight as it stands in memory, in the type in which a checkpoint stores it.
#ifndef LARQL_DETAIL_GEMM_STORED_MATRIX_HPP
#define LARQL_DETAIL_GEMM_STORED_MATRIX_HPP

#include <larql/detail/ggml/unpacked.hpp>
#include <larql/dtype.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace larql::detail {

/// How the products of few rows read a stored row.
enum class row_kind : std::uint8_t {
    f32,
    f16,
    bf16,
    f8_e4m3,
    q8_0,
    nibbles,  ///< Q4_0 and IQ4_NL: blocks of an f16 scale and 32 codes of four bits, with a table of their values
    q4_k,
    blocks,  ///< all of ggml's formats, by way of block_unpacker
};
inline constexpr std::size_t number_kinds = 4;                               // numbers by themselves
inline constexpr std::size_t direct_kinds = 8;                               // those that are not unpacked first
inline constexpr std::size_t sizes_of_numbers[number_kinds] = {4, 2, 2, 1};  // bytes

/// Factors beside the numbers of a matrix: element [r, c] is multiplied by scales[r / block_rows * stride +
/// c / block_columns].
struct stored_scales {
    const float* data = nullptr;  ///< null: none
    std::size_t stride = 0;
    std::size_t block_rows = 1;
    std::size_t block_columns = 1;  ///< a multiple of 16, or all columns; of blocks: all columns
};

/// The rows of a matrix in memory that somebody else owns. `data` is null where a matrix is not stored so.
struct stored_matrix {
    const std::byte* data = nullptr;  ///< row r is at data + r * row_bytes, of any alignment
    std::size_t row_bytes = 0;
    row_kind kind = row_kind::f32;
    const block_unpacker* blocks = nullptr;  ///< of blocks of any kind
    const std::int8_t* table = nullptr;      ///< of row_kind::nibbles and q4_k: 16 values
    stored_scales scales{};
    std::size_t first_row = 0;  ///< of `data` among the rows that the scales count

    /// The same matrix from row `row` on.
    [[nodiscard]] stored_matrix from_row(std::size_t row) const noexcept {
        stored_matrix part = *this;
        if (data != nullptr) part.data += row * row_bytes;
        part.first_row += row;
        return part;
    }
    [[nodiscard]] const std::byte* row(std::size_t r) const noexcept { return data + r * row_bytes; }
    /// The factors of a row, or null.
    [[nodiscard]] const float* scales_of(std::size_t r) const noexcept {
        return scales.data == nullptr ? nullptr : scales.data + (first_row + r) / scales.block_rows * scales.stride;
    }
};

/// The kind of rows of T in memory.
template <class T>
inline constexpr bool is_number_kind = std::is_same_v<T, float> || std::is_same_v<T, f16> || std::is_same_v<T, bf16>;
template <class T>
constexpr row_kind number_kind() noexcept {
    static_assert(is_number_kind<T>);
    return std::is_same_v<T, float> ? row_kind::f32 : std::is_same_v<T, f16> ? row_kind::f16 : row_kind::bf16;
}

}  // namespace larql::detail

#endif
