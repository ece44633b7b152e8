// SPDX-License-Identifier: Apache-2.0
//
// Where a model's attention lies among the tensors of a checkpoint: under which prefix, and how each role is made from
// what is stored.
#ifndef LARQL_DETAIL_CHECKPOINT_TENSORS_HPP
#define LARQL_DETAIL_CHECKPOINT_TENSORS_HPP

#include <larql/detail/model/names.hpp>
#include <larql/detail/model/roles.hpp>
#include <larql/error.hpp>
#include <larql/model_config.hpp>
#include <larql/tensor_recipe.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// Prefixes under which published checkpoints have their language model, in the order of preference.
inline constexpr std::string_view language_prefixes[] = {
    "model.",
    "",
    "language_model.model.",
    "model.language_model.",
    "model.language_model.model.",
    "language_model.",
    "text_model.",
    "model.text_model.",
    "llm.model.",
    "llm.",
    "thinker.model.",
    "model.model.",
    "transformer.",
    "gpt_neox.",
};

/// The beginning of a name, up to the word that says that it belongs to what sees or hears ("vision_tower"), or "".
inline std::string_view tower_in(std::string_view name) {
    constexpr std::string_view words[] = {"audio", "vision", "visual", "image", "speech", "video", "projector"};
    for (std::size_t begin = 0; begin < name.size();) {
        const std::size_t end = std::min(name.find('.', begin), name.size());
        const std::string_view part = name.substr(begin, end - begin);
        if (std::ranges::any_of(words, [&](std::string_view word) { return part.find(word) != part.npos; }))
            return name.substr(0, end);
        begin = end + 1;
    }
    return {};
}

/// The attention block to which a tensor belongs, or nothing: a layer may have none.
inline std::optional<std::size_t> find_block(const model_config& model, const tensor_identity& what) {
    const auto found = std::ranges::find_if(model.blocks, [&](const attention_spec& spec) {
        return spec.layer == what.layer && (spec.part == what.expert || !is_attention_role(what.role));
    });
    if (found == model.blocks.end()) return std::nullopt;
    return static_cast<std::size_t>(found - model.blocks.begin());
}

/// The tensors of one checkpoint in a family's terms.
class model_tensors {
public:
    model_tensors() = default;
    model_tensors(const model_family& family, naming world, std::vector<std::string> names)
        : m_matcher(name_matcher(family.names, world)), m_names(std::move(names)) {
        m_map = tensor_map(*m_matcher, m_names);
    }
    // The map refers to the names.
    model_tensors(const model_tensors&) = delete;
    model_tensors& operator=(const model_tensors&) = delete;
    model_tensors(model_tensors&&) = default;
    model_tensors& operator=(model_tensors&&) = default;

    [[nodiscard]] const std::string& prefix() const noexcept { return m_prefix; }

    /// The stored name of a tensor, or null. The output stands beside the model, or beside all that a wrapper holds.
    [[nodiscard]] const std::string* find(const tensor_identity& what) const {
        const std::string* stored = m_map.find(m_prefix, what);
        if (what.role != tensor_role::output) return stored;
        for (const std::string_view prefix : {prefix_beside(m_prefix), std::string_view()})
            if (stored == nullptr) stored = m_map.find(prefix, what);
        return stored;
    }

    /// The name that a tensor has or would have.
    [[nodiscard]] std::string name_of(const tensor_identity& what) const {
        if (const std::string* stored = find(what)) return *stored;
        return m_matcher->spell(what, m_prefix).value_or("");
    }

