// SPDX-License-Identifier: Apache-2.0
//
// One attention block: hidden states in, block output out, from weights in any of the three forms, with or without a
// cache. It is what ties the rest together and the definition of what the forms mean:
//     factored, dense: q, k, v of every head, then attention
//     latent:          keys and values stay in the latent; the query is carried there (k_b) and the result back (v_b)
// Plain grouped-query attention is the factored form without latents.
#ifndef LARQL_ATTENTION_LAYER_HPP
#define LARQL_ATTENTION_LAYER_HPP

#include <larql/attention_form.hpp>
#include <larql/attention_spec.hpp>
#include <larql/attention_weights.hpp>
#include <larql/detail/gemm.hpp>
#include <larql/detail/mla/projections.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/gqa_attention.hpp>
#include <larql/kv_cache.hpp>
#include <larql/matrix_input.hpp>
#include <larql/rope.hpp>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace larql {

/// What a block computed for T new tokens.
template <class T>
struct attention_result {
    tensor<T, 3> q{};        ///< [T, H, D], rotated; latent form: [T, H, R + P]
    tensor<T, 3> k{};        ///< [T, G, D], rotated; latent form: [T, 1, R + P]
    tensor<T, 3> v{};        ///< [T, G, V]; latent form: [T, 1, R]
    tensor<T, 2> context{};  ///< [T, H*V], before the output projection
    tensor<T, 2> out{};      ///< [T, E]
};

/// An attention block: a spec and its weights. Nothing in it changes after it was made: copies share the weights, and
/// calls may run at once from several threads.
///
/// Rotation follows the length of the sequence where its kind does (`dynamic`, `longrope`): a call rotates the tokens
/// that it is given with the frequencies of a sequence that ends with them. What a cache holds stays as it was rotated,
/// as in transformers.
template <class T>
class attention_layer {
public:
    /// @throws error errc::missing_tensor, errc::shape_mismatch or errc::bad_value, naming the tensor
    attention_layer(attention_spec spec, attention_weights<T> weights)
        : m_spec(std::move(spec)), m_weights(std::move(weights)), m_rope(make_rope_table(m_spec.rope)) {
        detail::require_valid(m_spec);
        detail::require_complete(m_spec, m_weights);
        if (m_spec.kind == attention_kind::mla &&
            (m_spec.q_norm.kind != norm_kind::none || m_spec.k_norm.kind != norm_kind::none ||
             m_spec.v_norm.kind != norm_kind::none || m_spec.clip != 0.0 || m_spec.value_is_key))
            detail::fail(errc::unsupported_architecture, "norms and limits of heads belong to plain attention",
                         {.subject = "attention_spec"});
        for (const T logit : m_weights.vector(tensor_role::sinks).values())
            m_sinks.push_back(static_cast<float>(logit));
    }

    [[nodiscard]] const attention_spec& spec() const noexcept { return m_spec; }

    /// A cache of the layout that this layer's form needs.
    /// @tparam Storage   float, bf16 or f16
    /// @param  capacity  tokens; memory is touched as tokens arrive
    template <class Storage = float>
    [[nodiscard]] kv_cache<Storage> make_cache(std::size_t capacity) const {
        const kv_cache_shape shape = cache_shape(capacity);
        if (m_spec.form == attention_form::latent)
            return kv_cache<Storage>::latent(capacity, shape.value_size, shape.key_size - shape.value_size);
        return kv_cache<Storage>(shape);
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
    /// @throws error errc::limit_exceeded if the cache has no room; errc::shape_mismatch if it is not this layer's.
    /// What
    ///         is thrown, here or by a task of the executor, leaves the cache as it was.
    template <class Storage>
    [[nodiscard]] attention_result<T> forward(const matrix_input<T>& x, kv_cache<Storage>& cache,
                                              executor* threads = nullptr) const {
        require_own(cache);
        const std::size_t held = cache.size();
        try {
            return run(
                x, held, threads,
                [&](attention_result<T>& r) {
                    if (m_spec.form == attention_form::latent)
                        cache.append(r.k);
                    else
                        cache.append(r.k, r.v);
                },
                [&](const attention_result<T>& r, const attention_options& options) {
                    return gqa_attention_asym(r.q, cache.keys(), cache.values(), options);
                });
        } catch (...) {
            cache.truncate(held);
            throw;
        }
    }

private:
    [[nodiscard]] kv_cache_shape cache_shape(std::size_t capacity) const {
        const mla_geometry& g = m_spec.geometry;
        if (m_spec.form == attention_form::latent)
            return {capacity, 1, g.kv_lora_rank + g.qk_rope_head_dim, g.kv_lora_rank};
        return {capacity, g.kv_heads(), g.qk_head_dim(), g.v_head_dim};
    }

    template <class Storage>
    void require_own(const kv_cache<Storage>& cache) const {
        const kv_cache_shape &got = cache.shape(), want = cache_shape(got.capacity);
        const auto text = [](const kv_cache_shape& s) {
            return std::to_string(s.kv_heads) + " heads of " + std::to_string(s.key_size) + "/" +
                   std::to_string(s.value_size);
        };
        const bool is_latent = m_spec.form == attention_form::latent;
        if (got.kv_heads != want.kv_heads || got.key_size != want.key_size || got.value_size != want.value_size ||
            cache.is_latent() != is_latent)
            detail::fail(errc::shape_mismatch,
                         "the layer caches " + text(want) + (is_latent ? ", latent" : "") + ", the cache holds " +
                             text(got) + (cache.is_latent() ? ", latent" : ""),
                         {.subject = "cache"});
    }

    template <class Append, class Attend>
    attention_result<T> run(const matrix_input<T>& x, std::size_t first_position, executor* given, Append append,
                            Attend attend) const {
        const mla_geometry& g = m_spec.geometry;
        if (x.cols() != g.hidden_size)
            detail::fail(errc::shape_mismatch,
                         "expected hidden states of width " + std::to_string(g.hidden_size) + ", got " +
                             std::to_string(x.cols()),
                         {.subject = "x"});
        attention_result<T> r;
        rope_table of_length;
        if (depends_on_length(m_spec.rope))
            of_length = make_rope_table(m_spec.rope, static_cast<double>(first_position + x.rows()));
        const rope_table& rope = depends_on_length(m_spec.rope) ? of_length : m_rope;
        const bool worth_threads = x.rows() * g.hidden_size * g.num_heads * g.qk_head_dim() > 10'000'000;
        detail::with_executor(given, worth_threads, [&](executor& threads) {
            const detail::block_projection<T> project(m_spec, rope, m_weights, threads);
            project.query_key_value(x, first_position, r);
            append(r);
            tensor<T, 3> context = attend(r, attention_options{.scale = m_spec.scale,
                                                               .first_position = first_position,
                                                               .softcap = m_spec.softcap,
                                                               .sliding_window = m_spec.sliding_window,
                                                               .chunk = m_spec.chunk,
                                                               .sinks = m_sinks,
                                                               .threads = &threads});
            if (m_spec.form == attention_form::latent) context = project.from_latent(context);
            r.context = detail::flatten_tokens(std::move(context));
            project.apply_gate(x, r.context);
            r.out = project.output(r.context);
        });
        return r;
    }

    attention_spec m_spec;
    attention_weights<T> m_weights;
    rope_table m_rope;  // where the length does not matter
    std::vector<float> m_sinks;
};

}  // namespace larql

#endif
