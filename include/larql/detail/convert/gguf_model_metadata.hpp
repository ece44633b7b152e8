// SPDX-License-Identifier: Apache-2.0
//
// The metadata of a GGUF model: the key rows walked towards GGUF, and what llama.cpp's converter says beyond them.
// Source: llama.cpp's conversion/base.py, conversion/bailingmoe3.py, conversion/deepseek.py,
// conversion/kimi_linear.py, conversion/llama.py.
#ifndef LARQL_DETAIL_CONVERT_GGUF_MODEL_METADATA_HPP
#define LARQL_DETAIL_CONVERT_GGUF_MODEL_METADATA_HPP

#include <larql/attention_spec.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/convert/conversion_row.hpp>
#include <larql/detail/convert/gguf_carried_values.hpp>
#include <larql/detail/convert/gguf_experts.hpp>
#include <larql/detail/convert/gguf_sizes.hpp>
#include <larql/detail/convert/gguf_tokenizer.hpp>
#include <larql/detail/convert/number_formats.hpp>
#include <larql/detail/convert/read_back.hpp>
#include <larql/detail/gguf/metadata.hpp>
#include <larql/detail/model/json_value.hpp>
#include <larql/detail/model/json_wrapper.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/error.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace larql::detail {

/// The base of rotation where no key states it (llama.cpp's src/llama-model.cpp).
inline constexpr double unstated_theta = 10000.0;

/// Fills the metadata of a published GGUF.
class gguf_model_metadata {
public:
    gguf_model_metadata(const checkpoint& source, const conversion_scope& scope, std::span<const conversion_row> rows)
        : m_source(source),
          m_scope(scope),
          m_rows(rows),
          m_family(source.family()),
          m_rule(m_family.gguf_output),
          m_values(source.stated_values()),
          m_spec(source.spec(0)),
          m_prefix(std::string(m_family.gguf_architecture) + ".") {}

    [[nodiscard]] gguf_metadata make() {
        if (m_source.has_gguf_names())
            take_over();
        else
            state_model();
        if (m_spec.kind == attention_kind::mla) state_latent_sizes();
        return std::move(m_out);
    }
    /// What the file will not have, a sentence each; after `make`.
    [[nodiscard]] const std::vector<std::string>& warnings() const noexcept { return m_warnings; }

private:
    // --- from GGUF: what the dialect and the types change ---

    void take_over() {
        const gguf_file& file = *m_source.gguf();
        for (const std::string_view key : file.keys())
            if (!key.starts_with("split.")) m_out.set(key, *file.find_value(key));
        if (m_scope.general || m_scope.attention) m_out.set("general.file_type", file_type_of(m_rows));
        // Files of the older dialect leave out what the newer states; its absence meant this.
        const bool newer = m_scope.split_kv_b && m_spec.kind == attention_kind::mla;
        if (!newer) return;
        if (m_spec.rope.kind == rope_kind::yarn) {
            add("rope.scaling.yarn_beta_fast", static_cast<float>(m_spec.rope.beta_fast));
            add("rope.scaling.yarn_beta_slow", static_cast<float>(m_spec.rope.beta_slow));
        }
        const bool groups =
            std::ranges::find(m_rule.unstated, model_key::n_group, &key_default::key) == m_rule.unstated.end();
        if (m_values.top.size(model_key::n_routed_experts) == 0 || !groups) return;
        add("expert_group_count", std::uint32_t{1});
        add("expert_group_used_count", std::uint32_t{1});
    }
    template <class T>
    void add(const char* key, const T& value) {
        if (!m_out.contains(m_prefix + key)) m_out.set(m_prefix + key, value);
    }
    template <class T>
    void set(std::string_view key, const T& value) {
        m_out.set(m_prefix + std::string(key), value);
    }

    // --- from transformers ---

