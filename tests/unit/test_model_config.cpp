// SPDX-License-Identifier: Apache-2.0
#include <larql/model_config.hpp>
#include <larql/rope.hpp>

#include <nlohmann/json.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace {

using larql::attention_kind;
using larql::errc;
using larql::model_config;
using larql::parse_model_config;
using larql::rope_kind;
using larql::rope_pairing;
using nlohmann::json;

std::string file_text(const std::string& name) {
    std::ifstream in(std::string(LARQL_TEST_DATA) + "/" + name);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
}

json published(const std::string& name) { return json::parse(file_text("hf/" + name + "/config.json")); }

larql::gguf_file gguf(const std::string& name) {
    return larql::gguf_file::open(std::string(LARQL_TEST_DATA) + "/gguf/" + name);
}

/// The error that a configuration gives, as "code: message".
std::string problem_of(const json& config) {
    try {
        parse_model_config(config, {.file = "config.json"});
    } catch (const larql::error& e) {
        return std::string(larql::to_string(e.code())) + ": " + e.what();
    }
    return "none";
}

/// Everything that decides what is computed.
void check_same_attention(const model_config& a, const model_config& b) {
    CHECK(a.attention == b.attention);
    CHECK(a.hidden_size == b.hidden_size);
    CHECK(a.num_hidden_layers == b.num_hidden_layers);
    CHECK(a.rms_norm_eps == b.rms_norm_eps);
    REQUIRE(a.blocks.size() == b.blocks.size());
    for (std::size_t i = 0; i < a.blocks.size(); ++i) {
        const larql::attention_spec &p = a.blocks[i], &q = b.blocks[i];
        CHECK(p.kind == q.kind);
        CHECK(p.form == q.form);
        CHECK(p.geometry.num_heads == q.geometry.num_heads);
        CHECK(p.geometry.kv_heads() == q.geometry.kv_heads());
        CHECK(p.geometry.q_lora_rank == q.geometry.q_lora_rank);
        CHECK(p.geometry.kv_lora_rank == q.geometry.kv_lora_rank);
        CHECK(p.geometry.qk_nope_head_dim == q.geometry.qk_nope_head_dim);
        CHECK(p.geometry.qk_rope_head_dim == q.geometry.qk_rope_head_dim);
        CHECK(p.geometry.v_head_dim == q.geometry.v_head_dim);
        CHECK(p.geometry.order == q.geometry.order);
        CHECK(p.latent_norm.eps == q.latent_norm.eps);
        CHECK(p.sliding_window == q.sliding_window);
        CHECK(p.scale == doctest::Approx(q.scale).epsilon(1e-12));
        const auto x = larql::make_rope_table(p.rope), y = larql::make_rope_table(q.rope);
        CHECK(x.magnitude == doctest::Approx(y.magnitude).epsilon(1e-12));
        REQUIRE(x.frequencies.size() == y.frequencies.size());
        for (std::size_t j = 0; j < x.frequencies.size(); ++j)
            CHECK(x.frequencies[j] == doctest::Approx(y.frequencies[j]).epsilon(1e-6));  // GGUF's divisors are float
    }
}

}  // namespace

TEST_CASE("model_config: reads DeepSeek-V3's config.json, YaRN's m squared included") {
    const model_config c = parse_model_config(published("deepseek_v3"));
    CHECK(c.family == "deepseek_v3");
    CHECK(c.architecture == "DeepseekV3ForCausalLM");
    CHECK(c.attention == attention_kind::mla);
    CHECK(c.hidden_size == 64);
    CHECK(c.num_hidden_layers == 2);
    CHECK(c.num_nextn_predict_layers == 1);
    REQUIRE(c.blocks.size() == 2);
    const larql::attention_spec& b = c.blocks[1];
    CHECK(b.geometry.num_heads == 4);
    CHECK(b.geometry.kv_heads() == 4);
    CHECK(b.geometry.qk_head_dim() == 40);
    CHECK(b.geometry.v_head_dim == 32);
    CHECK(b.geometry.q_lora_rank == 48);
    CHECK(b.geometry.kv_lora_rank == 32);
    CHECK(b.geometry.order == larql::head_order::nope_rope);
    CHECK(b.geometry.pairing == rope_pairing::interleaved);
    CHECK(b.latent_norm.kind == larql::norm_kind::rms);
    CHECK(b.latent_norm.eps == 1e-6);
    CHECK(b.rope.kind == rope_kind::yarn);
    CHECK(b.rope.rotary_dim == 16);
    CHECK(b.rope.original_max_position == 64);
    const double m = 0.1 * std::log(40.0) + 1.0;
    CHECK(b.scale == doctest::Approx(m * m / std::sqrt(40.0)).epsilon(1e-15));
    CHECK(larql::make_rope_table(b.rope).magnitude == 1.0);
}

