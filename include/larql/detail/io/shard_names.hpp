// SPDX-License-Identifier: Apache-2.0
//
// Names of shards, "<prefix>-<number>-of-<count><ending>", and the sets that they make.
#ifndef LARQL_DETAIL_IO_SHARD_NAMES_HPP
#define LARQL_DETAIL_IO_SHARD_NAMES_HPP

#include <larql/detail/io/input_file.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace larql::detail {

inline constexpr std::uint32_t max_shards = 65535;  // in GGUF, split.count is a uint16

/// The parts of a shard's file name, number from 1.
struct shard_name {
    std::string prefix{};
    std::uint32_t number = 0;
    std::uint32_t count = 0;
    std::size_t width = 0;     ///< digits of the number, zeros in front included
    std::string count_text{};  ///< the count as written
    std::string ending{};      ///< ".gguf"

    /// The file name of another shard of the set.
    [[nodiscard]] std::string name_of(std::uint32_t other) const {
        std::string digits = std::to_string(other);
        if (digits.size() < width) digits.insert(0, width - digits.size(), '0');
        return prefix + "-" + digits + "-of-" + count_text + ending;
    }
    /// True if both name shards of one set.
    [[nodiscard]] bool same_set(const shard_name& other) const noexcept {
        return prefix == other.prefix && count_text == other.count_text && width == other.width &&
               ending == other.ending;
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

/// The digits' value, capped above `max_shards`.
inline std::uint32_t capped_number(std::string_view digits) noexcept {
    std::uint32_t value = 0;
    for (const char c : digits) value = std::min(value * 10 + static_cast<std::uint32_t>(c - '0'), max_shards + 1);
    return value;
}

/// Reads a shard's file name. Both numbers have three digits or more, and 1 <= number <= count <= 65535.
inline std::optional<shard_name> parse_shard_name(std::string_view name, std::string_view ending) {
    const auto drop = [&name](std::string_view suffix) {
        if (!name.ends_with(suffix)) return false;
        name.remove_suffix(suffix.size());
        return true;
    };
    if (!drop(ending)) return std::nullopt;
    const auto count = take_digits(name);
    if (!count || !drop("-of-")) return std::nullopt;
    const auto number = take_digits(name);
    if (!number || !drop("-")) return std::nullopt;
    shard_name out{.prefix = std::string(name),
                   .number = capped_number(*number),
                   .count = capped_number(*count),
                   .width = number->size(),
                   .count_text = std::string(*count),
                   .ending = std::string(ending)};
    if (out.number < 1 || out.number > out.count || out.count > max_shards) return std::nullopt;
    return out;
}

/// The shard files of a set, first to last.
struct shard_set {
    std::vector<std::filesystem::path> files{};
    std::size_t given = 0;  ///< position of the file that the user named
};

inline std::optional<shard_set> shard_set_at(const std::filesystem::path& path, std::string_view ending) {
    const auto name = parse_shard_name(path_text(path.filename()), ending);
    if (!name) return std::nullopt;
    shard_set out;
    out.given = name->number - 1;
    for (std::uint32_t i = 1; i <= name->count; ++i)
        out.files.push_back(i == name->number ? path : path.parent_path() / std::filesystem::path(name->name_of(i)));
    return out;
}

inline const std::filesystem::path* first_missing(const shard_set& set) {
    for (const std::filesystem::path& file : set.files) {
        std::error_code ignored;
        if (!std::filesystem::exists(file, ignored)) return &file;
    }
    return nullptr;
}

/// The set that `path` belongs to: a complete one, or else the first on the way, or nothing if no name on the way is a
/// shard's. A symbolic link may stand among links to the other shards (as in download caches) or point from elsewhere
/// to a shard among its siblings, so each link on the way is looked at.
inline std::optional<shard_set> find_shard_set(const std::filesystem::path& path, std::string_view ending) {
    std::optional<shard_set> incomplete;
    std::filesystem::path at = path;
    for (int hops = 0; hops < 40; ++hops) {  // as many links as systems follow
        if (auto set = shard_set_at(at, ending)) {
            if (first_missing(*set) == nullptr) return set;
            if (!incomplete) incomplete = std::move(set);
        }
        std::error_code code;
        const std::filesystem::path target = std::filesystem::read_symlink(at, code);
        if (code) break;
        at = target.is_absolute() ? target : at.parent_path() / target;
    }
    return incomplete;
}

}  // namespace larql::detail

#endif
