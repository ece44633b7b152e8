// SPDX-License-Identifier: Apache-2.0
//
// From the rope dictionaries of a configuration to the rotary embedding of each block.
#ifndef LARQL_DETAIL_MODEL_ROPES_HPP
#define LARQL_DETAIL_MODEL_ROPES_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/model/json_value.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/layers.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/rope.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace larql::detail {

/// Reads rotary embeddings, collecting every problem.
class rope_resolver {
public:
    rope_resolver(const model_values& values, config_problems& problems, std::vector<std::string>& not_understood)
        : m_values(values), m_family(*values.family), m_problems(problems), m_not_understood(not_understood) {}

    /// Whether blocks of different types may rotate differently.
    [[nodiscard]] bool differ() const noexcept {
        return m_family.default_local_theta || m_values.ropes.size() > 1 ||
               (m_values.ropes.size() == 1 && !m_values.ropes.front().layer_type.empty());
    }

    /// Sets the embedding of a block of this type.
    void set(attention_spec& spec, const std::string& layer_type) {
        static const key_values nothing;
        const key_values* keys = nullptr;
        for (const rope_values& rope : m_values.ropes)
            if (rope.layer_type == layer_type) keys = &rope.keys;
        const bool local = m_family.default_local_theta && layer_type == sliding_layer &&
                           (m_values.ropes.empty() || !m_family.dictionary_for_windows);
        if (local && (keys == nullptr || !keys->stated(model_key::rope_theta))) {
            // A dictionary for all layers is for those that see all keys; that of windows may state no base.
            key_values with_base = keys != nullptr ? *keys : nothing;
            with_base.set(model_key::rope_theta,
                          m_values.number_or(model_key::rope_local_theta, *m_family.default_local_theta),
                          "rope_local_base_freq");
            return set(spec, with_base);
        }
        for (const rope_values& rope : m_values.ropes)
            if (keys == nullptr && rope.layer_type.empty()) keys = &rope.keys;
        if (keys == nullptr && !m_values.ropes.empty() &&
            (!m_family.default_local_theta || m_family.dictionary_for_windows) && m_reported.insert(layer_type))
            m_not_understood.push_back("rope parameters by layer type have none for \"" + layer_type + "\"");
        if (keys == nullptr && m_family.rope_required && m_reported.insert("rope_parameters"))
            m_problems.add(errc::missing_key, m_values.where + "rope_parameters",
                           "required and absent: transformers would assume a scaling");
        set(spec, keys != nullptr ? *keys : m_values.ropes.empty() ? of_class() : nothing);
    }

    /// Sets the embedding that a dictionary states, with what stands around it.
    void set(attention_spec& spec, const key_values& keys) {
        rope_config& rope = spec.rope;
        mla_geometry& g = spec.geometry;
        const std::size_t whole = latent() ? g.qk_rope_head_dim : g.qk_head_dim();
        rope = rope_config{};
        if (g.pairing == rope_pairing::none) return;  // whatever is stated
        if (m_family.null_rope && null_base(keys)) {
            g.qk_nope_head_dim = whole;
            g.qk_rope_head_dim = 0;
            return;
        }
        rope.backwards = m_family.backwards;
        rope.learned = m_family.learned_frequencies;
        rope.kind = kind(keys);
        require_read(keys, rope.kind);
        rope.rotary_dim = whole;
        const auto own = keys.find<std::uint64_t>(model_key::rotary_dim);  // of layers of one type, in GGUF
        const auto dim = own ? std::optional(static_cast<std::size_t>(*own)) : stated_rotary_dim(whole);
        const auto stated_share = first<double>(keys, model_key::partial_rotary_factor);
        const auto share = dim && !stated_share ? std::nullopt : stated_share ? stated_share : default_share();
        if (share && rope.kind == rope_kind::proportional) {
            rope.partial_rotary_factor = *share;  // its exponents run over the whole head
        } else if (m_family.share_of_proportional) {
            if (share.value_or(1.0) != 1.0 && m_reported.insert("partial_rotary_factor"))
                m_not_understood.push_back("partial_rotary_factor is " + shown(*share) + ", which \"" +
                                           std::string(m_family.name) +
                                           "\" reads for rope type \"proportional\" alone");
        } else if (share) {
            const auto rotated = static_cast<std::size_t>(static_cast<double>(g.qk_head_dim()) * *share);
            if (latent() && rotated != whole)  // there the share is that of a whole head, and says nothing new
                m_not_understood.push_back(concat({"partial_rotary_factor rotates ", rotated,
                                                   " elements of a head, and qk_rope_head_dim is ", whole}));
            if (!latent()) rope.rotary_dim = rotated;
        } else if (dim) {
            rope.rotary_dim = *dim;
        }
        if (rope.rotary_dim > whole) {
            m_problems.add(errc::bad_value, top().name(model_key::rotary_dim, m_values.where + "rotary_dim"),
                           concat({"expected at most ", whole, ", the elements of a head, got ", rope.rotary_dim}));
            rope.rotary_dim = whole;
        }
        if (!latent()) {
            g.qk_nope_head_dim = whole - rope.rotary_dim;
            g.qk_rope_head_dim = rope.rotary_dim;
        }
        if (rope.rotary_dim % 2 != 0)
            m_problems.add(errc::bad_value, m_values.where + "rope",
                           concat({"expected an even number of rotated elements, got ", rope.rotary_dim}));
        const auto theta = first<double>(keys, model_key::rope_theta);
        if (!theta && !m_family.default_rope_theta)
            m_problems.add(errc::missing_key, m_values.where + "rope_theta", "required and absent");
        rope.theta = theta.value_or(m_family.default_rope_theta.value_or(1.0));
        rope.theta *= top().find<double>(model_key::rope_ratio).value_or(1.0);
        read_scaling(keys, rope);
        follow_rules(keys, rope);
        require_table(keys, rope);
    }

private:
    [[nodiscard]] const key_values& top() const noexcept { return m_values.top; }
    [[nodiscard]] bool latent() const noexcept { return m_family.kind == attention_kind::mla; }

