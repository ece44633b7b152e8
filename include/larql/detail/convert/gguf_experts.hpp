// SPDX-License-Identifier: Apache-2.0
//
// What GGUF states of a model's experts, and of models that have none where its programs ask.
#ifndef LARQL_DETAIL_CONVERT_GGUF_EXPERTS_HPP
#define LARQL_DETAIL_CONVERT_GGUF_EXPERTS_HPP

#include <larql/checkpoint.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/convert/conversion_row.hpp>
#include <larql/detail/gguf/metadata.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/names.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/error.hpp>
#include <larql/model_family.hpp>
#include <larql/tensor_role.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace larql::detail {

/// Fills the metadata that describe experts, beside the keys that have rows.
class gguf_experts {
public:
    /// @param rows  of the file
    gguf_experts(const checkpoint& source, std::span<const conversion_row> rows, gguf_metadata& out)
        : m_source(source), m_rows(rows), m_values(source.stated_values()), m_family(source.family()), m_out(out) {}

    /// @throws error errc::missing_key, shape_mismatch, or unsupported_architecture for what GGUF has no words for
    void state() {
        if (m_values.top.size(model_key::n_routed_experts) == 0) return state_none();
        const std::vector<bool> with_experts = layers_with_experts();
        if (std::ranges::find(with_experts, true) == with_experts.end()) return;  // keys of another model's experts
        state_dense_layers(with_experts);
        std::string missing;
        for (const model_key key :
             {model_key::num_experts_per_tok, model_key::moe_intermediate_size, model_key::n_shared_experts,
              model_key::routed_scaling_factor, model_key::norm_topk_prob})
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

private:
    template <class T>
    void set(std::string_view key, const T& value) {
        m_out.set(std::string(m_family.gguf_architecture) + "." + std::string(key), value);
    }
    template <class T>
    void add(std::string_view key, const T& value) {
        if (!m_out.contains(std::string(m_family.gguf_architecture) + "." + std::string(key))) set(key, value);
    }

    /// By the model's layers, whether the file has a router there.
    [[nodiscard]] std::vector<bool> layers_with_experts() const {
        const name_matcher names(m_family.names, naming::gguf);
        std::vector<bool> with_experts(m_source.config().num_hidden_layers);
        for (const conversion_row& row : m_rows) {
            const auto matched = names.match(row.tensors.front().name);
            if (matched && matched->identity.role == tensor_role::router &&
                matched->identity.layer < with_experts.size())
                with_experts[matched->identity.layer] = true;
        }
        return with_experts;
    }

    /// The number of layers before those with experts, by the tensors: configurations have other words for it, too.
    void state_dense_layers(const std::vector<bool>& with_experts) {
        const auto first = std::ranges::find(with_experts, true);
        const auto dense = static_cast<std::size_t>(first - with_experts.begin());
        const error_where where{.file = m_source.shard_path(0), .subject = "first_k_dense_replace"};
        if (std::find(first, with_experts.end(), false) != with_experts.end())
            fail(errc::unsupported_architecture,
                 "GGUF has layers without experts before all others alone, and here one follows", where);
        if (m_values.top.stated(model_key::first_k_dense_replace) &&
            m_values.top.size(model_key::first_k_dense_replace) != dense)
            fail(errc::shape_mismatch,
                 concat({"is ", m_values.top.size(model_key::first_k_dense_replace),
                         ", and the first layer with the tensors of experts is ", dense}),
                 where);
        set("leading_dense_block_count", static_cast<std::uint32_t>(dense));
    }

    /// llama.cpp's programs for models with experts ask for these keys.
    void state_none() {
        if (!m_family.gguf_output.experts_or_none) return;
        const auto number = [](std::size_t n) { return static_cast<std::uint32_t>(n); };
        add("leading_dense_block_count", number(m_source.config().num_hidden_layers));
        add("expert_feed_forward_length", number(m_values.top.size(model_key::intermediate_size)));
        add("expert_shared_count", 0U);
    }

    const checkpoint& m_source;
    std::span<const conversion_row> m_rows;
    const model_values& m_values;
    const model_family& m_family;
    gguf_metadata& m_out;
};

}  // namespace larql::detail

#endif
