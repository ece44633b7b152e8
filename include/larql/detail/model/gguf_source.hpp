// SPDX-License-Identifier: Apache-2.0
//
// GGUF metadata read through the same key rows as config.json. What the rows cannot say is here: one metadata key has
// two meanings in different dialects, so the sizes of latent attention come from the tensors, with the metadata held
// against them; scaling of Llama 3 and of longrope is stored as tensors.
#ifndef LARQL_DETAIL_MODEL_GGUF_SOURCE_HPP
#define LARQL_DETAIL_MODEL_GGUF_SOURCE_HPP

#include <larql/detail/model/json_source.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/names.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/ggml_blocks.hpp>
#include <larql/gguf.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// The decimal number that a stored float stands for: 1e-6, not 9.999999974752427e-07.
inline double decimal_of_float(double stored) {
    const auto single = static_cast<float>(stored);
    if (static_cast<double>(single) != stored || !std::isfinite(stored)) return stored;
    for (int digits = 6; digits <= 9; ++digits) {  // nine digits tell any two floats apart
        char text[32];
        std::snprintf(text, sizeof text, "%.*g", digits, stored);
        const double decimal = std::strtod(text, nullptr);
        if (static_cast<float>(decimal) == single) return decimal;
    }
    return stored;
}

/// Metadata of one architecture: keys are looked up as "<architecture>.<key>".
class gguf_fields {
public:
    gguf_fields(const gguf_file& file, std::string_view architecture, config_problems& problems)
        : m_file(&file), m_prefix(std::string(architecture) + "."), m_problems(&problems) {}

    [[nodiscard]] const std::string& prefix() const noexcept { return m_prefix; }
    [[nodiscard]] std::string key(std::string_view name) const { return m_prefix + std::string(name); }
    [[nodiscard]] const gguf_value* find(std::string_view name) const { return m_file->find_value(key(name)); }

    [[nodiscard]] std::optional<std::uint64_t> integer(std::string_view name) const {
        const gguf_value* value = find(name);
        if (value != nullptr && value->is_array()) return same_in_all_layers(name, *value);
        return guarded<std::uint64_t>(name, value);
    }
    [[nodiscard]] std::optional<double> number(std::string_view name) const {
        const auto value = guarded<double>(name, find(name));
        return value ? std::optional(decimal_of_float(*value)) : value;
    }
    [[nodiscard]] std::optional<bool> flag(std::string_view name) const { return guarded<bool>(name, find(name)); }
    [[nodiscard]] std::optional<std::string> text(std::string_view name) const {
        return guarded<std::string>(name, find(name));
    }

    [[nodiscard]] std::uint64_t required(std::string_view name) const {
        if (find(name) == nullptr) m_problems->add(errc::missing_key, key(name), "required and absent");
        return integer(name).value_or(0);
    }

    /// Adds a problem unless the key is absent or holds one of these values.
    void cross_check(std::string_view name, std::initializer_list<std::uint64_t> implied,
                     std::string_view dialect) const {
        const auto value = integer(name);
        if (!value || std::ranges::find(implied, *value) != implied.end()) return;
        std::string expected;
        for (const std::uint64_t candidate : implied)
            expected += (expected.empty() ? "" : " or ") + std::to_string(candidate);
        m_problems->add(errc::shape_mismatch, key(name),
                        "metadata says " + std::to_string(*value) + ", tensors imply " + expected +
                            (dialect.empty() ? "" : " (dialect " + std::string(dialect) + ")"));
    }

    /// Whether a value says that something is off, or is a number that changes nothing.
    [[nodiscard]] bool says_none(std::string_view name, double neutral = 0.0) const {
        const gguf_value* value = find(name);
        if (value == nullptr) return true;
        if (value->is_array()) return value->count() == 0;
        if (value->type() == gguf_type::string) return value->count() == 0 || value->to<std::string>().empty();
        const double number = as_number(*value);
        return number == 0.0 || number == neutral;
    }

    [[nodiscard]] config_problems& problems() const noexcept { return *m_problems; }

private:
    /// A number of any type.
    static double as_number(const gguf_value& value) {
        switch (value.type()) {
            case gguf_type::boolean: return value.to<bool>() ? 1.0 : 0.0;
            case gguf_type::float32:
            case gguf_type::float64: return value.to<double>();
            case gguf_type::uint64: return static_cast<double>(value.to<std::uint64_t>());
            default: return static_cast<double>(value.to<std::int64_t>());
        }
    }

    template <class T>
    std::optional<T> guarded(std::string_view name, const gguf_value* value) const {
        if (value == nullptr) return std::nullopt;
        try {
            return value->to<T>();
        } catch (const error& e) {  // collected with the rest; a wrong type is not the only problem a file may have
            m_problems->add(e.code(), key(name), e.problem());
            return std::nullopt;
        }
    }

