// SPDX-License-Identifier: Apache-2.0
//
// Mistral's own params.json, which stands beside its consolidated safetensors: sizes under names that the families'
// rows state as aliases, and two objects of rotation, read here.
#ifndef LARQL_DETAIL_MODEL_PARAMS_SOURCE_HPP
#define LARQL_DETAIL_MODEL_PARAMS_SOURCE_HPP

#include <larql/detail/model/json_source.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/model_family.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <iterator>
#include <span>
#include <string>

namespace larql::detail {

/// The object "yarn": what mistral-inference, vLLM and llama.cpp's converter read.
inline constexpr key_row params_yarn_keys[] = {
    {model_key::rope_factor, value_type::number, above_zero, any_finite, {"factor"}},
    {model_key::rope_original_max_position, value_type::integer, 1, max_length, {"original_max_position_embeddings"}},
    {model_key::rope_beta_fast, value_type::number, above_zero, any_finite, {"beta"}},
    {model_key::rope_beta_slow, value_type::number, above_zero, any_finite, {"alpha"}},
    {model_key::rope_apply_scale, value_type::flag, 0, 1, {"apply_scale"}},
};

/// The object "llama_4_scaling".
inline constexpr key_row params_temperature_keys[] = {
    {model_key::temperature_scale, value_type::number, above_zero, any_finite, {"beta"}},
    {model_key::temperature_length, value_type::number, 1, max_length, {"original_max_position_embeddings"}},
};

/// The object "moe".
inline constexpr key_row params_experts_keys[] = {
    {model_key::n_routed_experts, value_type::integer, 0, max_dimension, {"num_experts"}},
    {model_key::n_shared_experts, value_type::integer, 0, max_dimension, {"num_shared_experts"}},
    {model_key::num_experts_per_tok, value_type::integer, 0, max_dimension, {"num_experts_per_tok"}},
    {model_key::moe_intermediate_size, value_type::integer, 1, max_vocabulary, {"expert_hidden_dim"}},
    {model_key::first_k_dense_replace, value_type::integer, 0, max_layers, {"first_k_dense_replace"}},
    {model_key::n_group, value_type::integer, 0, max_dimension, {"num_expert_groups"}},
    {model_key::topk_group, value_type::integer, 0, max_dimension, {"num_expert_groups_per_tok"}},
    {model_key::routed_scaling_factor, value_type::number, 0, any_finite, {"routed_scale"}},
};

inline bool is_params_json(const nlohmann::json& config) {
    return config.contains("dim") && config.contains("n_layers") && config.contains("n_heads");
}

/// The family of a params.json: of latent attention where it states a latent.
inline const model_family* find_params_family(std::span<const model_family> rows, const nlohmann::json& params) {
    const attention_kind kind = params.contains("kv_lora_rank") ? attention_kind::mla : attention_kind::gqa;
    const auto fits = [&](const model_family& row) { return row.params_json && row.kind == kind; };
    const auto found = std::ranges::find_if(rows, fits);
    return found != rows.end() ? &*found : nullptr;
}

/// What stands in objects of its own: the queries' temperature, experts and rotation.
inline void read_params_objects(const nlohmann::json& params, config_problems& problems, model_values& values) {
    const auto read = [&](const char* name, std::span<const key_row> rows, key_values& into, bool closed = true) {
        const auto object = params.find(name);
        if (object == params.end() || says_none(*object)) return false;
        if (!object->is_object()) {
            problems.add(errc::wrong_type, name, "expected an object, got " + shown(*object));
            return false;
        }
        json_object_reader(*object, std::string(name) + ".", *values.family, problems, values.not_understood, closed)
            .read(rows, into);
        return true;
    };
    read("llama_4_scaling", params_temperature_keys, values.top);
    if (values.family->kind == attention_kind::mla) read("moe", params_experts_keys, values.top, false);
    rope_values rope;
    if (!read("yarn", params_yarn_keys, rope.keys)) return;
    rope.keys.set(model_key::rope_type, std::string("yarn"), "yarn.factor");
    // Cosines and sines keep their length; scores of latent attention are multiplied by YaRN's m^2 all the same.
    if (rope.keys.find<bool>(model_key::rope_apply_scale).value_or(true))
        values.not_understood.push_back("yarn.apply_scale is not false");
    rope.keys.set(model_key::rope_attention_factor, 1.0, "yarn.apply_scale");
    rope.keys.set(model_key::rope_mscale_all_dim, 1.0, "yarn.factor");
    values.ropes.push_back(std::move(rope));
}

}  // namespace larql::detail

#endif
