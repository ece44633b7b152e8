// SPDX-License-Identifier: Apache-2.0
//
// What every storage scheme of a weight has in common: rows on demand, and small tensors of parameters.
#ifndef LARQL_DETAIL_QUANT_SOURCE_HPP
#define LARQL_DETAIL_QUANT_SOURCE_HPP

#include <larql/detail/ceil_div.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/gemm/source.hpp>
#include <larql/detail/gemm/stored_matrix.hpp>
#include <larql/detail/tensors/sharded_tensors.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>
#include <larql/ggml_blocks.hpp>
#include <larql/tensor_info.hpp>
#include <larql/weight_storage.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace larql::detail {

/// Decodes rows of one logical weight. Implementations hold the file that they read from and no state that changes.
class row_source {
public:
    row_source() = default;
    row_source(const row_source&) = delete;
    row_source& operator=(const row_source&) = delete;
    virtual ~row_source() = default;

    /// Writes rows [begin, end) to `out`, `stride` floats apart. The caller has checked the range and the stride.
    virtual void read_rows(std::uint64_t begin, std::uint64_t end, float* out, std::size_t stride) const = 0;

    /// The same rows, read from memory.
    /// @param storage  mapped or copied
    [[nodiscard]] virtual std::shared_ptr<const row_source> held(weight_storage storage) const = 0;

    /// The rows as products of few rows compute from them, valid as long as this object; nothing if the storage is not
    /// one of theirs, or not in memory.
    [[nodiscard]] virtual stored_matrix in_memory() const { return {}; }
};

/// Numbers of any format as float: integers as their values.
inline void to_floats(dtype type, std::span<const std::byte> bytes, std::span<float> out) {
    if (traits_of(type).kind == dtype_kind::integer)
        dequantize_integers(type, bytes, out);
    else
        dequantize(type, bytes, out);
}

/// Bytes that were read into memory of their own.
inline std::shared_ptr<const std::byte> copy_of(const sharded_tensors& file, const tensor_info& info) {
    auto memory = std::make_shared<aligned_array<std::byte>>(static_cast<std::size_t>(info.size_bytes));
    file.read_bytes(info, 0, {memory->data(), static_cast<std::size_t>(info.size_bytes)});
    const std::byte* const data = memory->data();
    return {std::move(memory), data};
}

/// A tensor of a checkpoint that is part of a weight; empty when `info` is null. Unless it is held in memory, it reads
/// with ordinary reads, so that a file which shrinks meanwhile is an error and not a signal.
struct stored_part {
    std::shared_ptr<const sharded_tensors> file{};  ///< holds `info` too
    const tensor_info* info = nullptr;
    dtype type = dtype::f32;                    ///< what the bytes mean: F8_E8M0 where U8 holds exponents
    std::shared_ptr<const std::byte> memory{};  ///< all bytes, if held

    /// The same part in the map (or in memory of its own).
    [[nodiscard]] stored_part held(weight_storage storage) const {
        stored_part part = *this;
        if (info == nullptr) return part;
        part.memory = storage == weight_storage::copied
                          ? copy_of(*file, *info)
                          : std::shared_ptr<const std::byte>(file, file->bytes(*info).data());
        return part;
    }

    /// Bytes [first, first + out.size()) of the tensor.
    void read(std::uint64_t first, std::span<std::byte> out) const {
        if (memory == nullptr) return file->read_bytes(*info, first, out);
        if (!out.empty()) std::memcpy(out.data(), memory.get() + first, out.size());
    }

    /// Elements [first, first + out.size()) as float. `bytes` is scratch.
    void read(std::uint64_t first, std::span<float> out, std::vector<std::byte>& bytes) const {
        const std::size_t size = traits_of(type).block_bytes;
        bytes.resize(out.size() * size);
        read(first * size, bytes);
        to_floats(type, bytes, out);
    }

    /// All elements of a small tensor.
    [[nodiscard]] std::vector<float> read_all() const {
        std::vector<float> out(static_cast<std::size_t>(info->element_count()));
        std::vector<std::byte> bytes;
        read(0, out, bytes);
        return out;
    }
};

/// The bytes of such a tensor in memory, mapped to begin with.
struct mapped_part {
    std::shared_ptr<const void> owner{};  ///< holds the map
    std::span<const std::byte> bytes{};

    [[nodiscard]] mapped_part held(weight_storage storage) const {
        if (storage != weight_storage::copied) return *this;
        auto memory = std::make_shared<std::vector<std::byte>>(bytes.begin(), bytes.end());
        const std::span<const std::byte> copy = *memory;
        return {std::move(memory), copy};
    }
};

