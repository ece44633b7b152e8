// SPDX-License-Identifier: Apache-2.0
//
// The metadata and the header of a GGUF file (version 3) that is to be written.
#ifndef LARQL_DETAIL_GGUF_METADATA_HPP
#define LARQL_DETAIL_GGUF_METADATA_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/gguf/parse.hpp>
#include <larql/detail/io/utf8.hpp>
#include <larql/error.hpp>
#include <larql/tensor_info.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
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

/// Checks a key or a tensor's name.
/// @throws error corrupt_header
inline void check_gguf_name(std::string_view name, std::uint64_t longest, const error_where& where) {
    if (name.empty() || name.size() > longest || name.find('\0') != std::string_view::npos || !is_utf8(name))
        fail(errc::corrupt_header,
             concat({"expected a name of 1 to ", longest, " bytes in UTF-8 without NUL, got ", name.size(), " bytes"}),
             where);
}

/// Metadata in the order in which they were set, encoded as the file has them.
class gguf_metadata {
public:
    static constexpr std::string_view alignment_key = "general.alignment";

    /// Adds a value, or replaces it in its place. Stored as what it is: see gguf_writer::set.
    /// @throws error corrupt_header for a bad key, wrong_type or bad_value for a bad general.alignment
    template <class T>
    void set(std::string_view key, const T& value, const std::string& file = {}) {
        using stored = std::conditional_t<std::is_convertible_v<const T&, std::string_view>, std::string_view, T>;
        std::string encoded;
        append_gguf_value<stored>(encoded, value);
        store(key, gguf_type_of<stored>(), std::move(encoded), file);
    }

    /// Copies a value of an open file, of any version, with its type.
    void set(std::string_view key, const gguf_value& value, const std::string& file = {}) {
        std::string encoded;
        const std::string unnamed;
        byte_reader from(value.bytes(), unnamed, value.offset());
        if (value.is_array()) {
            append_little_endian(encoded, static_cast<std::uint32_t>(value.element_type()));
            append_little_endian(encoded, value.count());
            copy_gguf_elements(encoded, from, value.element_type(), value.count(), value.length_bytes());
        } else if (value.type() == gguf_type::string) {
            append_gguf_value(encoded, value.to<std::string_view>());
        } else {
            copy_gguf_elements(encoded, from, value.type(), 1, value.length_bytes());
        }
        store(key, value.type(), std::move(encoded), file);
    }

    [[nodiscard]] bool contains(std::string_view key) const { return m_positions.find(key) != m_positions.end(); }

    /// Drops a value, if there is one.
    void remove(std::string_view key) {
        std::erase_if(m_entries, [&](const entry& e) { return e.key == key; });
        m_positions.clear();
        for (std::size_t i = 0; i < m_entries.size(); ++i) m_positions.emplace(m_entries[i].key, i);
        if (key == alignment_key) m_alignment = gguf_default_alignment;
    }

    [[nodiscard]] std::uint32_t alignment() const noexcept { return m_alignment; }

    /// All that precedes the tensors' data, padded to where it begins.
    /// @param tensors  with offsets from the start of the data
    [[nodiscard]] std::string header(std::span<const tensor_info> tensors) const {
        std::string out(gguf_magic);
        append_little_endian(out, std::uint32_t{3});
        append_little_endian(out, static_cast<std::uint64_t>(tensors.size()));
        append_little_endian(out, static_cast<std::uint64_t>(m_entries.size()));
        for (const entry& e : m_entries) {
            append_gguf_value(out, std::string_view(e.key));
            append_little_endian(out, static_cast<std::uint32_t>(e.type));
            out += e.encoded;
        }
        for (const tensor_info& info : tensors) {
            append_gguf_value(out, info.name);
            append_little_endian(out, static_cast<std::uint32_t>(info.shape.size()));
            for (auto extent = info.shape.rbegin(); extent != info.shape.rend(); ++extent)
                append_little_endian(out, *extent);
            append_little_endian(out, static_cast<std::uint32_t>(traits_of(info.type).ggml_number));
            append_little_endian(out, info.offset);
        }
        if (!tensors.empty())
            out.resize(static_cast<std::size_t>(checked_align(out.size(), m_alignment).value()), '\0');
        return out;
    }

private:
    struct entry {
        std::string key;
        gguf_type type;
        std::string encoded;
    };

    void store(std::string_view key, gguf_type type, std::string&& encoded, const std::string& file) {
        check_gguf_name(key, gguf_max_key_bytes, {.file = file, .offset = {}, .subject = std::string(key)});
        if (key == alignment_key) set_alignment(type, encoded, file);
        const auto [at, added] = m_positions.try_emplace(std::string(key), m_entries.size());
        if (added)
            m_entries.push_back({std::string(key), type, std::move(encoded)});
        else
            m_entries[at->second] = {std::string(key), type, std::move(encoded)};
    }

    void set_alignment(gguf_type type, const std::string& encoded, const std::string& file) {
        const error_where where{.file = file, .offset = {}, .subject = std::string(alignment_key)};
        if (type != gguf_type::uint32)
            fail(errc::wrong_type, "expected uint32, got " + std::string(to_string(type)), where);
        const auto value = load_little_endian<std::uint32_t>(reinterpret_cast<const std::byte*>(encoded.data()));
        if (!std::has_single_bit(value)) fail(errc::bad_value, concat({"expected a power of two, got ", value}), where);
        m_alignment = value;
    }

    std::vector<entry> m_entries{};
    std::map<std::string, std::size_t, std::less<>> m_positions{};
    std::uint32_t m_alignment = gguf_default_alignment;
};

}  // namespace detail
}  // namespace larql

#endif
