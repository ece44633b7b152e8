// SPDX-License-Identifier: Apache-2.0
//
// config.json read through the key rows. Every key is accounted for: read, known to be inert, foreign to attention, or
// reported.
#ifndef LARQL_DETAIL_MODEL_JSON_SOURCE_HPP
#define LARQL_DETAIL_MODEL_JSON_SOURCE_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/model/inert_keys.hpp>
#include <larql/detail/model/json_value.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/error.hpp>
#include <larql/rope_config.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// Reads one object of a config.json through a table of rows.
class json_object_reader {
public:
    /// @param closed  every key must be claimed, not only those that look like attention: a rope dictionary
    json_object_reader(const nlohmann::json& object, std::string path, const model_family& family,
                       config_problems& problems, std::vector<std::string>& not_understood, bool closed)
        : m_object(object),
          m_path(std::move(path)),
          m_family(family),
          m_problems(problems),
          m_not_understood(not_understood),
          m_closed(closed) {}

    void read(std::span<const key_row> rows, key_values& values) {
        for (const key_row& row : rows) {
            const std::vector<std::string_view> names = stated_names(row);
            if (row.read_by != nullptr && !row.read_by(m_family)) {
                for (const std::string_view name : names)
                    if (!is_own(name)) require_none(row, name, *find_member(m_object, name));
                continue;
            }
            if (names.empty()) continue;
            const std::string_view name = names.front();
            const nlohmann::json& value = *find_member(m_object, name);
            const bool theta = row.key == model_key::rope_theta && m_family.rope_lists && !m_closed;
            const bool listed = theta || (row.type == value_type::integer && is_own(name));
            if (listed && value.is_array()) continue;  // one for each layer
            for (const std::string_view other : names)
                if (!agree(row, value, *find_member(m_object, other)))
                    m_not_understood.push_back(m_path + std::string(name) + " is " + shown(value) + ", and " + m_path +
                                               std::string(other) + ", another name for it, is " +
                                               shown(*find_member(m_object, other)));
            auto read = json_value_reader(row, m_path + std::string(name), m_problems).read(value);
            values.set(row.key, read ? std::move(*read) : config_value(refused_value{}), m_path + std::string(name));
        }
        report_unclaimed(m_object, m_path, rows);
        report_never();
    }

    /// Reports keys of an object, and of the objects in it, that look like attention and that nobody claims.
    void report_unclaimed(const nlohmann::json& object, const std::string& path, std::span<const key_row> rows) {
        for (const auto& [name, value] : object.items()) {
            const std::string key = path.substr(m_path.size()) + name;  // within the object
            const fixed_key* fixed = find_fixed(key);
            if (fixed == nullptr) fixed = find_fixed(name);
            if (fixed != nullptr) {
                if (!value.is_null() && !says(value, fixed->value))
                    m_not_understood.push_back(path + name + " is " + shown(value) + ", and \"" +
                                               std::string(m_family.name) + "\" has " + std::string(fixed->value) +
                                               reason(*fixed));
                continue;
            }
            if (const repeated_key* repeated = find_repeated(key)) {
                const nlohmann::json* first = find_member(m_object, repeated->of);
                if (!says_none(value) && (first == nullptr || *first != value))
                    m_not_understood.push_back(path + name + " is " + shown(value) + ", which \"" +
                                               std::string(m_family.name) + "\" does not read, and " + m_path +
                                               std::string(repeated->of) + " does not say the same");
                continue;
            }
            if (claimed(name, rows) || claimed(key, rows)) continue;
            if (const inert_key* known = find_inert(name)) {
                if (!allows(*known, value))
                    m_not_understood.push_back(path + name + " is " + shown(value) + ", which \"" +
                                               std::string(m_family.name) + "\" does not have");
                continue;
            }
            if (value.is_object() && has_own_within(key + ".")) {
                report_unclaimed(value, path + name + ".", {});
                continue;
            }
            const bool suspicious = m_closed || looks_like_attention(name);
            if (suspicious && says_none(value)) continue;
            if (is_foreign(name, value)) continue;
            if (suspicious)
                m_not_understood.push_back(path + name + " (" + shown(value) + ") is unknown");
            else
                report_within(value, path + name);
        }
    }

private:
    /// Looks into the objects of an unclaimed value.
    void report_within(const nlohmann::json& value, const std::string& path) {
        if (value.is_object()) report_unclaimed(value, path + ".", {});
        if (!value.is_array()) return;
        for (std::size_t i = 0; i < value.size(); ++i) report_within(value[i], concat({path, "[", i, "]"}));
    }