    /// One number for each layer, which must all be the same.
    std::optional<std::uint64_t> same_in_all_layers(std::string_view name, const gguf_value& value) const {
        const auto all = guarded<std::vector<std::uint64_t>>(name, &value);
        if (!all || all->empty()) return std::nullopt;
        if (std::ranges::any_of(*all, [&](std::uint64_t n) { return n != all->front(); })) {
            if (looks_like_attention(name))
                m_problems->add(errc::unsupported_architecture, key(name), "differs from layer to layer");
            return std::nullopt;
        }
        return all->front();
    }

    const gguf_file* m_file;
    std::string m_prefix;
    config_problems* m_problems;
};

/// Reads the rows that GGUF states under names of its own, and reports what nobody claims.
class gguf_values_reader {
public:
    gguf_values_reader(const gguf_file& file, const gguf_fields& fields, model_values& values)
        : m_file(file), m_fields(fields), m_values(values) {}

    void read(std::span<const key_row> rows, key_values& values) const {
        for (const key_row& row : rows) {
            const std::string_view name = stated_name(row);
            if (name.empty()) continue;
            if (row.read_by != nullptr && !row.read_by(*m_values.family)) {
                if (!m_fields.says_none(name, row.neutral)) does_not_have(name);
                continue;
            }
            if (auto value = read_value(row, name)) values.set(row.key, std::move(*value), m_fields.key(name));
        }
    }

    void report_unclaimed() const {
        for (const std::string_view full : m_file.keys()) {
            if (!full.starts_with(m_fields.prefix())) continue;
            const std::string_view name = full.substr(m_fields.prefix().size());
            if (!looks_like_attention(name) || claimed(name) || m_fields.says_none(name)) continue;
            const auto known = std::ranges::find(gguf_inert_keys, name, &inert_key::name);
            if (known == std::end(gguf_inert_keys))
                m_values.not_understood.push_back(std::string(full) + " is unknown");
            else if (!allows(*known))
                does_not_have(name);
        }
    }

private:
    [[nodiscard]] std::string_view stated_name(const key_row& row) const {
        for (const std::string_view name : row.gguf)
            if (!name.empty() && m_fields.find(name) != nullptr) return name;
        return {};
    }

    std::optional<config_value> read_value(const key_row& row, std::string_view name) const {
        const auto out_of_bounds = [&](const std::string& got) -> std::optional<config_value> {
            m_fields.problems().add(errc::bad_value, m_fields.key(name),
                                    "expected " + shown(row.low) + " to " + shown(row.high) + ", got " + got);
            return std::nullopt;
        };
        switch (row.type) {
            case value_type::integer: {
                const auto value = m_fields.integer(name);
                if (!value) return std::nullopt;
                if (static_cast<double>(*value) < row.low || static_cast<double>(*value) > row.high)
                    return out_of_bounds(std::to_string(*value));
                return *value;
            }
            case value_type::number: {
                const auto value = m_fields.number(name);
                if (!value) return std::nullopt;
                if (!(*value >= row.low && *value <= row.high)) return out_of_bounds(shown(*value));
                return *value;
            }
            case value_type::flag: {
                const auto value = m_fields.flag(name);
                return value ? std::optional<config_value>(*value) : std::nullopt;
            }
            default: {
                const auto value = m_fields.text(name);
                return value ? std::optional<config_value>(*value) : std::nullopt;
            }
        }
    }

    [[nodiscard]] static bool claimed(std::string_view name) {
        const auto names = [&](const key_row& row) { return std::ranges::find(row.gguf, name) != row.gguf.end(); };
        return std::ranges::any_of(top_keys, names) || std::ranges::any_of(rope_keys, names);
    }
    [[nodiscard]] bool allows(const inert_key& known) const {
        switch (known.allowed) {
            case inert_key::when::always: return true;
            case inert_key::when::yes: return m_fields.flag(known.name).value_or(false);
            case inert_key::when::one: return m_fields.says_none(known.name, 1.0);
            default: return m_fields.says_none(known.name);
        }
    }
    void does_not_have(std::string_view name) const {
        m_values.not_understood.push_back(m_fields.key(name) + " is stated, which \"" +
                                          std::string(m_values.family->name) + "\" does not have");
    }

