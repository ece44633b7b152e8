// SPDX-License-Identifier: Apache-2.0
//
// The indexers of a model's blocks, from what its configuration states and its family's rule.
#ifndef LARQL_DETAIL_MODEL_INDEXERS_HPP
#define LARQL_DETAIL_MODEL_INDEXERS_HPP

#include <larql/attention_spec.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/model_family.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace larql::detail {

class indexer_resolver {
public:
    indexer_resolver(const model_values& values, config_problems& problems, std::vector<std::string>& not_understood)
        : m_values(values), m_rule(values.family->indexer), m_problems(problems), m_not_understood(not_understood) {}

    /// Sets the indexers of all blocks.
    /// @param layers       of the model, some of which may have no block
    /// @param layer_types  what the configuration calls each layer, or empty
    /// @param k_norm       of the keys, with its eps
    /// @param q_norm       of what queries are made from, likewise
    void set(std::vector<attention_spec>& blocks, std::size_t layers, const std::vector<std::string>& layer_types,
             const norm_spec& k_norm, const norm_spec& q_norm) {
        const indexer_spec base = common(k_norm, q_norm);
        std::vector<std::string> types;
        if (m_rule.blocks == indexer_blocks::indexer_types) types = indexer_types(layers);
        bool first = true;
        for (attention_spec& spec : blocks) {
            const auto is = [&](const std::vector<std::string>& named, auto fits) {
                return spec.layer < named.size() && fits(named[spec.layer]);
            };
            if (m_rule.blocks == indexer_blocks::layer_types && !is(layer_types, is_indexed_type)) continue;
            spec.indexer = base;
            spec.indexer.shared = is(types, [](std::string_view type) { return type == "shared"; });
            require_sizes(spec);
            if (first && spec.indexer.shared)
                m_problems.add(errc::bad_value, m_types_name,
                               concat({"layer ", spec.layer, " is \"shared\", and no block before it has an indexer"}));
            first = false;
        }
    }

private:
    [[nodiscard]] const key_values& top() const noexcept { return m_values.top; }

    [[nodiscard]] std::size_t size(model_key key, std::size_t otherwise) const {
        return top().stated(key) ? top().size(key) : otherwise;
    }

    indexer_spec common(const norm_spec& k_norm, const norm_spec& q_norm) {
        const auto interleave = top().find<bool>(model_key::indexer_rope_interleave);
        if (interleave && *interleave != (m_rule.pairing == rope_pairing::interleaved))
            m_not_understood.push_back(top().name(model_key::indexer_rope_interleave) + " is " +
                                       (*interleave ? "true" : "false") + ", and the indexer of \"" +
                                       std::string(m_values.family->name) + "\" is " +
                                       std::string(to_string(m_rule.pairing)));
        if (!top().find<bool>(model_key::index_kpool_always_select_tail).value_or(true))
            m_not_understood.push_back(top().name(model_key::index_kpool_always_select_tail) +
                                       " is false: tokens before the end of the first pool would see no key");
        return {.top_k = size(model_key::index_topk, m_rule.default_top_k),
                .heads = size(model_key::index_n_heads, m_rule.default_heads),
                .head_dim = size(model_key::index_head_dim, m_rule.default_head_dim),
                .order = m_rule.order,
                .pairing = m_rule.pairing,
                .k_norm = k_norm,
                .from_input = m_rule.from_input,
                .q_norm = q_norm,
                .per_head = m_rule.per_head,
                .pool = std::max<std::size_t>(size(model_key::index_kpool, m_rule.default_pool), 1)};
    }

    void require_sizes(const attention_spec& spec) {
        if (!m_problems.empty()) return;
        const std::pair<model_key, const char*> sizes[] = {{model_key::index_topk, "index_topk"},
                                                           {model_key::index_n_heads, "index_n_heads"},
                                                           {model_key::index_head_dim, "index_head_dim"}};
        for (const auto& [key, name] : sizes)
            if (top().stated(key) && top().size(key) == 0)  // null
                m_problems.add(errc::missing_key, top().name(key, m_values.where + name), "required and null");
        if (spec.indexer.top_k % spec.indexer.pool != 0)
            m_problems.add(errc::bad_value, top().name(model_key::index_topk, m_values.where + "index_topk"),
                           concat({"expected a multiple of the ", spec.indexer.pool, " keys of a pool, got ",
                                   spec.indexer.top_k}));
        if (spec.indexer.head_dim < spec.rope.rotary_dim)
            m_problems.add(errc::bad_value, top().name(model_key::index_head_dim, m_values.where + "index_head_dim"),
                           concat({"expected at least the ", spec.rope.rotary_dim, " elements that rotate, got ",
                                   spec.indexer.head_dim}));
        if (spec.geometry.q_lora_rank == 0 && !m_rule.from_input)
            m_problems.add(errc::bad_value, top().name(model_key::q_lora_rank, m_values.where + "q_lora_rank"),
                           "is null or 0, and the indexer's queries are made from that latent");
    }

    // --- which blocks share ---

    /// "full" or "shared" for each layer: stated, or a pattern, or else one full layer in every period.
    std::vector<std::string> indexer_types(std::size_t layers) {
        const auto stated = top().find<std::vector<std::string>>(model_key::indexer_types);
        const auto pattern = top().find<std::string>(model_key::index_topk_pattern);
        std::vector<std::string> types = stated ? *stated : pattern ? spelled_out(*pattern) : periodic(layers);
        const model_key key = stated ? model_key::indexer_types : model_key::index_topk_pattern;
        m_types_name = top().name(key, m_values.where + "indexer_types");
        if (types.size() != layers)
            m_problems.add(errc::bad_value, m_types_name,
                           concat({"expected ", layers, " entries, got ", types.size()}));
        for (const std::string& type : types)
            if (type != "full" && type != "shared") {
                m_not_understood.push_back(m_types_name + ": indexer type \"" + type + "\" is unknown");
                break;
            }
        return types;
    }

    static std::vector<std::string> spelled_out(std::string_view pattern) {
        std::vector<std::string> types;
        for (const char letter : pattern)
            types.emplace_back(letter == 'F' ? "full" : letter == 'S' ? "shared" : std::string(1, letter));
        return types;
    }

    [[nodiscard]] std::vector<std::string> periodic(std::size_t layers) const {
        const std::size_t period = std::max<std::size_t>(size(model_key::index_topk_freq, m_rule.default_period), 1);
        const std::size_t offset = size(model_key::index_skip_topk_offset, m_rule.default_offset);
        std::vector<std::string> types;
        for (std::size_t layer = 0; layer < layers; ++layer) {
            const std::size_t since = layer + 1 > offset ? layer + 1 - offset : 0;
            types.emplace_back(since % period == 0 ? "full" : "shared");
        }
        return types;
    }

    const model_values& m_values;
    const indexer_rule& m_rule;
    config_problems& m_problems;
    std::vector<std::string>& m_not_understood;
    std::string m_types_name;  // of the key that says which layers share
};

}  // namespace larql::detail

#endif
