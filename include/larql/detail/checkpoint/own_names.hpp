// SPDX-License-Identifier: Apache-2.0
//
// Which stored names are the language model's, and which those of a tower that sees or hears beside it in a wrapper.
#ifndef LARQL_DETAIL_CHECKPOINT_OWN_NAMES_HPP
#define LARQL_DETAIL_CHECKPOINT_OWN_NAMES_HPP

#include <larql/checkpoint.hpp>
#include <larql/detail/checkpoint/tensors.hpp>
#include <larql/detail/model/json_wrapper.hpp>
#include <larql/detail/model/names.hpp>
#include <larql/tensor_role.hpp>

#include <nlohmann/json.hpp>

#include <optional>
#include <string>
#include <string_view>

namespace larql::detail {

/// Whether a claimed name is the model's: under its prefix, or that of the output, which may stand elsewhere.
inline bool is_own(const checkpoint& model, const std::string& name, const matched_name& matched) {
    if (matched.prefix == model.name_prefix()) return true;
    const tensor_identity& what = matched.identity;
    return what.role == tensor_role::output && model.tensor_name(what.role, what.layer, what.bias) == name;
}

/// What a claimed tensor is in its layer: some models call the gate of a layer with linear attention like that of
/// attention.
inline tensor_identity in_its_layer(const checkpoint& model, tensor_identity what) {
    const bool linear = model.family().linear_layers && what.layer < model.config().num_hidden_layers;
    if (what.role == tensor_role::gate && linear && !find_block(model.config(), what))
        what.role = tensor_role::linear_gate_a;
    return what;
}

/// The tower of a wrapper to which a tensor belongs, up to the word that says so ("vision_tower"), or "". What lies
/// within the model's layers is none, whatever it is called.
/// @param matched  what a row says of the name, if one does
inline std::string_view tower_of(const checkpoint& model, const std::string& name,
                                 const std::optional<matched_name>& matched) {
    const std::string_view tower = tower_in(name);
    if (tower.empty() || (matched && is_own(model, name, *matched))) return {};
    if (name.starts_with(model.name_prefix() + "layers.")) return {};
    const nlohmann::json config = model.config_json();
    return find_text_part(config).path.empty() ? std::string_view() : tower;
}

}  // namespace larql::detail

#endif
