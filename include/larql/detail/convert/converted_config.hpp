// SPDX-License-Identifier: Apache-2.0
//
// The config.json of a conversion. A whole model in its published form keeps what transformers knows; whatever
// transformers would misread carries larql's own model_type, which it refuses.
#ifndef LARQL_DETAIL_CONVERT_CONVERTED_CONFIG_HPP
#define LARQL_DETAIL_CONVERT_CONVERTED_CONFIG_HPP

#include <larql/attention_form.hpp>
#include <larql/attention_spec.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/convert/number_formats.hpp>
#include <larql/detail/convert/target_names.hpp>
#include <larql/detail/model/json_wrapper.hpp>
#include <larql/detail/model/roles.hpp>
#include <larql/error.hpp>
#include <larql/mla_absorb.hpp>

#include <nlohmann/json.hpp>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace larql::detail {

/// Whether a conversion is the model as published: all of it, in its own form, and in transformers' words.
inline bool is_published(const checkpoint& source, const conversion_scope& scope) {
    return scope.form == attention_form::factored && !source.family().params_json && scope.block_begin == 0 &&
           scope.block_end == source.attention_blocks();
}

/// The object of a configuration that describes the language model.
inline nlohmann::json& text_object(nlohmann::json& config) {
    return const_cast<nlohmann::json&>(*find_text_part(config).object);
}

/// Quantised weights were decoded: what described them goes.
inline void drop_quantisation(nlohmann::json& config) {
    for (nlohmann::json* object : {&config, &text_object(config)})
        for (const char* key : {"quantization_config", "compression_config", "quantization"}) object->erase(key);
}

inline void state_dtype(nlohmann::json& config, dtype type) {
    const char* const name = type == dtype::f32 ? "float32" : type == dtype::f16 ? "float16" : "bfloat16";
    bool stated = false;
    for (nlohmann::json* object : {&config, &text_object(config)})
        for (const char* key : {"dtype", "torch_dtype"}) {
            if (!object->contains(key)) continue;
            (*object)[key] = name;
            stated = true;
        }
    if (!stated) config["torch_dtype"] = name;  // which every version of transformers reads
}

/// GGUF says that there are biases by having them, transformers by a key that stands for several tensors.
inline void state_biases(nlohmann::json& config, const checkpoint& source, const conversion_scope& scope) {
    const model_family& family = source.family();
    if (!source.has_gguf_names()) return;
    for (std::size_t block = scope.block_begin; block < scope.block_end; ++block) {
        const attention_spec& spec = source.spec(block);
        std::string absent;
        bool some = false;
        for (const role_row& row : attention_roles) {
            if (!family.biases_by_key.contains(row.role) || !row.needed(spec, spec.form)) continue;
            const bool here = spec.biases.contains(row.role);
            some = some || here;
            if (!here) absent += (absent.empty() ? "" : ", ") + source.tensor_name(row.role, block, true);
        }
        if (!some && !config.value("attention_bias", false)) continue;
        if (!absent.empty())
            fail(errc::unsupported_architecture,
                 "some projections have biases: transformers' \"" + std::string(family.name) + "\" wants these too",
                 {.file = source.shard_path(0), .subject = absent});
        config["attention_bias"] = true;
    }
}

/// How rows lie in the converted blocks: the same in all of them, or no one place could say it.
struct converted_rows {
    head_order order;
    rope_pairing pairing;
    friend bool operator==(const converted_rows&, const converted_rows&) = default;
};

inline converted_rows rows_after(const checkpoint& source, const conversion_scope& scope) {
    const auto of_block = [&](std::size_t block) -> converted_rows {
        const attention_spec& spec = source.spec(block);
        const absorb_options made;
        if (scope.form == spec.form) return {spec.geometry.order, published_pairing(source, spec)};
        return {made.order, pairing_after(spec.geometry, made.pairing)};
    };
    const converted_rows first = of_block(scope.block_begin);
    for (std::size_t block = scope.block_begin; block < scope.block_end; ++block)
        if (of_block(block) != first)
            fail(errc::unsupported_architecture,
                 concat({"blocks ", scope.block_begin, " and ", block, " have rows in different orders"}),
                 {.file = source.shard_path(0), .subject = "layers"});
    return first;
}

/// Marks a configuration as larql's own, with everything at its top.
inline void mark_converted(nlohmann::json& config, const checkpoint& source, const conversion_scope& scope) {
    nlohmann::json flat = text_object(config);
    for (const char* key : {"dtype", "torch_dtype"})
        if (config.contains(key)) flat[key] = config[key];
    const converted_rows rows = rows_after(source, scope);
    const std::string form(to_string(scope.form));
    nlohmann::json object = {{"model_type", source.config().model_type},
                             {"row_order", to_string(rows.order)},
                             {"pairing", to_string(rows.pairing)},
                             {"dtype", to_string(scope.attention.value_or(dtype::f32))}};
    if (scope.block_begin != 0 || scope.block_end != source.attention_blocks())
        object["layers"] = {scope.block_begin, scope.block_end};
    const attention_spec& spec = source.spec(scope.block_begin);
    if (spec.kind == attention_kind::mla && !flat.contains("q_lora_rank")) {  // tensors of this form do not tell
        flat["q_lora_rank"] = nullptr;
        if (spec.geometry.q_lora_rank != 0) flat["q_lora_rank"] = spec.geometry.q_lora_rank;
    }
    flat["model_type"] = "larql-" + form;
    const char* const architecture = scope.form == attention_form::dense    ? "LarqlDenseForCausalLM"
                                     : scope.form == attention_form::latent ? "LarqlLatentForCausalLM"
                                                                            : "LarqlFactoredForCausalLM";
    flat["architectures"] = nlohmann::json::array({architecture});
    flat["larql"] = std::move(object);
    config = std::move(flat);
}

/// @param types  what the matrices are written as, or nothing: as the source says
/// @param keeps_quantisation  scales and codes are copied with the weights that they belong to
/// @throws error what transformers has no words for
inline nlohmann::json convert_config(const checkpoint& source, const conversion_scope& scope,
                                     const std::optional<dtype>& types, bool keeps_quantisation) {
    nlohmann::json config = source.config_json();
    if (config.erase("larql") != 0) {  // a conversion of a conversion
        config["model_type"] = source.config().model_type;
        config["architectures"] = nlohmann::json::array({source.family().classes.front()});
    }
    if (!keeps_quantisation) drop_quantisation(config);
    if (types) state_dtype(config, *types);
    if (scope.form == attention_form::factored) state_biases(config, source, scope);
    if (!is_published(source, scope)) mark_converted(config, source, scope);
    return config;
}

}  // namespace larql::detail

#endif
