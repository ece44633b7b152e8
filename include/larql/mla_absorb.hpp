// SPDX-License-Identifier: Apache-2.0
//
// Multi-head latent attention (MLA) as tensor algebra: from the published low-rank factors to dense Q, K, V, or to the
// latent form. Knows no file; weights are any xtensor expression or a row reader.
//
// With a = W_qa x, c = the latent part of W_kva x and gains g:
//     q          = s_q(x)  * (W_qb  diag(g_q)  W_qa) x        s_q  = 1 / sqrt(mean(a^2) + eps)
//     k_nope, v  = s_kv(x) * (W_kvb diag(g_kv) W_c ) x        s_kv = 1 / sqrt(mean(c^2) + eps)
//     k_rope     = the last rows of W_kva x, one vector for all heads, not normed
// The gains fold into the products; the two scalars per token do not, so a dense layer keeps the latent rows that they
// are computed from. A product without them is wrong on every published model.
#ifndef LARQL_MLA_ABSORB_HPP
#define LARQL_MLA_ABSORB_HPP

#include <larql/attention_form.hpp>
#include <larql/detail/gemm.hpp>
#include <larql/detail/mla/rows.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/matrix_input.hpp>
#include <larql/mla_geometry.hpp>

#include <cstddef>
#include <limits>

