// SPDX-License-Identifier: Apache-2.0
//
// What a model is: its attention's sizes, scale, norms and rotary embedding, read from config.json or from GGUF
// metadata. Everything that is missing or contradicts itself is reported in one error.
#ifndef LARQL_MODEL_CONFIG_HPP
#define LARQL_MODEL_CONFIG_HPP

#include <larql/attention_form.hpp>
#include <larql/detail/config/fields.hpp>
#include <larql/detail/config/gguf.hpp>
#include <larql/detail/config/rope.hpp>
#include <larql/detail/io/json.hpp>
#include <larql/gguf.hpp>
#include <larql/rope.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>

namespace larql {

enum class attention_kind : std::uint8_t {
    mla,  ///< multi-head latent attention
    gqa,  ///< multi-head, grouped-query or multi-query attention
};

/// A model's attention. Sizes are in elements; 0 means "has none".
struct model_config {
    std::string family;        ///< larql's name for the implementation: "deepseek_v3", "llama", ...
    std::string model_type;    ///< as the file says
    std::string architecture;  ///< transformers' class name, if the file says one
    attention_kind attention = attention_kind::gqa;

    std::size_t hidden_size = 0;          ///< E, model width
    std::size_t num_hidden_layers = 0;    ///< without multi-token-prediction layers
    std::size_t num_attention_heads = 0;  ///< H
    std::size_t num_key_value_heads = 0;  ///< G; equals H for MLA once K and V are expanded
    std::size_t head_dim = 0;             ///< D, of queries and keys; N + P for MLA
    std::size_t v_head_dim = 0;           ///< V
    std::size_t vocab_size = 0;
    std::size_t num_nextn_predict_layers = 0;

    std::size_t q_lora_rank = 0;  ///< 0: one q_proj
    std::size_t kv_lora_rank = 0;
    std::size_t qk_nope_head_dim = 0;  ///< N
    std::size_t qk_rope_head_dim = 0;  ///< P

    double rms_norm_eps = 1e-6;
    double latent_norm_eps = 1e-6;  ///< of q_a_norm and kv_a_norm: 1e-6 in transformers whatever rms_norm_eps is
    double attention_scale = 0.0;   ///< multiplies q.k before softmax, YaRN's m^2 included
    bool attention_bias = false;    ///< biases are expected; GGUF says so by having the tensors

