// SPDX-License-Identifier: Apache-2.0
//
// Families of the years before Llama, and those published with code of their own. Defaults are those of transformers
// 5.24's configuration classes, or of the code published with the models.
#ifndef LARQL_DETAIL_MODEL_FAMILIES_GQA_ELDER_HPP
#define LARQL_DETAIL_MODEL_FAMILIES_GQA_ELDER_HPP

#include <larql/detail/model/families/gqa_keys.hpp>
#include <larql/detail/model/families/gqa_names.hpp>
#include <larql/model_family.hpp>

namespace larql::detail {

inline constexpr model_family elder_families[] = {
    {.name = "gptj",  // modeling_gptj.py GPTJAttention
     .model_types = {"gptj"},
     .classes = {"GPTJForCausalLM", "GPTJModel", "GPTJForSequenceClassification", "GPTJForQuestionAnswering"},
     .names = gptj_names,
     .pairing = rope_pairing::interleaved,
     .dictionaries = dictionary_rule::none,
     .reads = {model_key::rotary_dim},
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-5,
     .defaults = {{{model_key::rotary_dim, 64.0}}},
     .aliases = gpt2_aliases,
     .inert_keys = gpt2_inert,
     .fixed_keys = gptj_fixed},
    {.name = "codegen",  // modeling_codegen.py CodeGenAttention
     .model_types = {"codegen"},
     .classes = {"CodeGenForCausalLM", "CodeGenModel"},
     .names = gptj_names,
     .pairing = rope_pairing::interleaved,
     .fused = qkv_order::in_quarters,
     .dictionaries = dictionary_rule::none,
     .reads = {model_key::rotary_dim},
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-5,
     .defaults = {{{model_key::rotary_dim, 64.0}}},
     .aliases = gpt2_aliases,
     .inert_keys = gpt2_inert,
     .fixed_keys = fixed_theta},
    {.name = "gpt_neo",  // modeling_gpt_neo.py GPTNeoSelfAttention
     .model_types = {"gpt_neo"},
     .classes = {"GPTNeoForCausalLM", "GPTNeoModel", "GPTNeoForSequenceClassification", "GPTNeoForTokenClassification",
                 "GPTNeoForQuestionAnswering"},
     .names = gpt_neo_names,
     .pairing = rope_pairing::none,
     .scale = scale_rule::one,
     .windows = window_rule::layer_types,
     .biases = {tensor_role::o},
     .default_rms_norm_eps = 1e-5,
     .default_sliding_window = 256,
     .aliases = gpt_neo_aliases,
     .inert_keys = gpt_neo_inert},
    {.name = "bloom",  // modeling_bloom.py BloomAttention
     .model_types = {"bloom"},
     .classes = {"BloomForCausalLM", "BloomModel", "BloomForSequenceClassification", "BloomForTokenClassification",
                 "BloomForQuestionAnswering"},
     .names = falcon_names,
     .pairing = rope_pairing::none,
     .fused = qkv_order::by_group,
     .alibi = 8.0,
     .biases = q_k_v_o,
     .default_rms_norm_eps = 1e-5,
     .aliases = bloom_aliases,
     .inert_keys = bloom_inert},
    {.name = "mpt",  // modeling_mpt.py MptAttention
     .model_types = {"mpt"},
     .classes = {"MptForCausalLM", "MptModel", "MPTForCausalLM", "MptForSequenceClassification",
                 "MptForTokenClassification", "MptForQuestionAnswering"},
     .names = mpt_names,
     .pairing = rope_pairing::none,
     .alibi = 8.0,
     .reads = {model_key::clip_qkv},
     .default_rms_norm_eps = 1e-5,
     .aliases = mpt_aliases,
     .fixed_keys = mpt_fixed},
    {.name = "opt",  // modeling_opt.py OPTAttention
     .model_types = {"opt"},
     .classes = {"OPTForCausalLM", "OPTModel", "OPTForSequenceClassification", "OPTForQuestionAnswering"},
     .names = opt_names,
     .pairing = rope_pairing::none,
     .biases_by_key = q_k_v_o,
     .default_rms_norm_eps = 1e-5,
     .defaults = {{{model_key::attention_bias, 1.0}}},
     .aliases = enable_bias_alias,
     .inert_keys = opt_inert},
    // Phi-1 and Phi-1.5 as first published, with code of their own, which no test runs: they are held against what
    // transformers' modeling_phi.py computes of the same weights, fused.
    {.name = "phi_msft",
     .model_types = {"phi-msft"},
     .classes = {"PhiForCausalLM"},
     .names = phi_msft_names,
     .dictionaries = dictionary_rule::none,
     .biases = q_k_v_o,
     .reads = {model_key::rotary_dim},
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-5,
     .defaults = {{{model_key::rotary_dim, 32.0}}},
     .aliases = phi_msft_aliases,
     .inert_keys = phi_msft_inert,
     .fixed_keys = fixed_theta},
    // Its frequencies follow the length of the first call, and later ones keep them: see attention_layer.
    {.name = "qwen",  // the first Qwen, published with code of its own: modeling_qwen.py
     .model_types = {"qwen"},
     .classes = {"QWenLMHeadModel", "QWenModel"},
     .names = qwen_names,
     .partial_rotary = true,
     .dictionaries = dictionary_rule::none,
     .biases = q_k_v,
     .reads = {model_key::dynamic_ntk, model_key::logn},
     .default_rope_theta = 10000.0,
     .default_rms_norm_eps = 1e-6,
     .defaults = {{{model_key::dynamic_ntk, 1.0}, {model_key::logn, 1.0}}},
     .aliases = qwen_aliases,
     .fixed_keys = qwen_fixed,
     .repeated_keys = qwen_repeated},
    {.name = "molmo",  // published with code of its own: modeling_molmo.py
     .model_types = {"molmo"},
     .classes = {"MolmoForCausalLM"},
     .names = molmo_names,
     .q_norm = rms_whole,
     .k_norm = rms_whole,
     .dictionaries = dictionary_rule::none,
     .biases_by_key = q_k_v,
     .reads = {model_key::qk_norm},
     .aliases = molmo_aliases,
     .inert_keys = molmo_inert,
     .fixed_keys = molmo_fixed},
};

}  // namespace larql::detail

#endif
