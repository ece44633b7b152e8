// SPDX-License-Identifier: Apache-2.0
//
// Which tensors outside the model's attention blocks stand for the same numbers in two checkpoints: by role, layer and
// expert where the family's names say what they are, else by equal name. From headers alone.
#ifndef LARQL_DETAIL_VERIFY_TENSOR_PAIRS_HPP
#define LARQL_DETAIL_VERIFY_TENSOR_PAIRS_HPP

#include <larql/checkpoint.hpp>
#include <larql/detail/checkpoint/own_names.hpp>
#include <larql/detail/checkpoint/tensors.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/model/names.hpp>
#include <larql/detail/model/stored_otherwise.hpp>
#include <larql/detail/verify/numbers.hpp>
#include <larql/dtype.hpp>
#include <larql/mla_absorb.hpp>
#include <larql/tensor_role.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace larql::detail {

/// What a tensor is, whatever it is called: a role of a layer and expert, or a name that no row claims.
struct tensor_key {
    std::optional<tensor_role> role{};
    bool bias = false;
    std::size_t layer = 0, expert = 0;
    std::string name{};  ///< without the model's prefix; "" if a row claims the tensor

    friend auto operator<=>(const tensor_key&, const tensor_key&) = default;
};

/// Rows of a stored tensor of one side.
struct tensor_part {
    std::string name;
    std::uint64_t begin = 0, end = 0;
    std::uint64_t bytes = 0;  ///< stored, scales included
    std::string shown{};      ///< the name, and the expert if the tensor holds those of a layer
    std::string second{};     ///< of prediction blocks: the v_b that belongs to the k_b `name`
};

struct tensor_pair {
    tensor_key key;
    tensor_part a, b;
};

struct matched_tensors {
    std::vector<tensor_pair> pairs;
    std::vector<std::string> only_in_a, only_in_b;
    std::vector<std::string> towers;  ///< of one side, and none of the other's container
};

/// The layers that are compared: all, or those of some blocks.
struct layer_choice {
    bool all = true;
    std::set<std::size_t> layers{};

    [[nodiscard]] bool contains(std::size_t layer) const { return all || layers.contains(layer); }
};

/// What one checkpoint has beside its attention blocks.
class side_tensors {
public:
    side_tensors(const checkpoint& model, const layer_choice& choice)
        : m_model(model),
          m_matcher(model.family().names, model.has_gguf_names() ? naming::gguf : naming::safetensors),
          m_choice(choice) {
        for (const std::string& name : model.weights().names()) add(name);
    }

    std::map<tensor_key, tensor_part> parts;

private:
    void add(const std::string& name) {
        if (is_inert(name)) return;
        const auto matched = m_matcher.match(name);
        if (!matched || !is_own(m_model, name, *matched)) return add_named(name);
        const tensor_identity what = in_its_layer(m_model, matched->identity);
        constexpr role_set consumed{tensor_role::inert, tensor_role::rope_divisors, tensor_role::rope_long_factors,
                                    tensor_role::rope_short_factors};  // by the configuration, if at all
        if (consumed.contains(what.role)) return;
        if (is_attention_role(what.role) && find_block(m_model.config(), what)) return;  // compared with its block
        constexpr role_set of_no_layer{tensor_role::embedding, tensor_role::output_norm, tensor_role::output};
        if (!of_no_layer.contains(what.role) && !m_choice.contains(what.layer)) return;
        add_role(name, what);
    }

    /// One part, or one for each expert of a stacked tensor.
    void add_role(const std::string& name, const tensor_identity& what) {
        const weight stored = m_model.weights().at(name);
        tensor_key key{.role = what.role, .bias = what.bias, .layer = what.layer, .expert = what.expert};
        constexpr role_set of_experts{tensor_role::expert_gate, tensor_role::expert_up, tensor_role::expert_down};
        if (!of_experts.contains(what.role) || stored.shape().size() != 3) {
            if (!parts.emplace(key, tensor_part{name, 0, stored.rows(), stored.stored_bytes(), name}).second)
                add_named(name);
            return;
        }
        const std::uint64_t experts = stored.shape()[0], rows = stored.shape()[1];
        for (std::uint64_t expert = 0; expert < experts; ++expert) {
            key.expert = static_cast<std::size_t>(expert);
            parts.emplace(key, tensor_part{name, expert * rows, (expert + 1) * rows, stored.stored_bytes() / experts,
                                           concat({name, "[", expert, "]"})});
        }
    }

