// SPDX-License-Identifier: Apache-2.0
//
// The original larql's weight layout, version 2: binary files by purpose, without headers, a manifest and an
// index.json.
//
// It has no field for latent attention: what a layer needs beyond Q, K, V and O stands in entries of the manifest that
// other readers do not look at, and the whole configuration in `larql_config`.
#ifndef LARQL_DETAIL_CONVERT_LAYOUT_VINDEX_HPP
#define LARQL_DETAIL_CONVERT_LAYOUT_VINDEX_HPP

#include <larql/attention_spec.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/convert/conversion_row.hpp>
#include <larql/detail/convert/layout.hpp>
#include <larql/detail/convert/number_formats.hpp>
#include <larql/detail/model/names.hpp>
#include <larql/detail/vindex/names.hpp>
#include <larql/error.hpp>
#include <larql/tensor_role.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// Lays out a vindex folder.
class vindex_builder {
public:
    vindex_builder(const checkpoint& source, const conversion_scope& scope, std::span<const conversion_row> rows,
                   const nlohmann::json& config)
        : m_source(source),
          m_scope(scope),
          m_rows(rows),
          m_config(config),
          m_matcher(source.family().names, naming::safetensors),
          m_prefix(source.has_gguf_names() ? "model." : source.name_prefix()) {}

    [[nodiscard]] conversion_layout build(std::vector<std::string>& warnings) {
        std::map<std::string, std::vector<shard_cutter::member>> files;
        for (std::size_t r = 0; r < m_rows.size(); ++r)
            for (std::size_t t = 0; t < m_rows[r].tensors.size(); ++t)
                files[file_of(m_rows[r].tensors[t].name)].emplace_back(r, t);
        conversion_layout layout;
        for (auto& [name, members] : files) {
            std::ranges::stable_sort(members, {}, [&](const shard_cutter::member& m) {
                return place_of(m_rows[m.first].tensors[m.second].name);
            });
            file_builder file(m_rows, members);
            if (name != vindex_gates) sort_for_safetensors(file.tensors());  // no padding: wide elements lie aligned
            file.place(1);
            layout.files.push_back(file.finish(name, ""));
        }
        note_places(m_rows, layout);
        layout.texts.push_back({"weight_manifest.json", manifest(layout).dump(2) + "\n"});
        planned_text index{"index.json", "", {}};
        index.content = description(layout).dump(2) + "\n";
        index.add_hashes =
            [content = nlohmann::json::parse(index.content)](const std::map<std::string, std::string>& hashes) {
                nlohmann::json with = content;
                for (const auto& [file, hash] : hashes) with["checksums"][file] = hash;
                return with.dump(2) + "\n";
            };
        layout.texts.push_back(std::move(index));
        if (m_source.config().attention == attention_kind::mla)
            warnings.emplace_back(
                "vindex version 2 has no fields for latent attention: its norms, ranks and head sizes stand in extra "
                "entries, without which the attention is wrong; programs other than larql do not read them");
        return layout;
    }

private:
    /// A name in the manifest: without the model's prefix.
    [[nodiscard]] std::string key_of(std::string_view name) const {
        if (!m_prefix.empty() && name.starts_with(m_prefix)) name.remove_prefix(m_prefix.size());
        return std::string(name);
    }
    [[nodiscard]] std::optional<tensor_identity> identity(std::string_view name) const {
        const auto matched = m_matcher.match(name);
        return matched ? std::optional(matched->identity) : std::nullopt;
    }

    [[nodiscard]] std::string file_of(std::string_view name) const {
        using enum tensor_role;
        const auto what = identity(name);
        if (!what) return "model_weights.bin";
        if (is_attention_role(what->role)) return "attn_weights.bin";
        switch (what->role) {
            case embedding: return what->bias ? "model_weights.bin" : std::string(vindex_embeddings);
            case output: return "lm_head.bin";
            case input_norm:
            case ffn_norm:
            case output_norm: return "norms.bin";
            case ffn_gate:
            case expert_gate: return what->bias ? "model_weights.bin" : std::string(vindex_gates);
            case ffn_up:
            case expert_up:
            case router:
            case router_bias:
            case shared_expert_gate:
            case shared_expert_up: return "up_weights.bin";
            case ffn_down:
            case expert_down:
            case shared_expert_down: return "down_weights.bin";
            default: return "model_weights.bin";
        }
    }

    /// Where a tensor stands within its file: by layer, q, k, v and o before all else, experts by number, the last norm
    /// last.
    [[nodiscard]] std::pair<std::uint64_t, std::uint64_t> place_of(std::string_view name) const {
        using enum tensor_role;
        const auto what = identity(name);
        if (!what) return {0, 0};
        constexpr std::uint64_t last = std::uint64_t{1} << 40;
        if (what->role == output_norm) return {last, 0};
        constexpr tensor_role first[] = {q, k, v, o};
        const auto rank = static_cast<std::uint64_t>(std::ranges::find(first, what->role) - std::begin(first));
        const bool router_like = what->role == router || what->role == router_bias;
        return {what->layer, (router_like ? last : rank * 4096) + what->expert};
    }

