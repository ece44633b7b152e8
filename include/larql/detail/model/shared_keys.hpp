// SPDX-License-Identifier: Apache-2.0
//
// Blocks that attend to keys and values, or latents, of another block: the last ones of a model, whose number a key
// states, or those for which a list names another.
#ifndef LARQL_DETAIL_MODEL_SHARED_KEYS_HPP
#define LARQL_DETAIL_MODEL_SHARED_KEYS_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/values.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
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
                 concat({"expected less than the ", layers, " layers, some of which must have the keys and ",
                         "values that the others share; got ", shared}));
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
                         concat({"layer ", spec.layer, " shares keys and values, and none of the ", first,
                                 " layers that have their own is \"", type, "\""}));
            continue;
        }
        const mla_geometry &g = spec.geometry, &h = source->geometry;
        if (g.kv_heads() != h.kv_heads() || g.qk_head_dim() != h.qk_head_dim() || g.v_head_dim != h.v_head_dim)
            problems.add(errc::bad_value, name,
                         concat({"layer ", spec.layer, " has ", g.kv_heads(), " key/value heads of ", g.qk_head_dim(),
                                 ", and layer ", source->layer, ", whose keys and values it shares, ", h.kv_heads(),
                                 " of ", h.qk_head_dim()}));
        spec.kv_layer = source->layer;
        spec.k_norm = spec.v_norm = norm_spec{};
        spec.value_is_key = false;
        for (const tensor_role role : {tensor_role::k, tensor_role::v, tensor_role::k_norm}) spec.biases.erase(role);
    }
}

/// The layers whose latents each layer attends to, its own or another's, as a list states them; nothing if there is
/// none or it cannot be, which is reported.
inline std::optional<std::vector<std::size_t>> latent_sources(const model_values& values, std::size_t layers,
                                                              config_problems& problems) {
    constexpr model_key key = model_key::kv_source_layers;
    const auto stated = values.top.find<std::vector<double>>(key);
    if (!values.family->lists(key) || !stated || layers == 0) return std::nullopt;
    const std::string name = values.top.name(key);
    if (stated->size() != layers) {
        problems.add(errc::bad_value, name, concat({"expected ", layers, " entries, got ", stated->size()}));
        return std::nullopt;
    }
    std::vector<std::size_t> sources;
    for (const double number : *stated) {
        const auto source = static_cast<std::size_t>(number);
        const std::size_t layer = sources.size();
        sources.push_back(source);
        if (source <= layer && static_cast<double>(source) == number && sources[source] == source) continue;
        problems.add(
            errc::bad_value, name,
            concat({"layer ", layer,
                    " is to take the latents of an earlier layer that has its own, or to have its own; got ", number}));
        return std::nullopt;
    }
    return sources;
}

/// Lets layers attend to latents of others, by the list that names these.
///
/// transformers' code does not go by the number in that list: it hands on the latents of the last layer that is named
/// for any other, one for layers that rotate and one for those that do not. Lists for which that is another layer than
/// the one they name are refused.
/// @param all  a block for each layer
/// @source transformers configuration_mistral_large4.py kv_sharing_modes, modeling_mistral_large4.py shared_kv_states
inline void share_latents(const model_values& values, std::size_t layers, std::vector<attention_spec>& all,
                          config_problems& problems) {
    const auto sources = latent_sources(values, layers, problems);
    if (!sources || all.size() != layers) return;
    for (std::size_t layer = 0; layer < layers; ++layer) {
        const std::size_t source = (*sources)[layer];
        if (source == layer) continue;
        attention_spec& spec = all[layer];
        spec.kv_layer = source;
        spec.shares_latents = all[source].shares_latents = true;
        spec.k_rope_norm = {};
        spec.biases.erase(tensor_role::kv_a);
    }
    for (const attention_spec& spec : all) {
        if (!spec.kv_layer) continue;
        std::size_t handed = layers;  // none
        for (const attention_spec& other : all)
            if (other.layer < spec.layer && other.shares_latents && !other.kv_layer &&
                other.geometry.qk_rope_head_dim == spec.geometry.qk_rope_head_dim)
                handed = other.layer;
        if (handed == *spec.kv_layer) continue;
        problems.add(
            errc::bad_value, values.top.name(model_key::kv_source_layers),
            concat({"layer ", spec.layer, " is to take the latents of layer ", *spec.kv_layer,
                    ", which is not the last before it whose latents are shared and that rotates, or does not, "
                    "as it does: transformers would take those of ",
                    (handed == layers ? "none" : concat({"layer ", handed}))}));
    }
}

}  // namespace larql::detail

#endif
