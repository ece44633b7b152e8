// SPDX-License-Identifier: Apache-2.0
//
// What multiplies scores and latents.
#ifndef LARQL_DETAIL_MODEL_SCALES_HPP
#define LARQL_DETAIL_MODEL_SCALES_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/rope.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

namespace larql::detail {

/// Derives scales, collecting every problem.
class scale_resolver {
public:
    scale_resolver(const model_values& values, config_problems& problems, std::vector<std::string>& not_understood)
        : m_values(values), m_family(*values.family), m_problems(problems), m_not_understood(not_understood) {}

    /// Sets the softmax scale.
    void set(attention_spec& spec) {
        const auto stated = m_values.number_or_default(model_key::attention_multiplier);
        const bool takes_stated = m_family.scale == scale_rule::stated_or_usual && stated;
        if (m_family.scale == scale_rule::stated || takes_stated) {
            if (!stated && !top().refused(model_key::attention_multiplier))
                m_problems.add(errc::missing_key, m_values.where + "attention_multiplier", "required and absent");
            spec.scale = stated.value_or(1.0);
            return;
        }
        if (m_family.scale == scale_rule::one) {
            spec.scale = 1.0;
            return;
        }
        const double m = m_family.scale == scale_rule::yarn_mscale ? attention_mscale(spec.rope) : 1.0;
        spec.scale = m * m / std::sqrt(scaled_size(spec.geometry));
        spec.scale *= m_values.number_or(model_key::key_multiplier, 1.0);
        if (!(spec.scale >= above_zero && spec.scale <= any_finite))
            m_problems.add(errc::bad_value, m_values.where + "rope_scaling.mscale_all_dim",
                           concat({"gives a softmax scale of ", spec.scale}));
    }

    /// Sets what multiplies latents after their norm.
    void set_latents(attention_spec& spec) {
        if (!m_family.scaled_latents) return;
        const auto scale = [&](model_key key, std::size_t rank) {
            if (!top().find<bool>(key).value_or(true))  // which transformers does not read
                m_not_understood.push_back(top().name(key) + " is false, and \"" + std::string(m_family.name) +
                                           "\" always scales");
            return rank == 0 ? 1.0
                             : std::sqrt(static_cast<double>(spec.geometry.hidden_size) / static_cast<double>(rank));
        };
        spec.q_latent_scale = scale(model_key::mla_scale_q_lora, spec.geometry.q_lora_rank);
        spec.kv_latent_scale = scale(model_key::mla_scale_kv_lora, spec.geometry.kv_lora_rank);
    }

private:
    [[nodiscard]] const key_values& top() const noexcept { return m_values.top; }

    /// What the softmax scale is the inverse square root of.
    [[nodiscard]] double scaled_size(const mla_geometry& g) {
        const auto head = static_cast<double>(std::max<std::size_t>(g.qk_head_dim(), 1));
        if (m_family.scale != scale_rule::inverse_sqrt_stated) return head;
        const auto stated = top().find<double>(model_key::query_pre_attn_scalar);
        if (stated || !m_values.from_gguf)
            return stated ? *stated : m_family.default_of(model_key::query_pre_attn_scalar).value_or(head);
        if (m_family.gguf_wide_blocks == 0) return head;
        const std::size_t blocks = top().size(model_key::num_hidden_layers);
        if (blocks == m_family.gguf_wide_blocks && g.num_heads != 0)
            return static_cast<double>(g.hidden_size / g.num_heads);
        if (std::ranges::find(m_family.gguf_head_blocks, blocks) == m_family.gguf_head_blocks.end())
            m_problems.add(errc::missing_key, m_values.where + "query_pre_attn_scalar",
                           concat({"GGUF has no place for it, and no published model has ", blocks,
                                   " blocks: state it with --config (checkpoint::open's `config`)"}));
        return head;
    }

    const model_values& m_values;
    const model_family& m_family;
    config_problems& m_problems;
    std::vector<std::string>& m_not_understood;
};

}  // namespace larql::detail

#endif
