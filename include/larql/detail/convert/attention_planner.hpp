// SPDX-License-Identifier: Apache-2.0
//
// The attention tensors of a conversion: a block's weights in the wanted form, role by role.
#ifndef LARQL_DETAIL_CONVERT_ATTENTION_PLANNER_HPP
#define LARQL_DETAIL_CONVERT_ATTENTION_PLANNER_HPP

#include <larql/attention_form.hpp>
#include <larql/attention_spec.hpp>
#include <larql/attention_weights.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/convert/conversion_job.hpp>
#include <larql/detail/convert/target_names.hpp>
#include <larql/detail/model/roles.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/matrix_input.hpp>
#include <larql/mla_absorb.hpp>
#include <larql/rope.hpp>
#include <larql/tensor_role.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace larql::detail {

/// Products are made for so many heads that their rows take about this much: enough work for a matrix product.
inline constexpr std::size_t product_floats = std::size_t{64} << 20;

/// Which row of a stored head is row i of a head whose rotated rows are paired otherwise.
inline std::vector<std::size_t> head_row_order(const attention_spec& spec, rope_pairing wanted) {
    const mla_geometry& g = spec.geometry;
    std::vector<std::size_t> order(g.qk_head_dim());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const std::vector<std::size_t> rotated = rope_row_order(g.qk_rope_head_dim, g.pairing, wanted);
    for (std::size_t i = 0; i < rotated.size(); ++i) order[rope_begin(g) + i] = rope_begin(g) + rotated[i];
    return order;
}

/// The rows of every head in another order, read whole heads at a time.
inline matrix_input<float> reorder_heads(matrix_input<float> from, std::vector<std::size_t> order) {
    const std::size_t rows = from.rows(), cols = from.cols();
    return matrix_input<float>(
        rows, cols,
        [from = std::move(from), order = std::move(order)](std::size_t begin, std::size_t end, float* out,
                                                           std::size_t stride) {
            const std::size_t dim = order.size(), width = from.cols();
            const std::size_t first = begin / dim * dim, last = std::min((end + dim - 1) / dim * dim, from.rows());
            std::vector<float> heads((last - first) * width);
            from.read_rows(first, last, heads.data(), width);
            for (std::size_t r = begin; r < end; ++r, out += stride)
                std::copy_n(heads.data() + (r / dim * dim + order[r % dim] - first) * width, width, out);
        });
}

inline vector_input<float> reorder_heads(const vector_input<float>& from, std::span<const std::size_t> order) {
    std::vector<float> values(from.size());
    for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = from.data()[i / order.size() * order.size() + order[i % order.size()]];
    return values;
}

/// Plans the attention blocks of a conversion.
class attention_planner {
public:
    attention_planner(const checkpoint& source, const conversion_scope& scope)
        : m_source(source), m_scope(scope), m_names(source) {}

