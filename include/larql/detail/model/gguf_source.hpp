// SPDX-License-Identifier: Apache-2.0
//
// A GGUF file's metadata as stated values: the key rows, and what they cannot say. Scaling of Llama 3 and of longrope
// is stored as tensors; what config.json says in words, GGUF says by having a tensor.
#ifndef LARQL_DETAIL_MODEL_GGUF_SOURCE_HPP
#define LARQL_DETAIL_MODEL_GGUF_SOURCE_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/model/gguf_compressed.hpp>
#include <larql/detail/model/gguf_fields.hpp>
#include <larql/detail/model/gguf_indexer.hpp>
#include <larql/detail/model/gguf_latent.hpp>
#include <larql/detail/model/gguf_layers.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/layers.hpp>
#include <larql/detail/model/names.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/error.hpp>
#include <larql/ggml_blocks.hpp>
#include <larql/gguf.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// The scoring of experts that a file shows, by its key or by the bias that came with sigmoid scoring: it tells
/// DeepSeek-V3 and its relatives from V2, which share an architecture name.
inline std::string_view gguf_routing(const gguf_file& file, const gguf_fields& fields) {
    if (const auto scoring = fields.integer("expert_gating_func")) return *scoring == 2 ? "sigmoid" : "softmax";
    for (const tensor_info& info : file.tensors())
        if (info.name.find("exp_probs_b") != std::string_view::npos) return "sigmoid";
    return "softmax";
}

/// The tokens of a file's vocabulary, by any of the places that tell; 0 if none does.
inline std::uint64_t gguf_vocabulary(const gguf_file& file, const gguf_fields& fields) {
    if (const gguf_value* tokens = file.find_value("tokenizer.ggml.tokens"); tokens != nullptr && tokens->is_array())
        return tokens->count();
    const tensor_info* embedding = file.find_tensor("token_embd.weight");
    if (embedding != nullptr && !embedding->shape.empty()) return embedding->shape.front();
    return fields.integer("vocab_size").value_or(0);
}

/// Whether a file has what tells a row from others of its architecture.
inline bool gguf_shows(const gguf_file& file, const gguf_fields& fields, const model_family& row) {
    if (row.gguf_vocabulary != 0 && row.gguf_vocabulary != gguf_vocabulary(file, fields)) return false;
    if (row.windows == window_rule::pattern && fields.says_none("attention.sliding_window")) return false;
    const tensor_info* gate = file.find_tensor("blk.0.attn_gate.weight");
    if (!row.head_counts || gate == nullptr || gate->shape.empty()) return true;
    const tensor_info* output = file.find_tensor("blk.0.attn_output.weight");  // its columns: the heads' outputs
    const bool whole = output != nullptr && gate->shape.front() == output->columns();
    return whole == (row.gate == output_gate::per_element);
}

/// The family of a GGUF architecture, or null.
inline const model_family* find_gguf_family(std::span<const model_family> rows, const gguf_file& file,
                                            std::string_view architecture) {
    config_problems ignored;
    const gguf_fields fields(file, architecture, ignored);
    const auto named = [&](const model_family& row) {
        return !row.params_json && row.gguf_architecture == architecture;
    };
    const bool alone = std::ranges::count_if(rows, named) == 1;
    const auto routed = [&](const model_family& row) {
        return named(row) && (alone || ((row.routing.empty() || row.routing == gguf_routing(file, fields)) &&
                                        gguf_shows(file, fields, row)));
    };
    const auto best = std::ranges::find_if(rows, routed);
    return best != rows.end() ? &*best : nullptr;
}

/// The divisors that a small tensor holds, one for each of the frequencies.
inline std::vector<double> read_gguf_factors(const gguf_file& file, const tensor_info& stored) {
    // Held against the sizes before it is decoded: no model has more frequencies than this.
    constexpr std::uint64_t most = 1 << 19;
    const dtype_kind kind = traits_of(stored.type).kind;
    if (stored.element_count() > most || kind != dtype_kind::floating)
        fail(errc::bad_value,
             concat({"expected at most ", most, " numbers, got ", stored.element_count(), " of type ",
                     to_string(stored.type)}),
             {.file = file.shard_path(stored.shard), .subject = std::string(stored.name)});
    std::vector<std::byte> bytes(static_cast<std::size_t>(stored.size_bytes));
    file.read_bytes(stored, 0, bytes);
    std::vector<float> factors(static_cast<std::size_t>(stored.element_count()));
    dequantize(stored.type, bytes, factors);
    return {factors.begin(), factors.end()};
}

