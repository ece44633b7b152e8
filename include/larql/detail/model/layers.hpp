// SPDX-License-Identifier: Apache-2.0
//
// What differs from block to block: which blocks see a window or a chunk of the keys, and which do not rotate.
#ifndef LARQL_DETAIL_MODEL_LAYERS_HPP
#define LARQL_DETAIL_MODEL_LAYERS_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/mla_geometry.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace larql::detail {

inline constexpr const char* full_layer = "full_attention";
inline constexpr const char* sliding_layer = "sliding_attention";
inline constexpr const char* chunked_layer = "chunked_attention";
inline constexpr const char* linear_layer = "linear_attention";
inline constexpr const char* indexed_layer = "indexed_attention";

/// What older files call full and linear attention: transformers configuration_utils.py _LEGACY_LAYER_TYPE_REMAP; and
/// GPT-Neo, with or without a window.
constexpr std::string_view current_name(std::string_view type) noexcept {
    return type == "attention" || type == "global" ? full_layer
           : type == "local"                       ? sliding_layer
           : type == "mamba"                       ? linear_layer
                                                   : type;
}

/// Layers of hybrid models whose mixer is no attention, or that have none (transformers' Lfm2, RecurrentGemma and
/// Nemotron-H).
constexpr bool is_other_layer(std::string_view type) noexcept {
    return type == linear_layer || type == "conv" || type == "recurrent" || type == "mlp" || type == "moe";
}

/// What a family's rules make of one block.
struct layer_plan {
    std::string type;        ///< of `layer_types`, stated or derived; "" if the family has none
    std::size_t window = 0;  ///< keys that the block sees; 0: all
    std::size_t chunk = 0;
    bool rotates = true;
    std::optional<double> theta{};  ///< a base of its own
};

/// Derives the plans of all blocks, collecting every problem.
class layer_planner {
public:
    layer_planner(const model_values& values, std::size_t layers, config_problems& problems,
                  std::vector<std::string>& not_understood)
        : m_values(values),
          m_family(*values.family),
          m_layers(layers),
          m_problems(problems),
          m_not_understood(not_understood) {}

    [[nodiscard]] std::vector<layer_plan> plans() {
        std::vector<layer_plan> all(m_layers);
        read_no_rope(all);
        const std::size_t window = sliding_window();
        if (!read_types(all)) derive_types(all, window);
        switch_indexers(all);
        leave_out_cross_attention(all);
        for (const std::size_t layer : m_values.without_attention)
            if (layer < all.size()) all[layer].type = linear_layer;
        if (m_family.lists(model_key::global_head_dim) && !all.empty())
            all.back().type = full_layer;  // whatever is stated: configuration_gemma4.py
        const std::size_t first = window != 0 && needs_first(all) ? first_window_block() : 0;
        const std::size_t chunk = chunk_size();
        for (std::size_t block = 0; block < all.size(); ++block) {
            layer_plan& plan = all[block];
            if (has_window(block, plan.type, first)) plan.window = window;
            if (plan.type == chunked_layer) plan.chunk = chunk;
            if (plan.type == sliding_layer && window == 0 && m_reported.insert(plan.type))
                m_problems.add(errc::missing_key, m_values.where + "sliding_window",
                               concat({"layer_types calls block ", block, " \"", plan.type,
                                       "\", and no window is stated or it is turned off"}));
            if (plan.type == chunked_layer && chunk == 0 && m_reported.insert(plan.type))
                m_problems.add(
                    errc::missing_key, m_values.where + "attention_chunk_size",
                    concat({"layer_types calls block ", block, " \"", plan.type, "\", and no size is stated"}));
        }
        check_window_pattern(all);
        stop_rotation(all, window != 0);
        rotate_dense(all);
        read_thetas(all);
        return all;
    }

