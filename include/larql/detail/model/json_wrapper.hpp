// SPDX-License-Identifier: Apache-2.0
//
// A multimodal model's config.json: where the language model's configuration stands in it, and what stands beside.
#ifndef LARQL_DETAIL_MODEL_JSON_WRAPPER_HPP
#define LARQL_DETAIL_MODEL_JSON_WRAPPER_HPP

#include <larql/detail/model/inert_keys.hpp>
#include <larql/detail/model/json_source.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/values.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

namespace larql::detail {

/// Where wrappers put the configuration of their language model.
inline constexpr std::string_view text_objects[] = {"text_config",    "llm_config",     "language_config",
                                                    "thinker_config", "language_model", "text_model"};

/// A language model's configuration, and the path to it.
struct text_part {
    const nlohmann::json* object;
    std::string path;  ///< "" or "text_config."
};

inline text_part find_text_part(const nlohmann::json& config, std::string path = {}) {
    for (const std::string_view name : text_objects) {
        const auto nested = config.find(name);
        if (nested != config.end() && nested->is_object() && !nested->empty())
            return find_text_part(*nested, path + std::string(name) + ".");
    }
    return {&config, std::move(path)};
}

/// A wrapper may repeat what its language model states; transformers reads the inner statement, so another value in the
/// wrapper, or a key of attention that only the wrapper has, is a misunderstanding waiting to happen.
inline void check_wrapper(const nlohmann::json& config, const nlohmann::json& text, const std::string& path,
                          model_values& values) {
    for (const auto& [name, value] : config.items()) {
        const auto inner = text.find(name);
        if (!looks_like_attention(name) || says_none(value) || (inner != text.end() && *inner == value)) continue;
        const auto states = [&](const key_row& row) { return std::ranges::find(row.hf, name) != row.hf.end(); };
        const bool known = name == "rope_scaling" || name == "rope_parameters" || name == "compress_rates" ||
                           std::ranges::any_of(top_keys, states);
        if (known && inner != text.end())
            values.not_understood.push_back(name + " is " + shown(value) + " and " + path + name + " is " +
                                            shown(*inner));
        else if (known)
            values.not_understood.push_back(name + " (" + shown(value) + ") stands beside " +
                                            path.substr(0, path.size() - 1) + ", not in it");
    }
}

}  // namespace larql::detail

#endif
