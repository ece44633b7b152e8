// SPDX-License-Identifier: Apache-2.0
//
// One attention block: hidden states in, block output out, from weights in any of the three forms, with or without a
// cache. It is what ties the rest together and the definition of what the forms mean:
//     factored, dense: q, k, v of every head, then attention
//     latent:          keys and values stay in the latent; the query is carried there (k_b) and the result back (v_b)
// Plain grouped-query attention is the factored form without latents.
#ifndef LARQL_MLA_ATTENTION_HPP
#define LARQL_MLA_ATTENTION_HPP

#include <larql/attention_form.hpp>
#include <larql/detail/gemm.hpp>
#include <larql/detail/mla/project.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/gqa_attention.hpp>
#include <larql/kv_cache.hpp>
#include <larql/matrix_input.hpp>
#include <larql/mla_absorb.hpp>
#include <larql/mla_geometry.hpp>
#include <larql/rope.hpp>

#include <cstddef>
#include <string>
#include <utility>

namespace larql {

/// What a block computes, beyond its weights.
struct attention_config {
    attention_form form = attention_form::factored;
    /// Sizes, order and pairing of the tensors as given. Plain attention has kv_lora_rank 0, rotates the first
    /// qk_rope_head_dim elements (order rope_nope) and leaves qk_nope_head_dim.
    mla_geometry geometry{};
    double scale = 0.0;             ///< multiplies q.k, YaRN's m^2 included
    double latent_norm_eps = 1e-6;  ///< of the RMSNorms on the latents
    bool latent_norms = true;       ///< false: a model without RMSNorms between its factors
    rope_table rope{};              ///< of qk_rope_head_dim elements
};

/// Weights of a block, in the form that the configuration says. Biases may be absent, as may what a form does not use.
template <class T>
struct attention_tensors {
    matrix_input<T> q{};       ///< [H*D, E]: dense; factored and latent without a query latent; plain
    vector_input<T> q_bias{};  ///< dense: scaled with q
    matrix_input<T> q_a{};     ///< [Rq, E]
    vector_input<T> q_a_bias{};
    vector_input<T> q_a_norm{};  ///< [Rq]: factored
    matrix_input<T> q_b{};       ///< [H*D, Rq]: factored, latent
    matrix_input<T> kv_a{};      ///< [R + P, E]; dense: [R, E], the latent rows
    vector_input<T> kv_a_bias{};
    vector_input<T> kv_a_norm{};  ///< [R]: factored
    matrix_input<T> kv_b{};       ///< [G*(N + V), R]: factored
    matrix_input<T> k{};          ///< [G*D, E]: dense, plain
    vector_input<T> k_bias{};
    matrix_input<T> v{};  ///< [G*V, E]: dense, plain
    vector_input<T> v_bias{};
    matrix_input<T> k_b{};  ///< [G*R, N], transposed per head: latent
    matrix_input<T> v_b{};  ///< [G*V, R]: latent
    matrix_input<T> o{};    ///< [E, H*V]
    vector_input<T> o_bias{};
};

/// The tensors of a layer as published, which refer to what the factors refer to.
template <class T>
attention_tensors<T> to_attention_tensors(mla_factors<T> layer, matrix_input<T> o, vector_input<T> o_bias = {}) {
    attention_tensors<T> w;
    w.q = std::move(layer.q);
    w.q_a = std::move(layer.q_a);
    w.q_a_bias = std::move(layer.q_a_bias);
    w.q_a_norm = std::move(layer.q_a_norm);
    w.q_b = std::move(layer.q_b);
    w.kv_a = std::move(layer.kv_a);
    w.kv_a_bias = std::move(layer.kv_a_bias);
    w.kv_a_norm = std::move(layer.kv_a_norm);
    w.kv_b = std::move(layer.kv_b);
    w.o = std::move(o);
    w.o_bias = std::move(o_bias);
    return w;
}

/// The tensors of an absorbed layer, which they own.
template <class T>
attention_tensors<T> to_attention_tensors(dense_mla<T> layer, matrix_input<T> o, vector_input<T> o_bias = {}) {
    attention_tensors<T> w;
    w.q = std::move(layer.q);
    w.q_bias = layer.q_bias;
    if (layer.q_a.size() != 0) w.q_a = std::move(layer.q_a);
    w.q_a_bias = layer.q_a_bias;
    w.kv_a = std::move(layer.kv_a);
    w.kv_a_bias = layer.kv_a_bias;
    w.k = std::move(layer.k);
    w.k_bias = layer.k_bias;
    w.v = std::move(layer.v);
    w.v_bias = layer.v_bias;
    w.o = std::move(o);
    w.o_bias = std::move(o_bias);
    return w;
}

/// The tensors of a layer in latent form, which they own.
template <class T>
attention_tensors<T> to_attention_tensors(latent_mla<T> layer, matrix_input<T> o, vector_input<T> o_bias = {}) {
    attention_tensors<T> w;
    if (layer.q.size() != 0) w.q = std::move(layer.q);
    if (layer.q_a.size() != 0) w.q_a = std::move(layer.q_a);
    w.q_a_bias = layer.q_a_bias;
    if (layer.q_b.size() != 0) w.q_b = std::move(layer.q_b);
    w.kv_a = std::move(layer.kv_a);
    w.kv_a_bias = layer.kv_a_bias;
    w.k_b = detail::flatten_heads(std::move(layer.k_b));
    w.v_b = detail::flatten_heads(std::move(layer.v_b));
    w.o = std::move(o);
    w.o_bias = std::move(o_bias);
    return w;
}

/// What a block computed for T new tokens.
template <class T>
struct attention_result {
    tensor<T, 3> q{};        ///< [T, H, D], rotated; latent form: [T, H, R + P]
    tensor<T, 3> k{};        ///< [T, G, D], rotated; latent form: [T, 1, R + P]
    tensor<T, 3> v{};        ///< [T, G, V]; latent form: [T, 1, R]
    tensor<T, 2> context{};  ///< [T, H*V], before the output projection
    tensor<T, 2> out{};      ///< [T, E]
};

/// An attention block. Copies of it share nothing mutable; calls may run at once.
template <class T>
class attention_layer {
public:
    /// @throws error errc::missing_tensor or errc::shape_mismatch, naming the tensor
    attention_layer(attention_config config, attention_tensors<T> tensors)
        : m_config(std::move(config)), m_tensors(std::move(tensors)) {
        detail::check_attention_tensors(m_config, m_tensors);
    }

