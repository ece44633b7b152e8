// SPDX-License-Identifier: Apache-2.0
//
// The attention tensors of a conversion: a block's weights in the wanted form, role by role.
#ifndef LARQL_DETAIL_CONVERT_ATTENTION_PLANNER_HPP
#define LARQL_DETAIL_CONVERT_ATTENTION_PLANNER_HPP

#include <larql/attention_form.hpp>
#include <larql/attention_spec.hpp>
#include <larql/attention_weights.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/checkpoint/block_weights.hpp>
#include <larql/detail/convert/block_rows.hpp>
#include <larql/detail/convert/conversion_row.hpp>
#include <larql/detail/convert/number_formats.hpp>
#include <larql/detail/convert/row_makers.hpp>
#include <larql/detail/convert/target_names.hpp>
#include <larql/detail/convert/up_projection.hpp>
#include <larql/detail/model/roles.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/matrix_input.hpp>
#include <larql/mla_absorb.hpp>
#include <larql/tensor_role.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace larql::detail {

/// Products are made for so many heads that their rows take about this much: enough work for a matrix product.
inline constexpr std::size_t product_floats = std::size_t{32} << 20;

/// Plans the attention blocks of a conversion.
class attention_planner {
public:
    attention_planner(const checkpoint& source, const conversion_scope& scope)
        : m_source(source), m_scope(scope), m_names(source, scope) {}

    void plan(std::size_t block, std::vector<conversion_row>& rows) const {
        const attention_spec& spec = m_source.spec(block);
        require_form(m_source.config(), spec, m_scope.form, m_source.shard_path(0));
        require_writable(spec);
        const bool changes = m_scope.form != spec.form;
        const attention_weights<float> stored = weights_of(block, changes);
        const attention_weights<float> weights = changes ? beside_products(spec, stored) : published(spec, stored);

        std::map<tensor_role, std::size_t> made;  // by one piece of work: which of its tensors
        conversion_row products;
        for (const role_row& row : attention_roles) {
            if (!row.needed(spec, m_scope.form)) continue;
            if (changes && is_product(row.role)) {
                made.emplace(row.role, products.tensors.size());
                const std::uint64_t cols = size_of(row.cols, spec);
                products.tensors.push_back(
                    planned_role(row, spec, name_at(row.role, block), remade_type(m_scope, true, std::nullopt, cols)));
                plan_bias(row, block, weights.bias(row.role), rows);
            } else if (row.role == tensor_role::kv_b && m_scope.published_gguf() && m_scope.split_kv_b) {
                plan_split(block, weights[tensor_role::kv_b], rows);
            } else {
                plan_role(row, block, weights, rows);
            }
        }
        if (products.tensors.empty()) return;
        products.products = product_work(spec, stored, std::move(made));
        rows.push_back(std::move(products));
    }

private:
    /// What a family publishes in a way that is read and not written.
    void require_writable(const attention_spec& spec) const {
        const model_family& family = m_source.family();
        const bool norms = family.q_norm.own_gains || !family.norm_biases.empty() ||
                           spec.q_norm.gain_offset != family.q_norm.gain_offset;
        if (family.fused == qkv_order::in_turn && family.transposed.empty() && !norms) return;
        fail(errc::unsupported_architecture,
             "larql reads the attention of \"" + std::string(family.name) + "\" and does not write it",
             {.file = m_source.shard_path(0)});
    }

    /// Tensors that absorption computes; the others of a form are stored ones, or parts of them.
    [[nodiscard]] bool is_product(tensor_role role) const noexcept {
        using enum tensor_role;
        constexpr role_set dense{q, k, v}, latent{q, q_b, kv_a, k_b, v_b};
        return (m_scope.form == attention_form::dense ? dense : latent).contains(role);
    }

    [[nodiscard]] std::string name_at(tensor_role role, std::size_t block, bool bias = false) const {
        return m_names.at(identity_of(m_source.spec(block), role, bias), to_string(role));
    }

    // --- one role ---