    void state_model() {
        require_expressible();
        m_out.set("general.architecture", m_family.gguf_architecture);
        m_out.set("general.type", "model");
        m_out.set("general.name", name());
        m_out.set("general.size_label", size_label(m_rows));
        for (const key_row& row : top_keys)
            if (m_rule.keys.empty() || std::ranges::find(m_rule.keys, row.key) != m_rule.keys.end()) state(row);
        state_predicting();
        state_heads();
        state_rope();
        state_temperature();
        state_indexer();
        gguf_experts(m_source, m_rows, m_out).state();
        gguf_carried_values(m_source, m_values.top, written_blocks(), m_out).state();
        for (const fixed_number& fixed : m_rule.stated) set(fixed.name, static_cast<float>(fixed.value));
        m_out.set("general.file_type", file_type_of(m_rows));
        m_out.set("general.quantization_version", std::uint32_t{2});
        if (const std::string files = add_tokenizer(m_source, m_out); !files.empty())
            m_warnings.push_back("left out: the tokenizer (" + files + "), in a format that larql does not read");
    }

    /// The name of the model's folder.
    [[nodiscard]] std::string name() const {
        std::error_code ignored;
        std::filesystem::path path = std::filesystem::absolute(path_from_text(m_source.shard_path(0)), ignored);
        path = path.parent_path();
        const std::string folder = path_text(path.filename());
        return folder.empty() ? std::string(m_family.name) : folder;
    }

    void require_expressible() const {
        const auto refuse = [&](const std::string& what, std::string subject = {}) {
            fail(errc::unsupported_architecture, "GGUF's \"" + std::string(m_family.gguf_architecture) + "\" " + what,
                 {.file = m_source.shard_path(0), .subject = std::move(subject)});
        };
        if (m_spec.kind == attention_kind::mla && m_spec.geometry.pairing != m_family.pairing)
            refuse("rotates neighbouring rows, and these are paired otherwise", "rope_interleave");
        const std::string act =
            m_values.top.find<std::string>(model_key::hidden_act).value_or(std::string(m_rule.activation));
        if (act != m_rule.activation)
            refuse("has no activation but " + std::string(m_rule.activation) + ", got \"" + act + "\"", "hidden_act");
        if (m_rule.constants.empty()) return;
        const nlohmann::json config = m_source.config_json();
        const nlohmann::json& text = *find_text_part(config).object;
        for (const fixed_number& constant : m_rule.constants) {
            const auto stated = text.find(constant.name);
            if (stated == text.end() || (stated->is_number() && nearly(stated->get<double>(), constant.value)) ||
                (stated->is_boolean() && stated->get<bool>() == (constant.value != 0.0)))
                continue;
            refuse(
                "has no word for it, and its programs know " + shown(constant.value) + " alone, got " + stated->dump(),
                std::string(constant.name));
        }
    }

    void state(const key_row& row) {
        // Sizes of heads, latents and indexers, and predicting blocks are stated apart; of flags GGUF has those that
        // are true.
        constexpr std::array apart{
            model_key::head_dim,       model_key::num_key_value_heads, model_key::num_nextn_predict_layers,
            model_key::sliding_window, model_key::index_topk,          model_key::index_n_heads,
            model_key::index_head_dim, model_key::index_kpool,         model_key::index_kpool_always_select_tail};
        if (row.gguf.front().empty() || std::ranges::find(apart, row.key) != apart.end() || is_unstated(row)) return;
        const config_value* value = m_values.top.value(row.key);
        const auto absent = m_family.default_of(row.key);
        switch (row.type) {
            case value_type::integer: {
                auto size = m_values.top.find<std::uint64_t>(row.key);
                if (value == nullptr && absent) size = static_cast<std::uint64_t>(*absent);
                if (size) set(row.gguf.front(), static_cast<std::uint32_t>(*size));
                return;
            }
            case value_type::number: {
                if (row.key == model_key::rope_theta && value == nullptr && m_family.pairing == rope_pairing::none)
                    return;  // nothing rotates
                auto number = value != nullptr ? m_values.top.find<double>(row.key) : absent;
                if (!number && row.key == model_key::rms_norm_eps) number = m_source.config().rms_norm_eps;
                if (!number && row.key == model_key::rope_theta) number = m_spec.rope.theta;
                if (number) set(row.gguf.front(), static_cast<float>(*number));
                return;
            }
            case value_type::flag:
                if (m_values.flag_or_default(row.key)) set(row.gguf.front(), true);
                return;
            default: return;
        }
    }

