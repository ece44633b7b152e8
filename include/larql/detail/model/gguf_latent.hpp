// SPDX-License-Identifier: Apache-2.0
//
// Sizes of latent attention in a GGUF file. One metadata key has two meanings in different dialects (key_length is 192
// or 576 for DeepSeek-V3), so the sizes come from the tensors, with the metadata held against them.
#ifndef LARQL_DETAIL_MODEL_GGUF_LATENT_HPP
#define LARQL_DETAIL_MODEL_GGUF_LATENT_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/model/gguf_fields.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/names.hpp>
#include <larql/detail/model/roles.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/error.hpp>
#include <larql/gguf.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace larql::detail {

/// Sizes of latent attention from the tensors of a block and the number of heads.
struct latent_sizes {
    std::uint64_t q_rank = 0, kv_rank = 0, nope = 0, rope = 0, value = 0;
};

/// The tensors of one block of a GGUF file, by role.
class gguf_block {
public:
    gguf_block(const gguf_file& file, const name_matcher& names, std::size_t block)
        : m_file(&file), m_names(&names), m_block(block) {}

    [[nodiscard]] const tensor_info* find(tensor_role role) const {
        const auto name = m_names->spell({role, false, m_block, 0}, "");
        return name ? m_file->find_tensor(*name) : nullptr;
    }
    /// "kv_b", "k_b+v_b", "all" or "".
    [[nodiscard]] std::string_view dialect() const {
        const bool whole = find(tensor_role::kv_b) != nullptr;
        const bool split = find(tensor_role::k_b) != nullptr && find(tensor_role::v_b) != nullptr;
        return dialect_name(whole, split);
    }

    /// The sizes that the tensors imply; a contradiction between them is an error.
    /// @param rotates  whether the family does; without, there may be no rows that would
    [[nodiscard]] latent_sizes sizes(std::uint64_t heads, bool rotates) const {
        latent_sizes s;
        s.kv_rank = vector(tensor_role::kv_a_norm).element_count();
        const tensor_info& kv_a = matrix(tensor_role::kv_a);
        if (rotates || kv_a.shape[0] != s.kv_rank) s.rope = subtract(kv_a, kv_a.shape[0], s.kv_rank);
        const bool factored_q = find(tensor_role::q_a) != nullptr;
        if (factored_q) s.q_rank = matrix(tensor_role::q_a).shape[0];
        const tensor_info& q = matrix(factored_q ? tensor_role::q_b : tensor_role::q);
        s.nope = subtract(q, per_head(q, q.shape[0], heads), s.rope);
        const tensor_info& output = matrix(tensor_role::o);
        s.value = per_head(output, output.shape[1], heads);
        return s;
    }

private:
    [[nodiscard]] const tensor_info& vector(tensor_role role) const {
        return m_file->at_tensor(m_names->spell({role, false, m_block, 0}, "").value_or(""));
    }
    [[nodiscard]] error_where where(const tensor_info& info) const {
        return {.file = m_file->shard_path(info.shard), .subject = std::string(info.name)};
    }
    [[nodiscard]] const tensor_info& matrix(tensor_role role) const {
        const tensor_info& info = vector(role);
        if (info.shape.size() != 2)
            fail(errc::shape_mismatch, concat({"expected 2 dimensions, got ", info.shape.size()}), where(info));
        return info;
    }
    [[nodiscard]] std::uint64_t per_head(const tensor_info& info, std::uint64_t whole, std::uint64_t heads) const {
        if (heads == 0 || whole % heads != 0)
            fail(errc::shape_mismatch, concat({"expected a multiple of ", heads, " heads, got ", whole}), where(info));
        return whole / heads;
    }
    [[nodiscard]] std::uint64_t subtract(const tensor_info& info, std::uint64_t whole, std::uint64_t part) const {
        if (whole <= part)
            fail(errc::shape_mismatch, concat({"expected more than ", part, " rows, got ", whole}), where(info));
        return whole - part;
    }

    const gguf_file* m_file;
    const name_matcher* m_names;
    std::size_t m_block;
};

/// The first block that has a tensor of this role, or nothing.
inline std::optional<gguf_block> first_block_with(const gguf_file& file, const name_matcher& names,
                                                  std::uint64_t blocks, tensor_role role) {
    for (std::uint64_t n = 0; n < blocks; ++n) {
        const gguf_block block(file, names, static_cast<std::size_t>(n));
        if (block.find(role) != nullptr) return block;
    }
    return std::nullopt;
}

/// Sizes of latent attention: from the tensors, or without any from the metadata.
inline void read_gguf_latent_sizes(const gguf_file& file, const gguf_fields& fields, const name_matcher& names,
                                   std::uint64_t blocks, model_values& values) {
    key_values& top = values.top;
    const std::uint64_t heads = top.size(model_key::num_attention_heads);
    const auto block = first_block_with(file, names, std::min<std::uint64_t>(blocks, 4096), tensor_role::kv_a);
    latent_sizes s;
    if (block) {
        s = block->sizes(heads, values.family->pairing != rope_pairing::none);
        const std::string_view dialect = block->dialect();
        const std::uint64_t key = s.nope + s.rope;
        fields.cross_check("attention.q_lora_rank", {s.q_rank}, dialect);
        fields.cross_check("attention.kv_lora_rank", {s.kv_rank}, dialect);
        fields.cross_check("rope.dimension_count", {s.rope}, dialect);
        fields.cross_check("attention.key_length_mla", {key}, dialect);
        fields.cross_check("attention.value_length_mla", {s.value}, dialect);
        fields.cross_check("attention.key_length", {key, s.kv_rank + s.rope}, dialect);
        const auto inert = values.family->inert_keys;
        if (std::ranges::find(inert, "attention.value_length") == inert.end())
            fields.cross_check("attention.value_length", {s.value, s.kv_rank}, dialect);
        fields.cross_check("attention.head_count_kv", {1, heads}, dialect);
    } else {
        s.q_rank = fields.integer("attention.q_lora_rank").value_or(0);
        s.kv_rank = fields.required("attention.kv_lora_rank");
        s.rope = fields.required("rope.dimension_count");
        const bool split = fields.integer("attention.key_length_mla").value_or(0) != 0;
        const std::uint64_t key = fields.required(split ? "attention.key_length_mla" : "attention.key_length");
        s.value = fields.required(split ? "attention.value_length_mla" : "attention.value_length");
        s.nope = key > s.rope ? key - s.rope : 0;
    }
    const auto set = [&](model_key key, std::uint64_t value, const char* name) {
        const auto row = std::ranges::find(top_keys, key, &key_row::key);
        if (static_cast<double>(value) < row->low || static_cast<double>(value) > row->high)
            fields.problems().add(errc::bad_value, fields.key(name),
                                  concat({"expected ", shown(row->low), " to ", shown(row->high), ", got ", value}));
        else
            top.set(key, value, fields.key(name));
    };
    set(model_key::q_lora_rank, s.q_rank, "attention.q_lora_rank");
    set(model_key::kv_lora_rank, s.kv_rank, "attention.kv_lora_rank");
    set(model_key::qk_nope_head_dim, s.nope, "attention.key_length");
    set(model_key::qk_rope_head_dim, s.rope, "rope.dimension_count");
    set(model_key::v_head_dim, s.value, "attention.value_length");
    set(model_key::num_key_value_heads, heads, "attention.head_count_kv");
    top.erase(model_key::head_dim);
}

}  // namespace larql::detail

#endif
