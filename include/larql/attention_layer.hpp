// SPDX-License-Identifier: Apache-2.0
//
// One attention block: hidden states in, block output out, from weights in any of the three forms, with or without a
// cache. It is what ties the rest together and the definition of what the forms mean:
//     factored, dense: q, k, v of every head, then attention
//     latent:          keys and values stay in the latent; the query is carried there (k_b) and the result back (v_b)
// Plain grouped-query attention is the factored form without latents; compressed attention has that form alone.
#ifndef LARQL_ATTENTION_LAYER_HPP
#define LARQL_ATTENTION_LAYER_HPP

#include <larql/attention_cost.hpp>
#include <larql/attention_form.hpp>
#include <larql/attention_spec.hpp>
#include <larql/attention_weights.hpp>
#include <larql/detail/attention/alibi.hpp>
#include <larql/detail/compressed/attention.hpp>
#include <larql/detail/gemm.hpp>
#include <larql/detail/indexer/selector.hpp>
#include <larql/detail/mla/expanded.hpp>
#include <larql/detail/mla/projections.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/gqa_attention.hpp>
#include <larql/key_selection.hpp>
#include <larql/kv_cache.hpp>
#include <larql/matrix_input.hpp>
#include <larql/rope.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace larql {

/// What a block computed for T new tokens.
template <class T>
struct attention_result {
    tensor<T, 3> q{};        ///< [T, H, D], rotated; latent form: [T, H, R + P]
    tensor<T, 3> k{};        ///< [T, G, D], rotated, without entries; latent form: [T, 1, R + P]
    tensor<T, 3> v{};        ///< [T, G, V]; latent form: [T, 1, R]
    tensor<T, 2> context{};  ///< [T, H*V], before the output projection
    tensor<T, 2> out{};      ///< [T, E]
    /// Of a sparse block: the keys that each token saw, which a block that shares them takes. Empty: all.
    key_selection selection{};
};

/// Working memory that the calls of blocks can share, so that a decode loop allocates nothing. Grows to the largest
/// call; holds nothing between calls. One call at a time, of any layers.
template <class T>
class attention_workspace {
public:
    /// For attention_layer.
    [[nodiscard]] detail::projection_buffers<T>& projections() noexcept { return m_projections; }
    [[nodiscard]] attention_scratch& scratch() noexcept { return m_scratch; }
    [[nodiscard]] tensor<T, 3>& attended() noexcept { return m_attended; }
    [[nodiscard]] detail::expanded_buffers<T>& expanded() noexcept { return m_expanded; }

private:
    detail::projection_buffers<T> m_projections{};
    attention_scratch m_scratch{};
    tensor<T, 3> m_attended = tensor<T, 3>::from_shape({0, 0, 0});  // [T, H, R], of latent form
    detail::expanded_buffers<T> m_expanded{};
};

