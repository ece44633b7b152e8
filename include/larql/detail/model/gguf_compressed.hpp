// SPDX-License-Identifier: Apache-2.0
//
// Sizes of compressed attention in a GGUF file. Its dialects leave out several keys, which the tensors imply: what kind
// a block is of, they alone say.
#ifndef LARQL_DETAIL_MODEL_GGUF_COMPRESSED_HPP
#define LARQL_DETAIL_MODEL_GGUF_COMPRESSED_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/model/compression.hpp>
#include <larql/detail/model/gguf_fields.hpp>
#include <larql/detail/model/names.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/error.hpp>
#include <larql/gguf.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// Reads the sizes of compressed attention from the tensors of a file, and holds its metadata against them.
class gguf_compressed_reader {
public:
    gguf_compressed_reader(const gguf_file& file, const gguf_fields& fields, const name_matcher& names, key_values& top)
        : m_fields(fields), m_top(top) {
        // Dialects have several names for a role: the tensors' own names say which are there.
        for (const tensor_info& info : file.tensors())
            if (const auto found = names.match(info.name); found && is_attention_role(found->identity.role))
                m_found.push_back({found->identity, &info});
    }

    void read(std::size_t blocks) {
        read_head();
        read_output();
        read_layers(blocks);
        read_index();
    }

private:
    [[nodiscard]] const tensor_info* find(tensor_role role, std::size_t block) const {
        for (const auto& [what, info] : m_found)
            if (what.role == role && what.layer == block && !what.bias) return info;
        return nullptr;
    }
    /// Of the first block that has it.
    [[nodiscard]] const tensor_info* find(tensor_role role) const {
        const tensor_info* first = nullptr;
        std::size_t block = 0;
        for (const auto& [what, info] : m_found)
            if (what.role == role && !what.bias && (first == nullptr || what.layer < block)) {
                first = info;
                block = what.layer;
            }
        return first;
    }
    void set_absent(model_key key, std::uint64_t value, const char* name) {
        if (!m_top.stated(key) && value != 0) m_top.set(key, value, m_fields.key(name));
    }

    void read_head() {
        if (const tensor_info* gains = find(tensor_role::k_norm))
            set_absent(model_key::head_dim, gains->columns(), "attention.key_length");
        m_fields.cross_check("attention.value_length", {m_top.size(model_key::head_dim)}, "");
        if (const std::uint64_t rotated = m_fields.required("rope.dimension_count"))
            m_top.set(model_key::qk_rope_head_dim, rotated, m_fields.key("rope.dimension_count"));
        const tensor_info* q_a = find(tensor_role::q_a);
        const std::uint64_t rank = q_a != nullptr ? q_a->rows() : m_fields.required("attention.q_lora_rank");
        m_fields.cross_check("attention.q_lora_rank", {rank}, "");
        if (rank != 0) m_top.set(model_key::q_lora_rank, rank, m_fields.key("attention.q_lora_rank"));
    }

    void read_output() {
        const std::uint64_t attended = m_top.size(model_key::num_attention_heads) * m_top.size(model_key::head_dim);
        if (const tensor_info* o_a = find(tensor_role::o_a); o_a != nullptr && o_a->columns() != 0)
            set_absent(model_key::o_groups, attended / o_a->columns(), "attention.output_group_count");
        const std::uint64_t groups = m_top.size(model_key::o_groups);
        if (const tensor_info* o_b = find(tensor_role::o_b); o_b != nullptr && groups != 0)
            set_absent(model_key::o_lora_rank, o_b->columns() / groups, "attention.output_lora_rank");
    }

    void read_layers(std::size_t blocks) {
        if (m_found.empty()) return;  // metadata alone: `compress_ratios` tells the kinds
        constexpr const char* key = "attention.compress_ratios";
        const auto stated = m_top.find<std::vector<double>>(model_key::compress_ratios);
        std::vector<std::string> types;
        std::vector<double> ratios;
        std::set<double> rates[2];
        for (std::size_t b = 0; b < blocks; ++b) {
            const tensor_info* position = find(tensor_role::compressor_position, b);
            const bool sparse = find(tensor_role::indexer_q_b, b) != nullptr;
            types.emplace_back(compressed_layers[position == nullptr ? 0 : sparse ? 1 : 2].name);
            ratios.push_back(position == nullptr ? 0.0 : static_cast<double>(position->rows()));
            if (position != nullptr) rates[sparse ? 0 : 1].insert(ratios.back());
            if (stated && b < stated->size() && (*stated)[b] != ratios.back())
                m_fields.problems().add(errc::shape_mismatch, m_fields.key(key),
                                        concat({"metadata says ", shown((*stated)[b]), " for block ", b,
                                                ", tensors imply ", shown(ratios.back())}));
        }
        m_top.set(model_key::layer_types, std::move(types), m_fields.key(key));
        m_top.set(model_key::compress_ratios, std::move(ratios), m_fields.key(key));
        // One number of tokens for each kind of layer is what transformers has words for.
        if (rates[0].size() > 1 || rates[1].size() > 1) return;
        constexpr model_key rate_keys[] = {model_key::compress_rate_csa, model_key::compress_rate_hca};
        for (std::size_t i = 0; i < 2; ++i)
            if (!rates[i].empty())
                m_top.set(rate_keys[i], static_cast<std::uint64_t>(*rates[i].begin()), m_fields.key(key));
        m_top.erase(model_key::compress_ratios);
    }

    void read_index() {
        if (const tensor_info* gains = find(tensor_role::indexer_compressor_norm))
            set_absent(model_key::index_head_dim, gains->columns(), "attention.indexer.key_length");
        const std::uint64_t size = m_top.size(model_key::index_head_dim);
        if (const tensor_info* q = find(tensor_role::indexer_q_b); q != nullptr && size != 0)
            set_absent(model_key::index_n_heads, q->rows() / size, "attention.indexer.head_count");
    }

    const gguf_fields& m_fields;
    key_values& m_top;
    std::vector<std::pair<tensor_identity, const tensor_info*>> m_found;
};

}  // namespace larql::detail

#endif