    /// The window that the configuration states, or the family's; 0: none.
    [[nodiscard]] std::size_t sliding_window() {
        const key_values& top = m_values.top;
        if (m_family.windows == window_rule::none) return 0;
        if (!top.find<bool>(model_key::use_sliding_window).value_or(m_family.window_by_default)) return 0;
        if (const std::size_t previous = top.size(model_key::previous_tokens); previous != 0) return previous + 1;
        if (m_values.from_gguf && m_family.lists(model_key::previous_tokens)) require_own_window();
        if (top.stated(model_key::sliding_window)) return top.size(model_key::sliding_window);
        if (top.stated(model_key::local_attention)) return top.size(model_key::local_attention) / 2;
        if (!m_values.class_defaults) return 0;
        if (m_family.default_sliding_window) return *m_family.default_sliding_window;
        m_problems.add(errc::missing_key, m_values.where + "sliding_window", "required and absent; null means none");
        return 0;
    }

private:
    /// Reports a window that no configuration of the caller's states, where the file's number may be either.
    void require_own_window() {
        const std::string name = m_values.top.name(model_key::sliding_window);
        if (name.starts_with(m_values.where) && m_reported.insert(name))
            m_problems.add(errc::missing_key, name,
                           "GGUF does not tell whether the token itself is counted, as llama.cpp takes it, or those "
                           "before it, as transformers does: state sliding_window or sliding_window_size with --config "
                           "(checkpoint::open's `config`)");
    }

    /// The blocks that `no_rope_layers` names, where the family goes by it.
    void read_no_rope(std::vector<layer_plan>& all) {
        if (m_family.nope != nope_rule::listed) return;
        const key_values& top = m_values.top;
        const auto listed = top.find<std::vector<double>>(model_key::no_rope_layers);
        if (listed && !listed->empty()) {  // an empty list is none, as in transformers
            if (listed->size() != all.size())
                m_problems.add(errc::bad_value, top.name(model_key::no_rope_layers),
                               concat({"expected ", all.size(), " entries, got ", listed->size()}));
            for (std::size_t b = 0; b < std::min(all.size(), listed->size()); ++b) all[b].rotates = (*listed)[b] != 0.0;
            return;
        }
        const std::size_t interval = m_values.size_or_default(model_key::no_rope_layer_interval);
        for (std::size_t b = 0; b < all.size(); ++b) all[b].rotates = interval == 0 || (b + 1) % interval != 0;
    }

    /// A list of which blocks have a window, which transformers does not read: it must say what the types say.
    void check_window_pattern(const std::vector<layer_plan>& all) {
        const auto stated = m_values.top.find<std::vector<double>>(model_key::window_pattern);
        if (!stated) return;
        const auto agrees = [](double windowed, const layer_plan& plan) {
            return (windowed != 0.0) == (plan.window != 0);
        };
        if (!std::ranges::equal(*stated, all, agrees))
            m_not_understood.push_back(m_values.top.name(model_key::window_pattern) +
                                       " names other blocks with a window than the layer types do");
    }

    /// Takes the rotation from blocks that go by their window.
    void stop_rotation(std::vector<layer_plan>& all, bool windowed) const {
        if (m_family.nope != nope_rule::full && !(m_family.nope == nope_rule::full_among_window && windowed)) return;
        for (layer_plan& plan : all) plan.rotates = plan.window != 0;
    }

    /// Blocks before a dense feed-forward part rotate all the same (Cohere2-MoE): those that a list calls so, or the
    /// first ones.
    void rotate_dense(std::vector<layer_plan>& all) {
        if (!m_family.lists(model_key::feed_forward_types)) return;
        const key_values& top = m_values.top;
        const auto types = top.find<std::vector<std::string>>(model_key::feed_forward_types);
        if (types && types->size() != all.size())
            m_problems.add(errc::bad_value, top.name(model_key::feed_forward_types),
                           concat({"expected ", all.size(), " entries, got ", types->size()}));
        for (std::size_t b = 0; b < all.size(); ++b)
            if (types ? b < types->size() && (*types)[b] == "dense" : b < first_dense()) all[b].rotates = true;
    }
    [[nodiscard]] std::size_t first_dense() const {
        return m_family.lists(model_key::feed_forward_types) ? m_values.top.size(model_key::first_k_dense_replace) : 0;
    }

