// SPDX-License-Identifier: Apache-2.0
//
// From what a configuration states and what its family is to what each block computes. All rules are here and in the
// family's row; nothing else knows families.
#ifndef LARQL_DETAIL_MODEL_RESOLVE_HPP
#define LARQL_DETAIL_MODEL_RESOLVE_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/model/compression.hpp>
#include <larql/detail/model/indexers.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/layers.hpp>
#include <larql/detail/model/ropes.hpp>
#include <larql/detail/model/scales.hpp>
#include <larql/detail/model/shared_keys.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/rope.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace larql::detail {

/// Turns stated values into specs, collecting every problem.
class spec_resolver {
public:
    spec_resolver(const model_values& values, config_problems& problems, std::vector<std::string>& not_understood)
        : m_values(values),
          m_family(*values.family),
          m_problems(problems),
          m_not_understood(not_understood),
          m_ropes(values, problems, not_understood),
          m_scales(values, problems, not_understood) {}

    /// The specs of all blocks.
    [[nodiscard]] std::vector<attention_spec> blocks() {
        const attention_spec base = common();
        if (compressed()) return compressed_blocks(base);
        const std::vector<layer_plan> plans = planner().plans();
        std::vector<attention_spec> all;
        std::vector<std::string> types;
        for (const layer_plan& plan : plans) {
            types.push_back(plan.type);
            if (plan.type == linear_layer) continue;
            attention_spec spec = spec_of(plan, types.size() - 1, base);
            spec.layer = types.size() - 1;
            spec.sliding_window = plan.window;
            spec.chunk = plan.chunk;
            if (m_family.window_sinks) spec.sinks = plan.window != 0;
            if (plan.type == full_layer) widen(spec);
            require_groups(spec.geometry, top(), m_problems);
            if (m_ropes.differ()) {
                m_ropes.set(spec, plan.type);
                if (m_family.scale == scale_rule::yarn_mscale) m_scales.set(spec);
            }
            if (plan.theta) spec.rope.theta = *plan.theta;
            if (!plan.rotates) stop_rotation(spec);
            if (plan.rotates && m_family.temperature_unrotated) spec.temperature = {};
            for (spec.part = 0; spec.part < m_family.attentions_per_layer; ++spec.part) all.push_back(spec);
        }
        if (all.empty() && !plans.empty())
            m_problems.add(errc::unsupported_architecture, "configuration", "no layer has attention");
        share_keys(m_values, types, all, m_problems);
        share_latents(m_values, m_layers, all, m_problems);
        if (reads_indexer(m_family))
            indexer_resolver(m_values, m_problems, m_not_understood)
                .set(all, m_layers, types, with_eps(m_family.indexer.k_norm), with_eps(m_family.indexer.q_norm));
        return all;
    }

    /// Decoder layers.
    std::size_t layers() {
        m_layers = top().size(model_key::num_layers);
        if (m_layers == 0) {
            m_layers = required(model_key::num_hidden_layers, "num_hidden_layers");
            if (m_layers % m_family.attentions_per_layer != 0)
                m_problems.add(errc::bad_value, top().name(model_key::num_hidden_layers),
                               concat({"counts attentions: expected a multiple of ", m_family.attentions_per_layer,
                                       ", got ", m_layers}));
            m_layers /= m_family.attentions_per_layer;
        }
        return m_layers;
    }

    /// A required size; its absence, or null, is a problem. That of a refused value has been reported.
    std::size_t required(model_key key, const char* name) {
        const std::size_t size = m_values.size_or_default(key);
        if (size == 0 && !top().find<std::uint64_t>(key) && !top().refused(key))
            m_problems.add(errc::missing_key, top().name(key, m_values.where + name),
                           top().stated(key) ? "required and null" : "required and absent");
        return size;
    }

    [[nodiscard]] double rms_norm_eps() {
        const auto stated = top().find<double>(model_key::rms_norm_eps);
        if (!stated && !m_family.default_rms_norm_eps && m_reported.insert("rms_norm_eps"))
            m_problems.add(errc::missing_key, m_values.where + "rms_norm_eps", "required and absent");
        return stated.value_or(m_family.default_rms_norm_eps.value_or(1e-6));
    }

private:
    [[nodiscard]] const key_values& top() const noexcept { return m_values.top; }
    [[nodiscard]] bool latent() const noexcept { return m_family.kind == attention_kind::mla; }
    [[nodiscard]] bool compressed() const noexcept { return m_family.kind == attention_kind::compressed; }

