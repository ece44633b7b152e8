// SPDX-License-Identifier: Apache-2.0
//
// Weights stored as they are: floating-point numbers or ggml blocks, row after row, perhaps with one factor for the
// tensor or for each leading index (GGUF's sibling `.scale`).
#ifndef LARQL_DETAIL_QUANT_PLAIN_HPP
#define LARQL_DETAIL_QUANT_PLAIN_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/ggml/stored.hpp>
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
        if (m_numbers.memory == nullptr)
            m_numbers.file->read_rows(*m_numbers.info, begin, end, out, stride);
        else
            decode_rows(begin, end, out, stride);
        if (m_factors.empty()) return;
        for (std::uint64_t r = begin; r < end; ++r, out += stride) {
            const float factor = m_factors[static_cast<std::size_t>(r / m_rows_per_factor)];
            for (std::size_t c = 0; c < m_columns; ++c) out[c] *= factor;
        }
    }

    [[nodiscard]] std::shared_ptr<const row_source> held(weight_storage storage) const override {
        return std::make_shared<plain_source>(m_numbers.held(storage), m_factors, m_rows_per_factor, m_where);
    }

    [[nodiscard]] stored_matrix in_memory() const override {
        if (m_numbers.memory == nullptr) return {};
        stored_matrix out = stored_matrix_of(m_numbers.type, m_numbers.memory.get(), m_columns);
        if (!m_factors.empty())
            out.scales = {.data = m_factors.data(),
                          .stride = 1,
                          .block_rows = static_cast<std::size_t>(m_rows_per_factor),
                          .block_columns = m_columns};
        return out;
    }

private:
    void decode_rows(std::uint64_t begin, std::uint64_t end, float* out, std::size_t stride) const {
        const dtype_traits& traits = traits_of(m_numbers.type);
        require_whole_blocks(traits);
        const std::size_t row_bytes = m_columns / traits.block_elements * traits.block_bytes;
        for (std::uint64_t r = begin; r < end; ++r, out += stride)
            dequantize(m_numbers.type, {m_numbers.memory.get() + static_cast<std::size_t>(r) * row_bytes, row_bytes},
                       {out, m_columns});
    }

    void require_whole_blocks(const dtype_traits& traits) const {
        if (m_columns % traits.block_elements != 0)
            fail(errc::shape_mismatch,
                 concat({"rows that do not begin and end on bytes: expected a multiple of ", traits.block_elements,
                         " elements of ", traits.name, ", got ", m_columns}),
                 m_where);
    }

    stored_part m_numbers;
    std::size_t m_columns;
    std::vector<float> m_factors;
    std::uint64_t m_rows_per_factor;
    error_where m_where;
};

}  // namespace larql::detail

#endif