    /// Whether the base is stated as null, in a dictionary or, if that has none, beside it.
    [[nodiscard]] bool null_base(const key_values& keys) const {
        const auto is_null = [](const config_value* base) {
            return base != nullptr && std::holds_alternative<none_stated>(*base);
        };
        const config_value* inner = keys.value(model_key::rope_theta);
        return is_null(inner != nullptr ? inner : top().value(model_key::rope_theta));
    }

    /// The dictionary that the family's class makes where none is stated.
    [[nodiscard]] key_values of_class() const {
        key_values keys;
        if (m_family.default_rope_type.empty() || !m_values.class_defaults) return keys;
        keys.set(model_key::rope_type, std::string(m_family.default_rope_type), m_values.where + "rope_parameters");
        for (const auto& [key, value] : m_family.default_rope) {
            const auto row = std::ranges::find(rope_keys, key, &key_row::key);
            const bool whole = row != std::end(rope_keys) && row->type == value_type::integer;
            keys.set(key, whole ? config_value(static_cast<std::uint64_t>(value)) : config_value(value),
                     m_values.where + "rope_parameters");
        }
        return keys;
    }

    /// The part of a head that rotates if nothing says so.
    [[nodiscard]] std::optional<double> default_share() const {
        return m_values.class_defaults ? m_family.default_of(model_key::partial_rotary_factor) : std::nullopt;
    }

    /// The elements of a head that rotate, where a family counts them: stated, or its default.
    [[nodiscard]] std::optional<std::size_t> stated_rotary_dim(std::size_t whole) {
        const std::size_t dim = m_values.size_or_default(model_key::rotary_dim);
        const bool null = top().stated(model_key::rotary_dim) && dim == 0 && !top().refused(model_key::rotary_dim);
        if (m_family.rotary_dim_unread) {
            const double share = default_share().value_or(1.0) * static_cast<double>(whole);
            if (dim != 0 && static_cast<double>(dim) != share && m_reported.insert("rotary_dim"))
                m_not_understood.push_back(
                    concat({top().name(model_key::rotary_dim), " is ", dim, ", which \"", m_family.name,
                            "\" does not read: it rotates ", shown(share), " elements of a head"}));
            return std::nullopt;
        }
        if (null && m_family.default_of(model_key::rotary_dim))
            m_problems.add(errc::missing_key, top().name(model_key::rotary_dim), "required and null");
        return dim != 0 ? std::optional(dim) : std::nullopt;
    }

