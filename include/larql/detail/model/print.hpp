// SPDX-License-Identifier: Apache-2.0
//
// Stated values as the config.json that transformers reads: the key rows, walked the other way.
#ifndef LARQL_DETAIL_MODEL_PRINT_HPP
#define LARQL_DETAIL_MODEL_PRINT_HPP

#include <larql/attention_spec.hpp>
#include <larql/detail/model/gguf_fields.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/gguf.hpp>
#include <larql/model_family.hpp>
#include <larql/rope.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace larql::detail {

inline nlohmann::json json_of(const config_value& value) {
    return std::visit(
        [](const auto& v) {
            using type = std::decay_t<decltype(v)>;
            if constexpr (std::is_same_v<type, none_stated> || std::is_same_v<type, refused_value>)
                return nlohmann::json(nullptr);
            else
                return nlohmann::json(v);
        },
        value);
}

/// Whether two embeddings have the same frequencies, as nearly as float32 divisors tell.
inline bool same_frequencies(const rope_config& a, const rope_config& b) {
    const std::vector<double> x = make_rope_table(a).frequencies, y = make_rope_table(b).frequencies;
    return std::ranges::equal(x, y, [](double p, double q) { return std::abs(p - q) <= 1e-5 * q; });
}

/// The parameters of Llama 3's scaling that give these divisors, or nothing.
///
/// A divisor d of the frequency with wavelength l is 1 / ((1 - s) / factor + s), where s = (original / l - low) /
/// (high - low) lies between 0 and 1. That is a line over 1 / l, so that two of (original, low, high) can be told: the
/// original is taken as the integer for which low is nearest to 1.
inline std::optional<rope_config> fit_llama3(const rope_config& stored) {
    rope_config fit = stored;
    fit.kind = rope_kind::llama3;
    fit.divisors.clear();
    fit.factor = stored.divisors.empty() ? 1.0 : std::ranges::max(stored.divisors);
    if (!(fit.factor > 1.0)) return std::nullopt;
    rope_config plain = stored;
    plain.kind = rope_kind::standard;
    const std::vector<double> frequencies = make_rope_table(plain).frequencies;
    std::vector<std::pair<double, double>> points;  // 1 / wavelength, s
    for (std::size_t j = 0; j < frequencies.size(); ++j) {
        const double s = (1.0 / stored.divisors[j] - 1.0 / fit.factor) / (1.0 - 1.0 / fit.factor);
        if (s > 1e-5 && s < 1.0 - 1e-5) points.emplace_back(frequencies[j] / (2.0 * std::numbers::pi), s);
    }
    if (points.size() < 2) {  // too few to tell: the parameters of every published Llama 3
        fit.low_freq_factor = 1.0;
        fit.high_freq_factor = 4.0;
        fit.original_max_position =
            points.empty() ? 8192.0 : std::round((points.front().second * 3.0 + 1.0) / points.front().first);
        return same_frequencies(fit, stored) ? std::optional(fit) : std::nullopt;
    }
    const auto& [x0, s0] = points.front();
    const auto& [x1, s1] = points.back();
    const double slope = (s1 - s0) / (x1 - x0), offset = slope * x0 - s0;
    fit.original_max_position = std::round(slope / offset);
    if (!(slope > 0.0) || !(offset > 0.0) || !(fit.original_max_position >= 1.0)) return std::nullopt;
    const double low = fit.original_max_position * offset / slope, high = low + fit.original_max_position / slope;
    for (const double digits : {1e3, 1e12}) {  // the short numbers that somebody wrote, if they fit
        fit.low_freq_factor = std::round(low * digits) / digits;
        fit.high_freq_factor = std::round(high * digits) / digits;
        if (fit.high_freq_factor > fit.low_freq_factor && fit.low_freq_factor > 0.0 && same_frequencies(fit, stored))
            return fit;
    }
    return std::nullopt;
}

