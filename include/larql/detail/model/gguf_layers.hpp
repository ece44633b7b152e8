// SPDX-License-Identifier: Apache-2.0
//
// What a GGUF file states of some layers alone: which have attention, which see a window, heads of their own number or
// size, and rotation of their own.
#ifndef LARQL_DETAIL_MODEL_GGUF_LAYERS_HPP
#define LARQL_DETAIL_MODEL_GGUF_LAYERS_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/model/gguf_fields.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/layers.hpp>
#include <larql/detail/model/names.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/error.hpp>
#include <larql/gguf.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// States the types of layers, of which a file may list those of blocks that predict, too.
inline void set_gguf_layer_types(std::vector<std::string> types, const std::string& name, model_values& values) {
    const std::uint64_t blocks = values.top.size(model_key::num_hidden_layers);
    const std::uint64_t predicting = values.top.size(model_key::num_nextn_predict_layers);
    if (predicting < blocks && types.size() == blocks) types.resize(static_cast<std::size_t>(blocks - predicting));
    values.top.set(model_key::layer_types, std::move(types), name);
}

/// Whether a size is one that a model may have; others are reported.
inline bool is_gguf_size(const gguf_fields& fields, const std::string& name, std::uint64_t size) {
    const bool good = size >= 1 && static_cast<double>(size) <= max_dimension;
    if (!good)
        fields.problems().add(errc::bad_value, name, concat({"expected 1 to ", shown(max_dimension), ", got ", size}));
    return good;
}

/// Layers that have no attention: those of a list, or without key/value heads (llama.cpp conversion/kimi_linear.py,
/// conversion/qwen.py).
inline void read_gguf_layer_types(const gguf_fields& fields, model_values& values) {
    constexpr const char* counts = "attention.head_count_kv";
    if (values.family->block_configs) return;  // see read_gguf_layers
    if (reads_attention_interval(*values.family))
        if (const auto interval = fields.integer(gguf_interval);
            interval && is_gguf_size(fields, fields.key(gguf_interval), *interval))
            values.top.set(model_key::full_attention_interval, *interval, fields.key(gguf_interval));
    const bool listed = values.family->linear_layers && fields.find(gguf_linear_layers) != nullptr;
    const std::string_view name = listed ? gguf_linear_layers : counts;
    const gguf_value* stated = fields.find(name);
    if (stated == nullptr || !stated->is_array()) return;
    const auto numbers = fields.numbers(name);
    if (!numbers || (!listed && std::ranges::find(*numbers, 0.0) == numbers->end())) return;
    if (!values.family->linear_layers) {
        fields.problems().add(errc::unsupported_architecture, fields.key(name), "differs from layer to layer");
        return;
    }
    std::vector<std::string> types;
    for (const double number : *numbers) types.emplace_back((number != 0.0) == listed ? linear_layer : full_layer);
    set_gguf_layer_types(std::move(types), fields.key(name), values);
}

/// Which layers have a window: one flag each, or the number of layers from one without to the next (llama.cpp
/// conversion/gemma.py and llama_hparams::set_swa_pattern, where the last of each such number has none).
inline void read_gguf_windows(const gguf_fields& fields, model_values& values) {
    const model_family& family = *values.family;
    if (!reads_gguf_windows(family)) return;
    const gguf_value* stated = fields.find(gguf_windows);
    std::vector<std::string> types;
    if (stated != nullptr && stated->is_array()) {
        for (const double windowed : fields.numbers(gguf_windows).value_or(std::vector<double>{}))
            types.emplace_back(windowed != 0.0 ? sliding_layer : full_layer);
    } else if (family.windows == window_rule::pattern) {
        const auto period = stated != nullptr ? fields.integer(gguf_windows) : std::nullopt;
        if (period) values.top.set(model_key::sliding_window_pattern, *period, fields.key(gguf_windows));
        return;
    } else if (stated != nullptr || family.gguf_window_period == 0) {
        return fields.problems().add(stated == nullptr ? errc::missing_key : errc::wrong_type, fields.key(gguf_windows),
                                     "expected a flag for each layer");
    } else {
        const bool windowed = values.top.size(model_key::sliding_window) != 0;
        for (std::size_t layer = 0; layer < values.top.size(model_key::num_hidden_layers); ++layer)
            types.emplace_back(windowed && layer % family.gguf_window_period != 0 ? sliding_layer : full_layer);
    }
    set_gguf_layer_types(std::move(types), fields.key(gguf_windows), values);
}