    /// Reports a rope type that the family's code does not have.
    void require_read(const key_values& keys, rope_kind found) {
        const dictionary_rule rule = m_family.dictionaries;
        const bool unscaled = m_values.from_gguf && found == rope_kind::standard;  // a file of GGUF always says it
        const bool good = m_values.ropes.empty() || unscaled ||
                          (rule == dictionary_rule::linear     ? found == rope_kind::linear
                           : rule == dictionary_rule::longrope ? found == rope_kind::longrope
                           : rule == dictionary_rule::default_or_longrope
                               ? found == rope_kind::longrope || found == rope_kind::standard
                               : true);
        if (!good && m_reported.insert("rope type"))
            m_not_understood.push_back(keys.name(model_key::rope_type, m_values.where + "rope_parameters") + ": \"" +
                                       std::string(m_family.name) + "\" has no rope type \"" +
                                       std::string(to_string(found)) + "\"");
    }

    /// What a rope dictionary states, or else the configuration around it.
    template <class T>
    [[nodiscard]] std::optional<T> first(const key_values& keys, model_key key) const {
        const auto inner = keys.find<T>(key);
        return inner ? inner : top().find<T>(key);
    }

    [[nodiscard]] rope_kind kind(const key_values& keys) {
        const auto name = keys.find<std::string>(model_key::rope_type);
        if (!name) {
            if (keys.stated(model_key::rope_factor))
                m_not_understood.push_back(keys.name(model_key::rope_factor) + " is stated without a rope_type");
            return rope_kind::standard;
        }
        auto known = rope_kind_from_name(*name);
        if (m_family.only_longrope && known == rope_kind::yarn) known = rope_kind::longrope;
        if (!known && m_reported.insert(*name))
            m_not_understood.push_back(keys.name(model_key::rope_type) + ": rope type \"" + *name + "\" is unknown");
        return known.value_or(rope_kind::standard);
    }

    /// Absent members have the values that transformers gives them: modeling_rope_utils.py.
    void read_scaling(const key_values& keys, rope_config& rope) {
        const bool over_original =
            rope.kind == rope_kind::yarn || rope.kind == rope_kind::llama3 || rope.kind == rope_kind::longrope;
        rope.max_position = static_cast<double>(top().size(model_key::max_position_embeddings));
        const auto repeated = keys.find<std::uint64_t>(model_key::max_position_embeddings);
        if (repeated && static_cast<double>(*repeated) != rope.max_position)
            m_not_understood.push_back(concat({keys.name(model_key::max_position_embeddings), " is ", *repeated,
                                               ", and the model's own is another"}));
        if (over_original) {
            // The configuration's own statement goes before that of the dictionary.
            auto original = top().find<std::uint64_t>(model_key::rope_original_max_position);
            const auto of_class =
                m_values.class_defaults ? m_family.default_of(model_key::rope_original_max_position) : std::nullopt;
            if (!original && of_class) original = static_cast<std::uint64_t>(*of_class);
            if (!original) original = keys.find<std::uint64_t>(model_key::rope_original_max_position);
            rope.original_max_position = original ? static_cast<double>(*original) : rope.max_position;
            if (rope.original_max_position == 0.0) missing(keys, rope, "original_max_position_embeddings");
        }
        const auto factor = keys.find<double>(model_key::rope_factor);
        const bool derived = rope.kind == rope_kind::yarn || rope.kind == rope_kind::longrope;
        if (factor)
            rope.factor = *factor;
        else if (derived && rope.max_position > 0.0 && rope.original_max_position > 0.0)
            rope.factor = rope.max_position / rope.original_max_position;
        rope.alpha = rope.kind == rope_kind::dynamic ? keys.find<double>(model_key::rope_alpha) : std::nullopt;
        const bool needs_factor = rope.kind == rope_kind::linear || rope.kind == rope_kind::llama3 ||
                                  rope.kind == rope_kind::yarn || (rope.kind == rope_kind::dynamic && !rope.alpha);
        if (needs_factor && !factor && !(derived && rope.max_position > 0.0)) missing(keys, rope, "factor");
        if (rope.kind == rope_kind::dynamic && !rope.alpha && rope.max_position == 0.0)
            m_problems.add(errc::missing_key, m_values.where + "max_position_embeddings",
                           "required by rope type \"dynamic\" and absent");
        rope.attention_factor = keys.find<double>(model_key::rope_attention_factor);
        rope.magnitude_factor = keys.find<double>(model_key::rope_magnitude_factor).value_or(1.0);
        rope.beta_fast = keys.find<double>(model_key::rope_beta_fast).value_or(32.0);
        rope.beta_slow = keys.find<double>(model_key::rope_beta_slow).value_or(1.0);
        rope.mscale = keys.find<double>(model_key::rope_mscale);
        rope.mscale_all_dim = keys.find<double>(model_key::rope_mscale_all_dim);
        rope.truncate = keys.find<bool>(model_key::rope_truncate).value_or(!keys.stated(model_key::rope_truncate));
        if (rope.kind == rope_kind::llama3) {
            const auto low = keys.find<double>(model_key::rope_low_freq_factor);
            const auto high = keys.find<double>(model_key::rope_high_freq_factor);
            if (!low) missing(keys, rope, "low_freq_factor");
            if (!high) missing(keys, rope, "high_freq_factor");
            rope.low_freq_factor = low.value_or(1.0);
            rope.high_freq_factor = high.value_or(4.0);
        }
        rope.short_factor = factors(keys, rope, model_key::rope_short_factor, rope_kind::longrope, "short_factor");
        rope.long_factor = factors(keys, rope, model_key::rope_long_factor, rope_kind::longrope, "long_factor");
        rope.divisors = factors(keys, rope, model_key::rope_divisors, rope_kind::divisors, "divisors");
    }

