// SPDX-License-Identifier: Apache-2.0
//
// Families of plain attention: each against what transformers computed, from its own files and from GGUF, in one pass
// and token by token; and the rules that their rows name.
#include <larql/checkpoint.hpp>

#include <nlohmann/json.hpp>
#include <support/gguf_builder.hpp>
#include <support/reference_case.hpp>
#include <support/tiny_model.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace {

using larql::attention_form;
using larql::checkpoint;
using larql::errc;
using larql::model_config;
using larql::parse_model_config;
using larql::testing::worst_error;
using nlohmann::json;

/// A tiny configuration of a model type, with what a test states beside.
json config_of(const std::string& model_type, const json& more = json::object()) {
    json config = larql::testing::tiny_llama_config(4);
    config.erase("architectures");
    config["model_type"] = model_type;
    config.update(more);
    return config;
}

std::vector<std::size_t> windows_of(const json& config, const larql::config_options& options = {}) {
    std::vector<std::size_t> windows;
    for (const larql::attention_spec& block : parse_model_config(config, {}, options).blocks)
        windows.push_back(block.sliding_window);
    return windows;
}

constexpr larql::model_family from_block[] = {{.name = "from_block",
                                               .model_types = {"from_block"},
                                               .classes = {"FromBlock"},
                                               .gguf_architecture = "from_block",
                                               .windows = larql::window_rule::from_block,
                                               .window_by_default = false,
                                               .default_rope_theta = 10000.0,
                                               .default_sliding_window = 4096}};

struct reference_case {
    std::string name;  // of the folder in tests/data/hf
    bool gguf;         // there is a GGUF of it, too, which is right without a caller's configuration
};

constexpr larql::model_family wide_heads[] = {
    {.name = "wide_heads", .model_types = {"wide_heads"}, .default_rope_theta = 10000.0, .default_head_dim = 128}};

constexpr larql::model_family scaled[] = {
    {.name = "scaled", .model_types = {"scaled"}, .scale = larql::scale_rule::stated, .default_rope_theta = 10000.0}};

}  // namespace

TEST_CASE("families: each computes what transformers computed, in one pass and token by token") {
    const std::string data = LARQL_TEST_DATA;
    const reference_case cases[] = {
        {"qwen2", true},
        {"qwen2_window", false},
        {"qwen3", true},
        {"granite", false},
    };
    for (const auto& [name, gguf] : cases) {
        CAPTURE(name);
        CHECK(worst_error(checkpoint::open(data + "/hf/" + name), name) <= 1e-5);
        if (gguf) CHECK(worst_error(checkpoint::open(data + "/gguf/" + name + "-bf16.gguf"), name) <= 2e-5);
    }
}

TEST_CASE("families: qwen2 has biases of q, k and v whatever its configuration says, and a window only if it says so") {
    const model_config plain =
        parse_model_config(config_of("qwen2", {{"sliding_window", 7}, {"max_window_layers", 1}}));
    CHECK(plain.blocks[3].sliding_window == 0);
    CHECK(plain.blocks[3].biases ==
          larql::role_set{larql::tensor_role::q, larql::tensor_role::k, larql::tensor_role::v});
    CHECK(windows_of(config_of("qwen2", {{"use_sliding_window", true}, {"num_hidden_layers", 30}})) == [] {
        std::vector<std::size_t> w(30);
        w[28] = w[29] = 4096;
        return w;
    }());
}

