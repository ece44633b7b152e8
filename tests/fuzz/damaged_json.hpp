// SPDX-License-Identifier: Apache-2.0
//
// A configuration with a few of its keys changed.
#ifndef LARQL_TESTS_FUZZ_DAMAGED_JSON_HPP
#define LARQL_TESTS_FUZZ_DAMAGED_JSON_HPP

#include "byte_source.hpp"

#include <larql/detail/model/keys.hpp>

#include <nlohmann/json.hpp>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace larql::testing {

/// Values at and beyond the edges of what keys take.
inline const nlohmann::json& edge_values() {
    static const nlohmann::json values = nlohmann::json::parse(R"([
        0, 1, -1, 2, 3, 7, 8, 16, 64, 128, 4096, 1048576, 1048577, 2147483648, 1099511627776, 9223372036854775807,
        18446744073709551615, -9223372036854775808, 0.0, 0.1, 0.5, 1.0, 4.0, 40.0, -0.5, 10000.0, 1e-300, 1e-308, 5e-324,
        1e300, 1e308, 1e38, 1e-38, 1e15, 1.0000000000000002, true, false, null, "", "x", "NaN", [], {}, [0], [1, 1],
        [1e-300, 1e300], [null], [[1]], {"a": {}}, "yarn", "linear", "dynamic", "longrope", "llama3", "proportional",
        "default", "dense", "latent", "interleaved", "full_attention", "sliding_attention", ["full_attention"],
        {"rope_type": "yarn", "factor": 4.0}, {"rope_type": "llama3", "factor": 8.0}])");
    return values;
}

/// Every key that larql's tables name, and what else stands in configurations.
inline const std::vector<std::string>& known_keys() {
    static const std::vector<std::string> keys = [] {
        std::vector<std::string> out = {
            "model_type",          "architectures", "text_config", "rope_scaling",   "rope_parameters",
            "quantization_config", "larql",         "rope_type",   "type",           "form",
            "row_order",           "pairing",       "layer_types", "attention_thing"};
        const auto add = [&](const auto& rows) {
            for (const auto& row : rows)
                for (const std::string_view name : row.hf)
                    if (!name.empty()) out.emplace_back(name);
        };
        add(detail::top_keys);
        add(detail::rope_keys);
        return out;
    }();
    return keys;
}

/// Another number near a number, or an edge value.
inline nlohmann::json damaged_value(byte_source& from, const nlohmann::json& value) {
    if (value.is_number_integer() && from.one_in(2)) {  // stays an integer; wraps where C++'s signed ones must not
        const auto n = value.get<std::uint64_t>();
        const std::uint64_t near[] = {n + 1, n - 1, n * 2, n / 2, 0 - n};
        return static_cast<std::int64_t>(from.pick(near));
    }
    if (value.is_number() && from.one_in(2)) {
        const auto n = value.get<double>();
        const double near[] = {n + 1, n - 1, n * 2, n / 2, -n};
        return from.pick(near);
    }
    if (from.one_in(16)) return from.text(24);
    if (from.one_in(16)) return from.number(0, UINT64_MAX);
    return from.pick(edge_values());
}

/// Changes, adds or removes one member of an object or of one within it.
inline void damage_object(byte_source& from, nlohmann::json& object, int depth = 0) {
    if (from.one_in(4)) {
        object[from.pick(known_keys())] = damaged_value(from, nullptr);
        return;
    }
    if (object.empty()) return;
    auto at = object.begin();
    std::advance(at, from.number(0, object.size() - 1));
    const bool container = at->is_object() && !at->empty();
    if (container && depth < 4 && !from.one_in(6)) return damage_object(from, *at, depth + 1);
    if (at->is_array() && !at->empty() && from.one_in(2)) {
        nlohmann::json& element = (*at)[from.size(0, at->size() - 1)];
        element = damaged_value(from, element);
        return;
    }
    if (from.one_in(4))
        object.erase(at);
    else
        *at = damaged_value(from, *at);
}

/// Text as JSON would have it, whatever the bytes within.
inline std::string text_of(const nlohmann::json& value) {
    return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// The folders of tests/data/hf that hold a file, in order.
inline std::vector<std::filesystem::path> cases_with(std::string_view file) {
    std::vector<std::filesystem::path> found;
    for (const auto& entry : std::filesystem::directory_iterator(std::string(LARQL_TEST_DATA) + "/hf"))
        if (std::filesystem::exists(entry.path() / file)) found.push_back(entry.path());
    std::ranges::sort(found);
    return found;
}

}  // namespace larql::testing

#endif
