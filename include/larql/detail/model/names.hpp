// SPDX-License-Identifier: Apache-2.0
//
// Between a tensor's name and what it is: one matcher for every family, container and prefix, over the name rows.
#ifndef LARQL_DETAIL_MODEL_NAMES_HPP
#define LARQL_DETAIL_MODEL_NAMES_HPP

#include <larql/attention_spec.hpp>
#include <larql/model_family.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace larql::detail {

enum class naming : std::uint8_t { safetensors, gguf };

/// What a tensor's name says.
struct tensor_identity {
    tensor_role role;
    bool bias = false;
    std::size_t layer = 0;   ///< as the file numbers it
    std::size_t expert = 0;  ///< of tensors that exist once for each expert; which of a layer's attentions
    friend bool operator==(const tensor_identity&, const tensor_identity&) = default;
};

/// A tensor of an attention block.
constexpr tensor_identity identity_of(const attention_spec& spec, tensor_role role, bool bias = false) noexcept {
    return {role, bias, spec.layer, spec.part};
}

/// A name that a row claims, with what stands before the row's pattern: "model.", "language_model.model.", "".
struct matched_name {
    std::string_view prefix;
    tensor_identity identity;
};

inline constexpr std::string_view weight_ending = ".weight";
inline constexpr std::string_view bias_ending = ".bias";

/// The prefix of what stands beside a model: "a." for "a.model.", and none where the prefix does not end so.
constexpr std::string_view prefix_beside(std::string_view prefix) noexcept {
    constexpr std::string_view model = ".model.";
    return prefix.ends_with(model) ? prefix.substr(0, prefix.size() - model.size() + 1) : std::string_view();
}

constexpr std::string_view pattern_of(const name_row& row, naming world) noexcept {
    return world == naming::gguf ? row.gguf : row.hf;
}

/// Matches and spells the names of one family in one container.
class name_matcher {
public:
    name_matcher(std::span<const name_row> rows, naming world) : m_rows(rows), m_world(world) {
        for (std::size_t i = 0; i < rows.size(); ++i) {
            const std::string_view pattern = pattern_of(rows[i], world);
            if (pattern.empty()) continue;
            m_patterns.emplace(pattern, entry{i, false});
            if (!pattern.ends_with(weight_ending)) continue;
            std::string bias(pattern.substr(0, pattern.size() - weight_ending.size()));
            m_biases.push_back(bias += bias_ending);
        }
        // The texts must not move once they are referred to.
        std::size_t next = 0;
        for (std::size_t i = 0; i < rows.size(); ++i)
            if (pattern_of(rows[i], world).ends_with(weight_ending))
                m_patterns.emplace(m_biases[next++], entry{i, true});
    }

    // The patterns refer to texts of this object.
    name_matcher(const name_matcher&) = delete;
    name_matcher& operator=(const name_matcher&) = delete;
    name_matcher(name_matcher&&) = default;
    name_matcher& operator=(name_matcher&&) = default;

    /// What a name means, or nothing if no row claims it. The longest pattern wins.
    [[nodiscard]] std::optional<matched_name> match(std::string_view name) const {
        const numbered_name n(name);
        for (const numbered_name::word& at : n.words) {
            const auto found = m_patterns.find(std::string_view(n.pattern).substr(at.in_pattern));
            if (found == m_patterns.end()) continue;
            if (m_world == naming::gguf && at.in_name != 0) continue;  // GGUF has no prefixes
            matched_name result{name.substr(0, at.in_name), {m_rows[found->second.row].role, found->second.bias}};
            const auto number = [&](std::size_t i) {
                return at.numbers_before + i < n.numbers.size() ? n.numbers[at.numbers_before + i] : 0;
            };
            result.identity.layer = number(0);
            result.identity.expert = number(1);
            return result;
        }
        return std::nullopt;
    }

    /// The name of a tensor, or nothing if this container has none for its role.
    [[nodiscard]] std::optional<std::string> spell(const tensor_identity& what, std::string_view prefix) const {
        for (const name_row& row : m_rows) {
            const std::string_view pattern = pattern_of(row, m_world);
            if (row.role != what.role || pattern.empty()) continue;
            if (what.bias && !pattern.ends_with(weight_ending)) continue;
            return spell(row, what, prefix);
        }
        return std::nullopt;
    }

    /// The layer in whose attention a name lies, claimed or not: what stands in the same module as a claimed tensor of
    /// attention, or in one whose name says attention.
    [[nodiscard]] std::optional<std::size_t> layer_of_attention(std::string_view name, std::string_view prefix) const {
        if (!name.starts_with(prefix)) return std::nullopt;
        name.remove_prefix(prefix.size());
        const std::string_view blocks = blocks_of(name);
        if (blocks.empty()) return std::nullopt;
        name.remove_prefix(blocks.size());
        std::size_t block = 0;
        const auto [end, problem] = std::from_chars(name.data(), name.data() + name.size(), block);
        if (problem != std::errc{} || end == name.data() + name.size() || *end != '.') return std::nullopt;
        const std::string_view module(end + 1, static_cast<std::size_t>(name.data() + name.size() - end - 1));
        const std::string_view first = module.substr(0, module.find('.'));
        const bool attention = first.find("attn") != first.npos || first.find("attention") != first.npos ||
                               first.find("indexer") != first.npos;
        return attention || shares_module(blocks, first) ? std::optional(block) : std::nullopt;
    }

private:
    struct entry {
        std::size_t row;
        bool bias;
    };