    /// Where a role's rows lie, if they are the bytes of one tensor.
    [[nodiscard]] std::optional<raw_rows> raw(tensor_role role, std::size_t block) const {
        if (role == tensor_role::kv_a_latent) role = tensor_role::kv_a;  // whose first rows it is
        const auto recipe = m_source.locate(role, block);
        if (!recipe || recipe->joins_kv_b) return std::nullopt;
        const larql::stored_rows& part = recipe->parts.front();
        const bool reordered = role == tensor_role::q_b_raw && m_scope.form != m_source.spec(block).form;
        if (part.runs != 1 || part.columns != 0 || reordered || m_source.spec(block).transposed.contains(part.role))
            return std::nullopt;
        const weight stored = m_source.weights().at(part.name);
        if (stored.raw() == nullptr) return std::nullopt;
        return raw_rows{stored.raw(), part.begin};
    }
    /// The type in which a role is stored by itself or in parts, if it is one.
    [[nodiscard]] std::optional<dtype> stored_type(tensor_role role, std::size_t block) const {
        if (role == tensor_role::kv_a_latent) role = tensor_role::kv_a;
        const auto recipe = m_source.locate(role, block);
        if (!recipe) return std::nullopt;
        std::optional<dtype> type;
        for (const larql::stored_rows& part : recipe->parts) {
            const weight stored = m_source.weights().at(part.name);
            if (stored.raw() == nullptr || (type && *type != stored.type())) return std::nullopt;
            type = stored.type();
        }
        return type;
    }

    void plan_role(const role_row& row, std::size_t block, const attention_weights<float>& weights,
                   std::vector<conversion_row>& rows) const {
        const auto name = m_names.find_single(row.role, block);
        if (!name) return plan_fused(row, block, weights, rows);
        if (row.is_vector()) return plan_vector(*name, weights.vector(row.role), stored_type(row.role, block), rows);
        const attention_spec& spec = m_source.spec(block);
        if (float32_matrices.contains(row.role) && (m_scope.published_gguf() || m_source.has_gguf_names())) {
            const tensor<float, 2> numbers = weights[row.role].to_tensor();
            std::vector<float> values(numbers.begin(), numbers.end());
            const dtype type = small_type(m_scope, true, stored_type(row.role, block), values);
            rows.push_back(small_row(*name, type, {numbers.shape(0), numbers.shape(1)}, std::move(values)));
            return;
        }
        rows.push_back(matrix_row(m_source, m_scope, planned_role(row, spec, *name, dtype::f32),
                                  stored_type(row.role, block), raw(row.role, block), order_of(row.role, spec),
                                  weights[row.role]));
        plan_bias(row, block, weights.bias(row.role), rows);
    }

    void plan_bias(const role_row& row, std::size_t block, const vector_input<float>& bias,
                   std::vector<conversion_row>& rows) const {
        if (!bias.empty()) plan_vector(name_at(row.role, block, true), bias, std::nullopt, rows);
    }

    void plan_vector(std::string name, const vector_input<float>& values, std::optional<dtype> stored,
                     std::vector<conversion_row>& rows) const {
        rows.push_back(small_row(std::move(name), small_type(m_scope, true, stored, values.values()), {values.size()},
                                 values.values()));
    }

    void plan_split(std::size_t block, const matrix_input<float>& joined, std::vector<conversion_row>& rows) const {
        using enum tensor_role;
        const stored_up_projection stored{joined, stored_type(kv_b, block), raw(kv_b, block), raw(k_b, block),
                                          raw(v_b, block)};
        plan_split_kv_b(m_source, m_scope, m_source.spec(block), stored, name_at(k_b, block), name_at(v_b, block),
                        rows);
    }

