// SPDX-License-Identifier: Apache-2.0
//
// Families of latent attention: each against what transformers computed, in every form, in one pass and token by token;
// and the rules that their rows name.
#include <larql/checkpoint.hpp>
#include <larql/convert.hpp>
#include <larql/detail/model/families.hpp>

#include <nlohmann/json.hpp>
#include <support/files.hpp>
#include <support/gguf_builder.hpp>
#include <support/tiny_model.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace {

using larql::attention_form;
using larql::attention_spec;
using larql::checkpoint;
using larql::errc;
using larql::parse_model_config;
using larql::testing::relative_error;
using nlohmann::json;

const std::string cases = std::string(LARQL_TEST_DATA) + "/hf/";

// tests/data/README.md says how they were made.
constexpr const char* families[] = {"glm4_moe_lite_b",   "youtu_b",         "axk1_b",        "mistral4_b",
                                    "minicpm3_b",        "longcat_flash_b", "kimi_linear_b", "bailing_hybrid_b",
                                    "mistral_large_3_b", "dots3_indexed_b", "dots3_note_b",  "axk2_b"};

json config_of(const std::string& name) { return larql::read_config_json(cases + name + "/config.json"); }

/// The block's output, the tokens given one by one.
larql::tensor<float, 2> stepwise(const larql::attention_layer<float>& layer, const larql::tensor<float, 2>& hidden) {
    auto cache = layer.make_cache(hidden.shape(0));
    const std::size_t width = hidden.shape(1);
    auto out = larql::tensor<float, 2>::from_shape({hidden.shape(0), width});
    for (std::size_t t = 0; t < hidden.shape(0); ++t) {
        auto token = larql::tensor<float, 2>::from_shape({1, width});
        std::copy_n(hidden.data() + t * width, width, token.data());
        const auto result = layer.forward(token, cache);
        std::copy_n(result.out.data(), width, out.data() + t * width);
    }
    return out;
}

/// The worst error of a block in a form.
double worst_error(const checkpoint& model, const larql::safetensors_file& reference, std::size_t block,
                   attention_form form) {
    const std::string at = "layer" + std::to_string(block) + ".";
    const larql::tensor<float, 2> hidden = reference.read<2>(at + "hidden"), out = reference.read<2>(at + "out");
    const auto layer = model.attention(block, form);
    const auto whole = layer.forward(hidden);
    const double error =
        std::max(relative_error(whole.context, reference.read<2>(at + "context")), relative_error(whole.out, out));
    // A cache keeps keys as they were rotated, and so with the frequencies of a shorter sequence: as in transformers.
    if (larql::depends_on_length(layer.spec().rope)) return error;
    return std::max(error, relative_error(stepwise(layer, hidden), out));
}

}  // namespace

TEST_CASE("latent attention: every family computes what transformers computed, in every form") {
    for (const std::string name : families) {
        CAPTURE(name);
        const checkpoint model = checkpoint::open(cases + name);
        const auto reference = larql::safetensors_file::open(cases + name + "/reference.safetensors");
        REQUIRE(model.attention_blocks() >= 2);
        REQUIRE(reference.find_tensor("layer" + std::to_string(model.attention_blocks()) + ".out") == nullptr);
        for (std::size_t block = 0; block < model.attention_blocks(); ++block)
            for (const attention_form form :
                 {attention_form::factored, attention_form::dense, attention_form::latent}) {
                CAPTURE(block);
                CAPTURE(larql::to_string(form));
                CHECK(worst_error(model, reference, block, form) < 1e-5);
            }
    }
}

TEST_CASE("latent attention: what larql writes of every family computes the same") {
    for (const std::string name : families)
        for (const attention_form form : {attention_form::factored, attention_form::dense, attention_form::latent}) {
            CAPTURE(name);
            CAPTURE(larql::to_string(form));
            const larql::testing::temporary_folder folder;
            larql::convert_to_safetensors(checkpoint::open(cases + name), folder / "out",
                                          {.form = form, .type = larql::dtype::f32});
            const checkpoint made = checkpoint::open(folder / "out");
            const auto reference = larql::safetensors_file::open(cases + name + "/reference.safetensors");
            for (std::size_t block = 0; block < made.attention_blocks(); ++block)
                CHECK(worst_error(made, reference, block, form) < 1e-5);
        }
}

