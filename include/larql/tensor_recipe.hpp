// SPDX-License-Identifier: Apache-2.0
//
// How a weight of a model's attention is made from what a checkpoint stores.
#ifndef LARQL_TENSOR_RECIPE_HPP
#define LARQL_TENSOR_RECIPE_HPP

#include <larql/tensor_role.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace larql {

/// Rows of a stored weight: those from `begin` to `end` of each of `runs` runs of equal length, and of each the
/// elements from `first_column` on, `columns` of them; 0: all.
struct stored_rows {
    std::string name;
    tensor_role role;
    std::size_t begin = 0, end = 0;
    std::size_t runs = 1;
    std::size_t first_column = 0, columns = 0;
};

/// How a role's rows are made from what a checkpoint stores: the rows of one part as they are, or the join of a k_b and
/// a v_b (see merge_kv_b).
struct tensor_recipe {
    std::vector<stored_rows> parts;
    bool joins_kv_b = false;
};

}  // namespace larql

#endif
