// SPDX-License-Identifier: Apache-2.0
//
// Codes stored row after row, with a grid of scales over them: FP8 and INT8 by tensor, row, group or block; packed
// INT4; MXFP4 and NVFP4. One rule covers them all: value = (code - zero) * scale, scale = table entry of the block,
// times or divided by a factor of the whole matrix where there is one.
//
// Rounding: code - zero is exact in float; a table entry and a factor give one float rounding, the last product one
// more. This is the order of compressed-tensors, modelopt and DeepSeek's own kernels, whose results it matches when
// they compute in float32.
#ifndef LARQL_DETAIL_QUANT_GRID_HPP
#define LARQL_DETAIL_QUANT_GRID_HPP

#include <larql/detail/quant/source.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

namespace larql::detail {

/// How a row's codes are stored. Sub-byte codes lie low bits first.
enum class code_format : std::uint8_t { f8_e4m3, f8_e5m2, f4_e2m1, int8, uint8, uint4, uint2 };

constexpr unsigned code_bits(code_format format) noexcept {
    switch (format) {
        case code_format::f8_e4m3:
        case code_format::f8_e5m2:
        case code_format::int8:
        case code_format::uint8: return 8;
        case code_format::f4_e2m1:
        case code_format::uint4: return 4;
        case code_format::uint2: return 2;
    }
    return 8;
}

template <class Convert>
constexpr std::array<float, 256> byte_table(Convert convert) {
    std::array<float, 256> table{};
    for (std::size_t i = 0; i < 256; ++i) table[i] = convert(static_cast<std::uint8_t>(i));
    return table;
}

inline constexpr std::array<float, 256> f8_e4m3_table = byte_table(f8_e4m3_to_float);
inline constexpr std::array<float, 256> f8_e5m2_table = byte_table(f8_e5m2_to_float);

/// Both values of a byte with two E2M1 codes.
inline constexpr std::array<std::array<float, 2>, 256> f4_pair_table = [] {
    std::array<std::array<float, 2>, 256> table{};
    for (std::size_t i = 0; i < 256; ++i)
        table[i] = {f4_e2m1_to_float(static_cast<std::uint8_t>(i & 15)),
                    f4_e2m1_to_float(static_cast<std::uint8_t>(i >> 4))};
    return table;
}();

inline void decode_bytes(const std::array<float, 256>& table, const std::byte* in, std::size_t count, float* out) {
    for (std::size_t i = 0; i < count; ++i) out[i] = table[static_cast<std::uint8_t>(in[i])];
}

inline void decode_f4(const std::byte* in, std::size_t count, float* out) {
    for (std::size_t i = 0; i < count / 2; ++i)
        std::memcpy(out + 2 * i, f4_pair_table[static_cast<std::uint8_t>(in[i])].data(), 2 * sizeof(float));
    if (count % 2 != 0) out[count - 1] = f4_pair_table[static_cast<std::uint8_t>(in[count / 2])][0];
}

inline void decode_uint4(const std::byte* in, std::size_t count, float* out) {
    for (std::size_t i = 0; i < count / 2; ++i) {
        const auto pair = static_cast<int>(in[i]);
        out[2 * i] = static_cast<float>(pair & 15);
        out[2 * i + 1] = static_cast<float>(pair >> 4);
    }
    if (count % 2 != 0) out[count - 1] = static_cast<float>(static_cast<int>(in[count / 2]) & 15);
}

/// `count` codes from a byte boundary on, as float.
inline void decode_codes(code_format format, const std::byte* in, std::size_t count, float* out) {
    switch (format) {
        case code_format::f8_e4m3: return decode_bytes(f8_e4m3_table, in, count, out);
        case code_format::f8_e5m2: return decode_bytes(f8_e5m2_table, in, count, out);
        case code_format::f4_e2m1: return decode_f4(in, count, out);
        case code_format::uint4: return decode_uint4(in, count, out);
        case code_format::int8: return dequantize_integers(dtype::i8, {in, count}, {out, count});
        case code_format::uint8: return dequantize_integers(dtype::u8, {in, count}, {out, count});
        case code_format::uint2:
            for (std::size_t i = 0; i < count; ++i)
                out[i] = static_cast<float>((static_cast<unsigned>(in[i / 4]) >> (2 * (i % 4))) & 3U);
            return;
    }
}

/// Which scale belongs to which element: entry [r / block_rows, c / block_columns] of each matrix's grid.
struct scale_grid {
    std::uint64_t rows = 1;  ///< entries along a matrix's rows
    std::uint64_t columns = 1;
    std::uint64_t block_rows = 1;  ///< elements that share an entry
    std::uint64_t block_columns = 1;
    bool shared = false;  ///< one grid for all matrices
};

/// Everything that a grid_source needs; weight_finder fills it in after checking the shapes.
struct grid_layout {
    code_format format = code_format::f8_e4m3;
    stored_part codes{};
    std::uint64_t matrix_rows = 0;  ///< rows of one matrix; the row index runs over all matrices
    std::uint64_t columns = 0;
    std::uint64_t row_bytes = 0;
    scale_grid grid{};
    stored_part scales{};
    stored_part zeros{};            ///< one for each scale, or absent
    unsigned packed_zero_bits = 0;  ///< not 0: `zeros` are words [matrix, row * bits / 32, grid column]
    float zero_offset = 0.0F;       ///< added to every zero point
    std::vector<float> factors{};   ///< of one matrix each, or one for all; empty: 1
    bool divide_by_factor = false;
    std::vector<std::uint32_t> group_index{};  ///< group of each column, when not c / block_columns
};

/// Rows of codes under a grid of scales.
class grid_source final : public row_source {
public:
    explicit grid_source(grid_layout layout) : m(std::move(layout)) {}