    /// A name with "{}" for its numbers, and where its words begin.
    struct numbered_name {
        struct word {
            std::size_t in_name, in_pattern, numbers_before;
        };
        std::string pattern;
        std::vector<std::size_t> numbers;
        std::vector<word> words;

        explicit numbered_name(std::string_view name) {
            for (std::size_t begin = 0; begin <= name.size();) {
                const std::size_t end = std::min(name.find('.', begin), name.size());
                const std::string_view text = name.substr(begin, end - begin);
                if (begin != 0) pattern += '.';
                words.push_back({begin, pattern.size(), numbers.size()});
                std::size_t value = 0;
                const auto [stop, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
                if (!text.empty() && problem == std::errc{} && stop == text.data() + text.size()) {
                    numbers.push_back(value);
                    pattern += "{}";
                } else {
                    pattern += text;
                }
                begin = end + 1;
            }
        }
    };

    [[nodiscard]] static std::string spell(std::string_view pattern, const tensor_identity& what) {
        std::string name;
        std::size_t number = what.layer;
        for (std::size_t at = 0; at < pattern.size();) {
            const std::size_t hole = pattern.find("{}", at);
            name += pattern.substr(at, hole - at);
            if (hole == pattern.npos) break;
            name += std::to_string(number);
            number = what.expert;
            at = hole + 2;
        }
        if (what.bias) {
            name.resize(name.size() - weight_ending.size());
            name += bias_ending;
        }
        return name;
    }
    [[nodiscard]] std::string spell(const name_row& row, const tensor_identity& what, std::string_view prefix) const {
        if (m_world == naming::gguf) prefix = "";
        if (row.beside_model) prefix = prefix_beside(prefix);
        return std::string(prefix) + spell(pattern_of(row, m_world), what);
    }

    /// What the names of attention have before the block's number, if this name begins so: "layers.", "blk.".
    [[nodiscard]] std::string_view blocks_of(std::string_view name) const {
        for (const name_row& row : m_rows) {
            const std::string_view pattern = pattern_of(row, m_world);
            const std::string_view begin = pattern.substr(0, pattern.find("{}"));
            if (is_attention_role(row.role) && begin.size() != pattern.size() && name.starts_with(begin)) return begin;
        }
        return {};
    }

    /// Whether a claimed tensor of attention stands in this module of a block ("self_attn" for safetensors).
    [[nodiscard]] bool shares_module(std::string_view blocks, std::string_view module) const {
        if (m_world == naming::gguf) return false;  // flat names: "attn_q" says attention itself
        const std::string begin = std::string(blocks) + "{}.";
        return std::ranges::any_of(m_rows, [&](const name_row& row) {
            if (!is_attention_role(row.role) || !row.hf.starts_with(begin)) return false;
            const std::string_view rest = row.hf.substr(begin.size());
            return rest.find('.') != rest.rfind('.') && rest.substr(0, rest.find('.')) == module;
        });
    }

    std::span<const name_row> m_rows;
    naming m_world;
    std::vector<std::string> m_biases;
    std::unordered_map<std::string_view, entry> m_patterns;
};

/// The tensors of a checkpoint that a family's names claim, by prefix.
class tensor_map {
public:
    tensor_map() = default;

    /// @param names  logical names, which must stay where they are
    tensor_map(const name_matcher& matcher, std::span<const std::string> names) {
        for (const std::string& name : names)
            if (const auto found = matcher.match(name))
                m_prefixes[std::string(found->prefix)].emplace(key_of(found->identity), &name);
    }

    /// The stored name of a tensor under a prefix, or null.
    [[nodiscard]] const std::string* find(std::string_view prefix, const tensor_identity& what) const {
        const auto tensors = m_prefixes.find(std::string(prefix));
        if (tensors == m_prefixes.end()) return nullptr;
        const auto found = tensors->second.find(key_of(what));
        return found == tensors->second.end() ? nullptr : found->second;
    }
    [[nodiscard]] std::vector<std::string> prefixes() const {
        std::vector<std::string> all;
        for (const auto& [prefix, tensors] : m_prefixes) all.push_back(prefix);
        std::ranges::sort(all);
        return all;
    }

private:
    /// Blocks are few and experts fewer than 2^24, whatever a name says; larger numbers fold, and spelling shows them.
    static std::uint64_t key_of(const tensor_identity& what) noexcept {
        return static_cast<std::uint64_t>(what.role) | static_cast<std::uint64_t>(what.bias) << 7 |
               (static_cast<std::uint64_t>(what.layer) & 0xffffffff) << 8 |
               (static_cast<std::uint64_t>(what.expert) & 0xffffff) << 40;
    }

    std::unordered_map<std::string, std::unordered_map<std::uint64_t, const std::string*>> m_prefixes;
};

}  // namespace larql::detail

#endif
