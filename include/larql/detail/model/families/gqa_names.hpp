// SPDX-License-Identifier: Apache-2.0
//
// What families of multi-head and grouped-query attention call their tensors. Sources: the modeling_*.py of
// transformers that each table names; llama.cpp's gguf-py/gguf/tensor_mapping.py.
#ifndef LARQL_DETAIL_MODEL_FAMILIES_GQA_NAMES_HPP
#define LARQL_DETAIL_MODEL_FAMILIES_GQA_NAMES_HPP

#include <larql/detail/model/families/names.hpp>
#include <larql/model_family.hpp>

namespace larql::detail {

// clang-format off
inline constexpr name_row llama_attention_names[] = {
    {tensor_role::q,                   "layers.{}.self_attn.q_proj.weight",                "blk.{}.attn_q.weight"},
    {tensor_role::k,                   "layers.{}.self_attn.k_proj.weight",                "blk.{}.attn_k.weight"},
    {tensor_role::v,                   "layers.{}.self_attn.v_proj.weight",                "blk.{}.attn_v.weight"},
    {tensor_role::o,                   "layers.{}.self_attn.o_proj.weight",                "blk.{}.attn_output.weight"},
    {tensor_role::inert,               "layers.{}.self_attn.rotary_emb.inv_freq",          "blk.{}.attn_rot_embd.weight"},
};
inline constexpr name_row mistral_params_attention_names[] = {  // mistral-inference
    {tensor_role::q,                   "layers.{}.attention.wq.weight"},
    {tensor_role::k,                   "layers.{}.attention.wk.weight"},
    {tensor_role::v,                   "layers.{}.attention.wv.weight"},
};
inline constexpr name_row head_norm_names[] = {
    {tensor_role::q_norm,              "layers.{}.self_attn.q_norm.weight",                "blk.{}.attn_q_norm.weight"},
    {tensor_role::k_norm,              "layers.{}.self_attn.k_norm.weight",                "blk.{}.attn_k_norm.weight"},
};
inline constexpr name_row head_layernorm_names[] = {  // modeling_phi.py, modeling_persimmon.py
    {tensor_role::q_norm,              "layers.{}.self_attn.q_layernorm.weight",           "blk.{}.attn_q_norm.weight"},
    {tensor_role::k_norm,              "layers.{}.self_attn.k_layernorm.weight",           "blk.{}.attn_k_norm.weight"},
};
inline constexpr name_row hunyuan_norm_names[] = {  // modeling_hunyuan_v1_dense.py
    {tensor_role::q_norm,              "layers.{}.self_attn.query_layernorm.weight",       "blk.{}.attn_q_norm.weight"},
    {tensor_role::k_norm,              "layers.{}.self_attn.key_layernorm.weight",         "blk.{}.attn_k_norm.weight"},
};
// Norms of what attention gives: outside the block, and llama.cpp says "attention" of them.
inline constexpr name_row post_norm_names[] = {
    {tensor_role::inert,               "",                                                 "blk.{}.post_attention_norm.weight"},
};
inline constexpr name_row mimo_v2_sink_names[] = {  // conversion_mapping.py, modeling_mimo_v2_flash.py
    {tensor_role::sinks,               "layers.{}.self_attn.attention_sink_bias",          "blk.{}.attn_sinks.weight"},
    {tensor_role::sinks,               "layers.{}.self_attn.sinks"},
};
inline constexpr name_row sink_names[] = {  // modeling_gpt_oss.py
    {tensor_role::sinks,               "layers.{}.self_attn.sinks",                        "blk.{}.attn_sinks.weight"},
};
inline constexpr name_row phi3_attention_names[] = {  // modeling_phi3.py
    {tensor_role::qkv,                 "layers.{}.self_attn.qkv_proj.weight",              "blk.{}.attn_qkv.weight"},
    {tensor_role::o,                   "layers.{}.self_attn.o_proj.weight",                "blk.{}.attn_output.weight"},
    {tensor_role::inert,               "layers.{}.self_attn.rotary_emb.inv_freq"},
};
inline constexpr name_row phi_attention_names[] = {  // modeling_phi.py
    {tensor_role::q,                   "layers.{}.self_attn.q_proj.weight",                "blk.{}.attn_q.weight"},
    {tensor_role::k,                   "layers.{}.self_attn.k_proj.weight",                "blk.{}.attn_k.weight"},
    {tensor_role::v,                   "layers.{}.self_attn.v_proj.weight",                "blk.{}.attn_v.weight"},
    {tensor_role::qkv,                 "",                                                 "blk.{}.attn_qkv.weight"},
    {tensor_role::o,                   "layers.{}.self_attn.dense.weight",                 "blk.{}.attn_output.weight"},
    {tensor_role::inert,               "layers.{}.self_attn.rotary_emb.inv_freq"},
};
inline constexpr name_row persimmon_attention_names[] = {  // modeling_persimmon.py
    {tensor_role::qkv,                 "layers.{}.self_attn.query_key_value.weight"},
    {tensor_role::o,                   "layers.{}.self_attn.dense.weight"},
    {tensor_role::inert,               "layers.{}.self_attn.rotary_emb.inv_freq"},
};
inline constexpr name_row neox_names[] = {  // modeling_gpt_neox.py
    {tensor_role::embedding,           "embed_in.weight",                                  "token_embd.weight"},
    {tensor_role::output_norm,         "final_layer_norm.weight",                          "output_norm.weight"},
    {tensor_role::input_norm,          "layers.{}.input_layernorm.weight",                 "blk.{}.attn_norm.weight"},
    {tensor_role::ffn_norm,            "layers.{}.post_attention_layernorm.weight"},
    {tensor_role::qkv,                 "layers.{}.attention.query_key_value.weight",       "blk.{}.attn_qkv.weight"},
    {tensor_role::o,                   "layers.{}.attention.dense.weight",                 "blk.{}.attn_output.weight"},
    {tensor_role::inert,               "layers.{}.attention.rotary_emb.inv_freq"},
    {tensor_role::inert,               "layers.{}.attention.bias"},         // the causal mask, in old files
    {tensor_role::inert,               "layers.{}.attention.masked_bias"},
};
inline constexpr name_row falcon_names[] = {  // modeling_falcon.py
    {tensor_role::embedding,           "word_embeddings.weight",                           "token_embd.weight"},
    {tensor_role::output_norm,         "ln_f.weight",                                      "output_norm.weight"},
    {tensor_role::output,              "lm_head.weight",                                   "output.weight", true},
    {tensor_role::input_norm,          "h.{}.input_layernorm.weight",                      "blk.{}.attn_norm.weight"},
    {tensor_role::input_norm,          "h.{}.ln_attn.weight",                              "blk.{}.attn_norm_2.weight"},
    {tensor_role::ffn_norm,            "h.{}.post_attention_layernorm.weight"},
    {tensor_role::qkv,                 "h.{}.self_attention.query_key_value.weight",       "blk.{}.attn_qkv.weight"},
    {tensor_role::o,                   "h.{}.self_attention.dense.weight",                 "blk.{}.attn_output.weight"},
    {tensor_role::inert,               "h.{}.self_attention.rotary_emb.inv_freq"},
};
inline constexpr name_row gpt2_names[] = {  // modeling_gpt2.py
    {tensor_role::embedding,           "wte.weight",                                       "token_embd.weight"},
    {tensor_role::output_norm,         "ln_f.weight",                                      "output_norm.weight"},
    {tensor_role::output,              "lm_head.weight",                                   "output.weight", true},
    {tensor_role::input_norm,          "h.{}.ln_1.weight",                                 "blk.{}.attn_norm.weight"},
    {tensor_role::ffn_norm,            "h.{}.ln_2.weight",                                 "blk.{}.ffn_norm.weight"},
    {tensor_role::qkv,                 "h.{}.attn.c_attn.weight",                          "blk.{}.attn_qkv.weight"},
    {tensor_role::o,                   "h.{}.attn.c_proj.weight",                          "blk.{}.attn_output.weight"},
    {tensor_role::inert,               "h.{}.attn.bias"},                   // the causal mask, in old files
    {tensor_role::inert,               "h.{}.attn.masked_bias"},
};
inline constexpr name_row internlm2_names[] = {  // modeling_internlm2.py, published with the models
    {tensor_role::embedding,           "tok_embeddings.weight",                            "token_embd.weight"},
    {tensor_role::output_norm,         "norm.weight",                                      "output_norm.weight"},
    {tensor_role::output,              "output.weight",                                    "output.weight", true},
    {tensor_role::input_norm,          "layers.{}.attention_norm.weight",                  "blk.{}.attn_norm.weight"},
    {tensor_role::ffn_norm,            "layers.{}.ffn_norm.weight",                        "blk.{}.ffn_norm.weight"},
    {tensor_role::qkv,                 "layers.{}.attention.wqkv.weight"},
    {tensor_role::q,                   "",                                                 "blk.{}.attn_q.weight"},
    {tensor_role::k,                   "",                                                 "blk.{}.attn_k.weight"},
    {tensor_role::v,                   "",                                                 "blk.{}.attn_v.weight"},
    {tensor_role::o,                   "layers.{}.attention.wo.weight",                    "blk.{}.attn_output.weight"},
    {tensor_role::inert,               "layers.{}.attention.rotary_emb.inv_freq"},
};
inline constexpr name_row exaone_own_names[] = {  // conversion_mapping.py
    {tensor_role::embedding,           "wte.weight"},
    {tensor_role::output_norm,         "ln_f.weight"},
    {tensor_role::input_norm,          "h.{}.ln_1.weight"},
    {tensor_role::ffn_norm,            "h.{}.ln_2.weight"},
    {tensor_role::q,                   "h.{}.attn.attention.q_proj.weight"},
    {tensor_role::k,                   "h.{}.attn.attention.k_proj.weight"},
    {tensor_role::v,                   "h.{}.attn.attention.v_proj.weight"},
    {tensor_role::o,                   "h.{}.attn.attention.out_proj.weight"},
    {tensor_role::inert,               "h.{}.attn.attention.rotary.inv_freq"},
};
inline constexpr name_row sarvam_moe_own_names[] = {  // conversion_mapping.py
    {tensor_role::qkv,                 "layers.{}.attention.query_key_value.weight"},
    {tensor_role::o,                   "layers.{}.attention.dense.weight"},
    {tensor_role::q_norm,              "layers.{}.attention.query_layernorm.weight"},
    {tensor_role::k_norm,              "layers.{}.attention.key_layernorm.weight"},
};
inline constexpr name_row lfm2_own_names[] = {  // modeling_lfm2.py
    {tensor_role::input_norm,          "layers.{}.operator_norm.weight"},
    {tensor_role::o,                   "layers.{}.self_attn.out_proj.weight"},
};
inline constexpr name_row nemotron_h_names[] = {  // modeling_nemotron_h.py
    {tensor_role::embedding,           "embeddings.weight"},
    {tensor_role::output_norm,         "norm_f.weight"},
    {tensor_role::output,              "lm_head.weight",                                   "", true},
    {tensor_role::input_norm,          "layers.{}.norm.weight"},
    {tensor_role::q,                   "layers.{}.mixer.q_proj.weight"},
    {tensor_role::k,                   "layers.{}.mixer.k_proj.weight"},
    {tensor_role::v,                   "layers.{}.mixer.v_proj.weight"},
    {tensor_role::o,                   "layers.{}.mixer.o_proj.weight"},
};
inline constexpr name_row chatglm4_names[] = {  // modeling_chatglm.py, published with the models
    {tensor_role::embedding,           "embedding.word_embeddings.weight",                 "token_embd.weight"},
    {tensor_role::output_norm,         "encoder.final_layernorm.weight",                   "output_norm.weight"},
    {tensor_role::output,              "output_layer.weight",                              "output.weight"},
    {tensor_role::input_norm,          "encoder.layers.{}.input_layernorm.weight",         "blk.{}.attn_norm.weight"},
    {tensor_role::ffn_norm,            "encoder.layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight"},
    {tensor_role::qkv,                 "encoder.layers.{}.self_attention.query_key_value.weight", "blk.{}.attn_qkv.weight"},
    {tensor_role::o,                   "encoder.layers.{}.self_attention.dense.weight",    "blk.{}.attn_output.weight"},
};
inline constexpr name_row separate_names[] = {  // GGUF of transformers' glm, whose projections stand by themselves
    {tensor_role::q,                   "",                                                 "blk.{}.attn_q.weight"},
    {tensor_role::k,                   "",                                                 "blk.{}.attn_k.weight"},
    {tensor_role::v,                   "",                                                 "blk.{}.attn_v.weight"},
};
inline constexpr name_row transformer_names[] = {  // what families after GPT-2 call the tensors around attention
    {tensor_role::embedding,           "wte.weight"},
    {tensor_role::output_norm,         "ln_f.weight"},
    {tensor_role::output,              "lm_head.weight",                                   "", true},
    {tensor_role::input_norm,          "h.{}.ln_1.weight"},
    {tensor_role::ffn_norm,            "h.{}.ln_2.weight"},
};
inline constexpr name_row gptj_own_names[] = {  // modeling_gptj.py, modeling_codegen.py
    {tensor_role::q,                   "h.{}.attn.q_proj.weight"},
    {tensor_role::k,                   "h.{}.attn.k_proj.weight"},
    {tensor_role::v,                   "h.{}.attn.v_proj.weight"},
    {tensor_role::qkv,                 "h.{}.attn.qkv_proj.weight"},
    {tensor_role::o,                   "h.{}.attn.out_proj.weight"},
    {tensor_role::inert,               "h.{}.attn.bias"},                   // the causal mask, in old files
    {tensor_role::inert,               "h.{}.attn.masked_bias"},
    {tensor_role::inert,               "h.{}.attn.causal_mask"},
};
inline constexpr name_row gpt_neo_own_names[] = {  // modeling_gpt_neo.py
    {tensor_role::q,                   "h.{}.attn.attention.q_proj.weight"},
    {tensor_role::k,                   "h.{}.attn.attention.k_proj.weight"},
    {tensor_role::v,                   "h.{}.attn.attention.v_proj.weight"},
    {tensor_role::o,                   "h.{}.attn.attention.out_proj.weight"},
    {tensor_role::inert,               "h.{}.attn.attention.bias"},         // the causal mask, in old files
    {tensor_role::inert,               "h.{}.attn.attention.masked_bias"},
};
inline constexpr name_row phi_msft_names[] = {  // modeling_phi.py, published with the first models
    {tensor_role::embedding,           "embd.wte.weight"},
    {tensor_role::input_norm,          "h.{}.ln.weight"},
    {tensor_role::qkv,                 "h.{}.mixer.Wqkv.weight"},
    {tensor_role::o,                   "h.{}.mixer.out_proj.weight"},
    {tensor_role::inert,               "h.{}.mixer.rotary_emb.inv_freq"},
    {tensor_role::inert,               "h.{}.mixer.rotary_emb.scale"},
};
inline constexpr name_row qwen_own_names[] = {  // modeling_qwen.py, published with the models
    {tensor_role::qkv,                 "h.{}.attn.c_attn.weight"},
    {tensor_role::o,                   "h.{}.attn.c_proj.weight"},
    {tensor_role::inert,               "h.{}.attn.logn_tensor"},
    {tensor_role::inert,               "rotary_emb.inv_freq"},
};
// What sees an image or hears has adapters of its own, which text passes by: modeling_phi4mm.py.
inline constexpr name_row phi4mm_own_names[] = {
    {tensor_role::qkv,                 "layers.{}.self_attn.qkv_proj.base_layer.weight"},
    {tensor_role::o,                   "layers.{}.self_attn.o_proj.base_layer.weight"},
    {tensor_role::inert,               "layers.{}.self_attn.qkv_proj.lora_A.vision.weight"},
    {tensor_role::inert,               "layers.{}.self_attn.qkv_proj.lora_B.vision.weight"},
    {tensor_role::inert,               "layers.{}.self_attn.qkv_proj.lora_A.speech.weight"},
    {tensor_role::inert,               "layers.{}.self_attn.qkv_proj.lora_B.speech.weight"},
    {tensor_role::inert,               "layers.{}.self_attn.o_proj.lora_A.vision.weight"},
    {tensor_role::inert,               "layers.{}.self_attn.o_proj.lora_B.vision.weight"},
    {tensor_role::inert,               "layers.{}.self_attn.o_proj.lora_A.speech.weight"},
    {tensor_role::inert,               "layers.{}.self_attn.o_proj.lora_B.speech.weight"},
};
inline constexpr name_row mpt_names[] = {  // modeling_mpt.py
    {tensor_role::embedding,           "wte.weight"},
    {tensor_role::output_norm,         "norm_f.weight"},
    {tensor_role::input_norm,          "blocks.{}.norm_1.weight"},
    {tensor_role::ffn_norm,            "blocks.{}.norm_2.weight"},
    {tensor_role::qkv,                 "blocks.{}.attn.Wqkv.weight"},
    {tensor_role::o,                   "blocks.{}.attn.out_proj.weight"},
};
inline constexpr name_row molmo_names[] = {  // modeling_molmo.py, published with the models
    {tensor_role::embedding,           "transformer.wte.embedding"},
    {tensor_role::output_norm,         "transformer.ln_f.weight"},
    {tensor_role::output,              "transformer.ff_out.weight"},
    {tensor_role::input_norm,          "transformer.blocks.{}.attn_norm.weight"},
    {tensor_role::ffn_norm,            "transformer.blocks.{}.ff_norm.weight"},
    {tensor_role::qkv,                 "transformer.blocks.{}.att_proj.weight"},
    {tensor_role::o,                   "transformer.blocks.{}.attn_out.weight"},
    {tensor_role::q_norm,              "transformer.blocks.{}.q_norm.weight"},
    {tensor_role::k_norm,              "transformer.blocks.{}.k_norm.weight"},
};
inline constexpr name_row baichuan_attention_names[] = {  // modeling_baichuan.py, published with the models
    {tensor_role::qkv,                 "layers.{}.self_attn.W_pack.weight"},
    {tensor_role::o,                   "layers.{}.self_attn.o_proj.weight"},
    {tensor_role::inert,               "layers.{}.self_attn.rotary_emb.inv_freq"},
};
inline constexpr name_row eagle3_own_names[] = {  // llama3_eagle.py of SpecForge, llama_eagle3.py of SGLang
    {tensor_role::input_norm,          "midlayer.input_layernorm.weight"},
    {tensor_role::ffn_norm,            "midlayer.post_attention_layernorm.weight"},
    {tensor_role::q,                   "midlayer.self_attn.q_proj.weight"},
    {tensor_role::k,                   "midlayer.self_attn.k_proj.weight"},
    {tensor_role::v,                   "midlayer.self_attn.v_proj.weight"},
    {tensor_role::o,                   "midlayer.self_attn.o_proj.weight"},
};
// A norm of what attention gives, outside the block: modeling_glm4.py, modeling_kolibri1.py.
inline constexpr name_row given_norm_names[] = {
    {tensor_role::inert,               "layers.{}.post_self_attn_layernorm.weight"},
};
inline constexpr name_row apertus_own_names[] = {  // modeling_apertus.py
    {tensor_role::input_norm,          "layers.{}.attention_layernorm.weight"},
    {tensor_role::ffn_norm,            "layers.{}.feedforward_layernorm.weight"},
};
inline constexpr name_row opt_norm_names[] = {  // modeling_opt.py, modeling_biogpt.py, modeling_xglm.py
    {tensor_role::input_norm,          "layers.{}.self_attn_layer_norm.weight"},
};
inline constexpr name_row afmoe_gate_names[] = {  // modeling_afmoe.py
    {tensor_role::gate,                "layers.{}.self_attn.gate_proj.weight"},
};
inline constexpr name_row g_proj_names[] = {  // modeling_laguna.py, modeling_lfm3.py, modeling_step3p7.py
    {tensor_role::gate,                "layers.{}.self_attn.g_proj.weight",                "blk.{}.attn_gate.weight"},
};
inline constexpr name_row lfm_norm_names[] = {  // modeling_lfm3.py
    {tensor_role::input_norm,          "layers.{}.operator_norm.weight"},
};
inline constexpr name_row modernbert_names[] = {  // modeling_modernbert_decoder.py
    {tensor_role::embedding,           "embeddings.tok_embeddings.weight"},
    {tensor_role::output_norm,         "final_norm.weight"},
    {tensor_role::output,              "decoder.weight",                                   "", true},
    {tensor_role::input_norm,          "layers.{}.attn_norm.weight"},
    {tensor_role::ffn_norm,            "layers.{}.mlp_norm.weight"},
    {tensor_role::q,                   "layers.{}.attn.q_proj.weight"},
    {tensor_role::k,                   "layers.{}.attn.k_proj.weight"},
    {tensor_role::v,                   "layers.{}.attn.v_proj.weight"},
    {tensor_role::o,                   "layers.{}.attn.Wo.weight"},
};
inline constexpr name_row recurrent_gemma_names[] = {  // modeling_recurrent_gemma.py
    {tensor_role::embedding,           "embed_tokens.weight"},
    {tensor_role::output_norm,         "final_norm.weight"},
    {tensor_role::output,              "lm_head.weight",                                   "", true},
    {tensor_role::input_norm,          "layers.{}.temporal_pre_norm.weight"},
    {tensor_role::ffn_norm,            "layers.{}.channel_pre_norm.weight"},
    {tensor_role::q,                   "layers.{}.temporal_block.q_proj.weight"},
    {tensor_role::k,                   "layers.{}.temporal_block.k_proj.weight"},
    {tensor_role::v,                   "layers.{}.temporal_block.v_proj.weight"},
    {tensor_role::o,                   "layers.{}.temporal_block.o_proj.weight"},
};
inline constexpr name_row ctrl_names[] = {  // modeling_ctrl.py
    {tensor_role::embedding,           "w.weight"},
    {tensor_role::output_norm,         "layernorm.weight"},
    {tensor_role::output,              "lm_head.weight",                                   "", true},
    {tensor_role::input_norm,          "h.{}.layernorm1.weight"},
    {tensor_role::ffn_norm,            "h.{}.layernorm2.weight"},
    {tensor_role::q,                   "h.{}.multi_head_attention.Wq.weight"},
    {tensor_role::k,                   "h.{}.multi_head_attention.Wk.weight"},
    {tensor_role::v,                   "h.{}.multi_head_attention.Wv.weight"},
    {tensor_role::o,                   "h.{}.multi_head_attention.dense.weight"},
};
inline constexpr name_row openai_gpt_own_names[] = {  // modeling_openai.py
    {tensor_role::embedding,           "tokens_embed.weight"},
};
inline constexpr name_row dbrx_names[] = {  // modeling_dbrx.py
    {tensor_role::embedding,           "wte.weight"},
    {tensor_role::output_norm,         "norm_f.weight"},
    {tensor_role::output,              "lm_head.weight",                                   "", true},
    {tensor_role::input_norm,          "blocks.{}.norm_attn_norm.norm_1.weight"},
    {tensor_role::ffn_norm,            "blocks.{}.norm_attn_norm.norm_2.weight"},
    {tensor_role::qkv,                 "blocks.{}.norm_attn_norm.attn.Wqkv.weight"},
    {tensor_role::o,                   "blocks.{}.norm_attn_norm.attn.out_proj.weight"},
};
inline constexpr name_row gated_query_names[] = {  // modeling_qwen3_next.py
    {tensor_role::q_gate,              "layers.{}.self_attn.q_proj.weight",                "blk.{}.attn_q.weight"},
    {tensor_role::k,                   "layers.{}.self_attn.k_proj.weight",                "blk.{}.attn_k.weight"},
    {tensor_role::v,                   "layers.{}.self_attn.v_proj.weight",                "blk.{}.attn_v.weight"},
    {tensor_role::o,                   "layers.{}.self_attn.o_proj.weight",                "blk.{}.attn_output.weight"},
};
// clang-format on
inline constexpr auto llama_names = joined(names_around_attention, llama_attention_names);
inline constexpr auto mistral_params_names = joined(params_names_around_attention, mistral_params_attention_names);
inline constexpr auto qwen3_names = joined(llama_names, head_norm_names);
inline constexpr auto gemma2_names = joined(llama_names, post_norm_names);
inline constexpr auto gemma3_names = joined(qwen3_names, post_norm_names);
inline constexpr auto qwen3_next_names = joined(names_around_attention, gated_query_names, head_norm_names);
inline constexpr auto gpt_oss_names = joined(llama_names, sink_names, post_norm_names);
inline constexpr auto mimo_v2_names = joined(llama_names, mimo_v2_sink_names);
inline constexpr auto glm4_moe_names = joined(qwen3_names, post_norm_names);
inline constexpr auto hunyuan_names = joined(llama_names, hunyuan_norm_names);
inline constexpr auto phi_names = joined(names_around_attention, phi_attention_names, head_layernorm_names);
inline constexpr auto exaone_names = joined(llama_names, exaone_own_names);
inline constexpr auto sarvam_moe_names = joined(qwen3_names, sarvam_moe_own_names);
inline constexpr auto lfm2_names = joined(llama_names, head_layernorm_names, lfm2_own_names);
inline constexpr auto opt_names = joined(llama_names, lfm2_own_names, opt_norm_names);
inline constexpr auto glm_names = joined(llama_names, given_norm_names, post_norm_names);
inline constexpr auto chatglm_names = joined(chatglm4_names, separate_names);
inline constexpr auto kolibri_names = joined(qwen3_names, given_norm_names);
inline constexpr auto apertus_names = joined(qwen3_names, apertus_own_names);
inline constexpr auto gptj_names = joined(transformer_names, gptj_own_names);
inline constexpr auto gpt_neo_names = joined(transformer_names, gpt_neo_own_names);
inline constexpr auto qwen_names = joined(transformer_names, qwen_own_names);
inline constexpr auto baichuan_names = joined(names_around_attention, baichuan_attention_names);
inline constexpr auto eagle3_names = joined(eagle3_own_names, llama_names);
inline constexpr auto phi3_names = joined(names_around_attention, phi3_attention_names);
inline constexpr auto phi4mm_names = joined(phi3_names, phi4mm_own_names);
inline constexpr auto afmoe_names = joined(qwen3_names, afmoe_gate_names);
inline constexpr auto laguna_names = joined(qwen3_names, g_proj_names);
inline constexpr auto lfm3_names = joined(qwen3_names, g_proj_names, lfm_norm_names);
inline constexpr auto flint_names = joined(qwen3_names, sink_names);
inline constexpr auto granite_swa_names = joined(llama_names, sink_names);
inline constexpr auto openai_gpt_names = joined(gpt2_names, openai_gpt_own_names);
inline constexpr auto persimmon_names = joined(names_around_attention, persimmon_attention_names, head_layernorm_names);

}  // namespace larql::detail

#endif