    /// What blocks of a layer have in common with all others, but for the keys that are stated for it alone.
    const attention_spec& spec_of(const layer_plan& plan, std::size_t layer, const attention_spec& base) {
        if (!m_values.by_layer) {
            if (m_family.window_keys.empty() || plan.type != sliding_layer) return base;
            if (!m_window) {
                m_window = spec_with(m_values.window);
                if (!m_values.window.stated(model_key::num_key_value_heads))
                    m_window->geometry.num_kv_heads *= m_family.window_groups;
            }
            return *m_window;
        }
        m_layer_specs.resize(m_values.layers.size());
        for (std::size_t i = 0; i < m_values.layers.size(); ++i) {
            if (std::ranges::find(m_values.layers[i].layers, layer) == m_values.layers[i].layers.end()) continue;
            if (!m_layer_specs[i]) m_layer_specs[i] = spec_with(m_values.layers[i].keys);
            return *m_layer_specs[i];
        }
        return base;
    }

    attention_spec spec_with(const key_values& keys) {
        model_values values = m_values;
        values.top.overlay(keys);
        return spec_resolver(values, m_problems, m_not_understood).common();
    }

    attention_spec common() {
        attention_spec spec;
        spec.kind = m_family.kind;
        read_sizes(spec.geometry);
        spec.geometry.pairing = pairing();
        if (m_family.input_widths > 1) spec.input_size = m_family.input_widths * spec.geometry.hidden_size;
        if (!m_ropes.differ() && !compressed()) m_ropes.set(spec, "");
        m_scales.set(spec);
        spec.alibi = m_family.alibi;
        if (m_family.lists(model_key::value_scale))
            spec.value_scale = m_values.number_or_default(model_key::value_scale).value_or(1.0);
        spec.clip = top().find<double>(model_key::clip_qkv).value_or(0.0);
        spec.fused = m_values.from_gguf ? qkv_order::in_turn : m_family.fused;
        if (!m_values.from_gguf) spec.transposed = m_family.transposed;
        spec.softcap = m_values.number_or_default(model_key::softcap).value_or(0.0);
        if (spec.softcap != 0.0 && spec.softcap < above_zero)
            m_problems.add(errc::bad_value, top().name(model_key::softcap), "is below the range of float");
        spec.sinks = m_family.sinks;
        spec.raw_query_latent = m_family.raw_query_latent;
        spec.gate = m_values.flag_or_default(model_key::mla_use_output_gate) ? m_family.gate_by_key : m_family.gate;
        spec.gated_by = m_family.gated_by;
        const bool normed = !m_family.lists(model_key::qk_norm) || m_values.flag_or_default(model_key::qk_norm);
        if (m_values.from_gguf && m_family.gguf_normed_experts != 0 && !top().stated(model_key::qk_norm))
            m_problems.add(errc::missing_key, m_values.where + "use_qk_norm",
                           concat({"GGUF has no place for it, and no published model has ",
                                   top().size(model_key::n_routed_experts),
                                   " experts: state it with --config (checkpoint::open's `config`)"}));
        if (normed) spec.q_norm = with_eps(m_family.q_norm);
        if (normed) spec.k_norm = with_eps(m_family.k_norm);
        spec.v_norm = with_eps(m_family.v_norm);
        const auto direction = top().find<std::string>(model_key::bidirectional_attention);
        if (direction && *direction != "vision")  // text sees what came before it
            m_not_understood.push_back(top().name(model_key::bidirectional_attention) + " is \"" + *direction + "\"");
        spec.latent_norm.kind = latent() || compressed() ? norm_kind::rms : norm_kind::none;
        spec.latent_norm.eps = m_family.latent_eps == 0.0 ? rms_norm_eps() : m_family.latent_eps;
        spec.k_rope_norm = with_eps(m_family.k_rope_norm);
        m_scales.set_latents(spec);
        set_temperature(spec);
        spec.biases = m_family.biases;
        if (m_values.flag_or_default(model_key::attention_bias)) spec.biases = spec.biases | m_family.biases_by_key;
        if (m_values.flag_or_default(model_key::attention_out_bias)) spec.biases.insert(tensor_role::o);
        if (spec.q_norm.kind != norm_kind::none) spec.biases = spec.biases | m_family.norm_biases;
        return spec;
    }

    /// A block that sees all keys, in families where it has heads of another size, and no values of its own (Gemma 4).
    void widen(attention_spec& spec) const {
        if (!m_family.lists(model_key::global_head_dim)) return;
        mla_geometry& g = spec.geometry;
        spec.value_is_key = m_values.flag_or_default(model_key::attention_k_eq_v);
        if (m_values.by_layer) return;  // per_layer_config has said the sizes
        if (const std::size_t dim = m_values.size_or_default(model_key::global_head_dim); dim != 0) {
            g.v_head_dim = g.qk_rope_head_dim = dim;
            g.qk_nope_head_dim = 0;
        }
        const std::size_t groups = top().size(model_key::num_global_key_value_heads);
        if (spec.value_is_key && groups != 0) g.num_kv_heads = groups;
    }

