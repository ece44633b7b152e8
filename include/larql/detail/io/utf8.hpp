// SPDX-License-Identifier: Apache-2.0
#ifndef LARQL_DETAIL_IO_UTF8_HPP
#define LARQL_DETAIL_IO_UTF8_HPP

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace larql::detail {

/// Length of the well-formed UTF-8 sequence at text[at], 0 if there is none. Overlong forms, surrogates and code points
/// above U+10FFFF are not well-formed. Source: Unicode 15, table 3-7.
inline std::size_t utf8_sequence_length(std::string_view text, std::size_t at) noexcept {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
    const std::size_t left = text.size() - at;
    const unsigned first = byte(0);
    if (first < 0x80) return 1;
    const auto continues = [&](std::size_t i) { return (byte(i) & 0xc0U) == 0x80U; };
    if (first >= 0xc2 && first <= 0xdf) return left >= 2 && continues(1) ? 2 : 0;
    if (first >= 0xe0 && first <= 0xef) {
        if (left < 3 || !continues(1) || !continues(2)) return 0;
        if (first == 0xe0 && byte(1) < 0xa0) return 0;
        if (first == 0xed && byte(1) > 0x9f) return 0;
        return 3;
    }
    if (first >= 0xf0 && first <= 0xf4) {
        if (left < 4 || !continues(1) || !continues(2) || !continues(3)) return 0;
        if (first == 0xf0 && byte(1) < 0x90) return 0;
        if (first == 0xf4 && byte(1) > 0x8f) return 0;
        return 4;
    }
    return 0;
}

/// True if all of `text` is well-formed UTF-8.
inline bool is_utf8(std::string_view text) noexcept {
    std::size_t i = 0;
    while (i < text.size()) {
        if (text.size() - i >= 8) {  // names are nearly always ASCII: eight at a time
            std::uint64_t eight = 0;
            std::memcpy(&eight, text.data() + i, 8);
            if ((eight & 0x8080808080808080ULL) == 0) {
                i += 8;
                continue;
            }
        }
        const std::size_t length = utf8_sequence_length(text, i);
        if (length == 0) return false;
        i += length;
    }
    return true;
}

/// Appends a code point that is no half of a surrogate pair.
inline void append_utf8(std::string& out, std::uint32_t code_point) {
    const auto put = [&](std::uint32_t byte) { out += static_cast<char>(static_cast<unsigned char>(byte)); };
    const auto rest = [&](int shift) { put(0x80U | (code_point >> shift & 0x3fU)); };
    if (code_point < 0x80) return put(code_point);
    if (code_point < 0x800) {
        put(0xc0U | code_point >> 6);
    } else {
        if (code_point < 0x10000) {
            put(0xe0U | code_point >> 12);
        } else {
            put(0xf0U | code_point >> 18);
            rest(12);
        }
        rest(6);
    }
    rest(0);
}

}  // namespace larql::detail

#endif
