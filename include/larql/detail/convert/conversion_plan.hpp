// SPDX-License-Identifier: Apache-2.0
//
// What a conversion writes: the output tensors in order, each with the work that makes its rows.
#ifndef LARQL_DETAIL_CONVERT_CONVERSION_PLAN_HPP
#define LARQL_DETAIL_CONVERT_CONVERSION_PLAN_HPP

#include <larql/checkpoint.hpp>
#include <larql/detail/convert/attention_planner.hpp>
#include <larql/detail/convert/conversion_job.hpp>
#include <larql/detail/convert/target_names.hpp>
#include <larql/detail/model/names.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>
#include <larql/matrix_input.hpp>
#include <larql/tensor_role.hpp>
#include <larql/weight_reader.hpp>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// Builds the jobs of a conversion to transformers' names.
class conversion_planner {
public:
    conversion_planner(const checkpoint& source, const conversion_scope& scope)
        : m_source(source),
          m_scope(scope),
          m_from_gguf(source.gguf() != nullptr),
          m_stored(source.family().names, m_from_gguf ? naming::gguf : naming::safetensors),
          m_names(source) {}

    /// @throws error errc::not_understood that lists the tensors for which the output has no name
    [[nodiscard]] std::vector<conversion_job> plan() {
        const attention_planner attention(m_source, m_scope);
        for (std::size_t block = m_scope.block_begin; block < m_scope.block_end; ++block) attention.plan(block, m_jobs);
        for (const std::string& name : m_source.weights().names()) plan_other(name);
        if (!m_nameless.empty())
            fail(errc::not_understood,
                 m_nameless + ": transformers' \"" + m_source.config().family + "\" has no name for these tensors",
                 {.file = m_source.shard_path(0), .subject = "tensors"});
        return std::move(m_jobs);
    }

private:
    /// A tensor outside the attention that is converted.
    void plan_other(const std::string& name) {
        const auto matched = m_stored.match(name);
        const bool own = matched && matched->prefix == m_source.name_prefix();
        if (own && is_attention_role(matched->identity.role) && matched->identity.role != tensor_role::inert &&
            find_block(m_source.config(), matched->identity))
            return;  // in a block that is converted, or one that is left out
        if (is_activation_scale(name)) return;
        if (!m_from_gguf) return plan_weight(name, m_source.weights().at(name));
        if (!matched) return add_nameless(name);
        plan_gguf(name, matched->identity);
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

    void add_nameless(const std::string& name) { m_nameless += (m_nameless.empty() ? "" : ", ") + name; }

    /// A tensor of GGUF, under the name that transformers has for it.
    void plan_gguf(const std::string& name, const tensor_identity& what) {
        using enum tensor_role;
        constexpr role_set consumed{inert, rope_divisors, rope_long_factors, rope_short_factors};
        if (consumed.contains(what.role)) return;  // by the configuration, if at all
        const auto target = m_names.find(what);
        // Attention of prediction blocks is not converted, and published models have no other biases.
        if (!target || is_attention_role(what.role) || what.bias) return add_nameless(name);
        const weight stored = m_source.weights().at(name);
        tensor_identity second = what;
        second.expert = 1;
        if (stored.shape().size() == 3 && *m_names.find(second) != *target)
            plan_experts(what, stored);
        else if (is_small(what.role, stored))
            plan_small(*target, stored);
        else
            plan_weight(*target, stored);
    }

    /// GGUF stacks the experts of a block in one tensor; transformers has one for each.
    void plan_experts(tensor_identity what, const weight& stored) {
        const std::uint64_t rows = stored.shape()[1];
        for (std::uint64_t expert = 0; expert < stored.shape()[0]; ++expert) {
            what.expert = static_cast<std::size_t>(expert);
            plan_rows(*m_names.find(what), stored, expert * rows, (expert + 1) * rows, {rows, stored.columns()});
        }
    }

    /// llama.cpp's converter stores vectors and routers as float32 whatever the model's type was.
    [[nodiscard]] static bool is_small(tensor_role role, const weight& stored) {
        return stored.type() == dtype::f32 && (stored.shape().size() == 1 || role == tensor_role::router);
    }
    void plan_small(const std::string& name, const weight& stored) {
        std::vector<float> values(static_cast<std::size_t>(stored.rows() * stored.columns()));
        stored.read_rows(0, stored.rows(), values.data(), static_cast<std::size_t>(stored.columns()));
        m_jobs.push_back(
            small_job(name, m_scope.type, {stored.shape().begin(), stored.shape().end()}, std::move(values)));
    }

    void plan_weight(const std::string& name, const weight& stored) {
        plan_rows(name, stored, 0, stored.rows(), {stored.shape().begin(), stored.shape().end()});
    }

    /// Rows [begin, end): byte for byte what stands for itself, decoded what needs scales or has blocks.
    void plan_rows(const std::string& name, const weight& stored, std::uint64_t begin, std::uint64_t end,
                   std::vector<std::uint64_t> shape) {
        const dtype_traits& traits = traits_of(stored.type());
        if (stored.raw() != nullptr && traits.kind != dtype_kind::block) {
            const std::uint64_t row_bytes = stored.columns() * traits.block_bytes;
            m_jobs.push_back(copy_job({name, stored.type(), std::move(shape)},
                                      m_source.bytes(*stored.raw())
                                          .subspan(static_cast<std::size_t>(begin * row_bytes),
                                                   static_cast<std::size_t>((end - begin) * row_bytes))));
            return;
        }
        const auto rows = static_cast<std::size_t>(end - begin), cols = static_cast<std::size_t>(stored.columns());
        const auto read = [stored, begin](std::size_t b, std::size_t e, float* out, std::size_t stride) {
            stored.read_rows(begin + b, begin + e, out, stride);
        };
        m_jobs.push_back(matrix_job({name, m_scope.type, std::move(shape)}, {matrix_input<float>(rows, cols, read)}));
    }

    const checkpoint& m_source;
    const conversion_scope& m_scope;
    bool m_from_gguf;
    name_matcher m_stored;
    target_names m_names;
    std::vector<conversion_job> m_jobs;
    std::string m_nameless;
};

}  // namespace larql::detail

#endif