    [[nodiscard]] const attention_config& config() const noexcept { return m_config; }

    /// A cache of the layout that this layer's form needs.
    /// @tparam Storage   float, bf16 or f16
    /// @param  capacity  tokens; memory is touched as tokens arrive
    template <class Storage = float>
    [[nodiscard]] kv_cache<Storage> make_cache(std::size_t capacity) const {
        const mla_geometry& g = m_config.geometry;
        if (m_config.form == attention_form::latent)
            return kv_cache<Storage>::latent(capacity, g.kv_lora_rank, g.qk_rope_head_dim);
        return kv_cache<Storage>(
            {.capacity = capacity, .kv_heads = g.kv_heads(), .key_size = g.qk_head_dim(), .value_size = g.v_head_dim});
    }

    /// Attends over these tokens alone.
    ///
    /// @param x        [T, E]  the block's input after the input norm
    /// @param threads  null: threads of its own when the work is worth it
    /// @return         every intermediate that a comparison wants
    /// @throws error errc::shape_mismatch if x is not E wide
    [[nodiscard]] attention_result<T> forward(const matrix_input<T>& x, executor* threads = nullptr) const {
        return run(
            x, 0, threads, [](attention_result<T>&) {},
            [&](const attention_result<T>& r, const attention_options& options) {
                return gqa_attention_asym(r.q, r.k, r.v, options);
            });
    }

    /// Attends over the tokens of a cache and these, which are appended to it: token by token gives what one pass
    /// gives.
    ///
    /// @param cache  from make_cache; the first new token has position cache.size()
    /// @throws error errc::limit_exceeded if the cache has no room
    template <class Storage>
    [[nodiscard]] attention_result<T> forward(const matrix_input<T>& x, kv_cache<Storage>& cache,
                                              executor* threads = nullptr) const {
        return run(
            x, cache.size(), threads,
            [&](attention_result<T>& r) {
                if (m_config.form == attention_form::latent)
                    cache.append(r.k);
                else
                    cache.append(r.k, r.v);
            },
            [&](const attention_result<T>& r, const attention_options& options) {
                return gqa_attention_asym(r.q, cache.keys(), cache.values(), options);
            });
    }

private:
    template <class Append, class Attend>
    attention_result<T> run(const matrix_input<T>& x, std::size_t first_position, executor* given, Append append,
                            Attend attend) const {
        const mla_geometry& g = m_config.geometry;
        if (x.cols() != g.hidden_size)
            detail::fail(errc::shape_mismatch,
                         "expected hidden states of width " + std::to_string(g.hidden_size) + ", got " +
                             std::to_string(x.cols()),
                         {.subject = "x"});
        attention_result<T> r;
        const bool worth_threads = x.rows() * g.hidden_size * g.num_heads * g.qk_head_dim() > 10'000'000;
        detail::with_executor(given, worth_threads, [&](executor& threads) {
            const detail::block_projection<T> project(m_config, m_tensors, threads);
            project.query_key_value(x, first_position, r);
            append(r);
            tensor<T, 3> context = attend(
                r, attention_options{.scale = m_config.scale, .first_position = first_position, .threads = &threads});
            if (m_config.form == attention_form::latent) context = project.from_latent(context);
            r.context = detail::flatten_tokens(std::move(context));
            r.out = project.output(r.context);
        });
        return r;
    }

    attention_config m_config;
    attention_tensors<T> m_tensors;
};

}  // namespace larql

#endif
