// SPDX-License-Identifier: Apache-2.0
//
// Typed reading of a config.json object that collects every problem before it throws, so that a user mends a file once.
#ifndef LARQL_DETAIL_CONFIG_FIELDS_HPP
#define LARQL_DETAIL_CONFIG_FIELDS_HPP

#include <larql/error.hpp>

#include <nlohmann/json.hpp>

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace larql::detail {

/// What is wrong with a configuration. The first problem decides the error's code.
class config_problems {
public:
    void add(errc code, std::string subject, std::string problem) {
        m_items.push_back({code, std::move(subject), std::move(problem)});
    }
    [[nodiscard]] bool empty() const noexcept { return m_items.empty(); }

    /// Throws one error that lists everything that was added.
    void throw_if_any(const error_where& where) const {
        if (m_items.empty()) return;
        error_where place = where;
        place.subject = m_items.front().subject;
        std::string text = m_items.front().problem;
        for (std::size_t i = 1; i < m_items.size(); ++i) text += "; " + m_items[i].subject + ": " + m_items[i].problem;
        fail(m_items.front().code, text, place);
    }

private:
    struct item {
        errc code;
        std::string subject;
        std::string problem;
    };
    std::vector<item> m_items;
};

/// One JSON object of a configuration, with the path that leads to it. A null value counts as absent, as in Python.
class config_object {
public:
    config_object(const nlohmann::json& object, std::string path, config_problems& problems)
        : m_object(&object), m_path(std::move(path)), m_problems(&problems) {}

    [[nodiscard]] const nlohmann::json* find(std::string_view key) const {
        const auto at = m_object->find(key);
        return at == m_object->end() || at->is_null() ? nullptr : &*at;
    }
    [[nodiscard]] const nlohmann::json* find_any(std::initializer_list<std::string_view> keys) const {
        for (const std::string_view key : keys)
            if (const nlohmann::json* value = find(key)) return value;
        return nullptr;
    }
    [[nodiscard]] std::string path_of(std::string_view key) const {
        return m_path.empty() ? std::string(key) : m_path + "." + std::string(key);
    }
    [[nodiscard]] config_problems& problems() const noexcept { return *m_problems; }

    /// An integer token in [low, high]; 2.0, true, "2" and 2^64 are not.
    [[nodiscard]] std::optional<std::uint64_t> integer(std::string_view key, std::uint64_t low,
                                                       std::uint64_t high) const {
        const nlohmann::json* value = find(key);
        if (value == nullptr) return std::nullopt;
        if (!value->is_number_integer()) {
            m_problems->add(errc::wrong_type, path_of(key), "expected an integer, got " + shown(*value));
            return std::nullopt;
        }
        const bool negative = !value->is_number_unsigned() && value->get<std::int64_t>() < 0;
        if (negative || value->get<std::uint64_t>() < low || value->get<std::uint64_t>() > high) {
            m_problems->add(
                errc::bad_value, path_of(key),
                "expected " + std::to_string(low) + " to " + std::to_string(high) + ", got " + shown(*value));
            return std::nullopt;
        }
        return value->get<std::uint64_t>();
    }

    /// A finite number; `positive` also refuses 0 and below.
    [[nodiscard]] std::optional<double> number(std::string_view key, bool positive = true) const {
        const nlohmann::json* value = find(key);
        if (value == nullptr) return std::nullopt;
        if (!value->is_number()) {
            m_problems->add(errc::wrong_type, path_of(key), "expected a number, got " + shown(*value));
            return std::nullopt;
        }
        const auto number = value->get<double>();
        if (!std::isfinite(number) || (positive && !(number > 0.0))) {
            m_problems->add(
                errc::bad_value, path_of(key),
                std::string("expected a finite number") + (positive ? " above 0" : "") + ", got " + shown(*value));
            return std::nullopt;
        }
        return number;
    }

    [[nodiscard]] std::optional<bool> boolean(std::string_view key) const {
        const nlohmann::json* value = find(key);
        if (value == nullptr) return std::nullopt;
        if (!value->is_boolean()) {
            m_problems->add(errc::wrong_type, path_of(key), "expected true or false, got " + shown(*value));
            return std::nullopt;
        }
        return value->get<bool>();
    }

    [[nodiscard]] std::optional<std::string> text(std::string_view key) const {
        const nlohmann::json* value = find(key);
        if (value == nullptr) return std::nullopt;
        if (!value->is_string()) {
            m_problems->add(errc::wrong_type, path_of(key), "expected a string, got " + shown(*value));
            return std::nullopt;
        }
        return value->get<std::string>();
    }

    /// A list of finite positive numbers.
    [[nodiscard]] std::vector<double> numbers(std::string_view key) const {
        std::vector<double> result;
        const nlohmann::json* value = find(key);
        if (value == nullptr) return result;
        bool good = value->is_array();
        if (good)
            for (const nlohmann::json& item : *value) {
                good = good && item.is_number() && std::isfinite(item.get<double>()) && item.get<double>() > 0.0;
                if (good) result.push_back(item.get<double>());
            }
        if (!good) {
            m_problems->add(errc::bad_value, path_of(key), "expected a list of finite numbers above 0");
            result.clear();
        }
        return result;
    }

    /// A nested object, if it is there and is one.
    [[nodiscard]] std::optional<config_object> object(std::string_view key) const {
        const nlohmann::json* value = find(key);
        if (value == nullptr) return std::nullopt;
        if (!value->is_object()) {
            m_problems->add(errc::wrong_type, path_of(key), "expected an object, got " + shown(*value));
            return std::nullopt;
        }
        return config_object(*value, path_of(key), *m_problems);
    }

    /// A value as it stands in the file, short enough for one line.
    static std::string shown(const nlohmann::json& value) {
        std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
        if (text.size() > 60) text = text.substr(0, 57) + "...";
        return text;
    }

private:
    const nlohmann::json* m_object;
    std::string m_path;
    config_problems* m_problems;
};

}  // namespace larql::detail

#endif
