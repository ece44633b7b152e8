// SPDX-License-Identifier: Apache-2.0
//
// Weights stored the other way round: AWQ and GPTQ ([in, out]) and GPT-OSS's MXFP4 experts. A logical row is a column
// of the storage, so rows are decoded in tiles that keep the touched lines in the first-level cache, straight from the
// map: the bytes of a few rows are scattered over the whole tensor, too thinly for ordinary reads.
#ifndef LARQL_DETAIL_QUANT_TRANSPOSED_HPP
#define LARQL_DETAIL_QUANT_TRANSPOSED_HPP

#include <larql/detail/quant/grid.hpp>
#include <larql/detail/quant/source.hpp>

#include <algorithm>
#include <array>
#include <utility>

namespace larql::detail {

/// AWQ puts column 8 j + (0, 2, 4, 6, 1, 3, 5, 7)[i] into nibble i of word j; this is the nibble of column 8 j + c.
/// Source: AutoAWQ, awq/modules/linear/gemm.py.
inline constexpr std::array<unsigned, 8> awq_nibble = {0, 4, 1, 5, 2, 6, 3, 7};

/// Where qweight and qzeros keep their codes.
enum class packed_layout : std::uint8_t {
    awq,   ///< qweight [in, out / 8]: words along the outputs, nibbles in AWQ's order
    gptq,  ///< qweight [in * bits / 32, out]: words along the inputs, low bits first
};

/// A linear layer in AWQ's or GPTQ's storage; weight_reader fills it in after checking the shapes.
struct packed_linear {
    packed_layout layout = packed_layout::awq;
    unsigned bits = 4;  ///< 4; GPTQ also 8 and 2
    std::uint64_t inputs = 0;
    std::uint64_t outputs = 0;
    std::uint64_t group = 0;  ///< inputs that share a scale, when group_index is empty
    std::uint64_t groups = 0;
    mapped_part codes{};
    mapped_part zeros{};   ///< [groups, outputs * bits / 32], nibble order as in qweight
    mapped_part scales{};  ///< [groups, outputs]
    dtype scale_type = dtype::f16;
    unsigned zero_increment = 0;  ///< 1 where zero points are stored less one (GPTQ's first format)
    std::vector<std::uint32_t> group_index{};
};

/// Logical rows [out] of a packed linear layer.
class packed_linear_source final : public row_source {
public:
    explicit packed_linear_source(packed_linear layer) : m(std::move(layer)) {}

    void read_rows(std::uint64_t begin, std::uint64_t end, float* out, std::size_t stride) const override {
        constexpr std::uint64_t tile = 64;
        const auto groups = static_cast<std::size_t>(m.groups);
        const auto inputs = static_cast<std::size_t>(m.inputs);
        std::vector<float> scale(tile * groups);
        std::vector<float> zero(tile * groups);
        for (std::uint64_t first = begin; first < end; first += tile) {
            const std::uint64_t last = std::min(end, first + tile);
            float* const to = out + static_cast<std::size_t>(first - begin) * stride;
            load_parameters(first, last, scale, zero);
            decode_tile(first, last, to, stride);
            for (std::size_t i = 0; i < last - first; ++i) {
                if (m.group_index.empty())
                    apply_groups(to + i * stride, inputs, static_cast<std::size_t>(m.group), &zero[i * groups],
                                 &scale[i * groups]);
                else
                    apply_indexed(to + i * stride, m.group_index, &zero[i * groups], &scale[i * groups]);
            }
        }
    }

    [[nodiscard]] std::shared_ptr<const row_source> held(weight_storage storage) const override {
        packed_linear layer = m;
        for (mapped_part* part : {&layer.codes, &layer.zeros, &layer.scales}) *part = part->held(storage);
        return std::make_shared<packed_linear_source>(std::move(layer));
    }

private:
    /// Scales and zero points of outputs [first, last), as [output, group].
    void load_parameters(std::uint64_t first, std::uint64_t last, std::span<float> scale, std::span<float> zero) const {
        const auto groups = static_cast<std::size_t>(m.groups);
        const auto count = static_cast<std::size_t>(last - first);
        const std::size_t zero_row = static_cast<std::size_t>(m.outputs) * m.bits / 8;
        std::array<float, 64> values{};
        for (std::size_t g = 0; g < groups; ++g) {
            const std::size_t size = traits_of(m.scale_type).block_bytes;
            const auto at = static_cast<std::size_t>(g * m.outputs + first);
            dequantize(m.scale_type, m.scales.bytes.subspan(at * size, count * size),
                       std::span<float>(values).first(count));
            for (std::size_t i = 0; i < count; ++i) {
                scale[i * groups + g] = values[i];
                const unsigned stored = code_along_outputs(m.zeros.bytes.data() + g * zero_row, first + i);
                // Stored less one modulo 2^bits: the mask brings a zero point of 0 back.
                zero[i * groups + g] = static_cast<float>((stored + m.zero_increment) & mask());
            }
        }
    }

    [[nodiscard]] unsigned mask() const { return (1U << m.bits) - 1U; }

