// SPDX-License-Identifier: Apache-2.0
//
// The float product: both factors are repacked from blocks of rows into panels that
// the kernels of gemm/kernels.hpp read in order.
//
// When the rows of B are steps of the sum (an absorption: both factors are large), a stretch of B, 32 MiB when packed,
// is shared by all threads. Each task packs a block of A that stays in its second-level cache, and multiplies it with
// the stretch. A row of B is read once, a row of A once per stretch and column part.
//
// When the rows of B are columns of the product (a projection: A has one row per token), A is packed, up to 32 MiB of
// it, and shared. Each task packs a few columns, a stretch of the sum at a time, and multiplies all of A with them
// while they are cached. A row of A is read once, a row of B once per 32 MiB of A.
//
// Working memory is 32 MiB, and per thread 1.5 MiB plus 32 to 64 rows of a factor that is not in memory.
#ifndef LARQL_DETAIL_GEMM_PACKED_HPP
#define LARQL_DETAIL_GEMM_PACKED_HPP

#include <larql/detail/gemm/kernels.hpp>
#include <larql/detail/gemm/product.hpp>
#include <larql/executor.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace larql::detail {

/// out[k * width + r] = rows[r][begin + k] * k_scale[begin + k] for r < count; rows up to `width` are zero.
inline void interleave_rows(row_view<float> rows, std::size_t count, std::size_t width, index_range depth,
                            const float* k_scale, float* out) {
    const auto one_row = [&](std::size_t r, index_range steps) {
        const float* from = rows.data + r * rows.stride;
        for (std::size_t k = steps.begin; k < steps.end; ++k)
            out[(k - depth.begin) * width + r] = r >= count           ? 0.0F
                                                 : k_scale != nullptr ? from[k] * k_scale[k]
                                                                      : from[k];
    };
    // Four rows at a time, by transposing squares in registers: vectors of four are part of every level.
    const auto four_rows = [&](std::size_t r, index_range steps) {
        namespace simd = simd_portable;
        static_assert(simd::lanes == 4);
        const float* from = rows.data + r * rows.stride;
        std::size_t k = steps.begin;
        for (; k + 4 <= steps.end; k += 4) {
            simd::vfloat square[4] = {simd::load(from + k), simd::load(from + rows.stride + k),
                                      simd::load(from + 2 * rows.stride + k), simd::load(from + 3 * rows.stride + k)};
            if (k_scale != nullptr) {
                const simd::vfloat scale = simd::load(k_scale + k);
                for (simd::vfloat& row : square) row *= scale;
            }
            simd::transpose(square);
            float* to = out + (k - depth.begin) * width + r;
            simd::store(to, square[0]);
            simd::store(to + width, square[1]);
            simd::store(to + 2 * width, square[2]);
            simd::store(to + 3 * width, square[3]);
        }
        for (std::size_t i = r; i < r + 4; ++i) one_row(i, {k, steps.end});
    };
    constexpr std::size_t cached_steps = 256;  // what is written stays in the first-level cache until it is complete
    for (std::size_t k = depth.begin; k < depth.end; k += cached_steps) {
        const index_range steps{k, std::min(depth.end, k + cached_steps)};
        std::size_t r = 0;
        for (; r + 4 <= std::min(count, width); r += 4) four_rows(r, steps);
        for (; r < width; ++r) one_row(r, steps);
    }
}

/// The float product on one level of vector instructions.
class packed_product {
public:
    packed_product(const product<float>& p, simd_level level, executor& threads)
        : m_p(p),
          m_tile(choose_gemm_kernels(level).tile),
          m_kernel(choose_gemm_kernels(level).multiply_tile),
          m_threads(threads) {}

    void run() {
        if (m_p.b_rows == row_role::column) return run_over_columns();
        for_each_stretch(m_p, sizeof(float), m_tile.cols, 1, [this](index_range columns, index_range depth) {
            grow_panels(round_to(columns.size(), m_tile.cols) * depth.size());
            pack_depth_rows(depth);
            multiply(columns, depth);
        });
    }

private:
    struct task_scratch {
        aligned_array<float> raw;
        aligned_array<float> packed;
        std::vector<float*> c;
    };

    void grow_panels(std::size_t size) {
        if (size <= m_panels_size) return;
        m_panels = aligned_array<float>(size);
        m_panels_size = size;
    }

