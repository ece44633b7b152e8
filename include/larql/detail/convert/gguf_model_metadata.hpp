// SPDX-License-Identifier: Apache-2.0
//
// The metadata of a GGUF model: the key rows walked towards GGUF, and what llama.cpp's converter says beyond them.
// Source: llama.cpp's conversion/base.py, conversion/deepseek.py, conversion/llama.py.
#ifndef LARQL_DETAIL_CONVERT_GGUF_MODEL_METADATA_HPP
#define LARQL_DETAIL_CONVERT_GGUF_MODEL_METADATA_HPP

#include <larql/attention_spec.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/convert/conversion_row.hpp>
#include <larql/detail/convert/gguf_tokenizer.hpp>
#include <larql/detail/convert/number_formats.hpp>
#include <larql/detail/convert/row_makers.hpp>
#include <larql/detail/gguf/metadata.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/error.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <numbers>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace larql::detail {

/// llama.cpp's number of a file's type (enum llama_ftype), from what most of its bytes are.
inline std::uint32_t file_type_of(std::span<const conversion_row> rows) {
    std::map<dtype, std::uint64_t> bytes;
    for (const conversion_row& row : rows)
        for (const planned_tensor& tensor : row.tensors)
            if (tensor.shape.size() > 1) bytes[tensor.type] += tensor.size_bytes();
    dtype most = dtype::f32;
    for (const auto& [type, size] : bytes)
        if (size > bytes[most]) most = type;
    switch (most) {
        case dtype::f16: return 1;
        case dtype::q4_0: return 2;
        case dtype::q4_1: return 3;
        case dtype::q8_0: return 7;
        case dtype::q5_0: return 8;
        case dtype::q5_1: return 9;
        case dtype::q2_k: return 10;
        case dtype::q3_k: return 12;
        case dtype::q4_k: return 15;
        case dtype::q5_k: return 17;
        case dtype::q6_k: return 18;
        case dtype::iq4_nl: return 25;
        case dtype::iq4_xs: return 30;
        case dtype::bf16: return 32;
        case dtype::mxfp4: return 38;
        default: return 0;
    }
}

/// "4x90K": experts and parameters, as gguf-py's size_label gives them.
inline std::string size_label(std::span<const conversion_row> rows) {
    double shared = 0.0, of_an_expert = 0.0, experts = 0.0, tensors = 0.0;
    for (const conversion_row& row : rows)
        for (const planned_tensor& tensor : row.tensors) {
            double count = 1.0;
            for (const std::uint64_t extent : tensor.shape) count *= static_cast<double>(extent);
            if (tensor.name.find("_exps.") == std::string::npos || tensor.shape.size() < 3) {
                shared += count;
                continue;
            }
            const auto here = static_cast<double>(tensor.shape.front());
            of_an_expert += std::floor(count / here);
            experts += here;
            tensors += 1.0;
        }
    double parameters = shared + of_an_expert;
    const char* suffix = "K";
    double unit = 1e3;
    for (const auto& [more, name] : {std::pair{1e6, "M"}, std::pair{1e9, "B"}, std::pair{1e12, "T"}})
        if (parameters > more) unit = more, suffix = name;
    parameters /= unit;
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), "%.0f", parameters);
    const std::size_t digits = std::string_view(text.data()) == "0" ? 0 : std::string_view(text.data()).size();
    std::snprintf(text.data(), text.size(), "%.*f%s", digits < 2 ? static_cast<int>(2 - digits) : 0, parameters,
                  suffix);
    if (tensors == 0.0) return text.data();
    return std::to_string(static_cast<std::uint64_t>(experts / tensors)) + "x" + text.data();
}