TEST_CASE("families: windows from a block on, if the configuration turns them on") {
    const auto windows = [](const json& more) {
        return windows_of(config_of("from_block", more), {.families = from_block});
    };
    const auto problem = [&](const json& more) { return larql::testing::error_of([&] { windows(more); }); };
    using list = std::vector<std::size_t>;
    const json two{{"use_sliding_window", true}, {"sliding_window", 7}, {"max_window_layers", 2}};
    CHECK(windows(two) == list{0, 0, 7, 7});
    CHECK(windows({{"sliding_window", 7}, {"max_window_layers", 2}}) ==
          list{0, 0, 0, 0});  // absent: the family's default
    CHECK(windows({{"use_sliding_window", true}, {"max_window_layers", 3}}) == list{0, 0, 0, 4096});
    CHECK(windows({{"use_sliding_window", true}, {"sliding_window", nullptr}}) == list{0, 0, 0, 0});
    CHECK(windows({{"use_sliding_window", true}, {"sliding_window", 7}, {"max_window_layers", 28}}) ==
          list{0, 0, 0, 0});
    LARQL_CHECK_ERROR_TEXT(problem({{"use_sliding_window", true}, {"sliding_window", 7}}), errc::missing_key,
                           "max_window_layers: required and absent");
    // Stated layer types go before the count.
    json typed = two;
    typed["layer_types"] = {"sliding_attention", "full_attention", "sliding_attention", "full_attention"};
    CHECK(windows(typed) == list{7, 0, 7, 0});
    typed["use_sliding_window"] = false;
    LARQL_CHECK_ERROR_TEXT(problem(typed), errc::missing_key, "sliding_window: layer_types calls block 0");
    // transformers' class for this rule has one rope for all layers.
    LARQL_CHECK_ERROR_TEXT(problem({{"rope_parameters", {{"full_attention", {{"rope_theta", 1e4}}}}}}),
                           errc::not_understood, "differs by layer type");
    // GGUF has no key that says from which block on.
    using larql::testing::gguf_builder;
    using larql::testing::le;
    gguf_builder file;
    file.kv_string("general.architecture", "from_block");
    const std::pair<const char*, unsigned> sizes[] = {{"block_count", 4},
                                                      {"context_length", 64},
                                                      {"embedding_length", 24},
                                                      {"attention.head_count", 4},
                                                      {"attention.sliding_window", 7}};
    for (const auto& [key, value] : sizes) file.kv(std::string("from_block.") + key, gguf_builder::u32, le(value));
    file.kv("from_block.attention.layer_norm_rms_epsilon", gguf_builder::f32, le(1e-5F));
    const larql::testing::temporary_folder folder;
    const auto path = larql::testing::write_file(folder / "m.gguf", file.build());
    LARQL_CHECK_ERROR(larql::read_model_config(larql::gguf_file::open(path), {.families = from_block}),
                      errc::not_understood, "from_block.attention.sliding_window is stated, and no key says");
}

TEST_CASE("families: an absent head_dim is the family's, or else a share of the width") {
    json config = config_of("wide_heads");
    const auto head_dim = [](const json& c) {
        return parse_model_config(c, {}, {.families = wide_heads}).blocks[0].geometry.v_head_dim;
    };
    CHECK(head_dim(config) == 8);
    config.erase("head_dim");
    CHECK(head_dim(config) == 128);
    config["model_type"] = "llama";
    CHECK(head_dim(config) == 6);
}

TEST_CASE("families: a stated scale takes the place of the usual one, and must be stated") {
    const auto scale = [](const json& more) {
        return parse_model_config(config_of("scaled", more), {}, {.families = scaled}).blocks[0].scale;
    };
    CHECK(scale({{"attention_multiplier", 0.11}}) == 0.11);
    LARQL_CHECK_ERROR(scale(json::object()), errc::missing_key, "attention_multiplier: required and absent");
    LARQL_CHECK_ERROR(scale({{"attention_multiplier", 0}}), errc::bad_value,
                      "attention_multiplier: expected a number from");
    LARQL_CHECK_ERROR(parse_model_config(config_of("llama", {{"attention_multiplier", 0.11}})), errc::not_understood,
                      "attention_multiplier is 0.11, which \"llama\" does not have");
}

TEST_CASE(
    "families: granite's GGUF is refused where its metadata contradict its tensors, and right with what they lost") {
    // llama.cpp's converter warns of a head_dim other than hidden_size / num_attention_heads, and drops it.
    const std::string data = LARQL_TEST_DATA, path = data + "/gguf/granite-bf16.gguf";
    LARQL_CHECK_ERROR(checkpoint::open(path).attention(0, attention_form::factored), errc::shape_mismatch,
                      "blk.0.attn_q.weight: the configuration implies [64, 64], the tensor has [128, 64]");
    const checkpoint model = checkpoint::open(path, {.config = nlohmann::json{{"head_dim", 32}}});
    CHECK(model.spec(0).scale == 0.11);
    CHECK(worst_error(model, "granite") <= 2e-5);
}

TEST_CASE("families: qwen3 norms query and key heads with the configuration's eps") {
    const larql::attention_spec block = parse_model_config(config_of("qwen3", {{"rms_norm_eps", 0.25}})).blocks[0];
    for (const larql::norm_spec& norm : {block.q_norm, block.k_norm}) {
        CHECK(norm.kind == larql::norm_kind::rms);
        CHECK(norm.per_head);
        CHECK(norm.eps == 0.25);
    }
}