/// A rope dictionary, or null for an embedding that is not scaled.
/// @throws error unsupported_architecture if transformers has no words for it
inline nlohmann::json print_rope(rope_config rope, const key_values& stated, const error_where& where) {
    if (rope.kind == rope_kind::divisors) {
        const auto fit = fit_llama3(rope);
        if (!fit)
            fail(errc::unsupported_architecture,
                 "transformers has no rope type for frequencies divided by these numbers",
                 {.file = where.file, .subject = "rope_freqs.weight"});
        return {{"rope_type", "llama3"},
                {"factor", fit->factor},
                {"low_freq_factor", fit->low_freq_factor},
                {"high_freq_factor", fit->high_freq_factor},
                {"original_max_position_embeddings", static_cast<std::uint64_t>(fit->original_max_position)}};
    }
    const bool has_magnitude = rope.kind == rope_kind::yarn || rope.kind == rope_kind::longrope;
    if (rope.magnitude_factor != 1.0 && !has_magnitude)
        fail(errc::unsupported_architecture,
             "transformers has no magnitude for rope type \"" + std::string(to_string(rope.kind)) + "\"",
             {.file = where.file, .subject = "rope.scaling.attn_factor"});
    if (rope.kind == rope_kind::standard) return nullptr;
    nlohmann::json dictionary = {{"rope_type", to_string(rope.kind)}};
    for (const key_row& row : rope_keys) {
        const config_value* value = stated.value(row.key);
        if (value != nullptr && row.key != model_key::rope_type && !row.hf.front().empty())
            dictionary[std::string(row.hf.front())] = json_of(*value);
    }
    if (rope.magnitude_factor != 1.0) dictionary["attention_factor"] = make_rope_table(rope).magnitude;
    return dictionary;
}

/// The embedding that a rope dictionary of the whole model describes: the scaled one, if only some blocks have it.
inline const rope_config& printed_rope(std::span<const attention_spec> blocks) {
    for (const attention_spec& block : blocks)
        if (block.rope.kind != rope_kind::standard) return block.rope;
    return blocks.front().rope;
}

/// The queries' temperature in the rope dictionary of a family that has one there.
/// @throws error unsupported_architecture if transformers has no words for it
inline void print_temperature(const model_values& values, nlohmann::json& dictionary, const error_where& where) {
    const auto scale = values.top.find<double>(model_key::temperature_scale);
    if (!scale) return;
    const model_family& family = *values.family;
    const std::string name = values.top.name(model_key::temperature_scale);
    if (!family.temperature)
        fail(errc::unsupported_architecture, "transformers' " + std::string(family.classes.front()) + " has none",
             {.file = where.file, .subject = name});
    const std::string original = "original_max_position_embeddings";
    const double length = values.top.find<double>(model_key::temperature_length).value_or(0.0);
    if (dictionary.is_null() || dictionary.value(original, 0.0) != length)
        fail(errc::unsupported_architecture,
             "transformers' " + std::string(family.classes.front()) + " takes its steps from " + original,
             {.file = where.file, .subject = name});
    dictionary["llama_4_scaling_beta"] = *scale;
}

/// The share of a latent head that rotates, where transformers rotates all of it unless the rope dictionary says
/// otherwise, and assumes a scaling without a dictionary (configuration_mistral4.py).
inline void print_rotary_share(const model_values& values, nlohmann::json& dictionary) {
    const model_family& family = *values.family;
    if (family.kind != attention_kind::mla || !family.partial_rotary) return;
    if (dictionary.is_null()) dictionary = {{"rope_type", "default"}};
    const auto rotated = static_cast<double>(values.top.size(model_key::qk_rope_head_dim));
    dictionary["partial_rotary_factor"] =
        rotated / (rotated + static_cast<double>(values.top.size(model_key::qk_nope_head_dim)));
}

/// Whether the key rows say all that transformers needs to know of a family's attention.
inline bool is_printable(const model_values& values) {
    const model_family& f = *values.family;
    const bool windows = f.windows == window_rule::none || f.windows == window_rule::every_block ||
                         f.windows == window_rule::from_block || f.windows == window_rule::layer_types;
    // Layers that differ, a magnitude by lengths that GGUF does not have, and what reads images beside the text.
    const bool others = values.by_layer || values.ropes.size() > 1 || f.linear_layers || f.default_local_theta ||
                        f.longrope != longrope_rule::usual || f.classes.front().ends_with("ForConditionalGeneration");
    return f.kind != attention_kind::gqa ||
           (windows && !others && f.nope == nope_rule::none && f.scale != scale_rule::inverse_sqrt_stated &&
            !f.partial_rotary && f.aliases.empty() && f.reads == decltype(f.reads){} &&
            values.top.size(model_key::n_routed_experts) == 0);
}

/// The name of a key in a family's config.json: its own, if it has one.
inline std::string_view printed_name(const model_family& family, const key_row& row) {
    const auto own = std::ranges::find(family.aliases, row.key, &key_alias::key);
    return own == family.aliases.end() ? row.hf.front() : own->name;
}