    rope_config rope;
    rope_pairing pairing = rope_pairing::half_split;  ///< of the weights as stored
    attention_form form = attention_form::factored;   ///< of the weights as stored
    head_order order = head_order::nope_rope;         ///< of the weights as stored
};

namespace detail {

/// What larql knows about a family that its files do not say.
struct family_traits {
    std::string_view model_type;
    attention_kind attention;
    rope_pairing pairing;
    bool mscale_in_scale;  ///< the softmax scale has YaRN's m^2
};

// Sources: transformers 5.23 modeling_{deepseek_v2,deepseek_v3,llama}.py. Kimi-K2 runs DeepSeek-V3's class.
inline constexpr family_traits family_table[] = {
    {"deepseek_v2", attention_kind::mla, rope_pairing::interleaved, true},
    {"deepseek_v3", attention_kind::mla, rope_pairing::interleaved, true},
    {"kimi_k2", attention_kind::mla, rope_pairing::interleaved, true},
    {"llama", attention_kind::gqa, rope_pairing::half_split, false},
};

/// Sizes are capped so that no product of three of them leaves 64 bits.
inline constexpr std::uint64_t max_dimension = std::uint64_t{1} << 20;
inline constexpr std::uint64_t max_layers = 4096;
inline constexpr std::uint64_t max_vocabulary = std::uint64_t{1} << 28;

/// One size of a configuration: where it goes, its key, its bounds.
struct size_field {
    std::size_t model_config::*member;
    std::string_view key;
    std::uint64_t low;
    std::uint64_t high;
    bool required;
};

inline constexpr size_field common_sizes[] = {
    {&model_config::hidden_size, "hidden_size", 1, max_dimension, true},
    {&model_config::num_hidden_layers, "num_hidden_layers", 1, max_layers, true},
    {&model_config::num_attention_heads, "num_attention_heads", 1, max_dimension, true},
    {&model_config::vocab_size, "vocab_size", 1, max_vocabulary, false},
    {&model_config::num_nextn_predict_layers, "num_nextn_predict_layers", 0, max_layers, false},
};
inline constexpr size_field mla_sizes[] = {
    {&model_config::q_lora_rank, "q_lora_rank", 0, max_dimension, false},  // null, 0 and absent: a single q_proj
    {&model_config::kv_lora_rank, "kv_lora_rank", 1, max_dimension, true},
    {&model_config::qk_nope_head_dim, "qk_nope_head_dim", 1, max_dimension, true},
    {&model_config::qk_rope_head_dim, "qk_rope_head_dim", 1, max_dimension, true},
    {&model_config::v_head_dim, "v_head_dim", 1, max_dimension, true},
};
inline constexpr size_field gqa_sizes[] = {
    {&model_config::num_key_value_heads, "num_key_value_heads", 1, max_dimension, false},
    {&model_config::head_dim, "head_dim", 1, max_dimension, false},
};

template <std::size_t Count>
void read_sizes(const config_object& config, const size_field (&fields)[Count], model_config& model) {
    for (const size_field& field : fields) {
        if (config.find(field.key) == nullptr) {
            if (field.required)
                config.problems().add(errc::missing_key, config.path_of(field.key), "required and absent");
            continue;
        }
        if (const auto value = config.integer(field.key, field.low, field.high))
            model.*field.member = static_cast<std::size_t>(*value);
    }
}

inline const family_traits* find_family(std::string_view model_type) noexcept {
    for (const family_traits& row : family_table)
        if (row.model_type == model_type) return &row;
    return nullptr;
}

/// The object that holds the language model's keys: the configuration itself, or its `text_config`.
inline const nlohmann::json& text_part(const nlohmann::json& config) {
    const auto nested = config.find("text_config");
    if (nested == config.end() || !nested->is_object()) return config;
    // A wrapper may repeat its inner model_type; the parameters live where hidden_size is.
    return config.contains("hidden_size") ? config : *nested;
}

inline void read_mla(const config_object& config, model_config& model) {
    read_sizes(config, mla_sizes, model);
    // The file's num_key_value_heads says nothing under MLA: kv_b has every head.
    model.num_key_value_heads = model.num_attention_heads;
    model.head_dim = model.qk_nope_head_dim + model.qk_rope_head_dim;
    model.rope = read_rope(config, model.qk_rope_head_dim);
    if (config.boolean("rope_interleave") == false) model.pairing = rope_pairing::half_split;
}

inline void read_gqa(const config_object& config, model_config& model) {
    read_sizes(config, gqa_sizes, model);
    config_problems& problems = config.problems();
    const std::size_t heads = model.num_attention_heads;
    if (model.num_key_value_heads == 0) model.num_key_value_heads = heads;
    if (heads != 0 && heads % model.num_key_value_heads != 0)
        problems.add(errc::bad_value, config.path_of("num_key_value_heads"),
                     "expected a divisor of num_attention_heads " + std::to_string(heads) + ", got " +
                         std::to_string(model.num_key_value_heads));
    if (model.head_dim == 0 && heads != 0) {
        if (model.hidden_size % heads != 0)
            problems.add(errc::bad_value, config.path_of("hidden_size"),
                         "without head_dim, expected a multiple of num_attention_heads " + std::to_string(heads) +
                             ", got " + std::to_string(model.hidden_size));
        model.head_dim = model.hidden_size / heads;
    }
    model.v_head_dim = model.head_dim;
    auto share = config.number("partial_rotary_factor");
    if (const auto parameters = config.object("rope_parameters"); parameters && !share)
        share = parameters->number("partial_rotary_factor");
    if (share && *share > 1.0)
        problems.add(errc::bad_value, config.path_of("partial_rotary_factor"),
                     "expected at most 1, got " + std::to_string(*share));
    const double rotated = static_cast<double>(model.head_dim) * std::min(share.value_or(1.0), 1.0);
    model.rope = read_rope(config, static_cast<std::size_t>(rotated));
}

/// Reads what larql itself wrote about the form of the tensors.
inline void read_larql_object(const config_object& root, model_config& model) {
    const auto object = root.object("larql");
    if (!object) return;
    const auto named = [&](const char* key, auto from_name, auto& member) {
        const auto name = object->text(key);
        if (!name) return;
        if (const auto value = from_name(*name))
            member = *value;
        else
            root.problems().add(errc::bad_value, object->path_of(key), "unknown value \"" + *name + "\"");
    };
    named("form", attention_form_from_name, model.form);
    named("row_order", head_order_from_name, model.order);
    named(
        "pairing",
        [](std::string_view name) -> std::optional<rope_pairing> {
            for (const rope_pairing p : {rope_pairing::none, rope_pairing::interleaved, rope_pairing::half_split})
                if (to_string(p) == name) return p;
            return std::nullopt;
        },
        model.pairing);
    if (const auto v = object->number("attention_scale")) model.attention_scale = *v;
    if (const auto v = object->number("latent_norm_eps")) model.latent_norm_eps = *v;
}

}  // namespace detail

/// Reads a configuration.
///
/// @param config  a config.json, parsed; a model nested in `text_config` is found
/// @param where   what errors name as the file
/// @throws error with every problem in one message: errc::unsupported_architecture for a family that larql does not
///         implement, errc::missing_key, errc::wrong_type, errc::bad_value, errc::shape_mismatch
/// @source transformers 5.23 configuration_*.py
inline model_config parse_model_config(const nlohmann::json& config, const error_where& where = {}) {
    if (!config.is_object())
        detail::fail(errc::wrong_type, "expected a JSON object, got " + detail::config_object::shown(config), where);
    detail::config_problems problems;
    const detail::config_object root(config, "", problems);
    const nlohmann::json& inner = detail::text_part(config);
    const detail::config_object text(inner, &inner == &config ? "" : "text_config", problems);

    model_config model;
    model.model_type = text.text("model_type").value_or(root.text("model_type").value_or(""));
    if (const nlohmann::json* names = root.find("architectures");
        names != nullptr && names->is_array() && !names->empty() && names->front().is_string())
        model.architecture = names->front().get<std::string>();
    const detail::family_traits* family = detail::find_family(model.model_type);
    if (family == nullptr)
        detail::fail(errc::unsupported_architecture,
                     model.model_type.empty() ? "no model_type says what this model is"
                                              : "larql does not implement \"" + model.model_type + "\"",
                     {.file = where.file, .subject = "model_type"});
    model.family = std::string(family->model_type);
    model.attention = family->attention;
    model.pairing = family->pairing;

    detail::read_sizes(text, detail::common_sizes, model);
    if (const auto v = text.number("rms_norm_eps")) model.rms_norm_eps = *v;
    model.attention_bias = text.boolean("attention_bias").value_or(false);
    family->attention == attention_kind::mla ? detail::read_mla(text, model) : detail::read_gqa(text, model);
    const double m = family->mscale_in_scale ? attention_mscale(model.rope) : 1.0;
    model.attention_scale = m * m / std::sqrt(static_cast<double>(std::max<std::size_t>(model.head_dim, 1)));
    detail::read_larql_object(root, model);
    problems.throw_if_any(where);
    return model;
}

/// The JSON of a config.json, strictly read. Python's NaN and Infinity are tolerated and become strings, which a field
/// that is used refuses; containers deeper than 64 levels become null.
/// @throws error errc::corrupt_header or errc::duplicate_name, with the byte
inline nlohmann::json parse_config_json(std::string_view text, const error_where& where = {}) {
    return detail::parse_json(text, where, {.drop_deeper = true, .tolerate_non_finite = true});
}

/// The configuration of a GGUF model, as the config.json that transformers would have: the one that
/// `parse_model_config` reads, extended by a `larql` object where GGUF stores rows in another pairing than transformers
/// does.
///
/// Sizes come from the tensors where there are any, with the metadata as a cross-check, because one metadata key has
/// two meanings (key_length is 192 or 576 for DeepSeek-V3).
///
/// @throws error errc::unsupported_architecture by name; errc::missing_key; errc::shape_mismatch ("metadata says X,
///         tensor implies Y")
/// @source llama.cpp conversion/deepseek.py and llama-model.cpp, early 2025 to late 2026
inline nlohmann::json to_config_json(const gguf_file& file) { return detail::gguf_to_config(file); }

/// `parse_model_config(to_config_json(file))`.
inline model_config read_model_config(const gguf_file& file) {
    return parse_model_config(to_config_json(file), {.file = file.shard_path(0)});
}

}  // namespace larql

#endif
