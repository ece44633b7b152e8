// SPDX-License-Identifier: Apache-2.0
//
// The rows of a conversion, from what the headers of the source say.
#ifndef LARQL_DETAIL_CONVERT_CONVERSION_PLAN_HPP
#define LARQL_DETAIL_CONVERT_CONVERSION_PLAN_HPP

#include <larql/checkpoint.hpp>
#include <larql/detail/checkpoint/own_names.hpp>
#include <larql/detail/checkpoint/tensors.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/convert/attention_planner.hpp>
#include <larql/detail/convert/conversion_row.hpp>
#include <larql/detail/convert/number_formats.hpp>
#include <larql/detail/convert/predicting_blocks.hpp>
#include <larql/detail/convert/row_makers.hpp>
#include <larql/detail/convert/target_names.hpp>
#include <larql/detail/model/json_wrapper.hpp>
#include <larql/detail/model/names.hpp>
#include <larql/detail/model/stored_otherwise.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>
#include <larql/matrix_input.hpp>
#include <larql/tensor_role.hpp>
#include <larql/weight_reader.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace larql::detail {

/// What a conversion does, and what it leaves out, a sentence each.
struct conversion_plan {
    std::vector<conversion_row> rows;
    std::vector<std::string> warnings;
    bool keeps_quantisation = false;  ///< scales and codes are copied as they are
};

/// Plans the tensors of a conversion.
///
/// A source in transformers' names that keeps them is gone through tensor by tensor. Between the names of GGUF and of
/// transformers every tensor is known by its role, and one that the target has no name for is an error.
class conversion_planner {
public:
    conversion_planner(const checkpoint& source, const conversion_scope& scope)
        : m_source(source),
          m_scope(scope),
          m_from_gguf(source.has_gguf_names()),
          m_keeps_names(m_from_gguf == scope.published_gguf()),
          m_stored(source.family().names, m_from_gguf ? naming::gguf : naming::safetensors),
          m_names(source, scope),
          m_predicting(source, scope, m_stored, m_names) {}

    /// @throws error errc::not_understood that lists the tensors for which the output has no name
    [[nodiscard]] conversion_plan plan() {
        plan_attention();
        m_plan.keeps_quantisation = copies_all();
        if (copies_all())
            copy_stored();
        else
            for (const std::string& name : m_source.weights().names()) plan_other(name);
        stack_experts();
        std::ranges::stable_sort(m_plan.rows, {},
                                 [](const conversion_row& row) { return layer_in(row.tensors.front().name); });
        if (!m_nameless.empty())
            fail(errc::not_understood,
                 m_nameless + ": \"" + m_source.config().family + "\" has no name for these tensors in " +
                     (m_scope.published_gguf() ? "GGUF" : "transformers"),
                 {.file = m_source.shard_path(0), .subject = "tensors"});
        return std::move(m_plan);
    }

private:
    /// The number of the layer that a name tells, from 1; 0 without one. What belongs together lies together.
    [[nodiscard]] static std::size_t layer_in(std::string_view name) {
        for (std::size_t dot = name.find('.'); dot != name.npos; dot = name.find('.', dot + 1)) {
            std::size_t layer = 0;
            const auto [end, problem] = std::from_chars(name.data() + dot + 1, name.data() + name.size(), layer);
            if (problem == std::errc{} && (end == name.data() + name.size() || *end == '.')) return layer + 1;
        }
        return 0;
    }

    /// Whether attention is the source's, in its own rows and names: then its tensors are like any other.
    [[nodiscard]] bool keeps_attention() const {
        if (!m_keeps_names || m_scope.form != m_source.config().form) return false;
        if (!m_scope.published_gguf()) return true;
        return m_source.config().attention != attention_kind::mla ||
               m_source.dialect() == (m_scope.split_kv_b ? "k_b+v_b" : "kv_b");
    }

    /// Whether tensors stay as they are stored, in a container of the same kind.
    [[nodiscard]] bool copies_all() const {
        const container kind = m_source.gguf() != nullptr ? container::gguf : container::safetensors;
        return m_keeps_names && !m_scope.general && !m_scope.attention && m_scope.kind == kind;
    }

    void plan_attention() {
        if (keeps_attention()) return;
        const attention_planner attention(m_source, m_scope);
        for (std::size_t block = m_scope.block_begin; block < m_scope.block_end; ++block)
            attention.plan(block, m_plan.rows);
    }

