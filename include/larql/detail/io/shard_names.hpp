// SPDX-License-Identifier: Apache-2.0
#ifndef LARQL_DETAIL_IO_SHARD_NAMES_HPP
#define LARQL_DETAIL_IO_SHARD_NAMES_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace larql::detail {

inline constexpr std::uint32_t max_gguf_shards = 65535;  // split.count is a uint16

/// The parts of a file name "<prefix>-<number>-of-<count>.gguf", number from 1.
struct gguf_shard_name {
    std::string prefix{};
    std::uint32_t number = 0;
    std::uint32_t count = 0;
    std::size_t width = 0;     ///< digits of the number, zeros in front included
    std::string count_text{};  ///< the count as written

    /// The file name of another shard of the set.
    [[nodiscard]] std::string name_of(std::uint32_t other) const {
        std::string digits = std::to_string(other);
        if (digits.size() < width) digits.insert(0, width - digits.size(), '0');
        return prefix + "-" + digits + "-of-" + count_text + ".gguf";
    }
    /// True if both name shards of one set.
    [[nodiscard]] bool same_set(const gguf_shard_name& other) const noexcept {
        return prefix == other.prefix && count_text == other.count_text && width == other.width;
    }
};

/// Takes the digits off the end of `text`, at least three of them.
/// @return  the digits' text, or nothing
inline std::optional<std::string_view> take_digits(std::string_view& text) noexcept {
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    const auto first = std::find_if_not(text.rbegin(), text.rend(), is_digit);
    const auto length = static_cast<std::size_t>(first - text.rbegin());
    if (length < 3) return std::nullopt;
    const std::string_view digits = text.substr(text.size() - length);
    text.remove_suffix(length);
    return digits;
}

/// The digits' value, capped above `max_gguf_shards`.
inline std::uint32_t capped_number(std::string_view digits) noexcept {
    std::uint32_t value = 0;
    for (const char c : digits) value = std::min(value * 10 + static_cast<std::uint32_t>(c - '0'), max_gguf_shards + 1);
    return value;
}

/// Reads a shard's file name. Both numbers have three digits or more, and 1 <= number <= count <= 65535.
inline std::optional<gguf_shard_name> parse_gguf_shard_name(std::string_view name) {
    const auto drop = [&name](std::string_view suffix) {
        if (!name.ends_with(suffix)) return false;
        name.remove_suffix(suffix.size());
        return true;
    };
    if (!drop(".gguf")) return std::nullopt;
    const auto count = take_digits(name);
    if (!count || !drop("-of-")) return std::nullopt;
    const auto number = take_digits(name);
    if (!number || !drop("-")) return std::nullopt;
    gguf_shard_name out{std::string(name), capped_number(*number), capped_number(*count), number->size(),
                        std::string(*count)};
    if (out.number < 1 || out.number > out.count || out.count > max_gguf_shards) return std::nullopt;
    return out;
}

}  // namespace larql::detail

#endif
