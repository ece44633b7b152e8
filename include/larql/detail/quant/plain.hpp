// SPDX-License-Identifier: Apache-2.0
//
// Weights stored as they are: floating-point numbers or ggml blocks, row after row, perhaps with one factor for the
// tensor or for each leading index (GGUF's sibling `.scale`).
#ifndef LARQL_DETAIL_QUANT_PLAIN_HPP
#define LARQL_DETAIL_QUANT_PLAIN_HPP

#include <larql/detail/quant/source.hpp>

#include <algorithm>
#include <bit>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace larql::detail {

/// Rows of a tensor whose bytes mean what its dtype says.
class plain_source final : public row_source {
public:
    /// @param factors  one for each run of `rows_per_factor` rows, or empty
    /// @param where    named in the error when the tensor holds integers
    plain_source(stored_part numbers, std::vector<float> factors, std::uint64_t rows_per_factor, error_where where)
        : m_numbers(std::move(numbers)),
          m_columns(static_cast<std::size_t>(m_numbers.info->columns())),
          m_factors(std::move(factors)),
          m_rows_per_factor(rows_per_factor),
          m_where(std::move(where)) {}

    void read_rows(std::uint64_t begin, std::uint64_t end, float* out, std::size_t stride) const override {
        const dtype_traits& traits = traits_of(m_numbers.type);
        if (traits.kind == dtype_kind::integer)
            fail(errc::unsupported_dtype,
                 std::string(traits.name) + " holds integers, which are not read as float; use the raw bytes", m_where);
        const std::size_t row_bytes = m_columns / traits.block_elements * traits.block_bytes;
        if (m_numbers.type == dtype::f32 && stride == m_columns && m_factors.empty() &&
            std::endian::native == std::endian::little) {
            const auto count = static_cast<std::size_t>(end - begin) * m_columns;
            return m_numbers.read(begin * row_bytes, std::as_writable_bytes(std::span(out, count)));
        }
        std::vector<std::byte> bytes;
        for (std::uint64_t r = begin; r < end;) {
            const auto count = static_cast<std::size_t>(std::min(end - r, rows_in_piece(row_bytes)));
            bytes.resize(count * row_bytes);
            m_numbers.read(r * row_bytes, bytes);
            for (std::size_t i = 0; i < count; ++i, ++r, out += stride) {
                dequantize(traits.type, std::span(bytes).subspan(i * row_bytes, row_bytes), {out, m_columns});
                if (m_factors.empty()) continue;
                const float factor = m_factors[static_cast<std::size_t>(r / m_rows_per_factor)];
                for (std::size_t c = 0; c < m_columns; ++c) out[c] *= factor;
            }
        }
    }

private:
    stored_part m_numbers;
    std::size_t m_columns;
    std::vector<float> m_factors;
    std::uint64_t m_rows_per_factor;
    error_where m_where;
};

}  // namespace larql::detail

#endif
