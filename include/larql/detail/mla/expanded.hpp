// SPDX-License-Identifier: Apache-2.0
//
// Attention over cached latents by way of each head's own keys and values: of many tokens, and of the factored form of
// blocks that share latents. In the latent, a pair of token and key costs 2 R + P products; of keys and values that
// kv_b makes of it N + P + V, a third in DeepSeek-V3. Making them costs R (N + V) for each key and head, once, whatever
// the number of tokens: from about two hundred tokens on it pays.
#ifndef LARQL_DETAIL_MLA_EXPANDED_HPP
#define LARQL_DETAIL_MLA_EXPANDED_HPP

#include <larql/attention_spec.hpp>
#include <larql/attention_weights.hpp>
#include <larql/detail/gemm.hpp>
#include <larql/detail/mla/projection_buffers.hpp>
#include <larql/detail/mla/projections.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/executor.hpp>
#include <larql/gqa_attention.hpp>

#include <algorithm>
#include <array>
#include <cstddef>

namespace larql::detail {

/// The latent attention of one block with published factors, a few heads at a time.
template <class T>
class expanded_attention {
public:
    expanded_attention(const attention_spec& spec, const attention_weights<T>& weights, expanded_buffers<T>& buffers,
                       executor& threads)
        : m_whole(spec.form == attention_form::factored || spec.latent_from == latent_factors::kv_b),
          m_g(spec.geometry),
          m_w(weights),
          m_buffers(buffers),
          m_threads(threads) {}

    /// Whether the block has no other way.
    [[nodiscard]] static bool is_needed(const attention_spec& spec) {
        return spec.shares_latents && spec.form == attention_form::factored;
    }

    /// Whether `tokens` new ones, the last of `keys`, are attended to faster so, within its memory.
    [[nodiscard]] static bool pays(const attention_spec& spec, std::size_t tokens, std::size_t keys) {
        if (spec.form != attention_form::latent || spec.latent_from == latent_factors::folded) return false;
        const mla_geometry& g = spec.geometry;
        if (g.num_heads != g.kv_heads() || tokens <= few_rows_limit) return false;
        const auto rank = static_cast<double>(g.kv_lora_rank), rope = static_cast<double>(g.qk_rope_head_dim);
        const auto own = static_cast<double>(g.qk_nope_head_dim + g.v_head_dim);
        const double pairs =
            static_cast<double>(tokens) * (static_cast<double>(keys) - static_cast<double>(tokens) / 2);
        const double expanded = pairs * (own + rope) + static_cast<double>(keys) * rank * own;
        const double latent = pairs * (2 * rank + rope) + static_cast<double>(tokens) * rank * own;
        return expanded < 0.9 * latent && heads_at_once(g, keys) != 0;
    }

    /// @param q         [., H, D]  rotated queries, not carried into the latent, of which `tokens` from row `first` on
    /// are
    ///                  this sequence's
    /// @param latents   writes the cached rows [S, R + P] to a pointer, as T
    /// @param context   [., H*V]  gets the heads' outputs in the same rows
    template <class Latents>
    void run(const tensor<T, 3>& q, std::size_t first, std::size_t tokens, std::size_t keys, const Latents& latents,
             const attention_options& options, attention_scratch& scratch, tensor<T, 2>& context) const {
        const std::size_t heads = m_g.num_heads, dim = m_g.qk_head_dim(), value = m_g.v_head_dim;
        fit(m_buffers.latents, keys, m_g.kv_lora_rank + m_g.qk_rope_head_dim);
        latents(m_buffers.latents.data());
        const std::size_t at_once = std::max<std::size_t>(heads_at_once(m_g, keys), 1);
        for (std::size_t head = 0; head < heads; head += at_once) {
            const std::size_t count = std::min(at_once, heads - head);
            fit(m_buffers.keys, keys, count, dim);
            fit(m_buffers.values, keys, count, value);
            make_keys(head, count);
            make_values(head, count);
            attention_options of_heads = options;
            if (!options.sinks.empty()) of_heads.sinks = options.sinks.subspan(head, count);
            gqa_attention_into(
                view(q.data() + (first * heads + head) * dim, {tokens, count, dim}, heads * dim), m_buffers.keys,
                m_buffers.values,
                view(context.data() + (first * heads + head) * value, {tokens, count, value}, heads * value), of_heads,
                scratch);
        }
    }

private:
    /// Heads whose keys and values fit the memory; 0: not one does.
    [[nodiscard]] static std::size_t heads_at_once(const mla_geometry& g, std::size_t keys) {
        constexpr std::size_t most_bytes = std::size_t{24} << 20;
        const std::size_t bytes = keys * (g.qk_head_dim() + g.v_head_dim) * sizeof(T);
        return std::min(g.num_heads, most_bytes / std::max<std::size_t>(bytes, 1));
    }

    template <class E>
    static auto view(E* data, const std::array<std::size_t, 3>& shape, std::size_t token_stride) {
        const std::array<std::size_t, 3> strides{token_stride, shape[2], 1};
        return xt::adapt(data, shape[0] * shape[1] * shape[2], xt::no_ownership(), shape, strides);
    }

    /// Keys of heads [head, head + count): what k_b makes of the latents, and the rotated part that all share.
    void make_keys(std::size_t head, std::size_t count) const {
        tensor<T, 3>& keys = m_buffers.keys;
        const std::size_t dim = keys.shape(2), nope = m_g.qk_nope_head_dim, rank = m_g.kv_lora_rank;
        const std::size_t width = m_buffers.latents.shape(1), rotated = rope_begin(m_g);
        const std::size_t head_rows = m_whole ? nope + m_g.v_head_dim : rank;
        multiply_heads<T>({.weight = m_w[m_whole ? tensor_role::kv_b : tensor_role::k_b].source(),
                           .rows = m_whole ? nope : rank,
                           .tokens = keys.shape(0),
                           .x = m_buffers.latents.data(),
                           .x_token = width,
                           .out = keys.data() + (m_g.order == head_order::rope_nope ? m_g.qk_rope_head_dim : 0),
                           .out_token = count * dim,
                           .heads = count,
                           .head_rows = head_rows,
                           .first_row = head * head_rows,
                           .out_head = dim,
                           .role = m_whole ? row_role::column : row_role::depth},
                          m_threads);
        for (std::size_t s = 0; s < keys.shape(0); ++s)
            for (std::size_t h = 0; h < count; ++h)
                std::copy_n(m_buffers.latents.data() + s * width + rank, m_g.qk_rope_head_dim,
                            keys.data() + (s * count + h) * dim + rotated);
    }

    void make_values(std::size_t head, std::size_t count) const {
        tensor<T, 3>& values = m_buffers.values;
        const std::size_t value = m_g.v_head_dim;
        const std::size_t head_rows = m_whole ? m_g.qk_nope_head_dim + value : value;
        multiply_heads<T>({.weight = m_w[m_whole ? tensor_role::kv_b : tensor_role::v_b].source(),
                           .rows = value,
                           .tokens = values.shape(0),
                           .x = m_buffers.latents.data(),
                           .x_token = m_buffers.latents.shape(1),
                           .out = values.data(),
                           .out_token = count * value,
                           .heads = count,
                           .head_rows = head_rows,
                           .first_row = head * head_rows + (m_whole ? m_g.qk_nope_head_dim : 0),
                           .out_head = value},
                          m_threads);
    }

    const bool m_whole;  // k_b and v_b are rows of kv_b
    const mla_geometry& m_g;
    const attention_weights<T>& m_w;
    expanded_buffers<T>& m_buffers;
    executor& m_threads;
};

}  // namespace larql::detail

#endif
