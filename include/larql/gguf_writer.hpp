// SPDX-License-Identifier: Apache-2.0
//
// Writing one GGUF file (version 3) as a stream: no more of it is held in memory than the metadata.
#ifndef LARQL_GGUF_WRITER_HPP
#define LARQL_GGUF_WRITER_HPP

#include <larql/detail/gguf/parse.hpp>
#include <larql/detail/io/utf8.hpp>
#include <larql/detail/tensors/tensor_output.hpp>
#include <larql/error.hpp>
#include <larql/mapped_file.hpp>
#include <larql/tensor_info.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace larql {

namespace detail {

template <class T>
    requires std::is_arithmetic_v<T>
void append_little_endian(std::string& out, T value) {
    char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    out.append(bytes, sizeof(T));
}

/// The GGUF type that a C++ type is stored as.
template <class T>
constexpr gguf_type gguf_type_of() {
    if constexpr (is_vector<T>)
        return gguf_type::array;
    else if constexpr (std::is_same_v<T, bool>)
        return gguf_type::boolean;
    else if constexpr (std::is_same_v<T, float>)
        return gguf_type::float32;
    else if constexpr (std::is_same_v<T, double>)
        return gguf_type::float64;
    else if constexpr (std::is_convertible_v<const T&, std::string_view>)
        return gguf_type::string;
    else {
        static_assert(is_gguf_integer<T>,
                      "stored as metadata: integers, float, double, bool, strings, vectors of them");
        constexpr bool is_signed = std::is_signed_v<T>;
        if constexpr (sizeof(T) == 1)
            return is_signed ? gguf_type::int8 : gguf_type::uint8;
        else if constexpr (sizeof(T) == 2)
            return is_signed ? gguf_type::int16 : gguf_type::uint16;
        else if constexpr (sizeof(T) == 4)
            return is_signed ? gguf_type::int32 : gguf_type::uint32;
        else
            return is_signed ? gguf_type::int64 : gguf_type::uint64;
    }
}

template <class T>
void append_gguf_value(std::string& out, const T& value) {
    if constexpr (is_vector<T>) {
        append_little_endian(out, static_cast<std::uint32_t>(gguf_type_of<typename T::value_type>()));
        append_little_endian(out, static_cast<std::uint64_t>(value.size()));
        for (const auto& element : value) append_gguf_value<typename T::value_type>(out, element);
    } else if constexpr (std::is_same_v<T, bool>) {
        out += value ? '\1' : '\0';
    } else if constexpr (std::is_arithmetic_v<T>) {
        append_little_endian(out, value);
    } else {
        const std::string_view text = value;
        append_little_endian(out, static_cast<std::uint64_t>(text.size()));
        out += text;
    }
}

/// Copies `count` elements of a file of any version, whose lengths may be narrower.
inline void copy_gguf_elements(std::string& out, byte_reader& from, gguf_type type, std::uint64_t count,
                               std::uint32_t length_bytes) {
    const auto length = [&] {
        return length_bytes == 4 ? from.read<std::uint32_t>("length") : from.read<std::uint64_t>("length");
    };
    if (const std::uint64_t size = gguf_type_size(type); size != 0) {
        out += from.read_text(count * size, "elements");
        return;
    }
    for (std::uint64_t i = 0; i < count; ++i) {
        if (type == gguf_type::string) {
            const std::uint64_t size = length();
            append_little_endian(out, size);
            out += from.read_text(size, "string");
        } else {
            const auto inner = from.read<std::uint32_t>("type");
            const std::uint64_t inner_count = length();
            append_little_endian(out, inner);
            append_little_endian(out, inner_count);
            copy_gguf_elements(out, from, static_cast<gguf_type>(inner), inner_count, length_bytes);
        }
    }
}

}  // namespace detail

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
    /// float32, any string as string, std::vector as array (also nested).
    /// @throws error corrupt_header for a bad key, wrong_type or bad_value for a bad general.alignment, bad_value after
    ///         the first data
    template <class T>
    void set(std::string_view key, const T& value) {
        using stored = std::conditional_t<std::is_convertible_v<const T&, std::string_view>, std::string_view, T>;
        std::string encoded;
        detail::append_gguf_value<stored>(encoded, value);
        store(key, detail::gguf_type_of<stored>(), std::move(encoded));
    }

    /// Copies a value of an open file, of any version, with its type.
    void set(std::string_view key, const gguf_value& value) {
        std::string encoded;
        const std::string file;
        detail::byte_reader from(value.bytes(), file, value.offset());
        if (value.is_array()) {
            detail::append_little_endian(encoded, static_cast<std::uint32_t>(value.element_type()));
            detail::append_little_endian(encoded, value.count());
            detail::copy_gguf_elements(encoded, from, value.element_type(), value.count(), value.length_bytes());
        } else if (value.type() == gguf_type::string) {
            detail::append_gguf_value(encoded, value.to<std::string_view>());
        } else {
            detail::copy_gguf_elements(encoded, from, value.type(), 1, value.length_bytes());
        }
        store(key, value.type(), std::move(encoded));
    }

    /// Drops a metadata value, if there is one.
    void remove(std::string_view key) {
        m_out.require_declaring();
        std::erase_if(m_entries, [&](const entry& e) { return e.key == key; });
        m_positions.clear();
        for (std::size_t i = 0; i < m_entries.size(); ++i) m_positions.emplace(m_entries[i].key, i);
        if (key == alignment_key) m_alignment = detail::gguf_default_alignment;
    }

    /// Declares a tensor.
    /// @param shape  row-major, one to four dimensions
    /// @throws error unsupported_dtype if GGUF has no such type, corrupt_header for a bad name or rank, shape_mismatch
    ///         or bad_value for a bad shape, bad_value after the first data
    void add_tensor(std::string_view name, dtype type, std::vector<std::uint64_t> shape) {
        if (traits_of(type).ggml_number < 0)
            detail::fail(errc::unsupported_dtype, "expected a type of GGUF, got " + std::string(to_string(type)),
                         m_out.where(name));
        check_name(name, detail::gguf_max_name_bytes);
        if (shape.empty() || shape.size() > detail::gguf_max_dimensions)
            detail::fail(errc::corrupt_header,
                         "expected 1 to " + std::to_string(detail::gguf_max_dimensions) + " dimensions, got " +
                             std::to_string(shape.size()),
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
            auto file = std::make_shared<mapped_file>(mapped_file::open(path));
            detail::gguf_contents contents = detail::gguf_parser(file->bytes(), file->path()).parse();
            return detail::read_back{std::move(contents.tensors), std::move(file)};
        });
    }