    /// A block without rotation: all elements of its heads are others.
    void stop_rotation(attention_spec& spec) const {
        spec.geometry.qk_nope_head_dim = spec.geometry.qk_head_dim();
        spec.geometry.qk_rope_head_dim = 0;
        spec.rope = rope_config{};
        if (m_family.norms_rotated_only) spec.q_norm = spec.k_norm = norm_spec{};
    }

    void read_sizes(mla_geometry& g) {
        g.hidden_size = required(model_key::hidden_size, "hidden_size");
        g.num_heads = required(model_key::num_attention_heads, "num_attention_heads");
        if (!latent()) return read_head_sizes(g);
        // The file's num_key_value_heads says nothing under MLA: kv_b has every head.
        g.num_kv_heads = g.num_heads;
        g.kv_lora_rank = required(model_key::kv_lora_rank, "kv_lora_rank");
        g.qk_nope_head_dim = required(model_key::qk_nope_head_dim, "qk_nope_head_dim");
        g.qk_rope_head_dim = required(model_key::qk_rope_head_dim, "qk_rope_head_dim");
        if (g.qk_rope_head_dim == 0 && top().find<std::uint64_t>(model_key::qk_rope_head_dim) &&
            m_family.pairing != rope_pairing::none)
            m_problems.add(errc::bad_value, top().name(model_key::qk_rope_head_dim),
                           "is 0, and \"" + std::string(m_family.name) + "\" rotates a part of its heads");
        const bool derived = m_family.head_sized_values && top().size(model_key::v_head_dim) == 0 && g.num_heads != 0;
        g.v_head_dim = derived ? g.hidden_size / g.num_heads : required(model_key::v_head_dim, "v_head_dim");
        if (!top().stated(model_key::q_lora_rank) && !m_family.default_q_lora_rank)
            m_problems.add(errc::missing_key, m_values.where + "q_lora_rank",
                           "absent, and no tensors settle it; null or 0 mean a single q_proj");
        g.q_lora_rank = top().stated(model_key::q_lora_rank) ? top().size(model_key::q_lora_rank)
                                                             : m_family.default_q_lora_rank.value_or(0);
        g.order = head_order::nope_rope;
    }

    void read_head_sizes(mla_geometry& g) {
        std::size_t groups = m_values.size_or_default(model_key::num_key_value_heads);
        if (m_family.lists(model_key::multi_query) && !m_values.from_gguf &&
            !m_values.flag_or_default(model_key::new_decoder_architecture))
            groups = m_values.flag_or_default(model_key::multi_query) ? 1 : g.num_heads;
        g.num_kv_heads = groups == 0 ? g.num_heads : groups;  // the format: absent and null mean as many as heads
        std::size_t dim = top().size(model_key::head_dim);
        if (dim == 0 && !m_values.from_gguf) dim = m_family.default_head_dim;  // GGUF: a share of the width
        if (dim == 0 && g.num_heads != 0) {
            if (g.hidden_size % g.num_heads != 0)
                m_problems.add(errc::bad_value, top().name(model_key::hidden_size),
                               concat({"without head_dim, expected a multiple of num_attention_heads ", g.num_heads,
                                       ", got ", g.hidden_size}));
            dim = g.hidden_size / g.num_heads;
        }
        g.order = head_order::rope_nope;
        g.v_head_dim = dim;
        if (m_family.lists(model_key::v_head_dim)) g.v_head_dim = m_values.size_or_default(model_key::v_head_dim);
        g.qk_rope_head_dim = dim;  // less if a part rotates: see rope_resolver
        g.qk_nope_head_dim = 0;
    }

    [[nodiscard]] rope_pairing pairing() {
        if (m_family.lists(model_key::position_type)) {  // another than "rope" is none (Granite 4)
            const auto type = top().find<std::string>(model_key::position_type);
            if (type && *type != "rope" && *type != "nope")
                m_not_understood.push_back(top().name(model_key::position_type) + " is \"" + *type + "\"");
            if (!type || *type != "rope") return rope_pairing::none;
        }
        if (!top().find<bool>(model_key::mla_use_nope).value_or(true))
            m_not_understood.push_back(top().name(model_key::mla_use_nope) + " is false, and \"" +
                                       std::string(m_family.name) + "\" never rotates");
        const auto interleave = top().find<bool>(model_key::rope_interleave);
        if (!interleave && top().stated(model_key::rope_interleave) && m_family.interleave_key)
            return rope_pairing::half_split;  // null is not the default, true, but as good as false
        if (!interleave) return m_values.stored_pairing;
        const rope_pairing stated = *interleave ? rope_pairing::interleaved : rope_pairing::half_split;
        if (stated == m_family.pairing) return m_values.stored_pairing;
        if (m_family.interleave_key) return stated;
        m_not_understood.push_back(top().name(model_key::rope_interleave) + " is " + (*interleave ? "true" : "false") +
                                   ", and the rows of \"" + std::string(m_family.name) + "\" are " +
                                   std::string(to_string(m_family.pairing)));
        return m_values.stored_pairing;
    }

