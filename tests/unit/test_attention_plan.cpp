// SPDX-License-Identifier: Apache-2.0
#include <larql/attention_cost.hpp>
#include <larql/attention_plan.hpp>
#include <larql/detail/planned_costs.hpp>
#include <support/files.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace {

using larql::attention_form;
using larql::attention_kind;
using larql::attention_plan;
using larql::attention_spec;
using larql::checkpoint;
using larql::dtype;
using larql::errc;
using larql::form_plan;
using larql::planned_block;

const std::string data = LARQL_TEST_DATA;

const larql::mla_geometry v3{.hidden_size = 7168,
                             .num_heads = 128,
                             .q_lora_rank = 1536,
                             .kv_lora_rank = 512,
                             .qk_nope_head_dim = 128,
                             .qk_rope_head_dim = 64,
                             .v_head_dim = 128};

form_plan plan(const attention_spec& spec, attention_form form, std::uint64_t context, std::uint64_t weight_bytes = 0) {
    const planned_block block{&spec, weight_bytes};
    return larql::plan_form({&block, 1}, form, context);
}

const form_plan& of(const std::vector<form_plan>& plans, attention_form form) {
    return *std::ranges::find(plans, form, &form_plan::form);
}

/// The plan's keys, counted one by one.
std::uint64_t count_keys(const attention_spec& spec, std::uint64_t tokens, bool last_only) {
    std::uint64_t sum = 0;
    for (std::uint64_t p = 0; p < tokens; ++p) {
        std::uint64_t seen = 0;
        for (std::uint64_t j = 0; j <= p; ++j)
            seen += (spec.sliding_window == 0 || p - j < spec.sliding_window) &&
                            (spec.chunk == 0 || p / spec.chunk == j / spec.chunk)
                        ? 1
                        : 0;
        if (spec.indexer.any()) seen = std::min<std::uint64_t>(seen, spec.indexer.top_k + spec.indexer.pool - 1);
        sum = last_only ? seen : sum + seen;
    }
    return sum;
}

}  // namespace