/// The rotary embedding, in the words of a rope dictionary.
inline void read_gguf_rope(const gguf_file& file, const gguf_fields& fields, const gguf_values_reader& reader,
                           const name_matcher& names, model_values& values) {
    rope_values result;
    key_values& rope = result.keys;
    reader.read(rope_keys, rope);
    const auto set_type = [&](const char* type) {
        rope.set(model_key::rope_type, std::string(type), fields.key("rope.scaling.type"));
    };
    const auto factors = [&](tensor_role role, model_key key) {
        const auto name = names.spell({role, false, 0, 0}, "");
        const tensor_info* stored = name ? file.find_tensor(*name) : nullptr;
        if (stored != nullptr) rope.set(key, read_gguf_factors(file, *stored), std::string(stored->name));
        return stored != nullptr;
    };
    const bool untyped = !rope.stated(model_key::rope_type) && !fields.says_none("rope.scaling.factor", 1.0);
    if (untyped && values.family->kind == attention_kind::compressed) {
        // Its programs scale by YaRN without asking; keys of YaRN say that the file means it, too.
        if (!rope.stated(model_key::rope_beta_fast) && !rope.stated(model_key::rope_beta_slow))
            result.not_understood.push_back(fields.key("rope.scaling.factor") +
                                            " is stated without a rope.scaling.type");
        set_type("yarn");
    }
    const std::string type = rope.find<std::string>(model_key::rope_type).value_or("linear");  // llama.cpp's default
    const double factor = rope.find<double>(model_key::rope_factor).value_or(1.0);
    if (type == "none" || (type == "linear" && factor == 1.0))
        set_type("default");
    else if (!rope.stated(model_key::rope_type))
        set_type("linear");
    const auto refuse = [&](const std::string& sentence) { result.not_understood.push_back(sentence); };
    const auto name_of = [&](model_key key) { return rope.name(key, fields.key("rope.scaling.type")); };
    if (type != "none" && type != "linear" && type != "yarn" && type != "longrope")
        refuse(name_of(model_key::rope_type) + ": GGUF has no rope type \"" + type + "\"");
    // transformers would derive it; llama.cpp does not scale.
    if (type == "yarn" && !rope.stated(model_key::rope_factor))
        rope.set(model_key::rope_factor, 1.0, fields.key("rope.scaling.factor"));
    const bool scaled = type == "yarn" || (type != "none" && factor != 1.0);
    const bool divided = factors(tensor_role::rope_divisors, model_key::rope_divisors);
    if (divided) set_type("divisors");
    const bool lengthening = factors(tensor_role::rope_long_factors, model_key::rope_long_factor);
    if (factors(tensor_role::rope_short_factors, model_key::rope_short_factor) || lengthening) {
        if (divided) refuse("rope_freqs.weight stands beside rope_factors_long and rope_factors_short");
        if (scaled)
            refuse(name_of(model_key::rope_factor) + " scales what rope_factors_long and rope_factors_short divide");
        set_type("longrope");
        // The magnitude is what attn_factor says, and 1 without it.
        rope.set(model_key::rope_attention_factor, 1.0, "rope_factors");
        if (!rope.stated(model_key::rope_original_max_position))
            if (const config_value* context = values.top.value(model_key::max_position_embeddings))
                rope.set(model_key::rope_original_max_position, *context, fields.key("context_length"));
    }
    if (divided && scaled) refuse(name_of(model_key::rope_factor) + " scales what rope_freqs.weight divides");
    // llama.cpp scales the softmax by it, too.
    if (values.family->scale == scale_rule::yarn_mscale &&
        rope.find<double>(model_key::rope_magnitude_factor).value_or(1.0) != 1.0)
        refuse(rope.name(model_key::rope_magnitude_factor) + " is stated, which \"" + std::string(values.family->name) +
               "\" does not have");
    if (const auto multiplier = rope.find<double>(model_key::rope_mscale_all_dim)) {
        if (values.family->gguf_log_multiplier == 0.0)
            refuse(rope.name(model_key::rope_mscale_all_dim) + " is stated, which \"" +
                   std::string(values.family->name) + "\" does not have");
        // mscale is never stored; it equals mscale_all_dim in every published model.
        const double mscale =
            decimal_of_float(static_cast<float>(*multiplier / std::max(values.family->gguf_log_multiplier, 0.1)));
        const std::string name = rope.name(model_key::rope_mscale_all_dim);
        rope.set(model_key::rope_mscale, mscale, name);
        rope.set(model_key::rope_mscale_all_dim, mscale, name);
    }
    values.ropes.push_back(std::move(result));
}