    void read_rows(std::uint64_t begin, std::uint64_t end, float* out, std::size_t stride) const override {
        scratch s;
        while (begin < end) {  // pieces within one matrix
            const std::uint64_t matrix = begin / m.matrix_rows;
            const std::uint64_t last =
                std::min({end, (matrix + 1) * m.matrix_rows, begin + rows_in_piece(m.row_bytes)});
            read_piece(matrix, begin - matrix * m.matrix_rows, last - matrix * m.matrix_rows, out, stride, s);
            out += static_cast<std::size_t>(last - begin) * stride;
            begin = last;
        }
    }

    [[nodiscard]] std::shared_ptr<const row_source> held(weight_storage storage) const override {
        grid_layout layout = m;
        for (stored_part* part : {&layout.codes, &layout.scales, &layout.zeros}) *part = part->held(storage);
        auto source = std::make_shared<grid_source>(std::move(layout));
        source->make_table();
        return source;
    }

    [[nodiscard]] stored_matrix in_memory() const override {
        if (m_table.empty()) return {};
        return {.data = m.codes.memory.get(),
                .row_bytes = static_cast<std::size_t>(m.row_bytes),
                .kind = row_kind::f8_e4m3,
                .scales = {.data = m_table.data(),
                           .stride = static_cast<std::size_t>(m.grid.columns),
                           .block_rows = static_cast<std::size_t>(m.grid.block_rows),
                           .block_columns = static_cast<std::size_t>(std::min(m.grid.block_columns, m.columns))}};
    }

private:
    /// Decodes the scales of E4M3 codes once, if products can compute with them: the grid repeats evenly over the rows
    /// of all matrices, and its columns are whole vectors.
    void make_table() {
        const bool shifted = m.zeros.info != nullptr || m.packed_zero_bits != 0 || m.zero_offset != 0.0F;
        if (m.format != code_format::f8_e4m3 || shifted || !m.group_index.empty() || m.matrix_rows == 0 ||
            m.row_bytes == 0)
            return;
        const std::uint64_t matrices = m.codes.info->size_bytes / m.row_bytes / m.matrix_rows;
        if (m.grid.block_columns % 16 != 0 && m.grid.block_columns < m.columns) return;
        if (matrices > 1 && m.matrix_rows % m.grid.block_rows != 0) return;
        scratch s;
        for (std::uint64_t matrix = 0; matrix < matrices; ++matrix) {
            read_parameters(matrix, 0, m.grid.rows, s);
            m_table.insert(m_table.end(), s.scales.begin(), s.scales.end());
        }
    }

