// SPDX-License-Identifier: Apache-2.0
//
// Rows of a block's matrices in another order: heads whose rotated rows are paired otherwise, kv_b as k_b and v_b.
#ifndef LARQL_DETAIL_CONVERT_BLOCK_ROWS_HPP
#define LARQL_DETAIL_CONVERT_BLOCK_ROWS_HPP

#include <larql/attention_spec.hpp>
#include <larql/detail/convert/conversion_row.hpp>
#include <larql/matrix_input.hpp>
#include <larql/mla_geometry.hpp>
#include <larql/rope.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

namespace larql::detail {

/// Which row of a stored head is row i of a head whose rotated rows are paired otherwise.
inline std::vector<std::size_t> head_row_order(const attention_spec& spec, rope_pairing wanted) {
    const mla_geometry& g = spec.geometry;
    std::vector<std::size_t> order(g.qk_head_dim());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const std::vector<std::size_t> rotated = rope_row_order(g.qk_rope_head_dim, g.pairing, wanted);
    for (std::size_t i = 0; i < rotated.size(); ++i) order[rope_begin(g) + i] = rope_begin(g) + rotated[i];
    return order;
}

/// The rows of every head in another order, read whole heads at a time.
inline matrix_input<float> reorder_heads(matrix_input<float> from, std::vector<std::size_t> order) {
    const std::size_t rows = from.rows(), cols = from.cols();
    return matrix_input<float>(
        rows, cols,
        [from = std::move(from), order = std::move(order)](std::size_t begin, std::size_t end, float* out,
                                                           std::size_t stride) {
            const std::size_t dim = order.size(), width = from.cols();
            const std::size_t first = begin / dim * dim, last = std::min((end + dim - 1) / dim * dim, from.rows());
            std::vector<float> heads((last - first) * width);
            from.read_rows(first, last, heads.data(), width);
            for (std::size_t r = begin; r < end; ++r, out += stride)
                std::copy_n(heads.data() + (r / dim * dim + order[r % dim] - first) * width, width, out);
        });
}

inline vector_input<float> reorder_heads(const vector_input<float>& from, std::span<const std::size_t> order) {
    std::vector<float> values(from.size());
    for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = from.data()[i / order.size() * order.size() + order[i % order.size()]];
    return values;
}

/// k_b [G * R, N] from kv_b: of each head the columns of its key rows. A head's columns are read together.
inline matrix_input<float> keys_of_kv_b(matrix_input<float> kv_b, const mla_geometry& g) {
    const std::size_t rank = g.kv_lora_rank, nope = g.qk_nope_head_dim, head_rows = nope + g.v_head_dim;
    return matrix_input<float>(g.kv_heads() * rank, nope,
                               [kv_b = std::move(kv_b), rank, nope, head_rows](std::size_t begin, std::size_t end,
                                                                               float* out, std::size_t stride) {
                                   std::vector<float> keys(nope * rank);
                                   for (std::size_t head = begin / rank; head * rank < end; ++head) {
                                       kv_b.read_rows(head * head_rows, head * head_rows + nope, keys.data(), rank);
                                       const std::size_t first = std::max(begin, head * rank),
                                                         last = std::min(end, (head + 1) * rank);
                                       for (std::size_t r = first; r < last; ++r)
                                           for (std::size_t i = 0; i < nope; ++i)
                                               out[(r - begin) * stride + i] = keys[i * rank + (r - head * rank)];
                                   }
                               });
}

/// The bytes of v_b from those of kv_b.
inline row_maker value_rows(row_maker kv_b, std::uint64_t row_bytes, const mla_geometry& g) {
    const std::uint64_t nope = g.qk_nope_head_dim, values = g.v_head_dim;
    return [kv_b = std::move(kv_b), row_bytes, nope, values](std::uint64_t begin, std::uint64_t end,
                                                             std::span<std::byte> out) {
        for (std::uint64_t r = begin; r < end;) {
            const std::uint64_t head = r / values, last = std::min(end, (head + 1) * values);
            const std::uint64_t from = head * (nope + values) + nope + r % values;
            kv_b(from, from + (last - r),
                 out.subspan(static_cast<std::size_t>((r - begin) * row_bytes),
                             static_cast<std::size_t>((last - r) * row_bytes)));
            r = last;
        }
    };
}

/// v_b [G * V, R] from kv_b: the value rows of each head.
inline matrix_input<float> values_of_kv_b(matrix_input<float> kv_b, const mla_geometry& g) {
    const std::size_t nope = g.qk_nope_head_dim, values = g.v_head_dim;
    return matrix_input<float>(
        g.kv_heads() * values, g.kv_lora_rank,
        [kv_b = std::move(kv_b), nope, values](std::size_t begin, std::size_t end, float* out, std::size_t stride) {
            for (std::size_t r = begin; r < end;) {
                const std::size_t head = r / values, last = std::min(end, (head + 1) * values);
                const std::size_t from = head * (nope + values) + nope + r % values;
                kv_b.read_rows(from, from + (last - r), out + (r - begin) * stride, stride);
                r = last;
            }
        });
}

}  // namespace larql::detail

#endif