    [[nodiscard]] norm_spec with_eps(norm_spec norm) {
        if (norm.kind != norm_kind::none && norm.eps == 0.0) norm.eps = rms_norm_eps();
        if (m_values.from_gguf) norm.gain_offset = 0.0;  // llama.cpp's converters have added it
        return norm;
    }

    // --- compressed attention ---

    [[nodiscard]] std::vector<attention_spec> compressed_blocks(attention_spec base) {
        mla_geometry& g = base.geometry;
        g.order = head_order::nope_rope;
        g.q_lora_rank = required(model_key::q_lora_rank, "q_lora_rank");
        if (g.num_kv_heads != 1)
            m_problems.add(errc::bad_value, top().name(model_key::num_key_value_heads, "num_key_value_heads"),
                           concat({"expected 1, got ", g.num_kv_heads}));
        base.sliding_window = planner().sliding_window();
        if (base.sliding_window == 0)
            m_problems.add(errc::bad_value, top().name(model_key::sliding_window), "expected a window, got none");
        base.output_groups = required(model_key::o_groups, "o_groups");
        base.output_rank = required(model_key::o_lora_rank, "o_lora_rank");
        if (base.output_groups != 0 && g.num_heads * g.v_head_dim % base.output_groups != 0)
            m_problems.add(errc::bad_value, top().name(model_key::o_groups),
                           concat({"expected a divisor of ", g.num_heads * g.v_head_dim, ", the heads' outputs, got ",
                                   base.output_groups}));
        std::vector<attention_spec> all(top().size(model_key::num_hidden_layers), base);
        const compression_reader reader(m_values, m_problems, m_not_understood);
        reader.check_ropes();
        const std::vector<compression_spec> compression = reader.blocks(all.size());
        const key_values main = reader.rope_keys(false), compress = reader.rope_keys(true);
        for (std::size_t b = 0; b < all.size() && m_problems.empty(); ++b) {
            all[b].layer = b;
            all[b].compression = compression[b];
            if (compression[b].ratio != 0)
                all[b].compression.norm = {.kind = norm_kind::rms, .eps = base.latent_norm.eps};
            m_ropes.set(all[b], compression[b].ratio != 0 ? compress : main);
        }
        return all;
    }

    // --- what multiplies queries ---

    void set_temperature(attention_spec& spec) {
        spec.temperature.per_head = m_family.temperature_per_head;
        if (m_family.temperature_per_head) return;
        if (m_family.temperature_unrotated) {
            if (!m_values.flag_or_default(model_key::temperature_tuning)) return;
            spec.temperature = {m_values.number_or_default(model_key::temperature_scale).value_or(0.0),
                                m_values.number_or_default(model_key::temperature_length).value_or(1.0), 1.0};
            return;
        }
        if (m_family.lists(model_key::logn)) {
            if (m_values.flag_or_default(model_key::logn)) spec.temperature = {1.0, training_length(), 0.0, true};
            return;
        }
        std::optional<double> scale = top().find<double>(model_key::temperature_scale);
        spec.temperature.length = top().find<double>(model_key::temperature_length).value_or(0.0);
        if (!scale && m_values.ropes.size() == 1) {
            scale = m_values.ropes.front().keys.find<double>(model_key::temperature_scale);
            spec.temperature.length = spec.rope.original_max_position;
        }
        spec.temperature.scale = scale.value_or(0.0);
        if (m_family.temperature && !scale)
            m_problems.add(errc::missing_key, m_values.where + "llama_4_scaling_beta",
                           "required and absent: the factor of the queries by position");
        if (spec.temperature.scale != 0.0 && spec.temperature.length == 0.0)
            m_problems.add(errc::missing_key, m_values.where + "original_max_position_embeddings",
                           "required by the queries' temperature and absent");
    }

    [[nodiscard]] double training_length() {
        const std::size_t length = top().size(model_key::rope_original_max_position);
        if (length <= 1 && m_reported.insert("training_length"))
            m_problems.add(errc::missing_key, m_values.where + "seq_length", "expected a length above 1");
        return static_cast<double>(length);
    }

    [[nodiscard]] layer_planner planner() { return {m_values, m_layers, m_problems, m_not_understood}; }

    const model_values& m_values;
    const model_family& m_family;
    config_problems& m_problems;
    std::vector<std::string>& m_not_understood;
    rope_resolver m_ropes;
    scale_resolver m_scales;
    std::size_t m_layers = 0;
    once m_reported;
    std::optional<attention_spec> m_window;                    // of layers with a window
    std::vector<std::optional<attention_spec>> m_layer_specs;  // of entries of per_layer_config
};

}  // namespace larql::detail

#endif