    /// The bases that `layer_rope_theta` gives each block.
    void read_thetas(std::vector<layer_plan>& all) {
        const key_values& top = m_values.top;
        const auto listed = top.find<std::vector<double>>(model_key::layer_rope_theta);
        if (!listed) return;
        if (listed->size() != all.size())
            m_problems.add(errc::bad_value, top.name(model_key::layer_rope_theta),
                           concat({"expected ", all.size(), " entries, got ", listed->size()}));
        for (std::size_t b = 0; b < std::min(all.size(), listed->size()); ++b) {
            all[b].rotates = (*listed)[b] != 0.0;
            all[b].theta = (*listed)[b];
        }
    }

    /// Takes the types that are stated; false if none are.
    bool read_types(std::vector<layer_plan>& all) {
        const key_values& top = m_values.top;
        auto types = top.find<std::vector<std::string>>(model_key::layer_types);
        if (types && m_family.cyclic_types && !types->empty()) {
            const std::size_t period = types->size();
            types->resize(all.size());  // longer lists are cut
            for (std::size_t b = period; b < all.size(); ++b) (*types)[b] = (*types)[b - period];
        }
        if (!types) {
            const bool derived = m_family.windows == window_rule::but_period;
            if (m_family.windows == window_rule::layer_types ||
                (m_family.indexer.blocks == indexer_blocks::layer_types && !derived))
                m_problems.add(errc::missing_key, m_values.where + "layer_types", "required and absent");
            return false;
        }
        const std::string name = top.name(model_key::layer_types);
        if (types->size() != all.size())
            m_problems.add(errc::bad_value, name, concat({"expected ", all.size(), " entries, got ", types->size()}));
        for (const std::string& stated : *types) {
            const std::string_view type = current_name(stated);
            const bool chunked = type == chunked_layer && m_family.windows == window_rule::chunks;
            const bool linear = m_family.linear_layers && is_other_layer(type);
            const bool indexed = reads_indexer(m_family) && is_indexed_type(type);
            const bool known = type == full_layer || type == sliding_layer || chunked || linear || indexed;
            if (!known && m_reported.insert(stated))
                m_not_understood.push_back(name + ": layer type \"" + stated + "\" is unknown");
        }
        for (std::size_t b = 0; b < std::min(all.size(), types->size()); ++b) {
            const std::string_view type = current_name((*types)[b]);
            all[b].type = m_family.linear_layers && is_other_layer(type) ? linear_layer : type;
        }
        return true;
    }

