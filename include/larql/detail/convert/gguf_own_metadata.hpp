// SPDX-License-Identifier: Apache-2.0
//
// GGUF files that larql alone reads: an architecture of their own, the configuration as text, transformers' names. And
// what GGUF's metadata hold that stands in files of its own elsewhere.
#ifndef LARQL_DETAIL_CONVERT_GGUF_OWN_METADATA_HPP
#define LARQL_DETAIL_CONVERT_GGUF_OWN_METADATA_HPP

#include <larql/checkpoint.hpp>
#include <larql/detail/checkpoint/files.hpp>
#include <larql/detail/convert/layout.hpp>
#include <larql/detail/convert/number_formats.hpp>
#include <larql/detail/gguf/metadata.hpp>

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

inline gguf_metadata own_metadata(const checkpoint& source, const conversion_scope& scope,
                                  const nlohmann::json& config) {
    gguf_metadata out;
    out.set("general.architecture", std::string(own_gguf_prefix) + std::string(to_string(scope.form)));
    out.set("general.type", "model");
    if (const auto file = source.gguf())
        for (const std::string_view key : file->keys()) {
            const bool carried = key.starts_with("tokenizer.") || key.starts_with("general.");
            const bool stale = key == "general.file_type" || key == "general.alignment";
            if (carried && !stale && !out.contains(key)) out.set(key, *file->find_value(key));
        }
    out.set(own_gguf_config, config.dump());
    return out;
}

/// A tokenizer and a chat template that a GGUF file holds as texts, under transformers' names for them.
inline std::vector<planned_text> texts_of_gguf(const checkpoint& source) {
    std::vector<planned_text> texts;
    const auto file = source.gguf();
    if (file == nullptr) return texts;
    for (const auto& [key, name] : {std::pair{"tokenizer.huggingface.json", "tokenizer.json"},
                                    std::pair{"tokenizer.chat_template", "chat_template.jinja"}})
        if (auto text = file->find<std::string>(key)) texts.push_back({name, *std::move(text), {}});
    return texts;
}

}  // namespace larql::detail

#endif