    struct scratch {
        std::vector<std::byte> codes{};
        std::vector<std::byte> bytes{};
        std::vector<float> scales{};  // of the grid rows of a piece
        std::vector<float> zeros{};
    };

    /// Rows [first, last) of one matrix.
    void read_piece(std::uint64_t matrix, std::uint64_t first, std::uint64_t last, float* out, std::size_t stride,
                    scratch& s) const {
        const auto columns = static_cast<std::size_t>(m.columns);
        const auto row_bytes = static_cast<std::size_t>(m.row_bytes);
        const auto grid_columns = static_cast<std::size_t>(m.grid.columns);
        const std::uint64_t first_grid_row = first / m.grid.block_rows;
        read_parameters(matrix, first_grid_row, (last - 1) / m.grid.block_rows + 1, s);
        s.codes.resize(static_cast<std::size_t>(last - first) * row_bytes);
        m.codes.read((matrix * m.matrix_rows + first) * m.row_bytes, s.codes);
        for (std::uint64_t r = first; r < last; ++r, out += stride) {
            decode_codes(m.format, s.codes.data() + static_cast<std::size_t>(r - first) * row_bytes, columns, out);
            const std::size_t at = static_cast<std::size_t>(r / m.grid.block_rows - first_grid_row) * grid_columns;
            if (m.group_index.empty())
                apply_groups(out, columns, static_cast<std::size_t>(m.grid.block_columns), &s.zeros[at], &s.scales[at]);
            else
                apply_indexed(out, m.group_index, &s.zeros[at], &s.scales[at]);
        }
    }

    /// Scales and zero points of grid rows [first, last) of one matrix.
    void read_parameters(std::uint64_t matrix, std::uint64_t first, std::uint64_t last, scratch& s) const {
        const std::uint64_t at = ((m.grid.shared ? 0 : matrix * m.grid.rows) + first) * m.grid.columns;
        s.scales.resize(static_cast<std::size_t>((last - first) * m.grid.columns));
        m.scales.read(at, s.scales, s.bytes);
        if (!m.factors.empty()) {
            const float factor = m.factors[m.factors.size() == 1 ? 0 : static_cast<std::size_t>(matrix)];
            for (float& scale : s.scales) scale = m.divide_by_factor ? scale / factor : scale * factor;
        }
        s.zeros.assign(s.scales.size(), 0.0F);
        if (m.packed_zero_bits != 0)
            read_packed_zeros(matrix, first, last, s);
        else if (m.zeros.info != nullptr)
            m.zeros.read(at, s.zeros, s.bytes);
        for (float& zero : s.zeros) zero += m.zero_offset;
    }

    /// compressed-tensors packs zero points along the rows, low bits first, each matrix on its own.
    void read_packed_zeros(std::uint64_t matrix, std::uint64_t first, std::uint64_t last, scratch& s) const {
        const std::uint64_t per_word = 32 / m.packed_zero_bits;
        const std::uint64_t first_word = first / per_word;
        const auto columns = static_cast<std::size_t>(m.grid.columns);
        s.bytes.resize(static_cast<std::size_t>(ceil_div(last, per_word) - first_word) * columns * 4);
        m.zeros.read((matrix * ceil_div(m.matrix_rows, per_word) + first_word) * m.grid.columns * 4, s.bytes);
        for (std::uint64_t r = first; r < last; ++r) {
            const std::byte* in = s.bytes.data() + static_cast<std::size_t>(r / per_word - first_word) * columns * 4;
            float* out = &s.zeros[static_cast<std::size_t>(r - first) * columns];
            const auto shift = static_cast<unsigned>(r % per_word) * m.packed_zero_bits;
            for (std::size_t g = 0; g < columns; ++g)
                out[g] = static_cast<float>((load_u32_le(in + 4 * g) >> shift) & ((1U << m.packed_zero_bits) - 1U));
        }
    }

    grid_layout m;
    std::vector<float> m_table{};  // of E4M3 in memory: scales of all matrices, one after the other
};

}  // namespace larql::detail

#endif