    /// The names under which the object states a row: the first one counts, and others must agree.
    [[nodiscard]] std::vector<std::string_view> stated_names(const key_row& row) const {
        std::vector<std::string_view> names;
        for (const std::string_view name : row.hf)
            if (!name.empty() && find_member(m_object, name) != nullptr) names.push_back(name);
        for (const key_alias& alias : m_family.aliases)
            if (alias.key == row.key && find_member(m_object, alias.name) != nullptr) names.push_back(alias.name);
        return names;
    }

    /// Whether two names of one key state the same: types of rope that have two words are.
    [[nodiscard]] static bool agree(const key_row& row, const nlohmann::json& a, const nlohmann::json& b) {
        if (row.key != model_key::rope_type || !a.is_string() || !b.is_string()) return a == b;
        const auto kind = [](const nlohmann::json& name) { return rope_kind_from_name(name.get<std::string>()); };
        return a == b || (kind(a) && kind(a) == kind(b));
    }

    /// Reports what no model of the row has: it is of another row's.
    void report_never() {
        if (m_closed || m_family.never.name.empty()) return;
        const nlohmann::json* value = find_member(m_object, m_family.never.name);
        if (value != nullptr && says(*value, m_family.never.value))
            m_not_understood.push_back(m_path + std::string(m_family.never.name) + " is " + shown(*value) +
                                       ", which no \"" + std::string(m_family.name) + "\" has" +
                                       reason(m_family.never));
    }

    [[nodiscard]] static std::string reason(const fixed_key& key) {
        return key.why.empty() ? "" : " (" + std::string(key.why) + ")";
    }

    /// A key that the family does not read may still be there, if it says "none".
    void require_none(const key_row& row, std::string_view name, const nlohmann::json& value) {
        // Where another number than 0 is neutral, 0 is not.
        if (says_none(value, row.neutral) && (row.neutral == 0.0 || !value.is_number() || value == row.neutral)) return;
        const auto turned_off = m_object.find("use_sliding_window");
        if (row.key == model_key::sliding_window && turned_off != m_object.end() && *turned_off == false) return;
        // Where no block has a window, "full" says nothing new; transformers takes a Mistral that says it for a
        // Ministral.
        const auto whole = [&](const nlohmann::json& type) {
            return type == "full_attention" || type == "hybrid" ||  // attention beside a state space (Falcon-H1)
                   (reads_indexer(m_family) && type.is_string() && is_indexed_type(type.get_ref<const std::string&>()));
        };
        if (row.key == model_key::layer_types && !reads_window(m_family) && value.is_array() &&
            std::ranges::all_of(value, whole))
            return;
        m_not_understood.push_back(m_path + std::string(name) + " is " + shown(value) + ", which \"" +
                                   std::string(m_family.name) + "\" does not have");
    }

    [[nodiscard]] bool claimed(const std::string& name, std::span<const key_row> rows) const {
        const auto names = [&](const key_row& row) {
            if (std::ranges::find(row.hf, name) != row.hf.end()) return true;
            // An object of which the family reads a member: the others describe what larql does not compute.
            return (row.read_by == nullptr || row.read_by(m_family)) &&
                   std::ranges::any_of(row.hf, [&](std::string_view n) { return n.starts_with(name + "."); });
        };
        const auto of_layers = [&](const window_key& key) { return key.name == name; };
        const bool single_layers = !m_family.window_keys.empty() || m_family.lists(model_key::global_head_dim);
        if (single_layers && (name == "per_layer_config" || std::ranges::any_of(m_family.window_keys, of_layers)))
            return true;
        if (name == "num_attention_heads_per_layer" && m_family.head_counts) return true;
        if (name == "block_configs" && m_family.block_configs) return true;
        if (name == "partial_rotary_factors" && m_family.rope_lists) return true;
        return name == "rope_scaling" || name == "rope_parameters" ||
               (name == "compress_rates" && reads_compressed(m_family)) || std::ranges::any_of(rows, names) ||
               std::ranges::any_of(m_family.aliases, [&](const key_alias& alias) { return alias.name == name; }) ||
               std::ranges::find(m_family.inert_keys, std::string_view(name)) != m_family.inert_keys.end();
    }

