// SPDX-License-Identifier: Apache-2.0
//
// What was understood of a model, as JSON.
#ifndef LARQL_EXAMPLES_SUPPORT_SPEC_JSON_HPP
#define LARQL_EXAMPLES_SUPPORT_SPEC_JSON_HPP

#include <larql/checkpoint.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::program {

/// The table of a rotary embedding, kept from one block to the next, which mostly rotates alike.
inline const rope_table& table_of(const rope_config& config) {
    static rope_config last;
    static rope_table table = make_rope_table(last);
    if (config != last) {
        table = make_rope_table(config);
        last = config;
    }
    return table;
}

inline nlohmann::ordered_json rope_json(const attention_spec& spec) {
    const rope_config& config = spec.rope;
    const rope_table& table = table_of(config);
    nlohmann::ordered_json rope = {{"type", to_string(config.kind)},
                                   {"pairing", to_string(spec.geometry.pairing)},
                                   {"rotary_dim", config.rotary_dim},
                                   {"theta", config.theta}};
    if (config.factor != 1.0) rope["factor"] = config.factor;
    if (config.original_max_position != 0.0) rope["original_max_position_embeddings"] = config.original_max_position;
    if (depends_on_length(config)) rope["follows_length"] = true;
    if (config.short_magnitude && config.long_magnitude) {  // it follows the length
        rope["short_magnitude"] = *config.short_magnitude;
        rope["long_magnitude"] = *config.long_magnitude;
    } else {
        rope["magnitude"] = table.magnitude;
    }
    if (config.alpha) rope["alpha"] = *config.alpha;
    if (config.doubling) rope["doubling"] = true;
    if (config.kind == rope_kind::yarn) {
        rope["beta_fast"] = config.beta_fast;
        rope["beta_slow"] = config.beta_slow;
        rope["truncate"] = config.truncate;
        if (config.mscale) rope["mscale"] = *config.mscale;
        if (config.mscale_all_dim) rope["mscale_all_dim"] = *config.mscale_all_dim;
    }
    if (config.kind == rope_kind::llama3) {
        rope["low_freq_factor"] = config.low_freq_factor;
        rope["high_freq_factor"] = config.high_freq_factor;
    }
    if (config.kind == rope_kind::proportional) rope["partial_rotary_factor"] = config.partial_rotary_factor;
    if (config.learned) rope["learned"] = true;
    if (config.attention_factor) rope["attention_factor"] = *config.attention_factor;
    const std::vector<double>& f = table.frequencies;
    if (!f.empty()) rope["inv_freq"] = {f.front(), f[f.size() / 2], f.back()};
    return rope;
}

inline nlohmann::ordered_json norm_json(const norm_spec& norm) {
    nlohmann::ordered_json out = {{"kind", to_string(norm.kind)}, {"per_head", norm.per_head}, {"eps", norm.eps}};
    if (norm.own_gains) out["own_gains"] = true;
    if (!norm.has_gain) out["has_gain"] = false;
    if (norm.gain_offset != 0.0) out["gain_offset"] = norm.gain_offset;
    if (norm.has_bias) out["has_bias"] = true;
    if (norm.after_rope) out["after_rope"] = true;
    return out;
}

inline nlohmann::ordered_json compression_json(const compression_spec& c) {
    return {{"ratio", c.ratio}, {"overlapping", c.overlapping}, {"norm", norm_json(c.norm)}};
}

inline nlohmann::ordered_json indexer_json(const indexer_spec& indexer) {
    nlohmann::ordered_json out = {{"top_k", indexer.top_k},
                                  {"heads", indexer.heads},
                                  {"head_dim", indexer.head_dim},
                                  {"row_order", to_string(indexer.order)},
                                  {"pairing", to_string(indexer.pairing)},
                                  {"k_norm", norm_json(indexer.k_norm)}};
    if (indexer.pool > 1) out["pool"] = indexer.pool;
    if (indexer.from_input) out["from_input"] = true;
    if (indexer.q_norm.kind != norm_kind::none) out["q_norm"] = norm_json(indexer.q_norm);
    if (indexer.per_head) out["temperature"] = {{"per_head", true}};
    return out;
}

