// SPDX-License-Identifier: Apache-2.0
//
// Keys that no row reads: what makes a name look as if it changed attention, and which of these change nothing.
#ifndef LARQL_DETAIL_MODEL_INERT_KEYS_HPP
#define LARQL_DETAIL_MODEL_INERT_KEYS_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>

namespace larql::detail {

/// A key that looks like attention and changes nothing, or changes nothing while it has its neutral value.
struct inert_key {
    std::string_view name;
    enum class when : std::uint8_t {
        always,  ///< whatever its value
        no,      ///< null, false, 0, "" or an empty list
        yes,     ///< null, true or 1
        one,     ///< null or 1
        rotary,  ///< "rope", "rotary": another position embedding is not
        rms,     ///< "rms", "rmsnorm": another norm is not
    } allowed = when::always;
};

// Sources: transformers 5.24 configuration_utils.py (generation and head settings), configuration_llama.py and
// configuration_deepseek_v3.py (training settings), modeling code of the classes that the family rows name.
inline constexpr inert_key hf_inert_keys[] = {
    {"attention_dropout"},  // training only
    {"attn_pdrop"},
    {"attn_dropout"},
    {"attn_dropout_prob"},
    {"attention_probs_dropout_prob"},
    {"residual_dropout"},
    {"ffn_dim_multiplier"},   // of the feed-forward part
    {"attn_implementation"},  // which kernel computes the same
    {"_attn_implementation"},
    {"_attn_implementation_internal"},
    {"_attn_implementation_autoset"},
    {"attn_impl"},
    {"attention_implementation"},
    {"attention_softmax_in_fp32"},
    {"flash_attention"},
    {"use_flash_attn"},
    {"use_flash_attention"},
    {"use_flash_attention_2"},
    {"_flash_attn_2_enabled"},
    {"flash_attn_bias_enabled", inert_key::when::no},
    {"output_attentions"},
    {"is_causal", inert_key::when::yes},        // masking_utils.py
    {"per_layer_config", inert_key::when::no},  // of HeterogeneousConfigMixin
    {"add_cross_attention", inert_key::when::no},
    {"cross_attention_hidden_size", inert_key::when::no},
    {"pruned_heads", inert_key::when::no},
    {"add_classification_head"},
    {"lm_head"},
    {"mrope_interleaved"},  // which frequencies turn with which axis: for text all axes are equal
    {"lm_head_bias"},       // of the logits
    {"full_attn_mod", inert_key::when::one},
    {"rm_head"},
    {"draft_vocab_size", inert_key::when::no},  // of a head whose attention reads more than a hidden state (EAGLE-3)
    {"initializer_range"},
    {"chunk_size_feed_forward"},  // how the feed-forward part is computed
    {"temperature"},              // of sampling
    {"guidance_scale"},
    {"epsilon_cutoff"},
    {"finetuned"},  // in old rope dictionaries: a note
    {"attn_factor", inert_key::when::one},
    {"extrapolation_factor", inert_key::when::one},
    {"top_k"},
    {"top_p"},
    {"use_mla", inert_key::when::yes},
    {"clamp_qkv", inert_key::when::no},
    {"qkv_bias", inert_key::when::no},
    {"q_bias", inert_key::when::no},
    {"attn_bias", inert_key::when::no},
    {"alibi", inert_key::when::no},
    {"use_alibi", inert_key::when::no},
    {"use_rope", inert_key::when::yes},
    {"use_rotary_pos_emb", inert_key::when::yes},
    {"rope_interleaved", inert_key::when::no},
    {"rotary_pct", inert_key::when::one},
    {"rope_pct", inert_key::when::one},
    {"position_embedding_type", inert_key::when::rotary},
    {"norm_type", inert_key::when::rms},
    {"normalization_type", inert_key::when::rms},
    {"use_rmsnorm", inert_key::when::yes},
    {"use_rms_norm", inert_key::when::yes},
    {"fused_rms_norm"},  // which kernel computes the same
    {"use_fused_rms_norm"},
    {"use_fused_rope"},
    {"fuse_norm"},
    {"residual_in_fp32"},
    {"scale_attn_weights", inert_key::when::yes},
    {"tie_lm_head"},
    {"ignore_index"},  // of a loss
    {"rotary_percent", inert_key::when::one},
    {"causal", inert_key::when::yes},
    {"bidirectional", inert_key::when::no},
    {"layer_norm_eps"},  // of a LayerNorm that these families do not have
    {"layer_norm_epsilon"},
    {"norm_eps"},
    {"final_logit_softcapping", inert_key::when::no},
    {"logits_scaling", inert_key::when::one},
    {"logit_scale", inert_key::when::one},
    {"embedding_multiplier", inert_key::when::one},
    {"residual_multiplier", inert_key::when::one},
    {"use_cla", inert_key::when::no},
    {"kv_cache_dtype"},  // how an engine stores its cache
    {"kv_cache_quant_algo"},
    {"keys_to_ignore_at_inference"},
    {"_keep_in_fp32_modules"},
    {"num_heads_per_group", inert_key::when::no},
    {"qk_head_dim"},  // the sum of two sizes that are read
    {"q_head_dim"},
    {"decoder_sparse_step"},  // which layers have experts
    {"mlp_layer_types"},
    {"index_share_for_mtp_iteration"},  // of prediction blocks, which larql does not compute
    {"moe_renormalize"},
    {"renorm_strategy"},     // of the weights of experts
    {"prefill_chunk_size"},  // of MLC's compiler
    {"context_window_size"},
    {"sliding_window_size", inert_key::when::no},
    {"attention_sink_size", inert_key::when::no},
    {"tensor_parallel_shards"},
    {"num_attention_heads_per_partition", inert_key::when::no},
};

/// The same below a GGUF architecture's prefix.
inline constexpr inert_key gguf_inert_keys[] = {
    {"attention.causal", inert_key::when::yes},
    {"rope.scaling.finetuned"},  // read by gguf_source.hpp, where it says that heads rotate
    {"rope.scaling.yarn_ext_factor", inert_key::when::one},
    {"rope.scaling.yarn_attn_factor", inert_key::when::one},
    {"rope.dimension_sections"},  // for text all axes are equal
    {"attention.max_alibi_bias", inert_key::when::no},
    {"final_logit_softcapping", inert_key::when::no},
    {"logit_scale", inert_key::when::one},
    {"embedding_scale", inert_key::when::one},
    {"residual_scale", inert_key::when::one},
    {"attention.output_scale", inert_key::when::no},
    {"attention.value_length"},  // read with the sizes, see gguf_source.hpp
    {"attention.key_length_mla"},
    {"attention.value_length_mla"},
    {"attention.q_lora_rank"},
    {"attention.kv_lora_rank"},
    {"attention.temperature_scale"},  // read by gguf_source.hpp, if the family has a temperature
    {"attention.temperature_length"},
    {"rope.dimension_count"},
    {"attention.indexer.types"},  // held against the tensors by gguf_indexer.hpp
    {"tensor_data_layout"},
};

/// Objects of a config.json that describe something else than the language model's attention.
inline constexpr std::string_view foreign_objects[] = {
    "quantization_config",  "compression_config",     "quantization",      "auto_map", "id2label", "label2id", "larql",
    "eagle_config",         "custom_pipelines",       "generation_config",
    "init_config",  // of MPT's parameters before training
    "task_specific_params", "transformers.js_config",
};
/// Parts of names of objects that describe a tower or a tool.
inline constexpr std::string_view foreign_words[] = {
    "vision", "visual", "image", "audio", "speech", "video", "tokenizer", "quant", "training", "projector",
};

// clang-format off
/// What makes a key look as if it changed attention: a part of its name, or one of its words.
inline constexpr std::string_view attention_parts[] = {
    "attn", "attention", "rope", "rotary", "norm", "scale", "scaling", "window", "sliding", "softcap", "clip", "clamp",
    "mscale", "theta", "alibi", "yarn", "temperature", "multiplier", "sparse", "indexer", "layer_type", "layer_pattern",
    "position_embedding", "positional_embedding", "query", "compress", "latent", "qkv", "sink", "causal", "directional",
    "block_type", "mixer", "override_pattern",
};
inline constexpr std::string_view attention_words[] = {
    "q", "k", "v", "kv", "qk", "key", "head", "heads", "lora", "ntk", "mla", "nope", "eps", "epsilon", "cross", "index", "cap",
    "cla", "chunk", "gate", "residual", "xpos", "swa", "mqa", "gqa", "logn", "softmax",
};
// clang-format on

/// "numKeyValueHeads" and "ROPE_SCALING" as "num_key_value_heads" and "rope_scaling".
inline std::string in_snake_case(std::string_view name) {
    std::string out;
    for (std::size_t i = 0; i < name.size(); ++i) {
        const bool upper = name[i] >= 'A' && name[i] <= 'Z';
        const bool after_lower = i > 0 && name[i - 1] >= 'a' && name[i - 1] <= 'z';
        if (upper && after_lower) out += '_';
        out += upper ? static_cast<char>(name[i] - 'A' + 'a') : name[i];
    }
    return out;
}

inline bool looks_like_attention(std::string_view path) {
    if (path.starts_with("attention.") || path.starts_with("rope.")) return true;
    const std::string spelled = in_snake_case(path.substr(path.rfind('.') + 1));  // npos + 1 is 0
    const std::string_view name = spelled;
    if (std::ranges::any_of(attention_parts, [&](auto part) { return name.find(part) != name.npos; })) return true;
    for (std::size_t begin = 0; begin <= name.size();) {
        const std::size_t end = std::min(name.find('_', begin), name.size());
        if (std::ranges::find(attention_words, name.substr(begin, end - begin)) != std::end(attention_words))
            return true;
        begin = end + 1;
    }
    return false;
}

}  // namespace larql::detail

#endif
