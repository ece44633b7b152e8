// SPDX-License-Identifier: Apache-2.0
//
// The tensors of an attention block: their shapes by named extents, when a block has them, and how they are made from
// tensors that are stored otherwise. Checking, reading and planning are loops over these rows.
#ifndef LARQL_DETAIL_MODEL_ROLES_HPP
#define LARQL_DETAIL_MODEL_ROLES_HPP

#include <larql/attention_spec.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

namespace larql::detail {

/// A size of a block's tensors, by name.
enum class extent : std::uint8_t {
    none,
    one,
    width,           ///< E
    input,           ///< the width of what the block reads: E, unless its spec says another
    heads,           ///< H
    q_rank,          ///< Rq
    kv_rank,         ///< R
    rope,            ///< P
    kv_a_rows,       ///< R + P
    q_rows,          ///< H*D
    k_rows,          ///< G*D
    v_rows,          ///< G*V
    qkv_rows,        ///< H*D + G*D + G*V
    q_gate_rows,     ///< 2*H*D
    q_gate_b_rows,   ///< H*(D + V)
    q_latents,       ///< 2*Rq
    gate_cols,       ///< E, or 2*Rq where it reads the query latent
    kv_b_rows,       ///< G*(N + V)
    k_b_rows,        ///< G*R
    nope,            ///< N
    attended,        ///< H*V
    gate_rows,       ///< H or H*V
    q_normed,        ///< D or H*D
    k_normed,        ///< D or G*D
    indexer_q_rows,  ///< Hi*Di
    indexer_q_cols,  ///< Rq, or E where the indexer reads the input
    indexer_dim,     ///< Di
    indexer_heads,   ///< Hi
    indexer_pool,    ///< keys of a pool

    // Grouped outputs and compressed attention.
    o_a_rows,          ///< Go*Ro
    o_a_cols,          ///< H*V / Go
    head,              ///< D
    entry_tokens,      ///< m
    entry_rows,        ///< c*D
    index_head,        ///< dI
    index_entry_rows,  ///< c*dI
};

/// Elements of the row that a token gives to entries of `dim` elements: c*dim.
constexpr std::size_t row_width(const compression_spec& c, std::size_t dim) noexcept {
    return c.overlapping ? 2 * dim : dim;
}

constexpr std::size_t size_of(extent e, const attention_spec& spec) noexcept {
    const mla_geometry& g = spec.geometry;
    const std::size_t heads = g.num_heads, groups = g.kv_heads(), dim = g.qk_head_dim(), value = g.v_head_dim;
    switch (e) {
        case extent::none: return 0;
        case extent::one: return 1;
        case extent::width: return g.hidden_size;
        case extent::input: return spec.input_width();
        case extent::heads: return heads;
        case extent::q_rank: return g.q_lora_rank;
        case extent::kv_rank: return g.kv_lora_rank;
        case extent::rope: return g.qk_rope_head_dim;
        case extent::kv_a_rows: return g.kv_lora_rank + g.qk_rope_head_dim;
        case extent::q_rows: return heads * dim;
        case extent::k_rows: return groups * dim;
        case extent::v_rows: return groups * value;
        case extent::qkv_rows: return heads * dim + groups * (dim + value);
        case extent::q_gate_rows: return 2 * heads * dim;
        case extent::q_gate_b_rows: return heads * (dim + value);
        case extent::q_latents: return 2 * g.q_lora_rank;
        case extent::gate_cols: return spec.raw_query_latent ? 2 * g.q_lora_rank : spec.input_width();
        case extent::kv_b_rows: return groups * (g.qk_nope_head_dim + value);
        case extent::k_b_rows: return groups * g.kv_lora_rank;
        case extent::nope: return g.qk_nope_head_dim;
        case extent::attended: return heads * value;
        case extent::gate_rows: return spec.gate == output_gate::per_head ? heads : heads * value;
        case extent::q_normed: return spec.q_norm.per_head && !spec.q_norm.own_gains ? dim : heads * dim;
        case extent::k_normed: return spec.k_norm.per_head && !spec.k_norm.own_gains ? dim : groups * dim;
        case extent::indexer_q_rows:
            return spec.indexer.heads * spec.indexer.head_dim +
                   spec.compression.index_heads * spec.compression.index_head_dim;
        case extent::indexer_q_cols: return spec.indexer.from_input ? g.hidden_size : g.q_lora_rank;
        case extent::indexer_dim: return spec.indexer.head_dim;
        case extent::indexer_heads: return spec.indexer.heads + spec.compression.index_heads;
        case extent::indexer_pool: return spec.indexer.pool;
        case extent::o_a_rows: return spec.output_groups * spec.output_rank;
        case extent::o_a_cols: return spec.output_groups == 0 ? 0 : heads * value / spec.output_groups;
        case extent::head: return dim;
        case extent::entry_tokens: return spec.compression.ratio;
        case extent::entry_rows: return row_width(spec.compression, dim);
        case extent::index_head: return spec.compression.index_head_dim;
        case extent::index_entry_rows: return row_width(spec.compression, spec.compression.index_head_dim);
    }
    return 0;
}

/// One tensor of an attention block.
struct role_row {
    tensor_role role;
    extent rows, cols;  ///< a vector has one row
    bool (*needed)(const attention_spec&, attention_form);
    bool per_head = false;  ///< stored with three dimensions, [G, rows / G, cols]

