// SPDX-License-Identifier: Apache-2.0
//
// Absorbs one latent-attention layer that lies in an engine's own memory, without a checkpoint.
#include <larql/mla_absorb.hpp>

#include <cstddef>
#include <cstdio>
#include <vector>

int main() {
    const larql::mla_geometry geometry{.hidden_size = 64,
                                       .num_heads = 4,
                                       .q_lora_rank = 24,
                                       .kv_lora_rank = 16,
                                       .qk_nope_head_dim = 16,
                                       .qk_rope_head_dim = 8,
                                       .v_head_dim = 16};
    std::vector<float> q_a(24 * 64, 0.5F), q_b(96 * 24, 0.25F), kv_a(24 * 64, 0.5F), kv_b(128 * 16, 0.25F);
    const auto matrix = [](std::vector<float>& memory, std::size_t rows, std::size_t cols) {
        return xt::adapt(memory, std::vector<std::size_t>{rows, cols});
    };
    const auto q_a_view = matrix(q_a, 24, 64), q_b_view = matrix(q_b, 96, 24);
    const auto kv_a_view = matrix(kv_a, 24, 64), kv_b_view = matrix(kv_b, 128, 16);
    const auto layer = larql::absorb(larql::mla_factors<float>{.q_a = q_a_view,
                                                               .q_a_norm = std::vector<float>(24, 2.0F),
                                                               .q_b = q_b_view,
                                                               .kv_a = kv_a_view,
                                                               .kv_a_norm = std::vector<float>(16, 2.0F),
                                                               .kv_b = kv_b_view},
                                     geometry);
    std::printf("Q [%zu, %zu], K [%zu, %zu], V [%zu, %zu], Q[0, 0] = %g\n", layer.q.shape(0), layer.q.shape(1),
                layer.k.shape(0), layer.k.shape(1), layer.v.shape(0), layer.v.shape(1),
                static_cast<double>(layer.q(0, 0)));
}
