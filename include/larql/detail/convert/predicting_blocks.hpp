// SPDX-License-Identifier: Apache-2.0
//
// Blocks beyond the model's layers, which predict further tokens. larql does not compute them: their tensors are
// carried, and of their attention the up-projection alone changes with the dialect.
#ifndef LARQL_DETAIL_CONVERT_PREDICTING_BLOCKS_HPP
#define LARQL_DETAIL_CONVERT_PREDICTING_BLOCKS_HPP

#include <larql/attention_spec.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/checkpoint/tensors.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/convert/number_formats.hpp>
#include <larql/detail/convert/row_makers.hpp>
#include <larql/detail/convert/target_names.hpp>
#include <larql/detail/convert/up_projection.hpp>
#include <larql/detail/model/names.hpp>
#include <larql/detail/model/roles.hpp>
#include <larql/error.hpp>
#include <larql/mla_absorb.hpp>
#include <larql/tensor_role.hpp>
#include <larql/weight_reader.hpp>

#include <charconv>
#include <cstddef>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

namespace larql::detail {

/// What becomes of prediction blocks in a conversion.
class predicting_blocks {
public:
    /// @param stored  matches the source's names; referred to
    predicting_blocks(const checkpoint& source, const conversion_scope& scope, const name_matcher& stored,
                      const target_names& names)
        : m_source(source), m_scope(scope), m_stored(stored), m_names(names) {}

    /// Whether a tensor lies in such a block.
    [[nodiscard]] bool holds(const tensor_identity& what) const {
        return what.layer >= m_source.config().num_hidden_layers;
    }

    /// The layer of a tensor whose block the output does not have, or nothing.
    [[nodiscard]] std::optional<std::size_t> left_out(const std::string& name) const {
        const model_config& model = m_source.config();
        const std::string layers = m_source.name_prefix() + "layers.";
        if (!name.starts_with(layers)) return std::nullopt;
        std::size_t layer = 0;
        const auto [end, problem] = std::from_chars(name.data() + layers.size(), name.data() + name.size(), layer);
        const std::size_t kept = m_source.family().gguf_output.keeps_predicting ? model.num_nextn_predict_layers : 0;
        if (problem != std::errc{} || layer < model.num_hidden_layers + kept) return std::nullopt;
        return layer;
    }

    /// Plans a tensor of an up-projection that the output has in another dialect.
    /// @return  whether it is one; others are planned as any tensor is
    bool plan(const std::string& name, std::vector<conversion_row>& rows) const {
        const auto matched = m_stored.match(name);
        if (!matched || matched->prefix != m_source.name_prefix() || !holds(matched->identity)) return false;
        const bool published = m_scope.published_gguf();
        if (!m_source.has_gguf_names() && !published) return false;  // keeps its names, and its dialect
        using enum tensor_role;
        const tensor_identity& what = matched->identity;
        const bool split = published && m_scope.split_kv_b;
        if (what.bias || !(split ? what.role == kv_b : what.role == k_b || what.role == v_b)) return false;
        if (split)
            plan_split(name, what, rows);
        else if (what.role == k_b)  // v_b goes with it
            plan_whole(name, what, rows);
        return true;
    }

private:
    /// All blocks of the families that have such blocks are of one size.
    [[nodiscard]] const attention_spec& spec() const { return m_source.config().blocks.back(); }

    [[nodiscard]] weight checked(const std::string& name, tensor_role role) const {
        const weight found = m_source.weights().at(name);
        const role_row& row = *find_role(role);
        const std::size_t want_rows = size_of(row.rows, spec()), want_cols = size_of(row.cols, spec());
        if (found.rows() != want_rows || found.columns() != want_cols)
            fail(errc::shape_mismatch,
                 concat({"the model's blocks imply [", want_rows, ", ", want_cols, "], the tensor has [", found.rows(),
                         ", ", found.columns(), "]"}),
                 {.file = m_source.shard_path(0), .subject = name});
        return found;
    }
    [[nodiscard]] static std::optional<dtype> type_of(const weight& stored) {
        return stored.raw() == nullptr ? std::nullopt : std::optional(stored.type());
    }
    [[nodiscard]] std::string name_at(tensor_identity what, tensor_role role) const {
        what.role = role;
        return m_names.at(what, to_string(role));
    }

    void plan_split(const std::string& name, const tensor_identity& what, std::vector<conversion_row>& rows) const {
        using enum tensor_role;
        const weight whole = checked(name, kv_b);
        stored_up_projection stored{numbers_of(whole), type_of(whole), {}, {}, {}};
        if (whole.raw() != nullptr) stored.whole = raw_rows{whole.raw()};
        plan_split_kv_b(m_source, m_scope, spec(), stored, name_at(what, k_b), name_at(what, v_b), rows);
    }

    void plan_whole(const std::string& name, tensor_identity what, std::vector<conversion_row>& rows) const {
        using enum tensor_role;
        const std::string whole = name_at(what, kv_b);
        what.role = v_b;
        const weight keys = checked(name, k_b);
        const weight values = checked(m_stored.spell(what, m_source.name_prefix()).value_or(""), v_b);
        const auto type = type_of(keys) == type_of(values) ? type_of(keys) : std::nullopt;
        rows.push_back(matrix_row(m_source, m_scope, planned_role(*find_role(kv_b), spec(), whole, dtype::f32), type,
                                  std::nullopt, {}, merge_kv_b(numbers_of(keys), numbers_of(values), spec().geometry)));
    }

    const checkpoint& m_source;
    const conversion_scope& m_scope;
    const name_matcher& m_stored;
    const target_names& m_names;
};

}  // namespace larql::detail

#endif
