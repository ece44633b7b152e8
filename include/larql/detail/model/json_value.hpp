// SPDX-License-Identifier: Apache-2.0
//
// One value of a config.json, read by the row of its key.
#ifndef LARQL_DETAIL_MODEL_JSON_VALUE_HPP
#define LARQL_DETAIL_MODEL_JSON_VALUE_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/error.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// A value as it stands in the file, short enough for one line.
inline std::string shown(const nlohmann::json& value) {
    std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
    if (text.size() > 60) text = text.substr(0, 57) + "...";
    return text;
}

inline std::string shown(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.10g", value);
    return text;
}

/// Whether a value says "none": null, false, 0, "" or an empty container, or a number that changes nothing.
inline bool says_none(const nlohmann::json& value, double neutral = 0.0) {
    if (value.is_null() || value == false || value == "") return true;
    if (value.is_number()) return value.get<double>() == 0.0 || value.get<double>() == neutral;
    return (value.is_array() || value.is_object()) && value.empty();
}

/// Whether a value is what a row's text says: a number of the same value, or the same word.
inline bool says(const nlohmann::json& value, std::string_view text) {
    if (value.is_string()) return value.get_ref<const std::string&>() == text;
    if (!value.is_number()) return value.dump() == text;
    double number = 0.0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
    return problem == std::errc{} && end == text.data() + text.size() && value.get<double>() == number;
}

/// A member of an object, or of an object in it ("outer.inner"); null if it is not there.
inline const nlohmann::json* find_member(const nlohmann::json& object, std::string_view name) {
    const std::size_t dot = name.find('.');
    if (!object.is_object()) return nullptr;
    const auto at = object.find(name.substr(0, dot));
    if (at == object.end()) return nullptr;
    return dot == name.npos ? &*at : find_member(*at, name.substr(dot + 1));
}

/// Reads one value by its row; a value of another type or out of bounds is a problem.
class json_value_reader {
public:
    json_value_reader(const key_row& row, std::string name, config_problems& problems)
        : m_row(row), m_name(std::move(name)), m_problems(problems) {}

    [[nodiscard]] std::optional<config_value> read(const nlohmann::json& value) const {
        if (value.is_null()) return none_stated{};
        switch (m_row.type) {
            case value_type::integer: return integer(value);
            case value_type::number: return number(value);
            case value_type::flag:
                if (!value.is_boolean()) return wrong_type("true or false", value);
                return value.get<bool>();
            case value_type::text:
                if (!value.is_string()) return wrong_type("a string", value);
                return value.get<std::string>();
            case value_type::texts: return texts(value);
            case value_type::numbers: return numbers(value);
            case value_type::token: return token(value);
            case value_type::period: return period(value);
        }
        return std::nullopt;
    }

private:
    std::optional<config_value> wrong_type(const char* expected, const nlohmann::json& value) const {
        m_problems.add(errc::wrong_type, m_name, std::string("expected ") + expected + ", got " + shown(value));
        return std::nullopt;
    }
    std::optional<config_value> out_of_bounds(const std::string& expected, const nlohmann::json& value) const {
        m_problems.add(errc::bad_value, m_name, "expected " + expected + ", got " + shown(value));
        return std::nullopt;
    }

    /// An integer token; 2.0, true, "2" and 2^64 are none.
    std::optional<config_value> integer(const nlohmann::json& value) const {
        if (!value.is_number_integer()) return wrong_type("an integer", value);
        const auto low = static_cast<std::uint64_t>(m_row.low), high = static_cast<std::uint64_t>(m_row.high);
        const bool negative = !value.is_number_unsigned() && value.get<std::int64_t>() < 0;
        if (negative || value.get<std::uint64_t>() < low || value.get<std::uint64_t>() > high)
            return out_of_bounds(concat({low, " to ", high}), value);
        return value.get<std::uint64_t>();
    }
    std::optional<config_value> number(const nlohmann::json& value) const {
        if (!value.is_number()) return wrong_type("a number", value);
        if (!within(value.get<double>())) return out_of_bounds(bounds(), value);
        return value.get<double>();
    }
    std::optional<config_value> texts(const nlohmann::json& value) const {
        if (!value.is_array()) return wrong_type("a list of strings", value);
        std::vector<std::string> list;
        for (const nlohmann::json& item : value) {
            if (!item.is_string()) return repeated_texts(value);
            list.push_back(item.get<std::string>());
        }
        return list;
    }
    /// [[["global", "local"], 2]] is these two, twice (GPT-Neo).
    std::optional<config_value> repeated_texts(const nlohmann::json& value) const {
        std::vector<std::string> list;
        for (const nlohmann::json& item : value) {
            const bool pair = item.is_array() && item.size() == 2 && item[0].is_array() && !item[0].empty() &&
                              std::ranges::all_of(item[0], [](const nlohmann::json& text) { return text.is_string(); });
            if (!pair || !item[1].is_number_integer() || item[1] < 0) return wrong_type("a list of strings", value);
            const double length = item[1].get<double>() * static_cast<double>(item[0].size());
            if (static_cast<double>(list.size()) + length > max_layers)
                return out_of_bounds("at most " + shown(max_layers) + " strings", value);
            for (std::uint64_t i = 0; i < item[1].get<std::uint64_t>(); ++i)
                for (const nlohmann::json& text : item[0]) list.push_back(text.get<std::string>());
        }
        return list;
    }
    std::optional<config_value> numbers(const nlohmann::json& value) const {
        if (!value.is_array()) return wrong_type("a list of numbers", value);
        std::vector<double> list;
        for (const nlohmann::json& item : value) {
            if (!item.is_number() || !within(item.get<double>()))
                return out_of_bounds("a list of " + bounds(true), item);
            list.push_back(item.get<double>());
        }
        return list;
    }
    /// "LLLG", three local blocks and a global one, is a period of 4.
    std::optional<config_value> period(const nlohmann::json& value) const {
        if (!value.is_string()) return integer(value);
        const std::string text = value.get<std::string>();
        if (text.empty() || text != std::string(text.size() - 1, 'L') + "G")
            return out_of_bounds("a number of blocks, or local ones and a global one like \"LLLG\"", value);
        return static_cast<std::uint64_t>(text.size());
    }
    /// A token's number; of a list of them, which only a tokenizer needs, the first.
    std::optional<config_value> token(const nlohmann::json& value) const {
        const nlohmann::json& first = value.is_array() && !value.empty() ? value.front() : value;
        if (!first.is_number_integer() || first.get<std::int64_t>() < 0) return none_stated{};
        return first.get<std::uint64_t>();
    }

    [[nodiscard]] bool within(double value) const {
        return std::isfinite(value) && value >= m_row.low && value <= m_row.high;
    }
    /// "a number from 0 to 1"; for the items of a list, "numbers from 0 to 1".
    [[nodiscard]] std::string bounds(bool many = false) const {
        const std::string article = many ? "" : "a ", noun = many ? "numbers" : "number";
        return article + noun + " from " + shown(m_row.low) + " to " + shown(m_row.high);
    }

    const key_row& m_row;
    std::string m_name;
    config_problems& m_problems;
};

}  // namespace larql::detail

#endif
