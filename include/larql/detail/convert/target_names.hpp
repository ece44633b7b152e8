// SPDX-License-Identifier: Apache-2.0
//
// What the tensors of a conversion are called, and in which order their rows lie: what another program expects.
#ifndef LARQL_DETAIL_CONVERT_TARGET_NAMES_HPP
#define LARQL_DETAIL_CONVERT_TARGET_NAMES_HPP

#include <larql/attention_spec.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/checkpoint/tensors.hpp>
#include <larql/detail/convert/number_formats.hpp>
#include <larql/detail/model/names.hpp>
#include <larql/error.hpp>
#include <larql/tensor_role.hpp>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace larql::detail {

/// Names in the output: llama.cpp's in published GGUF, and elsewhere the source's own, of GGUF those that the family
/// has in transformers.
class target_names {
public:
    target_names(const checkpoint& source, const conversion_scope& scope)
        : m_source(&source),
          m_gguf(scope.published_gguf()),
          m_matcher(source.family().names, m_gguf ? naming::gguf : naming::safetensors) {}

    /// The name of a tensor, or nothing if the output has none for it.
    [[nodiscard]] std::optional<std::string> find(const tensor_identity& what) const {
        if (m_gguf || m_source->has_gguf_names()) return m_matcher.spell(what, m_gguf ? "" : model_prefix);
        const std::size_t number = is_attention_role(what.role)
                                       ? find_block(m_source->config(), what).value_or(m_source->attention_blocks())
                                       : what.layer;
        std::string name = m_source->tensor_name(what.role, number, what.bias);
        return name.empty() ? std::nullopt : std::optional(std::move(name));
    }

    /// The name of a role of a block by itself, or nothing where the output has it within a fused tensor.
    [[nodiscard]] std::optional<std::string> find_single(tensor_role role, std::size_t block) const {
        if (!m_gguf && !m_source->has_gguf_names()) {
            const auto stored = m_source->locate(role, block);
            if (stored && !stored->joins_kv_b && stored->parts.front().role != role) return std::nullopt;
        }
        return find(identity_of(m_source->spec(block), role));
    }

    [[nodiscard]] std::string at(const tensor_identity& what, std::string_view role_name) const {
        if (auto name = find(what)) return *std::move(name);
        fail(errc::unsupported_architecture,
             "\"" + m_source->config().family + "\" has no name in " + (m_gguf ? "GGUF" : "safetensors") +
                 " for this tensor of an attention block",
             {.file = m_source->shard_path(0), .subject = std::string(role_name) + (what.bias ? " bias" : "")});
    }

private:
    static constexpr std::string_view model_prefix = "model.";

    const checkpoint* m_source;
    bool m_gguf;
    name_matcher m_matcher;
};

/// The pairing of the rotated rows in the model's own safetensors, which GGUF may have stored in another.
inline rope_pairing published_pairing(const checkpoint& source, const attention_spec& spec) {
    const model_family& family = source.family();
    const bool reordered = source.has_gguf_names() && family.stored != gguf_rows::as_published &&
                           spec.geometry.pairing != rope_pairing::none;
    return reordered ? family.pairing : spec.geometry.pairing;
}

/// The pairing of the rotated rows in the family's GGUF.
inline rope_pairing gguf_pairing(const checkpoint& source, const attention_spec& spec) {
    if (source.has_gguf_names() || source.family().stored != gguf_rows::interleaved) return spec.geometry.pairing;
    return rope_pairing::interleaved;
}

}  // namespace larql::detail

#endif
