// SPDX-License-Identifier: Apache-2.0
//
// The bodies of attention_layer.hpp.
#ifndef LARQL_DETAIL_BODIES_ATTENTION_LAYER_HPP
#define LARQL_DETAIL_BODIES_ATTENTION_LAYER_HPP

#include <larql/attention_layer.hpp>

#include <larql/attention_cost.hpp>
#include <larql/detail/attention/alibi.hpp>
#include <larql/detail/bodies/attention_layer_parts.hpp>
#include <larql/detail/compressed/attention.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/gemm.hpp>
#include <larql/detail/indexer/selector.hpp>
#include <larql/detail/mla/expanded.hpp>
#include <larql/detail/mla/layer_rows.hpp>
#include <larql/detail/mla/projections.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/gqa_attention.hpp>
#include <larql/rope.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace larql {

template <class T>
attention_layer<T>::attention_layer(attention_spec spec, attention_weights<T> weights)
    : m_spec(std::move(spec)), m_weights(std::move(weights)), m_rope(make_rope_table(m_spec.rope)) {
    detail::require_valid(m_spec);
    detail::require_complete(m_spec, m_weights);
    if (m_spec.kind == attention_kind::mla &&
        (m_spec.q_norm.kind != norm_kind::none || m_spec.k_norm.kind != norm_kind::none ||
         m_spec.v_norm.kind != norm_kind::none || m_spec.clip != 0.0 || m_spec.value_is_key))
        detail::fail(errc::unsupported_architecture, "norms and limits of heads belong to plain attention",
                     {.subject = "attention_spec"});
    if (m_spec.alibi != 0.0) m_alibi = detail::alibi_slopes(m_spec.geometry.num_heads, m_spec.alibi);
    for (const T logit : m_weights.vector(tensor_role::sinks).values()) m_sinks.push_back(static_cast<float>(logit));
}

template <class T>
template <class Storage>
kv_cache<Storage> attention_layer<T>::make_cache(std::size_t capacity, std::size_t rollback) const {
    if (keeps_index_apart())
        return kv_cache<Storage>(kv_cache_shape{.capacity = capacity, .index_size = m_spec.indexer.cached_size()});
    require_own_keys("make_cache");
    if (m_spec.kind == attention_kind::compressed)
        return kv_cache<Storage>::compressed(compressed_cache_shape_of(m_spec, capacity, rollback));
    const kv_cache_shape shape = cache_shape(capacity);
    if (caches_latents(m_spec))
        return kv_cache<Storage>::latent(capacity, shape.value_size, shape.key_size - shape.value_size,
                                         shape.index_size, shape.layer);
    return kv_cache<Storage>(shape);
}