    // Panel by panel [depth, width], from rows of B that are steps of the sum.
    void pack_depth_rows(index_range depth) {
        constexpr std::size_t chunk = 16;
        const std::size_t width = m_tile.cols;
        const std::size_t n = m_p.n();
        scratch_pool<aligned_array<float>> scratch;
        m_threads.run(divide_up(depth.size(), chunk), [&](std::size_t part) {
            const std::size_t k0 = part * chunk;
            const std::size_t k1 = std::min(depth.size(), k0 + chunk);
            const auto make = [&] { return aligned_array<float>(m_p.b.data != nullptr ? 0 : chunk * n); };
            scratch.with(make, [&](aligned_array<float>& raw) {
                const row_view<float> rows = view_rows(m_p.b, depth.begin + k0, depth.begin + k1, raw.data());
                for (std::size_t j = 0; j < n; j += width) {
                    const std::size_t used = std::min(width, n - j);
                    float* to = m_panels.data() + j * depth.size() + k0 * width;
                    for (std::size_t k = 0; k < k1 - k0; ++k, to += width) {
                        std::copy_n(rows.data + k * rows.stride + j, used, to);
                        std::fill(to + used, to + width, 0.0F);
                    }
                }
            });
        });
    }

    void multiply(index_range columns, index_range depth) {
        const std::size_t row_limit = 14 * m_tile.rows;
        const task_grid grid(m_p.m(), columns.size(), row_limit, m_tile.rows, m_tile.cols, thread_count(m_threads));
        const auto make = [&] {
            return task_scratch{aligned_array<float>(m_p.a.data != nullptr ? 0 : m_tile.rows * m_p.k()),
                                aligned_array<float>(grid.rows * depth.size()), std::vector<float*>(grid.rows)};
        };
        scratch_pool<task_scratch> scratch;
        m_threads.run(grid.tasks(), [&](std::size_t task) {
            const index_range rows = grid.rows_of(task), cols = grid.cols_of(task);
            scratch.with(make, [&](task_scratch& s) {
                pack_a(rows, depth, s);
                for (std::size_t i = 0; i < rows.size(); ++i) s.c[i] = m_p.c_row(rows.begin + i) + columns.begin;
                multiply_block(rows.size(), cols, depth, s);
            });
        });
    }

    void pack_a(index_range rows, index_range depth, task_scratch& s) const {
        float* out = s.packed.data();
        for (std::size_t i = rows.begin; i < rows.end; i += m_tile.rows, out += m_tile.rows * depth.size()) {
            const std::size_t end = std::min(rows.end, i + m_tile.rows);
            const row_view<float> view = view_rows(m_p.a, i, end, s.raw.data());
            interleave_rows(view, end - i, m_tile.rows, depth, m_p.k_scale, out);
        }
    }

    // A block of A times the columns: 256 columns at a time, whose part of C stays in the second-level cache while the
    // steps of K add up, and within these one panel of B at a time, which stays in the first-level cache.
    void multiply_block(std::size_t row_count, index_range cols, index_range depth, task_scratch& s) const {
        constexpr std::size_t wide = 256;
        const std::size_t step = even_part(depth.size(), m_tile.depth, 1);
        for (std::size_t j0 = cols.begin; j0 < cols.end; j0 += wide) {
            const std::size_t j1 = std::min(cols.end, j0 + wide);
            for (std::size_t k = 0; k < depth.size(); k += step) {
                const std::size_t steps = std::min(step, depth.size() - k);
                const bool add = depth.begin + k != 0;
                for (std::size_t j = j0; j < j1; j += m_tile.cols) {
                    const float* b = m_panels.data() + j * depth.size() + k * m_tile.cols;
                    const float* next = b + (j + m_tile.cols < j1 ? m_tile.cols * depth.size() : 0);
                    for (std::size_t i = 0; i < row_count; i += m_tile.rows) {
                        const float* a = s.packed.data() + i * depth.size() + k * m_tile.rows;
                        if (row_count - i >= m_tile.rows && j1 - j >= m_tile.cols)
                            m_kernel(steps, a, b, s.c.data() + i, j, add, next + i / m_tile.rows * (steps / 4) * 16);
                        else
                            multiply_edge(steps, a, b, s.c.data() + i, row_count - i, {j, j1}, add);
                    }
                }
            }
        }
    }

    // A tile that reaches over the edge of C goes through a whole tile in memory.
    void multiply_edge(std::size_t steps, const float* a, const float* b, float* const* c, std::size_t row_count,
                       index_range cols, bool add) const {
        alignas(64) float tile[largest_tile.rows * largest_tile.cols];
        float* tile_rows[largest_tile.rows];
        for (std::size_t i = 0; i < m_tile.rows; ++i) tile_rows[i] = tile + i * m_tile.cols;
        m_kernel(steps, a, b, tile_rows, 0, false, b);
        const std::size_t rows = std::min(row_count, m_tile.rows);
        const std::size_t used = std::min(cols.size(), m_tile.cols);
        for (std::size_t i = 0; i < rows; ++i) {
            float* out = c[i] + cols.begin;
            for (std::size_t j = 0; j < used; ++j) out[j] = (add ? out[j] : 0.0F) + tile_rows[i][j];
        }
    }

