// SPDX-License-Identifier: Apache-2.0
//
// How fast the rows of a conversion are made, without writing them.
#ifndef LARQL_DETAIL_CONVERT_MEASURE_HPP
#define LARQL_DETAIL_CONVERT_MEASURE_HPP

#include <larql/detail/convert/conversion_row.hpp>
#include <larql/detail/convert/row_runner.hpp>
#include <larql/executor.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace larql::detail {

/// Bytes per second at which rows are made, in memory alone.
inline double measure_rate(std::span<const conversion_row> rows, executor& threads, double seconds) {
    class discarding final : public product_sink {
    public:
        explicit discarding(double limit) : m_limit(limit) {}
        void rows(std::size_t, std::uint64_t, std::span<const float> values, executor&) override {
            bytes += values.size_bytes();
            if (elapsed() > m_limit) throw stopped{};
        }
        [[nodiscard]] double elapsed() const {
            return std::chrono::duration<double>(std::chrono::steady_clock::now() - m_begin).count();
        }
        struct stopped {};
        std::atomic<std::uint64_t> bytes = 0;

    private:
        double m_limit;
        std::chrono::steady_clock::time_point m_begin = std::chrono::steady_clock::now();
    } sample(seconds);
    // Rows from all over the model: its blocks are alike, its first and last rows are not.
    const std::size_t step = std::max<std::size_t>(rows.size() / 16, 1);
    for (std::size_t r = 0; r < rows.size() && sample.elapsed() < seconds; r += step) {
        if (rows[r].products) {
            try {
                rows[r].products(sample, threads);
            } catch (const discarding::stopped&) {
            }
            continue;
        }
        const planned_tensor& tensor = rows[r].tensors.front();
        const std::uint64_t count =
            std::min(tensor.rows(),
                     std::max<std::uint64_t>(written_piece_bytes / std::max<std::uint64_t>(tensor.row_bytes(), 1), 1));
        std::vector<std::byte> bytes(static_cast<std::size_t>(count * tensor.row_bytes()));
        rows[r].rows(0, count, bytes);
        sample.bytes += bytes.size();
    }
    return sample.elapsed() == 0.0 ? 0.0 : static_cast<double>(sample.bytes) / sample.elapsed();
}

}  // namespace larql::detail

#endif
