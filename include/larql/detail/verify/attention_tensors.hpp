// SPDX-License-Identifier: Apache-2.0
//
// The tensors of an attention block on both sides, role by role: what is stored in the same form, or is the same in
// every form.
#ifndef LARQL_DETAIL_VERIFY_ATTENTION_TENSORS_HPP
#define LARQL_DETAIL_VERIFY_ATTENTION_TENSORS_HPP

#include <larql/attention_spec.hpp>
#include <larql/attention_weights.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/model/roles.hpp>
#include <larql/detail/verify/numbers.hpp>
#include <larql/detail/verify/report.hpp>
#include <larql/rope.hpp>
#include <larql/tensor_role.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace larql::detail {

/// Tensors of latent attention that every form stores as they are.
inline constexpr role_set same_in_every_form{
    tensor_role::q_a,
    tensor_role::o,
    tensor_role::o_a,
    tensor_role::o_b,
    tensor_role::gate,
    tensor_role::sinks,
    tensor_role::indexer_q_b,
    tensor_role::indexer_k,
    tensor_role::indexer_k_norm,
    tensor_role::indexer_k_norm_bias,
    tensor_role::indexer_weights,
    tensor_role::indexer_pool_gate,
    tensor_role::indexer_pool_bias,
    tensor_role::q_a_norm,
};

/// Tensors whose rows or elements follow the order of a head.
inline constexpr role_set in_head_order{tensor_role::q,          tensor_role::k,      tensor_role::q_b,
                                        tensor_role::kv_a,       tensor_role::q_norm, tensor_role::k_norm,
                                        tensor_role::k_rope_norm};
inline constexpr role_set in_indexer_order{tensor_role::indexer_q_b,       tensor_role::indexer_k,
                                           tensor_role::indexer_k_norm,    tensor_role::indexer_k_norm_bias,
                                           tensor_role::indexer_pool_gate, tensor_role::indexer_pool_bias};

/// Row i of the result is row order[i % D] of the same head: the rows of one side in the order of the other.
inline compared_rows in_other_order(compared_rows rows, const std::vector<std::size_t>& order) {
    const auto row_of = [order](std::uint64_t i) { return i / order.size() * order.size() + order[i % order.size()]; };
    rows.read = [read = std::move(rows.read), columns = rows.columns, row_of](std::uint64_t begin, std::uint64_t end,
                                                                              std::span<float> out) {
        for (std::uint64_t r = begin; r < end; ++r)
            read(row_of(r), row_of(r) + 1,
                 out.subspan(static_cast<std::size_t>((r - begin) * columns), static_cast<std::size_t>(columns)));
    };
    if (!rows.bytes || rows.rows == 0) return rows;
    rows.bytes = [bytes = std::move(rows.bytes), row_bytes = rows.size_bytes / rows.rows, row_of](
                     std::uint64_t first, std::span<std::byte> out) {
        while (!out.empty()) {
            const std::uint64_t within = first % row_bytes;
            const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(row_bytes - within, out.size()));
            bytes(row_of(first / row_bytes) * row_bytes + within, out.first(count));
            first += count;
            out = out.subspan(count);
        }
    };
    return rows;
}

/// A block of one side.
struct compared_block {
    const checkpoint& model;
    const attention_spec& spec;
    std::size_t block;
    attention_weights<float> weights;
};

/// Compares the tensors of a block that stand for the same numbers on both sides.
class attention_tensor_comparison {
public:
    attention_tensor_comparison(const checkpoint& a, const checkpoint& b, attention_check& check,
                                std::vector<tensor_check>& out)
        : m_a{a, a.spec(check.block), check.block, a.stored_weights(check.block)},
          m_b{b, b.spec(check.block), check.block, b.stored_weights(check.block)},
          m_containers_differ(a.format() != b.format()),
          m_check(check),
          m_out(out) {}

    void run() {
        for (const role_row& row : attention_roles) {
            if (!row.needed(m_a.spec, m_a.spec.form) || !row.needed(m_b.spec, m_b.spec.form)) continue;
            if (m_a.spec.form != m_b.spec.form && !same_in_every_form.contains(row.role)) continue;
            compare_role(row);
            compare_bias(row);
        }
    }

private:
    void compare_role(const role_row& row) {
        const auto x = m_a.model.locate(row.role, m_a.block), y = m_b.model.locate(row.role, m_b.block);
        if (!x || !y) return;  // the attention says what is missing
        if (order_differs(row.role) && !reorderable(row.role))
            return note(std::string(to_string(row.role)) + " has its rows in another order");
        if (row.is_vector())
            return add(gains_of(m_a, row, *x), gains_of(m_b, row, *y), {.small = true, .gains = m_containers_differ});
        if (x->joins_kv_b && y->joins_kv_b) {
            for (std::size_t i = 0; i < x->parts.size(); ++i) add(whole(m_a, x->parts[i]), whole(m_b, y->parts[i]));
            return;
        }
        compared_rows p = projection(m_a, row, *x), q = projection(m_b, row, *y);
        for (const compared_rows* side : {&p, &q})
            if (side->kind() == dtype_kind::block && side->rearranged)
                return note(side->name + " has blocks of " + side->type_text() + " that lie otherwise");
        if (order_differs(row.role)) q = in_other_order(std::move(q), head_order_of(m_a.spec, m_b.spec));
        add(p, q, {.small = row.role == tensor_role::indexer_weights});
    }