    /// The types that transformers' configuration class derives from other keys.
    void derive_types(std::vector<layer_plan>& all, std::size_t window) {
        const std::size_t period = m_values.size_or_default(model_key::sliding_window_pattern);
        const std::size_t interval = m_values.size_or_default(model_key::full_attention_interval);
        const std::size_t dense = first_dense();  // which see all keys, before the pattern begins (Cohere2-MoE)
        const std::size_t below = m_family.windows == window_rule::alternating ? first_window_block() : 0;
        if (m_family.windows == window_rule::pattern && period == 0 && window != 0)
            m_problems.add(errc::missing_key, m_values.where + "layer_types",
                           "required and absent, and so is sliding_window_pattern");
        if (m_family.linear_layers && (list_attention_layers(all) || count_attention_layers(all))) return;
        if (m_family.linear_layers && interval == 0)
            m_problems.add(errc::missing_key, m_values.where + "layer_types",
                           "required and absent: which layers have attention");
        for (std::size_t b = 0; b < all.size(); ++b) {
            const auto choose = [&](bool local) { all[b].type = local && window != 0 ? sliding_layer : full_layer; };
            if (m_family.windows == window_rule::pattern)
                choose(period != 0 && b >= dense && (b - dense + 1) % period != 0);
            if (m_family.windows == window_rule::alternating) choose(b % 2 == 0 && b < below);
            if (m_family.windows == window_rule::unrotated) choose(!all[b].rotates);
            if (m_family.windows == window_rule::but_period) {
                const std::size_t stated = m_family.lists(model_key::sliding_window_pattern) ? period : 0;
                const std::size_t whole = stated != 0 ? stated : std::max<std::size_t>(m_family.window_period, 1);
                choose(b != 0 && b % whole != m_family.window_offset);
                if (m_family.indexer.by_switch && all[b].type == full_layer) all[b].type = indexed_layer;
            }
            if (m_family.linear_layers && interval != 0)
                all[b].type = (b + 1) % interval != 0 ? linear_layer : full_layer;
            if (m_family.windows == window_rule::chunks)
                all[b].type = all[b].rotates && chunk_size() != 0 ? chunked_layer : full_layer;
        }
    }

    /// Makes blocks that see all keys sparse, or not, as the family's key says. Where layers state their own sizes, its
    /// absence leaves the types as they are.
    void switch_indexers(std::vector<layer_plan>& all) const {
        if (!m_family.indexer.by_switch) return;
        const key_values& top = m_values.top;
        auto on = top.find<bool>(model_key::use_indexer);
        if (!top.stated(model_key::use_indexer) && !m_values.by_layer) on = true;
        if (!on) return;
        for (layer_plan& plan : all) {
            if (*on && plan.type == full_layer) plan.type = indexed_layer;
            if (!*on && is_indexed_type(plan.type)) plan.type = full_layer;
        }
    }

    /// Layers that attend to an image and to nothing else: text passes them by (Llama 3.2 Vision).
    void leave_out_cross_attention(std::vector<layer_plan>& all) {
        if (!m_family.lists(model_key::cross_attention_layers)) return;
        const key_values& top = m_values.top;
        const auto listed = top.find<std::vector<double>>(model_key::cross_attention_layers);
        if (!listed && !top.refused(model_key::cross_attention_layers))
            m_problems.add(errc::missing_key, m_values.where + "cross_attention_layers", "required and absent");
        if (listed) set_types(all, model_key::cross_attention_layers, *listed, 0, linear_layer);
    }

    /// Gives the layers that a list names, the first by `first`, a type.
    void set_types(std::vector<layer_plan>& all, model_key key, const std::vector<double>& listed, std::size_t first,
                   const char* type) {
        if (all.empty()) return;  // how many there are is unknown, and has been reported
        for (const double number : listed) {
            const auto layer = static_cast<std::size_t>(number);
            if (layer < first || layer - first >= all.size() || static_cast<double>(layer) != number)
                m_problems.add(errc::bad_value, m_values.top.name(key),
                               concat({"expected numbers from ", first, " to ", all.size() - 1 + first}));
            else
                all[layer - first].type = type;
        }
    }

    /// Layers with attention that a pattern shows, or that a list names, counted from 1 or from 0; false if none is
    /// stated.
    bool list_attention_layers(std::vector<layer_plan>& all) {
        if (read_pattern(all)) return true;
        const bool from_zero = m_values.top.stated(model_key::full_attention_indexes);
        const model_key key = from_zero ? model_key::full_attention_indexes : model_key::full_attention_layers;
        const auto listed = m_values.top.find<std::vector<double>>(key);
        if (!listed) return false;
        for (layer_plan& plan : all) plan.type = linear_layer;
        set_types(all, key, *listed, from_zero ? 0 : 1, full_layer);
        return true;
    }

