// SPDX-License-Identifier: Apache-2.0
//
// Families of multi-head and grouped-query attention. Of one GGUF architecture, the first row is taken.
#ifndef LARQL_DETAIL_MODEL_FAMILIES_GQA_HPP
#define LARQL_DETAIL_MODEL_FAMILIES_GQA_HPP

#include <larql/detail/model/families/gqa_elder.hpp>
#include <larql/detail/model/families/gqa_fused.hpp>
#include <larql/detail/model/families/gqa_hybrid.hpp>
#include <larql/detail/model/families/gqa_mixed.hpp>
#include <larql/detail/model/families/gqa_newer.hpp>
#include <larql/detail/model/families/gqa_normed.hpp>
#include <larql/detail/model/families/gqa_plain.hpp>
#include <larql/detail/model/families/gqa_running.hpp>
#include <larql/detail/model/families/gqa_seeing.hpp>
#include <larql/detail/model/families/gqa_windowed.hpp>
#include <larql/detail/model/families/names.hpp>

namespace larql::detail {

inline constexpr auto gqa_families =
    joined(plain_families, windowed_families, normed_families, fused_families, elder_families, running_families,
           hybrid_families, newer_families, mixed_families, seeing_families);

}  // namespace larql::detail

#endif
