// SPDX-License-Identifier: Apache-2.0
//
// What a configuration says of compressed attention: which blocks have entries, of how many tokens, and which of two
// rotary embeddings each block has.
#ifndef LARQL_DETAIL_MODEL_COMPRESSION_HPP
#define LARQL_DETAIL_MODEL_COMPRESSION_HPP

#include <larql/attention_spec.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/model/values.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// A kind of block. The name is that of `layer_types`; `ratio` is what `compress_ratios` calls it by, and its tokens an
/// entry where nothing else is stated.
struct compressed_layer {
    std::string_view name;
    std::uint64_t ratio;
    std::optional<model_key> rate;  ///< the key that states the tokens of an entry
    bool sparse;                    ///< entries overlap, and an indexer chooses among them
};

/// @source transformers 5.24 configuration_deepseek_v4.py
inline constexpr compressed_layer compressed_layers[] = {
    {"sliding_attention", 0, std::nullopt, false},
    {"compressed_sparse_attention", 4, model_key::compress_rate_csa, true},
    {"heavily_compressed_attention", 128, model_key::compress_rate_hca, false},
};

/// Reads what the blocks of a model compress. Problems are collected, and the result is then of no use.
class compression_reader {
public:
    compression_reader(const model_values& values, config_problems& problems, std::vector<std::string>& not_understood)
        : m_values(values), m_problems(problems), m_not_understood(not_understood) {}

    /// One for each block; norms are left to the caller.
    [[nodiscard]] std::vector<compression_spec> blocks(std::size_t count) const {
        std::vector<compression_spec> all(count);
        const auto ratios = top().find<std::vector<double>>(model_key::compress_ratios);
        if (ratios) require_entries(model_key::compress_ratios, ratios->size(), count);
        const std::vector<const compressed_layer*> layers = layers_of(count, ratios);
        if (!m_problems.empty() || layers.size() < count) return all;
        for (std::size_t b = 0; b < count; ++b) {
            compression_spec& block = all[b];
            block.ratio = static_cast<std::size_t>(ratio_of(*layers[b], b, ratios));
            block.overlapping = layers[b]->sparse;
            if (!layers[b]->sparse) continue;
            block.index_heads = required(model_key::index_n_heads, "index_n_heads");
            block.index_head_dim = required(model_key::index_head_dim, "index_head_dim");
            block.index_top_k = required(model_key::index_topk, "index_topk");
            if (!m_problems.empty()) return all;
        }
        return all;
    }

    /// What states the rotary embedding of blocks with entries, or of those without. transformers has two of them:
    /// dictionaries "main" and "compress", or a flat one that scales "compress" alone.
    [[nodiscard]] key_values rope_keys(bool compresses) const {
        const std::string label = compresses ? "compress" : "main";
        key_values keys;
        bool nested = false;
        for (const rope_values& rope : m_values.ropes) {
            nested = nested || !rope.layer_type.empty();
            if (rope.layer_type == label || (rope.layer_type.empty() && compresses)) keys = rope.keys;
        }
        if (!nested && compresses) {
            auto theta = top().find<double>(model_key::compress_rope_theta);
            if (!theta) theta = m_values.family->default_compress_rope_theta;
            const std::string name = top().name(model_key::compress_rope_theta, m_values.where + "compress_rope_theta");
            if (!theta && !top().refused(model_key::compress_rope_theta))
                m_problems.add(errc::missing_key, name, "required and absent");
            keys.set(model_key::rope_theta, theta.value_or(1.0), name);
        }
        // The magnitude of YaRN is 1 unless it is stated: transformers sets attention_factor so.
        if (keys.find<std::string>(model_key::rope_type) == "yarn" && !keys.stated(model_key::rope_attention_factor))
            keys.set(model_key::rope_attention_factor, 1.0, m_values.where + "attention_factor");
        const std::size_t rotated = top().size(model_key::qk_rope_head_dim);
        const bool stated =
            keys.find<double>(model_key::partial_rotary_factor) || top().find<double>(model_key::partial_rotary_factor);
        const double share = rotated == 0 ? m_values.family->default_of(model_key::partial_rotary_factor).value_or(1.0)
                                          : static_cast<double>(rotated) / static_cast<double>(head_dim());
        if (!stated) keys.set(model_key::partial_rotary_factor, share, m_values.where + "partial_rotary_factor");
        return keys;
    }

