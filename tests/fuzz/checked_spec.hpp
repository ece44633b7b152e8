// SPDX-License-Identifier: Apache-2.0
//
// What must hold of every model that larql accepts, whatever its configuration says.
#ifndef LARQL_TESTS_FUZZ_CHECKED_SPEC_HPP
#define LARQL_TESTS_FUZZ_CHECKED_SPEC_HPP

#include <larql/attention_cost.hpp>
#include <larql/attention_spec.hpp>
#include <larql/model_config.hpp>
#include <larql/rope.hpp>

#include "attempt.hpp"

#include <cmath>
#include <cstddef>
#include <string>
#include <utility>

namespace larql::testing {

/// Numbers that kernels compute with in float: 0, where that is a meaning, or well within its range.
inline void check_spec_numbers(const attention_spec& spec) {
    const std::pair<const char*, double> numbers[] = {{"scale", spec.scale},
                                                      {"softcap", spec.softcap},
                                                      {"clip", spec.clip},
                                                      {"value_scale", spec.value_scale},
                                                      {"alibi", spec.alibi},
                                                      {"temperature", spec.temperature.scale},
                                                      {"q_latent_scale", spec.q_latent_scale},
                                                      {"kv_latent_scale", spec.kv_latent_scale},
                                                      {"latent_norm.eps", spec.latent_norm.eps},
                                                      {"q_norm.eps", spec.q_norm.eps},
                                                      {"k_norm.eps", spec.k_norm.eps}};
    for (const auto& [name, value] : numbers)
        require(value == 0.0 || (value >= 1e-37 && value <= 1e37), std::string(name) + " is " + std::to_string(value));
    require(spec.scale != 0.0, "scale is 0");
}

inline void check_spec(const attention_spec& spec) {
    const mla_geometry& g = spec.geometry;
    check_spec_numbers(spec);
    require(g.num_heads != 0 && g.hidden_size != 0 && g.kv_heads() != 0, "a block without heads or width");
    require(g.num_heads % g.kv_heads() == 0, "heads that key/value heads do not divide");
    for (const double length : {0.0, 1.0, 5000.0, 1e6, 1e12})
        attempt([&] {
            const rope_table table = make_rope_table(spec.rope, length);
            require(table.rotary_dim() == spec.rope.rotary_dim, "a table of another size");
            for (const double w : table.frequencies) require(std::isfinite(w), "a frequency that is not finite");
            require(std::isfinite(table.magnitude), "a magnitude that is not finite");
        });
    for (const attention_form form : {attention_form::factored, attention_form::dense, attention_form::latent}) {
        if (!why_not(spec, form).empty()) continue;
        (void)cost_of(spec, form);
        (void)cache_bytes(spec, form, std::size_t{1} << 40, 4);
    }
}

inline void check_model(const model_config& model) {
    require(!model.blocks.empty(), "a model without blocks");
    require(model.block_begin <= model.block_end && model.block_end <= model.blocks.size(),
            "blocks that are not there");
    require(std::isfinite(model.rms_norm_eps) && model.rms_norm_eps >= 0.0, "an eps that is not finite");
    // Of thousands of blocks a few: the others repeat them.
    for (std::size_t i = 0; i < model.blocks.size(); i += i < 4 ? 1 : model.blocks.size() / 4 + 1)
        check_spec(model.blocks[i]);
}

}  // namespace larql::testing

#endif
