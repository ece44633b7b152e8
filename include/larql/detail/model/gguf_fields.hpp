// SPDX-License-Identifier: Apache-2.0
//
// GGUF metadata of one architecture, read through the key rows.
#ifndef LARQL_DETAIL_MODEL_GGUF_FIELDS_HPP
#define LARQL_DETAIL_MODEL_GGUF_FIELDS_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/model/inert_keys.hpp>
#include <larql/detail/model/json_source.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/gguf.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <iterator>
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

    [[nodiscard]] std::optional<std::vector<double>> numbers(std::string_view name) const {
        const gguf_value* value = find(name);
        const auto stored = value != nullptr ? value->element_type() : gguf_type::float32;
        if (stored == gguf_type::float32 || stored == gguf_type::float64)
            return guarded<std::vector<double>>(name, value);
        if (stored == gguf_type::boolean) {
            const auto flags = guarded<std::vector<bool>>(name, value);
            return flags ? std::optional(std::vector<double>(flags->begin(), flags->end())) : std::nullopt;
        }
        const auto integers = guarded<std::vector<std::int64_t>>(name, value);
        if (!integers) return std::nullopt;
        return std::vector<double>(integers->begin(), integers->end());
    }

    /// A number for each layer, if the key holds such a list.
    [[nodiscard]] std::optional<std::vector<std::uint64_t>> of_layers(std::string_view name) const {
        const gguf_value* value = find(name);
        if (value == nullptr || !value->is_array()) return std::nullopt;
        return guarded<std::vector<std::uint64_t>>(name, value);
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
        for (const std::uint64_t candidate : implied) expected += concat({(expected.empty() ? "" : " or "), candidate});
        m_problems->add(errc::shape_mismatch, key(name),
                        concat({"metadata says ", *value, ", tensors imply ", expected,
                                (dialect.empty() ? "" : " (dialect " + std::string(dialect) + ")")}));
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

    /// One number for each layer, which must all be the same; layers without heads do not count.
    std::optional<std::uint64_t> same_in_all_layers(std::string_view name, const gguf_value& value) const {
        auto all = guarded<std::vector<std::uint64_t>>(name, &value);
        if (!all || all->empty()) return std::nullopt;
        if (name == "attention.head_count_kv" && std::ranges::any_of(*all, [](std::uint64_t n) { return n != 0; }))
            std::erase(*all, std::uint64_t{0});
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

inline constexpr std::string_view gguf_windows = "attention.sliding_window_pattern";
inline constexpr std::string_view gguf_linear_layers = "attention.recurrent_layers";
inline constexpr std::string_view gguf_interval = "full_attention_interval";  // which is read and not written
constexpr bool reads_gguf_windows(const model_family& f) noexcept {
    if (f.windows == window_rule::pattern) return true;
    return f.kind == attention_kind::gqa &&
           (f.windows == window_rule::layer_types || f.windows == window_rule::but_period);
}

/// Reads the rows that GGUF states under names of its own, and reports what nobody claims.
class gguf_values_reader {
public:
    gguf_values_reader(const gguf_file& file, const gguf_fields& fields, model_values& values)
        : m_file(file), m_fields(fields), m_values(values) {}

    void read(std::span<const key_row> rows, key_values& values) const {
        for (const key_row& row : rows) {
            const std::string_view name = stated_name(row);
            if (name.empty()) continue;
            if (row.type == value_type::number && row.low > 0.0 && m_fields.says_none(name)) continue;  // 0: not set
            if (reads_otherwise(row.key)) continue;
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
            if (!looks_like_attention(name) || claimed(name)) continue;
            const auto known = std::ranges::find(gguf_inert_keys, name, &inert_key::name);
            if (known != std::end(gguf_inert_keys)) {
                if (!allows(*known)) does_not_have(name);
            } else if (!m_fields.says_none(name)) {
                m_values.not_understood.push_back(std::string(full) + " is unknown");
            }
        }
    }

private:
    [[nodiscard]] std::string_view stated_name(const key_row& row) const {
        for (const std::string_view name : row.gguf)
            if (!name.empty() && m_fields.find(name) != nullptr) return name;
        return {};
    }

    /// Whether the value of a key is of blocks with a window alone (gguf_layers.hpp).
    [[nodiscard]] bool reads_otherwise(model_key key) const {
        return key == model_key::rope_local_theta && reads_gguf_ropes(*m_values.family);
    }

    /// An integer; where the family has a number for each layer, the first that is not 0.
    [[nodiscard]] std::optional<std::uint64_t> read_integer(const key_row& row, std::string_view name) const {
        const bool of_heads = row.key == model_key::num_attention_heads || row.key == model_key::num_key_value_heads;
        if (of_heads && reads_gguf_layers(*m_values.family))
            if (const auto list = m_fields.of_layers(name)) {
                const auto some = std::ranges::find_if(*list, [](std::uint64_t n) { return n != 0; });
                return some != list->end() ? std::optional(*some) : std::nullopt;
            }
        return m_fields.integer(name);
    }

    std::optional<config_value> read_value(const key_row& row, std::string_view name) const {
        const auto out_of_bounds = [&](const std::string& got) -> std::optional<config_value> {
            m_fields.problems().add(errc::bad_value, m_fields.key(name),
                                    "expected " + shown(row.low) + " to " + shown(row.high) + ", got " + got);
            return std::nullopt;
        };
        switch (row.type) {
            case value_type::integer: {
                const auto value = read_integer(row, name);
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
            case value_type::numbers: {
                auto value = m_fields.numbers(name);
                if (!value) return std::nullopt;
                for (const double number : *value)
                    if (!(number >= row.low && number <= row.high)) return out_of_bounds(shown(number));
                return std::move(*value);
            }
            default: {
                const auto value = m_fields.text(name);
                return value ? std::optional<config_value>(*value) : std::nullopt;
            }
        }
    }

    [[nodiscard]] bool claimed(std::string_view name) const {
        const auto names = [&](const key_row& row) { return std::ranges::find(row.gguf, name) != row.gguf.end(); };
        const auto inert = m_values.family->inert_keys;
        return std::ranges::any_of(top_keys, names) || std::ranges::any_of(rope_keys, names) ||
               (name == gguf_windows && reads_gguf_windows(*m_values.family)) ||
               (name == gguf_linear_layers && m_values.family->linear_layers) ||
               (name == gguf_interval && reads_attention_interval(*m_values.family)) || of_windows(name) ||
               std::ranges::find(inert, name) != inert.end();
    }
    /// Whether gguf_layers.hpp reads a key of blocks with a window.
    [[nodiscard]] bool of_windows(std::string_view name) const {
        const bool sizes = name == "attention.key_length_swa" || name == "attention.value_length_swa";
        return (name == "rope.dimension_count_swa" && reads_gguf_ropes(*m_values.family)) ||
               (sizes && m_values.family->lists(model_key::global_head_dim));
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

}  // namespace larql::detail

#endif
