// SPDX-License-Identifier: Apache-2.0
//
// The innermost loops of products with few rows of activations, compiled once for every level of vector code: rows of a
// weight are read in their stored type, become floats in registers, and meet the activations of several tokens there.
#ifndef LARQL_DETAIL_GEMM_FEW_KERNELS_HPP
#define LARQL_DETAIL_GEMM_FEW_KERNELS_HPP

#include <larql/detail/cpu.hpp>
#include <larql/detail/gemm/stored_matrix.hpp>
#include <larql/detail/ggml/unpacked.hpp>
#include <larql/detail/ggml/vectors.hpp>
#include <larql/detail/simd.hpp>
#include <larql/dtype.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

namespace larql::detail {

/// Rows of a weight that a kernel works on at once.
inline constexpr std::size_t rows_at_once = 4;

/// Activations of some tokens, which the kernel's type counts: those of token t are at data + t * stride.
struct token_rows {
    const float* data;
    std::size_t stride;
};

/// Stored rows of numbers. The row's factors follow each other, one for each `segment` columns; null: none.
struct number_rows {
    const std::byte* row[rows_at_once];
    const float* scales[rows_at_once];
    std::size_t columns;
    std::size_t segment;
    const std::int8_t* table;  ///< of row_kind::nibbles and q4_k: what each code of four bits stands for
};

/// sums[t][r] = sum over c of row r's number c times token t's.
using dot_numbers_kernel = void (*)(const number_rows& w, const token_rows& x, float (*sums)[rows_at_once]);

/// Unpacked vectors of some rows; see block_parts.
struct unpacked_rows {
    lanes q[rows_at_once][unpacked_vectors];
    float scale[rows_at_once][unpacked_vectors];
    float offset[rows_at_once][unpacked_vectors];
    const std::int8_t* table;
    std::size_t count;  ///< vectors of each row
};

/// A row's sum with a token's activations, while it is made: as many lanes as the level has.
struct alignas(64) partial_sum {
    float lane[16];
};

/// sums[t][r] += sum over the lanes of row r's numbers times token t's.
using dot_unpacked_kernel = void (*)(const unpacked_rows& w, const token_rows& x, partial_sum (*sums)[rows_at_once]);

/// out[c] = (add ? out[c] : 0) + sum over r < count of factors[r] * number c of row r, for c < columns. Rows lie
/// `row_bytes` apart.
using add_numbers_kernel = void (*)(const std::byte* rows, std::size_t row_bytes, std::size_t count,
                                    std::size_t columns, const float* factors, bool add, float* out);

/// Kernels for 1, 2 and 4 tokens at once.
inline constexpr std::size_t token_groups = 3;
inline constexpr std::size_t tokens_of_group[token_groups] = {1, 2, 4};

/// The code of one level.
struct few_kernels {
    dot_numbers_kernel numbers[direct_kinds][token_groups];  ///< by row_kind; all null: unpack it
    dot_unpacked_kernel unpacked[3][token_groups];           ///< by block_scaling; null: too few registers
    /// totals[r] = the sum of the lanes of sums[r]
    void (*fold)(const partial_sum* sums, float* totals);
    /// Rows as steps of a sum, by row_kind.
    add_numbers_kernel add[number_kinds];
};

/// The bits of an E4M3 number.
struct e4m3_bits {
    std::uint8_t bits;
};

}  // namespace larql::detail

#define LARQL_SIMD_BODY <larql/detail/gemm/few_body.hpp>
#include <larql/detail/simd_levels.hpp>

namespace larql::detail {

inline const few_kernels& choose_few_kernels(simd_level level) noexcept {
#if LARQL_X86_DISPATCH
    if (level == simd_level::avx512) return simd_avx512::few::kernels;
    if (level == simd_level::avx2) return simd_avx2::few::kernels;
#endif
    (void)level;
    return simd_portable::few::kernels;
}

}  // namespace larql::detail

#endif
