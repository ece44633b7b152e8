// SPDX-License-Identifier: Apache-2.0
//
// Entries of compressed attention: what several tokens become together.
#ifndef LARQL_DETAIL_COMPRESSED_ENTRIES_HPP
#define LARQL_DETAIL_COMPRESSED_ENTRIES_HPP

#include <larql/attention_spec.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/executor.hpp>
#include <larql/matrix_input.hpp>
#include <larql/rope.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace larql::detail {

/// RMSNorm of rows of `width` elements, in place; without gains the division alone.
template <class T>
void rms_normalise(T* rows, std::size_t count, std::size_t width, const norm_spec& norm, const vector_input<T>& gains) {
    for (T* row = rows; row != rows + count * width; row += width) {
        double squares = 0.0;
        for (std::size_t i = 0; i < width; ++i) squares += static_cast<double>(row[i]) * static_cast<double>(row[i]);
        const double factor = 1.0 / std::sqrt(squares / static_cast<double>(width) + norm.eps);
        for (std::size_t i = 0; i < width; ++i) {
            const double gain = gains.empty() ? 1.0 : static_cast<double>(gains.data()[i]) + norm.gain_offset;
            row[i] = static_cast<T>(static_cast<double>(row[i]) * factor * gain);
        }
    }
}

/// The rows of consecutive tokens that entries are made of: [2cd], what is summed and then its gates, each of them the
/// first halves (of entries that overlap) and then the second ones.
template <class T>
struct entry_rows {
    const T* data;      ///< the row of token `first`
    std::size_t first;  ///< a token
    std::size_t size;   ///< d
    bool overlapping;

    [[nodiscard]] std::size_t width() const noexcept { return (overlapping ? 4 : 2) * size; }
    /// The part of a token's row that its own entry takes, or that the next one does.
    [[nodiscard]] const T* summed(std::size_t token, bool by_next) const noexcept {
        return data + (token - first) * width() + (overlapping && !by_next ? size : 0);
    }
    [[nodiscard]] const T* gates(std::size_t token, bool by_next) const noexcept {
        return summed(token, by_next) + width() / 2;
    }
};

/// The weighted sum that is entry w before its norm, [d]: in every channel a softmax over the gates of its tokens.
/// @param scratch  2d numbers
template <class T>
void sum_entry(const entry_rows<T>& rows, std::size_t entry, std::size_t ratio, T* scratch, T* out) {
    const std::size_t size = rows.size, own = entry * ratio;
    T *largest = scratch, *total = scratch + size;
    const auto each_token = [&](auto&& use) {
        if (rows.overlapping && entry != 0)
            for (std::size_t t = own - ratio; t < own; ++t) use(rows.gates(t, true), rows.summed(t, true));
        for (std::size_t t = own; t < own + ratio; ++t) use(rows.gates(t, false), rows.summed(t, false));
    };
    std::fill_n(largest, size, -std::numeric_limits<T>::infinity());
    std::fill_n(total, size, T(0));
    std::fill_n(out, size, T(0));
    each_token([&](const T* gate, const T*) {
        for (std::size_t i = 0; i < size; ++i) largest[i] = std::max(largest[i], gate[i]);
    });
    each_token([&](const T* gate, const T* summed) {
        for (std::size_t i = 0; i < size; ++i) {
            const T weight = std::exp(gate[i] - largest[i]);
            total[i] += weight;
            out[i] += weight * summed[i];
        }
    });
    for (std::size_t i = 0; i < size; ++i) out[i] /= total[i];
}

/// Entries [begin, end), normed and rotated: [end - begin, 1, d].
/// @param rows   of all tokens that make them
/// @param norm   and its gains [d]
/// @param table  frequencies for a token's position; the last elements of an entry rotate, in pairs of neighbours
template <class T>
tensor<T, 3> make_entries(const entry_rows<T>& rows, std::size_t begin, std::size_t end, std::size_t ratio,
                          const norm_spec& norm, const vector_input<T>& gains, rope_table table, rope_pairing pairing,
                          executor& threads) {
    auto entries = tensor<T, 3>::from_shape({end - begin, 1, rows.size});
    if (end == begin) return entries;
    threads.run(end - begin, [&](std::size_t i) {
        std::vector<T> scratch(2 * rows.size);
        sum_entry(rows, begin + i, ratio, scratch.data(), entries.data() + i * rows.size);
    });
    rms_normalise(entries.data(), end - begin, rows.size, norm, gains);
    for (double& frequency : table.frequencies) frequency *= static_cast<double>(ratio);  // entry w is at w * ratio
    apply_rope(entries, rows.size - table.rotary_dim(), table, pairing, begin);
    return entries;
}

}  // namespace larql::detail

#endif