    /// A role that the output has only within a fused tensor, which its first part plans as a whole.
    void plan_fused(const role_row& row, std::size_t block, const attention_weights<float>& weights,
                    std::vector<conversion_row>& rows) const {
        const attention_spec& spec = m_source.spec(block);
        const auto within = std::ranges::find_if(recipes, [&](const recipe_row& recipe) {
            return recipe.made == row.role && recipe.op == row_op::as_is &&
                   m_names.find(identity_of(spec, recipe.from[0]));
        });
        if (within == std::end(recipes)) {
            // By itself, where it has a name of its own; says what has none.
            rows.push_back(matrix_row(m_source, m_scope, planned_role(row, spec, name_at(row.role, block), dtype::f32),
                                      stored_type(row.role, block), raw(row.role, block), order_of(row.role, spec),
                                      weights[row.role]));
            plan_bias(row, block, weights.bias(row.role), rows);
            return;
        }
        if (rows_before(*within, spec) != 0) return;
        const role_row& fused = *find_role(within->from[0]);
        std::vector<matrix_input<float>> parts;
        std::vector<float> bias;
        for (const recipe_row& recipe : recipes) {  // in the order of their rows
            if (recipe.op != row_op::as_is || recipe.from[0] != fused.role) continue;
            parts.push_back(weights[recipe.made]);
            const std::vector<float>& more = weights.bias(recipe.made).values();
            bias.insert(bias.end(), more.begin(), more.end());
        }
        if (!bias.empty() && bias.size() != size_of(fused.rows, spec))
            fail(errc::missing_tensor, "some of the projections have a bias, and the output has them fused",
                 {.file = m_source.shard_path(0), .subject = std::string(to_string(fused.role))});
        rows.push_back(matrix_row(m_source, m_scope, planned_role(fused, spec, name_at(fused.role, block), dtype::f32),
                                  stored_type(row.role, block), raw(fused.role, block), {}, stacked(std::move(parts))));
        plan_bias(fused, block, bias, rows);
    }

    // --- the weights of a form ---

    /// Stored weights of a block. One that attends to another's latents has no norm of them: where gains are folded
    /// into its up-projection, they are those of the other.
    [[nodiscard]] attention_weights<float> weights_of(std::size_t block, bool folds_gains) const {
        attention_weights<float> weights = m_source.stored_weights(block);
        const attention_spec& spec = m_source.spec(block);
        if (!folds_gains || !spec.shares_latents || !spec.kv_layer) return weights;
        attention_weights<float> other = m_source.stored_weights(m_source.config().kv_block(block));
        weights.vector(tensor_role::kv_a_norm) = std::move(other.vector(tensor_role::kv_a_norm));
        return weights;
    }

    /// The rows of each head of q and k in the output's order, or nothing where it is the stored one.
    [[nodiscard]] std::vector<std::size_t> order_of(tensor_role role, const attention_spec& spec) const {
        if (spec.kind != attention_kind::gqa || m_scope.form != spec.form) return {};
        if (role != tensor_role::q && role != tensor_role::k) return {};
        const rope_pairing wanted =
            m_scope.published_gguf() ? gguf_pairing(m_source, spec) : published_pairing(m_source, spec);
        return wanted == spec.geometry.pairing ? std::vector<std::size_t>{} : head_row_order(spec, wanted);
    }

    /// Stored weights with rows in the output's order.
    [[nodiscard]] attention_weights<float> published(const attention_spec& spec,
                                                     attention_weights<float> weights) const {
        for (const tensor_role role : {tensor_role::q, tensor_role::k}) {
            const std::vector<std::size_t> order = order_of(role, spec);
            if (order.empty()) continue;
            weights[role] = reorder_heads(std::move(weights[role]), order);
            weights.bias(role) = reorder_heads(weights.bias(role), order);
        }
        return weights;
    }