/// Heads of each layer, where a list has them, with the layers that it says to have no attention.
inline void read_gguf_head_counts(const gguf_fields& fields, model_key key, const char* name, model_values& values,
                                  std::vector<key_values>& layers) {
    const auto list = fields.of_layers(name);
    if (!list) return;
    if (list->size() < layers.size())
        return fields.problems().add(errc::bad_value, fields.key(name),
                                     concat({"expected ", layers.size(), " numbers, got ", list->size()}));
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
        const std::uint64_t heads = (*list)[layer];
        const std::string at = concat({fields.key(name), "[", layer, "]"});
        if (heads == 0 && values.family->block_configs) {  // or a linear map in its place
            if (key == model_key::num_key_value_heads) values.without_attention.push_back(layer);
        } else if (is_gguf_size(fields, at, heads)) {
            layers[layer].set(key, heads, at);
        }
    }
}

/// Heads of each layer; of layers with a window their size, where it is their own.
inline void read_gguf_layers(const gguf_fields& fields, model_values& values) {
    if (!reads_gguf_layers(*values.family)) return;
    values.by_layer = true;
    std::vector<key_values> all(values.top.size(model_key::num_hidden_layers));
    read_gguf_head_counts(fields, model_key::num_attention_heads, "attention.head_count", values, all);
    read_gguf_head_counts(fields, model_key::num_key_value_heads, "attention.head_count_kv", values, all);
    const auto types = values.top.find<std::vector<std::string>>(model_key::layer_types);
    if (types && values.family->lists(model_key::global_head_dim)) {
        const std::string name = fields.key("attention.key_length_swa");
        const std::uint64_t own = fields.required("attention.key_length_swa");
        for (const char* same : {"attention.value_length_swa", "rope.dimension_count_swa"})  // they rotate whole
            if (const auto size = fields.integer(same); size && *size != own)
                fields.problems().add(
                    errc::shape_mismatch, fields.key(same),
                    concat({"is ", *size, ", and heads have ", own, " elements in blocks with a window"}));
        if (is_gguf_size(fields, name, own))
            for (std::size_t layer = 0; layer < std::min(all.size(), types->size()); ++layer)
                if ((*types)[layer] == sliding_layer) all[layer].set(model_key::head_dim, own, name);
    }
    std::vector<std::array<std::size_t, 3>> seen;  // layers that are alike are described once
    for (std::size_t layer = 0; layer < all.size(); ++layer) {
        const std::array<std::size_t, 3> sizes{all[layer].size(model_key::num_attention_heads),
                                               all[layer].size(model_key::num_key_value_heads),
                                               all[layer].size(model_key::head_dim)};
        const auto same = static_cast<std::size_t>(std::ranges::find(seen, sizes) - seen.begin());
        if (same == seen.size()) {
            seen.push_back(sizes);
            values.layers.push_back({{}, all[layer]});
        }
        values.layers[same].layers.push_back(layer);
    }
}

/// Whether layers that see all keys have no values of their own: they have no such tensor (Gemma 4).
inline void read_gguf_value_is_key(const gguf_file& file, const name_matcher& names, model_values& values) {
    if (!values.family->lists(model_key::global_head_dim)) return;
    const auto types = values.top.find<std::vector<std::string>>(model_key::layer_types);
    const std::size_t shared = values.top.size(model_key::num_kv_shared_layers);
    for (std::size_t layer = 0; types && layer + shared < types->size(); ++layer) {
        if ((*types)[layer] != full_layer) continue;
        const auto name = names.spell({tensor_role::v, false, layer, 0}, "");
        return values.top.set(model_key::attention_k_eq_v, name && file.find_tensor(*name) == nullptr, "attn_v");
    }
}

