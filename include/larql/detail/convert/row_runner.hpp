// SPDX-License-Identifier: Apache-2.0
//
// Makes the rows of a conversion on all threads and puts them at their places.
#ifndef LARQL_DETAIL_CONVERT_ROW_RUNNER_HPP
#define LARQL_DETAIL_CONVERT_ROW_RUNNER_HPP

#include <larql/detail/convert/conversion_row.hpp>
#include <larql/detail/convert/layout.hpp>
#include <larql/detail/convert/output_set.hpp>
#include <larql/detail/convert/row_makers.hpp>
#include <larql/detail/convert/write_queue.hpp>
#include <larql/executor.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace larql::detail {

/// Rows are handled in pieces of about so many bytes of output, or of float32 where that is more.
inline constexpr std::uint64_t written_piece_bytes = std::uint64_t{8} << 20;

/// So many bytes of encoded products may wait to be written: about what is made at a time.
inline constexpr std::size_t written_behind_bytes = std::size_t{128} << 20;

/// Reading, computing and writing overlap: every thread does all three for a piece of its own. Products are made one
/// row at a time by all threads, and what is made is written behind them.
class row_runner {
public:
    /// What the runner tells, from the thread that calls `run`.
    struct listener {
        std::function<void(std::uint64_t bytes)> progress;  ///< so many bytes are written
        std::function<void(std::size_t row)> made;          ///< all of a row is written, and may not be durable yet
    };

    /// @param of_part  which files are written
    row_runner(std::span<const conversion_row> rows, const conversion_layout& layout, const std::vector<bool>& of_part,
               output_set& output, executor& threads, listener told)
        : m_rows(rows),
          m_layout(layout),
          m_of_part(of_part),
          m_output(output),
          m_threads(threads),
          m_told(std::move(told)) {}

    void run(std::span<const std::size_t> chosen) {
        std::vector<std::size_t> batch;
        std::uint64_t batched = 0;
        for (const std::size_t r : chosen) {
            const conversion_row& row = m_rows[r];
            if (row.products) {
                make_batch(batch);
                batched = 0;
                make_products(r);
                continue;
            }
            batch.push_back(r);
            batched += std::max(row.size_bytes(), written_piece_bytes / 64);  // few files are open at a time
            if (batched < 4 * written_piece_bytes * thread_count(m_threads)) continue;
            make_batch(batch);
            batched = 0;
        }
        make_batch(batch);
    }

private:
    struct piece {
        std::size_t row;
        std::uint64_t begin, end;  ///< rows of its tensor
    };

    /// Makes rows that come in pieces, all at once; empties the list.
    void make_batch(std::vector<std::size_t>& batch) {
        std::vector<piece> pieces;
        for (const std::size_t r : batch) {
            const conversion_row& row = m_rows[r];
            const planned_tensor& tensor = row.tensors.front();
            const std::uint64_t row_cost = std::max<std::uint64_t>({tensor.row_bytes(), tensor.columns() * 4, 1});
            const std::uint64_t granules = std::max<std::uint64_t>(written_piece_bytes / row_cost / row.granule, 1);
            const std::uint64_t step = granules * row.granule;
            for (std::uint64_t begin = 0; begin < tensor.rows(); begin += step)
                pieces.push_back({r, begin, std::min(tensor.rows(), begin + step)});
        }
        for (std::size_t first = 0; first < pieces.size();) {  // in rounds, between which progress is told
            const std::size_t count = std::min(pieces.size() - first, 8 * thread_count(m_threads));
            m_threads.run(count, [&](std::size_t i) { make_piece(pieces[first + i]); });
            first += count;
            end_of_round();
        }
        for (const std::size_t r : batch) m_told.made(r);
        batch.clear();
    }

    void make_piece(const piece& p) {
        const conversion_row& row = m_rows[p.row];
        const planned_tensor& tensor = row.tensors.front();
        const placed_tensor& place = m_layout.places[p.row].front();
        const auto bytes =
            thread_scratch<std::byte, 1>(static_cast<std::size_t>((p.end - p.begin) * tensor.row_bytes()));
        row.rows(p.begin, p.end, bytes);
        m_output.write(m_layout.files[place.file].name, place.offset + p.begin * tensor.row_bytes(), bytes);
        m_bytes += bytes.size();
    }

    /// Numbers of products, as they come, in the tensors' types at their places: encoded by the threads that made them,
    /// and written while they make more.
    class sink final : public product_sink {
    public:
        sink(row_runner& run, std::size_t row)
            : m_run(run),
              m_row(row),
              m_queue(
                  [&run](std::size_t file, std::uint64_t offset, std::span<const std::byte> bytes) {
                      run.m_output.write(run.m_layout.files[file].name, offset, bytes);
                      run.m_bytes += bytes.size();
                  },
                  written_behind_bytes) {}

        void rows(std::size_t tensor, std::uint64_t first, std::span<const float> values, executor& threads) override {
            const placed_tensor& place = m_run.m_layout.places[m_row][tensor];
            if (!m_run.m_of_part[place.file]) return;
            const planned_tensor& planned = m_run.m_rows[m_row].tensors[tensor];
            const std::uint64_t columns = planned.columns(), rows = values.size() / columns;
            const std::uint64_t step = std::max<std::uint64_t>(written_piece_bytes / (columns * 4), 1);
            threads.run(static_cast<std::size_t>((rows + step - 1) / step), [&](std::size_t i) {
                const std::uint64_t begin = i * step, end = std::min(rows, begin + step);
                std::vector<std::byte> bytes =
                    m_queue.buffer(static_cast<std::size_t>((end - begin) * planned.row_bytes()));
                encode_numbers(planned.type,
                               values.subspan(static_cast<std::size_t>(begin * columns),
                                              static_cast<std::size_t>((end - begin) * columns)),
                               bytes, planned.name);
                m_queue.add({place.file, place.offset + (first + begin) * planned.row_bytes(), std::move(bytes)});
            });
            m_run.m_told.progress(m_run.m_bytes);
        }

        /// Waits until all is written.
        void finish() { m_queue.finish(); }

    private:
        row_runner& m_run;
        std::size_t m_row;
        write_queue m_queue;
    };

    void make_products(std::size_t row) {
        sink to(*this, row);
        m_rows[row].products(to, m_threads);
        to.finish();
        end_of_round();
        m_told.made(row);
    }

    void end_of_round() {
        m_output.trim();
        m_told.progress(m_bytes);
    }

    std::span<const conversion_row> m_rows;
    const conversion_layout& m_layout;
    const std::vector<bool>& m_of_part;
    output_set& m_output;
    executor& m_threads;
    listener m_told;
    std::atomic<std::uint64_t> m_bytes = 0;
};

}  // namespace larql::detail

#endif
