// SPDX-License-Identifier: Apache-2.0
//
// Products of a weight with a few rows of activations (decode steps): every stored row goes through the processor once,
// in its stored type, and is multiplied with all tokens on the way, since reading it is what takes the time.
//
// Activations stay float. A weight's numbers are the floats that decoding gives, or small integers whose sum over a
// block is multiplied with its scale: either way a result is as exact as decoding first and multiplying then. (A scale
// of infinity makes a row infinite or NaN, where decoding makes NaN of its zeros.) Nothing is allocated unless rows
// must be read into memory.
#ifndef LARQL_DETAIL_GEMM_FEW_ROWS_HPP
#define LARQL_DETAIL_GEMM_FEW_ROWS_HPP

#include <larql/detail/gemm/few_kernels.hpp>
#include <larql/detail/gemm/source.hpp>
#include <larql/detail/gemm/stored_matrix.hpp>
#include <larql/executor.hpp>

#include <algorithm>
#include <cstddef>

namespace larql::detail {

/// With more tokens than this, decoding panels of the weight and packing them pays.
inline constexpr std::size_t few_rows_limit = 16;

/// The products of several heads with a few tokens; a plain linear layer is one head. Row r of head h is row
/// first_row + h / group * head_rows + r of the weight.
struct few_product {
    const matrix_source<float>& weight;
    std::size_t rows;  ///< of a head
    std::size_t tokens;
    token_rows x;               ///< of head 0
    float* const* out;          ///< [tokens]  where the results of head 0 begin
    std::size_t heads = 1;      ///< of x and out
    std::size_t group = 1;      ///< heads that share rows of the weight
    std::size_t head_rows = 0;  ///< from one head's first row to the next's
    std::size_t first_row = 0;
    std::size_t x_head = 0;    ///< floats from one head's activations to the next's
    std::size_t out_head = 0;  ///< floats from one head's results to the next's

    [[nodiscard]] std::size_t row_of(std::size_t head) const noexcept { return first_row + head / group * head_rows; }
    [[nodiscard]] token_rows x_of(std::size_t head) const noexcept { return {x.data + head * x_head, x.stride}; }
};

/// A source's rows in memory, in whatever type, or nothing.
inline stored_matrix stored_rows_of(const matrix_source<float>& source) noexcept {
    if (source.data == nullptr) return source.stored;
    return {reinterpret_cast<const std::byte*>(source.data), source.row_stride * sizeof(float)};
}

/// Sums of stored rows with the tokens of one head.
class few_rows_task {
public:
    few_rows_task(const few_product& p, const few_kernels& kernels, std::size_t head) noexcept
        : m_p(p), m_kernels(kernels), m_x(p.x_of(head)), m_head(head) {}

    /// Rows [begin, end) of the head, of which `begin` is row 0 of `rows`.
    void run(const stored_matrix& rows, std::size_t begin, std::size_t end) const {
        for (std::size_t j = begin; j < end; j += rows_at_once) {
            // Beyond the last row: the last row again, so that the kernels have one form.
            std::size_t row[rows_at_once];
            for (std::size_t r = 0; r < rows_at_once; ++r) row[r] = std::min(j + r, end - 1) - begin;
            const std::size_t count = std::min(rows_at_once, end - j);
            if (is_direct(rows.kind))
                of_numbers(rows, row, j, count);
            else
                of_blocks(rows, row, j, count);
        }
    }

private:
    [[nodiscard]] bool is_direct(row_kind kind) const noexcept {
        return kind != row_kind::blocks && m_kernels.numbers[static_cast<std::size_t>(kind)][0] != nullptr;
    }

    /// The group of the most tokens, of `left`, that there is a kernel for.
    template <class Kernel>
    [[nodiscard]] static std::size_t group_of(std::size_t left, const Kernel (&kernels)[token_groups]) noexcept {
        std::size_t group = token_groups - 1;
        while (tokens_of_group[group] > left || kernels[group] == nullptr) --group;
        return group;
    }

    [[nodiscard]] token_rows tokens_from(std::size_t token, std::size_t column = 0) const noexcept {
        return {m_x.data + token * m_x.stride + column, m_x.stride};
    }