    [[nodiscard]] static bool is_listed(const planned_file& file) {
        return file.name != vindex_embeddings && file.name != vindex_gates;
    }

    [[nodiscard]] nlohmann::json entries(const planned_file& file) const {
        nlohmann::json list = nlohmann::json::array();
        for (const tensor_info& info : file.tensors) {
            list.push_back({{"key", key_of(info.name)},
                            {"kind", info.shape.size() < 2 ? "vector" : "tensor"},
                            {"shape", info.shape},
                            {"offset", info.offset},
                            {"length", info.size_bytes},
                            {"file", file.name}});
            if (m_prefix + key_of(info.name) != info.name) list.back()["larql_name"] = info.name;  // beside the prefix
        }
        return list;
    }

    [[nodiscard]] nlohmann::json manifest(const conversion_layout& layout) const {
        nlohmann::json all = nlohmann::json::array();
        for (const planned_file& file : layout.files)
            if (is_listed(file))
                for (nlohmann::json& entry : entries(file)) all.push_back(std::move(entry));
        return all;
    }

    [[nodiscard]] nlohmann::json description(const conversion_layout& layout) const {
        const nlohmann::json& config = m_config;
        const model_config& model = m_source.config();
        const attention_spec& spec = m_source.spec(m_scope.block_begin);
        const mla_geometry& g = spec.geometry;
        dtype type = dtype::f32;
        nlohmann::json gates = nlohmann::json::array(), unlisted = nlohmann::json::array();
        for (const planned_file& file : layout.files) {
            if (!is_listed(file))
                for (nlohmann::json& entry : entries(file)) unlisted.push_back(std::move(entry));
            if (file.name == vindex_gates) gates = gates_of(file, type);
        }
        nlohmann::json index = {
            {"version", 2},
            {"model", model.model_type},
            {"family", model.family},
            {"num_layers", model.num_hidden_layers},
            {"hidden_size", model.hidden_size},
            {"intermediate_size", config.value("intermediate_size", 0)},
            {"vocab_size", model.vocab_size},
            {"embed_scale", 1.0},
            {"layers", gates},
            {"down_top_k", 0},
            {"extract_level", "all"},
            {"dtype", type == dtype::f16 ? "f16" : "f32"},
            {"quant", "none"},
            {"has_model_weights", true},
            {"model_config",
             {{"model_type", model.model_type},
              {"head_dim", g.qk_head_dim()},
              {"num_q_heads", g.num_heads},
              {"num_kv_heads", g.kv_heads()},
              {"rope_base", spec.rope.theta}}},
            {"larql_config", config},
            {"larql_prefix", m_prefix},
            {"larql_tensors", unlisted},
        };
        if (spec.sliding_window != 0) index["model_config"]["sliding_window"] = spec.sliding_window;
        return index;
    }

    /// Of each layer, where its gates lie, one after the other.
    [[nodiscard]] nlohmann::json gates_of(const planned_file& file, dtype& type) const {
        std::map<std::size_t, nlohmann::json> layers;
        for (const tensor_info& info : file.tensors) {
            if (&info == &file.tensors.front()) type = info.type;
            if (info.type != type)
                fail(errc::unsupported_dtype, "vindex has one type for all gates, and they have several: state --dtype",
                     {.subject = std::string(info.name)});
            const tensor_identity what = *identity(info.name);
            const bool one_of_experts = what.role == tensor_role::expert_gate;
            const auto [layer, added] = layers.try_emplace(
                what.layer,
                nlohmann::json{{"layer", what.layer}, {"num_features", 0}, {"offset", info.offset}, {"length", 0}});
            nlohmann::json& entry = layer->second;
            const std::uint64_t features = info.rows();
            entry["num_features"] = entry["num_features"].get<std::uint64_t>() + features;
            entry["length"] = entry["length"].get<std::uint64_t>() + info.size_bytes;
            if (!one_of_experts) continue;
            entry["num_experts"] =
                entry.value("num_experts", std::uint64_t{0}) + (info.shape.size() > 2 ? info.shape.front() : 1);
            entry["num_features_per_expert"] = info.shape.size() > 2 ? info.shape[1] : features;
        }
        nlohmann::json list = nlohmann::json::array();
        for (auto& [number, entry] : layers) list.push_back(std::move(entry));
        return list;
    }

    const checkpoint& m_source;
    const conversion_scope& m_scope;
    std::span<const conversion_row> m_rows;
    const nlohmann::json& m_config;
    name_matcher m_matcher;
    std::string m_prefix;
};

}  // namespace larql::detail

#endif
