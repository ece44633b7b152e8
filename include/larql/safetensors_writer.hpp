// SPDX-License-Identifier: Apache-2.0
//
// Writing one safetensors file as a stream: no more of it is held in memory than the header.
#ifndef LARQL_SAFETENSORS_WRITER_HPP
#define LARQL_SAFETENSORS_WRITER_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/io/json_string.hpp>
#include <larql/detail/io/utf8.hpp>
#include <larql/detail/safetensors/header.hpp>
#include <larql/detail/tensors/tensor_output.hpp>
#include <larql/error.hpp>
#include <larql/tensor_info.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql {

namespace detail {

/// Orders tensors by falling element size, so that each begins at a multiple of its own.
inline void sort_for_safetensors(std::vector<tensor_info>& tensors) {
    std::stable_sort(tensors.begin(), tensors.end(), [](const tensor_info& a, const tensor_info& b) {
        return traits_of(a.type).block_bytes > traits_of(b.type).block_bytes;
    });
}

/// All that precedes the tensors' data.
/// @param tensors  with offsets from the start of the data
/// @throws error limit_exceeded if readers would not accept it
inline std::string safetensors_header(std::span<const tensor_info> tensors,
                                      const std::map<std::string, std::string>& metadata, const error_where& where) {
    std::string out(8, '\0');
    out += '{';
    if (!metadata.empty()) {
        out += "\"__metadata__\":{";
        for (const auto& [key, value] : metadata) {
            append_json_string(out, key);
            out += ':';
            append_json_string(out, value);
            out += ',';
        }
        out.back() = '}';
        out += ',';
    }
    for (const tensor_info& info : tensors) {
        append_json_string(out, info.name);
        out += ":{\"dtype\":\"";
        out += traits_of(info.type).safetensors_name;
        out += "\",\"shape\":[";
        for (const std::uint64_t extent : info.shape) out += concat({extent, ","});
        if (out.back() == ',') out.pop_back();
        out += concat({"],\"data_offsets\":[", info.offset, ",", info.offset + info.size_bytes, "]},"});
    }
    if (out.back() == ',') out.pop_back();
    out += '}';
    out.resize((out.size() + 7) / 8 * 8, ' ');
    const std::uint64_t length = out.size() - 8;
    if (length > safetensors_max_header_bytes)
        fail(errc::limit_exceeded,
             concat({"header too large: expected at most ", safetensors_max_header_bytes, " bytes, got ", length}),
             where);
    for (std::size_t i = 0; i < 8; ++i) out[i] = static_cast<char>(length >> (8 * i));
    return out;
}

}  // namespace detail

/// Writes a safetensors file: declare every tensor, give the bytes of each in pieces, commit.
///
/// The file grows beside its target and takes the name at `commit`, complete and synced; before, and after any error,
/// there is nothing under that name (or the old file, when replacing). Move-only.
///
/// Tensors lie in the order of falling element size and, within a size, of declaration, so that each begins at a
/// multiple of its element size; the data begins at a multiple of 8.
class safetensors_writer {
public:
    /// @throws error already_exists if the target exists and replacing was not asked for, or is one of the inputs; io
    ///         or not_a_file if the temporary file cannot be made
    explicit safetensors_writer(const std::filesystem::path& target, const output_options& options = {})
        : m_out(target, options) {}

    /// Adds or replaces a string of `__metadata__`.
    /// @throws error corrupt_header if either is not UTF-8, bad_value after the first data
    void set_metadata(std::string_view key, std::string_view value) {
        m_out.require_declaring();
        if (!detail::is_utf8(key) || !detail::is_utf8(value))
            detail::fail(errc::corrupt_header, "metadata is not UTF-8", m_out.where(key));
        m_metadata.insert_or_assign(std::string(key), std::string(value));
    }

    /// Declares a tensor.
    /// @param shape  row-major; empty for a scalar
    /// @throws error unsupported_dtype if safetensors has no such type, corrupt_header for a bad name, shape_mismatch
    ///         or bad_value for a bad shape, bad_value after the first data
    void add_tensor(std::string_view name, dtype type, std::vector<std::uint64_t> shape) {
        if (traits_of(type).safetensors_name.empty())
            detail::fail(errc::unsupported_dtype, "expected a type of safetensors, got " + std::string(to_string(type)),
                         m_out.where(name));
        if (!detail::is_utf8(name) || name == "__metadata__")
            detail::fail(errc::corrupt_header, "expected a name in UTF-8 other than __metadata__, got another",
                         m_out.where(name));
        m_out.declare(name, type, std::move(shape));
    }

    /// Appends bytes to a declared tensor. Tensors may be filled in any order, and by turns.
    /// @throws error missing_tensor, bad_value for more bytes than declared, duplicate_name if a name was declared
    ///         twice, limit_exceeded if the header would be larger than readers accept, io
    void write(std::string_view name, std::span<const std::byte> bytes) {
        open();
        m_out.append(name, bytes);
    }

    /// Completes the file: syncs it, reads its header back, renames it, syncs the folder. Call once.
    /// @throws error bad_value if a tensor lacks data, io
    void commit() {
        open();
        m_out.commit([](const std::filesystem::path& path) {
            const detail::input_file file = detail::input_file::open(path);
            const auto read = [&](std::uint64_t offset, std::span<std::byte> out) { file.read_at(offset, out); };
            detail::safetensors_contents contents =
                detail::parse_safetensors(file.size_bytes(), detail::path_text(path), read);
            return detail::read_back{std::move(contents.tensors), std::move(contents.names)};
        });
    }

private:
    void open() {
        if (m_out.is_open()) return;
        detail::sort_for_safetensors(m_out.tensors());
        m_out.place(1);
        const std::string header = detail::safetensors_header(m_out.tensors(), m_metadata, m_out.where());
        m_out.open(header);
    }

    detail::tensor_output m_out;
    std::map<std::string, std::string> m_metadata{};
};

}  // namespace larql

#endif