    void put(std::size_t token, std::size_t row, const float* sums, std::size_t count) const noexcept {
        float* const out = m_p.out[token] + m_head * m_p.out_head + row;
        for (std::size_t r = 0; r < count; ++r) out[r] = sums[r];
    }

    void of_numbers(const stored_matrix& rows, const std::size_t* row, std::size_t first, std::size_t count) const {
        number_rows w{};
        w.columns = m_p.weight.cols;
        w.table = rows.table;
        w.segment = std::max<std::size_t>(rows.scales.data == nullptr ? w.columns : rows.scales.block_columns, 1);
        for (std::size_t r = 0; r < rows_at_once; ++r) {
            w.row[r] = rows.row(row[r]);
            w.scales[r] = rows.scales_of(row[r]);
        }
        const bool is_block = static_cast<std::size_t>(rows.kind) >= number_kinds;
        const bool whole_rows_scaled = is_block && rows.scales.data != nullptr;
        const auto& kernels = m_kernels.numbers[static_cast<std::size_t>(rows.kind)];
        for (std::size_t t = 0; t < m_p.tokens;) {
            const std::size_t group = group_of(m_p.tokens - t, kernels);
            float sums[tokens_of_group[token_groups - 1]][rows_at_once];
            kernels[group](w, tokens_from(t), sums);
            for (std::size_t i = 0; i < tokens_of_group[group]; ++i, ++t) {
                if (whole_rows_scaled)
                    for (std::size_t r = 0; r < count; ++r) sums[i][r] *= *w.scales[r];
                put(t, first, sums[i], count);
            }
        }
    }

    void of_blocks(const stored_matrix& rows, const std::size_t* row, std::size_t first, std::size_t count) const {
        const block_unpacker& format = *rows.blocks;
        const std::size_t blocks = m_p.weight.cols / format.elements;
        const std::size_t blocks_at_once = unpacked_vectors * 16 / format.elements;
        const auto& kernels = m_kernels.unpacked[static_cast<std::size_t>(format.scaling)];
        partial_sum sums[few_rows_limit][rows_at_once];
        std::fill_n(&sums[0][0], m_p.tokens * rows_at_once, partial_sum{});
        unpacked_rows w;
        w.table = format.table;
        for (std::size_t b = 0; b < blocks; b += blocks_at_once) {
            const std::size_t now = std::min(blocks_at_once, blocks - b);
            w.count = now * (format.elements / 16);
            for (std::size_t r = 0; r < rows_at_once; ++r)
                format.unpack(rows.row(row[r]) + b * format.bytes, now, {w.q[r], w.scale[r], w.offset[r]});
            for (std::size_t t = 0; t < m_p.tokens;) {
                const std::size_t group = group_of(m_p.tokens - t, kernels);
                kernels[group](w, tokens_from(t, b * format.elements), sums + t);
                t += tokens_of_group[group];
            }
        }
        for (std::size_t t = 0; t < m_p.tokens; ++t) {
            float totals[rows_at_once];
            m_kernels.fold(sums[t], totals);
            if (rows.scales.data != nullptr)
                for (std::size_t r = 0; r < rows_at_once; ++r) totals[r] *= *rows.scales_of(row[r]);
            put(t, first, totals, count);
        }
    }