TEST_CASE("dots3-note: blocks with a window have sizes of their own, by either kind of keys") {
    json published = {{"model_type", "dots3_note"},
                      {"architectures", {"Dots3NoteForCausalLM"}},
                      {"num_hidden_layers", 6},
                      {"num_attention_heads", 3},
                      {"num_key_value_heads", 3},
                      {"hidden_size", 36},
                      {"q_lora_rank", 14},
                      {"kv_lora_rank", 12},
                      {"qk_nope_head_dim", 8},
                      {"qk_rope_head_dim", 6},
                      {"v_head_dim", 10},
                      {"head_dim", 20},
                      {"rms_norm_eps", 1e-2},
                      {"attention_bias", true},
                      {"max_position_embeddings", 256},
                      {"rope_theta", 800.0},
                      {"index_topk", 8},
                      {"index_n_heads", 8},
                      {"index_head_dim", 10},
                      {"indexer_rope_interleave", true},
                      {"apply_mla_qkv_lora_rescale", true},
                      {"attention_gate_type", "headwise"},
                      {"swa_attention_gate_type", "headwise"},
                      {"sliding_window_size", 9},
                      {"swa_rope_theta", 30.0},
                      {"swa_num_attention_heads", 2},
                      {"swa_num_key_value_heads", 2},
                      {"swa_q_lora_rank", 10},
                      {"swa_kv_lora_rank", 16},
                      {"swa_head_dim", 16},
                      {"swa_qk_nope_head_dim", 12},
                      {"swa_v_head_dim", 6}};
    const json canonical = config_of("dots3_note_b");
    const auto blocks = [](const json& config) { return parse_model_config(config).blocks; };
    const auto same = [&](const json& config) {
        const std::vector<attention_spec> mine = blocks(config), theirs = blocks(canonical);
        REQUIRE(mine.size() == theirs.size());
        for (std::size_t b = 0; b < mine.size(); ++b) {
            CAPTURE(b);
            const auto facts = [](const attention_spec& s) {
                return std::vector<double>{static_cast<double>(s.geometry.num_heads),
                                           static_cast<double>(s.geometry.q_lora_rank),
                                           static_cast<double>(s.geometry.kv_lora_rank),
                                           static_cast<double>(s.geometry.qk_nope_head_dim),
                                           static_cast<double>(s.geometry.qk_rope_head_dim),
                                           static_cast<double>(s.geometry.v_head_dim),
                                           static_cast<double>(s.sliding_window),
                                           static_cast<double>(s.indexer.top_k),
                                           s.rope.theta,
                                           s.scale,
                                           s.q_latent_scale,
                                           s.kv_latent_scale};
            };
            CHECK(facts(mine[b]) == facts(theirs[b]));
        }
    };
    same(published);
    CHECK(blocks(published)[3].geometry.num_heads == 2);
    CHECK(blocks(published)[5].geometry.num_heads == 3);
    json config = published;
    config["layer_types"] = {"full_attention",    "full_attention",    "sliding_attention",
                             "sliding_attention", "sliding_attention", "full_attention"};
    same(config);
    config["use_dsa"] = true;
    same(config);
    config["use_dsa"] = false;
    CHECK_FALSE(blocks(config)[0].indexer.any());
    config["layer_types"][0] = "indexed_attention";
    CHECK_FALSE(blocks(config)[0].indexer.any());
    config = canonical;
    config.erase("layer_types");
    same(config);
    config["per_layer_config"] = json::object();  // then blocks with a window are as large as the others
    CHECK(blocks(config)[3].geometry.num_heads == 3);
    config = published;
    for (const char* key : {"swa_num_attention_heads", "swa_q_lora_rank", "swa_kv_lora_rank", "swa_head_dim",
                            "swa_qk_nope_head_dim", "swa_v_head_dim", "sliding_window_size", "swa_rope_theta"})
        config.erase(key);
    const attention_spec local = blocks(config)[2];
    CHECK(local.geometry.num_heads == 64);
    CHECK(local.geometry.q_lora_rank == 1024);
    CHECK(local.geometry.kv_lora_rank == 1024);
    CHECK(local.geometry.qk_nope_head_dim == 192);
    CHECK(local.geometry.qk_rope_head_dim == 64);
    CHECK(local.geometry.v_head_dim == 128);
    CHECK(local.sliding_window == 512);
    CHECK(local.rope.theta == 5e4);
    config.erase("rope_theta");
    CHECK(blocks(config)[0].rope.theta == 8e7);
    // One dictionary of rope scaling is for all blocks.
    config = published;
    config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 4.0}};
    CHECK(blocks(config)[2].rope.factor == 4.0);
    CHECK(blocks(config)[2].rope.theta == 800.0);
    config["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 4.0}, {"mscale_all_dim", 1.0}, {"mscale", 1.0}};
    CHECK(blocks(config)[0].scale == doctest::Approx(1.0 / std::sqrt(14.0)));  // without YaRN's m
    config["rope_scaling"] = {{"indexed_attention", {{"rope_type", "linear"}, {"factor", 4.0}}}};
    LARQL_CHECK_ERROR(blocks(config), errc::not_understood, "have none for \"sliding_attention\"");
}