    /// The code of output `o` in a row of words that run along the outputs.
    [[nodiscard]] unsigned code_along_outputs(const std::byte* row, std::uint64_t o) const {
        const std::uint64_t per_word = 32 / m.bits;
        const auto lane = static_cast<unsigned>(o % per_word);
        const unsigned shift = m.layout == packed_layout::awq ? 4 * awq_nibble[lane] : m.bits * lane;
        return (load_u32_le(row + static_cast<std::size_t>(o / per_word) * 4) >> shift) & mask();
    }

    void decode_tile(std::uint64_t first, std::uint64_t last, float* out, std::size_t stride) const {
        constexpr std::size_t word_rows = 128;  // of storage: their lines stay in the first-level cache
        const std::size_t total = m.codes.bytes.size() / row_bytes();
        for (std::size_t w = 0; w < total; w += word_rows) {
            const std::size_t end = std::min(total, w + word_rows);
            for (std::uint64_t o = first; o < last; ++o) {
                float* const row = out + static_cast<std::size_t>(o - first) * stride;
                if (m.layout == packed_layout::awq)
                    decode_awq(o, w, end, row);
                else
                    decode_gptq(o, w, end, row);
            }
        }
    }

    [[nodiscard]] std::size_t row_bytes() const {
        const auto outputs = static_cast<std::size_t>(m.outputs);
        return m.layout == packed_layout::awq ? outputs / 8 * 4 : outputs * 4;
    }

    void decode_awq(std::uint64_t o, std::size_t begin, std::size_t end, float* row) const {
        const std::byte* in = m.codes.bytes.data() + static_cast<std::size_t>(o / 8) * 4;
        const unsigned shift = 4 * awq_nibble[static_cast<std::size_t>(o % 8)];
        const std::size_t step = row_bytes();
        for (std::size_t k = begin; k < end; ++k)
            row[k] = static_cast<float>(static_cast<int>((load_u32_le(in + k * step) >> shift) & 15U));
    }

    void decode_gptq(std::uint64_t o, std::size_t begin, std::size_t end, float* row) const {
        const std::byte* in = m.codes.bytes.data() + static_cast<std::size_t>(o) * 4;
        const std::size_t step = row_bytes();
        const std::size_t per_word = 32 / m.bits;
        for (std::size_t w = begin; w < end; ++w) {
            std::uint32_t word = load_u32_le(in + w * step);
            for (std::size_t i = 0; i < per_word; ++i, word >>= m.bits)
                row[w * per_word + i] = static_cast<float>(static_cast<int>(word & mask()));
        }
    }

    packed_linear m;
};

/// MXFP4 blocks [matrices, rows, block, 16] with scales [matrices, rows, block], read as the transpose of each matrix:
/// logical [matrices, 32 * blocks, rows], as transformers' GPT-OSS holds its experts.
class transposed_mxfp4_source final : public row_source {
public:
    transposed_mxfp4_source(mapped_part blocks, mapped_part scales, std::uint64_t rows, std::uint64_t row_blocks)
        : m_blocks(std::move(blocks)),
          m_scales(std::move(scales)),
          m_rows(static_cast<std::size_t>(rows)),
          m_row_blocks(static_cast<std::size_t>(row_blocks)) {}

    void read_rows(std::uint64_t begin, std::uint64_t end, float* out, std::size_t stride) const override {
        while (begin < end) {  // all the wanted logical rows that lie in one column of blocks
            const std::uint64_t last = std::min(end, (begin / 32 + 1) * 32);
            read_block_column(begin, last, out, stride);
            out += static_cast<std::size_t>(last - begin) * stride;
            begin = last;
        }
    }

    [[nodiscard]] std::shared_ptr<const row_source> held(weight_storage storage) const override {
        return std::make_shared<transposed_mxfp4_source>(m_blocks.held(storage), m_scales.held(storage), m_rows,
                                                         m_row_blocks);
    }

private:
    void read_block_column(std::uint64_t begin, std::uint64_t end, float* out, std::size_t stride) const {
        constexpr std::size_t tile = 128;
        const auto block = static_cast<std::size_t>(begin / 32);  // over all matrices
        const std::size_t first = block / m_row_blocks * m_rows * m_row_blocks + block % m_row_blocks;
        std::array<float, tile> scale{};
        for (std::size_t r = 0; r < m_rows; r += tile) {
            const std::size_t count = std::min(tile, m_rows - r);
            const std::size_t at = first + r * m_row_blocks;
            for (std::size_t i = 0; i < count; ++i)
                scale[i] = f8_e8m0_to_float(static_cast<std::uint8_t>(m_scales.bytes[at + i * m_row_blocks]));
            for (std::uint64_t c = begin; c < end; ++c) {
                const auto element = static_cast<std::size_t>(c % 32);
                const std::byte* in = m_blocks.bytes.data() + at * 16 + element / 2;
                float* const to = out + static_cast<std::size_t>(c - begin) * stride + r;
                for (std::size_t i = 0; i < count; ++i)
                    to[i] = f4_pair_table[static_cast<std::uint8_t>(in[i * m_row_blocks * 16])][element % 2] * scale[i];
            }
        }
    }

    mapped_part m_blocks;
    mapped_part m_scales;
    std::size_t m_rows;
    std::size_t m_row_blocks;
};

}  // namespace larql::detail

#endif
