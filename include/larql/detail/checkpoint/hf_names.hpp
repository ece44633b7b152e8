// SPDX-License-Identifier: Apache-2.0
//
// GGUF tensor names in transformers' terms, for the tensors around attention.
#ifndef LARQL_DETAIL_CHECKPOINT_HF_NAMES_HPP
#define LARQL_DETAIL_CHECKPOINT_HF_NAMES_HPP

#include <optional>
#include <string>
#include <string_view>

namespace larql::detail {

struct name_pair {
    std::string_view gguf;
    std::string_view hf;
};

// Source: llama.cpp gguf-py tensor_mapping.py, for the architectures that larql reads.
inline constexpr name_pair model_names[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
};
inline constexpr name_pair block_names[] = {
    {"attn_norm.weight", "input_layernorm.weight"},
    {"ffn_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_gate.weight", "mlp.gate_proj.weight"},
    {"ffn_up.weight", "mlp.up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
    {"ffn_gate_inp.weight", "mlp.gate.weight"},
    {"exp_probs_b.bias", "mlp.gate.e_score_correction_bias"},
    {"ffn_gate_shexp.weight", "mlp.shared_experts.gate_proj.weight"},
    {"ffn_up_shexp.weight", "mlp.shared_experts.up_proj.weight"},
    {"ffn_down_shexp.weight", "mlp.shared_experts.down_proj.weight"},
};
/// GGUF stacks the experts of a block in one tensor; transformers has one for each, named with its number between.
inline constexpr name_pair expert_names[] = {
    {"ffn_gate_exps.weight", ".gate_proj.weight"},
    {"ffn_up_exps.weight", ".up_proj.weight"},
    {"ffn_down_exps.weight", ".down_proj.weight"},
};

/// What a GGUF tensor becomes.
struct hf_name {
    std::string name;           ///< whole, or up to the expert's number
    std::string expert_suffix;  ///< not empty for stacked experts: name + number + expert_suffix
};

/// transformers' name of a GGUF tensor, or nothing if it has none.
inline std::optional<hf_name> hf_name_of(std::string_view gguf) {
    for (const name_pair& pair : model_names)
        if (gguf == pair.gguf) return hf_name{std::string(pair.hf), {}};
    if (!gguf.starts_with("blk.")) return std::nullopt;
    const std::size_t dot = gguf.find('.', 4);
    if (dot == std::string_view::npos) return std::nullopt;
    const std::string layer = "model.layers." + std::string(gguf.substr(4, dot - 4)) + ".";
    const std::string_view rest = gguf.substr(dot + 1);
    for (const name_pair& pair : block_names)
        if (rest == pair.gguf) return hf_name{layer + std::string(pair.hf), {}};
    for (const name_pair& pair : expert_names)
        if (rest == pair.gguf) return hf_name{layer + "mlp.experts.", std::string(pair.hf)};
    return std::nullopt;
}

}  // namespace larql::detail

#endif