/// What a call of a block may be given beside its input.
struct forward_options {
    /// For a block that shares the selection of another (`spec().indexer.shared`): that block's result for the same
    /// tokens. It may be null, or empty, while no more than top_k tokens have been seen.
    const key_selection* selection = nullptr;
    executor* threads = nullptr;  ///< null: threads of its own when the work is worth it
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
        if (m_spec.alibi != 0.0) m_alibi = detail::alibi_slopes(m_spec.geometry.num_heads, m_spec.alibi);
        for (const T logit : m_weights.vector(tensor_role::sinks).values())
            m_sinks.push_back(static_cast<float>(logit));
    }

    [[nodiscard]] const attention_spec& spec() const noexcept { return m_spec; }

    /// A cache of the layout that this layer's form needs.
    /// @tparam Storage   float, bf16 or f16
    /// @param  capacity  tokens; memory is touched as tokens arrive
    /// @param  rollback  tokens that `truncate` can always take back, such as a draft that is rejected; only compressed
    ///                   attention, which leaves its window behind, has a limit and takes memory for it
    template <class Storage = float>
    [[nodiscard]] kv_cache<Storage> make_cache(std::size_t capacity, std::size_t rollback = default_rollback) const {
        if (m_spec.kind == attention_kind::compressed)
            return kv_cache<Storage>::compressed(compressed_cache_shape_of(m_spec, capacity, rollback));
        const kv_cache_shape shape = cache_shape(capacity);
        if (m_spec.form == attention_form::latent)
            return kv_cache<Storage>::latent(capacity, shape.value_size, shape.key_size - shape.value_size,
                                             shape.index_size);
        return kv_cache<Storage>(shape);
    }

    /// Attends over these tokens alone.
    ///
    /// @param x        [T, E]  the block's input after the input norm
    /// @param threads  null: threads of its own when the work is worth it
    /// @return         every intermediate that a comparison wants
    /// @throws error errc::shape_mismatch if x is not E wide; errc::bad_value for a shared selection that is needed and
    ///         not given, or given in vain
    [[nodiscard]] attention_result<T> forward(const matrix_input<T>& x, executor* threads = nullptr) const {
        return forward(x, forward_options{.threads = threads});
    }
    [[nodiscard]] attention_result<T> forward(const matrix_input<T>& x, const forward_options& given) const {
        attention_result<T> r;
        attention_workspace<T> memory;
        if (m_spec.kind == attention_kind::compressed) {
            run_compressed<T>(x, nullptr, given.threads, r);
            return r;
        }
        run(
            x, 0, given, r, memory,
            [&](tensor<T, 3>&& index_keys) {
                return m_spec.indexer.own() ? matrix_input<T>(detail::flatten_heads(std::move(index_keys)))
                                            : matrix_input<T>();
            },
            [&](auto& out, const attention_options& options) {
                gqa_attention_into(r.q, r.k, r.v, out, options, memory.scratch());
            },
            [&](T* rows) { std::copy_n(r.k.data(), r.k.size(), rows); });
        return r;
    }

    /// Attends over the tokens of a cache and these, which are appended to it: token by token gives what one pass
    /// gives.
    ///
    /// @param cache  from make_cache; the first new token has position cache.size()
    /// @throws error errc::limit_exceeded if the cache has no room; errc::shape_mismatch if it is not this layer's;
    ///         and as above. What is thrown, here or by a task of the executor, leaves the cache as it was.
    template <class Storage>
    [[nodiscard]] attention_result<T> forward(const matrix_input<T>& x, kv_cache<Storage>& cache,
                                              executor* threads = nullptr) const {
        return forward(x, cache, forward_options{.threads = threads});
    }
    template <class Storage>
    [[nodiscard]] attention_result<T> forward(const matrix_input<T>& x, kv_cache<Storage>& cache,
                                              const forward_options& given) const {
        attention_result<T> r;
        attention_workspace<T> memory;
        forward_into(x, cache, r, memory, given);
        return r;
    }

    /// forward into a result and working memory of the caller's. When calls of the same number of tokens repeat,
    /// nothing is allocated, nor opened or read from a file, if: the weights are in memory (see weight_storage) in a
    /// type that products compute from (see matrix_of); there are at most 16 tokens, as `x` float in memory; an
    /// executor is given; and the attention is neither dense, sparse nor compressed, does not join a kv_b of a
    /// checkpoint's k_b and v_b (factored form), and has frequencies that do not follow the sequence's length.
    ///
    /// @param r       what it holds is overwritten; its memory is used again where shapes agree
    /// @param memory  likewise; one call at a time
    template <class Storage>
    void forward_into(const matrix_input<T>& x, kv_cache<Storage>& cache, attention_result<T>& r,
                      attention_workspace<T>& memory, const forward_options& given = {}) const {
        require_own(cache);
        if (m_spec.kind == attention_kind::compressed)
            return run_compressed(x, cache.compressed_state(), given.threads, r);
        const std::size_t held = cache.size();
        try {
            run(
                x, held, given, r, memory,
                [&](tensor<T, 3>&& index_keys) {
                    const bool latent = m_spec.form == attention_form::latent, indexed = m_spec.indexer.own();
                    if (latent && indexed)
                        cache.append_indexed(index_keys, r.k);
                    else if (latent)
                        cache.append(r.k);
                    else if (indexed)
                        cache.append_indexed(index_keys, r.k, r.v);
                    else
                        cache.append(r.k, r.v);
                    return indexed ? detail::rows_of_cached<T>(cache.index_keys()) : matrix_input<T>();
                },
                [&](auto& out, const attention_options& options) {
                    gqa_attention_into(r.q, cache.keys(), cache.values(), out, options, memory.scratch());
                },
                [&](T* rows) {
                    const auto keys = cache.keys();
                    const std::size_t tokens = keys.shape()[0], width = keys.shape()[2];
                    detail::read_strided<T, Storage>({keys.data(), static_cast<std::ptrdiff_t>(width), 1}, width, 0,
                                                     tokens, rows, width);
                });
        } catch (...) {
            cache.truncate(held);
            throw;
        }
    }

