// SPDX-License-Identifier: Apache-2.0
//
// Metadata values of a GGUF file as views into its map, and their conversion to C++ types.
#ifndef LARQL_DETAIL_GGUF_VALUE_HPP
#define LARQL_DETAIL_GGUF_VALUE_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/io/byte_reader.hpp>

#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace larql {

/// Type numbers of metadata values. Source: GGUF specification, gguf_metadata_value_type.
enum class gguf_type : std::uint8_t {
    uint8,
    int8,
    uint16,
    int16,
    uint32,
    int32,
    float32,
    boolean,
    string,
    array,
    uint64,
    int64,
    float64,
};

namespace detail {

struct gguf_type_traits {
    std::string_view name;
    std::uint8_t size_bytes;  ///< 0 for string and array, whose length is stored
};

inline constexpr std::array<gguf_type_traits, 13> gguf_types{{
    {"uint8", 1},
    {"int8", 1},
    {"uint16", 2},
    {"int16", 2},
    {"uint32", 4},
    {"int32", 4},
    {"float32", 4},
    {"bool", 1},
    {"string", 0},
    {"array", 0},
    {"uint64", 8},
    {"int64", 8},
    {"float64", 8},
}};
static_assert(gguf_types.size() == static_cast<std::size_t>(gguf_type::float64) + 1, "one row per type");

constexpr std::uint32_t gguf_type_size(gguf_type type) noexcept {
    return gguf_types[static_cast<std::size_t>(type)].size_bytes;
}

template <class T>
inline constexpr bool is_vector = false;
template <class T>
inline constexpr bool is_vector<std::vector<T>> = true;

/// True if a T that was read from a file points into it.
template <class T>
inline constexpr bool views_file = std::is_same_v<T, std::string_view>;
template <class T>
inline constexpr bool views_file<std::vector<T>> = views_file<T>;

template <class T>
inline constexpr bool is_gguf_integer = std::is_integral_v<T> && !std::is_same_v<T, bool> && !std::is_same_v<T, char>;

/// The name of the GGUF type that a C++ type asks for.
template <class T>
std::string gguf_type_wanted() {
    if constexpr (is_vector<T>)
        return "array of " + gguf_type_wanted<typename T::value_type>();
    else if constexpr (std::is_same_v<T, bool>)
        return "bool";
    else if constexpr (std::is_floating_point_v<T>)
        return "float32 or float64";
    else if constexpr (is_gguf_integer<T>)
        return "integer";
    else
        return "string";
}

}  // namespace detail

/// The specification's name, such as "uint32" or "array".
constexpr std::string_view to_string(gguf_type type) noexcept {
    return detail::gguf_types[static_cast<std::size_t>(type)].name;
}

/// A metadata value: where it lies and what it is. Nothing is copied until `to` is called. Views the header in memory
/// and lives as long as the file. The readers have checked it.
class gguf_value {
public:
    [[nodiscard]] gguf_type type() const noexcept { return m_type; }
    [[nodiscard]] bool is_array() const noexcept { return m_type == gguf_type::array; }
    /// Type of an array's elements; of anything else, its own type.
    [[nodiscard]] gguf_type element_type() const noexcept { return m_element_type; }
    /// Number of elements of an array, 1 for anything else.
    [[nodiscard]] std::uint64_t count() const noexcept { return m_count; }
    /// The encoded content: a number's bytes, a string's characters, an array's elements back to back.
    [[nodiscard]] std::span<const std::byte> bytes() const noexcept {
        return {m_data, static_cast<std::size_t>(m_size_bytes)};
    }
    /// Bytes from the start of the file to the content.
    [[nodiscard]] std::uint64_t offset() const noexcept { return m_offset; }
    /// Width of the lengths and counts within the content: 4 in version 1 of the format, 8 later.
    [[nodiscard]] std::uint32_t length_bytes() const noexcept { return m_length_bytes; }
    /// "uint32", "array of string".
    [[nodiscard]] std::string type_name() const {
        if (!is_array()) return std::string(to_string(m_type));
        return "array of " + std::string(to_string(m_element_type));
    }

    /// The value as T: any integer type (from any stored integer type, checked for range), float or double (from either
    /// stored float type), bool, std::string_view (a view of it), std::string, or std::vector of such a T (also
    /// nested).
    /// @param where  file and key for errors
    /// @throws error wrong_type if the stored type is another, bad_value if the number does not fit T
    template <class T>
    [[nodiscard]] T to(const error_where& where = {}) const {
        if constexpr (detail::is_vector<T>) {
            if (!is_array()) fail_type<T>(where);
        } else if (is_array()) {
            fail_type<T>(where);
        }
        detail::byte_reader reader(bytes(), where.file, m_offset);
        if constexpr (detail::is_vector<T>)
            return read_elements<T>(reader, m_element_type, m_count, where);
        else if constexpr (std::is_convertible_v<std::string_view, T> || std::is_same_v<T, std::string>) {
            if (m_type != gguf_type::string) fail_type<T>(where);
            return T(reader.read_text(m_size_bytes, where.subject));
        } else
            return read_scalar<T>(reader, m_type, where);
    }

