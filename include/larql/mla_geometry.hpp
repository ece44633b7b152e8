// SPDX-License-Identifier: Apache-2.0
#ifndef LARQL_MLA_GEOMETRY_HPP
#define LARQL_MLA_GEOMETRY_HPP

#include <larql/attention_form.hpp>
#include <larql/rope_config.hpp>

#include <cstddef>

namespace larql {

/// Sizes of an attention layer, in elements, and how its stored rows are ordered. Plain attention has the two ranks 0,
/// and heads of qk_rope_head_dim rotated and qk_nope_head_dim other elements.
struct mla_geometry {
    std::size_t hidden_size = 0;                       ///< E
    std::size_t num_heads = 0;                         ///< H, query heads
    std::size_t num_kv_heads = 0;                      ///< G, heads of kv_b; 0 means H, as in every published model
    std::size_t q_lora_rank = 0;                       ///< Rq; 0: a single q projection without latent
    std::size_t kv_lora_rank = 0;                      ///< R
    std::size_t qk_nope_head_dim = 0;                  ///< N
    std::size_t qk_rope_head_dim = 0;                  ///< P
    std::size_t v_head_dim = 0;                        ///< V
    head_order order = head_order::nope_rope;          ///< of the stored query heads
    rope_pairing pairing = rope_pairing::interleaved;  ///< of the stored rotated rows

    [[nodiscard]] constexpr std::size_t qk_head_dim() const noexcept { return qk_nope_head_dim + qk_rope_head_dim; }
    [[nodiscard]] constexpr std::size_t kv_heads() const noexcept {
        return num_kv_heads == 0 ? num_heads : num_kv_heads;
    }
};

}  // namespace larql

#endif