    /// Whether a tensor belongs to attention that is planned as a whole, or to a block that is left out.
    [[nodiscard]] bool is_apart(const std::string& name) const {
        const auto matched = m_stored.match(name);
        if (!matched || matched->prefix != m_source.name_prefix()) return false;
        const tensor_identity& what = matched->identity;
        if (!is_attention_role(what.role) || what.role == tensor_role::inert) return false;
        const auto block = find_block(m_source.config(), what);
        if (!block) return false;
        return !keeps_attention() || *block < m_scope.block_begin || *block >= m_scope.block_end;
    }

    // --- tensor by tensor, as they are stored ---

    /// Every stored tensor under its own name, byte for byte: with the scales and codes that belong to a weight.
    void copy_stored() {
        std::vector<std::string> apart;
        for (const std::string& name : m_source.weights().names())
            if (is_apart(name)) apart.push_back(name.substr(0, name.rfind('.') + 1));
        std::ranges::sort(apart);
        const auto is_part = [&](std::string_view name) {
            for (std::size_t dot = name.find('.'); dot != name.npos; dot = name.find('.', dot + 1))
                if (std::ranges::binary_search(apart, name.substr(0, dot + 1), {},
                                               [](const auto& text) { return std::string_view(text); }))
                    return true;
            return false;
        };
        for (const tensor_info& info : m_source.tensors())
            if (!is_part(info.name) && !is_left_out(std::string(info.name)) &&
                !m_predicting.plan(std::string(info.name), m_plan.rows))
                m_plan.rows.push_back(copy_row(m_source, std::string(info.name), info));
    }

    // --- weight by weight ---

    void plan_other(const std::string& name) {
        if (is_apart(name) || is_activation_scale(name) || is_left_out(name)) return;
        if (m_predicting.plan(name, m_plan.rows)) return;
        if (m_keeps_names) return plan_weight(name, name, m_source.weights().at(name));
        const auto matched = m_stored.match(name);
        if (!matched || !is_own(m_source, name, *matched)) return add_nameless(name);
        plan_renamed(name, in_its_layer(m_source, matched->identity));
    }

    /// The numbers of a quantisation that concern activations; they go with it.
    [[nodiscard]] bool is_activation_scale(std::string_view name) const {
        for (const std::string_view ending : {".input_scale", ".input_global_scale", ".input_zero_point"}) {
            if (!name.ends_with(ending)) continue;
            std::string weight(name.substr(0, name.size() - ending.size()));
            if (m_source.weights().contains(weight += weight_ending)) return true;
        }
        return false;
    }

    /// Tensors that llama.cpp's GGUF of this model does not have: blocks that predict further tokens, an output that is
    /// the embedding, towers that see or hear. Said in a warning.
    [[nodiscard]] bool is_left_out(const std::string& name) {
        if (!m_scope.published_gguf() || m_from_gguf) return false;
        if (const auto layer = m_predicting.left_out(name)) {
            warn_once(concat({"tensors of blocks that predict further tokens (layer ", *layer,
                              "), which llama.cpp's files of this family do not have"}));
            return true;
        }
        const auto matched = m_stored.match(name);
        if (const std::string_view tower = tower_of(m_source, name, matched); !tower.empty()) {
            warn_once("tensors of a tower that sees or hears (" + std::string(tower) +
                      "), which llama.cpp has in a file of their own");
            return true;
        }
        if (!matched || matched->identity.role != tensor_role::output) return false;
        const nlohmann::json config = m_source.config_json();
        const nlohmann::json& text = *find_text_part(config).object;
        return text.value("tie_word_embeddings", false);
    }
    void warn_once(const std::string& left_out) {
        const std::string sentence = "left out: " + left_out;
        if (std::ranges::find(m_plan.warnings, sentence) == m_plan.warnings.end()) m_plan.warnings.push_back(sentence);
    }

    void add_nameless(const std::string& name) { m_nameless += (m_nameless.empty() ? "" : ", ") + name; }