TEST_CASE("model_config: the latent norms' eps stays 1e-6 when rms_norm_eps is another") {
    json config = published("deepseek_v3");
    config["rms_norm_eps"] = 1e-5;
    CHECK(parse_model_config(config).rms_norm_eps == 1e-5);
    CHECK(parse_model_config(config).blocks[0].latent_norm.eps == 1e-6);
}

TEST_CASE("model_config: q_lora_rank null and 0 mean a single q projection, and absence means nothing") {
    json config = published("deepseek_v2_lite");
    CHECK(config["q_lora_rank"].is_null());
    CHECK(parse_model_config(config).blocks[0].geometry.q_lora_rank == 0);
    config["q_lora_rank"] = 0;
    CHECK(parse_model_config(config).blocks[0].geometry.q_lora_rank == 0);
    config.erase("q_lora_rank");
    CHECK(problem_of(config) ==
          "missing_key: config.json: q_lora_rank: absent, and no tensors settle it; null or 0 mean a single q_proj");
}

TEST_CASE("model_config: rope_parameters, rope_scaling and text_config say the same") {
    const json old_form = published("deepseek_v3");
    const model_config want = parse_model_config(old_form);
    json new_form = old_form;
    new_form["rope_parameters"] = old_form["rope_scaling"];
    new_form["rope_parameters"]["rope_type"] = "yarn";
    new_form["rope_parameters"].erase("type");
    new_form["rope_parameters"]["rope_theta"] = old_form["rope_theta"];
    new_form.erase("rope_scaling");
    new_form.erase("rope_theta");
    check_same_attention(parse_model_config(new_form), want);

    json wrapper = {{"model_type", "kimi_k25"}, {"text_config", old_form}};
    wrapper["text_config"]["model_type"] = "kimi_k2";
    const model_config nested = parse_model_config(wrapper);
    CHECK(nested.family == "kimi_k2");
    check_same_attention(nested, want);
}

TEST_CASE("model_config: rope_interleave false means half-split weights") {
    json config = published("deepseek_v3");
    config["rope_interleave"] = false;
    CHECK(parse_model_config(config).blocks[0].geometry.pairing == rope_pairing::half_split);
}

TEST_CASE("model_config: a llama has grouped heads, head_dim by default, and llama3 scaling") {
    json config = published("llama3");
    const model_config c = parse_model_config(config);
    CHECK(c.attention == attention_kind::gqa);
    const larql::attention_spec& b = c.blocks[0];
    CHECK(b.geometry.kv_heads() == 2);
    CHECK(b.geometry.qk_head_dim() == 32);
    CHECK(b.geometry.v_head_dim == 32);
    CHECK(b.rope.kind == rope_kind::llama3);
    CHECK(b.geometry.pairing == rope_pairing::half_split);
    CHECK(b.scale == doctest::Approx(1.0 / std::sqrt(32.0)));
    config.erase("head_dim");
    config.erase("num_key_value_heads");
    CHECK(parse_model_config(config).blocks[0].geometry.qk_head_dim() == 16);
    CHECK(parse_model_config(config).blocks[0].geometry.kv_heads() == 4);
}

TEST_CASE("model_config: GGUF files of both dialects describe the model that config.json describes") {
    for (const std::string name : {"deepseek_v2", "deepseek_v3", "kimi_k2", "llama3"}) {
        const model_config want = parse_model_config(published(name));
        for (const std::string dialect : {"-bf16.gguf", "-old-f16.gguf"}) {
            if (!std::filesystem::exists(std::string(LARQL_TEST_DATA) + "/gguf/" + name + dialect)) continue;
            CAPTURE(name + dialect);
            const model_config got = larql::read_model_config(gguf(name + dialect));
            check_same_attention(got, want);
            CHECK(got.blocks[0].geometry.pairing == rope_pairing::interleaved);
        }
    }
}