    const gguf_file& m_file;
    const gguf_fields& m_fields;
    model_values& m_values;
};

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
        return whole && split ? "all" : whole ? "kv_b" : split ? "k_b+v_b" : "";
    }

    /// The sizes that the tensors imply; a contradiction between them is an error.
    [[nodiscard]] latent_sizes sizes(std::uint64_t heads) const {
        latent_sizes s;
        s.kv_rank = vector(tensor_role::kv_a_norm).element_count();
        const tensor_info& kv_a = matrix(tensor_role::kv_a);
        s.rope = subtract(kv_a, kv_a.shape[0], s.kv_rank);
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
            fail(errc::shape_mismatch, "expected 2 dimensions, got " + std::to_string(info.shape.size()), where(info));
        return info;
    }
    [[nodiscard]] std::uint64_t per_head(const tensor_info& info, std::uint64_t whole, std::uint64_t heads) const {
        if (heads == 0 || whole % heads != 0)
            fail(errc::shape_mismatch,
                 "expected a multiple of " + std::to_string(heads) + " heads, got " + std::to_string(whole),
                 where(info));
        return whole / heads;
    }
    [[nodiscard]] std::uint64_t subtract(const tensor_info& info, std::uint64_t whole, std::uint64_t part) const {
        if (whole <= part)
            fail(errc::shape_mismatch,
                 "expected more than " + std::to_string(part) + " rows, got " + std::to_string(whole), where(info));
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

/// The scoring of experts that a file shows, by its key or by the bias that came with sigmoid scoring: it tells
/// DeepSeek-V3 and its relatives from V2, which share an architecture name.
inline std::string_view gguf_routing(const gguf_file& file, const gguf_fields& fields) {
    if (const auto scoring = fields.integer("expert_gating_func")) return *scoring == 2 ? "sigmoid" : "softmax";
    for (const tensor_info& info : file.tensors())
        if (info.name.find("exp_probs_b") != std::string_view::npos) return "sigmoid";
    return "softmax";
}

/// The family of a GGUF architecture, or null.
inline const model_family* find_gguf_family(std::span<const model_family> rows, const gguf_file& file,
                                            std::string_view architecture) {
    config_problems ignored;
    const gguf_fields fields(file, architecture, ignored);
    const auto named = [&](const model_family& row) { return row.gguf_architecture == architecture; };
    const auto routed = [&](const model_family& row) {
        return named(row) && (row.routing.empty() || row.routing == gguf_routing(file, fields));
    };
    const auto best = std::ranges::find_if(rows, routed);
    return best != rows.end() ? &*best : nullptr;
}

/// Sizes of latent attention: from the tensors, or without any from the metadata.
inline void read_gguf_latent_sizes(const gguf_file& file, const gguf_fields& fields, const name_matcher& names,
                                   std::uint64_t blocks, key_values& top) {
    const std::uint64_t heads = top.size(model_key::num_attention_heads);
    const auto block = first_block_with(file, names, std::min<std::uint64_t>(blocks, 4096), tensor_role::kv_a);
    latent_sizes s;
    if (block) {
        s = block->sizes(heads);
        const std::string_view dialect = block->dialect();
        const std::uint64_t key = s.nope + s.rope;
        fields.cross_check("attention.q_lora_rank", {s.q_rank}, dialect);
        fields.cross_check("attention.kv_lora_rank", {s.kv_rank}, dialect);
        fields.cross_check("rope.dimension_count", {s.rope}, dialect);
        fields.cross_check("attention.key_length_mla", {key}, dialect);
        fields.cross_check("attention.value_length_mla", {s.value}, dialect);
        fields.cross_check("attention.key_length", {key, s.kv_rank + s.rope}, dialect);
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
                                  "expected " + shown(row->low) + " to " + shown(row->high) + ", got " +
                                      std::to_string(value));
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

/// The divisors that a small tensor holds, one for each of the frequencies.
inline std::vector<double> read_gguf_factors(const gguf_file& file, const tensor_info& stored) {
    // Held against the sizes before it is decoded: no model has more frequencies than this.
    constexpr std::uint64_t most = 1 << 19;
    const dtype_kind kind = traits_of(stored.type).kind;
    if (stored.element_count() > most || kind != dtype_kind::floating)
        fail(errc::bad_value,
             "expected at most " + std::to_string(most) + " numbers, got " + std::to_string(stored.element_count()) +
                 " of type " + std::string(to_string(stored.type)),
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
    key_values rope;
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
    const std::string type = rope.find<std::string>(model_key::rope_type).value_or("linear");  // llama.cpp's default
    const double factor = rope.find<double>(model_key::rope_factor).value_or(1.0);
    if (type == "none" || (type == "linear" && factor == 1.0)) set_type("default");
    else if (!rope.stated(model_key::rope_type)) set_type("linear");
    if (factors(tensor_role::rope_divisors, model_key::rope_divisors)) set_type("divisors");
    const bool lengthening = factors(tensor_role::rope_long_factors, model_key::rope_long_factor);
    if (factors(tensor_role::rope_short_factors, model_key::rope_short_factor) || lengthening) {
        set_type("longrope");
        // The magnitude is what attn_factor says, and 1 without it.
        rope.set(model_key::rope_attention_factor, 1.0, "rope_factors");
        if (!rope.stated(model_key::rope_original_max_position))
            if (const config_value* context = values.top.value(model_key::max_position_embeddings))
                rope.set(model_key::rope_original_max_position, *context, fields.key("context_length"));
    }
    if (const auto multiplier = rope.find<double>(model_key::rope_mscale_all_dim)) {
        // mscale is never stored; it equals mscale_all_dim in every published model.
        const double mscale =
            decimal_of_float(static_cast<float>(*multiplier / values.family->gguf_log_multiplier));
        const std::string name = rope.name(model_key::rope_mscale_all_dim);
        rope.set(model_key::rope_mscale, mscale, name);
        rope.set(model_key::rope_mscale_all_dim, mscale, name);
    }
    values.ropes.push_back({"", std::move(rope)});
}

/// The temperature of queries, where the architecture's graph applies it.
inline void read_gguf_temperature(const gguf_fields& fields, model_values& values) {
    const bool scaled = !fields.says_none("attention.temperature_scale");
    if (!scaled) return;
    if (!values.family->gguf_temperature) {
        values.not_understood.push_back(fields.key("attention.temperature_scale") + " is stated, which \"" +
                                        std::string(values.family->name) + "\" does not have");
        return;
    }
    if (const auto scale = fields.number("attention.temperature_scale"))
        values.top.set(model_key::temperature_scale, *scale, fields.key("attention.temperature_scale"));
    if (const std::uint64_t length = fields.required("attention.temperature_length"))
        values.top.set(model_key::temperature_length, static_cast<double>(length),
                       fields.key("attention.temperature_length"));
}

/// Plain attention: what the architecture fixes is held against what the file says.
inline void check_gguf_heads(const gguf_fields& fields, model_values& values) {
    const std::uint64_t heads = values.top.size(model_key::num_attention_heads);
    std::uint64_t head_dim = values.top.size(model_key::head_dim);
    if (head_dim == 0 && heads != 0) head_dim = values.top.size(model_key::hidden_size) / heads;
    const auto require = [&](const char* key) {
        const auto stated = fields.integer(key);
        if (!stated || *stated == head_dim || head_dim == 0) return;
        fields.problems().add(errc::unsupported_architecture, fields.key(key),
                              "is " + std::to_string(*stated) + ", and heads have " + std::to_string(head_dim) +
                                  " elements: \"" + std::string(values.family->name) + "\" rotates and weighs all of them");
    };
    if (!values.family->partial_rotary) require("rope.dimension_count");
    require("attention.value_length");
}

/// Reads a GGUF file's metadata.
inline void read_gguf_values(const gguf_file& file, std::string_view architecture, config_problems& problems,
                             model_values& values) {
    const gguf_fields fields(file, architecture, problems);
    const name_matcher names(values.family->names, naming::gguf);
    const gguf_values_reader reader(file, fields, values);
    values.where = fields.prefix();
    reader.read(top_keys, values.top);
    reader.report_unclaimed();

    const std::uint64_t blocks = values.top.size(model_key::num_hidden_layers);  // with prediction blocks
    const std::uint64_t predicting = values.top.size(model_key::num_nextn_predict_layers);
    if (predicting != 0 && blocks > predicting)
        values.top.set(model_key::num_hidden_layers, blocks - predicting, fields.key("block_count"));
    if (values.family->kind == attention_kind::mla)
        read_gguf_latent_sizes(file, fields, names, blocks, values.top);
    else
        check_gguf_heads(fields, values);
    read_gguf_rope(file, fields, reader, names, values);
    read_gguf_temperature(fields, values);

    // What config.json says in words, GGUF says by having it.
    const bool tied = !file.tensors().empty() && file.find_tensor("output.weight") == nullptr;
    values.top.set(model_key::tie_word_embeddings, tied, "output.weight");
    if (!values.family->routing.empty() && values.top.size(model_key::n_routed_experts) != 0)
        values.top.set(model_key::scoring_func, std::string(gguf_routing(file, fields)), "expert_gating_func");
    const std::pair<model_key, const char*> tokens[] = {{model_key::bos_token_id, "tokenizer.ggml.bos_token_id"},
                                                        {model_key::eos_token_id, "tokenizer.ggml.eos_token_id"}};
    for (const auto& [key, name] : tokens)
        if (const auto token = file.find<std::uint64_t>(name)) values.top.set(key, *token, name);
    values.stored_pairing =
        values.family->stored == gguf_rows::interleaved ? rope_pairing::interleaved : values.family->pairing;
}

}  // namespace larql::detail

#endif
