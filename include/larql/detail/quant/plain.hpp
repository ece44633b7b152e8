// SPDX-License-Identifier: Apache-2.0
//
// Weights stored as they are: floating-point numbers or ggml blocks, row after row, perhaps with one factor for the
// tensor or for each leading index (GGUF's sibling `.scale`).
#ifndef LARQL_DETAIL_QUANT_PLAIN_HPP
#define LARQL_DETAIL_QUANT_PLAIN_HPP

#include <larql/detail/quant/source.hpp>

#include <cstddef>
#include <cstdint>
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
        m_numbers.file->read_rows(*m_numbers.info, begin, end, out, stride);
        if (m_factors.empty()) return;
        for (std::uint64_t r = begin; r < end; ++r, out += stride) {
            const float factor = m_factors[static_cast<std::size_t>(r / m_rows_per_factor)];
            for (std::size_t c = 0; c < m_columns; ++c) out[c] *= factor;
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