/// A value at a place of an object, a dot before members of objects within it.
inline void print_member(nlohmann::json& object, std::string_view name, nlohmann::json value) {
    const std::size_t dot = name.find('.');
    nlohmann::json& member = object[std::string(name.substr(0, dot))];
    if (dot == name.npos)
        member = std::move(value);
    else
        print_member(member, name.substr(dot + 1), std::move(value));
}

/// One number for what GGUF says of each layer.
/// @throws error unsupported_architecture if layers, or two such lists, differ
inline void print_repeated(const carried_value& carried, const std::optional<std::vector<double>>& stated,
                           const gguf_file& file, nlohmann::json& config) {
    if (!stated || stated->empty()) return;
    const double number = decimal_of_float(stated->front());
    const bool same = std::ranges::all_of(*stated, [&](double one) { return one == stated->front(); });
    if (!same || config.value(std::string(carried.name), number) != number)
        fail(errc::unsupported_architecture, "transformers has one number for all layers, and these differ",
             {.file = file.shard_path(0), .subject = std::string(carried.gguf)});
    print_member(config, carried.name, number);
}

/// What a GGUF file states of layers that larql does not compute.
inline void print_carried(const model_family& family, const gguf_file& file, nlohmann::json& config) {
    for (const carried_value& carried : family.gguf_output.carried) {
        const std::string key = std::string(family.gguf_architecture) + "." + std::string(carried.gguf);
        const auto print = [&](const auto& value) {
            if (value) print_member(config, carried.name, *value);
        };
        switch (carried.kind) {
            case carried_kind::size: print(file.find<std::uint64_t>(key)); break;
            case carried_kind::flag: print(file.find<bool>(key)); break;
            case carried_kind::of_layers: print(file.find<std::vector<double>>(key)); break;
            case carried_kind::repeated:
                print_repeated(carried, file.find<std::vector<double>>(key), file, config);
                break;
            case carried_kind::number:
                if (const auto number = file.find<double>(key))
                    print_member(config, carried.name, decimal_of_float(*number));
        }
    }
}

/// Which layers have no experts, for classes that do not read `first_k_dense_replace`.
inline void print_dense_layers(const model_values& values, nlohmann::json& config) {
    const std::size_t layers = values.top.size(model_key::num_hidden_layers);
    const std::size_t dense = values.top.size(model_key::n_routed_experts) == 0
                                  ? layers
                                  : std::min(values.top.size(model_key::first_k_dense_replace), layers);
    std::vector<std::string> types(dense, "dense");
    types.resize(layers, "sparse");
    config["mlp_layer_types"] = types;
}

/// The whole configuration.
inline nlohmann::json print_config(const model_values& values, const rope_config& rope, const error_where& where) {
    const model_family& family = *values.family;
    if (!is_printable(values))
        fail(errc::unsupported_architecture,
             "larql does not write a config.json for \"" + std::string(family.name) + "\"", {.file = where.file});
    nlohmann::json config = {{"model_type", family.model_types.front()}, {"architectures", {family.classes.front()}}};
    // Other families state these by keys of their own, or by their tensors.
    const auto of_others = [](model_key key) {
        return key == model_key::qk_norm || key == model_key::temperature_scale || key == model_key::temperature_length;
    };
    for (const key_row& row : top_keys)
        if (const config_value* value = values.top.value(row.key))
            if (!of_others(row.key) || (row.read_by != nullptr && row.read_by(family)))
                print_member(config, printed_name(family, row), json_of(*value));
    if (values.top.stated(model_key::compress_ratios) && values.top.stated(model_key::layer_types))
        fail(errc::unsupported_architecture,
             "transformers has one number of tokens an entry for each kind of layer, and blocks of a kind differ",
             {.file = where.file, .subject = values.top.name(model_key::compress_ratios)});
    if (family.kind == attention_kind::mla && values.top.size(model_key::q_lora_rank) == 0)
        config["q_lora_rank"] = nullptr;
    if (family.gguf_output.keeps_predicting && !values.top.stated(model_key::num_nextn_predict_layers))
        config["num_nextn_predict_layers"] = 0;  // GGUF does not state it, and classes have one by default
    if (reads_nope(family)) config["mla_use_nope"] = true;
    if (family.dense_by_list) print_dense_layers(values, config);
    if (!values.ropes.empty()) {
        nlohmann::json dictionary = print_rope(rope, values.ropes.front().keys, where);
        print_temperature(values, dictionary, where);
        print_rotary_share(values, dictionary);
        if (!dictionary.is_null()) config["rope_scaling"] = dictionary;
    }
    return config;
}

}  // namespace larql::detail

#endif
