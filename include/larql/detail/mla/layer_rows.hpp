// SPDX-License-Identifier: Apache-2.0
//
// Rows that the calls of a block hand on: of caches, of one sequence among several, of none.
#ifndef LARQL_DETAIL_MLA_LAYER_ROWS_HPP
#define LARQL_DETAIL_MLA_LAYER_ROWS_HPP

#include <larql/attention_layer.hpp>
#include <larql/detail/attention/stored_element.hpp>
#include <larql/detail/mla/projection_buffers.hpp>
#include <larql/kv_cache.hpp>
#include <larql/matrix_input.hpp>
#include <larql/rows_view.hpp>

#include <cstddef>

namespace larql::detail {

/// The rows of a latent cache, [S, R + P], as T.
template <class T, class Storage>
void copy_rows_of(const kv_cache<Storage>& cache, T* rows) {
    const rows_view<const Storage> keys = cache.key_rows();
    if constexpr (is_block<Storage>) {
        for (std::size_t t = 0; t < keys.tokens; ++t)
            for (std::size_t i = 0; i < keys.size; ++i)
                *rows++ = number_in<T>(keys.data + static_cast<std::ptrdiff_t>(t) * keys.token_stride, i);
    } else {
        read_strided<T, Storage>({keys.data, keys.token_stride, 1}, keys.size, 0, keys.tokens, rows, keys.size);
    }
}

/// Rows [first, first + tokens) of a tensor of heads.
template <class T>
rows_view<T> rows_from(T* data, std::size_t heads, std::size_t size, std::size_t first, std::size_t tokens) noexcept {
    return {.data = data + first * heads * size,
            .tokens = tokens,
            .heads = heads,
            .size = size,
            .token_stride = static_cast<std::ptrdiff_t>(heads * size),
            .head_stride = static_cast<std::ptrdiff_t>(size)};
}

/// What a block computes for no tokens: nothing, in the shapes of its form. Kernels need not know that case.
template <class T>
void fit_no_tokens(const attention_spec& spec, attention_result<T>& r) {
    constexpr std::size_t none = 0;
    const mla_geometry& g = spec.geometry;
    const bool latent = caches_latents(spec);
    const std::size_t row = g.kv_lora_rank + g.qk_rope_head_dim, key = latent ? row : g.qk_head_dim();
    const std::size_t kv_heads = latent ? 1 : g.kv_heads();
    fit(r.q, none, g.num_heads, spec.form == attention_form::latent ? row : g.qk_head_dim());
    fit(r.k, none, kv_heads, key);
    fit(r.v, none, kv_heads, latent ? g.kv_lora_rank : g.v_head_dim);
    fit(r.context, none, g.num_heads * g.v_head_dim);
    fit(r.out, none, g.hidden_size);
    r.selection = {};
}

}  // namespace larql::detail

#endif
