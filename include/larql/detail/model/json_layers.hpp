// SPDX-License-Identifier: Apache-2.0
//
// Sizes that a config.json states for some layers alone: by keys for all layers with a window, or layer by layer; and
// rotation that it states so.
#ifndef LARQL_DETAIL_MODEL_JSON_LAYERS_HPP
#define LARQL_DETAIL_MODEL_JSON_LAYERS_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/model/json_source.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/layers.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/error.hpp>
#include <larql/model_family.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace larql::detail {

/// The row of a key at the top of a configuration.
inline const key_row& top_row(model_key key) { return *std::ranges::find(top_keys, key, &key_row::key); }

/// The sizes of blocks with a window, by keys of their own.
inline void read_json_window(const nlohmann::json& text, const std::string& path, config_problems& problems,
                             model_values& values) {
    key_values& window = values.window;
    for (const window_key& row : values.family->window_keys) {
        const nlohmann::json* stated = find_member(text, row.name);
        if ((stated == nullptr || stated->is_null()) && row.value == 0.0) continue;
        const std::string name = path + std::string(row.name);
        auto value = stated != nullptr ? json_value_reader(top_row(row.key), name, problems).read(*stated)
                                       : std::optional<config_value>(static_cast<std::uint64_t>(row.value));
        window.set(row.key, value ? std::move(*value) : config_value(refused_value{}), name);
    }
    // A head is what rotates and what does not.
    const std::uint64_t head = window.size(model_key::head_dim), other = window.size(model_key::qk_nope_head_dim);
    const bool derived = !window.stated(model_key::qk_rope_head_dim);
    const std::uint64_t rotated = derived && head > other ? head - other : window.size(model_key::qk_rope_head_dim);
    if (derived) window.set(model_key::qk_rope_head_dim, rotated, window.name(model_key::head_dim));
    if (head != 0 && head != other + rotated)
        problems.add(errc::bad_value, window.name(model_key::head_dim),
                     concat({"expected the sum of ", other, " and ", rotated, ", got ", head}));
}

/// The keys that `per_layer_config` states for single layers: those that may differ, and what is outside attention.
inline void read_json_layers(const nlohmann::json& text, const std::string& path, config_problems& problems,
                             model_values& values) {
    const auto object = text.find("per_layer_config");
    values.by_layer = object != text.end();
    if (!values.by_layer) return read_json_window(text, path, problems, values);
    if (says_none(*object)) return;
    const std::string name = path + "per_layer_config";
    if (!object->is_object()) return problems.add(errc::wrong_type, name, "expected an object, got " + shown(*object));
    std::vector<key_row> rows;
    for (const window_key& row : values.family->window_keys) rows.push_back(top_row(row.key));
    if (values.family->lists(model_key::global_head_dim))
        for (const model_key key : {model_key::head_dim, model_key::num_key_value_heads}) rows.push_back(top_row(key));
    std::vector<const nlohmann::json*> seen;  // equal entries are read once
    for (const auto& [number, keys] : object->items()) {
        std::size_t layer = 0;
        const auto [end, problem] = std::from_chars(number.data(), number.data() + number.size(), layer);
        const std::size_t layers = values.top.size(model_key::num_hidden_layers);
        if (problem != std::errc{} || end != number.data() + number.size() || layer >= layers || !keys.is_object() ||
            keys.contains("skip")) {
            problems.add(errc::bad_value, name,
                         concat({"expected layers below ", layers, " and objects of sizes, got \"", number,
                                 "\": ", shown(keys)}));
            continue;
        }
        const auto same = std::ranges::find_if(seen, [&](const nlohmann::json* other) { return *other == keys; });
        const auto at = static_cast<std::size_t>(same - seen.begin());
        if (same == seen.end()) {
            seen.push_back(&keys);
            json_object_reader reader(keys, name + "." + number + ".", *values.family, problems, values.not_understood,
                                      false);
            reader.read(rows, values.layers.emplace_back().keys);
        }
        values.layers[at].layers.push_back(layer);
    }
}

/// The query heads of each layer, where a list has them (configuration_laguna.py).
inline void read_json_head_counts(const nlohmann::json& text, const std::string& path, config_problems& problems,
                                  model_values& values) {
    const nlohmann::json* list = find_member(text, "num_attention_heads_per_layer");
    if (list == nullptr || list->is_null()) return;
    const std::string name = path + "num_attention_heads_per_layer";
    const std::size_t layers = values.top.size(model_key::num_hidden_layers);
    if (!list->is_array() || list->size() != layers)
        return problems.add(errc::bad_value, name, concat({"expected a list of ", layers, " numbers"}));
    values.by_layer = true;
    for (std::size_t layer = 0; layer < layers; ++layer) {
        const std::string at = concat({name, "[", layer, "]"});
        auto heads = json_value_reader(top_row(model_key::num_attention_heads), at, problems).read((*list)[layer]);
        layer_values& own = values.layers.emplace_back();
        own.layers.push_back(layer);
        own.keys.set(model_key::num_attention_heads, heads ? std::move(*heads) : config_value(refused_value{}), at);
    }
}