    /// What a family's row says of its scaling.
    void follow_rules(const key_values& keys, rope_config& rope) {
        if (m_values.flag_or_default(model_key::dynamic_ntk) && m_family.lists(model_key::dynamic_ntk)) {
            rope.kind = rope_kind::dynamic;
            rope.doubling = true;
            rope.max_position = static_cast<double>(top().size(model_key::rope_original_max_position));
            if (rope.max_position == 0.0)
                m_problems.add(errc::missing_key, m_values.where + "seq_length", "required and absent");
        }
        if (rope.kind != rope_kind::longrope) return;
        const bool by_growth = m_family.longrope == longrope_rule::by_growth;
        if ((by_growth || m_family.longrope == longrope_rule::by_lengths) && rope.original_max_position > 1.0 &&
            rope.max_position > 0.0) {
            const double ratio = rope.max_position / rope.original_max_position;
            rope.attention_factor = by_growth && ratio <= 1.0
                                        ? 1.0
                                        : std::sqrt(1.0 + std::log(ratio) / std::log(rope.original_max_position));
        }
        if (by_growth && rope.max_position == 0.0)
            m_problems.add(errc::missing_key, m_values.where + "max_position_embeddings",
                           "required by rope type \"longrope\" and absent");
        if (m_family.longrope != longrope_rule::short_alone) return;
        rope.long_factor = rope.short_factor;
        rope.short_magnitude = keys.find<double>(model_key::rope_short_magnitude);
        rope.long_magnitude = keys.find<double>(model_key::rope_long_magnitude);
        if (!rope.short_magnitude) missing(keys, rope, "short_mscale");
        if (!rope.long_magnitude) missing(keys, rope, "long_mscale");
    }

    std::vector<double> factors(const key_values& keys, const rope_config& rope, model_key key, rope_kind needed_by,
                                const char* name) {
        const auto stated = keys.find<std::vector<double>>(key);
        if (rope.kind != needed_by) return {};
        if (!stated) missing(keys, rope, name);
        if (stated && stated->size() != rope.rotary_dim / 2)
            m_problems.add(errc::shape_mismatch, keys.name(key),
                           concat({"expected ", rope.rotary_dim / 2, " numbers, got ", stated->size()}));
        return stated.value_or(std::vector<double>{});
    }

    void missing(const key_values& keys, const rope_config& rope, const char* name) {
        const std::string type = keys.name(model_key::rope_type);
        m_problems.add(errc::missing_key, type.substr(0, type.rfind('.') + 1) + name,
                       "required by rope type \"" + std::string(to_string(rope.kind)) + "\" and absent");
    }

    /// Parameters that are good one by one may still give frequencies that are not.
    void require_table(const key_values& keys, const rope_config& rope) {
        // Once for all blocks that rotate alike: a table may be large, and blocks many.
        if (!m_problems.empty() || std::ranges::find(m_checked, rope) != m_checked.end()) return;
        m_checked.push_back(rope);
        try {
            for (const double length : {0.0, 2.0 * std::max(rope.max_position, rope.original_max_position)})
                (void)make_rope_table(rope, length);
        } catch (const error& e) {
            m_problems.add(e.code(), keys.name(model_key::rope_type, e.subject()), e.problem());
        }
    }

    const model_values& m_values;
    const model_family& m_family;
    config_problems& m_problems;
    std::vector<std::string>& m_not_understood;
    once m_reported;
    std::vector<rope_config> m_checked{};  // embeddings whose tables are known to be finite
};

}  // namespace larql::detail

#endif
