// SPDX-License-Identifier: Apache-2.0
//
// The weights of a block as matrices of roles, from what a checkpoint stores of them.
#ifndef LARQL_DETAIL_CHECKPOINT_BLOCK_WEIGHTS_HPP
#define LARQL_DETAIL_CHECKPOINT_BLOCK_WEIGHTS_HPP

#include <larql/attention_spec.hpp>
#include <larql/attention_weights.hpp>
#include <larql/detail/checkpoint/state.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/model/roles.hpp>
#include <larql/detail/quant/source.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/error.hpp>
#include <larql/linear.hpp>
#include <larql/matrix_input.hpp>
#include <larql/mla_absorb.hpp>
#include <larql/model_config.hpp>
#include <larql/rope.hpp>
#include <larql/tensor_recipe.hpp>
#include <larql/weight_reader.hpp>
#include <larql/weight_storage.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// The rows of a weight that is stored [in, out]: its columns. It is read as a whole, for each role that is made of
/// it.
inline matrix_input<float> transposed_rows(const weight& found, std::size_t rows, std::size_t cols) {
    auto turned = tensor<float, 2>::from_shape({rows, cols});
    std::vector<float> stored(rows);
    for (std::size_t c = 0; c < cols; ++c) {
        found.read_rows(c, c + 1, stored.data(), rows);
        for (std::size_t r = 0; r < rows; ++r) turned.data()[r * cols + c] = stored[r];
    }
    return matrix_input<float>(std::move(turned));
}

/// The rows of `whole` from `begin` to `end` of each of `runs` runs of equal length.
inline matrix_input<float> rows_of_runs(matrix_input<float> whole, std::size_t begin, std::size_t end,
                                        std::size_t runs) {
    if (runs == 1) return whole.row_range(begin, end);
    const std::size_t length = whole.rows() / runs, taken = end - begin, cols = whole.cols();
    return matrix_input<float>(taken * runs, cols,
                               [whole = std::move(whole), length, taken, begin](std::size_t first, std::size_t last,
                                                                                float* out, std::size_t stride) {
                                   for (std::size_t i = first; i < last; ++i, out += stride) {
                                       const std::size_t row = i / taken * length + begin + i % taken;
                                       whole.read_rows(row, row + 1, out, stride);
                                   }
                               });
}

/// So many columns from `first` on; 0: all.
inline matrix_input<float> column_range(matrix_input<float> whole, std::size_t first, std::size_t count) {
    if (count == 0) return whole;
    const std::size_t rows = whole.rows(), cols = whole.cols();
    return matrix_input<float>(rows, count,
                               [whole = std::move(whole), first, count, cols](std::size_t begin, std::size_t end,
                                                                              float* out, std::size_t stride) {
                                   std::vector<float> row(cols);
                                   for (std::size_t r = begin; r < end; ++r, out += stride) {
                                       whole.read_rows(r, r + 1, row.data(), cols);
                                       std::copy_n(row.data() + first, count, out);
                                   }
                               });
}

/// Rows of a stored matrix, which is held against the shape that the spec implies.
inline matrix_input<float> checkpoint_state::part(const larql::stored_rows& rows, const attention_spec& spec,
                                                  held_weights& held) const {
    const weight& found = held.at(weights(), rows.name);
    const role_row& row = *find_role(rows.role);
    const bool transposed = spec.transposed.contains(rows.role);
    std::size_t want_rows = size_of(row.rows, spec), want_cols = size_of(row.cols, spec);
    const std::size_t implied_rows = want_rows, implied_cols = want_cols;
    if (transposed) std::swap(want_rows, want_cols);
    if (found.rows() != want_rows || found.columns() != want_cols)
        fail(errc::shape_mismatch,
             concat({"the configuration implies [", want_rows, ", ", want_cols, "], the tensor has ",
                     shape_text(found.shape())}),
             {.file = files.path, .subject = rows.name});
    const matrix_input<float> whole =
        transposed ? transposed_rows(found, implied_rows, implied_cols) : matrix_of(found);
    return column_range(rows_of_runs(whole, rows.begin, rows.end, rows.runs), rows.first_column, rows.columns);
}

/// The elements of a stored vector from `begin` to `end` of each of `runs` runs of equal length. Gains that every head
/// has of its own may have a row for each head.
inline vector_input<float> checkpoint_state::vector(const std::string& name, std::size_t length, std::size_t begin,
                                                    std::size_t end, std::size_t runs, std::size_t rows) const {
    const weight found = weights().at(name);
    const bool by_rows = found.shape().size() == 2 && rows > 1 && found.rows() == rows;
    if ((found.shape().size() != 1 && !by_rows) || found.columns() * found.rows() != length)
        fail(errc::shape_mismatch,
             concat({"the configuration implies [", length, "], the tensor has ", shape_text(found.shape())}),
             {.file = files.path, .subject = name});
    std::vector<float> elements(length), chosen;
    found.read_rows(0, found.rows(), elements.data(), static_cast<std::size_t>(found.columns()));
    for (std::size_t run = 0; run < runs; ++run)
        for (std::size_t i = begin; i < end; ++i) chosen.push_back(elements[run * (length / runs) + i]);
    return chosen;
}

