// SPDX-License-Identifier: Apache-2.0
//
// Texts of errors and names from parts. A sum of std::strings is inlined at every +: four times the code, and four
// times the time of a compiler.
#ifndef LARQL_DETAIL_CONCAT_HPP
#define LARQL_DETAIL_CONCAT_HPP

#include <larql/detail/language.hpp>

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>

namespace larql::detail {

/// A piece of text, a character, or a number, written as std::to_string does. Views what it is made of.
class concat_part {
public:
    concat_part(std::string_view text) noexcept : m_text(text.data()), m_value(text.size()) {}    // NOLINT
    concat_part(const std::string& text) noexcept : m_text(text.data()), m_value(text.size()) {}  // NOLINT
    concat_part(const char* text) noexcept : concat_part(std::string_view(text)) {}               // NOLINT
    concat_part(char character) noexcept
        : m_value(static_cast<unsigned char>(character)), m_kind(kind::character) {}  // NOLINT
    template <std::integral Number>
        requires(!std::is_same_v<Number, char> && !std::is_same_v<Number, bool>)
    concat_part(Number number) noexcept  // NOLINT
        : m_value(static_cast<std::uint64_t>(number)),
          m_kind(std::is_signed_v<Number> ? kind::signed_number : kind::number) {}
    concat_part(double number) noexcept  // NOLINT
        : m_value(std::bit_cast<std::uint64_t>(number)), m_kind(kind::real) {}
    concat_part(bool) = delete;

    void append_to(std::string& out) const {
        switch (m_kind) {
            case kind::text: out.append(m_text, static_cast<std::size_t>(m_value)); break;
            case kind::character: out += static_cast<char>(static_cast<unsigned char>(m_value)); break;
            case kind::number: out += std::to_string(m_value); break;
            case kind::signed_number: out += std::to_string(static_cast<std::int64_t>(m_value)); break;
            case kind::real: out += std::to_string(std::bit_cast<double>(m_value)); break;
        }
    }

private:
    enum class kind : unsigned char { text, character, number, signed_number, real };
    const char* m_text = nullptr;
    std::uint64_t m_value = 0;  // a text's length
    kind m_kind = kind::text;
};

/// The parts one after the other.
#if defined(__GNUC__)
__attribute__((noinline, cold))
#endif
inline std::string
concat(std::initializer_list<concat_part> parts) {
    std::string out;
    for (const concat_part& part : parts) part.append_to(out);
    return out;
}

}  // namespace larql::detail

#endif
