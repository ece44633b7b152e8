// SPDX-License-Identifier: Apache-2.0
//
// Configurations of four blocks, for tests of what larql makes of a family's keys.
#ifndef LARQL_TESTS_SUPPORT_TINY_CONFIGS_HPP
#define LARQL_TESTS_SUPPORT_TINY_CONFIGS_HPP

#include <larql/attention_spec.hpp>
#include <larql/model_config.hpp>
#include <support/tiny_model.hpp>

#include <nlohmann/json.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace larql::testing {

/// A tiny llama's configuration under another model_type, with more keys.
inline nlohmann::json config_of(const std::string& model_type, const nlohmann::json& more) {
    nlohmann::json config = tiny_llama_config(4);
    config.erase("architectures");
    config["model_type"] = model_type;
    config.update(more);
    return config;
}
/// Its blocks, as larql understands them.
inline std::vector<attention_spec> blocks_of(const std::string& model_type,
                                             const nlohmann::json& more = nlohmann::json::object()) {
    return parse_model_config(config_of(model_type, more)).blocks;
}
/// Why it is refused, or "no error".
inline std::string problem_of(const std::string& model_type, const nlohmann::json& more) {
    return error_of([&] { return blocks_of(model_type, more); });
}
/// The window of each block.
inline std::vector<std::size_t> windows_of(const std::string& model_type,
                                           const nlohmann::json& more = nlohmann::json::object()) {
    std::vector<std::size_t> windows;
    for (const attention_spec& block : blocks_of(model_type, more)) windows.push_back(block.sliding_window);
    return windows;
}
/// How many elements of a head each block rotates.
inline std::vector<std::size_t> rotated_of(const std::string& model_type,
                                           const nlohmann::json& more = nlohmann::json::object()) {
    std::vector<std::size_t> rotated;
    for (const attention_spec& block : blocks_of(model_type, more)) rotated.push_back(block.geometry.qk_rope_head_dim);
    return rotated;
}

}  // namespace larql::testing

#endif