    /// Whether the family's row says what this name means, whatever others mean by it.
    [[nodiscard]] bool is_own(std::string_view name) const {
        return find_fixed(name) != nullptr ||
               std::ranges::find(m_family.inert_keys, name) != m_family.inert_keys.end() ||
               std::ranges::find(m_family.aliases, name, &key_alias::name) != m_family.aliases.end();
    }

    /// Whether the family's row names members of an object, whose others are then held against it, too.
    [[nodiscard]] bool has_own_within(std::string_view prefix) const {
        const auto within = [&](const auto& row) { return row.name.starts_with(prefix); };
        return std::ranges::any_of(m_family.aliases, within) || std::ranges::any_of(m_family.fixed_keys, within);
    }

    [[nodiscard]] const fixed_key* find_fixed(std::string_view name) const {
        if (m_closed) return nullptr;  // they are of the configuration, not of a rope dictionary
        const auto found = std::ranges::find(m_family.fixed_keys, name, &fixed_key::name);
        return found != m_family.fixed_keys.end() ? &*found : nullptr;
    }

    [[nodiscard]] const repeated_key* find_repeated(std::string_view name) const {
        if (m_closed) return nullptr;
        const auto found = std::ranges::find(m_family.repeated_keys, name, &repeated_key::name);
        return found != m_family.repeated_keys.end() ? &*found : nullptr;
    }

    [[nodiscard]] static const inert_key* find_inert(const std::string& name) {
        const auto found = std::ranges::find(hf_inert_keys, std::string_view(name), &inert_key::name);
        return found != std::end(hf_inert_keys) ? &*found : nullptr;
    }

    [[nodiscard]] static bool allows(const inert_key& known, const nlohmann::json& value) {
        using enum inert_key::when;
        const std::string text = value.is_string() ? value.get<std::string>() : "";
        switch (known.allowed) {
            case always: return true;
            case no: return says_none(value);
            case yes: return value.is_null() || value == true || value == 1;
            case one: return value.is_null() || value == 1;
            case rotary: return value.is_null() || text == "rope" || text == "rotary" || text == "rotary_embedding";
            case rms: return value.is_null() || text == "rms" || text == "rmsnorm" || text == "rms_norm";
        }
        return false;
    }

    /// Objects about something else: listed ones, and configurations of towers ("vision_config").
    [[nodiscard]] static bool is_foreign(const std::string& name, const nlohmann::json& value) {
        if (std::ranges::find(foreign_objects, std::string_view(name)) != std::end(foreign_objects)) return true;
        return value.is_object() && std::ranges::any_of(foreign_words, [&](std::string_view part) {
                   return name.find(part) != std::string::npos;
               });
    }

    const nlohmann::json& m_object;
    std::string m_path;
    const model_family& m_family;
    config_problems& m_problems;
    std::vector<std::string>& m_not_understood;
    bool m_closed;
};