    const few_product& m_p;
    const few_kernels& m_kernels;
    token_rows m_x;
    std::size_t m_head;
};

/// How many rows of a head a task takes: as many as a quarter of a second-level cache holds, or fewer, so that there
/// are enough tasks to keep the threads evenly busy.
inline std::size_t rows_of_task(const few_product& p, std::size_t row_bytes, std::size_t threads) noexcept {
    constexpr std::size_t task_bytes = 256 * 1024;
    const std::size_t by_size = task_bytes / std::max<std::size_t>(row_bytes, 1);
    const std::size_t by_share = divide_up(p.rows * p.heads, 4 * threads);
    return round_to(std::clamp<std::size_t>(std::min(by_size, by_share), 1, p.rows), rows_at_once);
}

/// out[t][r] = sum over c of the head's number [r, c] * x[t][c]: rows of the weight are columns of the product.
/// @note  The weight has at least one column; there are at most few_rows_limit tokens.
inline void multiply_few_rows(const few_product& p, simd_level level, executor& threads) {
    if (p.tokens == 0 || p.rows == 0) return;
    const stored_matrix stored = stored_rows_of(p.weight);
    const few_kernels& kernels = choose_few_kernels(level);
    const std::size_t cols = p.weight.cols;
    const std::size_t row_bytes = stored.data != nullptr ? stored.row_bytes : cols * sizeof(float);
    const std::size_t block = rows_of_task(p, row_bytes, thread_count(threads)), blocks = divide_up(p.rows, block);
    scratch_pool<aligned_array<float>> scratch;
    threads.run(p.heads * blocks, [&](std::size_t task) {
        const std::size_t head = task / blocks, begin = task % blocks * block, end = std::min(p.rows, begin + block);
        const std::size_t first = p.row_of(head) + begin;
        const few_rows_task sums(p, kernels, head);
        if (stored.data != nullptr) return sums.run(stored.from_row(first), begin, end);
        scratch.with(
            [&] { return aligned_array<float>(block * cols); },
            [&](aligned_array<float>& memory) {
                p.weight.read_rows(first, first + (end - begin), memory.data(), cols);
                sums.run({reinterpret_cast<const std::byte*>(memory.data()), cols * sizeof(float)}, begin, end);
            });
    });
}

/// Adds the stored rows [begin, begin + count) of a head, of which `begin` is row 0 of `rows`, times the activations
/// that belong to them, to each token's results. Eight rows at a time: they and the results stay in the first-level
/// cache while the tokens have their turns, and the rows are read in the order in which they lie.
inline void add_stored_steps(const few_product& p, const few_kernels& kernels, const stored_matrix& rows,
                             std::size_t head, std::size_t begin, std::size_t count) {
    constexpr std::size_t at_once = 8;
    const std::size_t cols = p.weight.cols;
    const std::size_t segment = rows.scales.data == nullptr ? cols : rows.scales.block_columns;
    const auto kind = static_cast<std::size_t>(rows.kind);
    const token_rows x = p.x_of(head);
    for (std::size_t r = 0; r < count; r += at_once) {
        const std::size_t now = std::min(at_once, count - r);
        for (std::size_t t = 0; t < p.tokens; ++t)
            for (std::size_t c = 0; c < cols; c += segment) {
                float factors[at_once];
                for (std::size_t i = 0; i < now; ++i) {
                    const float* const scales = rows.scales_of(r + i);
                    factors[i] = x.data[t * x.stride + begin + r + i];
                    if (scales != nullptr) factors[i] *= scales[c / segment];
                }
                kernels.add[kind](rows.row(r) + c * sizes_of_numbers[kind], rows.row_bytes, now,
                                  std::min(segment, cols - c), factors, begin + r != 0,
                                  p.out[t] + head * p.out_head + c);
            }
    }
}

/// out[t][c] = sum over r of x[t][r] * the head's number [r, c]: rows of the weight are steps of the sum.
/// @note  The weight has at least one column, a head at least one row; there are at most few_rows_limit tokens.
inline void multiply_few_steps(const few_product& p, simd_level level, executor& threads) {
    const few_kernels& kernels = choose_few_kernels(level);
    const stored_matrix stored = stored_rows_of(p.weight);
    const std::size_t cols = p.weight.cols;
    threads.run(p.heads, [&](std::size_t head) {
        const std::size_t first = p.row_of(head);
        if (stored.data != nullptr && static_cast<std::size_t>(stored.kind) < number_kinds)
            return add_stored_steps(p, kernels, stored.from_row(first), head, 0, p.rows);
        constexpr std::size_t panel_size = 8192;  // floats: stays in the first-level cache
        alignas(64) float panel[panel_size];
        const aligned_array<float> large(cols > panel_size ? cols : 0);
        float* const memory = cols > panel_size ? large.data() : panel;
        const stored_matrix decoded{reinterpret_cast<const std::byte*>(memory), cols * sizeof(float)};
        const std::size_t at_once = std::max<std::size_t>(panel_size / cols, 1);
        for (std::size_t begin = 0; begin < p.rows; begin += at_once) {
            const std::size_t end = std::min(p.rows, begin + at_once);
            p.weight.read_rows(first + begin, first + end, memory, cols);
            add_stored_steps(p, kernels, decoded, head, begin, end - begin);
        }
    });
}

}  // namespace larql::detail

#endif
