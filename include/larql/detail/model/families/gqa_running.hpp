// SPDX-License-Identifier: Apache-2.0
//
// Families that run the attention of another one, under a model_type, names or sizes of their own.
#ifndef LARQL_DETAIL_MODEL_FAMILIES_GQA_RUNNING_HPP
#define LARQL_DETAIL_MODEL_FAMILIES_GQA_RUNNING_HPP

#include <larql/detail/model/families/gqa_keys.hpp>
#include <larql/detail/model/families/gqa_names.hpp>
#include <larql/model_family.hpp>

namespace larql::detail {

inline constexpr model_family running_families[] = {
    {.name = "llama_eagle3",  // EAGLE-3's draft heads: LlamaAttention of [embedding | hidden state]
     .model_types = {"llama"},
     .classes = {"LlamaForCausalLMEagle3", "Eagle3LlamaForCausalLM"},
     .names = eagle3_names,
     .input_widths = 2,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .inert_keys = eagle3_inert,
     .fixed_keys = eagle3_fixed},
    {.name = "deepseek_v2_mha",  // use_mla false: LlamaAttention in modeling_deepseek.py (DeepSeek-VL2-Tiny)
     .model_types = {"deepseek_v2"},
     .classes = {"DeepseekV2ForCausalLM", "DeepseekV2Model", "DeepseekOCRForCausalLM"},
     .names = llama_names,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .fixed_keys = without_mla,
     .sign = {"use_mla", "false"}},
    {.name = "minicpmv_llama",  // MiniCPM-V 4.0: modeling_minicpmv.py, published with the models
     .model_types = {"minicpmv"},
     .classes = {"MiniCPMV"},
     .names = llama_names,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .inert_keys = minicpmv_inert,
     .sign = {"version", "4.0"}},
    {.name = "minicpmv_qwen2",  // MiniCPM-V 2.6 and MiniCPM-o 2.6
     .model_types = {"minicpmv", "minicpmo"},
     .classes = {"MiniCPMV", "MiniCPMO"},
     .names = llama_names,
     .windows = window_rule::from_block,
     .window_by_default = false,
     .biases = q_k_v,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .default_sliding_window = 4096,
     .default_max_window_layers = 28,
     .inert_keys = minicpmv_inert,
     .sign = {"version", "2.6"}},
    {.name = "minicpmv_qwen3",  // MiniCPM-V 4.5
     .model_types = {"minicpmv"},
     .classes = {"MiniCPMV"},
     .names = qwen3_names,
     .q_norm = rms_heads,
     .k_norm = rms_heads,
     .windows = window_rule::from_block,
     .window_by_default = false,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .default_head_dim = 128,
     .default_sliding_window = 4096,
     .default_max_window_layers = 28,
     .inert_keys = minicpmv_inert,
     .sign = {"version", "4.5"}},
    {.name = "mimo",  // MiMo-7B, published with code of its own: Qwen2's attention
     .model_types = {"mimo"},
     .classes = {"MiMoForCausalLM", "MiMoModel"},
     .names = llama_names,
     .windows = window_rule::from_block,
     .window_by_default = false,
     .biases = q_k_v,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .default_sliding_window = 4096,
     .default_max_window_layers = 28},
    {.name = "qwen2_5_omni",  // the language model that thinks, for text: modeling_qwen2_5_omni.py
     .model_types = {"qwen2_5_omni_text"},
     .classes = {"Qwen2_5OmniThinkerTextModel", "Qwen2_5OmniThinkerForConditionalGeneration", "Qwen2OmniThinkerModel"},
     .names = llama_names,
     .windows = window_rule::from_block,
     .window_by_default = false,
     .biases = q_k_v,
     .default_rope_theta = 1000000.0,
     .default_rms_norm_eps = 1e-6,
     .default_sliding_window = 32768,
     .default_max_window_layers = 28},
    {.name = "qwen3_omni_moe",  // likewise: modeling_qwen3_omni_moe.py
     .model_types = {"qwen3_omni_moe_text"},
     .classes = {"Qwen3OmniMoeThinkerTextModel", "Qwen3OmniMoeThinkerForConditionalGeneration"},
     .names = qwen3_names,
     .q_norm = rms_heads,
     .k_norm = rms_heads,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 1000000.0,
     .default_rms_norm_eps = 1e-6},
    {.name = "stablelm_epoch",  // the first StableLM, published with code of its own: modeling_stablelm.py's
     .model_types = {"stablelm_epoch"},
     .classes = {"StableLMEpochForCausalLM", "StableLMEpochModel"},
     .names = llama_names,
     .partial_rotary = true,
     .dictionaries = dictionary_rule::none,
     .biases_by_key = q_k_v,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-5,
     .defaults = {{{model_key::partial_rotary_factor, 0.25}}},
     .aliases = stablelm_epoch_aliases,
     .fixed_keys = stablelm_epoch_fixed,
     .repeated_keys = stablelm_epoch_repeated},
    {.name = "phi4mm",  // Phi-4-multimodal, for text: modeling_phi4mm.py, published with the model, is Phi-3's
     .model_types = {"phi4mm"},
     .classes = {"Phi4MMForCausalLM", "Phi4MMModel"},
     .names = phi4mm_names,
     .windows = window_rule::every_block,
     .partial_rotary = true,
     .longrope = longrope_rule::by_growth,
     .dictionaries = dictionary_rule::longrope,
     .only_longrope = true,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-5,
     .default_sliding_window = 0,
     .inert_keys = phi4mm_inert},
    {.name = "llama_elder",  // published with code of their own, which vLLM's registry runs as Llama
     .model_types = {"orion", "xverse", "aquila", "Yi"},
     .classes = {"OrionForCausalLM", "XverseForCausalLM", "AquilaForCausalLM", "YiForCausalLM"},
     .names = llama_names,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6},
    {.name = "deepseek",  // the first DeepSeek-MoE, published with code of its own: LlamaAttention
     .model_types = {"deepseek"},
     .classes = {"DeepseekForCausalLM", "DeepseekModel"},
     .names = llama_names,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6},
    {.name = "nemotron_nas",  // modeling_decilm.py, published with the models: LlamaAttention, where a layer has any
     .model_types = {"nemotron-nas"},
     .classes = {"DeciLMForCausalLM"},
     .names = llama_names,
     .block_configs = true,
     .linear_layers = true,
     .biases_by_key = q_k_v_o,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .defaults = {{{model_key::full_attention_interval, 1.0}}}},
    {.name = "baichuan",  // the smaller models: modeling_baichuan.py, published with them
     .model_types = {"baichuan"},
     .classes = {"BaichuanForCausalLM", "BaiChuanForCausalLM"},
     .names = baichuan_names,
     .dictionaries = dictionary_rule::none,
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .fixed_keys = baichuan_fixed,
     .sign = {"max_position_embeddings", ""}},
    // The larger models, whose configurations have no word for a number of positions. Their code runs in no test: they
    // are held against what transformers' MPT, another model with ALiBi, computes.
    {.name = "baichuan_alibi",
     .model_types = {"baichuan"},
     .classes = {"BaichuanForCausalLM"},
     .names = baichuan_names,
     .pairing = rope_pairing::none,
     .alibi = 8.0,
     .default_rms_norm_eps = 1e-6,
     .never = {"hidden_size", "4096", baichuan_why}},
};

}  // namespace larql::detail

#endif