/// Rows that were decoded into memory.
class decoded_source final : public row_source {
public:
    decoded_source(const row_source& from, std::uint64_t rows, std::uint64_t columns)
        : m_columns(static_cast<std::size_t>(columns)),
          m_numbers(std::make_shared<aligned_array<float>>(static_cast<std::size_t>(rows) * m_columns)) {
        if (rows != 0) from.read_rows(0, rows, m_numbers->data(), m_columns);
    }

    void read_rows(std::uint64_t begin, std::uint64_t end, float* out, std::size_t stride) const override {
        for (std::uint64_t r = begin; r < end; ++r, out += stride)
            std::copy_n(m_numbers->data() + static_cast<std::size_t>(r) * m_columns, m_columns, out);
    }
    [[nodiscard]] std::shared_ptr<const row_source> held(weight_storage) const override {
        return std::make_shared<decoded_source>(*this);
    }
    [[nodiscard]] stored_matrix in_memory() const override {
        return {reinterpret_cast<const std::byte*>(m_numbers->data()), m_columns * sizeof(float)};
    }

    decoded_source(const decoded_source& other)
        : row_source(), m_columns(other.m_columns), m_numbers(other.m_numbers) {}
    decoded_source& operator=(const decoded_source&) = delete;

private:
    std::size_t m_columns;
    std::shared_ptr<aligned_array<float>> m_numbers;
};

/// How many stored bytes a source works on at once: they and their floats stay in the second-level cache.
inline constexpr std::uint64_t piece_bytes = 128 * 1024;

inline std::uint64_t rows_in_piece(std::uint64_t row_bytes) {
    return row_bytes == 0 || row_bytes > piece_bytes ? 1 : piece_bytes / row_bytes;
}

/// Four bytes, little-endian, of any alignment.
inline std::uint32_t load_u32_le(const std::byte* in) noexcept {
    return static_cast<std::uint32_t>(in[0]) | static_cast<std::uint32_t>(in[1]) << 8 |
           static_cast<std::uint32_t>(in[2]) << 16 | static_cast<std::uint32_t>(in[3]) << 24;
}

/// A shape as "[a, b]", for messages.
inline std::string shape_text(std::span<const std::uint64_t> shape) {
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size(); ++i) text += concat({(i == 0 ? "" : ", "), shape[i]});
    return text + "]";
}

/// Turns codes into values in place: row[c] = (row[c] - zero) * scale, with the zero and scale of c's group.
inline void apply_groups(float* row, std::size_t columns, std::size_t group, const float* zero, const float* scale) {
    for (std::size_t begin = 0; begin < columns; begin += group, ++zero, ++scale) {
        const std::size_t end = columns - begin < group ? columns : begin + group;
        const float z = *zero;
        const float s = *scale;
        for (std::size_t c = begin; c < end; ++c) row[c] = (row[c] - z) * s;
    }
}

/// The same where column c belongs to group index[c].
inline void apply_indexed(float* row, std::span<const std::uint32_t> index, const float* zero, const float* scale) {
    for (std::size_t c = 0; c < index.size(); ++c) row[c] = (row[c] - zero[index[c]]) * scale[index[c]];
}

/// Reads a g_idx tensor: the group of every column.
/// @return empty when every entry is -1, which is how an unused g_idx is stored
/// @throws error unsupported_dtype unless I32, bad_value for an entry that names no group
inline std::vector<std::uint32_t> read_group_index(dtype type, std::span<const std::byte> bytes, std::uint64_t groups,
                                                   const error_where& where) {
    if (type != dtype::i32)
        fail(errc::unsupported_dtype, "g_idx is " + std::string(to_string(type)) + ", expected I32", where);
    std::vector<std::uint32_t> index(bytes.size() / 4);
    std::size_t unset = 0;
    for (std::size_t i = 0; i < index.size(); ++i) {
        index[i] = load_u32_le(bytes.data() + 4 * i);
        if (index[i] == 0xffffffffU) ++unset;
    }
    if (unset == index.size()) return {};
    for (std::size_t i = 0; i < index.size(); ++i)
        if (index[i] >= groups)
            fail(errc::bad_value,
                 concat(
                     {"g_idx[", i, "] is ", static_cast<std::int32_t>(index[i]), ", expected a group below ", groups}),
                 where);
    return index;
}

}  // namespace larql::detail

#endif