    /// Whether a key has the value that the architecture's programs take for an absent one.
    [[nodiscard]] bool is_unstated(const key_row& row) const {
        const auto value = std::ranges::find(m_rule.unstated, row.key, &key_default::key);
        if (value == m_rule.unstated.end()) return false;
        const double stated = row.type == value_type::flag ? (m_values.flag_or_default(row.key) ? 1.0 : 0.0)
                                                           : static_cast<double>(m_values.top.size(row.key));
        return stated == value->value;
    }

    /// Blocks of the file: with those that predict further tokens, where it has them.
    [[nodiscard]] std::size_t written_blocks() const {
        const model_config& config = m_source.config();
        return config.num_hidden_layers + (m_rule.keeps_predicting ? config.num_nextn_predict_layers : 0);
    }

    /// Blocks that predict further tokens follow those of the model, and count among them.
    void state_predicting() {
        const std::size_t predicting = m_source.config().num_nextn_predict_layers;
        if (!m_rule.keeps_predicting || predicting == 0) return;
        set("block_count", static_cast<std::uint32_t>(written_blocks()));
        set("nextn_predict_layers", static_cast<std::uint32_t>(predicting));
    }

    void state_indexer() {
        const auto number = [](std::size_t n) { return static_cast<std::uint32_t>(n); };
        const indexer_spec& indexer = m_spec.indexer;
        if (m_family.indexer.blocks == indexer_blocks::none || indexer.top_k == 0) return;
        set("attention.indexer.head_count", number(indexer.heads));
        set("attention.indexer.key_length", number(indexer.head_dim));
        set("attention.indexer.top_k", number(indexer.top_k));
        if (m_family.indexer.blocks != indexer_blocks::indexer_types) return;
        // Of layers without such attention: what the configuration says, or that they share nothing.
        const auto stated = m_values.top.find<std::vector<std::string>>(model_key::indexer_types);
        std::vector<bool> own(m_source.config().num_hidden_layers, true);
        for (std::size_t layer = 0; stated && layer < std::min(own.size(), stated->size()); ++layer)
            own[layer] = (*stated)[layer] == "full";
        for (const attention_spec& block : m_source.config().blocks) own[block.layer] = block.indexer.own();
        set("attention.indexer.types", own);
        if (!reads_indexer_pool(m_family)) return;
        set("attention.indexer.kpool", number(indexer.pool));
        set("attention.indexer.kpool_select_tail", true);
    }

    void state_heads() {
        const mla_geometry& g = m_spec.geometry;
        if (m_spec.kind == attention_kind::mla) return;
        set("attention.head_count_kv", static_cast<std::uint32_t>(g.kv_heads()));
        if (m_values.top.stated(model_key::head_dim)) {
            set("attention.key_length", static_cast<std::uint32_t>(g.qk_head_dim()));
            set("attention.value_length", static_cast<std::uint32_t>(g.v_head_dim));
        }
        set("rope.dimension_count", static_cast<std::uint32_t>(g.qk_rope_head_dim));
    }