TEST_CASE("attention_plan: DeepSeek-V3's block at 4096 tokens, counted by hand") {
    const attention_spec spec{.geometry = v3};
    // q_a + q_b + kv_a + kv_b + o = 11,010,048 + 37,748,736 + 4,128,768 + 16,777,216 + 117,440,512
    constexpr std::uint64_t factored_weights = 187'105'280;
    // q 176,160,768 + k the same + v 117,440,512 + latent rows 14,680,064 + o
    constexpr std::uint64_t dense_weights = 601'882'624;
    const form_plan factored = plan(spec, attention_form::factored, 4096, 2 * factored_weights);
    const form_plan dense = plan(spec, attention_form::dense, 4096, 2 * dense_weights);
    const form_plan latent = plan(spec, attention_form::latent, 4096, 2 * factored_weights);
    CHECK(factored.cache_f16_bytes == 335'544'320);  // 40,960 numbers * 4096 * 2
    CHECK(dense.cache_f16_bytes == 335'544'320);
    CHECK(latent.cache_f16_bytes == 4'718'592);  // 576 * 4096 * 2
    CHECK(latent.cache_f32_bytes == 9'437'184);
    CHECK(latent.cache_seen_bytes == 4'718'592);
    // Projections 2 * weights; attention 81,920 a key expanded, 278,528 latent.
    CHECK(factored.decode_flops == 374'210'560 + 335'544'320ULL);
    CHECK(dense.decode_flops == 1'203'765'248 + 335'544'320ULL);
    CHECK(latent.decode_flops == 374'210'560 + 1'140'850'688ULL);
    CHECK(factored.decode_bytes == 374'210'560 + 335'544'320ULL);
    CHECK(dense.decode_bytes == 1'203'765'248 + 335'544'320ULL);
    CHECK(latent.decode_bytes == 374'210'560 + 4'718'592ULL);
    // The mean of 1 to 4096 keys is 2048.5.
    CHECK(factored.prefill_flops_per_token == 374'210'560 + 167'813'120ULL);
    CHECK(latent.prefill_flops_per_token == 374'210'560 + 570'564'608ULL);
    // Weights once for 4096 tokens, 81,920 bytes of keys and values twice.
    CHECK(factored.prefill_bytes_per_token == 91'360 + 163'840);
    CHECK(latent.prefill_bytes_per_token == 91'360 + 2'304);
}

TEST_CASE("attention_plan: windows, chunks and selections bound the keys that are read") {
    attention_spec window{
        .kind = attention_kind::gqa,
        .geometry = {.hidden_size = 64, .num_heads = 4, .num_kv_heads = 2, .qk_rope_head_dim = 32, .v_head_dim = 32}};
    attention_spec chunk = window, both = window, sparse{.geometry = v3}, pooled{.geometry = v3}, all = window;
    window.sliding_window = 7;
    chunk.chunk = 10;
    both.chunk = 10;
    both.sliding_window = 4;
    sparse.indexer = {.top_k = 8, .shared = true};
    pooled.indexer = {.top_k = 8, .shared = true, .heads = 2, .head_dim = 16, .pool = 3};
    for (const attention_spec* spec : {&all, &window, &chunk, &both, &sparse, &pooled})
        for (const std::uint64_t tokens : {1, 2, 6, 7, 8, 10, 11, 39, 40, 41}) {
            CAPTURE(tokens);
            const larql::attention_cost cost = larql::cost_of(*spec, attention_form::factored);
            const form_plan made = plan(*spec, attention_form::factored, tokens);
            const std::uint64_t last = count_keys(*spec, tokens, true), sum = count_keys(*spec, tokens, false);
            CHECK(made.decode_flops == cost.flops_per_token + last * cost.flops_per_cached_token);
            CHECK(made.decode_bytes == 2 * last * cost.cached_per_token);
            CHECK(made.prefill_flops_per_token ==
                  (cost.flops_per_token * tokens + sum * cost.flops_per_cached_token) / tokens);
            CHECK(made.cache_f16_bytes == 2 * tokens * cost.cached_per_token);
        }
    CHECK(plan(window, attention_form::factored, 100).cache_seen_bytes == 2 * 7 * 128);
    CHECK(plan(sparse, attention_form::factored, 100).cache_seen_bytes == 2 * 100 * 40960);  // any may be chosen again
}

TEST_CASE("attention_plan: an indexer reads every key of its own, once there is something to choose") {
    attention_spec spec{.geometry = v3};
    spec.indexer = {.top_k = 2048, .heads = 64, .head_dim = 128};
    const larql::attention_cost cost = larql::cost_of(spec, attention_form::latent);
    const form_plan few = plan(spec, attention_form::latent, 2048), many = plan(spec, attention_form::latent, 4096);
    CHECK(few.decode_bytes == 2048ULL * 576 * 2);
    CHECK(few.decode_flops == cost.flops_per_token + 2048ULL * 278'528);
    CHECK(many.decode_bytes == 2048ULL * 576 * 2 + 4096ULL * 128 * 2);
    // A score: 64 heads of 128 multiply-adds, and one with the head's weight.
    CHECK(many.decode_flops == cost.flops_per_token + 2048ULL * 278'528 + 4096ULL * 2 * 64 * 129);
    CHECK(many.cache_f16_bytes == 4096ULL * (576 + 128) * 2);
}

TEST_CASE("attention_plan: entries of compressed attention, counted one by one") {
    attention_spec spec{
        .kind = attention_kind::compressed,
        .geometry = {.hidden_size = 64,
                     .num_heads = 4,
                     .num_kv_heads = 1,
                     .q_lora_rank = 16,
                     .qk_nope_head_dim = 24,
                     .qk_rope_head_dim = 8,
                     .v_head_dim = 32},
        .sliding_window = 5,
        .compression = {.ratio = 4, .overlapping = true, .index_heads = 3, .index_head_dim = 10, .index_top_k = 2}};
    const larql::attention_cost cost = larql::cost_of(spec, attention_form::factored);
    for (const bool indexed : {true, false}) {
        spec.compression.index_heads = indexed ? 3 : 0;
        const larql::attention_cost block = larql::cost_of(spec, attention_form::factored);
        for (const std::uint64_t tokens : {1, 3, 4, 7, 8, 11, 12, 13, 50}) {
            CAPTURE(tokens);
            std::uint64_t seen = 0, scored = 0, last = 0, last_scored = 0;
            for (std::uint64_t t = 1; t <= tokens; ++t) {
                last_scored = t / 4;
                last = std::min<std::uint64_t>(t, 5) + (indexed ? std::min<std::uint64_t>(t / 4, 2) : t / 4);
                seen += last;
                scored += last_scored;
            }
            const std::uint64_t score = indexed ? 2 * 3 * 11 : 0;
            const form_plan made = plan(spec, attention_form::factored, tokens);
            CHECK(made.decode_flops ==
                  block.flops_per_token + last * block.flops_per_cached_token + last_scored * score);
            CHECK(made.prefill_flops_per_token ==
                  block.flops_per_token + seen * block.flops_per_cached_token / tokens + scored * score / tokens);
            CHECK(made.decode_bytes == 2 * (last * 32 + (indexed ? last_scored * 10 : 0)));
            CHECK(made.cache_f16_bytes == larql::cache_bytes(spec, attention_form::factored, tokens, 2, 0));
            CHECK(made.cache_f32_bytes == larql::cache_bytes(spec, attention_form::factored, tokens, 4, 0));
        }
    }
    CHECK(cost.weights != 0);
}

TEST_CASE("attention_plan: what does not fit 64 bits is an error, never a wrong number") {
    attention_spec huge{.geometry = {.hidden_size = 1 << 20,
                                     .num_heads = 1 << 20,
                                     .q_lora_rank = 1 << 20,
                                     .kv_lora_rank = 1 << 20,
                                     .qk_nope_head_dim = 1 << 20,
                                     .qk_rope_head_dim = 1 << 20,
                                     .v_head_dim = 1 << 20}};
    CHECK(larql::cost_of(huge, attention_form::dense).cached_per_token == 3ULL << 40);
    CHECK(larql::cache_bytes(huge, attention_form::dense, std::size_t{1} << 40, 2) == UINT64_MAX);
    LARQL_CHECK_ERROR((void)plan(huge, attention_form::dense, std::uint64_t{1} << 32), errc::limit_exceeded,
                      "does not fit 64 bits");
    const attention_spec usual{.geometry = v3};
    LARQL_CHECK_ERROR((void)plan(usual, attention_form::dense, 0), errc::bad_value, "got 0");
    LARQL_CHECK_ERROR((void)plan(usual, attention_form::dense, (std::uint64_t{1} << 32) + 1), errc::bad_value,
                      "tokens");
    CHECK(plan(usual, attention_form::latent, std::uint64_t{1} << 32).cache_f16_bytes == (1152ULL << 32));
    const std::vector<planned_block> many(9000, planned_block{&usual, 1ULL << 52});
    LARQL_CHECK_ERROR((void)larql::plan_form(many, attention_form::latent, 1), errc::limit_exceeded, "weight bytes");
}

TEST_CASE("attention_plan: saturating counts") {
    using larql::detail::saturating;
    constexpr std::uint64_t most = UINT64_MAX;
    CHECK((saturating(1ULL << 32) * (1ULL << 31)).value() == 1ULL << 63);
    CHECK((saturating(1ULL << 32) * (1ULL << 32)).value() == most);
    CHECK((saturating(most - 1) + 1).value() == most);
    CHECK((saturating(most) / 2).value() == most);
    CHECK((saturating(0) * most).value() == 0);
    CHECK(larql::detail::sum_up_to(1ULL << 33, 0).is_exact() == false);
    CHECK(larql::detail::sum_up_to(100, 0).value() == 5050);
    CHECK(larql::detail::sum_up_to(5, 3).value() == 1 + 2 + 3 + 3 + 3);
    CHECK(larql::detail::sum_up_to(0, 3).value() == 0);
}

TEST_CASE("attention_plan: weights are counted as stored, and what would be made in its own type") {
    for (const std::string source : {"hf/deepseek_v3", "gguf/deepseek_v3-bf16.gguf", "gguf/deepseek_v3-old-f16.gguf"}) {
        CAPTURE(source);
        const attention_plan model(checkpoint::open(data + "/" + source), dtype::f32);
        const auto plans = model.at(100);
        REQUIRE(plans.size() == 3);
        // Two blocks: matrices of 2 bytes, and gains of 48 + 32 numbers of 2 or, in GGUF, 4.
        const std::uint64_t gain = source.starts_with("hf") ? 2 : 4;
        const std::uint64_t matrices = 48 * 64 + 160 * 48 + 48 * 64 + 224 * 32 + 64 * 128;
        CHECK(of(plans, attention_form::factored).weight_bytes == 2 * (2 * matrices + gain * 80));
        CHECK(of(plans, attention_form::latent).weight_bytes == 2 * (2 * matrices + gain * 80));
        const std::uint64_t made = (160 + 160 + 128) * 64, kept = (48 + 32) * 64 + 64 * 128;
        CHECK(of(plans, attention_form::dense).weight_bytes == 2 * (4 * made + 2 * kept));
    }
    const checkpoint fp8 = checkpoint::open(data + "/hf/deepseek_v3_fp8");
    std::uint64_t numbers = 0;
    for (const attention_spec& spec : fp8.config().blocks)
        numbers += larql::cost_of(spec, attention_form::factored).weights;
    const std::uint64_t bytes = of(attention_plan(fp8).at(1), attention_form::factored).weight_bytes;
    CHECK(bytes > numbers);  // with their scales and gains
    CHECK(bytes < numbers + numbers / 8);
    // Fused projections are counted once.
    const checkpoint phi = checkpoint::open(data + "/hf/phi3");
    std::uint64_t stored = 0;
    for (const larql::tensor_info& info : phi.tensors())
        if (info.name.find("self_attn") != std::string::npos) stored += info.size_bytes;
    CHECK(attention_plan(phi).at(10).front().weight_bytes == stored);
    CHECK(attention_plan(phi).at(10).size() == 1);
}

TEST_CASE("attention_plan: where each form is cheapest") {
    const larql::testing::temporary_folder folder;
    larql::testing::write_file(folder / "config.json", R"({"architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 2, "num_attention_heads": 128,
        "num_key_value_heads": 128, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64, "v_head_dim": 128, "rms_norm_eps": 1e-6, "rope_theta": 10000,
        "max_position_embeddings": 4096})");
    const attention_plan model(checkpoint::open(folder.path()));
    const auto bytes = model.cheapest(&form_plan::decode_bytes);
    REQUIRE(bytes.size() == 1);
    CHECK(bytes[0].form == attention_form::latent);
    // A latent token costs 278,528 - 81,920 more operations a key, and nothing less: factored, always.
    const auto flops = model.cheapest(&form_plan::decode_flops);
    REQUIRE(flops.size() == 1);
    CHECK(flops[0].form == attention_form::factored);
    const auto plans = model.at(4096);
    CHECK(of(plans, attention_form::latent).decode_flops == 2 * (374'210'560 + 1'140'850'688ULL));
    // Dense weights of 4 bytes against 2: latent decode reads less at any length; and of a plan without cache the
    // change is where 2 * 576 bytes a token have made up for it.
    CHECK(model.first_where_cheaper(attention_form::latent, attention_form::dense, &form_plan::decode_bytes) == 1);
    // 374,210,560 + 278,528 n > 1,203,765,248 + 81,920 n from n = 4220 on.
    CHECK(model.first_where_cheaper(attention_form::dense, attention_form::latent, &form_plan::decode_flops) == 4220);
    CHECK(!model.first_where_cheaper(attention_form::dense, attention_form::factored, &form_plan::decode_flops));
}