TEST_CASE("dots3-note: what contradicts itself or is not known is refused") {
    const json good = config_of("dots3_note_b");
    const auto with = [&](const char* key, const json& value) {
        json config = good;
        config[key] = value;
        return config;
    };
    json config = good;
    config.erase("per_layer_config");
    config["swa_head_dim"] = 20;
    config["swa_qk_nope_head_dim"] = 12;
    config["swa_qk_rope_head_dim"] = 4;
    LARQL_CHECK_ERROR(parse_model_config(config), errc::bad_value,
                      "swa_head_dim: expected the sum of 12 and 4, got 20");
    config["swa_v_head_dim"] = 0;
    LARQL_CHECK_ERROR(parse_model_config(config), errc::bad_value, "swa_v_head_dim: expected 1 to 1048576, got 0");
    LARQL_CHECK_ERROR(parse_model_config(with("per_layer_config", 3)), errc::wrong_type, "expected an object");
    for (const json& layers : {json{{"6", json::object()}}, json{{"x", json::object()}}, json{{"1", 2}},
                               json{{"1", {{"skip", {"attention"}}}}}})
        LARQL_CHECK_ERROR(parse_model_config(with("per_layer_config", layers)), errc::bad_value,
                          "expected layers below 6");
    LARQL_CHECK_ERROR(parse_model_config(with("per_layer_config", {{"2", {{"sliding_window", 4}}}})),
                      errc::not_understood, "per_layer_config.2.sliding_window (4) is unknown");
    LARQL_CHECK_ERROR(parse_model_config(with("attention_gate_type", "elementwise")), errc::not_understood,
                      "attention_gate_type is \"elementwise\", and \"dots3_note\" has headwise");
    LARQL_CHECK_ERROR(parse_model_config(with("k_rope_only_layernorm", false)), errc::not_understood,
                      "k_rope_only_layernorm is false");
    LARQL_CHECK_ERROR(parse_model_config(with("apply_mla_qkv_lora_rescale", false)), errc::not_understood,
                      "always scales");
    json other = config_of("youtu_b");
    other["swa_v_head_dim"] = 6;
    LARQL_CHECK_ERROR(parse_model_config(other), errc::not_understood, "swa_v_head_dim (6) is unknown");
}

