// SPDX-License-Identifier: Apache-2.0
//
// Rope parameters of a config.json, in the old form (`rope_scaling` beside `rope_theta`) and the new
// (`rope_parameters`).
#ifndef LARQL_DETAIL_CONFIG_ROPE_HPP
#define LARQL_DETAIL_CONFIG_ROPE_HPP

#include <larql/detail/config/fields.hpp>
#include <larql/rope_config.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace larql::detail {

/// The kind with this `rope_type`; nothing if larql does not know it.
inline std::optional<rope_kind> rope_kind_from_name(std::string_view name) {
    if (name == "default") return rope_kind::standard;
    if (name == "su") return rope_kind::longrope;
    if (name == "mrope") return rope_kind::standard;  // for text all axes are equal
    for (const rope_kind kind : {rope_kind::linear, rope_kind::dynamic, rope_kind::yarn, rope_kind::longrope,
                                 rope_kind::llama3, rope_kind::proportional, rope_kind::divisors})
        if (name == to_string(kind)) return kind;
    return std::nullopt;
}

/// The members that a kind needs and that have no default.
inline void require_rope_parameters(const rope_config& rope, const config_object& scaling) {
    const auto missing = [&](const char* key) {
        scaling.problems().add(errc::missing_key, scaling.path_of(key),
                               "required by rope type \"" + std::string(to_string(rope.kind)) + "\" and absent");
    };
    const bool needs_original =
        rope.kind == rope_kind::yarn || rope.kind == rope_kind::llama3 || rope.kind == rope_kind::longrope;
    if (needs_original && rope.original_max_position == 0.0) missing("original_max_position_embeddings");
    const bool needs_factor = rope.kind == rope_kind::yarn || rope.kind == rope_kind::llama3 ||
                              rope.kind == rope_kind::linear || (rope.kind == rope_kind::dynamic && !rope.alpha);
    if (needs_factor && scaling.find("factor") == nullptr && rope.factor == 0.0) missing("factor");
    if (rope.kind == rope_kind::longrope) {
        if (rope.short_factor.empty()) missing("short_factor");
        if (rope.long_factor.empty()) missing("long_factor");
        const std::size_t half = rope.rotary_dim / 2;
        if (!rope.short_factor.empty() && rope.short_factor.size() != half)
            scaling.problems().add(
                errc::shape_mismatch, scaling.path_of("short_factor"),
                "expected " + std::to_string(half) + " numbers, got " + std::to_string(rope.short_factor.size()));
        if (!rope.long_factor.empty() && rope.long_factor.size() != half)
            scaling.problems().add(
                errc::shape_mismatch, scaling.path_of("long_factor"),
                "expected " + std::to_string(half) + " numbers, got " + std::to_string(rope.long_factor.size()));
    }
    if (rope.kind == rope_kind::divisors && rope.divisors.size() != rope.rotary_dim / 2)
        scaling.problems().add(errc::shape_mismatch, scaling.path_of("divisors"),
                               "expected " + std::to_string(rope.rotary_dim / 2) + " numbers, got " +
                                   std::to_string(rope.divisors.size()));
}

/// Reads the parameters of one scaling object into `rope`.
inline void read_rope_scaling(const config_object& config, const config_object& scaling, rope_config& rope) {
    const std::optional<std::string> name =
        scaling.find("rope_type") != nullptr ? scaling.text("rope_type") : scaling.text("type");
    if (name) {
        const std::optional<rope_kind> kind = rope_kind_from_name(*name);
        if (!kind)
            scaling.problems().add(errc::bad_value, scaling.path_of("rope_type"),
                                   "rope type \"" + *name + "\" is unknown");
        else
            rope.kind = *kind;
    }
    constexpr std::uint64_t longest = std::uint64_t{1} << 40;
    if (const auto v = scaling.number("rope_theta")) rope.theta = *v;
    auto original = scaling.integer("original_max_position_embeddings", 1, longest);
    if (!original) original = config.integer("original_max_position_embeddings", 1, longest);
    rope.original_max_position = static_cast<double>(original.value_or(0));
    if (rope.original_max_position == 0.0 && rope.kind == rope_kind::yarn)
        rope.original_max_position = rope.max_position;  // as transformers falls back
    const bool factor_derived = rope.kind == rope_kind::yarn || rope.kind == rope_kind::longrope;
    rope.factor = rope.kind == rope_kind::proportional ? 1.0 : 0.0;
    if (const auto v = scaling.number("factor"))
        rope.factor = *v;
    else if (factor_derived && rope.original_max_position > 0.0 && rope.max_position > 0.0)
        rope.factor = rope.max_position / rope.original_max_position;
    rope.attention_factor = scaling.number("attention_factor");
    rope.beta_fast = scaling.number("beta_fast").value_or(rope.beta_fast);
    rope.beta_slow = scaling.number("beta_slow").value_or(rope.beta_slow);
    rope.mscale = scaling.number("mscale", false);
    rope.mscale_all_dim = scaling.number("mscale_all_dim", false);
    rope.truncate = scaling.boolean("truncate").value_or(true);
    rope.low_freq_factor = scaling.number("low_freq_factor").value_or(rope.low_freq_factor);
    rope.high_freq_factor = scaling.number("high_freq_factor").value_or(rope.high_freq_factor);
    if (rope.kind == rope_kind::dynamic) rope.alpha = scaling.number("alpha");
    rope.short_factor = scaling.numbers("short_factor");
    rope.long_factor = scaling.numbers("long_factor");
    rope.divisors = scaling.numbers("divisors");
    rope.partial_rotary_factor = scaling.number("partial_rotary_factor").value_or(rope.partial_rotary_factor);
    require_rope_parameters(rope, scaling);
    if (rope.factor == 0.0) rope.factor = 1.0;
}

/// The rotary embedding of a configuration.
/// @param rotary_dim  elements of a head that rotate, before `proportional` changes their meaning
inline rope_config read_rope(const config_object& config, std::size_t rotary_dim) {
    rope_config rope;
    rope.rotary_dim = rotary_dim;
    if (rotary_dim % 2 != 0)
        config.problems().add(errc::bad_value, "rope",
                              "expected an even number of rotated elements, got " + std::to_string(rotary_dim));
    if (const auto v = config.integer("max_position_embeddings", 1, std::uint64_t{1} << 40))
        rope.max_position = static_cast<double>(*v);
    if (const auto v = config.number("rope_theta")) rope.theta = *v;
    // transformers 5 writes rope_parameters; where both stand, it is the newer statement.
    auto scaling = config.object("rope_parameters");
    if (!scaling) scaling = config.object("rope_scaling");
    if (scaling) read_rope_scaling(config, *scaling, rope);
    return rope;
}

}  // namespace larql::detail

#endif