    /// Layers b % period == offset have attention (Jamba); false for families without such keys.
    bool count_attention_layers(std::vector<layer_plan>& all) {
        if (!m_family.lists(model_key::attention_layer_period)) return false;
        const std::size_t period = m_values.size_or_default(model_key::attention_layer_period);
        const std::size_t offset = m_values.size_or_default(model_key::attention_layer_offset);
        if (offset >= period)
            m_problems.add(errc::bad_value, m_values.where + "attn_layer_offset",
                           concat({"expected less than attn_layer_period ", period, ", got ", offset}));
        for (std::size_t b = 0; b < all.size(); ++b)
            all[b].type = b % std::max<std::size_t>(period, 1) == offset ? full_layer : linear_layer;
        return true;
    }

    /// A letter for each layer: attention is "*" (configuration_nemotron_h.py).
    bool read_pattern(std::vector<layer_plan>& all) {
        const auto pattern = m_values.top.find<std::string>(model_key::hybrid_pattern);
        if (!pattern) return false;
        const std::string name = m_values.top.name(model_key::hybrid_pattern);
        if (pattern->size() != all.size())
            m_problems.add(errc::bad_value, name, concat({"expected ", all.size(), " letters, got ", pattern->size()}));
        if (pattern->find_first_not_of("*ME-") != pattern->npos)
            m_not_understood.push_back(name + " has letters other than M, E, * and -");
        for (std::size_t b = 0; b < std::min(all.size(), pattern->size()); ++b)
            all[b].type = (*pattern)[b] == '*' ? full_layer : linear_layer;
        return true;
    }

    [[nodiscard]] bool needs_first(const std::vector<layer_plan>& all) const {
        return std::ranges::all_of(all, [](const layer_plan& plan) { return plan.type.empty(); });
    }

    [[nodiscard]] std::size_t chunk_size() const {
        return m_family.windows == window_rule::chunks ? m_values.size_or_default(model_key::attention_chunk_size) : 0;
    }

    /// The first block with a window, or the first without, for families that have one from or up to a block.
    [[nodiscard]] std::size_t first_window_block() {
        if (m_family.windows != window_rule::from_block && m_family.windows != window_rule::alternating) return 0;
        if (m_values.top.stated(model_key::max_window_layers)) return m_values.top.size(model_key::max_window_layers);
        if (m_family.default_max_window_layers) return *m_family.default_max_window_layers;
        m_problems.add(errc::missing_key, m_values.where + "max_window_layers", "required and absent");
        return 0;
    }

    [[nodiscard]] bool has_window(std::size_t block, const std::string& type, std::size_t first) const {
        switch (m_family.windows) {
            case window_rule::none: return false;
            case window_rule::every_block: return true;
            case window_rule::period:
                return m_family.window_period != 0 && block % m_family.window_period == m_family.window_offset;
            case window_rule::from_block: return type.empty() ? block >= first : type == sliding_layer;
            case window_rule::layer_types:
            case window_rule::pattern:
            case window_rule::alternating:
            case window_rule::but_period:
            case window_rule::chunks:
            case window_rule::unrotated: return type == sliding_layer;
        }
        return false;
    }

    const model_values& m_values;
    const model_family& m_family;
    std::size_t m_layers;
    config_problems& m_problems;
    std::vector<std::string>& m_not_understood;
    once m_reported;
};

/// Refuses a block whose key/value heads do not divide its heads, whichever keys they are from.
inline void require_groups(const mla_geometry& g, const key_values& top, config_problems& problems) {
    if (g.kv_heads() == 0 || g.num_heads % g.kv_heads() == 0) return;
    const bool global = top.size(model_key::num_global_key_value_heads) == g.num_kv_heads;
    problems.add(errc::bad_value,
                 top.name(global ? model_key::num_global_key_value_heads : model_key::num_key_value_heads),
                 concat({"expected a divisor of num_attention_heads ", g.num_heads, ", got ", g.num_kv_heads}));
}

}  // namespace larql::detail

#endif