TEST_CASE("layers of linear attention have no block, and files keep their numbers") {
    const checkpoint model = checkpoint::open(cases + "kimi_linear_b");  // linear, full, linear, linear, full
    REQUIRE(model.attention_blocks() == 2);
    CHECK(model.config().num_hidden_layers == 5);
    CHECK(model.spec(0).layer == 1);
    CHECK(model.spec(1).layer == 4);
    CHECK(model.tensor_name(larql::tensor_role::kv_b, 1) == "model.layers.4.self_attn.kv_b_proj.weight");
    const auto layers_of = [](const json& config) {
        std::vector<std::size_t> layers;
        for (const attention_spec& spec : parse_model_config(config).blocks) layers.push_back(spec.layer);
        return layers;
    };
    json kimi = config_of("kimi_linear_b");
    kimi.erase("layer_types");
    LARQL_CHECK_ERROR(layers_of(kimi), errc::missing_key, "layer_types: required and absent");
    kimi["linear_attn_config"] = {{"full_attn_layers", {4, 5}}, {"kda_layers", {1, 2, 3}}, {"num_heads", 2}};
    CHECK(layers_of(kimi) == std::vector<std::size_t>{3, 4});
    kimi["linear_attn_config"]["full_attn_layers"] = {4, 6};
    LARQL_CHECK_ERROR(layers_of(kimi), errc::bad_value, "expected numbers from 1 to 5");
    json ling = config_of("bailing_hybrid_b");
    ling.erase("layer_types");
    CHECK(layers_of(ling) == std::vector<std::size_t>{1, 3});
    ling["layer_group_size"] = 4;
    CHECK(layers_of(ling) == std::vector<std::size_t>{3});
    ling.erase("layer_group_size");  // the class default is 6
    ling["num_hidden_layers"] = 12;
    CHECK(layers_of(ling) == std::vector<std::size_t>{5, 11});
    json youtu = config_of("youtu_b");
    youtu["layer_types"] = {"full_attention", "linear_attention"};
    LARQL_CHECK_ERROR(layers_of(youtu), errc::not_understood, "layer_types");
}

TEST_CASE("layers of linear attention in a GGUF file are those without key/value heads") {
    const std::string path = std::string(LARQL_TEST_DATA) + "/gguf/kimi_linear_b-bf16.gguf";
    const checkpoint model = checkpoint::open(path);
    REQUIRE(model.attention_blocks() == 2);
    CHECK(model.config().num_hidden_layers == 5);
    CHECK(model.spec(0).layer == 1);
    CHECK(model.spec(1).layer == 4);
    CHECK(model.spec(0).geometry.pairing == larql::rope_pairing::none);
    const auto reference = larql::safetensors_file::open(cases + "kimi_linear_b/reference.safetensors");
    for (std::size_t block = 0; block < 2; ++block)
        for (const attention_form form : {attention_form::factored, attention_form::dense, attention_form::latent})
            CHECK(worst_error(model, reference, block, form) < 2e-5);
    // Kimi K3's architecture has the gate; a file of any other without heads in some layer is refused.
    using larql::testing::gguf_builder;
    using larql::testing::le;
    const auto metadata = [](const std::string& architecture) {
        gguf_builder b;
        b.kv_string("general.architecture", architecture)
            .kv(architecture + ".attention.layer_norm_rms_epsilon", gguf_builder::f32, le(1e-5F))
            .kv_array(architecture + ".attention.head_count_kv", gguf_builder::i32, 3, le(0) + le(1) + le(0));
        const std::pair<const char*, std::uint32_t> sizes[] = {
            {"block_count", 3},
            {"context_length", 64},
            {"embedding_length", 24},
            {"attention.head_count", 2},
            {"attention.q_lora_rank", 6},
            {"attention.kv_lora_rank", 16},
            {"attention.key_length", 24},
            {"attention.value_length", 16},
            {"attention.key_length_mla", 12},
            {"attention.value_length_mla", 8},
            {"rope.dimension_count", 8},
            {"kda.head_dim", 4},
            {"attn_res.block_size", 2},
        };
        for (const auto& [key, value] : sizes) b.kv(architecture + "." + key, gguf_builder::u32, le(value));
        const larql::testing::temporary_folder folder;
        const auto file = larql::testing::write_file(folder / "m.gguf", b.build());
        return larql::read_model_config(larql::gguf_file::open(file));
    };
    const larql::model_config k3 = metadata("kimi-k3");
    REQUIRE(k3.blocks.size() == 1);
    CHECK(k3.blocks[0].layer == 1);
    CHECK(k3.blocks[0].gate == larql::output_gate::per_element);
    CHECK(k3.blocks[0].geometry.qk_nope_head_dim == 4);
    CHECK(metadata("kimi-linear").blocks.at(0).gate == larql::output_gate::none);
    LARQL_CHECK_ERROR(metadata("deepseek2"), errc::unsupported_architecture,
                      "attention.head_count_kv: differs from layer to layer");
}

