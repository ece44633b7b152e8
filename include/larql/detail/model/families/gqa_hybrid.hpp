// SPDX-License-Identifier: Apache-2.0
//
// Families with plain attention in some layers, or beside a state space, which larql does not compute. Defaults are
// those of transformers 5.24's configuration classes.
#ifndef LARQL_DETAIL_MODEL_FAMILIES_GQA_HYBRID_HPP
#define LARQL_DETAIL_MODEL_FAMILIES_GQA_HYBRID_HPP

#include <larql/detail/model/families/gqa_keys.hpp>
#include <larql/detail/model/families/gqa_names.hpp>
#include <larql/model_family.hpp>

namespace larql::detail {

/// What the layers of LFM2 that have attention compute.
constexpr model_family short_convolutions(model_family row) {
    row.names = lfm2_names;
    row.q_norm = row.k_norm = rms_heads;
    row.linear_layers = true;
    row.default_rope_theta = 1000000.0;
    row.default_rms_norm_eps = 1e-5;
    row.defaults = {{{model_key::full_attention_interval, 1.0}}};
    row.aliases = lfm2_aliases;
    row.inert_keys = lfm2_inert;
    return row;
}

inline constexpr model_family hybrid_families[] = {
    {.name = "mllama",  // Llama 3.2 Vision, for text, which passes by the layers that attend to an image
     .model_types = {"mllama_text_model"},
     .classes = {"MllamaForConditionalGeneration", "MllamaForCausalLM", "MllamaTextModel", "MllamaModel"},
     .names = llama_names,
     .linear_layers = true,
     .reads = {model_key::cross_attention_layers},
     .default_rope_theta = 500000.0,
     .default_rms_norm_eps = 1e-5,
     .defaults = {{{model_key::full_attention_interval, 1.0}, {model_key::num_key_value_heads, 8.0}}}},
    short_convolutions({.name = "lfm2",  // modeling_lfm2.py
                        .model_types = {"lfm2"},
                        .classes = {"Lfm2ForCausalLM", "Lfm2Model"},
                        .gguf_architecture = "lfm2"}),
    short_convolutions({.name = "lfm2_moe",  // modeling_lfm2_moe.py
                        .model_types = {"lfm2_moe"},
                        .classes = {"Lfm2MoeForCausalLM", "Lfm2MoeModel"},
                        .gguf_architecture = "lfm2moe"}),
    {.name = "falcon_h1",
     .model_types = {"falcon_h1"},
     .classes = {"FalconH1ForCausalLM", "FalconH1Model"},
     .names = llama_names,
     .biases_by_key = q_k_v_o,
     .reads = {model_key::key_multiplier},
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-5,
     .inert_keys = falcon_h1_inert},
    {.name = "jamba",  // modeling_jamba.py JambaAttention
     .model_types = {"jamba"},
     .classes = {"JambaForCausalLM", "JambaModel", "JambaForSequenceClassification"},
     .names = llama_names,
     .pairing = rope_pairing::none,
     .linear_layers = true,
     .reads = {model_key::attention_layer_period},
     .default_rms_norm_eps = 1e-6,
     .defaults = {{{model_key::attention_layer_period, 8.0},
                   {model_key::attention_layer_offset, 4.0},
                   {model_key::num_key_value_heads, 8.0}}},
     .inert_keys = mamba_inert},
    {.name = "bamba",  // modeling_bamba.py BambaAttention
     .model_types = {"bamba"},
     .classes = {"BambaForCausalLM", "BambaModel"},
     .names = llama_names,
     .linear_layers = true,
     .partial_rotary = true,
     .rotary_dim_unread = true,
     .biases_by_key = q_k_v_o,
     .reads = {model_key::rotary_dim},
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-5,
     .defaults = {{{model_key::partial_rotary_factor, 0.5}, {model_key::num_key_value_heads, 8.0}}},
     .aliases = bamba_aliases,
     .inert_keys = mamba_inert,
     .fixed_keys = bamba_fixed},
    {.name = "granitemoehybrid",  // modeling_granitemoehybrid.py GraniteMoeHybridAttention
     .model_types = {"granitemoehybrid"},
     .classes = {"GraniteMoeHybridForCausalLM", "GraniteMoeHybridModel"},
     .gguf_architecture = "granitehybrid",
     .names = llama_names,
     .scale = scale_rule::stated,
     .linear_layers = true,
     .biases_by_key = q_k_v_o,
     .reads = {model_key::position_type},
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .defaults = {{{model_key::attention_multiplier, 1.0}}},
     .stored = gguf_rows::interleaved,
     .aliases = granite_hybrid_aliases,
     .inert_keys = mamba_inert,
     .fixed_keys = granite_hybrid_fixed},
    {.name = "nemotron_h",
     .model_types = {"nemotron_h"},
     .classes = {"NemotronHForCausalLM", "NemotronHModel"},
     .names = nemotron_h_names,
     .pairing = rope_pairing::none,
     .linear_layers = true,
     .counts_types = true,  // configuration_nemotron_h.py
     .partial_rotary = true,
     .default_rms_norm_eps = 1e-5,
     .default_head_dim = 128,
     .aliases = nemotron_h_aliases,
     .inert_keys = nemotron_h_inert},
};

}  // namespace larql::detail

#endif