    /// Settles the prefix: the one under which all blocks have the roles that they need. A well-known one that has a
    /// part of them goes before an unknown one that has all: that may be a tower of the same sizes.
    /// @throws error not_understood if several have them and none is better known
    void choose_prefix(const model_config& model, const std::string& file) {
        std::vector<std::string> complete;
        const std::size_t needed = count_missing("no such prefix", model);
        std::size_t fewest = std::numeric_limits<std::size_t>::max();
        bool well_known_part = false;
        m_prefix = "model.";
        for (const std::string& prefix : by_preference()) {  // well-known ones first
            if (!tower_in(prefix).empty() && !is_known(prefix)) continue;
            const std::size_t missing = count_missing(prefix, model);
            if (missing == 0) complete.push_back(prefix);
            if (missing < fewest && !(well_known_part && !is_known(prefix))) m_prefix = prefix;
            fewest = std::min(fewest, missing);
            well_known_part = well_known_part || (is_known(prefix) && missing < needed);
        }
        const bool known = !complete.empty() && is_known(complete.front());
        const auto rivals = std::ranges::count_if(complete, [&](const std::string& p) { return is_known(p) == known; });
        if (rivals < 2 || (!known && well_known_part)) return;
        std::string all;
        for (const std::string& prefix : complete) all += (all.empty() ? "\"" : ", \"") + prefix + "\"";
        fail(errc::not_understood, "several sets of tensors are complete models of this kind, under " + all,
             {.file = file, .subject = "tensors"});
    }

    /// The rank of the query latent that the tensors show: 0 for a single projection, nothing if there are none.
    /// @param rows_of  the number of rows of a stored tensor
    template <class Rows>
    [[nodiscard]] std::optional<std::uint64_t> query_rank(Rows rows_of) const {
        for (const std::string& prefix : by_preference())
            for (std::size_t layer = 0; layer < most_layers; ++layer) {  // the first may have no attention
                if (m_map.find(prefix, {tensor_role::kv_a, false, layer}) == nullptr) continue;
                if (const std::string* q_a = m_map.find(prefix, {tensor_role::q_a, false, layer})) return rows_of(*q_a);
                if (m_map.find(prefix, {tensor_role::q, false, layer}) != nullptr) return 0;
            }
        return std::nullopt;
    }

    /// How a role of a block is made, or nothing if the checkpoint does not have it.
    [[nodiscard]] std::optional<tensor_recipe> locate(tensor_role role, const attention_spec& spec) const {
        return locate(m_prefix, role, spec);
    }

    /// Tensors within the model's attention blocks that nothing reads, a sentence each.
    [[nodiscard]] std::vector<std::string> unclaimed(const model_config& model) const {
        std::vector<std::string> sentences;
        for (const std::string& name : m_names) {
            const auto layer = m_matcher->layer_of_attention(name, m_prefix);
            if (!layer || is_runtime_scale(name)) continue;
            const auto in_layer = std::ranges::find(model.blocks, *layer, &attention_spec::layer);
            if (in_layer == model.blocks.end()) continue;
            const auto found = m_matcher->match(name);
            const auto block = found ? find_block(model, found->identity) : std::nullopt;
            if (!block || found->prefix != m_prefix)
                sentences.push_back(name + " is unknown");
            else if (const std::string_view why = unused(found->identity, model.blocks[*block]); !why.empty())
                sentences.push_back(name + " " + std::string(why));
            else if (const std::string* read = m_map.find(m_prefix, found->identity);
                     found->identity.role != tensor_role::inert && read != &name)
                sentences.push_back(name + " is another name for " + *read + ", which is there, too");
        }
        return sentences;
    }

private:
    static constexpr std::size_t most_layers = 4096;

    [[nodiscard]] static bool is_known(std::string_view prefix) {
        return std::ranges::find(language_prefixes, prefix) != std::end(language_prefixes);
    }
    /// Well-known prefixes first, then the others by name.
    [[nodiscard]] std::vector<std::string> by_preference() const {
        std::vector<std::string> all = m_map.prefixes();
        std::ranges::stable_sort(all, {}, [](const std::string& prefix) {
            return std::ranges::find(language_prefixes, std::string_view(prefix)) - std::begin(language_prefixes);
        });
        return all;
    }

