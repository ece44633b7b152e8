// SPDX-License-Identifier: Apache-2.0
#include <larql/attention_cost.hpp>

#include <doctest/doctest.h>

TEST_CASE("attention_cost: DeepSeek-V3's block in the three forms, counted by hand") {
    const larql::mla_geometry v3{.hidden_size = 7168,
                                 .num_heads = 128,
                                 .q_lora_rank = 1536,
                                 .kv_lora_rank = 512,
                                 .qk_nope_head_dim = 128,
                                 .qk_rope_head_dim = 64,
                                 .v_head_dim = 128};
    const auto factored = larql::cost_of(v3, larql::attention_form::factored);
    const auto dense = larql::cost_of(v3, larql::attention_form::dense);
    const auto latent = larql::cost_of(v3, larql::attention_form::latent);
    // q_a + q_b + kv_a + kv_b + o
    CHECK(factored.weights == 1536ULL * 7168 + 24576ULL * 1536 + 576ULL * 7168 + 32768ULL * 512 + 7168ULL * 16384);
    CHECK(latent.weights == factored.weights);
    // q, k: 24576 rows each; v: 16384; latent rows 1536 + 512; o
    CHECK(dense.weights == (24576ULL * 2 + 16384 + 2048 + 16384) * 7168);
    CHECK(factored.cached_per_token == 40960);
    CHECK(dense.cached_per_token == 40960);
    CHECK(latent.cached_per_token == 576);
    CHECK(latent.flops_per_token == factored.flops_per_token);
    CHECK(factored.flops_per_cached_token == 2 * 128 * (192 + 128));
    CHECK(latent.flops_per_cached_token == 2 * 128 * (576 + 512));
}

TEST_CASE("attention_cost: plain grouped attention") {
    const larql::mla_geometry llama{.hidden_size = 64,
                                    .num_heads = 4,
                                    .num_kv_heads = 2,
                                    .qk_nope_head_dim = 0,
                                    .qk_rope_head_dim = 32,
                                    .v_head_dim = 32};
    const auto cost = larql::cost_of(llama, larql::attention_form::factored);
    CHECK(cost.weights == (128 + 64 + 64 + 128) * 64);
    CHECK(cost.cached_per_token == 128);
    CHECK(cost.flops_per_token == 2 * cost.weights);
}