TEST_CASE("two attentions in a layer are two blocks") {
    const checkpoint model = checkpoint::open(cases + "longcat_flash_b");
    REQUIRE(model.attention_blocks() == 4);
    CHECK(model.config().num_hidden_layers == 2);
    CHECK(model.spec(3).layer == 1);
    CHECK(model.spec(3).part == 1);
    CHECK(model.tensor_name(larql::tensor_role::q_a, 2) == "model.layers.1.self_attn.0.q_a_proj.weight");
    json config = config_of("longcat_flash_b");
    config.erase("num_layers");
    config["num_hidden_layers"] = 4;  // transformers counts attentions
    CHECK(parse_model_config(config).blocks.size() == 4);
    config["num_hidden_layers"] = 3;
    LARQL_CHECK_ERROR(parse_model_config(config), errc::bad_value, "expected a multiple of 2, got 3");
    config = config_of("longcat_flash_b");
    config["mla_scale_q_lora"] = true;
    CHECK(parse_model_config(config).blocks[0].q_latent_scale == doctest::Approx(std::sqrt(40.0 / 18.0)));
    config["mla_scale_q_lora"] = false;
    LARQL_CHECK_ERROR(parse_model_config(config), errc::not_understood, "\"longcat_flash\" always scales");
    json v3 = config_of("deepseek_v3");
    v3["mla_scale_kv_lora"] = true;
    LARQL_CHECK_ERROR(parse_model_config(v3), errc::not_understood, "mla_scale_kv_lora");
}

TEST_CASE("latent attention: what a row says of absent and of repeated keys") {
    json mistral = config_of("mistral4_b");
    mistral["rope_parameters"]["max_position_embeddings"] = 256;
    CHECK(parse_model_config(mistral).blocks.size() == 2);
    mistral["rope_parameters"]["max_position_embeddings"] = 512;
    LARQL_CHECK_ERROR(parse_model_config(mistral), errc::not_understood, "max_position_embeddings is 512");
    mistral = config_of("mistral4_b");
    mistral["rope_parameters"]["partial_rotary_factor"] = 0.25;
    LARQL_CHECK_ERROR(parse_model_config(mistral), errc::not_understood, "partial_rotary_factor rotates 4 elements");
    mistral = config_of("mistral4_b");
    mistral["rope_parameters"].erase("llama_4_scaling_beta");
    LARQL_CHECK_ERROR(parse_model_config(mistral), errc::missing_key, "llama_4_scaling_beta: required and absent");
    json minicpm = config_of("minicpm3_b");
    minicpm.erase("v_head_dim");
    CHECK(parse_model_config(minicpm).blocks[0].geometry.v_head_dim == 12);  // 36 / 3
    const auto theta_without = [](const std::string& name) {
        json config = config_of(name);
        config.erase("rope_parameters");
        return parse_model_config(config).blocks[0].rope.theta;
    };
    CHECK(theta_without("longcat_flash_b") == 1e7);
    CHECK(theta_without("bailing_hybrid_b") == 6e6);
    CHECK(theta_without("axk1_b") == 1e4);
    json kimi = config_of("kimi_linear_b");
    kimi["mla_use_nope"] = true;
    CHECK(parse_model_config(kimi).blocks[0].geometry.pairing == larql::rope_pairing::none);
    kimi["mla_use_output_gate"] = true;  // Kimi K3
    CHECK(parse_model_config(kimi).blocks[0].gate == larql::output_gate::per_element);
    kimi["mla_use_nope"] = false;
    LARQL_CHECK_ERROR(parse_model_config(kimi), errc::not_understood, "never rotates");
    json sarvam = config_of("deepseek_v3");
    sarvam["model_type"] = "sarvam_mla";
    sarvam["head_dim"] = 576;  // the published one; the rows' sizes are stated otherwise
    sarvam["rope_scaling"]["type"] = "deepseek_yarn";
    sarvam.erase("q_lora_rank");
    CHECK(parse_model_config(sarvam).blocks[0].geometry.q_lora_rank == 0);
    CHECK(parse_model_config(sarvam).blocks[0].rope.kind == larql::rope_kind::yarn);
}