template <class T>
attention_result<T> attention_layer<T>::forward(const matrix_input<T>& x, const forward_options& given) const {
    require_own_keys("forward without a cache");
    attention_result<T> r;
    attention_workspace<T> memory;
    if (m_spec.kind == attention_kind::compressed) {
        run_compressed<T>(x, nullptr, given.threads, r);
        return r;
    }
    run(
        x, 0, 0, given, r, memory,
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

template <class T>
template <class Storage>
void attention_layer<T>::forward_into(const matrix_input<T>& x, kv_cache<Storage>& cache, attention_result<T>& r,
                                      attention_workspace<T>& memory, const forward_options& given,
                                      kv_cache<Storage>* index) const {
    require_own(cache);
    if (m_spec.kind == attention_kind::compressed) {
        require_index(index, 0);
        return run_compressed(x, cache.compressed_state(), given.threads, r);
    }
    const std::size_t held = cache.size(), position = first_new(cache, x.rows());
    require_needed(cache, position);
    require_index(index, position);
    require_one_call(position, std::max(cache.longest(), position + x.rows()));
    try {
        run(
            x, position, cache.first_position(), given, r, memory,
            [&](tensor<T, 3>&& index_keys) {
                if (index != nullptr) {
                    index->append_indexed(index_keys);
                    return detail::rows_of_cached<T>(index->index_rows());
                }
                if (m_spec.kv_layer) return matrix_input<T>();
                const bool latent = caches_latents(m_spec), indexed = m_spec.indexer.own();
                if (latent && indexed)
                    cache.append_indexed(index_keys, r.k);
                else if (latent)
                    cache.append(r.k);
                else if (indexed)
                    cache.append_indexed(index_keys, r.k, r.v);
                else
                    cache.append(r.k, r.v);
                return indexed ? detail::rows_of_cached<T>(cache.index_rows()) : matrix_input<T>();
            },
            [&](auto& out, const attention_options& options) {
                gqa_attention_into(r.q, cache.keys(), cache.values(), out, options, memory.scratch());
            },
            [&](T* rows) { detail::copy_rows_of(cache, rows); });
    } catch (...) {
        if (!m_spec.kv_layer) cache.truncate(held);
        if (index != nullptr) index->truncate(position);
        throw;
    }
}

template <class T>
kv_cache_shape attention_layer<T>::cache_shape(std::size_t capacity) const {
    const mla_geometry& g = m_spec.geometry;
    const std::size_t index_size = m_spec.indexer.own() ? m_spec.indexer.cached_size() : 0;
    if (caches_latents(m_spec))
        return {capacity, 1, g.kv_lora_rank + g.qk_rope_head_dim, g.kv_lora_rank, index_size, m_spec.layer};
    return {capacity, g.kv_heads(), g.qk_head_dim(), g.v_head_dim, index_size, m_spec.layer};
}

template <class T>
template <class Storage>
void attention_layer<T>::require_own(const kv_cache<Storage>& cache) const {
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
        return detail::concat({s.kv_heads, " heads of ", s.key_size, "/", s.value_size,
                               (s.index_size == 0 ? "" : detail::concat({" and an indexer's key of ", s.index_size}))});
    };
    const bool is_latent = caches_latents(m_spec);
    if (got.kv_heads != want.kv_heads || got.key_size != want.key_size || got.value_size != want.value_size ||
        (!m_spec.kv_layer && got.index_size != want.index_size) || cache.is_latent() != is_latent)
        detail::fail(errc::shape_mismatch,
                     "the layer caches " + text(want) + (is_latent ? ", latent" : "") + ", the cache holds " +
                         text(got) + (cache.is_latent() ? ", latent" : ""),
                     {.subject = "cache"});
    if (m_spec.kv_layer && got.layer && *got.layer != *m_spec.kv_layer)
        detail::fail(errc::bad_value,
                     detail::concat({"the block attends to keys and values of layer ", *m_spec.kv_layer,
                                     ", and this is the cache of layer ", *got.layer}),
                     {.subject = "cache"});
}

template <class T>
template <class Storage>
void attention_layer<T>::require_index(const kv_cache<Storage>* index, std::size_t position) const {
    const error_where where{.subject = "index"};
    if (keeps_index_apart() && index == nullptr)
        detail::fail(errc::bad_value,
                     detail::concat(
                         {"required and not given: the block has an indexer of its own, and attends to keys of layer ",
                          *m_spec.kv_layer, ", whose cache has no place for the indexer's"}),
                     where);
    if (index == nullptr) return;
    if (!keeps_index_apart()) detail::fail(errc::bad_value, "is given, and the block has no use for it", where);
    const std::size_t size = m_spec.indexer.cached_size();
    if (index->shape().index_size != size || index->shape().kv_heads != 0)
        detail::fail(errc::shape_mismatch,
                     detail::concat({"expected a cache for keys of an indexer alone, of ", size, " elements, got ",
                                     index->shape().index_size, ", and ", index->shape().kv_heads, " key/value heads"}),
                     where);
    if (index->first_position() != 0 || index->next_position() != position)
        detail::fail(errc::bad_value,
                     detail::concat({"holds tokens ", index->first_position(), " to ", index->next_position(),
                                     ", and the first new one is at ", position}),
                     where);
}

template <class T>
template <class Storage>
std::size_t attention_layer<T>::first_new(const kv_cache<Storage>& cache, std::size_t tokens) const {
    if (!m_spec.kv_layer) return cache.next_position();
    if (tokens > cache.size())
        detail::fail(
            errc::bad_value,
            detail::concat({"the block is given ", tokens, " tokens, and the cache of layer ", *m_spec.kv_layer,
                            " holds ", cache.size(),
                            ": that layer's block goes first, and puts the keys and values of these tokens there"}),
            {.subject = "cache"});
    return cache.next_position() - tokens;
}

template <class T>
void attention_layer<T>::require_own_keys(const char* call) const {
    if (m_spec.kv_layer)
        detail::fail(errc::bad_value,
                     detail::concat(
                         {"the block attends to keys and values of layer ", *m_spec.kv_layer,
                          " and has none of its own: forward takes the cache of that layer's block, which holds them"}),
                     {.subject = call});
}

template <class T>
void attention_layer<T>::require_width(const matrix_input<T>& x) const {
    const std::size_t width = m_spec.input_width();
    if (x.cols() != width)
        detail::fail(errc::shape_mismatch,
                     detail::concat({"expected hidden states of width ", width, ", got ", x.cols()}), {.subject = "x"});
}

template <class T>
template <class Storage>
void attention_layer<T>::run_compressed(const matrix_input<T>& x, detail::compressed_state<Storage>* state,
                                        executor* given, attention_result<T>& r) const {
    require_width(x);
    if (state != nullptr) state->require_room(x.rows());
    if (x.rows() == 0) return detail::fit_no_tokens(m_spec, r);
    if constexpr (!detail::is_block<Storage>)  // there are no such caches
        detail::with_executor(given, worth_threads(x.rows()), [&](executor& threads) {
            detail::compressed_attention<T, Storage> block(m_spec, m_rope, m_weights, m_sinks, state, threads);
            block.forward(x, r);
            if (state != nullptr) state->append(block.added());
        });
}

template <class T>
void attention_layer<T>::require_selection(const key_selection* given, std::size_t tokens) const {
    const bool missing = given == nullptr || given->empty();
    if (m_spec.indexer.shared && missing && m_spec.indexer.selects(tokens))
        detail::fail(errc::bad_value,
                     detail::concat({"the block shares another's selection of ", m_spec.indexer.top_k, " of ", tokens,
                                     " keys, and none is given: pass that of the last block before it that makes one"}),
                     {.subject = "selection"});
    if (!m_spec.indexer.shared && !missing)
        detail::fail(errc::bad_value, "is given, and the block has no use for it", {.subject = "selection"});
}

template <class T>
void attention_layer<T>::require_one_call(std::size_t first_position, std::size_t longest) const {
    if (m_spec.rope.doubling && first_position != 0 && static_cast<double>(longest) > m_spec.rope.max_position)
        detail::fail(errc::bad_value,
                     detail::concat(
                         {"a sequence of ", longest, " tokens in several calls passes the trained length, ",
                          static_cast<std::size_t>(m_spec.rope.max_position),
                          ": the model's own code would go on with the frequencies of its first call, which the cache "
                          "does not hold. Give the whole sequence in one call"}),
                     {.subject = "first_position"});
}

template <class T>
template <class Append, class Attend, class Latents>
void attention_layer<T>::run(const matrix_input<T>& x, std::size_t first_position, std::size_t dropped,
                             const forward_options& given, attention_result<T>& r, attention_workspace<T>& memory,
                             Append append, Attend attend, Latents latents) const {
    const mla_geometry& g = m_spec.geometry;
    require_width(x);
    require_selection(given.selection, first_position + x.rows());
    if (x.rows() == 0) return detail::fit_no_tokens(m_spec, r);
    rope_table of_length;
    if (depends_on_length(m_spec.rope))
        of_length = make_rope_table(m_spec.rope, static_cast<double>(first_position + x.rows()));
    const rope_table& rope = depends_on_length(m_spec.rope) ? of_length : m_rope;
    const std::size_t keys = first_position - dropped + x.rows();
    detail::with_executor(given.threads, worth_threads(x.rows()), [&](executor& threads) {
        const detail::block_projection<T> project(m_spec, rope, m_weights, memory.projections(), threads);
        const bool selects = m_spec.indexer.own() && m_spec.indexer.selects(first_position + x.rows());
        tensor<T, 2> query_latent;
        const bool reads_latent = selects && !m_spec.indexer.from_input;
        project.query_key_value(x, {.first = first_position}, r, reads_latent ? &query_latent : nullptr);
        r.selection = {};
        if (m_spec.indexer.own()) {
            const detail::block_indexer<T> indexer(m_spec, rope, m_weights, threads);
            const detail::token_places at{.first = first_position};
            const matrix_input<T> index_keys = append(indexer.keys(x, at));
            if (selects) r.selection = indexer.select(indexer.queries(x, query_latent, at), 0, x.rows(), index_keys);
        } else {
            (void)append(tensor<T, 3>{});
        }
        if (m_spec.indexer.shared && given.selection != nullptr) r.selection = *given.selection;
        attention_options options = this->options();
        options.first_position = first_position;
        options.first_key_position = dropped;
        options.key_lists = r.selection.view();
        options.threads = &threads;
        using expanded = detail::expanded_attention<T>;
        if (expanded::is_needed(m_spec) || (r.selection.empty() && expanded::pays(m_spec, x.rows(), keys))) {
            const bool latent = m_spec.form == attention_form::latent;
            detail::fit(r.context, x.rows(), g.num_heads * g.v_head_dim);
            expanded(m_spec, m_weights, memory.expanded(), threads)
                .run(latent ? memory.projections().query : r.q, 0, x.rows(), keys, latents, options, memory.scratch(),
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

template <class T>
bool attention_layer<T>::worth_threads(std::size_t tokens) const noexcept {
    const mla_geometry& g = m_spec.geometry;
    return tokens * g.hidden_size * g.num_heads * g.qk_head_dim() > 10'000'000;
}

template <class T>
void attention_layer<T>::require_plain(const char* call, bool in_batch) const {
    const bool compressed = m_spec.kind == attention_kind::compressed, sparse = m_spec.indexer.any();
    const bool expands = detail::expanded_attention<T>::is_needed(m_spec);
    if (!compressed && (in_batch || (!sparse && !expands))) return;
    detail::fail(errc::unsupported_architecture,
                 std::string("is for attention to keys of each token, and that of this block is ") +
                     (compressed ? "compressed"
                      : sparse   ? "sparse"
                                 : "to heads made of shared latents, in its factored form") +
                     ": forward is for it",
                 {.subject = call});
}

template <class T>
template <class Storage>
void attention_layer<T>::require_needed(const kv_cache<Storage>& cache, std::size_t position) const {
    const std::size_t needed = first_needed(position);
    if (cache.first_position() > needed)
        detail::fail(errc::bad_value,
                     detail::concat({"has dropped the tokens before position ", cache.first_position(),
                                     ", and the next token sees those from ", needed, " on"}),
                     {.subject = "cache"});
}

#ifdef LARQL_SEPARATE

// What other files of a program find compiled: every element type and cache that there is.
#define LARQL_LAYER(T, Storage)                                                                                        \
    template kv_cache<Storage> attention_layer<T>::make_cache<Storage>(std::size_t, std::size_t) const;                \
    template void attention_layer<T>::forward_into(const matrix_input<T>&, kv_cache<Storage>&, attention_result<T>&,   \
                                                   attention_workspace<T>&, const forward_options&,                    \
                                                   kv_cache<Storage>*) const;                                          \
    template void attention_layer<T>::run_batch(const matrix_input<T>&, std::span<const cached_sequence<Storage>>,     \
                                                attention_result<T>&, attention_workspace<T>&, const forward_options&) \
        const;
template class attention_layer<float>;
LARQL_LAYER(float, float)
LARQL_LAYER(float, bf16)
LARQL_LAYER(float, f16)
LARQL_LAYER(float, f8_e4m3)
LARQL_LAYER(float, q8_0_block)
template class attention_layer<double>;
LARQL_LAYER(double, float)
LARQL_LAYER(double, bf16)
LARQL_LAYER(double, f16)
LARQL_LAYER(double, f8_e4m3)
LARQL_LAYER(double, q8_0_block)
#undef LARQL_LAYER

#endif

}  // namespace larql

#endif