    /// A tensor under the name that the target has for its role.
    void plan_renamed(const std::string& name, const tensor_identity& what) {
        using enum tensor_role;
        constexpr role_set consumed{inert, rope_divisors, rope_long_factors, rope_short_factors};
        if (consumed.contains(what.role)) return;  // by the configuration, if at all
        const auto target = m_names.find(what);
        // Attention of the model's own blocks is planned apart, and published models have no other biases. Layers with
        // linear attention are no blocks; their projections are tensors like any other.
        const bool apart = is_attention_role(what.role) && !is_of_linear_layer(what);
        if (!target || (!m_predicting.holds(what) && (apart || what.bias))) return add_nameless(name);
        const weight stored = m_source.weights().at(name);
        if (const stored_otherwise_row* row = find_stored_otherwise(what.role))
            return plan_otherwise(*row, *target, stored);
        tensor_identity second = what;
        ++second.expert;
        const bool one_for_all = *m_names.find(second) == *target;
        if (stored.shape().size() == 3 && !one_for_all)
            split_experts(what, stored);
        else if (stored.shape().size() == 2 && one_for_all && is_expert_role(what.role))
            m_experts[{what.role, what.layer}].emplace(what.expert, stored);
        else
            plan_weight(*target, name, stored);
    }

    [[nodiscard]] bool is_of_linear_layer(const tensor_identity& what) const {
        return m_source.family().linear_layers && what.layer < m_source.config().num_hidden_layers &&
               !find_block(m_source.config(), what);
    }

    /// Numbers or a shape that the other container has otherwise.
    void plan_otherwise(const stored_otherwise_row& row, const std::string& name, const weight& stored) {
        std::vector<float> values(static_cast<std::size_t>(stored.rows() * stored.columns()));
        stored.read_rows(0, stored.rows(), values.data(), static_cast<std::size_t>(stored.columns()));
        const auto change = m_from_gguf ? row.from_gguf : row.to_gguf;
        if (change != nullptr) std::ranges::transform(values, values.begin(), change);
        const dtype type = small_type(m_scope, false, stored.type(), values);
        m_plan.rows.push_back(
            small_row(name, type, shape_otherwise(row, !m_from_gguf, stored.shape(), stored.rows(), stored.columns()),
                      std::move(values)));
    }

    [[nodiscard]] static bool is_expert_role(tensor_role role) noexcept {
        using enum tensor_role;
        return role == expert_gate || role == expert_up || role == expert_down;
    }

    /// GGUF stacks the experts of a block in one tensor; transformers has one for each.
    void split_experts(tensor_identity what, const weight& stored) {
        const std::uint64_t rows = stored.shape()[1];
        for (std::uint64_t expert = 0; expert < stored.shape()[0]; ++expert) {
            what.expert = static_cast<std::size_t>(expert);
            plan_rows(*m_names.find(what), stored, expert * rows, (expert + 1) * rows, {rows, stored.columns()});
        }
    }

    /// Experts that the source has one by one, in one tensor.
    void stack_experts() {
        for (const auto& [key, experts] : m_experts) {
            const std::string name = *m_names.find({key.first, false, key.second, 0});
            const weight& first = experts.begin()->second;
            std::uint64_t number = 0;
            for (const auto& [expert, stored] : experts)
                if (expert != number++ || stored.rows() != first.rows() || stored.columns() != first.columns())
                    fail(errc::shape_mismatch,
                         concat({"experts are missing, or differ in their sizes: expected number ", number - 1,
                                 " with ", first.rows(), " rows of ", first.columns()}),
                         {.file = m_source.shard_path(0), .subject = stored.name()});
            stack_experts(name, experts);
        }
    }
    void stack_experts(const std::string& name, const std::map<std::size_t, weight>& experts) {
        const weight& first = experts.begin()->second;
        std::optional<dtype> stored;
        if (first.raw() != nullptr) stored = first.type();
        for (const auto& [expert, one] : experts)
            if (one.raw() == nullptr || one.type() != stored) stored.reset();
        planned_tensor tensor{name,
                              matrix_type(m_scope, false, stored, first.columns()),
                              {experts.size(), first.rows(), first.columns()}};
        if (stored != tensor.type) tensor.type = remade_type(m_scope, false, stored, first.columns());
        const dtype type = tensor.type;
        const std::uint64_t rows = first.rows(), row_bytes = tensor.row_bytes();
        std::vector<row_maker> makers;
        for (const auto& [expert, one] : experts)
            makers.push_back(stored == type ? copied_rows(m_source, *one.raw())
                                            : encoded_rows(numbers_of(one), type, one.name()));
        m_plan.rows.push_back({.tensors = {std::move(tensor)},
                               .rows = [makers = std::move(makers), rows, row_bytes](
                                           std::uint64_t begin, std::uint64_t end, std::span<std::byte> out) {
                                   for (std::uint64_t r = begin; r < end;) {
                                       const std::uint64_t expert = r / rows, last = std::min(end, (expert + 1) * rows);
                                       makers[static_cast<std::size_t>(expert)](
                                           r - expert * rows, last - expert * rows,
                                           out.subspan(static_cast<std::size_t>((r - begin) * row_bytes),
                                                       static_cast<std::size_t>((last - r) * row_bytes)));
                                       r = last;
                                   }
                               }});
    }

