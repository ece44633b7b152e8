// SPDX-License-Identifier: Apache-2.0
//
// The vector code of attention, compiled once for every level, and the choice among them at run time. Only these
// functions exist per level, and only those of storage_kernels per storage type: what calls them, and when, is
// attention/wide.hpp and attention/narrow.hpp, once.
#ifndef LARQL_DETAIL_ATTENTION_KERNELS_HPP
#define LARQL_DETAIL_ATTENTION_KERNELS_HPP

#include <larql/detail/attention/plan.hpp>
#include <larql/detail/attention/problem.hpp>
#include <larql/detail/attention/stored_element.hpp>
#include <larql/detail/simd.hpp>
#include <larql/dtype.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

namespace larql::detail {

/// Rows of keys or values that lie `stride` bytes apart.
struct row_block {
    const std::byte* data;
    std::ptrdiff_t stride;
    std::size_t rows;
};

/// Keys or values of some tokens of some heads. Strides in bytes.
struct stored_heads {
    const std::byte* data;
    std::ptrdiff_t token_stride;
    std::ptrdiff_t head_stride;
    std::size_t tokens;
    std::size_t heads;
};

/// Scores of keys against the query rows of each head, q[head][row][depth], as scores[token][width], in which row r of
/// head h is column h * Rows + r. Written up to a whole tile of tokens, at most as many as lanes.
using score_few_kernel = void (*)(const stored_heads& keys, const float* q, std::size_t depth, float* scores,
                                  std::size_t width);

/// out[head][row][.] += sum over tokens of weights[token][width] * values, columns as above.
using add_few_kernel = void (*)(const stored_heads& values, std::size_t columns, const float* weights,
                                std::size_t width, float* out);

/// The code of one level for one storage type.
struct storage_kernels {
    /// Copies rows into floats; columns up to a whole vector become zero.
    void (*convert)(const row_block& rows, std::size_t columns, float* to, std::size_t to_stride);
    score_few_kernel score[few_rows_count];  // for so many query rows as few_rows says, null beyond narrow_rows
    add_few_kernel add[few_rows_count];
};

/// The code of one level that sees floats only. Panels have one or two vectors of query rows, `width`.
struct level_kernels {
    attention_tile tile;
    std::size_t score_keys;  // score_panel takes keys in such steps
    std::size_t value_rows;  // add_values takes rows in such steps

    /// scores[key][.] = sum over d of keys[key][d] * q[d][.]; `count` is a multiple of score_keys.
    void (*score_panel)(const float* keys, std::size_t key_stride, std::size_t count, const float* q, std::size_t depth,
                        std::size_t width, float* scores);
    /// Soft cap of n scores, in place; they come divided by the cap and leave in powers of two.
    void (*cap_scores)(float* scores, std::size_t n, float cap);
    // Scores lie as [keys][width]. The width is a multiple of the lanes, or a power of two below them: then keys that
    // follow each other share a vector, and scores are read and written up to a whole vector.

    /// Scores of keys that a row does not see become -infinity. seen[r] is absolute; scores start at key `first`.
    void (*mask_scores)(float* scores, const key_range* seen, std::size_t first, std::size_t keys, std::size_t width);
    /// Scores become weights relative to each row's new maximum; `keep` gets the factor for what was relative to the
    /// old one. Rows' maxima, sums and factors are read and written up to a whole vector.
    void (*weigh_scores)(float* scores, std::size_t keys, std::size_t width, float* maximum, float* sum, float* keep);
    /// out[r][.] = out[r][.] * keep[r] + sum over j of weights[j * width + r] * values[j][.], for `rows` rows: a
    /// multiple of value_rows, or any number.
    void (*add_values)(const float* weights, std::size_t width, const float* values, std::size_t value_stride,
                       std::size_t keys, const float* keep, float* out, std::size_t out_stride, std::size_t rows);
    void (*add_values_one_by_one)(const float* weights, std::size_t width, const float* values,
                                  std::size_t value_stride, std::size_t keys, const float* keep, float* out,
                                  std::size_t out_stride, std::size_t rows);
    bool (*all_finite)(const float* values, std::size_t stride, std::size_t rows, std::size_t columns);
    /// As many rows as lanes times `factor`, transposed: element d of row i goes to to[d * width + i]. Null is zero.
    void (*pack_lanes)(const float* const* rows, std::size_t depth, std::size_t width, float factor, float* to);

    /// to[i] = from[i] * factor
    void (*scale_row)(const float* from, std::size_t n, float factor, float* to);
    /// to[i] += from[i] * factor
    void (*add_scaled_row)(const float* from, std::size_t n, float factor, float* to);
};

}  // namespace larql::detail

#define LARQL_SIMD_BODY <larql/detail/attention/wide_body.hpp>
#include <larql/detail/simd_levels.hpp>

#define LARQL_SIMD_BODY <larql/detail/attention/narrow_body.hpp>
#include <larql/detail/simd_levels.hpp>

namespace larql::detail {

inline const level_kernels& choose_level_kernels(simd_level level) noexcept {
#if LARQL_X86_DISPATCH
    if (level == simd_level::avx512) return simd_avx512::attention::kernels;
    if (level == simd_level::avx2) return simd_avx2::attention::kernels;
#endif
    (void)level;
    return simd_portable::attention::kernels;
}

template <class E>
const storage_kernels& choose_storage_kernels(simd_level level) noexcept {
#if LARQL_X86_DISPATCH
    if (level == simd_level::avx512) return simd_avx512::attention::kernels_of<E>;
    if (level == simd_level::avx2) return simd_avx2::attention::kernels_of<E>;
#endif
    (void)level;
    return simd_portable::attention::kernels_of<E>;
}

}  // namespace larql::detail

#endif