TEST_CASE("Mistral's own files: params.json in place of config.json") {
    const std::string path = cases + "mistral_large_3_b";
    const json params = larql::read_config_json(path + "/params.json");
    const larql::model_config model = parse_model_config(params);
    CHECK(model.family == "mistral_large_3");
    const attention_spec& spec = model.blocks.at(1);
    CHECK(spec.temperature.scale == 0.3);
    CHECK(spec.temperature.length == 8.0);
    CHECK(larql::make_rope_table(spec.rope).magnitude == 1.0);
    CHECK(spec.scale == doctest::Approx(std::pow(0.1 * std::log(6.0) + 1.0, 2.0) / 4.0));
    const auto without = [&](const char* key) {
        json config = params;
        config.erase(key);
        return config;
    };
    LARQL_CHECK_ERROR(parse_model_config(without("norm_eps")), errc::missing_key, "rms_norm_eps");
    LARQL_CHECK_ERROR(parse_model_config(without("rope_theta")), errc::missing_key, "rope_theta");
    LARQL_CHECK_ERROR(parse_model_config(without("llama_4_scaling")), errc::missing_key, "llama_4_scaling_beta");
    json config = params;
    config["yarn"]["apply_scale"] = true;
    LARQL_CHECK_ERROR(parse_model_config(config), errc::not_understood, "yarn.apply_scale");
    config = params;
    config["yarn"]["gamma"] = 2.0;
    LARQL_CHECK_ERROR(parse_model_config(config), errc::not_understood, "yarn.gamma");
    config = params;
    config["yarn"] = "1.5";
    LARQL_CHECK_ERROR(parse_model_config(config), errc::wrong_type, "yarn: expected an object");
    config = params;
    config["attn_bias_scale"] = 2.0;
    LARQL_CHECK_ERROR(parse_model_config(config), errc::not_understood, "attn_bias_scale");
    // Beside a config.json it is not read.
    const larql::testing::temporary_folder folder;
    std::filesystem::copy(path, folder / "both");
    std::filesystem::copy(cases + "mistral4_b/config.json", folder / "both");
    const checkpoint both = checkpoint::open(folder / "both" / "consolidated.safetensors");
    CHECK(parse_model_config(both.config_json()).family == "mistral4");
}

TEST_CASE("families that larql knows and does not compute are refused with the reason") {
    const auto problem = [](const char* model_type) {
        json config = config_of("deepseek_v3");
        config["model_type"] = model_type;
        config.erase("architectures");
        return larql::testing::error_of([&] { return parse_model_config(config); });
    };
    LARQL_CHECK_ERROR_TEXT(problem("deepseek_v41"), errc::unsupported_architecture, "layers share compressors");
    LARQL_CHECK_ERROR_TEXT(problem("minimax_m3_vl_text"), errc::unsupported_architecture,
                           "larql does not implement \"minimax_m3_vl_text\": its indexer chooses blocks");
    const larql::testing::temporary_folder folder;
    for (const larql::model_family& row : larql::detail::refused_families) {
        CAPTURE(row.name);
        CHECK_FALSE(row.refused.empty());
        if (!row.gguf_architecture.empty()) {
            using larql::testing::gguf_builder;
            gguf_builder b;
            b.kv_string("general.architecture", std::string(row.gguf_architecture));
            const auto file = larql::gguf_file::open(larql::testing::write_file(folder / "m.gguf", b.build()));
            LARQL_CHECK_ERROR(larql::read_model_config(file), errc::unsupported_architecture, std::string(row.refused));
            continue;
        }
        CHECK(problem(std::string(row.model_types.front()).c_str()).find(row.refused) != std::string::npos);
    }
}