    /// A tensor that no row claims, by its name after the model's prefix.
    void add_named(const std::string& name) {
        if (!m_choice.all) {
            const auto layer = layer_in(name);
            if (layer && !m_choice.contains(*layer)) return;
        }
        const weight stored = m_model.weights().at(name);
        const std::string& prefix = m_model.name_prefix();
        const std::string rest = name.starts_with(prefix) ? name.substr(prefix.size()) : name;
        const tensor_part whole{name, 0, stored.rows(), stored.stored_bytes(), name};
        if (!parts.emplace(tensor_key{.name = rest}, whole).second) parts.emplace(tensor_key{.name = name}, whole);
    }

    /// The first number in a name.
    [[nodiscard]] static std::optional<std::size_t> layer_in(std::string_view name) {
        for (std::size_t begin = 0; begin < name.size();) {
            const std::size_t end = std::min(name.find('.', begin), name.size());
            std::size_t value = 0;
            const auto [stop, problem] = std::from_chars(name.data() + begin, name.data() + end, value);
            if (problem == std::errc{} && stop == name.data() + end) return value;
            begin = end + 1;
        }
        return std::nullopt;
    }

    /// Scales of activations and caches, and frequencies that follow from the configuration: a form or container that
    /// does not carry them computes the same.
    [[nodiscard]] static bool is_inert(std::string_view name) {
        constexpr std::string_view endings[] = {
            ".input_scale",       ".output_scale", ".q_scale",           ".k_scale",
            ".v_scale",           ".kv_scale",     ".prob_output_scale", ".input_global_scale",
            ".k_zero_point",      ".v_zero_point", ".input_zero_point",  ".qscale_act",
            "rotary_emb.inv_freq"};
        return std::ranges::any_of(endings, [&](std::string_view ending) { return name.ends_with(ending); });
    }

    const checkpoint& m_model;
    name_matcher m_matcher;
    const layer_choice& m_choice;
};

using part_map = std::map<tensor_key, tensor_part>;

/// A side without an output projection multiplies with its embedding: that stands for both.
inline void tie_output(part_map& side, const part_map& other) {
    const tensor_key output{.role = tensor_role::output}, embedding{.role = tensor_role::embedding};
    if (side.contains(output) || !other.contains(output) || !side.contains(embedding)) return;
    side.emplace(output, side.at(embedding));
}

/// A prediction block may have kv_b on one side and k_b and v_b on the other: these become one part.
inline void join_kv_b(part_map& side, const part_map& other) {
    for (const auto& [key, part] : other) {
        if (key.role != tensor_role::kv_b || key.bias || side.contains(key)) continue;
        const auto k_b = side.find({.role = tensor_role::k_b, .layer = key.layer});
        const auto v_b = side.find({.role = tensor_role::v_b, .layer = key.layer});
        if (k_b == side.end() || v_b == side.end()) continue;
        tensor_part joined = k_b->second;
        joined.second = v_b->second.name;
        joined.shown += " + " + joined.second;
        joined.bytes += v_b->second.bytes;
        side.erase(k_b);
        side.erase(v_b);
        side.emplace(key, std::move(joined));
    }
}

/// Names of parts that the other side lacks; a stacked tensor of which nothing is there counts once.
inline std::vector<std::string> without_partner(const part_map& side, const part_map& other) {
    std::map<std::string, std::vector<std::string>> missing;  // by tensor
    std::set<std::string> partly_there;
    for (const auto& [key, part] : side)
        if (other.contains(key))
            partly_there.insert(part.name);
        else
            missing[part.name].push_back(part.shown);
    std::vector<std::string> names;
    for (auto& [name, parts] : missing) {
        if (partly_there.contains(name))
            names.insert(names.end(), parts.begin(), parts.end());
        else
            names.push_back(parts.size() == 1 ? parts.front() : name);
    }
    return names;
}

