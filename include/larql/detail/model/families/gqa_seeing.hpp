// SPDX-License-Identifier: Apache-2.0
//
// The language models of models that see, for text, for which all axes of a position are equal. Defaults are those of
// transformers 5.24's configuration classes (configuration_*.py) and default_theta of PreTrainedConfig.
#ifndef LARQL_DETAIL_MODEL_FAMILIES_GQA_SEEING_HPP
#define LARQL_DETAIL_MODEL_FAMILIES_GQA_SEEING_HPP

#include <larql/detail/model/families/gqa_keys.hpp>
#include <larql/detail/model/families/gqa_names.hpp>
#include <larql/model_family.hpp>

namespace larql::detail {

inline constexpr model_family seeing_families[] = {
    {.name = "glm4v_text",  // of GLM-4.1V and GLM-4.6V: modeling_glm4v.py Glm4vTextAttention
     .model_types = {"glm4v_text"},
     .classes = {"Glm4vTextModel", "Glm4vForConditionalGeneration", "Glm46VForConditionalGeneration"},
     .names = glm_names,
     .pairing = rope_pairing::interleaved,
     .partial_rotary = true,
     .biases = q_k_v,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-5,
     .defaults = {{{model_key::num_key_value_heads, 2.0}}}},
    {.name = "glm4v_moe",  // modeling_glm4v_moe.py Glm4vMoeTextAttention
     .model_types = {"glm4v_moe_text"},
     .classes = {"Glm4vMoeTextModel", "Glm4vMoeForConditionalGeneration"},
     .names = llama_names,
     .partial_rotary = true,
     .biases_by_key = q_k_v,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-5,
     .defaults = {{{model_key::attention_bias, 1.0},
                   {model_key::partial_rotary_factor, 0.5},
                   {model_key::num_key_value_heads, 8.0}}}},
    {.name = "glm_ocr",  // modeling_glm_ocr.py GlmOcrTextAttention
     .model_types = {"glm_ocr_text"},
     .classes = {"GlmOcrTextModel", "GlmOcrForConditionalGeneration"},
     .names = glm_names,
     .pairing = rope_pairing::interleaved,
     .partial_rotary = true,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-5,
     .defaults = {{{model_key::num_key_value_heads, 8.0}}}},
    {.name = "granite_docling",  // modeling_granite_docling.py GraniteDoclingTextAttention
     .model_types = {"granite_docling_text"},
     .classes = {"GraniteDoclingTextModel", "GraniteDoclingForConditionalGeneration"},
     .names = llama_names,
     .scale = scale_rule::stated,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-5,
     .defaults = {{{model_key::attention_multiplier, 0.015625}, {model_key::num_key_value_heads, 4.0}}},
     .inert_keys = granite_inert},
    {.name = "granite4_vision",  // modeling_granite4_vision.py, modular_granite4_vision.py: Granite's attention
     .model_types = {"granite4_vision_text"},
     .classes = {"Granite4VisionTextModel", "Granite4VisionForConditionalGeneration"},
     .names = llama_names,
     .scale = scale_rule::stated,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .defaults = {{{model_key::attention_multiplier, 1.0}}},
     .inert_keys = granite_inert},
    {.name = "paddleocr_vl",  // modeling_paddleocr_vl.py PaddleOCRAttention
     .model_types = {"paddleocr_vl_text"},
     .classes = {"PaddleOCRTextModel", "PaddleOCRVLForConditionalGeneration"},
     .names = llama_names,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 500000.0,
     .default_rms_norm_eps = 1e-5,
     .default_head_dim = 128,
     .defaults = {{{model_key::num_key_value_heads, 2.0}}},
     .aliases = use_bias_alias},
    {.name = "emu3",  // modeling_emu3.py Emu3Attention
     .model_types = {"emu3_text_model"},
     .classes = {"Emu3ForCausalLM", "Emu3TextModel", "Emu3ForConditionalGeneration"},
     .names = llama_names,
     .default_rope_theta = 1000000.0,
     .default_rms_norm_eps = 1e-5,
     .defaults = {{{model_key::num_key_value_heads, 8.0}}}},
};

}  // namespace larql::detail

#endif