    void compare_bias(const role_row& row) {
        std::vector<float> x = m_a.weights.bias(row.role).values(), y = m_b.weights.bias(row.role).values();
        if (x.empty() && y.empty()) return;
        const auto shown = [&](const compared_block& side) {
            const std::string name = side.model.tensor_name(row.role, side.block, true);
            return name.empty() ? std::string(to_string(row.role)) + " bias" : name;
        };
        if (order_differs(row.role)) {
            if (!reorderable(row.role)) return note(shown(m_a) + " has its elements in another order");
            const std::vector<std::size_t> order = head_order_of(m_a.spec, m_b.spec);
            std::vector<float> ordered(y.size());
            for (std::size_t i = 0; i < y.size(); ++i)
                ordered[i] = y[i / order.size() * order.size() + order[i % order.size()]];
            y = std::move(ordered);
        }
        const compared_rows p = rows_of_vector(std::move(x), bias_type(m_a, row), shown(m_a));
        const compared_rows q = rows_of_vector(std::move(y), bias_type(m_b, row), shown(m_b));
        add(p, q, {.small = true});
    }

    void add(const compared_rows& x, const compared_rows& y, const tensor_facts& facts = {}) {
        m_out.push_back(compare_rows(x, y, facts));
    }
    void note(std::string sentence) { m_check.not_compared.push_back(std::move(sentence)); }

    // --- row orders ---

    [[nodiscard]] bool order_differs(tensor_role role) const {
        const mla_geometry &x = m_a.spec.geometry, &y = m_b.spec.geometry;
        const indexer_spec &p = m_a.spec.indexer, &q = m_b.spec.indexer;
        if (in_indexer_order.contains(role)) return p.order != q.order || p.pairing != q.pairing;
        return in_head_order.contains(role) && (x.order != y.order || x.pairing != y.pairing);
    }
    /// Whether larql can bring the rows into the order of the other side.
    [[nodiscard]] bool reorderable(tensor_role role) const {
        return m_a.spec.kind == attention_kind::gqa && m_a.spec.geometry.order == m_b.spec.geometry.order &&
               (role == tensor_role::q || role == tensor_role::k);
    }
    /// Which row of b's head is row i of a's.
    [[nodiscard]] static std::vector<std::size_t> head_order_of(const attention_spec& a, const attention_spec& b) {
        std::vector<std::size_t> order(a.geometry.qk_head_dim());
        std::iota(order.begin(), order.end(), std::size_t{0});
        const std::vector<std::size_t> rotated =
            rope_row_order(a.geometry.qk_rope_head_dim, b.geometry.pairing, a.geometry.pairing);
        const std::size_t first = rope_begin(a.geometry);
        for (std::size_t i = 0; i < rotated.size(); ++i) order[first + i] = first + rotated[i];
        return order;
    }

    // --- rows of one side ---

    static compared_rows whole(const compared_block& side, const larql::stored_rows& part) {
        return rows_of_weight(side.model, part.name, part.begin, part.end, part.name);
    }

    static compared_rows gains_of(const compared_block& side, const role_row& row, const tensor_recipe& recipe) {
        const std::string& name = recipe.parts.front().name;
        return rows_of_vector(side.weights.vector(row.role).values(), side.model.weights().at(name).type(), name);
    }

    static compared_rows projection(const compared_block& side, const role_row& row, const tensor_recipe& recipe) {
        const larql::stored_rows& first = recipe.parts.front();
        if (recipe.parts.size() == 1 && first.runs == 1 && !side.spec.transposed.contains(first.role))
            return whole(side, first);
        std::string shown;
        dtype type = dtype::f32;
        std::string scheme;
        for (const larql::stored_rows& part : recipe.parts) {
            const weight stored = side.model.weights().at(part.name);
            shown += (shown.empty() ? "" : " + ") + part.name;
            if (shown == part.name || coarser(stored.type(), type)) type = stored.type();
            if (!stored.scheme().empty()) scheme = stored.scheme();
        }
        return rows_of_matrix(side.weights[row.role], type, std::move(scheme), std::move(shown));
    }

    /// Of the types that the parts of one projection may have.
    static bool coarser(dtype a, dtype b) noexcept {
        const auto rank = [](dtype t) {
            return traits_of(t).kind == dtype_kind::block ? 3 : t == dtype::bf16 ? 2 : t == dtype::f16 ? 1 : 0;
        };
        return rank(a) > rank(b);
    }

    /// The type of a stored bias, which may lie within that of a fused projection.
    static dtype bias_type(const compared_block& side, const role_row& row) {
        const auto stored = [&](tensor_role role) -> std::optional<dtype> {
            const std::string name = side.model.tensor_name(role, side.block, true);
            if (name.empty() || !side.model.weights().contains(name)) return std::nullopt;
            return side.model.weights().at(name).type();
        };
        if (const auto own = stored(row.role)) return *own;
        for (const recipe_row& recipe : recipes)
            if (recipe.made == row.role)
                if (const auto fused = stored(recipe.from[0])) return *fused;
        return dtype::f32;
    }

    compared_block m_a, m_b;
    bool m_containers_differ;
    attention_check& m_check;
    std::vector<tensor_check>& m_out;
};

}  // namespace larql::detail

#endif