    [[nodiscard]] constexpr bool is_vector() const noexcept { return rows == extent::one; }
};

constexpr bool latent(const attention_spec& s) noexcept { return s.kind == attention_kind::mla; }
constexpr bool plain(const attention_spec& s) noexcept { return s.kind == attention_kind::gqa; }
/// Whether the block makes the keys and values that it attends to.
constexpr bool own_keys(const attention_spec& s) noexcept { return !s.kv_layer.has_value(); }
constexpr bool query_latent(const attention_spec& s) noexcept { return !plain(s) && s.geometry.q_lora_rank != 0; }
/// Whether the block has an indexer that norms the input for its queries.
constexpr bool norms_index_input(const attention_spec& s) noexcept {
    return s.indexer.own() && s.indexer.from_input && s.indexer.q_norm.kind != norm_kind::none;
}
constexpr bool grouped_output(const attention_spec& s) noexcept { return s.output_groups != 0; }
constexpr bool has_entries(const attention_spec& s) noexcept {
    return s.kind == attention_kind::compressed && s.compression.ratio != 0;
}
constexpr bool has_index(const attention_spec& s) noexcept { return has_entries(s) && s.compression.index_heads != 0; }

// clang-format off
inline constexpr role_row attention_roles[] = {
    {tensor_role::q,           extent::q_rows,    extent::input,   [](const attention_spec& s, attention_form f) { return !query_latent(s) || f == attention_form::dense; }},
    {tensor_role::q_a,         extent::q_rank,    extent::width,   [](const attention_spec& s, attention_form) { return query_latent(s); }},
    {tensor_role::q_a_norm,    extent::one,       extent::q_rank,  [](const attention_spec& s, attention_form f) { return query_latent(s) && (f == attention_form::factored || (s.indexer.own() && !s.indexer.from_input) || s.raw_query_latent) && s.latent_norm.kind != norm_kind::none; }},
    {tensor_role::q_b,         extent::q_rows,    extent::q_rank,  [](const attention_spec& s, attention_form f) { return query_latent(s) && f != attention_form::dense; }},
    {tensor_role::q_norm,      extent::one,       extent::q_normed, [](const attention_spec& s, attention_form) { return s.q_norm.kind != norm_kind::none && s.q_norm.has_gain; }},
    {tensor_role::kv_a,        extent::kv_a_rows, extent::width,   [](const attention_spec& s, attention_form f) { return latent(s) && own_keys(s) && f != attention_form::dense; }},
    {tensor_role::kv_a_latent, extent::kv_rank,   extent::width,   [](const attention_spec& s, attention_form f) { return latent(s) && own_keys(s) && f == attention_form::dense; }},
    {tensor_role::kv_a_norm,   extent::one,       extent::kv_rank, [](const attention_spec& s, attention_form f) { return latent(s) && own_keys(s) && f == attention_form::factored && s.latent_norm.kind != norm_kind::none; }},
    {tensor_role::k_rope_norm, extent::one,       extent::rope,    [](const attention_spec& s, attention_form) { return latent(s) && own_keys(s) && s.k_rope_norm.kind != norm_kind::none && s.k_rope_norm.has_gain; }},
    {tensor_role::kv_b,        extent::kv_b_rows, extent::kv_rank, [](const attention_spec& s, attention_form f) { return latent(s) && f == attention_form::factored; }},
    {tensor_role::k_b,         extent::k_b_rows,  extent::nope,    [](const attention_spec& s, attention_form f) { return latent(s) && f == attention_form::latent; }, true},
    {tensor_role::v_b,         extent::v_rows,    extent::kv_rank, [](const attention_spec& s, attention_form f) { return latent(s) && f == attention_form::latent; }, true},
    {tensor_role::k,           extent::k_rows,    extent::input,   [](const attention_spec& s, attention_form f) { return (!latent(s) && own_keys(s)) || f == attention_form::dense; }},
    {tensor_role::k_norm,      extent::one,       extent::k_normed, [](const attention_spec& s, attention_form) { return s.k_norm.kind != norm_kind::none && s.k_norm.has_gain; }},
    {tensor_role::v,           extent::v_rows,    extent::input,   [](const attention_spec& s, attention_form f) { return (plain(s) && own_keys(s) && !s.value_is_key) || f == attention_form::dense; }},
    {tensor_role::qkv,         extent::qkv_rows,  extent::input,   [](const attention_spec&, attention_form) { return false; }},  // q, k and v are made from it
    {tensor_role::q_gate,      extent::q_gate_rows, extent::input, [](const attention_spec&, attention_form) { return false; }},  // q and gate are made from it
    {tensor_role::q_gate_b,    extent::q_gate_b_rows, extent::q_latents, [](const attention_spec&, attention_form) { return false; }},  // q_b, q_b_raw and gate are made from it
    {tensor_role::q_b_raw,     extent::q_rows,    extent::q_rank,  [](const attention_spec& s, attention_form) { return s.raw_query_latent; }},
    {tensor_role::gate,        extent::gate_rows, extent::gate_cols,   [](const attention_spec& s, attention_form) { return s.gate != output_gate::none; }},
    {tensor_role::sinks,       extent::one,       extent::heads,   [](const attention_spec& s, attention_form) { return s.sinks; }},
    {tensor_role::temperature_scale, extent::one, extent::heads,   [](const attention_spec& s, attention_form) { return s.temperature.per_head; }},
    {tensor_role::temperature_bias, extent::one,  extent::heads,   [](const attention_spec& s, attention_form) { return s.temperature.per_head; }},
    {tensor_role::indexer_q_b, extent::indexer_q_rows, extent::indexer_q_cols, [](const attention_spec& s, attention_form) { return s.indexer.own() || has_index(s); }},
    {tensor_role::indexer_q_norm, extent::one,    extent::width,   [](const attention_spec& s, attention_form) { return norms_index_input(s) && s.indexer.q_norm.has_gain; }},
    {tensor_role::indexer_q_norm_bias, extent::one, extent::width, [](const attention_spec& s, attention_form) { return norms_index_input(s) && s.indexer.q_norm.has_bias; }},
    {tensor_role::indexer_temperature_scale, extent::one, extent::indexer_heads, [](const attention_spec& s, attention_form) { return s.indexer.own() && s.indexer.per_head; }},
    {tensor_role::indexer_temperature_bias, extent::one, extent::indexer_heads, [](const attention_spec& s, attention_form) { return s.indexer.own() && s.indexer.per_head; }},
    {tensor_role::indexer_k,   extent::indexer_dim, extent::width, [](const attention_spec& s, attention_form) { return s.indexer.own(); }},
    {tensor_role::indexer_k_norm, extent::one,    extent::indexer_dim, [](const attention_spec& s, attention_form) { return s.indexer.own() && s.indexer.k_norm.kind != norm_kind::none && s.indexer.k_norm.has_gain; }},
    {tensor_role::indexer_k_norm_bias, extent::one, extent::indexer_dim, [](const attention_spec& s, attention_form) { return s.indexer.own() && s.indexer.k_norm.kind != norm_kind::none && s.indexer.k_norm.has_bias; }},
    {tensor_role::indexer_weights, extent::indexer_heads, extent::width, [](const attention_spec& s, attention_form) { return s.indexer.own() || has_index(s); }},
    {tensor_role::indexer_pool_gate, extent::indexer_dim, extent::width, [](const attention_spec& s, attention_form) { return s.indexer.own() && s.indexer.pool > 1; }},
    {tensor_role::indexer_pool_bias, extent::indexer_pool, extent::indexer_dim, [](const attention_spec& s, attention_form) { return s.indexer.own() && s.indexer.pool > 1; }},
    {tensor_role::o,           extent::width,     extent::attended, [](const attention_spec& s, attention_form) { return !grouped_output(s); }},
    {tensor_role::o_a,         extent::o_a_rows,  extent::o_a_cols, [](const attention_spec& s, attention_form) { return grouped_output(s); }},
    {tensor_role::o_b,         extent::width,     extent::o_a_rows, [](const attention_spec& s, attention_form) { return grouped_output(s); }},
    {tensor_role::compressor_kv,               extent::entry_rows,       extent::width,            [](const attention_spec& s, attention_form) { return has_entries(s); }},
    {tensor_role::compressor_gate,             extent::entry_rows,       extent::width,            [](const attention_spec& s, attention_form) { return has_entries(s); }},
    {tensor_role::compressor_position,         extent::entry_tokens,     extent::entry_rows,       [](const attention_spec& s, attention_form) { return has_entries(s); }},
    {tensor_role::compressor_norm,             extent::one,              extent::head,             [](const attention_spec& s, attention_form) { return has_entries(s); }},
    {tensor_role::indexer_compressor_kv,       extent::index_entry_rows, extent::width,            [](const attention_spec& s, attention_form) { return has_index(s); }},
    {tensor_role::indexer_compressor_gate,     extent::index_entry_rows, extent::width,            [](const attention_spec& s, attention_form) { return has_index(s); }},
    {tensor_role::indexer_compressor_position, extent::entry_tokens,     extent::index_entry_rows, [](const attention_spec& s, attention_form) { return has_index(s); }},
    {tensor_role::indexer_compressor_norm,     extent::one,              extent::index_head,       [](const attention_spec& s, attention_form) { return has_index(s); }},
};
// clang-format on

/// What becomes of stored rows on their way to a role.
enum class row_op : std::uint8_t {
    as_is,      ///< a range of rows of one tensor; of a qkv that is not in turn, that range's share of each run
    of_heads,   ///< of each query head's share of the rows, the same range
    join_kv_b,  ///< per head: the columns of k_b, then the rows of v_b
};

/// How the up-projection of keys and values is stored, or "".
constexpr std::string_view dialect_name(bool whole, bool split) noexcept {
    return whole && split ? "all" : whole ? "kv_b" : split ? "k_b+v_b" : "";
}

/// A role that can be made from tensors stored under other roles.
struct recipe_row {
    tensor_role made;
    std::array<tensor_role, 2> from;  ///< as_is reads the first alone
    row_op op;
    std::array<extent, 2> skipped;  ///< rows of the stored tensor before these: the sum of both
    extent rows;                    ///< rows that are made
    bool preferred = false;         ///< also where the role itself is stored
    extent columns_before = extent::none, columns = extent::none;  ///< of the stored tensor; none: all
};

// clang-format off
inline constexpr recipe_row recipes[] = {
    {tensor_role::q,    {tensor_role::qkv, tensor_role::qkv}, row_op::as_is,     {extent::none, extent::none},     extent::q_rows},
    {tensor_role::k,    {tensor_role::qkv, tensor_role::qkv}, row_op::as_is,     {extent::q_rows, extent::none},   extent::k_rows},
    {tensor_role::v,    {tensor_role::qkv, tensor_role::qkv}, row_op::as_is,     {extent::q_rows, extent::k_rows}, extent::v_rows},
    {tensor_role::q,    {tensor_role::q_gate, tensor_role::q_gate}, row_op::of_heads, {extent::none, extent::none}, extent::q_rows},
    {tensor_role::gate, {tensor_role::q_gate, tensor_role::q_gate}, row_op::of_heads, {extent::q_rows, extent::none}, extent::gate_rows},
    {tensor_role::q_b,  {tensor_role::q_gate_b, tensor_role::q_gate_b}, row_op::of_heads, {extent::none, extent::none}, extent::q_rows, false, extent::none, extent::q_rank},
    {tensor_role::q_b_raw, {tensor_role::q_gate_b, tensor_role::q_gate_b}, row_op::of_heads, {extent::none, extent::none}, extent::q_rows, false, extent::q_rank, extent::q_rank},
    {tensor_role::gate, {tensor_role::q_gate_b, tensor_role::q_gate_b}, row_op::of_heads, {extent::q_rows, extent::none}, extent::gate_rows},
    {tensor_role::kv_b, {tensor_role::k_b, tensor_role::v_b}, row_op::join_kv_b, {extent::none, extent::none},     extent::kv_b_rows, true},
};
// clang-format on

constexpr std::size_t rows_before(const recipe_row& recipe, const attention_spec& spec) noexcept {
    if (recipe.from[0] == tensor_role::qkv && spec.fused == qkv_order::in_quarters) {  // q, v, k
        const std::size_t q = size_of(extent::q_rows, spec);
        return recipe.made == tensor_role::q   ? 0
               : recipe.made == tensor_role::v ? q
                                               : q + size_of(extent::v_rows, spec);
    }
    std::size_t rows = 0;
    for (const extent e : recipe.skipped) rows += size_of(e, spec);
    return rows;
}

/// In how many runs of rows the stored tensor of a recipe is divided, each of which holds a share of what is made.
constexpr std::size_t runs_of(const recipe_row& recipe, const attention_spec& spec) noexcept {
    if (recipe.op == row_op::of_heads) return spec.geometry.num_heads;
    if (recipe.from[0] != tensor_role::qkv || spec.fused == qkv_order::in_turn) return 1;
    return spec.fused == qkv_order::by_group ? spec.geometry.kv_heads() : 4;
}

/// The shape of a role, or null for roles outside attention.
constexpr const role_row* find_role(tensor_role role) noexcept {
    for (const role_row& row : attention_roles)
        if (row.role == role) return &row;
    return nullptr;
}

}  // namespace larql::detail

#endif