    /// Reports rope dictionaries of other labels, and a magnitude that nothing says where to apply.
    void check_ropes() const {
        bool main = false, compress = false, nested = false;
        for (const rope_values& rope : m_values.ropes) {
            main = main || rope.layer_type == "main";
            compress = compress || rope.layer_type == "compress";
            nested = nested || !rope.layer_type.empty();
            if (!rope.layer_type.empty() && rope.layer_type != "main" && rope.layer_type != "compress")
                m_not_understood.push_back("rope parameters for \"" + rope.layer_type +
                                           "\" are unknown: expected \"main\" and \"compress\"");
            if (rope.keys.find<double>(model_key::rope_magnitude_factor).value_or(1.0) != 1.0)
                m_not_understood.push_back(rope.keys.name(model_key::rope_magnitude_factor) + " is stated, which \"" +
                                           std::string(m_values.family->name) + "\" does not have");
        }
        if (nested && (!main || !compress))
            m_not_understood.push_back("rope parameters by label have none for \"" +
                                       std::string(main ? "compress" : "main") + "\"");
    }

private:
    [[nodiscard]] const key_values& top() const noexcept { return m_values.top; }
    [[nodiscard]] std::size_t head_dim() const noexcept {
        const std::size_t stated = top().size(model_key::head_dim);
        return std::max<std::size_t>(stated != 0 ? stated : m_values.family->default_head_dim, 1);
    }
    std::size_t required(model_key key, const char* name) const {
        if (!top().find<std::uint64_t>(key) && !top().refused(key))
            m_problems.add(errc::missing_key, top().name(key, m_values.where + name), "required and absent");
        return top().size(key);
    }
    /// A list may have entries for prediction blocks, too, which come last.
    void require_entries(model_key key, std::size_t got, std::size_t count) const {
        if (got < count)
            m_problems.add(errc::bad_value, top().name(key),
                           concat({"expected at least ", count, " entries, got ", got}));
    }

    [[nodiscard]] std::vector<const compressed_layer*> layers_of(
        std::size_t count, const std::optional<std::vector<double>>& ratios) const {
        std::vector<const compressed_layer*> layers;
        if (const auto types = top().find<std::vector<std::string>>(model_key::layer_types)) {
            require_entries(model_key::layer_types, types->size(), count);
            for (const std::string& type : *types) {
                const auto row = std::ranges::find(compressed_layers, type, &compressed_layer::name);
                if (row != std::end(compressed_layers))
                    layers.push_back(&*row);
                else
                    m_problems.add(errc::not_understood, top().name(model_key::layer_types),
                                   "layer type \"" + type + "\" is unknown");
            }
        } else if (ratios) {
            for (const double ratio : *ratios) {
                const auto row = std::ranges::find_if(compressed_layers, [&](const compressed_layer& layer) {
                    return static_cast<double>(layer.ratio) == ratio;
                });
                if (row != std::end(compressed_layers))
                    layers.push_back(&*row);
                else
                    m_problems.add(errc::not_understood, top().name(model_key::compress_ratios),
                                   concat({"expected 0, 4 or 128, which tell the kinds of layers, got ", ratio,
                                           " and no layer_types"}));
            }
        } else {  // two heavy blocks, then every other one sparse
            for (std::size_t b = 0; b < count; ++b) layers.push_back(&compressed_layers[b < 2 || b % 2 == 0 ? 2 : 1]);
        }
        return layers;
    }

    [[nodiscard]] std::uint64_t ratio_of(const compressed_layer& layer, std::size_t block,
                                         const std::optional<std::vector<double>>& ratios) const {
        const auto listed = ratios ? std::optional((*ratios)[block]) : std::nullopt;
        const auto rate = layer.rate ? top().find<std::uint64_t>(*layer.rate) : std::nullopt;
        std::uint64_t ratio = rate.value_or(layer.ratio);
        if (!rate && listed && layer.rate) ratio = static_cast<std::uint64_t>(*listed);
        if (listed && *listed != static_cast<double>(ratio))
            m_problems.add(errc::bad_value, top().name(model_key::compress_ratios),
                           concat({"block ", block, ": expected ", ratio, " for \"", layer.name, "\", got ", *listed}));
        else if (layer.rate && ratio == 0)
            m_problems.add(
                errc::bad_value, top().name(model_key::compress_ratios),
                concat({"block ", block, ": expected at least 1 token an entry for \"", layer.name, "\", got 0"}));
        return ratio;
    }

    const model_values& m_values;
    config_problems& m_problems;
    std::vector<std::string>& m_not_understood;
};

}  // namespace larql::detail

#endif