/// Takes the tensors of towers that see or hear out of names that the other side lacks.
inline void take_towers(const checkpoint& model, std::vector<std::string>& names, std::vector<std::string>& towers) {
    const name_matcher matcher(model.family().names, naming::safetensors);
    const auto is_tower = [&](const std::string& name) { return !tower_of(model, name, matcher.match(name)).empty(); };
    std::ranges::copy_if(names, std::back_inserter(towers), is_tower);
    std::erase_if(names, is_tower);
}

inline matched_tensors match_tensors(const checkpoint& a, const checkpoint& b, const layer_choice& choice) {
    part_map x = side_tensors(a, choice).parts, y = side_tensors(b, choice).parts;
    tie_output(x, y);
    tie_output(y, x);
    join_kv_b(x, y);
    join_kv_b(y, x);
    matched_tensors out;
    for (const auto& [key, part] : x)
        if (const auto same = y.find(key); same != y.end()) out.pairs.push_back({key, part, same->second});
    out.only_in_a = without_partner(x, y);
    out.only_in_b = without_partner(y, x);
    if (a.has_gguf_names() != b.has_gguf_names())
        a.has_gguf_names() ? take_towers(b, out.only_in_b, out.towers) : take_towers(a, out.only_in_a, out.towers);
    return out;
}

/// The rows of a part.
inline compared_rows rows_of_part(const checkpoint& model, const tensor_part& part) {
    if (part.second.empty()) return rows_of_weight(model, part.name, part.begin, part.end, part.shown);
    const auto matrix = [](const weight& stored) {
        return matrix_input<float>(static_cast<std::size_t>(stored.rows()), static_cast<std::size_t>(stored.columns()),
                                   [stored](std::size_t begin, std::size_t end, float* out, std::size_t stride) {
                                       stored.read_rows(begin, end, out, stride);
                                   });
    };
    const weight k_b = model.weights().at(part.name), v_b = model.weights().at(part.second);
    return rows_of_matrix(merge_kv_b(matrix(k_b), matrix(v_b), model.config().blocks.back().geometry), k_b.type(),
                          std::string(k_b.scheme()), part.shown);
}

/// The rows of a part as the numbers that GGUF has, float32 where they are not those of safetensors.
inline compared_rows gguf_rows_of(const checkpoint& model, const stored_otherwise_row* row, const tensor_part& part) {
    compared_rows rows = rows_of_part(model, part);
    if (row == nullptr || row->to_gguf == nullptr || model.has_gguf_names()) return rows;
    rows.type = dtype::f32;
    rows.bytes = nullptr;
    const auto all = [read = std::move(rows.read), to_gguf = row->to_gguf](std::uint64_t begin, std::uint64_t end,
                                                                           std::span<float> out) {
        read(begin, end, out);
        std::ranges::transform(out, out.begin(), to_gguf);
    };
    rows.read = all;
    if (row->shapes != shapes_rule::column) return rows;
    // One row there, one column here.
    rows.read = [all, count = rows.columns](std::uint64_t begin, std::uint64_t end, std::span<float> out) {
        std::vector<float> values(static_cast<std::size_t>(count));
        all(0, 1, values);
        std::ranges::copy(
            std::span(values).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)),
            out.begin());
    };
    rows.rows = std::exchange(rows.columns, 1);
    return rows;
}

inline tensor_check compare_pair(const checkpoint& a, const checkpoint& b, const tensor_pair& pair) {
    using enum tensor_role;
    constexpr role_set norms{output_norm, input_norm, ffn_norm};
    const stored_otherwise_row* row =
        pair.key.role && a.has_gguf_names() != b.has_gguf_names() ? find_stored_otherwise(*pair.key.role) : nullptr;
    const compared_rows x = gguf_rows_of(a, row, pair.a), y = gguf_rows_of(b, row, pair.b);
    const bool small = pair.key.role == router || x.rows == 1;
    return compare_rows(x, y,
                        {.small = small,
                         .gains = a.format() != b.format() && pair.key.role && norms.contains(*pair.key.role),
                         .computed = row != nullptr && row->to_gguf != nullptr});
}

}  // namespace larql::detail

#endif
