// SPDX-License-Identifier: Apache-2.0
//
// The weights of one attention block, by role.
#ifndef LARQL_ATTENTION_WEIGHTS_HPP
#define LARQL_ATTENTION_WEIGHTS_HPP

#include <larql/attention_spec.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/mla/rows.hpp>
#include <larql/detail/model/roles.hpp>
#include <larql/error.hpp>
#include <larql/matrix_input.hpp>
#include <larql/mla_absorb.hpp>
#include <larql/tensor_role.hpp>

#include <array>
#include <cstddef>
#include <string>
#include <utility>

namespace larql {

/// Weights of a block, in the form that its spec says. Shapes stand at tensor_role; what the form does not use stays
/// empty. Biases may be given for q, q_a, kv_a, kv_a_latent, k, v, gate and o, and for the norms of heads.
template <class T>
class attention_weights {
public:
    /// A projection.
    [[nodiscard]] matrix_input<T>& operator[](tensor_role role) { return m_entries[index(role)].matrix; }
    [[nodiscard]] const matrix_input<T>& operator[](tensor_role role) const { return m_entries[index(role)].matrix; }
    /// The gains of a norm, or the sinks.
    [[nodiscard]] vector_input<T>& vector(tensor_role role) { return m_entries[index(role)].vector; }
    [[nodiscard]] const vector_input<T>& vector(tensor_role role) const { return m_entries[index(role)].vector; }
    /// The bias of a projection or of a norm, or none.
    [[nodiscard]] vector_input<T>& bias(tensor_role role) { return m_entries[index(role)].bias; }
    [[nodiscard]] const vector_input<T>& bias(tensor_role role) const { return m_entries[index(role)].bias; }

private:
    struct entry {
        matrix_input<T> matrix{};
        vector_input<T> vector{};
        vector_input<T> bias{};
    };
    static std::size_t index(tensor_role role) {
        if (!is_attention_role(role))
            detail::fail(errc::bad_value, "is no tensor of an attention block",
                         {.subject = detail::concat({"role ", static_cast<unsigned>(role)})});
        return static_cast<std::size_t>(role);
    }
    std::array<entry, static_cast<std::size_t>(tensor_role::inert) + 1> m_entries{};
};

/// A layer as published, which refers to what the factors refer to.
template <class T>
attention_weights<T> to_attention_weights(mla_factors<T> layer, matrix_input<T> projection,
                                          vector_input<T> projection_bias = {}) {
    using enum tensor_role;
    attention_weights<T> w;
    w[q] = std::move(layer.q);
    w[q_a] = std::move(layer.q_a);
    w.bias(q_a) = std::move(layer.q_a_bias);
    w.vector(q_a_norm) = std::move(layer.q_a_norm);
    w[q_b] = std::move(layer.q_b);
    w[kv_a] = std::move(layer.kv_a);
    w.bias(kv_a) = std::move(layer.kv_a_bias);
    w.vector(kv_a_norm) = std::move(layer.kv_a_norm);
    w[kv_b] = std::move(layer.kv_b);
    w[o] = std::move(projection);
    w.bias(o) = std::move(projection_bias);
    return w;
}

/// An absorbed layer, whose tensors the result owns.
template <class T>
attention_weights<T> to_attention_weights(dense_mla<T> layer, matrix_input<T> projection,
                                          vector_input<T> projection_bias = {}) {
    using enum tensor_role;
    attention_weights<T> w;
    w[q] = std::move(layer.q);
    w.bias(q) = layer.q_bias;
    if (layer.q_a.size() != 0) w[q_a] = std::move(layer.q_a);
    w.bias(q_a) = layer.q_a_bias;
    w[kv_a_latent] = std::move(layer.kv_a);
    w.bias(kv_a_latent) = layer.kv_a_bias;
    w[k] = std::move(layer.k);
    w.bias(k) = layer.k_bias;
    w[v] = std::move(layer.v);
    w.bias(v) = layer.v_bias;
    w[o] = std::move(projection);
    w.bias(o) = std::move(projection_bias);
    return w;
}

/// A layer in latent form, whose tensors the result owns.
template <class T>
attention_weights<T> to_attention_weights(latent_mla<T> layer, matrix_input<T> projection,
                                          vector_input<T> projection_bias = {}) {
    using enum tensor_role;
    attention_weights<T> w;
    if (layer.q.size() != 0) w[q] = std::move(layer.q);
    if (layer.q_a.size() != 0) w[q_a] = std::move(layer.q_a);
    w.bias(q_a) = layer.q_a_bias;
    if (layer.q_b.size() != 0) w[q_b] = std::move(layer.q_b);
    if (layer.kv_a.size() != 0) w[kv_a] = std::move(layer.kv_a);
    w.bias(kv_a) = layer.kv_a_bias;
    w[k_b] = detail::flatten_heads(std::move(layer.k_b));
    w[v_b] = detail::flatten_heads(std::move(layer.v_b));
    w[o] = std::move(projection);
    w.bias(o) = std::move(projection_bias);
    return w;
}

namespace detail {

/// What compressed attention is: one key/value head, a window, and nothing that other kinds add to a softmax.
inline void require_valid_compressed(const attention_spec& spec) {
    const mla_geometry& g = spec.geometry;
    const compression_spec& c = spec.compression;
    const auto require = [](bool good, const char* member, const char* wanted) {
        if (!good)
            fail(errc::bad_value, std::string("compressed attention wants ") + wanted,
                 {.subject = std::string("attention_spec::") + member});
    };
    const auto rms = [](const norm_spec& norm) {
        return norm.kind == norm_kind::rms && norm.per_head && !norm.after_rope;
    };
    require(spec.form == attention_form::factored, "form", "the factored form");
    require(g.kv_heads() == 1 && g.v_head_dim == g.qk_head_dim(), "geometry", "one key/value head with K = V");
    require(g.q_lora_rank != 0 && rms(spec.latent_norm), "geometry", "a query latent and its norm");
    require(g.order == head_order::nope_rope, "geometry", "heads whose last elements rotate");
    require(!depends_on_length(spec.rope), "rope", "frequencies that do not follow the sequence's length");
    require(spec.sliding_window != 0, "sliding_window", "a window");
    require(spec.softcap == 0.0 && spec.gate == output_gate::none && !spec.temperature.any(), "softcap",
            "no softcap, gate or temperature");
    require(spec.q_norm.kind == norm_kind::none || rms(spec.q_norm), "q_norm", "an RMSNorm of heads before rotation");
    require(spec.k_norm.kind == norm_kind::none || rms(spec.k_norm), "k_norm", "an RMSNorm of heads before rotation");
    require(c.ratio == 0 || rms(c.norm), "compression", "an RMSNorm of entries");
    require(c.index_heads == 0 || (c.ratio != 0 && c.index_top_k != 0 && c.index_head_dim >= g.qk_rope_head_dim),
            "compression", "an indexer with entries, a top_k, and heads at least as long as what rotates");
}

/// Blocks that attend to keys, values or latents of another, and those whose latents others attend to.
inline void require_valid_sharing(const attention_spec& spec) {
    const auto refuse = [](const char* member, const std::string& problem) {
        fail(errc::bad_value, problem, {.subject = std::string("attention_spec::") + member});
    };
    const bool plain = spec.kind == attention_kind::gqa && !spec.value_is_key && spec.k_norm.kind == norm_kind::none &&
                       spec.v_norm.kind == norm_kind::none;
    const bool latent = spec.shares_latents && spec.k_rope_norm.kind == norm_kind::none;
    if (spec.kv_layer && (!(plain || latent) || *spec.kv_layer >= spec.layer))
        refuse(
            "kv_layer",
            concat({"expected plain attention without norms of keys and values, or shared latents, and a layer before ",
                    spec.layer, ", got layer ", *spec.kv_layer}));
    if (spec.shares_latents && (spec.kind != attention_kind::mla || spec.form == attention_form::dense ||
                                spec.geometry.num_heads != spec.geometry.kv_heads()))
        refuse("shares_latents", "expected latent attention, not in its dense form, with as many kv heads as heads");
}

/// A sparse indexer.
inline void require_valid_indexer(const attention_spec& spec) {
    const auto refuse = [](const char* member, const std::string& problem) {
        fail(errc::bad_value, problem, {.subject = std::string("attention_spec::") + member});
    };
    const indexer_spec& indexer = spec.indexer;
    if (indexer.pool == 0 || indexer.top_k % indexer.pool != 0)
        refuse("indexer", concat({"expected top_k to be a multiple of the keys of a pool, got ", indexer.top_k, " and ",
                                  indexer.pool}));
    if (!indexer.own()) return;
    if (indexer.heads == 0 || indexer.head_dim < spec.rope.rotary_dim)
        refuse("indexer", concat({"expected heads of at least the ", spec.rope.rotary_dim,
                                  " elements that rotate, got ", indexer.heads, " of ", indexer.head_dim}));
    if (spec.kind != attention_kind::mla || (spec.geometry.q_lora_rank == 0 && !indexer.from_input))
        refuse("indexer", "its queries are made from a query latent, which the block does not have");
    if (indexer.k_norm.kind != norm_kind::none && !(indexer.k_norm.eps > 0.0))
        refuse("indexer.k_norm.eps", concat({"expected a number above 0, got ", indexer.k_norm.eps}));
    if (indexer.q_norm.kind != norm_kind::none && !(indexer.q_norm.eps > 0.0 && indexer.from_input))
        refuse("indexer.q_norm",
               concat({"expected queries made from the input and an eps above 0, got ", indexer.q_norm.eps}));
}

/// Holds a spec's numbers against each other: one that was left at 0 would compute something else without a word.
inline void require_valid(const attention_spec& spec) {
    const mla_geometry& g = spec.geometry;
    const auto refuse = [](const char* member, const std::string& problem) {
        fail(errc::bad_value, problem, {.subject = std::string("attention_spec::") + member});
    };
    if (!(spec.scale > 0.0) || !(spec.scale <= 3e38))
        refuse("scale", concat({"expected a finite number above 0, got ", spec.scale}));
    if (g.num_heads == 0 || g.num_heads % g.kv_heads() != 0)
        refuse("geometry", concat({"expected kv heads to divide heads, got ", g.kv_heads(), " and ", g.num_heads}));
    if (g.pairing != rope_pairing::none && spec.rope.rotary_dim != g.qk_rope_head_dim)
        refuse("rope", concat({"expected rotary_dim to be qk_rope_head_dim ", g.qk_rope_head_dim, ", got ",
                               spec.rope.rotary_dim}));
    if (spec.output_groups != 0 && (spec.output_rank == 0 || g.num_heads * g.v_head_dim % spec.output_groups != 0))
        refuse("output_groups", concat({"expected a rank and a divisor of the heads' outputs ",
                                        g.num_heads * g.v_head_dim, ", got ", spec.output_groups}));
    if (spec.kind == attention_kind::compressed)
        require_valid_compressed(spec);
    else if (spec.compression.ratio != 0)
        refuse("compression", "belongs to compressed attention");
    for (const norm_spec& norm :
         {spec.q_norm, spec.k_norm, spec.v_norm, spec.latent_norm, spec.k_rope_norm, spec.compression.norm})
        if (norm.kind != norm_kind::none && !(norm.eps > 0.0))
            refuse("norm_spec::eps", concat({"expected a number above 0, got ", norm.eps}));
    if (spec.indexer.any()) require_valid_indexer(spec);
    require_valid_sharing(spec);
    if (spec.rope.learned && spec.rope.rotary_dim != 0 && spec.rope.multipliers.empty())
        refuse("rope.multipliers", "expected what multiplies the frequencies, which are learned, got none");
    if (spec.raw_query_latent && (spec.kind != attention_kind::mla || g.q_lora_rank == 0))
        refuse("raw_query_latent", "the block has no query latent");
    if (spec.v_norm.kind != norm_kind::none && spec.v_norm.has_gain) refuse("v_norm", "no model has gains for it");
    if (spec.kind != attention_kind::gqa && (spec.input_size != 0 || spec.alibi != 0.0 || spec.value_scale != 1.0))
        refuse("input_size, alibi or value_scale", "belongs to plain attention");
    if (!(spec.value_scale > 0.0) || !(spec.value_scale <= 3e38))
        refuse("value_scale", concat({"expected a finite number above 0, got ", spec.value_scale}));
    if (!(spec.alibi >= 0.0) || !(spec.alibi <= 128.0))
        refuse("alibi", concat({"expected 0 to 128, got ", spec.alibi}));
    if (!(spec.clip >= 0.0)) refuse("clip", concat({"expected 0 or a number above, got ", spec.clip}));
    if (spec.temperature.scale != 0.0 && !(spec.temperature.length > 0.0))
        refuse("temperature", concat({"expected a length above 0, got ", spec.temperature.length}));
}

/// Whether a block needs a tensor, in the form of its spec.
inline bool needs_role(const role_row& row, const attention_spec& spec) {
    if (spec.kind == attention_kind::mla && spec.form == attention_form::latent &&
        spec.latent_from != latent_factors::folded) {
        const bool whole = spec.latent_from == latent_factors::kv_b;
        switch (row.role) {
            case tensor_role::q_a_norm:
            case tensor_role::kv_a_norm: return row.needed(spec, attention_form::factored);
            case tensor_role::kv_b: return whole;
            case tensor_role::k_b:
            case tensor_role::v_b: return !whole;
            default: break;
        }
    }
    return row.needed(spec, spec.form);
}

/// Holds every tensor against the spec: what the form needs is there and fits, and nothing is given in vain.
template <class T>
void require_complete(const attention_spec& spec, const attention_weights<T>& w) {
    for (const role_row& row : attention_roles) {
        const std::size_t rows = size_of(row.rows, spec), cols = size_of(row.cols, spec);
        const std::string name(to_string(row.role));
        const bool given = row.is_vector() ? !w.vector(row.role).empty() : !w[row.role].empty();
        if (!needs_role(row, spec)) {
            if (given) fail(errc::bad_value, "is given, and the block has no use for it", {.subject = name});
        } else if (!row.is_vector()) {
            require_shape(w[row.role], rows, cols, name);
            if (spec.biases.contains(row.role) && w.bias(row.role).empty())
                fail(errc::missing_tensor, "required and not given", {.subject = name + "_bias"});
            require_length(w.bias(row.role), rows, name + "_bias");
        } else {
            if (!given) fail(errc::missing_tensor, "required and not given", {.subject = name});
            require_length(w.vector(row.role), cols, name);
            if (spec.biases.contains(row.role) && w.bias(row.role).empty())
                fail(errc::missing_tensor, "required and not given", {.subject = name + "_bias"});
            require_length(w.bias(row.role), cols, name + "_bias");
        }
    }
}

}  // namespace detail
}  // namespace larql

#endif