    /// For the reader of the format.
    struct layout {
        gguf_type type = gguf_type::uint8;
        gguf_type element_type = gguf_type::uint8;
        std::uint8_t length_bytes = 8;
        std::uint64_t count = 1;
        std::span<const std::byte> content{};
        std::uint64_t offset = 0;
    };
    explicit gguf_value(const layout& l) noexcept
        : m_data(l.content.data()),
          m_size_bytes(static_cast<std::uint32_t>(l.content.size())),
          m_count(static_cast<std::uint32_t>(l.count)),
          m_offset(static_cast<std::uint32_t>(l.offset)),
          m_type(l.type),
          m_element_type(l.element_type),
          m_length_bytes(l.length_bytes) {}

private:
    template <class T>
    [[noreturn]] void fail_type(const error_where& where) const {
        fail_type<T>(type_name(), where);
    }
    template <class T>
    [[noreturn]] static void fail_type(const std::string& found, const error_where& where) {
        detail::fail(errc::wrong_type,
                     "metadata of another type: expected " + detail::gguf_type_wanted<T>() + ", got " + found, where);
    }

    std::uint64_t read_length(detail::byte_reader& reader) const {
        return m_length_bytes == 4 ? reader.read<std::uint32_t>("length") : reader.read<std::uint64_t>("length");
    }

    template <class T>
    T read_elements(detail::byte_reader& reader, gguf_type type, std::uint64_t count, const error_where& where) const {
        using element = typename T::value_type;
        T out;
        out.reserve(static_cast<std::size_t>(count));  // checked against the file's size by the reader
        for (std::uint64_t i = 0; i < count; ++i) {
            if constexpr (detail::is_vector<element>) {
                if (type != gguf_type::array) fail_type<T>("array of " + std::string(to_string(type)), where);
                const auto inner = static_cast<gguf_type>(reader.read<std::uint32_t>("element type"));
                const std::uint64_t inner_count = read_length(reader);
                out.push_back(read_elements<element>(reader, inner, inner_count, where));
            } else if constexpr (std::is_convertible_v<std::string_view, element> ||
                                 std::is_same_v<element, std::string>) {
                if (type != gguf_type::string) fail_type<T>("array of " + std::string(to_string(type)), where);
                const std::uint64_t length = read_length(reader);
                out.push_back(element(reader.read_text(length, "string")));
            } else {
                out.push_back(read_scalar<element>(reader, type, where));
            }
        }
        return out;
    }

    template <class T>
    static T read_scalar(detail::byte_reader& reader, gguf_type type, const error_where& where) {
        if constexpr (std::is_same_v<T, bool>) {
            if (type == gguf_type::boolean) return reader.read<std::uint8_t>("bool") != 0;
        } else if constexpr (std::is_floating_point_v<T>) {
            if (type == gguf_type::float32) return static_cast<T>(reader.read<float>("float32"));
            if (type == gguf_type::float64) return narrow_float<T>(reader.read<double>("float64"), where);
        } else {
            static_assert(detail::is_gguf_integer<T>,
                          "a GGUF value is read as an integer, float, bool, string or vector");
            switch (type) {
                case gguf_type::uint8: return narrow<T>(reader.read<std::uint8_t>("uint8"), where);
                case gguf_type::int8: return narrow<T>(reader.read<std::int8_t>("int8"), where);
                case gguf_type::uint16: return narrow<T>(reader.read<std::uint16_t>("uint16"), where);
                case gguf_type::int16: return narrow<T>(reader.read<std::int16_t>("int16"), where);
                case gguf_type::uint32: return narrow<T>(reader.read<std::uint32_t>("uint32"), where);
                case gguf_type::int32: return narrow<T>(reader.read<std::int32_t>("int32"), where);
                case gguf_type::uint64: return narrow<T>(reader.read<std::uint64_t>("uint64"), where);
                case gguf_type::int64: return narrow<T>(reader.read<std::int64_t>("int64"), where);
                default: break;
            }
        }
        fail_type<T>(std::string(to_string(type)), where);
    }

    template <class T, class Stored>
    static T narrow(Stored value, const error_where& where) {
        if (!std::in_range<T>(value))
            detail::fail(errc::bad_value,
                         detail::concat({"integer out of range: expected ", std::numeric_limits<T>::min(), " to ",
                                         std::numeric_limits<T>::max(), ", got ", value}),
                         where);
        return static_cast<T>(value);
    }

    template <class T>
    static T narrow_float(double value, const error_where& where) {
        if (std::isfinite(value) && std::fabs(value) > static_cast<double>(std::numeric_limits<T>::max()))
            detail::fail(errc::bad_value,
                         detail::concat({"number out of range: expected at most ", std::numeric_limits<T>::max(),
                                         ", got ", value}),
                         where);
        return static_cast<T>(value);
    }

    // Headers are at most 2^28 bytes long, and may be all keys: whatever counts within one takes 32 bits.
    const std::byte* m_data;
    std::uint32_t m_size_bytes;
    std::uint32_t m_count;
    std::uint32_t m_offset;
    gguf_type m_type;
    gguf_type m_element_type;
    std::uint8_t m_length_bytes;
};

/// A metadata key and its value.
struct gguf_entry {
    std::string_view key;  ///< a view of the header
    gguf_value value;
};

}  // namespace larql

#endif
