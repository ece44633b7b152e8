// SPDX-License-Identifier: Apache-2.0
//
// Families whose heads have no norm, whose projections stand by themselves, and whose blocks all see everything.
// Defaults are those of transformers 5.24's configuration classes (configuration_*.py) and default_theta of
// PreTrainedConfig.
#ifndef LARQL_DETAIL_MODEL_FAMILIES_GQA_PLAIN_HPP
#define LARQL_DETAIL_MODEL_FAMILIES_GQA_PLAIN_HPP

#include <larql/detail/model/families/gqa_keys.hpp>
#include <larql/detail/model/families/gqa_names.hpp>
#include <larql/model_family.hpp>

namespace larql::detail {

/// What GLM's dense models compute.
constexpr model_family glm_attention(model_family row) {
    row.names = glm_names;
    row.pairing = rope_pairing::interleaved;
    row.partial_rotary = true;
    row.biases_by_key = q_k_v;
    row.default_rope_theta = 10000.0;
    row.default_rms_norm_eps = 1.5625e-7;
    row.default_head_dim = 128;
    row.defaults = {{{model_key::attention_bias, 1.0}, {model_key::partial_rotary_factor, 0.5}}};
    return row;
}

inline constexpr model_family plain_families[] = {
    {.name = "llama",
     .model_types = {"llama", "llava_llama", "llava"},  // the first LLaVA's keys stand in one object
     .classes = {"LlamaForCausalLM", "LlamaModel", "LlamaForSequenceClassification", "LlamaForTokenClassification",
                 "LlamaForQuestionAnswering", "LLaMAForCausalLM", "LlamaForRewardModel", "LlavaLlamaForCausalLM"},
     .gguf_architecture = "llama",
     .names = llama_names,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .stored = gguf_rows::interleaved,
     .gguf_loses = "a sliding window, dynamic rope scaling",
     .gguf_output = {.written = true}},
    {.name = "internlm3",  // runs Llama's class: configuration_internlm3.py
     .model_types = {"internlm3"},
     .classes = {"InternLM3ForCausalLM", "InternLM3Model", "LlamaForCausalLM", "LlamaModel"},
     .names = llama_names,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-5,
     .default_head_dim = 128,
     .aliases = qkv_bias_alias},
    {.name = "exaone",  // runs Llama's class: configuration_exaone.py
     .model_types = {"exaone"},
     .classes = {"ExaoneForCausalLM", "ExaoneModel", "LlamaForCausalLM", "LlamaModel"},
     .gguf_architecture = "exaone",
     .names = exaone_names,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 500000.0,
     .default_rms_norm_eps = 1e-5,
     .gguf_loses = "dynamic rope scaling",
     .aliases = exaone_aliases},
    {.name = "internlm",  // published with code of its own: Llama's attention
     .model_types = {"internlm"},
     .classes = {"InternLMForCausalLM", "InternLMModel"},
     .names = llama_names,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .defaults = {{{model_key::attention_bias, 1.0}}},
     .aliases = bias_alias},
    {.name = "minicpm",  // published with code of its own: Llama's attention
     .model_types = {"minicpm"},
     .classes = {"MiniCPMForCausalLM", "MiniCPMModel"},
     .gguf_architecture = "minicpm",
     .names = llama_names,
     .longrope = longrope_rule::by_lengths,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .stored = gguf_rows::interleaved,
     .gguf_loses = "longrope's factor and original length, dynamic rope scaling",
     .inert_keys = minicpm_inert},
    {.name = "granite",
     .model_types = {"granite"},
     .classes = {"GraniteForCausalLM", "GraniteModel"},
     .gguf_architecture = "granite",
     .names = llama_names,
     .scale = scale_rule::stated,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .stored = gguf_rows::interleaved,
     .gguf_loses = "dynamic rope scaling, a head_dim other than hidden_size / num_attention_heads",
     .inert_keys = granite_inert},
    {.name = "granitemoe",  // modeling_granitemoe.py, modeling_granitemoeshared.py
     .model_types = {"granitemoe", "granitemoeshared"},
     .classes = {"GraniteMoeForCausalLM", "GraniteMoeModel", "GraniteMoeSharedForCausalLM", "GraniteMoeSharedModel"},
     .gguf_architecture = "granitemoe",
     .names = llama_names,
     .scale = scale_rule::stated,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .defaults = {{{model_key::attention_multiplier, 1.0}}},
     .stored = gguf_rows::interleaved,
     .gguf_loses = "dynamic rope scaling",
     .inert_keys = granite_inert},
    {.name = "gemma",
     .model_types = {"gemma"},
     .classes = {"GemmaForCausalLM", "GemmaModel", "GemmaForSequenceClassification", "GemmaForTokenClassification"},
     .gguf_architecture = "gemma",
     .names = llama_names,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .default_head_dim = 256,
     .gguf_loses = "a rope base, rope scaling"},
    glm_attention(
        {.name = "glm",  // modeling_glm.py; its GGUF files are ChatGLM's
         .model_types = {"glm"},
         .classes = {"GlmForCausalLM", "GlmModel", "GlmForSequenceClassification", "GlmForTokenClassification"}}),
    glm_attention(
        {.name = "glm4",  // modeling_glm4.py; in GGUF GLM-4.1V and GLM-OCR, too
         .model_types = {"glm4"},
         .classes = {"Glm4ForCausalLM", "Glm4Model", "Glm4ForSequenceClassification", "Glm4ForTokenClassification"},
         .gguf_architecture = "glm4",
         .stored = gguf_rows::halved_with_sections}),
    {.name = "stablelm",
     .model_types = {"stablelm"},
     .classes = {"StableLmForCausalLM", "StableLmModel", "StableLmForSequenceClassification",
                 "StableLmForTokenClassification"},
     .gguf_architecture = "stablelm",
     .names = llama_names,
     .partial_rotary = true,
     .biases_by_key = q_k_v,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-5,
     .defaults = {{{model_key::partial_rotary_factor, 0.25}}},
     .aliases = stablelm_aliases},
    {.name = "olmo",
     .model_types = {"olmo"},
     .classes = {"OlmoForCausalLM", "OlmoModel", "OlmoForSequenceClassification"},
     .gguf_architecture = "olmo",
     .names = llama_names,
     .biases_by_key = q_k_v_o,
     .reads = {model_key::clip_qkv},
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-5,  // fixed: modeling_olmo.py OlmoLayerNorm
     .stored = gguf_rows::interleaved},
    {.name = "seed_oss",
     .model_types = {"seed_oss"},
     .classes = {"SeedOssForCausalLM", "SeedOssModel", "SeedOssForSequenceClassification",
                 "SeedOssForTokenClassification", "SeedOssForQuestionAnswering"},
     .gguf_architecture = "seed_oss",
     .names = gemma2_names,
     .biases_by_key = q_k_v,
     .reads = {model_key::attention_out_bias},
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .default_head_dim = 128,
     .defaults = {{{model_key::attention_bias, 1.0}}}},
    {.name = "nemotron",
     .model_types = {"nemotron"},
     .classes = {"NemotronForCausalLM", "NemotronModel", "NemotronForSequenceClassification",
                 "NemotronForTokenClassification", "NemotronForQuestionAnswering"},
     .gguf_architecture = "nemotron",
     .names = llama_names,
     .partial_rotary = true,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-5,
     .defaults = {{{model_key::partial_rotary_factor, 0.5}}},
     .aliases = layer_norm_aliases},
    {.name = "ernie4_5",
     .model_types = {"ernie4_5"},
     .classes = {"Ernie4_5ForCausalLM", "Ernie4_5Model"},
     .gguf_architecture = "ernie4_5",
     .names = llama_names,
     .pairing = rope_pairing::interleaved,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 500000.0,
     .default_rms_norm_eps = 1e-5,
     .default_head_dim = 128,
     .aliases = use_bias_alias},
    {.name = "ernie4_5_moe",
     .model_types = {"ernie4_5_moe"},
     .classes = {"Ernie4_5_MoeForCausalLM", "Ernie4_5_MoeModel"},
     .gguf_architecture = "ernie4_5-moe",
     .names = llama_names,
     .pairing = rope_pairing::interleaved,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 500000.0,
     .default_rms_norm_eps = 1e-5,
     .aliases = use_bias_alias,
     .inert_keys = ernie_moe_inert},
    {.name = "arcee",
     .model_types = {"arcee"},
     .classes = {"ArceeForCausalLM", "ArceeModel", "ArceeForSequenceClassification", "ArceeForTokenClassification",
                 "ArceeForQuestionAnswering"},
     .gguf_architecture = "arcee",
     .names = llama_names,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-5,
     .stored = gguf_rows::interleaved},
    {.name = "helium",
     .model_types = {"helium"},
     .classes = {"HeliumForCausalLM", "HeliumModel", "HeliumForSequenceClassification", "HeliumForTokenClassification"},
     .names = llama_names,
     .pairing = rope_pairing::interleaved,
     .biases_by_key = q_k_v,
     .default_rope_theta = 100000.0,
     .default_rms_norm_eps = 1e-8,
     .default_head_dim = 128},
};

}  // namespace larql::detail

#endif