    /// What another form has beside the products: stored rows, and the biases that the products imply.
    [[nodiscard]] attention_weights<float> beside_products(const attention_spec& spec,
                                                           const attention_weights<float>& stored) const {
        using enum tensor_role;
        const mla_geometry& g = spec.geometry;
        attention_weights<float> weights = stored, taken = stored;
        const mla_factors<float> factors = factors_of(taken);
        const absorb_options made;
        reorder_stored_rows(weights, g, head_rows(g, made.order, made.pairing));
        if (m_scope.form == attention_form::latent) {
            weights.bias(kv_a) = permute_kv_a_bias(factors.kv_a_bias, g, head_rows(g, made.order, made.pairing));
            return weights;
        }
        weights[kv_a_latent] = factors.kv_a.row_range(0, g.kv_lora_rank);
        dense_mla<float> biases;
        absorb_biases(factors, g, check_factors(factors, g, 0, g.num_heads), made.order, made.pairing, biases);
        weights.bias(q) = biases.q_bias;
        weights.bias(k) = biases.k_bias;
        weights.bias(v) = biases.v_bias;
        weights.bias(kv_a_latent) = biases.kv_a_bias;
        return weights;
    }

    // --- products ---

    using tensors_by_role = std::map<tensor_role, std::size_t>;

    [[nodiscard]] product_maker product_work(const attention_spec& spec, attention_weights<float> stored,
                                             tensors_by_role made) const {
        const bool dense = m_scope.form == attention_form::dense;
        return [dense, g = spec.geometry, factors = factors_of(stored), made = std::move(made)](product_sink& sink,
                                                                                                executor& threads) {
            if (dense)
                make_dense(factors, g, made, sink, threads);
            else
                make_latent(factors, g, made, sink, threads);
        };
    }

    /// By blocks of heads, so that no layer is ever held as a whole.
    static void make_dense(const mla_factors<float>& factors, const mla_geometry& g, const tensors_by_role& made,
                           product_sink& sink, executor& threads) {
        using enum tensor_role;
        const std::size_t group = g.num_heads / g.kv_heads();
        const std::size_t per_head = (2 * g.qk_head_dim() + g.v_head_dim) * g.hidden_size;
        const std::size_t step = std::max<std::size_t>(product_floats / per_head / group, 1) * group;
        dense_mla<float> part;  // kept from block to block: the system would zero new memory each time
        const auto fit = [&](tensor<float, 2>& made_rows, std::size_t rows) {
            if (made_rows.shape(0) != rows) made_rows = large_matrix<float>(rows, g.hidden_size);
        };
        for (std::size_t head = 0; head < g.num_heads; head += step) {
            const std::size_t heads = std::min(step, g.num_heads - head), kv_heads = heads / group;
            fit(part.q, heads * g.qk_head_dim());
            fit(part.k, kv_heads * g.qk_head_dim());
            fit(part.v, kv_heads * g.v_head_dim);
            absorb_into(factors, g, part.q, part.k, part.v,
                        {.head_begin = head, .head_end = head + heads, .threads = &threads});
            const std::size_t kv_head = head / group;
            sink.rows(made.at(q), head * g.qk_head_dim(), {part.q.data(), part.q.size()}, threads);
            sink.rows(made.at(k), kv_head * g.qk_head_dim(), {part.k.data(), part.k.size()}, threads);
            sink.rows(made.at(v), kv_head * g.v_head_dim, {part.v.data(), part.v.size()}, threads);
        }
    }

    static void make_latent(const mla_factors<float>& factors, const mla_geometry& g, const tensors_by_role& made,
                            product_sink& sink, executor& threads) {
        using enum tensor_role;
        const latent_mla<float> layer = absorb_latent(factors, g, {.threads = &threads});
        const bool direct = g.q_lora_rank == 0;
        const tensor<float, 2>& query = direct ? layer.q : layer.q_b;
        sink.rows(made.at(direct ? q : q_b), 0, {query.data(), query.size()}, threads);
        if (made.contains(kv_a)) sink.rows(made.at(kv_a), 0, {layer.kv_a.data(), layer.kv_a.size()}, threads);
        sink.rows(made.at(k_b), 0, {layer.k_b.data(), layer.k_b.size()}, threads);
        sink.rows(made.at(v_b), 0, {layer.v_b.data(), layer.v_b.size()}, threads);
    }

    const checkpoint& m_source;
    const conversion_scope& m_scope;
    target_names m_names;
};

}  // namespace larql::detail

#endif
