// SPDX-License-Identifier: Apache-2.0
//
// The float product on AMX for a B of bfloat16 numbers, such as a published weight, whose rows are steps of the sum; A
// may be any float. Errors are no larger than those of a product in float (see gemm/amx_kernels.hpp for how). Rows with
// numbers that AMX does not treat as float does are left to the caller, and so is everything if B holds other numbers:
// AVX-512 is faster then.
#ifndef LARQL_DETAIL_GEMM_AMX_HPP
#define LARQL_DETAIL_GEMM_AMX_HPP

#include <larql/detail/gemm/amx_kernels.hpp>
#include <larql/detail/gemm/amx_slot.hpp>
#include <larql/detail/gemm/packed.hpp>
#include <larql/detail/gemm/product.hpp>
#include <larql/executor.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#if LARQL_AMX

namespace larql::detail {

/// Shared memory holds a stretch of B as in packed_product.
class amx_product {
public:
    amx_product(const product<float>& p, executor& threads)
        : m_p(p), m_threads(threads), m_left_out(divide_up(p.m(), amx_block)) {}

    /// @return  the rows that were not computed, as ranges in order
    std::vector<index_range> run() {
        for_each_stretch(m_p, bf16_bytes, amx_block, tile_depth, [this](index_range columns, index_range depth) {
            if (!m_b_usable) return;
            m_steps = divide_up(depth.size(), tile_depth);
            const std::size_t size = divide_up(columns.size(), amx_block) * m_steps * 2 * tile_words;
            if (size > m_tiles_size) {
                m_tiles = aligned_array<std::uint32_t>(size);
                m_tiles_size = size;
            }
            pack_depth_rows(depth);
            if (m_b_usable) multiply(columns, depth);
        });
        return left_out();
    }

private:
    static constexpr std::size_t bf16_bytes = 2;

    struct task_scratch {
        aligned_array<float> raw;
        aligned_array<std::uint32_t> tiles;
        std::vector<float*> c;
        std::vector<float_class> classes;
    };

    [[nodiscard]] std::vector<index_range> left_out() const {
        if (!m_b_usable) return {{0, m_p.m()}};
        std::vector<index_range> out;
        for (std::size_t panel = 0; panel < m_left_out.size(); ++panel) {
            if (!m_left_out[panel]) continue;
            const index_range rows{panel * amx_block, std::min(m_p.m(), (panel + 1) * amx_block)};
            if (!out.empty() && out.back().end == rows.begin)
                out.back().end = rows.end;
            else
                out.push_back(rows);
        }
        return out;
    }

    // Also tells the other tasks. Most matrices that are not bfloat16 show it in their first numbers.
    bool usable_b(const float_class& kind) {
        if (kind.usable && kind.terms == 1) return true;
        m_b_usable = false;
        return false;
    }

    [[nodiscard]] std::uint32_t* tiles_of(std::size_t panel, std::size_t step) const noexcept {
        return m_tiles.data() + (panel * m_steps + step) * 2 * tile_words;
    }

    void pack_depth_rows(index_range depth) {
        const std::size_t n = m_p.n();
        scratch_pool<aligned_array<float>> scratch;
        m_threads.run(m_steps, [&](std::size_t step) {
            if (!m_b_usable) return;
            const std::size_t begin = depth.begin + step * tile_depth;
            const std::size_t end = std::min(depth.end, begin + tile_depth);
            const auto make = [&] { return aligned_array<float>(m_p.b.data != nullptr ? 0 : tile_depth * n); };
            scratch.with(make, [&](aligned_array<float>& raw) {
                const row_view<float> rows = view_rows(m_p.b, begin, end, raw.data());
                for (std::size_t j = 0, panel = 0; j < n; j += amx_block, ++panel) {
                    const std::size_t cols = std::min(amx_block, n - j);
                    const float_class kind = classify_columns(rows.data + j, rows.stride, end - begin, cols);
                    if (!usable_b(kind)) return;
                    for (std::size_t half = 0; half < 2; ++half)
                        pack_column_tile(rows.data + std::min(j + half * 16, n), rows.stride, end - begin,
                                         lanes_left(half * 16, cols), tiles_of(panel, step) + half * tile_words);
                }
            });
        });
    }

    // Both halves of a panel of 32 rows.
    static void pack_panel(row_view<float> rows, std::size_t count, index_range depth, const float* k_scale,
                           std::size_t terms, std::uint32_t* out, std::size_t plane) {
        const float* scale = k_scale == nullptr ? nullptr : k_scale + depth.begin;
        for (std::size_t half = 0; half < 2; ++half) {
            const std::size_t first = std::min(half * 16, count);
            pack_row_tiles(rows.data + first * rows.stride + depth.begin, rows.stride,
                           std::min<std::size_t>(count - first, 16), depth.size(), scale, terms,
                           out + half * tile_words, 2 * tile_words, plane);
        }
    }