private:
    [[nodiscard]] kv_cache_shape cache_shape(std::size_t capacity) const {
        const mla_geometry& g = m_spec.geometry;
        const std::size_t index_size = m_spec.indexer.own() ? m_spec.indexer.cached_size() : 0;
        if (m_spec.form == attention_form::latent)
            return {capacity, 1, g.kv_lora_rank + g.qk_rope_head_dim, g.kv_lora_rank, index_size};
        return {capacity, g.kv_heads(), g.qk_head_dim(), g.v_head_dim, index_size};
    }

    template <class Storage>
    void require_own(const kv_cache<Storage>& cache) const {
        const bool compressed = m_spec.kind == attention_kind::compressed;
        if (cache.is_compressed() != compressed)
            detail::fail(errc::shape_mismatch,
                         std::string("the layer's attention is ") + (compressed ? "" : "not ") +
                             "compressed, and the cache is another's",
                         {.subject = "cache"});
        if (compressed) {
            const compressed_cache_shape& got = cache.compressed_state()->shape();
            if (got != compressed_cache_shape_of(m_spec, got.capacity, got.rollback))
                detail::fail(errc::shape_mismatch, "its window, entries or head size are not this layer's",
                             {.subject = "cache"});
            return;
        }
        const kv_cache_shape &got = cache.shape(), want = cache_shape(got.capacity);
        const auto text = [](const kv_cache_shape& s) {
            return std::to_string(s.kv_heads) + " heads of " + std::to_string(s.key_size) + "/" +
                   std::to_string(s.value_size) +
                   (s.index_size == 0 ? "" : " and an indexer's key of " + std::to_string(s.index_size));
        };
        const bool is_latent = m_spec.form == attention_form::latent;
        if (got.kv_heads != want.kv_heads || got.key_size != want.key_size || got.value_size != want.value_size ||
            got.index_size != want.index_size || cache.is_latent() != is_latent)
            detail::fail(errc::shape_mismatch,
                         "the layer caches " + text(want) + (is_latent ? ", latent" : "") + ", the cache holds " +
                             text(got) + (cache.is_latent() ? ", latent" : ""),
                         {.subject = "cache"});
    }

    void require_width(const matrix_input<T>& x) const {
        const std::size_t width = m_spec.input_width();
        if (x.cols() != width)
            detail::fail(
                errc::shape_mismatch,
                "expected hidden states of width " + std::to_string(width) + ", got " + std::to_string(x.cols()),
                {.subject = "x"});
    }

    /// @param state  null: these tokens alone. It changes after everything is computed, so that what is thrown leaves
    ///               it as it was.
    template <class Storage>
    void run_compressed(const matrix_input<T>& x, detail::compressed_state<Storage>* state, executor* given,
                        attention_result<T>& r) const {
        const mla_geometry& g = m_spec.geometry;
        require_width(x);
        if (state != nullptr) state->require_room(x.rows());
        const bool worth_threads = x.rows() * g.hidden_size * g.num_heads * g.qk_head_dim() > 10'000'000;
        detail::with_executor(given, worth_threads, [&](executor& threads) {
            detail::compressed_attention<T, Storage> block(m_spec, m_rope, m_weights, m_sinks, state, threads);
            block.forward(x, r);
            if (state != nullptr) state->append(block.added());
        });
    }

    /// Holds a given selection against what the block needs.
    void require_selection(const key_selection* given, std::size_t tokens) const {
        const bool missing = given == nullptr || given->empty();
        if (m_spec.indexer.shared && missing && m_spec.indexer.selects(tokens))
            detail::fail(errc::bad_value,
                         "the block shares another's selection of " + std::to_string(m_spec.indexer.top_k) + " of " +
                             std::to_string(tokens) +
                             " keys, and none is given: pass that of the last block before it that makes one",
                         {.subject = "selection"});
        if (!m_spec.indexer.shared && !missing)
            detail::fail(errc::bad_value, "is given, and the block has no use for it", {.subject = "selection"});
    }

    /// @param append  stores what the projections made, and returns the indexer's keys of all tokens so far
    /// @param attend  fills [T, H, R], the heads' weighted latents, or [T, H*V], their outputs
    /// @param latents  of latent form: writes the rows of all tokens so far, [S, R + P], to a pointer
    template <class Append, class Attend, class Latents>
    void run(const matrix_input<T>& x, std::size_t first_position, const forward_options& given, attention_result<T>& r,
             attention_workspace<T>& memory, Append append, Attend attend, Latents latents) const {
        const mla_geometry& g = m_spec.geometry;
        require_width(x);
        require_selection(given.selection, first_position + x.rows());
        rope_table of_length;
        if (depends_on_length(m_spec.rope))
            of_length = make_rope_table(m_spec.rope, static_cast<double>(first_position + x.rows()));
        const rope_table& rope = depends_on_length(m_spec.rope) ? of_length : m_rope;
        const bool worth_threads = x.rows() * g.hidden_size * g.num_heads * g.qk_head_dim() > 10'000'000;
        detail::with_executor(given.threads, worth_threads, [&](executor& threads) {
            const detail::block_projection<T> project(m_spec, rope, m_weights, memory.projections(), threads);
            const bool selects = m_spec.indexer.own() && m_spec.indexer.selects(first_position + x.rows());
            tensor<T, 2> query_latent;
            project.query_key_value(x, first_position, r, selects ? &query_latent : nullptr);
            r.selection = {};
            if (m_spec.indexer.own()) {
                const detail::block_indexer<T> indexer(m_spec, rope, m_weights, threads);
                const matrix_input<T> index_keys = append(indexer.keys(x, first_position));
                if (selects) r.selection = indexer.select(x, query_latent, index_keys);
            } else {
                (void)append(tensor<T, 3>{});
            }
            if (m_spec.indexer.shared && given.selection != nullptr) r.selection = *given.selection;
            const attention_options options{.scale = m_spec.scale,
                                            .first_position = first_position,
                                            .softcap = m_spec.softcap,
                                            .sliding_window = m_spec.sliding_window,
                                            .chunk = m_spec.chunk,
                                            .sinks = m_sinks,
                                            .alibi = m_alibi,
                                            .key_lists = r.selection.view(),
                                            .threads = &threads};
            if (r.selection.empty() &&
                detail::expanded_attention<T>::pays(m_spec, x.rows(), first_position + x.rows())) {
                detail::expanded_attention<T>(m_spec, m_weights, memory.expanded(), threads)
                    .run(memory.projections().query, first_position + x.rows(), latents, options, memory.scratch(),
                         r.context);
            } else if (m_spec.form == attention_form::latent) {
                detail::fit(memory.attended(), x.rows(), g.num_heads, g.kv_lora_rank);
                attend(memory.attended(), options);
                project.from_latent(memory.attended(), r.context);
            } else {
                detail::fit(r.context, x.rows(), g.num_heads * g.v_head_dim);
                attend(r.context, options);
            }
            project.apply_gate(x, r.context);
            project.output(r.context, r.out);
        });
    }

    attention_spec m_spec;
    attention_weights<T> m_weights;
    rope_table m_rope;  // where the length does not matter
    std::vector<float> m_sinks;
    std::vector<float> m_alibi;  // slopes of heads
};

}  // namespace larql

#endif