    [[nodiscard]] std::size_t count_missing(const std::string& prefix, const model_config& model) const {
        std::size_t missing = 0;
        for (std::size_t block = model.block_begin; block < model.block_end; ++block)
            for (const role_row& row : attention_roles) {
                const attention_spec& spec = model.blocks[block];
                if (row.needed(spec, spec.form) && !locate(prefix, row.role, spec)) ++missing;
            }
        return missing;
    }

    [[nodiscard]] std::optional<tensor_recipe> locate(const std::string& prefix, tensor_role role,
                                                      const attention_spec& spec) const {
        const auto whole = [&](tensor_role stored) { return m_map.find(prefix, identity_of(spec, stored)); };
        const recipe_row* made = nullptr;
        for (const recipe_row& row : recipes)
            if (made == nullptr && row.made == role && whole(row.from[0]) != nullptr && whole(row.from[1]) != nullptr)
                made = &row;
        const std::string* direct = whole(role);
        if (direct != nullptr && (made == nullptr || !made->preferred)) {
            const role_row* row = find_role(role);
            if (row == nullptr) return std::nullopt;
            return tensor_recipe{{{*direct, role, 0, size_of(row->rows, spec)}}, false};
        }
        if (made == nullptr) return std::nullopt;
        if (made->op == row_op::join_kv_b)
            return tensor_recipe{{{*whole(made->from[0]), made->from[0], 0, size_of(extent::k_b_rows, spec)},
                                  {*whole(made->from[1]), made->from[1], 0, size_of(extent::v_rows, spec)}},
                                 true};
        const std::size_t runs = std::max<std::size_t>(runs_of(*made, spec), 1);
        const std::size_t begin = rows_before(*made, spec) / runs;
        return tensor_recipe{{{*whole(made->from[0]), made->from[0], begin, begin + size_of(made->rows, spec) / runs,
                               runs, size_of(made->columns_before, spec), size_of(made->columns, spec)}},
                             false};
    }

    /// Scales of activations and of an engine's KV cache: they do not touch the weights.
    [[nodiscard]] static bool is_runtime_scale(std::string_view name) {
        constexpr std::string_view endings[] = {
            ".input_scale",  ".output_scale", ".q_scale",           ".k_scale",
            ".v_scale",      ".kv_scale",     ".prob_output_scale", ".input_global_scale",
            ".k_zero_point", ".v_zero_point", ".input_zero_point",  ".qscale_act"};
        return std::ranges::any_of(endings, [&](std::string_view ending) { return name.ends_with(ending); });
    }

    /// Why a claimed tensor of a block has no use there, or "".
    [[nodiscard]] static std::string_view unused(const tensor_identity& what, const attention_spec& spec) {
        if (!is_attention_role(what.role) || what.role == tensor_role::inert) return "";
        // Published files have keys and values of blocks that share another's, and transformers drops them unread
        // (modeling_gemma3n.py, _keys_to_ignore_on_load_unexpected).
        constexpr role_set of_keys{tensor_role::k, tensor_role::v, tensor_role::k_norm};
        if (spec.kv_layer && plain(spec) && of_keys.contains(what.role)) return "";
        const auto needed = [&](tensor_role role) {
            const role_row* row = find_role(role);
            return row != nullptr && row->needed(spec, spec.form);
        };
        const role_set biases = spec.biases | spec.possible_biases;
        bool used = needed(what.role), biased = biases.contains(what.role);
        for (const recipe_row& row : recipes) {
            if (!needed(row.made) || std::ranges::find(row.from, what.role) == row.from.end()) continue;
            used = true;
            biased = biased || (row.op != row_op::join_kv_b && biases.contains(row.made));
        }
        if (!used) return "has no use in this block";
        if (!what.bias || biased) return "";
        return "is there, and the configuration states no bias (attention_bias)";
    }

    std::optional<name_matcher> m_matcher;
    std::vector<std::string> m_names;
    tensor_map m_map;
    std::string m_prefix = "model.";  // until it is settled
};

}  // namespace larql::detail

#endif