/// Sets what multiplies frequencies, where that is learned: a tensor of logarithms for all blocks.
inline void checkpoint_state::read_frequencies() {
    for (attention_spec& block : config->blocks) {
        if (!block.rope.learned || block.rope.rotary_dim == 0) continue;
        const tensor_identity what{tensor_role::rope_log_multipliers};
        const std::string* const stored = tensors.find(what);
        if (stored == nullptr)
            fail(errc::missing_tensor, "required and absent: what multiplies the frequencies is learned",
                 {.file = files.path, .subject = tensors.name_of(what)});
        const std::size_t length = block.rope.rotary_dim / 2;
        block.rope.multipliers.clear();
        const vector_input<float> logarithms = vector(*stored, length, 0, length);
        for (const float logarithm : logarithms.values())
            block.rope.multipliers.push_back(std::exp(static_cast<double>(logarithm)));
        try {
            (void)make_rope_table(block.rope, block.rope.max_position);
        } catch (const error& e) {
            fail(e.code(), std::string(e.problem()), {.file = files.path, .subject = *stored});
        }
    }
}

/// The bias of a projection: stored by itself, or as a part of a fused one.
inline vector_input<float> checkpoint_state::bias(const role_row& row, std::size_t block) const {
    const attention_spec& block_spec = spec(block);
    const std::size_t length = size_of(row.is_vector() ? row.cols : row.rows, block_spec);
    if (const std::string* stored = tensors.find(identity_of(block_spec, row.role, true)))
        return vector(*stored, length, 0, length);
    for (const recipe_row& recipe : recipes) {
        if (recipe.made != row.role || recipe.op == row_op::join_kv_b) continue;
        const std::string* fused = tensors.find(identity_of(block_spec, recipe.from[0], true));
        const std::size_t whole = size_of(find_role(recipe.from[0])->rows, block_spec);
        const std::size_t runs = runs_of(recipe, block_spec);
        const std::size_t begin = rows_before(recipe, block_spec) / runs;
        if (fused != nullptr) return vector(*fused, whole, begin, begin + length / runs, runs);
    }
    if (block_spec.biases.contains(row.role))
        fail(errc::missing_tensor,
             "a bias is required here (attention_bias, or the family always has it), and is not there",
             {.file = files.path, .subject = tensors.name_of(identity_of(block_spec, row.role, true))});
    return {};
}

inline void checkpoint_state::read_role(const role_row& row, std::size_t block, held_weights& held,
                                        attention_weights<float>& weights_by_role) const {
    const attention_spec& block_spec = spec(block);
    const auto recipe = tensors.locate(row.role, block_spec);
    if (!recipe) {
        const std::string name = tensors.name_of(identity_of(block_spec, row.role));
        const std::string parts = row.role == tensor_role::kv_b ? ", neither whole nor as k_b and v_b" : "";
        (void)weights().at(name);  // says why, if its quantisation does
        fail(errc::missing_tensor, "required and absent" + parts, {.file = files.path, .subject = name});
    }
    if (row.is_vector()) {
        const std::size_t length = size_of(row.cols, block_spec);
        const std::size_t heads =
            row.role == tensor_role::k_norm ? block_spec.geometry.kv_heads() : block_spec.geometry.num_heads;
        weights_by_role.vector(row.role) = vector(recipe->parts.front().name, length, 0, length, 1, heads);
        weights_by_role.bias(row.role) = bias(row, block);
        return;
    }
    weights_by_role[row.role] = recipe->joins_kv_b
                                    ? merge_kv_b(part(recipe->parts[0], block_spec, held),
                                                 part(recipe->parts[1], block_spec, held), block_spec.geometry)
                                    : part(recipe->parts.front(), block_spec, held);
    weights_by_role.bias(row.role) = bias(row, block);
}

/// Weights of a block for a spec that may differ from the stored one in its form.
inline attention_weights<float> checkpoint_state::read_block(const attention_spec& wanted, std::size_t block,
                                                             weight_storage storage) const {
    const model_config& model = require_config();
    if (block < model.block_begin || block >= model.block_end)
        fail(errc::bad_value,
             concat({"block ", block, " was not converted: these files hold blocks ", model.block_begin, " to ",
                     model.block_end - 1}),
             {.file = files.path, .subject = "layer"});
    held_weights held{storage};
    attention_weights<float> weights_by_role;
    for (const role_row& row : attention_roles)
        if (needs_role(row, wanted)) read_role(row, block, held, weights_by_role);
    return weights_by_role;
}

/// What absorption takes of a block's weights.
inline mla_factors<float> factors_of(attention_weights<float>& w) {
    using enum tensor_role;
    return {.q = std::move(w[q]),
            .q_a = std::move(w[q_a]),
            .q_a_bias = std::move(w.bias(q_a)),
            .q_a_norm = std::move(w.vector(q_a_norm)),
            .q_b = std::move(w[q_b]),
            .kv_a = std::move(w[kv_a]),
            .kv_a_bias = std::move(w.bias(kv_a)),
            .kv_a_norm = std::move(w.vector(kv_a_norm)),
            .kv_b = std::move(w[kv_b])};
}

/// Moves every tensor that the form needs and absorption did not make: gate, sinks, indexer, norms. In latent attention
/// none of them has a bias.
inline void carry_over(attention_weights<float>& stored, const attention_spec& spec, attention_weights<float>& made) {
    for (const role_row& row : attention_roles) {
        if (!row.needed(spec, spec.form) || !made[row.role].empty() || !made.vector(row.role).empty()) continue;
        made[row.role] = std::move(stored[row.role]);
        made.vector(row.role) = std::move(stored.vector(row.role));
    }
}

inline void require_form(const model_config& model, const attention_spec& spec, attention_form form,
                         const std::string& path) {
    if (const std::string_view why = why_not(spec, form); !why.empty())
        fail(errc::unsupported_architecture, "\"" + model.family + "\" " + std::string(why), {.file = path});
}

}  // namespace larql::detail

#endif