/// The temperature of queries, where the architecture's graph applies it.
inline void read_gguf_temperature(const gguf_fields& fields, model_values& values) {
    const bool scaled = !fields.says_none("attention.temperature_scale");
    const bool by_original = values.family->gguf_temperature_by_original;
    if (!scaled) {
        if (by_original) values.top.set(model_key::temperature_scale, 0.0, fields.key("attention.temperature_scale"));
        return;
    }
    if (!values.family->gguf_temperature && !by_original) {
        values.not_understood.push_back(fields.key("attention.temperature_scale") + " is stated, which \"" +
                                        std::string(values.family->name) + "\" does not have");
        return;
    }
    if (const auto scale = fields.number("attention.temperature_scale"))
        values.top.set(model_key::temperature_scale, *scale, fields.key("attention.temperature_scale"));
    const char* of_length = by_original ? "rope.scaling.original_context_length" : "attention.temperature_length";
    if (const std::uint64_t length = fields.required(of_length))
        values.top.set(model_key::temperature_length, static_cast<double>(length), fields.key(of_length));
}

/// Plain attention: what the architecture fixes is held against what the file says.
inline void check_gguf_heads(const gguf_fields& fields, model_values& values) {
    const std::uint64_t heads = values.top.size(model_key::num_attention_heads);
    std::uint64_t head_dim = values.top.size(model_key::head_dim);
    if (head_dim == 0 && heads != 0) head_dim = values.top.size(model_key::hidden_size) / heads;
    const auto require = [&](const char* key) {
        const auto stated = fields.integer(key);
        if (!stated || *stated == head_dim || head_dim == 0) return;
        fields.problems().add(errc::shape_mismatch, fields.key(key),
                              concat({"is ", *stated, ", and heads have ", head_dim, " elements: \"",
                                      values.family->name, "\" rotates and weighs all of them"}));
    };
    if (!values.family->partial_rotary || values.family->share_of_proportional)
        require("rope.dimension_count");
    else if (const auto rotated = fields.integer("rope.dimension_count"))
        values.top.set(model_key::rotary_dim, *rotated, fields.key("rope.dimension_count"));
    const std::uint64_t value = fields.integer("attention.value_length").value_or(head_dim);
    const std::string name = fields.key("attention.value_length");
    if (!values.family->lists(model_key::v_head_dim))
        require("attention.value_length");
    else if (is_gguf_size(fields, name, value))
        values.top.set(model_key::v_head_dim, value, name);
}

/// Whether the file has biases that config.json would state with `attention_bias`.
inline bool has_biases(const gguf_file& file, const name_matcher& names, const model_values& values) {
    const std::uint64_t blocks = std::min<std::uint64_t>(values.top.size(model_key::num_hidden_layers), 4096);
    for (std::size_t role = 0; role < tensor_role_count; ++role) {
        if (!values.family->biases_by_key.contains(static_cast<tensor_role>(role))) continue;
        for (std::size_t block = 0; block < blocks; ++block) {
            const auto name = names.spell({static_cast<tensor_role>(role), true, block, 0}, "");
            if (name && file.find_tensor(*name) != nullptr) return true;
        }
    }
    return false;
}