    /// @param source_name  what the source calls it, which says in both worlds what it is
    void plan_weight(const std::string& name, const std::string& source_name, const weight& stored) {
        if (is_small(source_name, stored))
            plan_small(name, stored);
        else
            plan_rows(name, stored, 0, stored.rows(), {stored.shape().begin(), stored.shape().end()});
    }

    /// Vectors, and the matrices that llama.cpp stores like them.
    [[nodiscard]] bool is_small(const std::string& name, const weight& stored) const {
        if (traits_of(stored.type()).kind != dtype_kind::floating) return false;
        if (stored.shape().size() < 2) return true;
        if (!m_scope.published_gguf() && !m_from_gguf) return false;
        const auto matched = m_stored.match(name);
        return matched && float32_matrices.contains(matched->identity.role);
    }
    void plan_small(const std::string& name, const weight& stored) {
        std::vector<std::uint64_t> shape(stored.shape().begin(), stored.shape().end());
        // In transformers' own files the type of a vector is the publisher's choice, which only widening changes.
        const bool kept = !m_from_gguf && !m_scope.published_gguf() && m_scope.general != dtype::f32;
        if (stored.raw() != nullptr && holds(m_scope.kind, stored.type()) &&
            (kept || (m_scope.published_gguf() && stored.type() == dtype::f32))) {
            m_plan.rows.push_back(copy_row(m_source, name, *stored.raw()));
            m_plan.rows.back().tensors.front().shape = std::move(shape);
            return;
        }
        std::vector<float> values(static_cast<std::size_t>(stored.rows() * stored.columns()));
        stored.read_rows(0, stored.rows(), values.data(), static_cast<std::size_t>(stored.columns()));
        const dtype type = small_type(m_scope, false, stored.type(), values);
        m_plan.rows.push_back(small_row(name, type, std::move(shape), std::move(values)));
    }

    [[nodiscard]] bool is_of_attention(std::string_view name) const {
        const auto matched = m_stored.match(name);
        return matched && matched->prefix == m_source.name_prefix() && is_attention_role(matched->identity.role);
    }

    /// Rows [begin, end): byte for byte if their type stays, encoded if not.
    void plan_rows(const std::string& name, const weight& stored, std::uint64_t begin, std::uint64_t end,
                   std::vector<std::uint64_t> shape) {
        std::optional<dtype> raw;
        if (stored.raw() != nullptr) raw = stored.type();
        const dtype_kind kind = traits_of(stored.type()).kind;
        planned_tensor tensor{name, stored.type(), std::move(shape)};
        // Integers stay what they are: tables, masks, positions.
        if (raw && kind == dtype_kind::integer) {
            if (!holds(m_scope.kind, *raw))
                fail(errc::unsupported_dtype,
                     std::string(to_string(m_scope.kind)) + " holds no " + std::string(to_string(*raw)),
                     {.file = m_source.shard_path(0), .subject = name});
        } else {
            const bool attention = is_of_attention(stored.name());
            tensor.type = matrix_type(m_scope, attention, raw, stored.columns());
            if (raw != tensor.type) tensor.type = remade_type(m_scope, attention, raw, stored.columns());
        }
        const dtype type = tensor.type;
        row_maker rows = raw == type ? copied_rows(m_source, *stored.raw(), begin)
                                     : encoded_rows(numbers_of(stored, begin, end), type, name);
        m_plan.rows.push_back({.tensors = {std::move(tensor)}, .rows = std::move(rows)});
    }

    const checkpoint& m_source;
    const conversion_scope& m_scope;
    bool m_from_gguf;
    bool m_keeps_names;
    name_matcher m_stored;
    target_names m_names;
    predicting_blocks m_predicting;
    std::map<std::pair<tensor_role, std::size_t>, std::map<std::size_t, weight>> m_experts;
    conversion_plan m_plan;
    std::string m_nameless;
};

}  // namespace larql::detail

#endif