TEST_CASE("model_config: lists every problem at once") {
    json config = published("deepseek_v3");
    config.erase("kv_lora_rank");
    config["hidden_size"] = true;
    config["v_head_dim"] = -4;
    config["qk_rope_head_dim"] = 15;
    config["rope_scaling"]["factor"] = "NaN";
    const std::string problem = problem_of(config);
    CAPTURE(problem);
    CHECK(problem.find("config.json: hidden_size: expected an integer, got true") != std::string::npos);
    CHECK(problem.find("kv_lora_rank: required and absent") != std::string::npos);
    CHECK(problem.find("v_head_dim: expected 1 to 1048576, got -4") != std::string::npos);
    CHECK(problem.find("expected an even number of rotated elements, got 15") != std::string::npos);
    CHECK(problem.find("rope_scaling.factor: expected a number, got \"NaN\"") != std::string::npos);
}

TEST_CASE("model_config: integers are integer tokens in range") {
    for (const char* bad : {"2.0", "true", "\"64\"", "18446744073709551616", "1e3", "0", "-1", "1048577", "[64]"}) {
        json config = published("llama3");
        config["hidden_size"] = json::parse(bad);
        CAPTURE(bad);
        CHECK(problem_of(config).find("hidden_size") != std::string::npos);
    }
}

TEST_CASE("model_config: refuses unknown families, rope types and impossible head counts by name") {
    json config = published("llama3");
    config["model_type"] = "mamba2";
    CHECK(problem_of(config) ==
          "unsupported_architecture: config.json: model_type: larql does not implement \"mamba2\"");
    config = published("llama3");
    config["rope_scaling"]["rope_type"] = "spiral";
    CHECK(problem_of(config).find("rope type \"spiral\" is unknown") != std::string::npos);
    config = published("llama3");
    config["num_key_value_heads"] = 3;
    CHECK(problem_of(config).find("expected a divisor of num_attention_heads 4, got 3") != std::string::npos);
    config = published("deepseek_v3");
    config["rope_scaling"].erase("factor");
    config["rope_scaling"].erase("original_max_position_embeddings");
    config.erase("max_position_embeddings");
    CHECK(problem_of(config).find("original_max_position_embeddings: required by rope type \"yarn\"") !=
          std::string::npos);
    CHECK_THROWS_AS(parse_model_config(json::array()), larql::error);
}

TEST_CASE("model_config: Python's NaN and Infinity are tolerated where they are not used") {
    std::string text = file_text("hf/llama3/config.json");
    text.insert(text.find('{') + 1, "\"router_bias\": NaN, \"limits\": [-Infinity, Infinity], ");
    CHECK(parse_model_config(larql::parse_config_json(text)).hidden_size == 64);
    text.insert(text.find('{') + 1, "\"rms_norm_eps\": 1, ");
    CHECK_THROWS_AS(larql::parse_config_json(text), larql::error);  // a duplicate key
}

TEST_CASE("model_config: what larql wrote about a converted model is read back, under a model_type of its own alone") {
    json config = published("deepseek_v3");
    config["model_type"] = "larql-dense";
    config["architectures"] = {"LarqlDenseForCausalLM"};
    config["larql"] = {
        {"model_type", "deepseek_v3"}, {"row_order", "rope_nope"}, {"pairing", "half_split"}, {"layers", {1, 2}}};
    const model_config c = parse_model_config(config);
    CHECK(c.family == "deepseek_v3");
    CHECK(c.form == larql::attention_form::dense);
    CHECK(c.block_begin == 1);
    CHECK(c.block_end == 2);
    CHECK(c.blocks[1].form == larql::attention_form::dense);
    CHECK(c.blocks[1].geometry.order == larql::head_order::rope_nope);
    CHECK(c.blocks[1].geometry.pairing == rope_pairing::half_split);
    CHECK(c.blocks[1].scale == parse_model_config(published("deepseek_v3")).blocks[1].scale);
    config["larql"]["layers"] = {1, 3};
    CHECK(problem_of(config).find("larql.layers: ends at 3, the model has 2 blocks") != std::string::npos);
    config["larql"]["layers"] = {2, 1};
    CHECK(problem_of(config).find("larql.layers: expected two block numbers, got [2,1]") != std::string::npos);
    config["larql"]["layers"] = {0, 2};
    config["larql"]["row_order"] = "upwards";
    CHECK(problem_of(config).find("larql.row_order: unknown value \"upwards\"") != std::string::npos);
    config["model_type"] = "deepseek_v3";  // a published model does not have converted tensors
    CHECK(problem_of(config).find("larql: describes converted tensors") != std::string::npos);
    config["model_type"] = "larql-dense";
    config.erase("larql");
    CHECK(problem_of(config).find("model_type") != std::string::npos);
}