/// Every field of a spec that is not "none".
inline nlohmann::ordered_json spec_json(const attention_spec& spec) {
    const mla_geometry& g = spec.geometry;
    nlohmann::ordered_json out = {{"num_attention_heads", g.num_heads},
                                  {"num_key_value_heads", g.kv_heads()},
                                  {"head_dim", g.qk_head_dim()},
                                  {"v_head_dim", g.v_head_dim}};
    if (spec.input_size != 0) out["input_size"] = spec.input_size;
    if (spec.kind == attention_kind::mla) {
        out["q_lora_rank"] =
            g.q_lora_rank == 0 ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(g.q_lora_rank);
        out["kv_lora_rank"] = g.kv_lora_rank;
        out["qk_nope_head_dim"] = g.qk_nope_head_dim;
        out["qk_rope_head_dim"] = g.qk_rope_head_dim;
        out["row_order"] = to_string(g.order);
        out["latent_norm_eps"] = spec.latent_norm.eps;
        if (spec.q_latent_scale != 1.0) out["q_latent_scale"] = spec.q_latent_scale;
        if (spec.kv_latent_scale != 1.0) out["kv_latent_scale"] = spec.kv_latent_scale;
        if (spec.k_rope_norm.kind != norm_kind::none) out["k_rope_norm"] = norm_json(spec.k_rope_norm);
    }
    if (spec.kind == attention_kind::compressed) {
        out["q_lora_rank"] = g.q_lora_rank;
        out["qk_nope_head_dim"] = g.qk_nope_head_dim;
        out["qk_rope_head_dim"] = g.qk_rope_head_dim;
        out["row_order"] = to_string(g.order);
        out["latent_norm_eps"] = spec.latent_norm.eps;
        const compression_spec& c = spec.compression;
        if (c.ratio != 0) out["compression"] = compression_json(c);
        if (c.index_heads != 0)
            out["indexer"] = {{"heads", c.index_heads}, {"head_dim", c.index_head_dim}, {"top_k", c.index_top_k}};
    }
    if (spec.output_groups != 0) out["output"] = {{"groups", spec.output_groups}, {"rank", spec.output_rank}};
    if (spec.scale != 1.0) out["attention_scale"] = spec.scale;
    if (spec.softcap != 0.0) out["softcap"] = spec.softcap;
    if (spec.sliding_window != 0) out["sliding_window"] = spec.sliding_window;
    if (spec.chunk != 0) out["attention_chunk_size"] = spec.chunk;
    if (spec.alibi != 0.0) out["alibi_max_bias"] = spec.alibi;
    if (spec.clip != 0.0) out["clip_qkv"] = spec.clip;
    if (spec.sinks) out["sinks"] = true;
    if (spec.raw_query_latent) out["raw_query_latent"] = true;
    if (spec.gate != output_gate::none) out["gate"] = to_string(spec.gate);
    if (spec.gated_by != gate_function::sigmoid) out["gate_function"] = to_string(spec.gated_by);
    if (spec.temperature.scale != 0.0)
        out["temperature"] = {{"scale", spec.temperature.scale},
                              {"length", spec.temperature.length},
                              {"offset", spec.temperature.offset}};
    if (spec.temperature.per_head) out["temperature"] = {{"per_head", true}};
    if (spec.temperature.logarithmic) out["temperature"]["logarithmic"] = true;
    if (spec.indexer.any()) {
        out["indexer"] = indexer_json(spec.indexer);
        out["indexer_shared"] = spec.indexer.shared;
    }
    if (spec.q_norm.kind != norm_kind::none) out["q_norm"] = norm_json(spec.q_norm);
    if (spec.k_norm.kind != norm_kind::none) out["k_norm"] = norm_json(spec.k_norm);
    if (spec.v_norm.kind != norm_kind::none) out["v_norm"] = norm_json(spec.v_norm);
    if (spec.value_scale != 1.0) out["value_scale"] = spec.value_scale;
    if (spec.kv_layer) out["kv_layer"] = *spec.kv_layer;
    if (spec.shares_latents) out["shares_latents"] = true;
    if (spec.value_is_key) out["value_is_key"] = true;
    if (spec.fused != qkv_order::in_turn) out["fused_qkv"] = to_string(spec.fused);
    for (std::size_t i = 0; i < tensor_role_count; ++i)
        if (const auto role = static_cast<tensor_role>(i); spec.transposed.contains(role))
            out["transposed"].push_back(to_string(role));
    for (std::size_t i = 0; i < tensor_role_count; ++i)
        if (const auto role = static_cast<tensor_role>(i); spec.biases.contains(role))
            out["biases"].push_back(to_string(role));
    // Blocks with entries rotate everything otherwise than those with a window alone.
    out[spec.compression.ratio != 0 ? "compressed_rope" : "rope"] = rope_json(spec);
    return out;
}

/// The model, its blocks once where they are alike; "layers" has a value of each block for what differs.
inline nlohmann::ordered_json config_json(const model_config& c) {
    // "attention" in the words of those who compare models: mla, gqa, or something of its own.
    const bool own = c.attention == attention_kind::compressed;
    nlohmann::ordered_json out = {{"attention", own ? std::string_view("other") : to_string(c.attention)},
                                  {"attention_kind", to_string(c.attention)},
                                  {"form", to_string(c.form)},
                                  {"hidden_size", c.hidden_size},
                                  {"num_hidden_layers", c.num_hidden_layers},
                                  {"rms_norm_eps", c.rms_norm_eps},
                                  {"attention_bias", c.attention_bias}};
    if (c.unused_sliding_window != 0) out["unused_sliding_window"] = c.unused_sliding_window;
    if (c.unused_chunk_size != 0) out["unused_attention_chunk_size"] = c.unused_chunk_size;
    if (c.block_begin != 0 || c.block_end != c.blocks.size()) out["blocks_held"] = {c.block_begin, c.block_end - 1};
    std::vector<nlohmann::ordered_json> blocks;
    std::map<std::string, std::size_t> stated;  // in how many blocks a key stands with the first block's value
    for (const attention_spec& spec : c.blocks) blocks.push_back(spec_json(spec));
    for (const nlohmann::ordered_json& block : blocks)
        for (const auto& [key, value] : block.items())
            stated[key] += blocks.front().contains(key) && blocks.front()[key] == value ? 1 : 0;
    if (blocks.empty()) return out;
    nlohmann::ordered_json layers = nlohmann::ordered_json::object();
    const auto in_order = [&](const attention_spec& spec) {
        return spec.layer == static_cast<std::size_t>(&spec - c.blocks.data());
    };
    if (!std::ranges::all_of(c.blocks, in_order))  // some layers have no block, or two
        for (const attention_spec& spec : c.blocks) layers["layer"].push_back(spec.layer);
    for (const auto& [key, count] : stated)
        if (count != blocks.size())
            for (const nlohmann::ordered_json& block : blocks)
                layers[key].push_back(block.contains(key) ? block[key] : nlohmann::ordered_json(nullptr));
    for (const auto& [key, value] : blocks.front().items())
        if (stated[key] == blocks.size()) out[key] = value;
    if (!layers.empty()) out["layers"] = std::move(layers);
    return out;
}

}  // namespace larql::program

#endif
