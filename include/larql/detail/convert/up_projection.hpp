// SPDX-License-Identifier: Apache-2.0
//
// The up-projection of keys and values in the dialect of the output: whole, as kv_b, or as k_b and v_b.
#ifndef LARQL_DETAIL_CONVERT_UP_PROJECTION_HPP
#define LARQL_DETAIL_CONVERT_UP_PROJECTION_HPP

#include <larql/attention_spec.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/convert/block_rows.hpp>
#include <larql/detail/convert/conversion_row.hpp>
#include <larql/detail/convert/number_formats.hpp>
#include <larql/detail/convert/row_makers.hpp>
#include <larql/detail/model/roles.hpp>
#include <larql/dtype.hpp>
#include <larql/matrix_input.hpp>
#include <larql/tensor_role.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace larql::detail {

/// A role's tensor in the output, with the shape that the spec implies.
inline planned_tensor planned_role(const role_row& row, const attention_spec& spec, std::string name, dtype type) {
    const std::uint64_t rows = size_of(row.rows, spec), cols = size_of(row.cols, spec);
    const std::uint64_t heads = spec.geometry.kv_heads();
    if (row.per_head) return {std::move(name), type, {heads, rows / heads, cols}};
    return {std::move(name), type, {rows, cols}};
}

/// Where a role's rows lie in a stored tensor whose bytes alone are the weight.
struct raw_rows {
    const tensor_info* info = nullptr;
    std::uint64_t first = 0;
};

/// Rows copied from `stored` in another order within heads, if their type stays, and encoded if not.
/// @param type  in which the numbers are stored, if it is one
inline conversion_row matrix_row(const checkpoint& source, const conversion_scope& scope, planned_tensor tensor,
                                 std::optional<dtype> type, const std::optional<raw_rows>& stored,
                                 std::vector<std::size_t> order, matrix_input<float> numbers) {
    tensor.type = matrix_type(scope, true, type, tensor.columns());
    if (stored && stored->info->type == tensor.type) {
        row_maker copied = copied_rows(source, *stored->info, stored->first);
        if (!order.empty()) copied = reordered_rows(std::move(copied), tensor.row_bytes(), std::move(order));
        return {.tensors = {std::move(tensor)}, .rows = std::move(copied)};
    }
    tensor.type = remade_type(scope, true, type, tensor.columns());
    const std::string name = tensor.name;
    const dtype made = tensor.type;
    return {.tensors = {std::move(tensor)}, .rows = encoded_rows(std::move(numbers), made, name)};
}

/// What is stored of an up-projection, in whatever dialect.
struct stored_up_projection {
    matrix_input<float> kv_b;
    std::optional<dtype> type;            ///< in which it is stored, if that is one type
    std::optional<raw_rows> whole, k, v;  ///< those whose bytes alone are the weight
};

/// Plans k_b [G, R, N], whose rows are columns of kv_b, and v_b [G, V, R].
inline void plan_split_kv_b(const checkpoint& source, const conversion_scope& scope, const attention_spec& spec,
                            const stored_up_projection& stored, std::string k_name, std::string v_name,
                            std::vector<conversion_row>& rows) {
    const mla_geometry& g = spec.geometry;
    planned_tensor keys = planned_role(*find_role(tensor_role::k_b), spec, std::move(k_name), dtype::f32);
    if (stored.k) {
        rows.push_back(matrix_row(source, scope, std::move(keys), stored.k->info->type, stored.k, {},
                                  keys_of_kv_b(stored.kv_b, g)));
    } else {
        keys.type = remade_type(scope, true, stored.type, keys.columns());
        const dtype made = keys.type;
        const std::string name = keys.name;
        rows.push_back({.tensors = {std::move(keys)},
                        .rows = encoded_rows(keys_of_kv_b(stored.kv_b, g), made, name),
                        .granule = g.kv_lora_rank});
    }

    planned_tensor values = planned_role(*find_role(tensor_role::v_b), spec, std::move(v_name), dtype::f32);
    const dtype kept = matrix_type(scope, true, stored.type, values.columns());
    if (!stored.v && stored.whole && stored.type == kept) {
        values.type = kept;
        row_maker copied = value_rows(copied_rows(source, *stored.whole->info), values.row_bytes(), g);
        rows.push_back({.tensors = {std::move(values)}, .rows = std::move(copied)});
    } else {
        rows.push_back(matrix_row(source, scope, std::move(values),
                                  stored.v ? std::optional(stored.v->info->type) : stored.type, stored.v, {},
                                  values_of_kv_b(stored.kv_b, g)));
    }
}

}  // namespace larql::detail

#endif