namespace larql {

/// The published tensors of one layer. H heads, D = N + P, ranks Rq and R, width E.
template <class T>
struct mla_factors {
    matrix_input<T> q{};          ///< [H*D, E]; only when the query has no latent (q_lora_rank 0)
    matrix_input<T> q_a{};        ///< [Rq, E]
    vector_input<T> q_a_bias{};   ///< [Rq], or none; added before the norm
    vector_input<T> q_a_norm{};   ///< [Rq] gains; none for factors without a norm
    matrix_input<T> q_b{};        ///< [H*D, Rq]
    matrix_input<T> kv_a{};       ///< [R + P, E]: the latent, then the shared key rows that rotate; see absorb_latent
    vector_input<T> kv_a_bias{};  ///< [R + P], or none
    vector_input<T> kv_a_norm{};  ///< [R] gains; none for factors without a norm
    matrix_input<T> kv_b{};       ///< [G*(N + V), R]: per head N key rows, then V value rows
};

/// What `absorb` makes.
struct absorb_options {
    head_order order = head_order::rope_nope;         ///< of the rows of a query or key head
    rope_pairing pairing = rope_pairing::half_split;  ///< of the rotated rows
    std::size_t head_begin = 0;                       ///< heads [head_begin, head_end) only
    std::size_t head_end = std::numeric_limits<std::size_t>::max();
    bool keep_latent_rows = true;  ///< copy q_a and the latent rows of kv_a into the result
    executor* threads = nullptr;   ///< null: threads of its own when the work is worth it
};

/// A layer in standard form. Row-major; h counts from head_begin.
template <class T>
struct dense_mla {
    tensor<T, 2> q{};       ///< [heads*D, E]
    tensor<T, 2> k{};       ///< [kv_heads*D, E]; the P rotated rows of each head are the same, and take no scalar
    tensor<T, 2> v{};       ///< [kv_heads*V, E]
    tensor<T, 1> q_bias{};  ///< as many as rows, or empty; scaled by s_q with q
    tensor<T, 1> k_bias{};  ///< unrotated rows scaled by s_kv, rotated rows not
    tensor<T, 1> v_bias{};
    tensor<T, 2> q_a{};  ///< [Rq, E]: a = q_a x + q_a_bias gives s_q; empty without a query latent
    tensor<T, 1> q_a_bias{};
    tensor<T, 2> kv_a{};  ///< [R, E]: c = kv_a x + kv_a_bias gives s_kv
    tensor<T, 1> kv_a_bias{};
    head_order order = head_order::rope_nope;
    rope_pairing pairing = rope_pairing::half_split;
};

/// A layer for multi-query attention over the cached latent: key [c^ | rotated], value c^, with c^ = s_kv(x) c.
template <class T>
struct latent_mla {
    tensor<T, 2> q{};    ///< [H*D, E]; only without a query latent
    tensor<T, 2> q_a{};  ///< [Rq, E]
    tensor<T, 1> q_a_bias{};
    tensor<T, 2> q_b{};   ///< [H*D, Rq], gains folded in
    tensor<T, 2> kv_a{};  ///< [R + P, E]; empty if another block makes the latents
    tensor<T, 1> kv_a_bias{};
    tensor<T, 3> k_b{};  ///< [G, R, N], gains folded in, transposed: the latent query of a head is k_b q_nope
    tensor<T, 3> v_b{};  ///< [G, V, R], gains folded in: a head's output is v_b times the weighted latent
    head_order order = head_order::rope_nope;
    rope_pairing pairing = rope_pairing::half_split;
};

/// Absorbs a layer into caller's memory: the products only, for streaming over heads and for engines with own buffers.
///
/// @param q_out  [heads*D, E]     any xtensor container, adaptor or view of T whose rows are contiguous
/// @param k_out  [kv_heads*D, E]  likewise
/// @param v_out  [kv_heads*V, E]  likewise
/// @throws error errc::shape_mismatch if a factor or an output does not fit the geometry; errc::bad_value for an odd
///         number of rotated rows that would have to be reordered
/// @note   2*E*(rows of q * Rq + rows of k_nope and v * R) operations; each row of a factor is read about once. Scratch
///         is a few megabytes a thread, whatever the size of the layer.
template <class T, class Q, class K, class V>
void absorb_into(const mla_factors<T>& factors, const mla_geometry& geometry, Q&& q_out, K&& k_out, V&& v_out,
                 const absorb_options& options = {}) {
    const detail::head_range heads = detail::check_factors(factors, geometry, options.head_begin, options.head_end);
    const detail::output_rows<T> q =
        detail::output_of<T>(q_out, heads.count() * geometry.qk_head_dim(), geometry.hidden_size, "q_out");
    const detail::output_rows<T> k =
        detail::output_of<T>(k_out, heads.kv_count() * geometry.qk_head_dim(), geometry.hidden_size, "k_out");
    const detail::output_rows<T> v =
        detail::output_of<T>(v_out, heads.kv_count() * geometry.v_head_dim, geometry.hidden_size, "v_out");
    detail::with_executor(options.threads, geometry.hidden_size * heads.count() > 4096, [&](executor& threads) {
        const detail::head_rows rows(geometry, options.order, options.pairing);
        detail::absorb_query(factors, geometry, heads, rows, q, threads);
        detail::absorb_key_value(factors, geometry, heads, rows, k, v, threads);
    });
}

/// Absorbs a layer into dense Q, K, V.
///
/// @param factors   the published tensors, in the row order and pairing that the geometry states
/// @param geometry  sizes, and order and pairing of the stored rows
/// @return          new tensors in the order and pairing of the options
/// @throws error errc::shape_mismatch with the two sizes that disagree
/// @note   Exact up to rounding of the products; biases of q_a and kv_a become biases of Q, K and V.
template <class T>
dense_mla<T> absorb(const mla_factors<T>& factors, const mla_geometry& geometry, const absorb_options& options = {}) {
    const detail::head_range heads = detail::check_factors(factors, geometry, options.head_begin, options.head_end);
    const std::size_t width = geometry.hidden_size;
    dense_mla<T> layer;
    layer.q = detail::large_matrix<T>(heads.count() * geometry.qk_head_dim(), width);
    layer.k = detail::large_matrix<T>(heads.kv_count() * geometry.qk_head_dim(), width);
    layer.v = detail::large_matrix<T>(heads.kv_count() * geometry.v_head_dim, width);
    absorb_into(factors, geometry, layer.q, layer.k, layer.v, options);
    detail::absorb_biases(factors, geometry, heads, options.order, options.pairing, layer);
    layer.order = options.order;
    layer.pairing = detail::pairing_after(geometry, options.pairing);
    if (options.keep_latent_rows) {
        if (geometry.q_lora_rank != 0) layer.q_a = factors.q_a.to_tensor();
        layer.kv_a = factors.kv_a.row_range(0, geometry.kv_lora_rank).to_tensor();
    }
    return layer;
}

/// The four-matrix form, for factors without norms: rows [rope | nope], the shared rotated row replicated to every
/// head.
///
/// @param kv_a  [R + P, E]      @param kv_b  [G*(N + V), R]
/// @param q_a   [Rq, E]         @param q_b   [H*D, Rq]
/// @return      Q [H*D, E], K [G*D, E], V [G*V, E]; the pairing of the rotated rows stays that of the geometry
/// @note   No published model is without norms: for those use `mla_factors` with q_a_norm and kv_a_norm.
template <class KvA, class KvB, class QA, class QB>
auto absorb(const KvA& kv_a, const KvB& kv_b, const QA& q_a, const QB& q_b, const mla_geometry& geometry)
    -> dense_mla<typename KvA::value_type> {
    using value = typename KvA::value_type;
    return absorb(mla_factors<value>{.q_a = q_a, .q_b = q_b, .kv_a = kv_a, .kv_b = kv_b}, geometry,
                  {.order = head_order::rope_nope, .pairing = geometry.pairing});
}

/// Turns a layer into its latent form: no products, the gains folded into q_b, k_b and v_b.
///
/// A block that attends to the latents of another (Mistral-Large-4) has no kv_a, and kv_a_norm is that of the other:
/// the cached latents are without their gains, in that block's latent form as well.
///
/// @return  new tensors; rows of q (or q_b) and of the rotated part of kv_a in the order and pairing of the options
/// @throws error as `absorb`; head_begin and head_end must select all heads
template <class T>
latent_mla<T> absorb_latent(const mla_factors<T>& factors, const mla_geometry& geometry,
                            const absorb_options& options = {}) {
    const detail::head_range heads = detail::check_factors(factors, geometry, 0, geometry.num_heads, true);
    const detail::head_rows rows(geometry, options.order, options.pairing);
    const std::size_t width = geometry.hidden_size, head_dim = geometry.qk_head_dim();
    latent_mla<T> layer;
    layer.order = options.order;
    layer.pairing = detail::pairing_after(geometry, options.pairing);
    if (geometry.q_lora_rank != 0) {
        layer.q_a = factors.q_a.to_tensor();
        layer.q_a_bias = detail::to_tensor(factors.q_a_bias);
        layer.q_b = tensor<T, 2>::from_shape({heads.count() * head_dim, geometry.q_lora_rank});
        detail::copy_head_rows(factors.q_b, geometry, heads, rows, factors.q_a_norm, layer.q_b.data());
    } else {
        layer.q = tensor<T, 2>::from_shape({heads.count() * head_dim, width});
        detail::copy_head_rows(factors.q, geometry, heads, rows, {}, layer.q.data());
    }
    if (!factors.kv_a.empty()) {
        layer.kv_a = tensor<T, 2>::from_shape({geometry.kv_lora_rank + geometry.qk_rope_head_dim, width});
        detail::copy_kv_a(factors.kv_a, geometry, rows, layer.kv_a.data());
    }
    layer.kv_a_bias = detail::permute_kv_a_bias(factors.kv_a_bias, geometry, rows);
    layer.k_b = tensor<T, 3>::from_shape({geometry.kv_heads(), geometry.kv_lora_rank, geometry.qk_nope_head_dim});
    layer.v_b = tensor<T, 3>::from_shape({geometry.kv_heads(), geometry.v_head_dim, geometry.kv_lora_rank});
    detail::split_kv_b_into(factors.kv_b, geometry, factors.kv_a_norm, layer.k_b.data(), layer.v_b.data());
    return layer;
}

/// k_b and v_b of a kv_b.
template <class T>
struct split_kv {
    tensor<T, 3> k_b;  ///< [G, R, N]: the key rows of each head, transposed (GGUF's attn_k_b)
    tensor<T, 3> v_b;  ///< [G, V, R]: the value rows of each head (GGUF's attn_v_b)
};

/// Splits kv_b [G*(N + V), R] into per-head k_b and v_b, exactly.
template <class T>
split_kv<T> split_kv_b(const matrix_input<T>& kv_b, const mla_geometry& geometry) {
    detail::require_shape(kv_b, geometry.kv_heads() * (geometry.qk_nope_head_dim + geometry.v_head_dim),
                          geometry.kv_lora_rank, "kv_b");
    split_kv<T> parts{tensor<T, 3>::from_shape({geometry.kv_heads(), geometry.kv_lora_rank, geometry.qk_nope_head_dim}),
                      tensor<T, 3>::from_shape({geometry.kv_heads(), geometry.v_head_dim, geometry.kv_lora_rank})};
    detail::split_kv_b_into(kv_b, geometry, vector_input<T>{}, parts.k_b.data(), parts.v_b.data());
    return parts;
}

/// A kv_b [G*(N + V), R] that is read from per-head k_b [G*R, N] (transposed) and v_b [G*V, R], exactly. The result
/// refers to the readers or memory of both. Three-dimensional tensors are passed with their two leading dimensions
/// multiplied.
template <class T>
matrix_input<T> merge_kv_b(matrix_input<T> k_b, matrix_input<T> v_b, const mla_geometry& geometry) {
    detail::require_shape(k_b, geometry.kv_heads() * geometry.kv_lora_rank, geometry.qk_nope_head_dim, "k_b");
    detail::require_shape(v_b, geometry.kv_heads() * geometry.v_head_dim, geometry.kv_lora_rank, "v_b");
    return detail::merged_kv_b(std::move(k_b), std::move(v_b), geometry);
}

}  // namespace larql

#endif
