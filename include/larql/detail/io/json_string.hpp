// SPDX-License-Identifier: Apache-2.0
#ifndef LARQL_DETAIL_IO_JSON_STRING_HPP
#define LARQL_DETAIL_IO_JSON_STRING_HPP

#include <string>
#include <string_view>

namespace larql::detail {

/// Appends `text`, which is UTF-8, as a JSON string with its quotes.
inline void append_json_string(std::string& out, std::string_view text) {
    out += '"';
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x20) {
            constexpr char hex[] = "0123456789abcdef";
            out += "\\u00";
            out += hex[byte >> 4];
            out += hex[byte & 15];
            continue;
        }
        if (c == '"' || c == '\\') out += '\\';
        out += c;
    }
    out += '"';
}

}  // namespace larql::detail

#endif
