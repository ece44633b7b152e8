// SPDX-License-Identifier: Apache-2.0
//
// The families that larql knows. Adding one is a row in one of these files.
#ifndef LARQL_DETAIL_MODEL_FAMILIES_HPP
#define LARQL_DETAIL_MODEL_FAMILIES_HPP

#include <larql/detail/model/families/compressed.hpp>
#include <larql/detail/model/families/gqa.hpp>
#include <larql/detail/model/families/indexed.hpp>
#include <larql/detail/model/families/mla.hpp>
#include <larql/detail/model/families/mla_hybrid.hpp>
#include <larql/detail/model/families/refused.hpp>

namespace larql::detail {

inline constexpr auto families =
    joined(gqa_families, mla_families, mla_hybrid_families, indexed_families, compressed_families, refused_families);

}  // namespace larql::detail

#endif
