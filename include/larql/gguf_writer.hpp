// SPDX-License-Identifier: Apache-2.0
//
// Writing one GGUF file (version 3) as a stream: no more of it is held in memory than the metadata.
#ifndef LARQL_GGUF_WRITER_HPP
#define LARQL_GGUF_WRITER_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/gguf/metadata.hpp>
#include <larql/detail/gguf/parse.hpp>
#include <larql/detail/io/header_memory.hpp>
#include <larql/detail/io/input_file.hpp>
#include <larql/detail/tensors/tensor_output.hpp>
#include <larql/error.hpp>
#include <larql/tensor_info.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql {

/// Writes a GGUF file: set metadata and declare every tensor, give the bytes of each in pieces, commit.
///
/// The file grows beside its target and takes the name at `commit`, complete and synced; before, and after any error,
/// there is nothing under that name (or the old file, when replacing). Move-only. Tensors lie in the order of
/// declaration, aligned to general.alignment (32 unless set).
class gguf_writer {
public:
    /// @throws error already_exists if the target exists and replacing was not asked for, or is one of the inputs; io
    ///         or not_a_file if the temporary file cannot be made
    explicit gguf_writer(const std::filesystem::path& target, const output_options& options = {})
        : m_out(target, options) {}

    /// Adds a metadata value, or replaces it in its place. Stored as what it is: std::uint32_t as uint32, float as
    /// float32, any string as string, std::vector as array (also nested). A gguf_value of an open file, of any version,
    /// is copied with its type.
    /// @throws error corrupt_header for a bad key, wrong_type or bad_value for a bad general.alignment, bad_value after
    ///         the first data
    template <class T>
    void set(std::string_view key, const T& value) {
        m_out.require_declaring();
        m_metadata.set(key, value, m_out.where().file);
    }

    /// Drops a metadata value, if there is one.
    void remove(std::string_view key) {
        m_out.require_declaring();
        m_metadata.remove(key);
    }

    /// Declares a tensor.
    /// @param shape  row-major, one to four dimensions
    /// @throws error unsupported_dtype if GGUF has no such type, corrupt_header for a bad name or rank, shape_mismatch
    ///         or bad_value for a bad shape, bad_value after the first data
    void add_tensor(std::string_view name, dtype type, std::vector<std::uint64_t> shape) {
        if (traits_of(type).ggml_number < 0)
            detail::fail(errc::unsupported_dtype, "expected a type of GGUF, got " + std::string(to_string(type)),
                         m_out.where(name));
        detail::check_gguf_name(name, detail::gguf_max_name_bytes, m_out.where(name));
        if (shape.empty() || shape.size() > detail::gguf_max_dimensions)
            detail::fail(
                errc::corrupt_header,
                detail::concat({"expected 1 to ", detail::gguf_max_dimensions, " dimensions, got ", shape.size()}),
                m_out.where(name));
        m_out.declare(name, type, std::move(shape));
    }

    /// Appends bytes to a declared tensor. Tensors may be filled in any order, and by turns.
    /// @throws error missing_tensor, bad_value for more bytes than declared, duplicate_name if a name was declared
    ///         twice, io
    void write(std::string_view name, std::span<const std::byte> bytes) {
        open();
        m_out.append(name, bytes);
    }

    /// Completes the file: syncs it, reads its header back, renames it, syncs the folder. Call once.
    /// @throws error bad_value if a tensor lacks data, io
    void commit() {
        open();
        m_out.commit([](const std::filesystem::path& path) {
            const auto file = detail::input_file::open(path);
            auto header = std::make_shared<detail::header_memory>(file);
            detail::gguf_contents contents = detail::gguf_parser(*header, detail::path_text(path)).parse();
            header->detach();
            return detail::read_back{std::move(contents.tensors), std::move(header)};
        });
    }

private:
    void open() {
        if (m_out.is_open()) return;
        m_out.place(m_metadata.alignment());
        m_out.open(m_metadata.header(m_out.tensors()));
    }

    detail::tensor_output m_out;
    detail::gguf_metadata m_metadata{};
};

}  // namespace larql

#endif
