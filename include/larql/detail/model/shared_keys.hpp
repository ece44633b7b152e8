// SPDX-License-Identifier: Apache-2.0
//
// Blocks that attend to keys and values of another block: the last ones of a model, whose number a key states.
#ifndef LARQL_DETAIL_MODEL_SHARED_KEYS_HPP
#define LARQL_DETAIL_MODEL_SHARED_KEYS_HPP

#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/values.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

namespace larql::detail {

/// How many layers, the last ones, share keys and values of others; 0 where that is unknown, which is reported.
inline std::size_t shared_layers(const model_values& values, std::size_t layers, config_problems& problems) {
    constexpr model_key key = model_key::num_kv_shared_layers;
    if (!values.family->lists(key) || layers == 0) return 0;
    const std::string name = values.top.name(key, values.where + "num_kv_shared_layers");
    if (!values.top.stated(key) && values.from_gguf && values.family->default_of(key)) {
        // llama.cpp's converter always writes it, and no number would be right for every published model.
        problems.add(errc::missing_key, values.where + "attention.shared_kv_layers", "required and absent");
        return 0;
    }
    const std::size_t shared = values.size_or_default(key);
    if (shared < layers) return shared;
    problems.add(errc::bad_value, name,
                 "expected less than the " + std::to_string(layers) + " layers, some of which must have the keys and " +
                     "values that the others share; got " + std::to_string(shared));
    return 0;
}

/// Lets the last layers attend to keys and values of the last layer of their type that has its own.
/// @param types  of all layers, "" where the family has none
/// @source transformers configuration_gemma3n.py, configuration_gemma4.py: kv_sharing_modes
inline void share_keys(const model_values& values, const std::vector<std::string>& types,
                       std::vector<attention_spec>& all, config_problems& problems) {
    const std::size_t first = types.size() - shared_layers(values, types.size(), problems);
    for (attention_spec& spec : all) {
        if (spec.layer < first) continue;
        const std::string& type = types[spec.layer];
        const auto same = [&](const attention_spec& other) {
            return other.layer < first && types[other.layer] == type;
        };
        const auto source = std::find_if(all.rbegin(), all.rend(), same);
        const std::string name = values.top.name(model_key::num_kv_shared_layers, "num_kv_shared_layers");
        if (source == all.rend()) {
            problems.add(errc::bad_value, name,
                         "layer " + std::to_string(spec.layer) + " shares keys and values, and none of the " +
                             std::to_string(first) + " layers that have their own is \"" + type + "\"");
            continue;
        }
        const mla_geometry &g = spec.geometry, &h = source->geometry;
        if (g.kv_heads() != h.kv_heads() || g.qk_head_dim() != h.qk_head_dim() || g.v_head_dim != h.v_head_dim)
            problems.add(errc::bad_value, name,
                         "layer " + std::to_string(spec.layer) + " has " + std::to_string(g.kv_heads()) +
                             " key/value heads of " + std::to_string(g.qk_head_dim()) + ", and layer " +
                             std::to_string(source->layer) + ", whose keys and values it shares, " +
                             std::to_string(h.kv_heads()) + " of " + std::to_string(h.qk_head_dim()));
        spec.kv_layer = source->layer;
        spec.k_norm = spec.v_norm = norm_spec{};
        spec.value_is_key = false;
        for (const tensor_role role : {tensor_role::k, tensor_role::v, tensor_role::k_norm}) spec.biases.erase(role);
    }
}

}  // namespace larql::detail

#endif
