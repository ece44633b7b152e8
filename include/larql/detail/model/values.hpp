// SPDX-License-Identifier: Apache-2.0
//
// What a configuration states, key by key, whatever file states it.
#ifndef LARQL_DETAIL_MODEL_VALUES_HPP
#define LARQL_DETAIL_MODEL_VALUES_HPP

#include <larql/error.hpp>
#include <larql/model_family.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace larql::detail {

/// What is wrong with a configuration. The first problem decides the error's code.
class config_problems {
public:
    /// Blocks may have a problem in common, which is listed once.
    void add(errc code, std::string subject, std::string problem) {
        item added{code, std::move(subject), std::move(problem)};
        if (std::ranges::find(m_items, added) == m_items.end()) m_items.push_back(std::move(added));
    }
    [[nodiscard]] bool empty() const noexcept { return m_items.empty(); }

    /// Throws one error that lists everything that was added.
    void throw_if_any(const error_where& where) const {
        if (m_items.empty()) return;
        error_where place = where;
        place.subject = m_items.front().subject;
        std::string text = m_items.front().problem;
        for (std::size_t i = 1; i < m_items.size(); ++i) text += "; " + m_items[i].subject + ": " + m_items[i].problem;
        fail(m_items.front().code, text, place);
    }

private:
    struct item {
        errc code;
        std::string subject;
        std::string problem;
        friend bool operator==(const item&, const item&) = default;
    };
    std::vector<item> m_items;
};

/// Names that were reported, so that each is reported once.
struct once {
    std::vector<std::string> names;
    bool insert(const std::string& name) {
        if (std::ranges::find(names, name) != names.end()) return false;
        names.push_back(name);
        return true;
    }
};

struct none_stated {};    ///< null: the key is there and says "none"
struct refused_value {};  ///< the key is there, and what is wrong with its value has been reported
using config_value = std::variant<none_stated, refused_value, bool, std::uint64_t, double, std::string,
                                  std::vector<std::string>, std::vector<double>>;

/// A value of each key that is stated, and how the file calls the key.
class key_values {
public:
    void set(model_key key, config_value value, std::string name) {
        m_entries[index(key)] = stated_value{std::move(value), std::move(name)};
    }
    void erase(model_key key) { m_entries[index(key)].reset(); }

    /// Whether the key is there, be it as null or with a value that was refused.
    [[nodiscard]] bool stated(model_key key) const noexcept { return m_entries[index(key)].has_value(); }
    [[nodiscard]] bool refused(model_key key) const noexcept {
        const config_value* found = value(key);
        return found != nullptr && std::holds_alternative<refused_value>(*found);
    }

    /// The value, if the key is there, not null and not refused. T is the type of the key's row.
    template <class T>
    [[nodiscard]] std::optional<T> find(model_key key) const {
        const auto& entry = m_entries[index(key)];
        if (!entry) return std::nullopt;
        const T* value = std::get_if<T>(&entry->value);
        return value != nullptr ? std::optional(*value) : std::nullopt;
    }
    [[nodiscard]] std::size_t size(model_key key) const {
        return static_cast<std::size_t>(find<std::uint64_t>(key).value_or(0));
    }
    [[nodiscard]] const config_value* value(model_key key) const noexcept {
        const auto& entry = m_entries[index(key)];
        return entry ? &entry->value : nullptr;
    }
    /// As the file calls it: "text_config.rope_scaling.factor", "llama.rope.freq_base".
    [[nodiscard]] std::string name(model_key key, std::string_view otherwise = "") const {
        const auto& entry = m_entries[index(key)];
        return entry ? entry->name : std::string(otherwise);
    }

    /// Takes what `other` states instead of what stands here.
    void overlay(const key_values& other) {
        for (std::size_t i = 0; i < m_entries.size(); ++i)
            if (other.m_entries[i]) m_entries[i] = other.m_entries[i];
    }

private:
    struct stated_value {
        config_value value;
        std::string name;
    };
    static constexpr std::size_t index(model_key key) noexcept { return static_cast<std::size_t>(key); }
    std::array<std::optional<stated_value>, model_key_count> m_entries{};
};

/// The rotary embedding of one kind of layer.
struct rope_values {
    std::string layer_type;  ///< "" for all layers
    key_values keys;
    std::vector<std::string> not_understood{};  ///< goes with the dictionary, if a caller's replaces it
};

/// What is stated for some layers alone, in place of what is stated for all.
struct layer_values {
    std::vector<std::size_t> layers;
    key_values keys;
};

/// All that a configuration states.
struct model_values {
    const model_family* family = nullptr;
    std::string model_type;
    std::string architecture;
    std::string where;  ///< what precedes the keys' names: "text_config."
    key_values top;
    std::vector<rope_values> ropes;                          ///< empty: no scaling is stated
    key_values window;                                       ///< for layers with a window, by the family's window_keys
    std::vector<layer_values> layers;                        ///< of per_layer_config or block_configs
    std::vector<std::size_t> without_attention;              ///< layers of block_configs
    bool by_layer = false;                                   ///< there is either of them: `window` does not count
    std::vector<std::string> not_understood;                 ///< one sentence each
    rope_pairing stored_pairing = rope_pairing::half_split;  ///< of the rows in this file
    bool from_gguf = false;
    bool class_defaults = true;  ///< a config.json leaves out what its class assumes; GGUF leaves out what is not so

    /// A number, or the family's default if it is absent; nothing if it is null or there is no default.
    [[nodiscard]] std::optional<double> number_or_default(model_key key) const {
        if (top.stated(key)) return top.find<double>(key);
        return class_defaults ? family->default_of(key) : std::nullopt;
    }
    [[nodiscard]] double number_or(model_key key, double otherwise) const {
        return top.find<double>(key).value_or(otherwise);
    }
    [[nodiscard]] bool flag_or_default(model_key key) const {
        if (top.stated(key)) return top.find<bool>(key).value_or(false);
        return class_defaults && family->default_of(key).value_or(0.0) != 0.0;
    }
    [[nodiscard]] std::size_t size_or_default(model_key key) const {
        return top.stated(key) ? top.size(key) : static_cast<std::size_t>(family->default_of(key).value_or(0.0));
    }
};

}  // namespace larql::detail

#endif