    void plan(std::size_t block, std::vector<conversion_job>& jobs) const {
        using enum tensor_role;
        const attention_spec& spec = m_source.spec(block);
        require_form(m_source.config(), spec, m_scope.form, m_source.shard_path(0));
        require_writable(spec);
        const attention_weights<float> stored = m_source.stored_weights(block);
        const bool changes = m_scope.form != spec.form;
        const attention_weights<float> weights = changes ? beside_products(spec, stored) : published(spec, stored);

        std::map<tensor_role, std::string> made;  // by one piece of work
        std::vector<planned_tensor> products;
        for (const role_row& row : attention_roles) {
            if (!row.needed(spec, m_scope.form)) continue;
            if (changes && is_product(row.role)) {
                products.push_back(
                    planned(row, spec, m_names.at(identity_of(m_source.spec(block), row.role), to_string(row.role))));
                made.emplace(row.role, products.back().name);
                plan_bias(row, block, weights.bias(row.role), jobs);
            } else {
                plan_role(row, block, weights, jobs);
            }
        }
        if (!products.empty()) jobs.push_back({std::move(products), product_work(spec, stored, std::move(made))});
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

    [[nodiscard]] planned_tensor planned(const role_row& row, const attention_spec& spec, std::string name) const {
        const std::uint64_t rows = size_of(row.rows, spec), cols = size_of(row.cols, spec);
        const std::uint64_t heads = spec.geometry.kv_heads();
        if (row.per_head) return {std::move(name), m_scope.type, {heads, rows / heads, cols}};
        return {std::move(name), m_scope.type, {rows, cols}};
    }

    // --- one role ---

    void plan_role(const role_row& row, std::size_t block, const attention_weights<float>& weights,
                   std::vector<conversion_job>& jobs) const {
        const auto name = m_names.find_single(row.role, block);
        if (!name) return plan_fused(row, block, weights, jobs);
        if (row.is_vector()) return plan_vector(*name, weights.vector(row.role), jobs);
        jobs.push_back(matrix_job(planned(row, m_source.spec(block), *name), {weights[row.role]}));
        plan_bias(row, block, weights.bias(row.role), jobs);
    }

    void plan_bias(const role_row& row, std::size_t block, const vector_input<float>& bias,
                   std::vector<conversion_job>& jobs) const {
        if (!bias.empty())
            plan_vector(m_names.at(identity_of(m_source.spec(block), row.role, true), to_string(row.role)), bias, jobs);
    }

    void plan_vector(std::string name, const vector_input<float>& values, std::vector<conversion_job>& jobs) const {
        jobs.push_back(small_job(std::move(name), m_scope.type, {values.size()}, values.values()));
    }

    /// A role that the output has only within a fused tensor, which its first part plans as a whole.
    void plan_fused(const role_row& row, std::size_t block, const attention_weights<float>& weights,
                    std::vector<conversion_job>& jobs) const {
        const auto within = std::ranges::find_if(recipes, [&](const recipe_row& recipe) {
            return recipe.made == row.role && recipe.op == row_op::as_is &&
                   m_names.find(identity_of(m_source.spec(block), recipe.from[0]));
        });
        if (within == std::end(recipes)) {
            // By itself, where it has a name of its own; says what has none.
            std::string name = m_names.at(identity_of(m_source.spec(block), row.role), to_string(row.role));
            jobs.push_back(matrix_job(planned(row, m_source.spec(block), std::move(name)), {weights[row.role]}));
            plan_bias(row, block, weights.bias(row.role), jobs);
            return;
        }
        const attention_spec& spec = m_source.spec(block);
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
        jobs.push_back(matrix_job(
            planned(fused, spec, m_names.at(identity_of(m_source.spec(block), fused.role), to_string(fused.role))),
            std::move(parts)));
        plan_bias(fused, block, bias, jobs);
    }

    // --- the weights of a form ---

    /// Stored weights with rows in the order in which the model was published.
    [[nodiscard]] attention_weights<float> published(const attention_spec& spec,
                                                     attention_weights<float> weights) const {
        const rope_pairing wanted = published_pairing(m_source, spec);
        if (wanted == spec.geometry.pairing || spec.kind != attention_kind::gqa) return weights;
        const std::vector<std::size_t> order = head_row_order(spec, wanted);
        for (const tensor_role role : {tensor_role::q, tensor_role::k}) {
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

    using work = std::function<void(tensor_sink&, executor&)>;
    using names_by_role = std::map<tensor_role, std::string>;

    [[nodiscard]] work product_work(const attention_spec& spec, attention_weights<float> stored,
                                    names_by_role made) const {
        const bool dense = m_scope.form == attention_form::dense;
        return [dense, g = spec.geometry, factors = factors_of(stored), made = std::move(made)](tensor_sink& sink,
                                                                                                executor& threads) {
            if (dense)
                write_dense(factors, g, made, sink, threads);
            else
                write_latent(factors, g, made, sink, threads);
        };
    }

    /// By blocks of heads, so that no layer is ever held as a whole.
    static void write_dense(const mla_factors<float>& factors, const mla_geometry& g, const names_by_role& made,
                            tensor_sink& sink, executor& threads) {
        using enum tensor_role;
        const std::size_t group = g.num_heads / g.kv_heads();
        const std::size_t per_head = (2 * g.qk_head_dim() + g.v_head_dim) * g.hidden_size;
        const std::size_t step = std::max<std::size_t>(product_floats / per_head / group, 1) * group;
        for (std::size_t head = 0; head < g.num_heads; head += step) {
            const dense_mla<float> part = absorb(factors, g,
                                                 {.head_begin = head,
                                                  .head_end = std::min(head + step, g.num_heads),
                                                  .keep_latent_rows = false,
                                                  .threads = &threads});
            sink.numbers(made.at(q), {part.q.data(), part.q.size()});
            sink.numbers(made.at(k), {part.k.data(), part.k.size()});
            sink.numbers(made.at(v), {part.v.data(), part.v.size()});
        }
    }

    static void write_latent(const mla_factors<float>& factors, const mla_geometry& g, const names_by_role& made,
                             tensor_sink& sink, executor& threads) {
        using enum tensor_role;
        const latent_mla<float> layer = absorb_latent(factors, g, {.threads = &threads});
        const bool direct = g.q_lora_rank == 0;
        const tensor<float, 2>& query = direct ? layer.q : layer.q_b;
        sink.numbers(made.at(direct ? q : q_b), {query.data(), query.size()});
        sink.numbers(made.at(kv_a), {layer.kv_a.data(), layer.kv_a.size()});
        sink.numbers(made.at(k_b), {layer.k_b.data(), layer.k_b.size()});
        sink.numbers(made.at(v_b), {layer.v_b.data(), layer.v_b.size()});
    }

    const checkpoint& m_source;
    const conversion_scope& m_scope;
    target_names m_names;
};

}  // namespace larql::detail

#endif