    void state_rope() {
        const rope_config& rope = m_spec.rope;
        const auto refuse = [&](const std::string& what) {
            fail(errc::unsupported_architecture, "GGUF has no words for " + what,
                 {.file = m_source.shard_path(0), .subject = "rope_scaling"});
        };
        if (!m_rule.keys.empty() && rope.theta != unstated_theta) set("rope.freq_base", static_cast<float>(rope.theta));
        const key_values none, &stated = m_values.ropes.empty() ? none : m_values.ropes.front().keys;
        switch (rope.kind) {
            case rope_kind::standard:
            case rope_kind::llama3: return;  // llama3: as the tensor rope_freqs
            case rope_kind::linear:
                set("rope.scaling.type", "linear");
                set("rope.scaling.factor", static_cast<float>(rope.factor));
                return;
            case rope_kind::yarn: break;
            case rope_kind::longrope:
                if (m_rule.rope_factors) return;  // as tensors, too
                [[fallthrough]];
            default: refuse("rope type \"" + std::string(to_string(rope.kind)) + "\" here");
        }
        if (!rope.truncate) refuse("YaRN's truncate: false");
        // mscale and mscale_all_dim are one number there, so that cosines keep their length.
        if (rope.attention_factor && !(rope.mscale_all_dim && *rope.attention_factor == 1.0))
            refuse("YaRN's attention_factor");
        if (rope.mscale_all_dim && rope.mscale.value_or(1.0) != *rope.mscale_all_dim)
            refuse("an mscale that is not mscale_all_dim");
        set("rope.scaling.type", "yarn");
        set("rope.scaling.factor", static_cast<float>(rope.factor));
        set("rope.scaling.original_context_length", static_cast<std::uint32_t>(rope.original_max_position));
        if (stated.stated(model_key::rope_beta_fast))
            set("rope.scaling.yarn_beta_fast", static_cast<float>(rope.beta_fast));
        if (stated.stated(model_key::rope_beta_slow))
            set("rope.scaling.yarn_beta_slow", static_cast<float>(rope.beta_slow));
        if (rope.mscale_all_dim && m_family.gguf_log_multiplier != 0.0)
            set("rope.scaling.yarn_log_multiplier",
                static_cast<float>(m_family.gguf_log_multiplier * *rope.mscale_all_dim));
    }

    /// The queries' temperature, which llama.cpp's converter leaves out where its programs read it all the same.
    void state_temperature() {
        const auto& t = m_spec.temperature;
        if (t.scale == 0.0 || !m_family.gguf_temperature) return;
        set("attention.temperature_scale", static_cast<float>(t.scale));
        set("attention.temperature_length", static_cast<std::uint32_t>(t.length));
    }

    /// The two dialects of latent attention: one key/value head of the latent's width with k_b and v_b, H heads with
    /// kv_b.
    void state_latent_sizes() {
        const mla_geometry& g = m_spec.geometry;
        const auto number = [](std::size_t n) { return static_cast<std::uint32_t>(n); };
        const std::uint32_t key = number(g.qk_head_dim()), value = number(g.v_head_dim);
        if (m_spec.geometry.q_lora_rank != 0) set("attention.q_lora_rank", number(g.q_lora_rank));
        set("attention.kv_lora_rank", number(g.kv_lora_rank));
        set("rope.dimension_count", number(g.qk_rope_head_dim));
        state_kv_heads(m_scope.split_kv_b ? 1U : number(g.kv_heads()));
        set("attention.key_length", m_scope.split_kv_b ? number(g.kv_lora_rank + g.qk_rope_head_dim) : key);
        const bool implied = !m_rule.keys.empty() && value * g.num_heads == g.hidden_size;
        if (!implied && !m_rule.head_dim_as_value_length)
            set("attention.value_length", m_scope.split_kv_b ? number(g.kv_lora_rank) : value);
        else if (!implied && m_values.top.stated(model_key::head_dim))
            set("attention.value_length", number(m_values.top.size(model_key::head_dim)));
        for (const auto& [name, size] :
             {std::pair{"attention.key_length_mla", key}, std::pair{"attention.value_length_mla", value}}) {
            if (m_scope.split_kv_b || m_rule.sizes_in_both_dialects)
                set(name, size);
            else
                m_out.remove(m_prefix + name);
        }
    }

    /// Key/value heads of each block: a number, or one for each layer, of which those without attention have none.
    void state_kv_heads(std::uint32_t heads) {
        if (!m_family.linear_layers) return set("attention.head_count_kv", heads);
        std::vector<std::int32_t> of_layers(written_blocks(), static_cast<std::int32_t>(heads));
        std::fill_n(of_layers.begin(), m_source.config().num_hidden_layers, 0);
        for (const attention_spec& block : m_source.config().blocks)
            of_layers[block.layer] = static_cast<std::int32_t>(heads);
        set("attention.head_count_kv", of_layers);
    }

    const checkpoint& m_source;
    const conversion_scope& m_scope;
    std::span<const conversion_row> m_rows;
    const model_family& m_family;
    const gguf_output_rule& m_rule;
    const model_values& m_values;
    const attention_spec& m_spec;
    std::string m_prefix;
    gguf_metadata m_out;
    std::vector<std::string> m_warnings;
};

}  // namespace larql::detail

#endif