/// Rotation by layer type: what is stated for all layers is that of those that see all keys.
inline void split_gguf_ropes(const gguf_fields& fields, model_values& values) {
    const model_family& family = *values.family;
    if (!reads_gguf_ropes(family)) return;
    rope_values& full = values.ropes.front();
    full.layer_type = full_layer;
    std::uint64_t head = values.top.size(model_key::head_dim);
    if (head == 0 && values.top.size(model_key::num_attention_heads) != 0)
        head = values.top.size(model_key::hidden_size) / values.top.size(model_key::num_attention_heads);
    const std::uint64_t stated = values.top.size(model_key::rotary_dim);
    const std::uint64_t rotated = stated != 0 ? stated : head;
    if (family.gguf_full_share != 1.0) {
        const auto some = static_cast<std::uint64_t>(static_cast<double>(rotated) * family.gguf_full_share);
        full.keys.set(model_key::rotary_dim, some, fields.key("rope.dimension_count"));
        auto divisors = full.keys.find<std::vector<double>>(model_key::rope_divisors);
        if (divisors && divisors->size() > some / 2) {  // the others are those of elements that do not rotate
            const std::string name = full.keys.name(model_key::rope_divisors);
            if (std::any_of(divisors->begin() + static_cast<std::ptrdiff_t>(some / 2), divisors->end(),
                            [](double divisor) { return divisor != 1.0; }))
                full.not_understood.push_back(name + " divides frequencies of elements that do not rotate");
            divisors->resize(static_cast<std::size_t>(some / 2));
            full.keys.set(model_key::rope_divisors, std::move(*divisors), name);
        }
    }
    const auto types = values.top.find<std::vector<std::string>>(model_key::layer_types);
    if (!types || std::ranges::find(*types, sliding_layer) == types->end()) return;
    rope_values sliding;
    sliding.layer_type = sliding_layer;
    const std::string name = fields.key("rope.freq_base_swa");
    sliding.keys.set(model_key::rope_type, std::string("default"), name);
    const auto base = fields.number("rope.freq_base_swa");
    if (!base)
        fields.problems().add(errc::missing_key, name, "required and absent");
    else if (!(*base >= above_zero && *base <= any_finite))
        fields.problems().add(errc::bad_value, name, "expected a base above 0, got " + shown(*base));
    else
        sliding.keys.set(model_key::rope_theta, *base, name);
    if (!family.lists(model_key::global_head_dim))
        sliding.keys.set(model_key::rotary_dim, fields.integer("rope.dimension_count_swa").value_or(rotated),
                         fields.key("rope.dimension_count_swa"));
    values.ropes.push_back(std::move(sliding));
}

/// What the architecture's graph has as a constant, and a file therefore not as a key.
inline void set_gguf_constants(const gguf_fields& fields, model_values& values) {
    for (const auto& [key, value] : values.family->gguf_assumed) {
        if (values.top.stated(key)) continue;
        const key_row& row = *std::ranges::find(top_keys, key, &key_row::key);
        const std::string name = fields.prefix() + std::string(row.hf[0]);
        if (row.type == value_type::flag)
            values.top.set(key, value != 0.0, name);
        else if (row.type == value_type::integer)
            values.top.set(key, static_cast<std::uint64_t>(value), name);
        else
            values.top.set(key, value, name);
    }
    if (values.family->gguf_one_base && !values.top.stated(model_key::rope_local_theta))
        if (const auto base = values.top.find<double>(model_key::rope_theta))
            values.top.set(model_key::rope_local_theta, *base, values.top.name(model_key::rope_theta));
    if (values.family->lists(model_key::position_type))  // the switch of rotation (llama.cpp granite-hybrid.cpp)
        values.top.set(model_key::position_type,
                       std::string(fields.flag("rope.scaling.finetuned").value_or(true) ? "rope" : "nope"),
                       fields.key("rope.scaling.finetuned"));
    else if (values.family->scale == scale_rule::stated && !fields.flag("rope.scaling.finetuned").value_or(true))
        values.not_understood.push_back(fields.key("rope.scaling.finetuned") + " is false, and \"" +
                                        std::string(values.family->name) + "\" rotates");
    if (values.family->windows == window_rule::chunks && fields.find("attention.sliding_window") != nullptr)
        values.not_understood.push_back(fields.key("attention.sliding_window") + " is stated, and chunks are known");
}

/// Whether heads are normed, where a file shows it by nothing but the number of experts.
inline void read_gguf_unseen_norms(model_values& values) {
    const model_family& family = *values.family;
    if (family.gguf_normed_experts == 0) return;
    const std::size_t experts = values.top.size(model_key::n_routed_experts);
    values.top.erase(model_key::qk_norm);
    if (experts == family.gguf_normed_experts || experts == family.gguf_unnormed_experts)
        values.top.set(model_key::qk_norm, experts == family.gguf_normed_experts, "expert_count");
}

}  // namespace larql::detail

#endif