/// Fills the metadata of a published GGUF.
class gguf_model_metadata {
public:
    gguf_model_metadata(const checkpoint& source, const conversion_scope& scope, std::span<const conversion_row> rows)
        : m_source(source),
          m_scope(scope),
          m_rows(rows),
          m_family(source.family()),
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
        if (m_values.top.size(model_key::n_routed_experts) == 0) return;
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
        for (const key_row& row : top_keys) state(row);
        state_heads();
        state_rope();
        state_experts();
        m_out.set("general.file_type", file_type_of(m_rows));
        m_out.set("general.quantization_version", std::uint32_t{2});
        add_tokenizer(m_source, m_out);
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
        const bool latent = m_family.gguf_architecture == "deepseek2" || m_family.gguf_architecture == "deepseek32";
        if (!latent && m_family.name != "llama")
            fail(errc::unsupported_architecture, "larql does not write GGUF of \"" + std::string(m_family.name) + "\"",
                 {.file = m_source.shard_path(0)});
        if (latent && m_spec.geometry.pairing != m_family.pairing)
            refuse("rotates neighbouring rows, and these are paired otherwise", "rope_interleave");
        const std::string act = m_values.top.find<std::string>(model_key::hidden_act).value_or("silu");
        if (act != "silu") refuse("has no activation but silu, got \"" + act + "\"", "hidden_act");
    }

    void state(const key_row& row) {
        // Sizes of heads, latents and predicting blocks are stated apart; of flags GGUF has those that are true.
        constexpr std::array apart{model_key::head_dim, model_key::num_key_value_heads,
                                   model_key::num_nextn_predict_layers, model_key::sliding_window};
        if (row.gguf.front().empty() || std::ranges::find(apart, row.key) != apart.end()) return;
        const config_value* value = m_values.top.value(row.key);
        const auto absent = m_family.default_of(row.key);
        switch (row.type) {
            case value_type::integer: {
                const std::size_t size =
                    value != nullptr ? m_values.top.size(row.key) : static_cast<std::size_t>(absent.value_or(0.0));
                if (value != nullptr || absent) set(row.gguf.front(), static_cast<std::uint32_t>(size));
                return;
            }
            case value_type::number: {
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
        const key_values none, &stated = m_values.ropes.empty() ? none : m_values.ropes.front().keys;
        switch (rope.kind) {
            case rope_kind::standard:
            case rope_kind::llama3: return;  // llama3: as the tensor rope_freqs
            case rope_kind::linear:
                set("rope.scaling.type", "linear");
                set("rope.scaling.factor", static_cast<float>(rope.factor));
                return;
            case rope_kind::yarn: break;
            default: refuse("rope type \"" + std::string(to_string(rope.kind)) + "\" here");
        }
        if (!rope.truncate) refuse("YaRN's truncate: false");
        if (rope.attention_factor) refuse("YaRN's attention_factor");
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

    void state_experts() {
        if (m_values.top.size(model_key::n_routed_experts) == 0) return;
        const auto scores = [](const conversion_row& row) {
            return row.tensors.front().name.find("ffn_gate_inp.") != std::string::npos;
        };
        if (std::ranges::none_of(m_rows, scores)) return;  // keys of another model's experts
        std::string missing;
        for (const model_key key :
             {model_key::num_experts_per_tok, model_key::moe_intermediate_size, model_key::first_k_dense_replace,
              model_key::n_shared_experts, model_key::routed_scaling_factor, model_key::norm_topk_prob})
            if (!m_values.top.stated(key) && !m_family.default_of(key))
                missing += (missing.empty() ? "" : ", ") +
                           std::string(std::ranges::find(top_keys, key, &key_row::key)->hf.front());
        if (!missing.empty())
            fail(errc::missing_key, "required to describe the experts, and absent",
                 {.file = m_source.shard_path(0), .subject = missing});
        const std::string scoring =
            m_values.top.find<std::string>(model_key::scoring_func).value_or(std::string(m_family.routing));
        if (scoring.empty())
            fail(errc::missing_key, "required to describe the experts, and absent",
                 {.file = m_source.shard_path(0), .subject = "scoring_func"});
        if (scoring != "sigmoid" && scoring != "softmax")
            fail(errc::unsupported_architecture, "GGUF has no scoring of experts by \"" + scoring + "\" here",
                 {.file = m_source.shard_path(0), .subject = "scoring_func"});
        set("expert_gating_func", std::uint32_t{scoring == "sigmoid" ? 2U : 1U});
    }

    /// The two dialects of deepseek2: one key/value head of the latent's width with k_b and v_b, H heads with kv_b.
    void state_latent_sizes() {
        const mla_geometry& g = m_spec.geometry;
        const auto number = [](std::size_t n) { return static_cast<std::uint32_t>(n); };
        const std::uint32_t key = number(g.qk_head_dim()), value = number(g.v_head_dim);
        if (m_spec.geometry.q_lora_rank != 0) set("attention.q_lora_rank", number(g.q_lora_rank));
        set("attention.kv_lora_rank", number(g.kv_lora_rank));
        set("rope.dimension_count", number(g.qk_rope_head_dim));
        set("attention.head_count_kv", m_scope.split_kv_b ? 1U : number(g.kv_heads()));
        set("attention.key_length", m_scope.split_kv_b ? number(g.kv_lora_rank + g.qk_rope_head_dim) : key);
        set("attention.value_length", m_scope.split_kv_b ? number(g.kv_lora_rank) : value);
        for (const auto& [name, size] :
             {std::pair{"attention.key_length_mla", key}, std::pair{"attention.value_length_mla", value}}) {
            if (m_scope.split_kv_b)
                set(name, size);
            else
                m_out.remove(m_prefix + name);
        }
    }

    const checkpoint& m_source;
    const conversion_scope& m_scope;
    std::span<const conversion_row> m_rows;
    const model_family& m_family;
    const model_values& m_values;
    const attention_spec& m_spec;
    std::string m_prefix;
    gguf_metadata m_out;
};

/// The divisors of Llama 3's scaling as llama.cpp's converter computes them, or nothing: in float32, in which torch
/// divides a number by a tensor's element as the number times the element's reciprocal.
inline std::optional<conversion_row> rope_freqs_row(const checkpoint& source) {
    const rope_config& rope = source.spec(0).rope;
    if (rope.kind != rope_kind::llama3 || source.has_gguf_names()) return std::nullopt;
    const auto factor = static_cast<float>(rope.factor);
    const double low = rope.original_max_position / rope.low_freq_factor;
    const double high = rope.original_max_position / rope.high_freq_factor;
    std::vector<float> divisors;
    for (std::size_t i = 0; i < rope.rotary_dim; i += 2) {
        const float exponent = static_cast<float>(i) / static_cast<float>(rope.rotary_dim);
        const float frequency = 1.0F / std::pow(static_cast<float>(rope.theta), exponent);
        const float wavelength = 1.0F / frequency * static_cast<float>(2.0 * std::numbers::pi);
        if (wavelength < static_cast<float>(high)) {
            divisors.push_back(1.0F);
        } else if (wavelength > static_cast<float>(low)) {
            divisors.push_back(factor);
        } else {
            const float smooth = (1.0F / wavelength * static_cast<float>(rope.original_max_position) -
                                  static_cast<float>(rope.low_freq_factor)) /
                                 static_cast<float>(rope.high_freq_factor - rope.low_freq_factor);
            divisors.push_back(1.0F / ((1.0F - smooth) / factor + smooth));
        }
    }
    const std::uint64_t count = divisors.size();
    return small_row("rope_freqs.weight", dtype::f32, {count}, std::move(divisors));
}

}  // namespace larql::detail

#endif