/// The rope dictionaries of a configuration. As in transformers, a rope_scaling that says anything takes the place of
/// rope_parameters.
inline void read_json_ropes(const nlohmann::json& text, const std::string& path, config_problems& problems,
                            model_values& values) {
    const auto dictionary = [&](const char* name) -> const nlohmann::json* {
        const auto at = text.find(name);
        // An empty dictionary is none, but not where the class makes one instead of none.
        const bool says_plain = at != text.end() && at->is_object() && !values.family->default_rope_type.empty();
        if (at == text.end() || (says_none(*at) && !(says_plain && name == std::string_view("rope_parameters"))))
            return nullptr;
        if (at->is_object()) return &*at;
        problems.add(errc::wrong_type, path + name, "expected an object, got " + shown(*at));
        return nullptr;
    };
    const nlohmann::json* scaling = values.family->rope_lists ? nullptr : dictionary("rope_scaling");
    const std::string name = path + (scaling != nullptr ? "rope_scaling" : "rope_parameters");
    if (scaling == nullptr) scaling = dictionary("rope_parameters");
    if (scaling == nullptr) return;
    const bool by_layer_type = !scaling->empty() && std::ranges::all_of(*scaling, [](const nlohmann::json& v) {
        return v.is_object() || v.is_null();
    });
    const dictionary_rule rule = values.family->dictionaries;
    if (rule == dictionary_rule::none || (rule == dictionary_rule::by_layer_type && !by_layer_type)) {
        values.not_understood.push_back(name + " is " + shown(*scaling) + ", and \"" +
                                        std::string(values.family->name) + "\" reads no rope dictionary" +
                                        (rule == dictionary_rule::none ? "" : " but by layer type"));
        return;
    }
    if (!by_layer_type) {
        json_object_reader reader(*scaling, name + ".", *values.family, problems, values.not_understood, true);
        reader.read(rope_keys, values.ropes.emplace_back().keys);
        return;
    }
    if (!reads_layer_ropes(*values.family))
        values.not_understood.push_back(name + " differs by layer type, which \"" + std::string(values.family->name) +
                                        "\" does not have");
    for (const auto& [layer_type, keys] : scaling->items()) {
        if (!keys.is_object()) {
            if (!values.family->null_rope) continue;
            rope_values& none = values.ropes.emplace_back();
            none.layer_type = layer_type;
            none.keys.set(model_key::rope_theta, none_stated{}, name + "." + layer_type);
            continue;
        }
        json_object_reader reader(keys, name + "." + layer_type + ".", *values.family, problems, values.not_understood,
                                  true);
        rope_values& rope = values.ropes.emplace_back();
        rope.layer_type = layer_type;
        reader.read(rope_keys, rope.keys);
    }
}

/// The tokens of an entry by layer type; what stands beside the object goes before it, as in transformers.
inline void read_json_compress_rates(const nlohmann::json& text, const std::string& path, config_problems& problems,
                                     model_values& values) {
    const auto rates = text.find("compress_rates");
    if (rates == text.end() || rates->is_null() || !reads_compressed(*values.family)) return;
    if (!rates->is_object())
        return problems.add(errc::wrong_type, path + "compress_rates", "expected an object, got " + shown(*rates));
    key_values by_type;
    json_object_reader reader(*rates, path + "compress_rates.", *values.family, problems, values.not_understood, true);
    reader.read(compress_rate_keys, by_type);
    by_type.overlay(values.top);
    values.top = std::move(by_type);
}

/// Reads the object that holds the language model's keys.
/// @param path  what leads to it, with a dot at its end: "" or "text_config."
inline void read_json_values(const nlohmann::json& text, const std::string& path, config_problems& problems,
                             model_values& values) {
    values.where = path;
    json_object_reader reader(text, path, *values.family, problems, values.not_understood, false);
    reader.read(top_keys, values.top);
    auto types = values.top.find<std::vector<std::string>>(model_key::layer_types);
    if (values.family->counts_types && types && !values.top.stated(model_key::num_hidden_layers))
        values.top.set(model_key::num_hidden_layers, std::uint64_t{types->size()},
                       values.top.name(model_key::layer_types));
    const std::size_t layers = values.top.size(model_key::num_hidden_layers);
    if (values.family->rope_lists && types &&
        types->size() == layers + values.top.size(model_key::num_nextn_predict_layers)) {
        types->resize(layers);  // the others are of blocks that predict
        values.top.set(model_key::layer_types, std::move(*types), values.top.name(model_key::layer_types));
    }
    read_json_compress_rates(text, path, problems, values);
    if (!values.family->params_json) read_json_ropes(text, path, problems, values);
    values.stored_pairing = values.family->pairing;
}

}  // namespace larql::detail

#endif