    void run_over_columns() {
        const std::size_t budget = m_p.shared_bytes / sizeof(float) / m_p.k();
        const std::size_t part = even_part(m_p.m(), budget, m_tile.rows);
        for (std::size_t i = 0; i < m_p.m(); i += part) multiply_over_columns({i, std::min(m_p.m(), i + part)});
    }

    void multiply_over_columns(index_range rows) {
        pack_all_of_a(rows);
        std::vector<float*> c(rows.size());
        for (std::size_t i = 0; i < rows.size(); ++i) c[i] = m_p.c_row(rows.begin + i);
        const bool in_memory = m_p.b.data != nullptr;
        const std::size_t limit =
            std::min<std::size_t>(in_memory ? 128 : 64, divide_up(m_p.n(), thread_count(m_threads)));
        const std::size_t width = even_part(m_p.n(), limit, m_tile.cols);
        const std::size_t step = even_part(m_p.k(), m_tile.depth, 1);
        const auto make = [&] {
            return task_scratch{
                aligned_array<float>(in_memory ? 0 : width * m_p.k()), aligned_array<float>(width * step), {}};
        };
        scratch_pool<task_scratch> scratch;
        m_threads.run(divide_up(m_p.n(), width), [&](std::size_t task) {
            const index_range cols{task * width, std::min(m_p.n(), (task + 1) * width)};
            scratch.with(make, [&](task_scratch& s) {
                const row_view<float> b = view_rows(m_p.b, cols.begin, cols.end, s.raw.data());
                for (std::size_t k = 0; k < m_p.k(); k += step) {
                    const index_range depth{k, std::min(m_p.k(), k + step)};
                    for (std::size_t j = 0; j < cols.size(); j += m_tile.cols)
                        interleave_rows({b.data + j * b.stride, b.stride}, std::min(m_tile.cols, cols.size() - j),
                                        m_tile.cols, depth, nullptr, s.packed.data() + j * depth.size());
                    multiply_columns(c, cols, depth, s.packed.data());
                }
            });
        });
    }

    // Tile by tile [K, rows].
    void pack_all_of_a(index_range rows) {
        const std::size_t tiles = divide_up(rows.size(), m_tile.rows);
        grow_panels(tiles * m_tile.rows * m_p.k());
        const auto make = [&] { return aligned_array<float>(m_p.a.data != nullptr ? 0 : m_tile.rows * m_p.k()); };
        scratch_pool<aligned_array<float>> scratch;
        m_threads.run(tiles, [&](std::size_t tile) {
            const std::size_t begin = rows.begin + tile * m_tile.rows;
            const std::size_t end = std::min(rows.end, begin + m_tile.rows);
            scratch.with(make, [&](aligned_array<float>& raw) {
                interleave_rows(view_rows(m_p.a, begin, end, raw.data()), end - begin, m_tile.rows, {0, m_p.k()},
                                m_p.k_scale, m_panels.data() + tile * m_tile.rows * m_p.k());
            });
        });
    }

    // All packed rows of A times the packed columns, for one stretch of the sum.
    void multiply_columns(const std::vector<float*>& c, index_range cols, index_range depth,
                          const float* packed) const {
        const std::size_t steps = depth.size();
        const bool add = depth.begin != 0;
        for (std::size_t i = 0; i < c.size(); i += m_tile.rows) {
            const float* a = m_panels.data() + i * m_p.k() + depth.begin * m_tile.rows;
            const float* next = a + (i + m_tile.rows < c.size() ? m_tile.rows * m_p.k() : 0);
            for (std::size_t j = 0; j < cols.size(); j += m_tile.cols, next += steps / 4 * 16) {
                const float* b = packed + j * steps;
                if (c.size() - i >= m_tile.rows && cols.size() - j >= m_tile.cols)
                    m_kernel(steps, a, b, c.data() + i, cols.begin + j, add, next);
                else
                    multiply_edge(steps, a, b, c.data() + i, c.size() - i, {cols.begin + j, cols.end}, add);
            }
        }
    }

    const product<float>& m_p;
    gemm_tile m_tile;
    tile_kernel m_kernel;
    executor& m_threads;
    aligned_array<float> m_panels{};  // of B, or of A when the rows of B are columns
    std::size_t m_panels_size = 0;
};

}  // namespace larql::detail

#endif