    void multiply(index_range columns, index_range depth) {
        constexpr std::size_t row_limit = 128;  // 0.4 MB of tiles a term at a depth of 1536: second-level cache
        const task_grid grid(m_p.m(), columns.size(), row_limit, amx_block, amx_block, thread_count(m_threads));
        const std::size_t panel_words = m_steps * 2 * tile_words;
        const auto make = [&] {
            return task_scratch{aligned_array<float>(m_p.a.data != nullptr ? 0 : amx_block * m_p.k()),
                                aligned_array<std::uint32_t>(max_terms * grid.rows / amx_block * panel_words),
                                std::vector<float*>(grid.rows), std::vector<float_class>(grid.rows / amx_block)};
        };
        scratch_pool<task_scratch> scratch;
        m_threads.run(grid.tasks(), [&](std::size_t task) {
            const index_range rows = grid.rows_of(task), cols = grid.cols_of(task);
            scratch.with(make, [&](task_scratch& s) {
                const std::size_t plane = grid.rows / amx_block * panel_words;
                pack_a(rows, depth, s, plane);
                for (std::size_t i = 0; i < rows.size(); ++i) s.c[i] = m_p.c_row(rows.begin + i) + columns.begin;
                multiply_block(rows.size(), cols, depth.begin != 0, s, plane);
            });
        });
    }

    void pack_a(index_range rows, index_range depth, task_scratch& s, std::size_t plane) {
        for (std::size_t i = 0; i < rows.size(); i += amx_block) {
            const std::size_t count = std::min(amx_block, rows.size() - i);
            const row_view<float> view = view_rows(m_p.a, rows.begin + i, rows.begin + i + count, s.raw.data());
            const float* scale = m_p.k_scale == nullptr ? nullptr : m_p.k_scale + depth.begin;
            float_class& kind = s.classes[i / amx_block];
            kind = classify_rows(view.data + depth.begin, view.stride, count, depth.size(), scale);
            if (!kind.usable) {
                m_left_out[(rows.begin + i) / amx_block] = true;
                continue;
            }
            pack_panel(view, count, depth, m_p.k_scale, kind.terms,
                       s.tiles.data() + i / amx_block * m_steps * 2 * tile_words, plane);
        }
    }

    void multiply_block(std::size_t row_count, index_range cols, bool add, const task_scratch& s,
                        std::size_t plane) const {
        const tile_session session;
        alignas(64) float block[amx_block * amx_block];
        for (std::size_t j = cols.begin; j < cols.end; j += amx_block) {
            const std::size_t panel = j / amx_block;
            const std::size_t used = std::min(amx_block, cols.end - j);
            for (std::size_t i = 0; i < row_count; i += amx_block) {
                const float_class kind = s.classes[i / amx_block];
                if (!kind.usable) continue;
                const std::uint32_t* a = s.tiles.data() + i / amx_block * m_steps * 2 * tile_words;
                multiply_tiles(m_steps, a, plane, kind.terms, tiles_of(panel, 0), block);
                store_block(block, s.c.data() + i, std::min(amx_block, row_count - i), j, used, add);
            }
        }
    }

    LARQL_TARGET_AVX512 static void store_block(const float* block, float* const* c, std::size_t rows, std::size_t col,
                                                std::size_t cols, bool add) {
        for (std::size_t i = 0; i < rows; ++i) {
            const float* from = block + i * amx_block;
            float* to = c[i] + col;
            if (cols == amx_block) {
                for (std::size_t j = 0; j < amx_block; j += 16) {
                    amx_vector sum = *reinterpret_cast<const amx_vector*>(from + j);
                    amx_vector_unaligned* out = reinterpret_cast<amx_vector_unaligned*>(to + j);
                    if (add) sum += *out;
                    *out = sum;
                }
                continue;
            }
            for (std::size_t j = 0; j < cols; ++j) to[j] = (add ? to[j] : 0.0F) + from[j];
        }
    }

    const product<float>& m_p;
    executor& m_threads;
    std::vector<std::atomic<bool>> m_left_out;  // by panel of rows; tasks of one panel may say it together
    std::atomic<bool> m_b_usable{true};
    aligned_array<std::uint32_t> m_tiles{};  // [panel][step][half] tiles of B's stretch
    std::size_t m_tiles_size = 0;
    std::size_t m_steps = 0;
};

/// AMX, and for the rows that it leaves out, or so few that tiles stay mostly empty, the vector kernels.
inline void multiply_with_amx(const product<float>& p, executor& threads) {
    if (p.m() < amx_block) return packed_product(p, simd_level::avx512, threads).run();
    for (const index_range left : amx_product(p, threads).run()) {
        auto read = [&](std::size_t begin, std::size_t end, float* out, std::size_t stride) {
            p.a.read_rows(left.begin + begin, left.begin + end, out, stride);
        };
        auto c_row = [&](std::size_t i) { return p.c_row(left.begin + i); };
        const float* data = p.a.data == nullptr ? nullptr : p.a.data + left.begin * p.a.row_stride;
        const matrix_source<float> rows{left.size(), p.k(), read, data, p.a.row_stride};
        const product<float> rest{rows, p.k_scale, p.b, p.b_rows, c_row, p.shared_bytes};
        packed_product(rest, simd_level::avx512, threads).run();
    }
}

}  // namespace larql::detail
#endif

#endif