private:
    struct entry {
        std::string key;
        gguf_type type;
        std::string encoded;
    };
    static constexpr std::string_view alignment_key = "general.alignment";

    void check_name(std::string_view name, std::uint64_t longest) const {
        if (name.empty() || name.size() > longest || name.find('\0') != std::string_view::npos ||
            !detail::is_utf8(name))
            detail::fail(errc::corrupt_header,
                         "expected a name of 1 to " + std::to_string(longest) + " bytes in UTF-8 without NUL, got " +
                             std::to_string(name.size()) + " bytes",
                         m_out.where(name));
    }

    void store(std::string_view key, gguf_type type, std::string&& encoded) {
        m_out.require_declaring();
        check_name(key, detail::gguf_max_key_bytes);
        if (key == alignment_key) set_alignment(type, encoded);
        const auto [at, added] = m_positions.try_emplace(std::string(key), m_entries.size());
        if (added)
            m_entries.push_back({std::string(key), type, std::move(encoded)});
        else
            m_entries[at->second] = {std::string(key), type, std::move(encoded)};
    }

    void set_alignment(gguf_type type, const std::string& encoded) {
        if (type != gguf_type::uint32)
            detail::fail(errc::wrong_type, "expected uint32, got " + std::string(to_string(type)),
                         m_out.where(alignment_key));
        const auto value =
            detail::load_little_endian<std::uint32_t>(reinterpret_cast<const std::byte*>(encoded.data()));
        if (!std::has_single_bit(value))
            detail::fail(errc::bad_value, "expected a power of two, got " + std::to_string(value),
                         m_out.where(alignment_key));
        m_alignment = value;
    }

    void open() {
        if (m_out.is_open()) return;
        m_out.place(m_alignment);
        std::string header = build_header();
        if (!m_out.tensors().empty())
            header.resize(static_cast<std::size_t>(detail::checked_align(header.size(), m_alignment).value()), '\0');
        m_out.open(header);
    }

    [[nodiscard]] std::string build_header() const {
        std::string out(detail::gguf_magic);
        detail::append_little_endian(out, std::uint32_t{3});
        detail::append_little_endian(out, static_cast<std::uint64_t>(m_out.tensors().size()));
        detail::append_little_endian(out, static_cast<std::uint64_t>(m_entries.size()));
        for (const entry& e : m_entries) {
            detail::append_gguf_value(out, std::string_view(e.key));
            detail::append_little_endian(out, static_cast<std::uint32_t>(e.type));
            out += e.encoded;
        }
        for (const tensor_info& info : m_out.tensors()) {
            detail::append_gguf_value(out, info.name);
            detail::append_little_endian(out, static_cast<std::uint32_t>(info.shape.size()));
            for (auto extent = info.shape.rbegin(); extent != info.shape.rend(); ++extent)
                detail::append_little_endian(out, *extent);
            detail::append_little_endian(out, static_cast<std::uint32_t>(traits_of(info.type).ggml_number));
            detail::append_little_endian(out, info.offset);
        }
        return out;
    }

    detail::tensor_output m_out;
    std::vector<entry> m_entries{};
    std::map<std::string, std::size_t> m_positions{};
    std::uint32_t m_alignment = detail::gguf_default_alignment;
};

}  // namespace larql

#endif
