// SPDX-License-Identifier: Apache-2.0
//
// Names and other text from files as they may be shown: on one line, in the order in which they are stored, and without
// commands to the terminal. Errors are made so; programs that print names should print them so.
#ifndef LARQL_PRINTABLE_HPP
#define LARQL_PRINTABLE_HPP

#include <larql/detail/io/utf8.hpp>
#include <larql/detail/language.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace larql {

/// How much of a name errors show, in characters of the result of `printable`.
inline constexpr std::size_t max_printable_name = 200;

namespace detail {

/// The code point of a well-formed sequence.
inline std::uint32_t utf8_code_point(std::string_view sequence) noexcept {
    const auto byte = [&](std::size_t i) {
        return static_cast<std::uint32_t>(static_cast<unsigned char>(sequence[i]));
    };
    if (sequence.size() == 1) return byte(0);
    std::uint32_t value = byte(0) & (0xffU >> (sequence.size() + 1));
    for (std::size_t i = 1; i < sequence.size(); ++i) value = value << 6 | (byte(i) & 0x3fU);
    return value;
}

/// Control characters (C0, DEL, C1), and those that end a line or change the direction of the text.
constexpr bool is_unprintable(std::uint32_t c) noexcept {
    return c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0x061c || c == 0x200e || c == 0x200f ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

/// "\x1b" or "\u202e".
inline std::string escaped(std::uint32_t value, bool byte) {
    constexpr char hex[] = "0123456789abcdef";
    std::string out = byte ? "\\x" : "\\u";
    for (int shift = byte ? 4 : 12; shift >= 0; shift -= 4) out += hex[value >> shift & 15U];
    return out;
}

}  // namespace detail

/// `text` with every control character, line end, character that sets the direction of writing, and byte that is not
/// UTF-8 written as \x1b or \u202e. What it returns stays as it is when it is passed again.
///
/// @param limit  characters (bytes of UTF-8) of the result, beyond which the rest of the text is replaced by its length
inline std::string printable(std::string_view text, std::size_t limit = std::string_view::npos) {
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t length = detail::utf8_sequence_length(text, at);
        const std::string_view sequence = text.substr(at, length == 0 ? 1 : length);
        std::string piece(sequence);
        if (length == 0) {
            piece = detail::escaped(static_cast<unsigned char>(sequence.front()), true);
        } else if (const std::uint32_t c = detail::utf8_code_point(sequence); detail::is_unprintable(c)) {
            piece = detail::escaped(c, c < 0x80);
        }
        if (piece.size() > limit - out.size()) return out + "... (" + std::to_string(text.size()) + " bytes in all)";
        out += piece;
        at += sequence.size();
    }
    return out;
}

namespace detail {

/// A name within an error's text.
inline std::string quoted_name(std::string_view name) { return '"' + printable(name, max_printable_name) + '"'; }

}  // namespace detail
}  // namespace larql

#endif
