// SPDX-License-Identifier: Apache-2.0
//
// Which blocks of a GGUF file have an indexer of their own: those that have its tensors.
#ifndef LARQL_DETAIL_MODEL_GGUF_INDEXER_HPP
#define LARQL_DETAIL_MODEL_GGUF_INDEXER_HPP

#include <larql/detail/model/gguf_fields.hpp>
#include <larql/detail/model/gguf_latent.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/names.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/error.hpp>
#include <larql/gguf.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace larql::detail {

/// The types that `attention.indexer.types` states, as words or as truth values, "full" being true; empty without it.
/// @source llama.cpp llama-hparams.h is_indexer_full_impl
inline std::vector<std::string> stated_gguf_indexer_types(const gguf_fields& fields) {
    constexpr const char* key = "attention.indexer.types";
    const gguf_value* value = fields.find(key);
    if (value == nullptr) return {};
    std::vector<std::string> types;
    const auto word = [](bool full) { return std::string(full ? "full" : "shared"); };
    try {
        switch (value->element_type()) {
            case gguf_type::string: return value->to<std::vector<std::string>>();
            case gguf_type::boolean:
                for (const bool full : value->to<std::vector<bool>>()) types.push_back(word(full));
                return types;
            default:
                for (const std::uint64_t full : value->to<std::vector<std::uint64_t>>())
                    types.push_back(word(full != 0));
                return types;
        }
    } catch (const error& e) {
        fields.problems().add(e.code(), fields.key(key), e.problem());
    }
    return types;
}

/// States `indexer_types` for families whose blocks may share a selection. Files may leave the metadata out; tensors
/// that contradict it are an error. Without either, every block has an indexer of its own, as in llama.cpp. Of layers
/// without attention that selects, the metadata may say either.
inline void read_gguf_indexer_types(const gguf_file& file, const gguf_fields& fields, const name_matcher& names,
                                    key_values& top) {
    const std::size_t blocks = std::min<std::size_t>(top.size(model_key::num_hidden_layers), 4096);
    std::vector<std::string> stated = stated_gguf_indexer_types(fields), types(blocks, "shared");
    bool any = false;
    for (std::size_t b = 0; b < blocks; ++b)
        if (gguf_block(file, names, b).find(tensor_role::indexer_k) != nullptr) {
            types[b] = "full";
            any = true;
        }
    if (!any) types = stated.empty() ? std::vector<std::string>(blocks, "full") : stated;
    if (stated.size() > blocks) stated.resize(blocks);  // with prediction blocks
    for (std::size_t b = 0; b < stated.size(); ++b)
        if (gguf_block(file, names, b).find(tensor_role::kv_a) == nullptr) types[b] = stated[b];
    if (!stated.empty() && stated != types)
        fields.problems().add(errc::shape_mismatch, fields.key("attention.indexer.types"),
                              "metadata and tensors disagree about which blocks have an indexer");
    top.set(model_key::indexer_types, std::move(types), fields.key("attention.indexer.types"));
}

}  // namespace larql::detail

#endif
