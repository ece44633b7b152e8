// SPDX-License-Identifier: Apache-2.0
//
// Families that came with transformers 5, and elder ones beside them, whose layers all have attention. Defaults are
// those of transformers 5.24's configuration classes (configuration_*.py) and default_theta of PreTrainedConfig.
#ifndef LARQL_DETAIL_MODEL_FAMILIES_GQA_NEWER_HPP
#define LARQL_DETAIL_MODEL_FAMILIES_GQA_NEWER_HPP

#include <larql/detail/model/families/gqa_keys.hpp>
#include <larql/detail/model/families/gqa_names.hpp>
#include <larql/detail/model/families/gqa_newer_keys.hpp>
#include <larql/model_family.hpp>

namespace larql::detail {

inline constexpr model_family newer_families[] = {
    {.name = "aria",  // the language model, for text: modeling_aria.py AriaTextAttention
     .model_types = {"aria_text"},
     .classes = {"AriaTextForCausalLM", "AriaTextModel", "AriaForConditionalGeneration", "AriaModel"},
     .names = llama_names,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6},
    {.name = "iquestcoder",  // runs Llama's class: modeling_auto.py
     .model_types = {"iquestcoder"},
     .classes = {"IQuestCoderForCausalLM", "IQuestCoderModel", "LlamaForCausalLM", "LlamaModel"},
     .names = llama_names,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-5,
     .default_head_dim = 128,
     .defaults = {{{model_key::num_key_value_heads, 8.0}}}},
    {.name = "jais2",
     .model_types = {"jais2"},
     .classes = {"Jais2ForCausalLM", "Jais2Model"},
     .names = llama_names,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-5,
     .defaults = {{{model_key::attention_bias, 1.0}}},
     .aliases = layer_norm_alias},
    {.name = "solar_open",
     .model_types = {"solar_open"},
     .classes = {"SolarOpenForCausalLM", "SolarOpenModel"},
     .names = llama_names,
     .biases_by_key = q_k_v,
     .default_rope_theta = 1000000.0,
     .default_rms_norm_eps = 1e-5,
     .default_head_dim = 128,
     .defaults = {{{model_key::num_key_value_heads, 8.0}}}},
    {.name = "hyperclovax",
     .model_types = {"hyperclovax"},
     .classes = {"HyperCLOVAXForCausalLM", "HyperCLOVAXModel"},
     .names = llama_names,
     .scale = scale_rule::stated_or_usual,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .inert_keys = hyperclovax_inert},
    {.name = "nanochat",
     .model_types = {"nanochat"},
     .classes = {"NanoChatForCausalLM", "NanoChatModel"},
     .names = llama_names,
     .q_norm = {.kind = norm_kind::rms, .has_gain = false, .after_rope = true},
     .k_norm = {.kind = norm_kind::rms, .has_gain = false, .after_rope = true},
     .backwards = true,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .inert_keys = gemma_inert},
    {.name = "flex_olmo",
     .model_types = {"flex_olmo"},
     .classes = {"FlexOlmoForCausalLM", "FlexOlmoModel"},
     .names = qwen3_names,
     .q_norm = rms_whole,
     .k_norm = rms_whole,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 500000.0,
     .default_rms_norm_eps = 1e-6},
    {.name = "phi4_multimodal",  // for text, without the adapters of images and speech: modeling_phi4_multimodal.py
     .model_types = {"phi4_multimodal"},
     .classes = {"Phi4MultimodalForCausalLM", "Phi4MultimodalModel"},
     .names = phi3_names,
     .windows = window_rule::every_block,
     .partial_rotary = true,
     .dictionaries = dictionary_rule::default_or_longrope,
     .only_longrope = true,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-5,
     .default_sliding_window = 0,
     .defaults = {{{model_key::num_key_value_heads, 8.0}, {model_key::rope_original_max_position, 4096.0}}}},
    {.name = "biogpt",  // modeling_biogpt.py BioGptAttention
     .model_types = {"biogpt"},
     .classes = {"BioGptForCausalLM", "BioGptModel", "BioGptForSequenceClassification", "BioGptForTokenClassification"},
     .names = opt_names,
     .pairing = rope_pairing::none,
     .biases = q_k_v_o,
     .default_rms_norm_eps = 1e-12,
     .aliases = layer_norm_alias,
     .inert_keys = scaled_embedding_inert},
    {.name = "xglm",  // modeling_xglm.py XGLMAttention
     .model_types = {"xglm"},
     .classes = {"XGLMForCausalLM", "XGLMModel"},
     .names = opt_names,
     .pairing = rope_pairing::none,
     .biases = q_k_v_o,
     .default_rms_norm_eps = 1e-5,  // fixed: modeling_xglm.py's LayerNorm
     .aliases = xglm_aliases,
     .inert_keys = scaled_embedding_inert},
    {.name = "ctrl",  // modeling_ctrl.py MultiHeadAttention
     .model_types = {"ctrl"},
     .classes = {"CTRLLMHeadModel", "CTRLModel", "CTRLForSequenceClassification"},
     .names = ctrl_names,
     .pairing = rope_pairing::none,
     .biases = q_k_v_o,
     .default_rms_norm_eps = 1e-6,
     .aliases = gpt2_aliases,
     .inert_keys = gpt2_inert},
    {.name = "openai_gpt",  // the first GPT: modeling_openai.py Attention
     .model_types = {"openai-gpt"},
     .classes = {"OpenAIGPTLMHeadModel", "OpenAIGPTModel", "OpenAIGPTDoubleHeadsModel",
                 "OpenAIGPTForSequenceClassification"},
     .names = openai_gpt_names,
     .pairing = rope_pairing::none,
     .transposed = {tensor_role::qkv, tensor_role::o},
     .biases = q_k_v_o,
     .default_rms_norm_eps = 1e-5,
     .aliases = gpt2_aliases,
     .inert_keys = gpt2_inert},
    // A base within attn_config is that of the published models. transformers 5.24 reads a rope dictionary alone,
    // which goes before it here, too, and takes 10000 where there is none.
    {.name = "dbrx",
     .model_types = {"dbrx"},
     .classes = {"DbrxForCausalLM", "DbrxModel"},
     .names = dbrx_names,
     .reads = {model_key::clip_qkv},
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-5,  // fixed: modeling_dbrx.py's LayerNorm
     .defaults = {{{model_key::num_key_value_heads, 1.0}}},
     .aliases = dbrx_aliases,
     .inert_keys = dbrx_inert},
};

}  // namespace larql::detail

#endif
