// SPDX-License-Identifier: Apache-2.0
//
// What the original larql's layout calls its files.
#ifndef LARQL_DETAIL_VINDEX_NAMES_HPP
#define LARQL_DETAIL_VINDEX_NAMES_HPP

#include <string_view>

namespace larql::detail {

inline constexpr std::string_view vindex_index = "index.json";
inline constexpr std::string_view vindex_manifest = "weight_manifest.json";
inline constexpr std::string_view vindex_embeddings = "embeddings.bin";
inline constexpr std::string_view vindex_gates = "gate_vectors.bin";

}  // namespace larql::detail

#endif