/// What `block_configs` says of each layer: query heads for each key/value head, or that it has no attention
/// (configuration_decilm.py, published with NVIDIA's Nemotron models).
inline void read_json_blocks(const nlohmann::json& text, const std::string& path, config_problems& problems,
                             model_values& values) {
    const std::string name = path + "block_configs";
    const auto list = text.find("block_configs");
    const std::size_t layers = values.top.size(model_key::num_hidden_layers);
    if (list == text.end()) return problems.add(errc::missing_key, name, "required and absent");
    if (!list->is_array() || list->size() != layers)
        return problems.add(errc::bad_value, name, concat({"expected a list of ", layers, " objects"}));
    values.by_layer = true;
    const std::size_t heads = values.top.size(model_key::num_attention_heads);
    for (std::size_t layer = 0; layer < layers; ++layer) {
        const std::string at = concat({name, "[", layer, "].attention"});
        const nlohmann::json* block = find_member((*list)[layer], "attention");
        if (block == nullptr || !block->is_object()) {
            problems.add(errc::missing_key, at, "required and absent");
            continue;
        }
        for (const auto& [key, value] : block->items())
            if (key != "n_heads_in_group" && key != "no_op" && key != "replace_with_linear" && !says_none(value))
                values.not_understood.push_back(at + "." + key + " (" + shown(value) + ") is unknown");
        const nlohmann::json *none = find_member(*block, "no_op"), *linear = find_member(*block, "replace_with_linear");
        if ((none != nullptr && *none == true) || (linear != nullptr && *linear == true)) {
            values.without_attention.push_back(layer);
            continue;
        }
        const nlohmann::json* shared = find_member(*block, "n_heads_in_group");
        const bool good =
            shared != nullptr && shared->is_number_integer() && *shared > 0 && heads % shared->get<std::size_t>() == 0;
        if (!good) {
            problems.add(errc::bad_value, at + ".n_heads_in_group",
                         concat({"expected a divisor of num_attention_heads ", heads, ", got ",
                                 (shared == nullptr ? "nothing" : shown(*shared))}));
            continue;
        }
        layer_values& own = values.layers.emplace_back();
        own.layers.push_back(layer);
        own.keys.set(model_key::num_key_value_heads, std::uint64_t{heads / shared->get<std::size_t>()},
                     at + ".n_heads_in_group");
    }
}

/// What lists of layers say of the rotation of one layer type: the values of its first layer, which its others must
/// have, too. What stands in the dictionary stays.
inline void read_json_rope_lists(const nlohmann::json& text, const std::vector<std::string>& types,
                                 config_problems& problems, model_values& values, rope_values& rope) {
    const auto first = static_cast<std::size_t>(std::ranges::find(types, rope.layer_type) - types.begin());
    const std::size_t whole = types.size() + values.top.size(model_key::num_nextn_predict_layers);
    for (const auto& [key, list_name] : {std::pair(model_key::rope_theta, "rope_theta"),
                                         std::pair(model_key::partial_rotary_factor, "partial_rotary_factors")}) {
        const nlohmann::json* list = find_member(text, list_name);
        if (list == nullptr || list->is_null()) continue;
        if (list->is_number() && key == model_key::rope_theta) continue;  // of all layers
        const std::string name = values.where + list_name;
        if (!list->is_array() || (list->size() != types.size() && list->size() != whole)) {
            problems.add(errc::bad_value, name,
                         concat({"expected a list of ", types.size(), " numbers, got ", shown(*list)}));
            continue;
        }
        const auto at = [&](std::size_t layer) { return concat({name, "[", layer, "]"}); };
        auto value = json_value_reader(top_row(key), at(first), problems).read((*list)[first]);
        if (!rope.keys.stated(key))
            rope.keys.set(key, value ? std::move(*value) : config_value(refused_value{}), at(first));
        for (std::size_t layer = first; layer < types.size(); ++layer) {
            if (types[layer] != rope.layer_type || (*list)[layer] == (*list)[first]) continue;
            values.not_understood.push_back(at(layer) + " is " + shown((*list)[layer]) + ", and " + at(first) +
                                            ", of a layer of the same type, is " + shown((*list)[first]));
            break;
        }
    }
}

/// Dictionaries of rotation by layer type, made of lists of layers and of `rope_scaling` as transformers makes them
/// where `rope_parameters` has none (configuration_step3p7.py).
inline void read_json_layer_ropes(const nlohmann::json& text, const std::string& path, config_problems& problems,
                                  model_values& values) {
    const std::string name = path + "rope_scaling";
    const nlohmann::json* scaling = find_member(text, "rope_scaling");
    if (scaling != nullptr && says_none(*scaling)) scaling = nullptr;
    if (scaling != nullptr && !scaling->is_object())
        return problems.add(errc::wrong_type, name, "expected an object, got " + shown(*scaling));
    if (scaling != nullptr && scaling->contains("type") && !scaling->contains("rope_type"))
        values.not_understood.push_back(name + ".type is " + shown((*scaling)["type"]) + ", and \"" +
                                        std::string(values.family->name) + "\" reads rope_type alone");
    if (scaling != nullptr && !values.ropes.empty())
        values.not_understood.push_back(name + " stands beside rope_parameters, and only these would be read");
    const auto types = values.top.find<std::vector<std::string>>(model_key::layer_types);
    if (!types || !values.ropes.empty()) return;
    for (const char* type : {full_layer, sliding_layer}) {
        if (std::ranges::find(*types, type) == types->end()) continue;
        rope_values& rope = values.ropes.emplace_back();
        rope.layer_type = type;
        if (scaling != nullptr && type == full_layer)
            json_object_reader(*scaling, name + ".", *values.family, problems, values.not_understood, true)
                .read(rope_keys, rope.keys);
        read_json_rope_lists(text, *types, problems, values, rope);
    }
}

}  // namespace larql::detail

#endif
