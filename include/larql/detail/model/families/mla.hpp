// SPDX-License-Identifier: Apache-2.0
//
// Families of multi-head latent attention. Defaults are those of transformers 5.24's configuration classes
// (configuration_*.py).
#ifndef LARQL_DETAIL_MODEL_FAMILIES_MLA_HPP
#define LARQL_DETAIL_MODEL_FAMILIES_MLA_HPP

#include <larql/detail/model/families/names.hpp>
#include <larql/model_family.hpp>

#include <string_view>

namespace larql::detail {

// clang-format off
// Sources: transformers' modeling_deepseek_v3.py; llama.cpp's conversion/deepseek.py. k_b_proj and v_b_proj are larql's
// latent form; q_proj, k_proj, v_proj and kv_a_proj beside q_a_proj its dense form.
inline constexpr name_row deepseek_attention_names[] = {
    {tensor_role::q,                   "layers.{}.self_attn.q_proj.weight",                "blk.{}.attn_q.weight"},
    {tensor_role::q_a,                 "layers.{}.self_attn.q_a_proj.weight",              "blk.{}.attn_q_a.weight"},
    {tensor_role::q_a_norm,            "layers.{}.self_attn.q_a_layernorm.weight",         "blk.{}.attn_q_a_norm.weight"},
    {tensor_role::q_b,                 "layers.{}.self_attn.q_b_proj.weight",              "blk.{}.attn_q_b.weight"},
    {tensor_role::kv_a,                "layers.{}.self_attn.kv_a_proj_with_mqa.weight",    "blk.{}.attn_kv_a_mqa.weight"},
    {tensor_role::kv_a_latent,         "layers.{}.self_attn.kv_a_proj.weight"},
    {tensor_role::kv_a_norm,           "layers.{}.self_attn.kv_a_layernorm.weight",        "blk.{}.attn_kv_a_norm.weight"},
    {tensor_role::kv_b,                "layers.{}.self_attn.kv_b_proj.weight",             "blk.{}.attn_kv_b.weight"},
    {tensor_role::k_b,                 "layers.{}.self_attn.k_b_proj.weight",              "blk.{}.attn_k_b.weight"},
    {tensor_role::v_b,                 "layers.{}.self_attn.v_b_proj.weight",              "blk.{}.attn_v_b.weight"},
    {tensor_role::k,                   "layers.{}.self_attn.k_proj.weight"},
    {tensor_role::v,                   "layers.{}.self_attn.v_proj.weight"},
    {tensor_role::o,                   "layers.{}.self_attn.o_proj.weight",                "blk.{}.attn_output.weight"},
    {tensor_role::inert,               "layers.{}.self_attn.rotary_emb.inv_freq"},
    {tensor_role::router,              "layers.{}.mlp.gate.weight",                        "blk.{}.ffn_gate_inp.weight"},
    {tensor_role::router_bias,         "layers.{}.mlp.gate.e_score_correction_bias",       "blk.{}.exp_probs_b.bias"},
    {tensor_role::expert_gate,         "layers.{}.mlp.experts.{}.gate_proj.weight",        "blk.{}.ffn_gate_exps.weight"},
    {tensor_role::expert_up,           "layers.{}.mlp.experts.{}.up_proj.weight",          "blk.{}.ffn_up_exps.weight"},
    {tensor_role::expert_down,         "layers.{}.mlp.experts.{}.down_proj.weight",        "blk.{}.ffn_down_exps.weight"},
    {tensor_role::shared_expert_gate,  "layers.{}.mlp.shared_experts.gate_proj.weight",    "blk.{}.ffn_gate_shexp.weight"},
    {tensor_role::shared_expert_up,    "layers.{}.mlp.shared_experts.up_proj.weight",      "blk.{}.ffn_up_shexp.weight"},
    {tensor_role::shared_expert_down,  "layers.{}.mlp.shared_experts.down_proj.weight",    "blk.{}.ffn_down_shexp.weight"},
    {tensor_role::predict_embedding,   "layers.{}.embed_tokens.weight",                    "blk.{}.nextn.embed_tokens.weight"},
    {tensor_role::predict_embedding_norm, "layers.{}.enorm.weight",                        "blk.{}.nextn.enorm.weight"},
    {tensor_role::predict_hidden_norm, "layers.{}.hnorm.weight",                           "blk.{}.nextn.hnorm.weight"},
    {tensor_role::predict_projection,  "layers.{}.eh_proj.weight",                         "blk.{}.nextn.eh_proj.weight"},
    {tensor_role::predict_output_norm, "layers.{}.shared_head.norm.weight",                "blk.{}.nextn.shared_head_norm.weight"},
    {tensor_role::predict_output,      "layers.{}.shared_head.head.weight",                "blk.{}.nextn.shared_head_head.weight"},
};

// Mistral-Small-4 has its experts in one tensor for all: modeling_mistral4.py; llama.cpp's conversion/mistral3.py.
inline constexpr name_row mistral4_own_names[] = {
    {tensor_role::expert_gate_up,      "layers.{}.mlp.experts.gate_up_proj",               "blk.{}.ffn_gate_up_exps.weight"},
    {tensor_role::expert_down,         "layers.{}.mlp.experts.down_proj",                  "blk.{}.ffn_down_exps.weight"},
};
// clang-format on
inline constexpr auto deepseek_names = joined(names_around_attention, deepseek_attention_names);
inline constexpr auto mistral4_names = joined(mistral4_own_names, deepseek_names);  // the first name of a role counts

// clang-format off
/// LongCat-Flash has two attentions in a layer.
inline constexpr name_row longcat_names[] = {
    {tensor_role::embedding,           "embed_tokens.weight"},
    {tensor_role::output_norm,         "norm.weight"},
    {tensor_role::output,              "lm_head.weight",                                   "", true},
    {tensor_role::input_norm,          "layers.{}.input_layernorm.{}.weight"},
    {tensor_role::ffn_norm,            "layers.{}.post_attention_layernorm.{}.weight"},
    {tensor_role::q,                   "layers.{}.self_attn.{}.q_proj.weight"},
    {tensor_role::q_a,                 "layers.{}.self_attn.{}.q_a_proj.weight"},
    {tensor_role::q_a_norm,            "layers.{}.self_attn.{}.q_a_layernorm.weight"},
    {tensor_role::q_b,                 "layers.{}.self_attn.{}.q_b_proj.weight"},
    {tensor_role::kv_a,                "layers.{}.self_attn.{}.kv_a_proj_with_mqa.weight"},
    {tensor_role::kv_a_latent,         "layers.{}.self_attn.{}.kv_a_proj.weight"},
    {tensor_role::kv_a_norm,           "layers.{}.self_attn.{}.kv_a_layernorm.weight"},
    {tensor_role::kv_b,                "layers.{}.self_attn.{}.kv_b_proj.weight"},
    {tensor_role::k_b,                 "layers.{}.self_attn.{}.k_b_proj.weight"},
    {tensor_role::v_b,                 "layers.{}.self_attn.{}.v_b_proj.weight"},
    {tensor_role::k,                   "layers.{}.self_attn.{}.k_proj.weight"},
    {tensor_role::v,                   "layers.{}.self_attn.{}.v_proj.weight"},
    {tensor_role::o,                   "layers.{}.self_attn.{}.o_proj.weight"},
};

// Mistral's own files, and what llama.cpp's conversion/mistral.py makes of them.
inline constexpr name_row mistral_large_3_attention_names[] = {
    {tensor_role::q_a,                 "layers.{}.attention.wq_a.weight",                  "blk.{}.attn_q_a.weight"},
    {tensor_role::q_a_norm,            "layers.{}.attention.q_a_norm.weight",              "blk.{}.attn_q_a_norm.weight"},
    {tensor_role::q_b,                 "layers.{}.attention.wq_b.weight",                  "blk.{}.attn_q_b.weight"},
    {tensor_role::q,                   "layers.{}.attention.wq.weight",                    "blk.{}.attn_q.weight"},
    {tensor_role::kv_a,                "layers.{}.attention.wkv_a_with_mqa.weight",        "blk.{}.attn_kv_a_mqa.weight"},
    {tensor_role::kv_a_latent,         "layers.{}.attention.wkv_a.weight"},
    {tensor_role::kv_a_norm,           "layers.{}.attention.kv_a_norm.weight",             "blk.{}.attn_kv_a_norm.weight"},
    {tensor_role::kv_b,                "layers.{}.attention.wkv_b.weight",                 "blk.{}.attn_kv_b.weight"},
    {tensor_role::k_b,                 "layers.{}.attention.wk_b.weight",                  "blk.{}.attn_k_b.weight"},
    {tensor_role::v_b,                 "layers.{}.attention.wv_b.weight",                  "blk.{}.attn_v_b.weight"},
    {tensor_role::k,                   "layers.{}.attention.wk.weight"},
    {tensor_role::v,                   "layers.{}.attention.wv.weight"},
    {tensor_role::ffn_gate,            "layers.{}.feed_forward.w1.weight",                 "blk.{}.ffn_gate.weight"},
    {tensor_role::ffn_down,            "layers.{}.feed_forward.w2.weight",                 "blk.{}.ffn_down.weight"},
    {tensor_role::ffn_up,              "layers.{}.feed_forward.w3.weight",                 "blk.{}.ffn_up.weight"},
    {tensor_role::router,              "layers.{}.gate.weight",                            "blk.{}.ffn_gate_inp.weight"},
    {tensor_role::expert_gate,         "layers.{}.experts.{}.w1.weight",                   "blk.{}.ffn_gate_exps.weight"},
    {tensor_role::expert_down,         "layers.{}.experts.{}.w2.weight",                   "blk.{}.ffn_down_exps.weight"},
    {tensor_role::expert_up,           "layers.{}.experts.{}.w3.weight",                   "blk.{}.ffn_up_exps.weight"},
    {tensor_role::shared_expert_gate,  "layers.{}.shared_experts.w1.weight",               "blk.{}.ffn_gate_shexp.weight"},
    {tensor_role::shared_expert_down,  "layers.{}.shared_experts.w2.weight",               "blk.{}.ffn_down_shexp.weight"},
    {tensor_role::shared_expert_up,    "layers.{}.shared_experts.w3.weight",               "blk.{}.ffn_up_shexp.weight"},
};
// clang-format on
inline constexpr auto mistral_large_3_names = joined(params_names_around_attention, mistral_large_3_attention_names);
// What multiplies embeddings, the sum with the residual and logits is outside attention: modeling_minicpm3.py.
inline constexpr std::string_view minicpm3_inert[] = {"scale_emb", "scale_depth", "dim_model_base"};
// llama.cpp's src/models/minicpm3.cpp has the published model's; the defaults are those of MiniCPM3Config.
inline constexpr fixed_number minicpm3_constants[] = {
    {"scale_emb", 12.0}, {"scale_depth", 1.4}, {"dim_model_base", 256.0}};
inline constexpr model_key minicpm3_gguf_keys[] = {model_key::hidden_size,         model_key::num_hidden_layers,
                                                   model_key::num_attention_heads, model_key::vocab_size,
                                                   model_key::intermediate_size,   model_key::max_position_embeddings,
                                                   model_key::rms_norm_eps};
inline constexpr std::string_view longcat_inert[] = {"attention_method"};
/// Said of families that llama.cpp, as of late 2026, neither converts nor runs.
inline constexpr std::string_view no_architecture = "llama.cpp has no architecture for it";

/// What latent attention after DeepSeek's has in common. A row states what differs.
constexpr model_family latent_attention(model_family row) {
    if (row.names.empty()) row.names = deepseek_names;
    row.kind = attention_kind::mla;
    row.scale = scale_rule::yarn_mscale;
    row.biases_by_key = {tensor_role::q_a, tensor_role::kv_a, tensor_role::o};
    if (row.params_json) return row;  // no class of transformers names defaults
    if (!row.default_rope_theta) row.default_rope_theta = 10000.0;
    if (!row.default_rms_norm_eps) row.default_rms_norm_eps = 1e-6;
    return row;
}

/// Those that rotate neighbours, and that llama.cpp runs as DeepSeek-V2.
constexpr model_family deepseek(model_family row) {
    row = latent_attention(row);
    row.pairing = rope_pairing::interleaved;
    row.gguf_architecture = "deepseek2";
    row.gguf_log_multiplier = 0.1;
    row.gguf_temperature = true;
    row.gguf_output.written = row.gguf_output.why_not.empty();
    row.gguf_output.experts_or_none = true;
    return row;
}

// llama.cpp's conversion/base.py _set_vocab_glm
inline constexpr token_text glm_tokens[] = {
    {"bos", "[gMASK]"}, {"eot", "<|user|>"}, {"unknown", "<|endoftext|>"}, {"eom", "<|observation|>"}};

inline constexpr model_family mla_families[] = {
    deepseek({.name = "deepseek_v2",
              .model_types = {"deepseek_v2"},
              .classes = {"DeepseekV2ForCausalLM", "DeepseekV2Model", "DeepseekV2ForSequenceClassification"},
              .routing = "softmax"}),
    deepseek({.name = "deepseek_v3",
              .model_types = {"deepseek_v3"},
              .classes = {"DeepseekV3ForCausalLM", "DeepseekV3Model", "DeepseekV3ForSequenceClassification",
                          "DeepseekV3ForTokenClassification"},
              .routing = "sigmoid",
              .interleave_key = true}),
    deepseek({.name = "kimi_k2",  // runs DeepSeek-V3's class
              .model_types = {"kimi_k2"},
              .classes = {"DeepseekV3ForCausalLM", "KimiK2ForCausalLM"},
              .routing = "sigmoid",
              .interleave_key = true}),
    deepseek({.name = "sarvam_mla",  // runs DeepSeek-V3's class
              .model_types = {"sarvam_mla"},
              .classes = {"DeepseekV3ForCausalLM", "SarvamMLAForCausalLM"},
              .routing = "sigmoid",
              .interleave_key = true,
              .default_q_lora_rank = 0}),
    deepseek({.name = "glm4_moe_lite",
              .model_types = {"glm4_moe_lite"},
              .classes = {"Glm4MoeLiteForCausalLM", "Glm4MoeLiteModel"},
              .routing = "sigmoid",
              .interleave_key = true,
              .default_rms_norm_eps = 1e-5,
              .gguf_output = {.keeps_predicting = true, .splitting = "glm4", .tokens = glm_tokens}}),
    deepseek({.name = "youtu",
              .model_types = {"youtu"},
              .classes = {"YoutuForCausalLM", "YoutuModel"},
              .routing = "softmax",
              .interleave_key = true}),
    deepseek(
        {.name = "axk1",
         .model_types = {"axk1"},
         .classes = {"AXK1ForCausalLM", "AXK1Model"},
         .routing = "sigmoid",
         .interleave_key = true,
         .gguf_output =
             {.why_not = "llama.cpp has no architecture for it; deepseek2 has no place for its norms after experts"}}),
    latent_attention({.name = "plm",  // published with code of its own; llama.cpp's plm.cpp
                      .model_types = {"plm"},
                      .classes = {"PLMForCausalLM", "PLMModel"},
                      .gguf_architecture = "plm",
                      .pairing = rope_pairing::interleaved,
                      .gguf_log_multiplier = 0.1,
                      .gguf_output = {.written = true, .whole_kv_b = true, .activation = "relu2"}}),
    latent_attention({.name = "mistral4",
                      .model_types = {"mistral4"},
                      .classes = {"Mistral4ForCausalLM", "Mistral4Model", "Mistral4ForSequenceClassification",
                                  "Mistral4ForTokenClassification"},
                      .gguf_architecture = "mistral4",
                      .routing = "softmax",
                      .names = mistral4_names,
                      .pairing = rope_pairing::interleaved,
                      .interleave_key = true,
                      .temperature = true,
                      .partial_rotary = true,
                      .gguf_log_multiplier = 0.1,
                      .gguf_temperature = true,
                      .gguf_loses = "the queries' temperature (llama_4_scaling_beta)",
                      .gguf_output = {.written = true, .experts_or_none = true}}),
    latent_attention({.name = "mistral_large_3",
                      .model_types = {"mistral_large_3"},
                      .gguf_architecture = "deepseek2",
                      .params_json = true,
                      .routing = "softmax",
                      .names = mistral_large_3_names,
                      .pairing = rope_pairing::interleaved,
                      .latent_eps = 0.0,
                      .temperature = true,
                      .defaults = {{{model_key::norm_topk_prob, 1.0}}},
                      .gguf_log_multiplier = 0.1,
                      .gguf_temperature = true,
                      .gguf_output = {.written = true, .experts_or_none = true},
                      .aliases = params_aliases,
                      .inert_keys = params_inert}),
    latent_attention({.name = "minicpm3",
                      .model_types = {"minicpm3"},
                      .classes = {"MiniCPM3ForCausalLM", "MiniCPM3Model", "MiniCPM3ForSequenceClassification"},
                      .gguf_architecture = "minicpm3",
                      .head_sized_values = true,
                      .default_rms_norm_eps = 1e-5,
                      .gguf_loses = "longrope's factor",
                      .gguf_output = {.written = true,
                                      .whole_kv_b = true,
                                      .rope_factors = true,
                                      .keys = minicpm3_gguf_keys,
                                      .constants = minicpm3_constants},
                      .inert_keys = minicpm3_inert}),
    latent_attention({.name = "longcat_flash",
                      .model_types = {"longcat_flash"},
                      .classes = {"LongcatFlashForCausalLM", "LongcatFlashModel"},
                      .names = longcat_names,
                      .pairing = rope_pairing::interleaved,
                      .scaled_latents = true,
                      .attentions_per_layer = 2,
                      .default_rope_theta = 1e7,
                      .default_rms_norm_eps = 1e-5,
                      .gguf_output = {.why_not = no_architecture},
                      .inert_keys = longcat_inert}),
};

}  // namespace larql::detail

#endif