/// Numbers that files of a family state and config.json does not: another would be another model.
inline void check_gguf_constants(const gguf_fields& fields, model_values& values) {
    for (const fixed_number& fixed : values.family->gguf_output.stated)
        if (const auto stated = fields.number(fixed.name); stated && *stated != fixed.value)
            values.not_understood.push_back(fields.key(fixed.name) + " is " + shown(*stated) + ", and \"" +
                                            std::string(values.family->name) + "\" has " + shown(fixed.value));
}

/// The pairing of the rows of q and k in this file.
inline rope_pairing stored_gguf_pairing(const gguf_fields& fields, const model_family& family) {
    if (family.stored == gguf_rows::interleaved) return rope_pairing::interleaved;
    const bool halved =
        family.stored == gguf_rows::halved_with_sections && fields.find("rope.dimension_sections") != nullptr;
    return halved ? rope_pairing::half_split : family.pairing;
}

/// Reads a GGUF file's metadata.
inline void read_gguf_values(const gguf_file& file, std::string_view architecture, config_problems& problems,
                             model_values& values) {
    const gguf_fields fields(file, architecture, problems);
    const name_matcher names(values.family->names, naming::gguf);
    const gguf_values_reader reader(file, fields, values);
    values.where = fields.prefix();
    values.from_gguf = true;
    values.class_defaults = false;
    reader.read(top_keys, values.top);
    reader.report_unclaimed();

    read_gguf_layer_types(fields, values);
    read_gguf_windows(fields, values);
    const std::uint64_t blocks = values.top.size(model_key::num_hidden_layers);  // with prediction blocks
    const std::uint64_t predicting = values.top.size(model_key::num_nextn_predict_layers);
    if (predicting != 0 && blocks > predicting)
        values.top.set(model_key::num_hidden_layers, blocks - predicting, fields.key("block_count"));
    if (values.family->kind == attention_kind::mla)
        read_gguf_latent_sizes(file, fields, names, blocks, values);
    else if (values.family->kind == attention_kind::compressed)
        gguf_compressed_reader(file, fields, names, values.top).read(values.top.size(model_key::num_hidden_layers));
    else
        check_gguf_heads(fields, values);
    if (reads_indexer_types(*values.family)) read_gguf_indexer_types(file, fields, names, values.top);
    if (values.family->windows == window_rule::from_block && values.top.size(model_key::sliding_window) != 0)
        values.not_understood.push_back(values.top.name(model_key::sliding_window) +
                                        " is stated, and no key says from which block on");
    read_gguf_layers(fields, values);
    read_gguf_value_is_key(file, names, values);
    set_gguf_constants(fields, values);
    read_gguf_rope(file, fields, reader, names, values);
    split_gguf_ropes(fields, values);
    read_gguf_temperature(fields, values);
    check_gguf_constants(fields, values);

    // What config.json says in words, GGUF says by having it.
    values.top.set(model_key::attention_bias, has_biases(file, names, values), "attention biases");
    const auto q_norm = names.spell({tensor_role::q_norm, false, 0, 0}, "");
    values.top.set(model_key::qk_norm, q_norm && file.find_tensor(*q_norm) != nullptr, "attn_q_norm");
    read_gguf_unseen_norms(values);
    if (values.family->gguf_untruncated)
        values.ropes.front().keys.set(model_key::rope_truncate, false, "rope.scaling.type");
    const bool tied = !file.tensors().empty() && file.find_tensor("output.weight") == nullptr;
    values.top.set(model_key::tie_word_embeddings, tied, "output.weight");
    if (!values.family->routing.empty() && values.top.size(model_key::n_routed_experts) != 0)
        values.top.set(model_key::scoring_func, std::string(gguf_routing(file, fields)), "expert_gating_func");
    const std::pair<model_key, const char*> tokens[] = {{model_key::bos_token_id, "tokenizer.ggml.bos_token_id"},
                                                        {model_key::eos_token_id, "tokenizer.ggml.eos_token_id"}};
    for (const auto& [key, name] : tokens)
        if (const auto token = file.find<std::uint64_t>(name)) values.top.set(key, *token, name);
    values.stored_pairing = stored_gguf_pairing(fields, *values.family);
}

}  // namespace larql::detail

#endif
