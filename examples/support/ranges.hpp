// SPDX-License-Identifier: Apache-2.0
//
// Ranges of blocks and parts of work, as users write them.
#ifndef LARQL_EXAMPLES_SUPPORT_RANGES_HPP
#define LARQL_EXAMPLES_SUPPORT_RANGES_HPP

#include <charconv>
#include <cstddef>
#include <limits>
#include <optional>
#include <string_view>
#include <system_error>

namespace larql::program {

/// The number that all of a text is, or nothing.
inline std::optional<std::size_t> parse_number(std::string_view text) {
    std::size_t value = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || problem != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

/// Blocks [begin, end).
struct block_range {
    std::size_t begin = 0;
    std::size_t end = std::numeric_limits<std::size_t>::max();
};

/// "A:B", "A:" or ":B".
inline std::optional<block_range> parse_blocks(std::string_view text) {
    const std::size_t colon = text.find(':');
    if (colon == text.npos) return std::nullopt;
    block_range out;
    const auto read = [](std::string_view part, std::size_t& to) {
        const auto value = parse_number(part);
        to = value.value_or(to);
        return part.empty() || value.has_value();
    };
    if (!read(text.substr(0, colon), out.begin) || !read(text.substr(colon + 1), out.end)) return std::nullopt;
    if (out.begin >= out.end) return std::nullopt;
    return out;
}

/// One of `parts` equal parts, from 1.
struct work_part {
    std::size_t part = 1, parts = 1;
};

/// "I/N" with 1 <= I <= N.
inline std::optional<work_part> parse_part(std::string_view text) {
    const std::size_t slash = text.find('/');
    if (slash == text.npos) return std::nullopt;
    const auto part = parse_number(text.substr(0, slash)), parts = parse_number(text.substr(slash + 1));
    constexpr std::size_t most = 1'000'000;
    if (!part || !parts || *part == 0 || *part > *parts || *parts > most) return std::nullopt;
    return work_part{*part, *parts};
}

}  // namespace larql::program

#endif
