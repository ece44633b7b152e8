// SPDX-License-Identifier: Apache-2.0
//
// What the tensors of a conversion are called, and the row order of the model as published: what another program
// expects of a folder of safetensors.
#ifndef LARQL_DETAIL_CONVERT_TARGET_NAMES_HPP
#define LARQL_DETAIL_CONVERT_TARGET_NAMES_HPP

#include <larql/attention_spec.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/model/names.hpp>
#include <larql/error.hpp>
#include <larql/tensor_role.hpp>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace larql::detail {

/// Names in the output. A safetensors source keeps its own; GGUF's become those that the family has in transformers.
class target_names {
public:
    explicit target_names(const checkpoint& source)
        : m_source(&source), m_matcher(source.family().names, naming::safetensors) {}

    /// The name of a tensor, or nothing if the output has none for it.
    [[nodiscard]] std::optional<std::string> find(const tensor_identity& what) const {
        if (m_source->gguf() != nullptr) return m_matcher.spell(what, gguf_prefix);
        const std::size_t number = is_attention_role(what.role)
                                       ? find_block(m_source->config(), what).value_or(m_source->attention_blocks())
                                       : what.layer;
        std::string name = m_source->tensor_name(what.role, number, what.bias);
        return name.empty() ? std::nullopt : std::optional(std::move(name));
    }

    /// The name of a role of a block by itself, or nothing where the output has it within a fused tensor.
    [[nodiscard]] std::optional<std::string> find_single(tensor_role role, std::size_t block) const {
        if (m_source->gguf() == nullptr) {
            const auto stored = m_source->locate(role, block);
            if (stored && !stored->joins_kv_b && stored->parts.front().role != role) return std::nullopt;
        }
        return find(identity_of(m_source->spec(block), role));
    }

    [[nodiscard]] std::string at(const tensor_identity& what, std::string_view role_name) const {
        if (auto name = find(what)) return *std::move(name);
        fail(errc::unsupported_architecture,
             "\"" + m_source->config().family + "\" has no name in safetensors for this tensor of an attention block",
             {.file = m_source->shard_path(0), .subject = std::string(role_name) + (what.bias ? " bias" : "")});
    }

private:
    static constexpr std::string_view gguf_prefix = "model.";

    const checkpoint* m_source;
    name_matcher m_matcher;
};

/// The pairing of the rotated rows in the model's own safetensors, which GGUF may have stored in another.
inline rope_pairing published_pairing(const checkpoint& source, const attention_spec& spec) {
    const model_family& family = source.family();
    const bool reordered = source.gguf() != nullptr && family.stored == gguf_rows::interleaved &&
                           spec.geometry.pairing == rope_pairing::interleaved;
    return reordered ? family.pairing : spec.geometry.pairing;
}

}  // namespace larql::detail

#endif
