// SPDX-License-Identifier: Apache-2.0
//
// Rules of the newer families of plain attention (families/gqa_newer.hpp, gqa_mixed.hpp): what their keys mean where no
// case of transformers states it, defaults of their classes, and what is refused.
#include <larql/checkpoint.hpp>

#include <nlohmann/json.hpp>
#include <support/tiny_configs.hpp>
#include <support/tiny_model.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using larql::attention_spec;
using larql::errc;
using larql::tensor_role;
using larql::testing::blocks_of;
using larql::testing::config_of;
using larql::testing::problem_of;
using larql::testing::rotated_of;
using larql::testing::windows_of;
using nlohmann::json;
using list = std::vector<std::size_t>;

json types(const std::vector<std::string>& names) { return {{"layer_types", names}}; }
json with(json all, const json& more) {
    all.update(more);
    return all;
}

const std::string full = "full_attention", sliding = "sliding_attention";
const json ropes{{"rope_parameters",
                  {{"full_attention", {{"rope_type", "default"}, {"rope_theta", 500.0}}},
                   {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 20.0}}}}}};

}  // namespace

TEST_CASE("gqa rules: which blocks have a window when layer_types do not say so") {
    const json window{{"sliding_window", 7}, {"num_hidden_layers", 6}};
    const json llama3{{"rope_scaling",
                       {{"rope_type", "llama3"},
                        {"factor", 8.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 64}}}};
    CHECK(windows_of("cwm", with(window, llama3)) == list{0, 7, 7, 7, 0, 7});
    CHECK(windows_of("granite_swa", window) == list{0, 7, 7, 7, 0, 7});
    CHECK(windows_of("granitemoe_swa", window) == list{0, 7, 7, 7, 0, 7});
    CHECK(windows_of("afmoe", window) == list{7, 7, 7, 0, 7, 7});
    CHECK(windows_of("afmoe", with(window, {{"global_attn_every_n_layers", 2}})) == list{7, 0, 7, 0, 7, 0});
    CHECK(windows_of("exaone_moe", window) == list{7, 7, 7, 0, 7, 7});
    CHECK(windows_of("kolibri1", window) == list{7, 7, 7, 7, 0, 7});
    CHECK(windows_of("minimax", with({{"sliding_window", 7}}, types({full, full, "linear_attention", full}))) ==
          list{7, 7, 7});
    // Windows of the classes.
    CHECK(windows_of("cwm", llama3)[1] == 8192);
    CHECK(windows_of("afmoe")[0] == 1024);
    CHECK(windows_of("kolibri1")[0] == 513);
    CHECK(windows_of("granite_swa")[1] == 128);
    CHECK(windows_of("granitemoe_swa")[1] == 128);
    CHECK(windows_of("cohere2_moe")[0] == 4096);
    CHECK(windows_of("flint", types({full, full, sliding, full}))[2] == 513);
    // Rules that no column has: the types must be stated.
    for (const char* type : {"flint", "lara_mini", "minimax"})
        LARQL_CHECK_ERROR_TEXT(problem_of(type, json::object()), errc::missing_key, "layer_types: required and absent");
    for (const char* type : {"mellum", "laguna", "lfm3", "cohere_compass_text", "step3p5"})
        LARQL_CHECK_ERROR_TEXT(problem_of(type, ropes), errc::missing_key, "layer_types: required and absent");
}

TEST_CASE("gqa rules: ModernBERT's window is half of what local_attention says") {
    CHECK(windows_of("modernbert-decoder") == list{0, 64, 64, 0});
    CHECK(windows_of("modernbert-decoder", {{"local_attention", 18}, {"global_attn_every_n_layers", 2}}) ==
          list{0, 9, 0, 9});
    CHECK(windows_of("modernbert-decoder", {{"local_attention", 18}, {"sliding_window", 7}})[1] == 7);
    const auto theta = [](const json& more, std::size_t block) {
        json config = config_of("modernbert-decoder", more);
        config.erase("rope_theta");
        return larql::parse_model_config(config).blocks[block].rope.theta;
    };
    CHECK(theta(json::object(), 0) == 160000.0);
    CHECK(theta(json::object(), 1) == 10000.0);
    CHECK(theta({{"global_rope_theta", 500.0}, {"local_rope_theta", 20.0}}, 0) == 500.0);
    CHECK(theta({{"global_rope_theta", 500.0}, {"local_rope_theta", 20.0}}, 1) == 20.0);
    // A dictionary of windows without a base has that of windows, not the other one.
    json bare = ropes;
    bare["rope_parameters"]["sliding_attention"].erase("rope_theta");
    CHECK(theta(bare, 0) == 500.0);
    CHECK(theta(bare, 1) == 10000.0);
    LARQL_CHECK_ERROR_TEXT(
        problem_of("modernbert-decoder", {{"rope_scaling", {{"rope_type", "linear"}, {"factor", 2.0}}}}),
        errc::not_understood, "reads no rope dictionary but by layer type");
}

TEST_CASE("gqa rules: which blocks do not rotate") {
    const json window{{"sliding_window", 7}};
    CHECK(rotated_of("afmoe", window) == list{8, 8, 8, 0});
    CHECK(rotated_of("flint", types({full, sliding, sliding, full})) == list{0, 8, 8, 0});
    CHECK(rotated_of("lara_mini", types({full, sliding, "linear_attention", sliding})) == list{0, 8, 8});
    // A window that no block has stops them all; without one all rotate.
    const json whole = types({full, full, full, full});
    for (const char* type : {"exaone4", "exaone_moe", "kolibri1"}) {
        CAPTURE(std::string(type));
        CHECK(rotated_of(type, window).back() == (std::string_view(type) == "kolibri1" ? 8 : 0));
        CHECK(rotated_of(type, whole) == list{0, 0, 0, 0});
        CHECK(rotated_of(type, with(whole, {{"sliding_window", nullptr}})) == list{8, 8, 8, 8});
    }
    // Before a dense feed-forward part they rotate all the same.
    CHECK(rotated_of("cohere2_moe", window) == list{8, 8, 8, 0});
    CHECK(rotated_of("cohere2_moe", with(window, {{"first_k_dense_replace", 1}})) == list{8, 8, 8, 8});
    CHECK(windows_of("cohere2_moe", with(window, {{"first_k_dense_replace", 1}})) == list{0, 7, 7, 7});
    const json typed = with(types({full, sliding, full, full}), window);
    CHECK(rotated_of("cohere2_moe", typed) == list{0, 8, 0, 0});
    CHECK(rotated_of("cohere2_moe", with(typed, {{"mlp_layer_types", {"dense", "sparse", "sparse", "dense"}}})) ==
          list{8, 8, 0, 8});
    LARQL_CHECK_ERROR_TEXT(problem_of("cohere2_moe", with(typed, {{"mlp_layer_types", {"dense"}}})), errc::bad_value,
                           "mlp_layer_types: expected 4 entries, got 1");
    LARQL_CHECK_ERROR_TEXT(problem_of("cohere2_moe", {{"prefix_dense_sliding_window_pattern", 2}}),
                           errc::not_understood, "prefix_dense_sliding_window_pattern is 2");
}

TEST_CASE("gqa rules: bases by layer, and bases that are null") {
    const json thetas{{"layer_rope_theta", {500.0, 0, 20.0, 1e4}}};
    CHECK(rotated_of("granite_swa", thetas) == list{8, 0, 8, 8});
    CHECK(blocks_of("granite_swa", thetas)[2].rope.theta == 20.0);
    CHECK(blocks_of("granite_swa", {{"layer_rope_theta", nullptr}, {"rope_theta", 500.0}})[2].rope.theta == 500.0);
    LARQL_CHECK_ERROR_TEXT(problem_of("granitemoe_swa", {{"layer_rope_theta", {500.0}}}), errc::bad_value,
                           "layer_rope_theta: expected 4 entries, got 1");
    LARQL_CHECK_ERROR_TEXT(problem_of("granite", with(thetas, {{"attention_multiplier", 0.5}})), errc::not_understood,
                           "layer_rope_theta is");
    CHECK(rotated_of("olmo_hybrid") == list{8});
    CHECK(rotated_of("olmo_hybrid", {{"rope_theta", nullptr}}) == list{0});
    const auto dictionary = [](const json& theta) {
        return json{{"rope_theta", nullptr}, {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", theta}}}};
    };
    CHECK(rotated_of("olmo_hybrid", dictionary(nullptr)) == list{0});
    CHECK(rotated_of("olmo_hybrid", dictionary(500.0)) == list{8});
    json compass = with(types({full, sliding, full, sliding}), ropes);
    CHECK(rotated_of("cohere_compass_text", compass) == list{8, 8, 8, 8});
    compass["rope_parameters"]["full_attention"] = nullptr;
    CHECK(rotated_of("cohere_compass_text", compass) == list{0, 8, 0, 8});
    CHECK(problem_of("mellum", compass).find("have none for \"full_attention\"") != std::string::npos);
}

TEST_CASE("gqa rules: NanoChat's heads turn backwards") {
    const auto rope = blocks_of("nanochat")[0].rope;
    CHECK(rope.backwards);
    CHECK(larql::make_rope_table(rope).frequencies[0] == -1.0);
    CHECK_FALSE(blocks_of("llama")[0].rope.backwards);
}

TEST_CASE("gqa rules: a stated scale, or the usual one") {
    CHECK(blocks_of("hyperclovax", {{"attention_multiplier", 0.3}})[0].scale == 0.3);
    for (const json& none : {json::object(), json{{"attention_multiplier", nullptr}}})
        CHECK(blocks_of("hyperclovax", none)[0].scale == 1.0 / std::sqrt(8.0));
    CHECK(blocks_of("granite_swa")[0].scale == 1.0);
}

TEST_CASE("gqa rules: Laguna's gate, and its heads by layer") {
    const json base = with(types({full, sliding, full, sliding}), ropes);
    const auto block = [&](const json& more) { return blocks_of("laguna", with(base, more))[1]; };
    const auto problem = [&](const json& more) { return problem_of("laguna", with(base, more)); };
    CHECK(block(json::object()).gated_by == larql::gate_function::softplus);
    CHECK(block(json::object()).sliding_window == 512);
    for (const json& heads : {json(), json(true), json("per-head")})
        CHECK(block({{"gating", heads}}).gate == larql::output_gate::per_head);
    CHECK(block({{"gating", "per-element"}}).gate == larql::output_gate::per_element);
    for (const json& other : {json(false), json("none")})
        LARQL_CHECK_ERROR_TEXT(problem({{"gating", other}}), errc::not_understood, "gating is");
    CHECK(block({{"num_attention_heads_per_layer", {4, 6, 4, 2}}}).geometry.num_heads == 6);
    LARQL_CHECK_ERROR_TEXT(problem({{"num_attention_heads_per_layer", {4, 6}}}), errc::bad_value,
                           "num_attention_heads_per_layer: expected a list of 4 numbers");
    LARQL_CHECK_ERROR_TEXT(problem({{"num_attention_heads_per_layer", {4, 5, 4, 4}}}), errc::bad_value,
                           "expected a divisor of num_attention_heads 5");
    LARQL_CHECK_ERROR_TEXT(problem({{"num_attention_heads_per_layer", {4, "x", 4, 4}}}), errc::wrong_type,
                           "num_attention_heads_per_layer[1]");
    LARQL_CHECK_ERROR_TEXT(problem({{"partial_rotary_factor", 0.5}}), errc::not_understood,
                           "partial_rotary_factor is 0.5");
    LARQL_CHECK_ERROR_TEXT(problem_of("llama", {{"num_attention_heads_per_layer", {4, 4, 4, 4}}}), errc::not_understood,
                           "num_attention_heads_per_layer");
}

TEST_CASE("gqa rules: Step's rotation and heads by layer") {
    const json base{{"num_attention_groups", 2},
                    {"sliding_window", 7},
                    {"num_nextn_predict_layers", 2},
                    {"layer_types", {full, sliding, sliding, full, sliding, full}},
                    {"rope_theta", {500.0, 20.0, 20.0, 500.0, 30.0, 30.0}},
                    {"partial_rotary_factors", {0.5, 1, 1.0, 0.5, 0.25, 0.25}},
                    {"attention_other_setting", {{"num_attention_heads", 6}, {"num_attention_groups", 2}}}};
    const auto stated = [&](const json& more) {
        json config = config_of("step3p5", with(base, more));
        config.erase("num_key_value_heads");  // of the tiny llama
        return config;
    };
    const auto blocks = [&](const json& more) { return larql::parse_model_config(stated(more)).blocks; };
    const auto problem = [&](const json& more) { return larql::testing::error_of([&] { return blocks(more); }); };
    const auto own = [&](const char* key, const json& value) {
        json setting = base["attention_other_setting"];
        setting[key] = value;
        return problem({{"attention_other_setting", setting}});
    };
    const auto plain = blocks(json::object());
    REQUIRE(plain.size() == 4);  // the lists' ends are of blocks that predict
    for (const std::size_t b : {0, 3}) {
        CHECK(plain[b].rope.theta == 500.0);
        CHECK(plain[b].geometry.qk_rope_head_dim == 4);
        CHECK(plain[b].geometry.num_heads == 4);
        CHECK(plain[b].sliding_window == 0);
    }
    for (const std::size_t b : {1, 2}) {
        CHECK(plain[b].rope.theta == 20.0);
        CHECK(plain[b].geometry.qk_rope_head_dim == 8);
        CHECK(plain[b].geometry.num_heads == 6);
        CHECK(plain[b].geometry.kv_heads() == 2);
        CHECK(plain[b].sliding_window == 7);
    }
    CHECK(plain[0].gate == larql::output_gate::per_head);
    CHECK(plain[0].gated_by == larql::gate_function::sigmoid);
    CHECK(plain[0].q_norm.gain_offset == 1.0);
    CHECK(plain[0].k_norm.gain_offset == 1.0);
    // Lists of the model's own layers, a number for all, none.
    CHECK(blocks({{"layer_types", {full, sliding, sliding, full}}, {"rope_theta", {500.0, 20.0, 20.0, 500.0}}})[1]
              .rope.theta == 20.0);
    for (const auto& b : blocks({{"rope_theta", 30.0}, {"partial_rotary_factors", nullptr}})) {
        CHECK(b.rope.theta == 30.0);
        CHECK(b.geometry.qk_rope_head_dim == 8);
    }
    // Scaling is of layers that see all keys, and says the base if it says any.
    const json llama3{{"rope_type", "llama3"},
                      {"factor", 2.0},
                      {"low_freq_factor", 1.0},
                      {"high_freq_factor", 4.0},
                      {"original_max_position_embeddings", 16}};
    const auto scaled = blocks({{"rope_scaling", llama3}});
    CHECK(scaled[0].rope.kind == larql::rope_kind::llama3);
    CHECK(scaled[0].rope.theta == 500.0);
    CHECK(scaled[1].rope.kind == larql::rope_kind::standard);
    CHECK(blocks({{"rope_scaling", with(llama3, {{"rope_theta", 70.0}})}})[0].rope.theta == 70.0);
    LARQL_CHECK_ERROR_TEXT(problem({{"rope_scaling", with(llama3, {{"rope_theta", {70.0, 70.0}}})}}), errc::wrong_type,
                           "rope_scaling.rope_theta: expected a number");
    json elder = with(llama3, {{"type", "llama3"}});
    CHECK(problem({{"rope_scaling", elder}}) == "no error");
    elder.erase("rope_type");
    LARQL_CHECK_ERROR_TEXT(problem({{"rope_scaling", elder}}), errc::not_understood, "reads rope_type alone");
    LARQL_CHECK_ERROR_TEXT(problem({{"rope_scaling", "llama3"}}), errc::wrong_type, "rope_scaling: expected an object");
    LARQL_CHECK_ERROR_TEXT(problem(with(ropes, {{"rope_scaling", llama3}})), errc::not_understood,
                           "rope_scaling stands beside rope_parameters");
    LARQL_CHECK_ERROR_TEXT(problem({{"rope_parameters", llama3}}), errc::not_understood,
                           "reads no rope dictionary but by layer type");
    CHECK(blocks(ropes)[0].geometry.qk_rope_head_dim == 8);  // dictionaries by layer type say all
    // Lists must fit the layers and agree within a type.
    LARQL_CHECK_ERROR_TEXT(problem({{"rope_theta", {500.0, 20.0, 20.0, 600.0}}}), errc::not_understood,
                           "rope_theta[3] is 600.0, and rope_theta[0], of a layer of the same type, is 500.0");
    LARQL_CHECK_ERROR_TEXT(problem({{"partial_rotary_factors", {0.5, 1.0, 0.5, 0.5}}}), errc::not_understood,
                           "partial_rotary_factors[2] is 0.5");
    LARQL_CHECK_ERROR_TEXT(problem({{"rope_theta", {500.0, 20.0, 20.0, 500.0, 20.0}}}), errc::bad_value,
                           "rope_theta: expected a list of 4 numbers");
    for (const json& other : {json("half"), json(0.5)})
        LARQL_CHECK_ERROR_TEXT(problem({{"partial_rotary_factors", other}}), errc::bad_value,
                               "partial_rotary_factors: expected a list of 4 numbers");
    LARQL_CHECK_ERROR_TEXT(problem({{"rope_theta", {500.0, "x", "x", 500.0}}}), errc::wrong_type, "rope_theta[1]");
    LARQL_CHECK_ERROR_TEXT(problem({{"layer_types", {full, sliding, sliding, full, full}}}), errc::bad_value,
                           "layer_types: expected 4 entries, got 5");
    LARQL_CHECK_ERROR_TEXT(problem({{"layer_types", nullptr}}), errc::missing_key, "layer_types: required and absent");
    LARQL_CHECK_ERROR_TEXT(problem({{"sliding_window", nullptr}}), errc::missing_key, "sliding_window");
    // Heads: transformers' word goes before the published one; as many of keys and values everywhere.
    CHECK(blocks({{"num_sliding_attention_heads", 8}})[1].geometry.num_heads == 8);
    CHECK(blocks({{"num_sliding_attention_heads", nullptr}})[1].geometry.num_heads == 6);
    CHECK(blocks({{"attention_other_setting", nullptr}})[1].geometry.num_heads == 4);
    CHECK(blocks({{"per_layer_config", {{"2", {{"num_attention_heads", 8}}}}}})[2].geometry.num_heads == 8);
    CHECK(blocks({{"per_layer_config", {{"2", {{"num_attention_heads", 8}}}}}})[1].geometry.num_heads == 4);
    LARQL_CHECK_ERROR_TEXT(own("num_attention_groups", 1), errc::not_understood, "num_attention_groups does not say");
    LARQL_CHECK_ERROR_TEXT(own("head_dim", 16), errc::not_understood, "attention_other_setting.head_dim is 16");
    LARQL_CHECK_ERROR_TEXT(own("true_head_dim", 16), errc::not_understood, "head_dim does not say the same");
    LARQL_CHECK_ERROR_TEXT(own("attention_type", full), errc::not_understood, "attention_type is");
    LARQL_CHECK_ERROR_TEXT(own("num_attention_heads", 5), errc::bad_value, "expected a divisor of num_attention_heads");
    LARQL_CHECK_ERROR_TEXT(own("value_norm", true), errc::not_understood, "attention_other_setting.value_norm (true)");
    // Its scale; what the published code has as switches.
    CHECK(plain[0].scale == 1.0 / std::sqrt(8.0));
    CHECK(blocks({{"query_pre_attn_scalar", nullptr}})[0].scale == 1.0 / std::sqrt(8.0));
    CHECK(blocks({{"query_pre_attn_scalar", 5}})[1].scale == 1.0 / std::sqrt(5.0));
    const json switches[] = {{{"use_head_wise_attn_gate", false}},
                             {{"gating", "per-element"}},
                             {{"use_qk_norm", false}},
                             {{"zero_centered", false}},
                             {{"att_impl_type", "MFA"}},
                             {{"yarn_only_types", {sliding}}},
                             {{"partial_rotary_factor", 0.5}},
                             {{"sink", true}},
                             {{"use_rope_layers", {true, false}}},
                             {{"swa_num_attention_heads", 8}},
                             {{"use_bidirectional_attention", true}}};
    for (const json& more : switches) LARQL_CHECK_ERROR_TEXT(problem(more), errc::not_understood, more.begin().key());
    const json same[] = {{{"use_head_wise_attn_gate", true}},
                         {{"gating", true}},
                         {{"use_qk_norm", true}},
                         {{"zero_centered", true}},
                         {{"sink", false}},
                         {{"att_impl_type", "GQA"}},
                         {{"yarn_only_types", {full}}},
                         {{"use_rope_layers", json::array()}},
                         {{"moe_router_scaling_factor", 3.0}},
                         {{"norm_expert_weight", true}},
                         {{"need_fp32_gate", true}},
                         {{"mtp_layer_types", {sliding}}}};
    for (const json& more : same) CHECK_MESSAGE(problem(more) == "no error", more.begin().key());
    CHECK(blocks({{"head_dim", nullptr}, {"attention_other_setting", nullptr}})[0].geometry.v_head_dim == 128);
    // The wrapper's own keys are not those of its language model, whatever they are called.
    const json wrapper{{"model_type", "step3p7"}, {"text_config", stated(json::object())}, {"projector_bias", false}};
    CHECK(larql::parse_model_config(wrapper).family == "step3p5");
    CHECK(larql::parse_model_config(wrapper).blocks[1].geometry.num_heads == 6);
    json flat = stated(json::object());
    flat["model_type"] = "step3p7";
    LARQL_CHECK_ERROR_TEXT(larql::testing::error_of([&] { return larql::parse_model_config(flat); }),
                           errc::unsupported_architecture, "its configuration has no text_config");
}

TEST_CASE("gqa rules: Gemma 4's sizes of single layers, as transformers saves them") {
    json base = with(types({sliding, full, sliding, full}), ropes);
    base["rope_parameters"]["full_attention"] = {
        {"rope_type", "proportional"}, {"rope_theta", 500.0}, {"partial_rotary_factor", 0.25}};
    base["attention_k_eq_v"] = true;
    for (const char* type : {"gemma4_text", "gemma4_unified_text"}) {
        CAPTURE(std::string(type));
        const json own{{"per_layer_config", {{"1", {{"head_dim", 16}, {"num_key_value_heads", 1}}}}}};
        const auto blocks = blocks_of(type, with(base, own));
        CHECK(blocks[0].geometry.v_head_dim == 8);
        CHECK(blocks[1].geometry.v_head_dim == 16);
        CHECK(blocks[1].geometry.kv_heads() == 1);
        CHECK(blocks[1].value_is_key);
        CHECK(blocks[3].geometry.v_head_dim == 8);  // whatever global_head_dim says
        LARQL_CHECK_ERROR_TEXT(problem_of(type, with(base, {{"per_layer_config", {{"1", {{"sliding_window", 3}}}}}})),
                               errc::not_understood, "per_layer_config.1.sliding_window");
        json shared = base;
        shared["rope_parameters"]["sliding_attention"]["partial_rotary_factor"] = 0.5;
        LARQL_CHECK_ERROR_TEXT(problem_of(type, shared), errc::not_understood,
                               "reads for rope type \"proportional\" alone");
    }
    CHECK(windows_of("gemma4_unified_text", base)[0] == 1024);
}

TEST_CASE("gqa rules: RecurrentGemma repeats its types, and LFM3's gate may be off") {
    const auto layers = [](const json& more) {
        list with_attention;
        for (const auto& spec : blocks_of("recurrent_gemma", more)) with_attention.push_back(spec.layer);
        return with_attention;
    };
    CHECK(layers({{"num_hidden_layers", 7}}) == list{2, 5});
    CHECK(layers({{"num_hidden_layers", 5}, {"block_types", {"recurrent", "attention"}}}) == list{1, 3});
    CHECK(layers({{"num_hidden_layers", 1}, {"block_types", {"attention", "recurrent"}}}) == list{0});
    const auto block = blocks_of("recurrent_gemma")[0];
    CHECK(block.sliding_window == 2048);
    CHECK(block.geometry.qk_rope_head_dim == 4);
    CHECK(block.biases == larql::role_set{tensor_role::o});
    const json lfm = with(types({full, sliding, "conv", sliding}), ropes);
    CHECK(blocks_of("lfm3", lfm)[0].gate == larql::output_gate::per_head);
    CHECK(blocks_of("lfm3", with(lfm, {{"use_attention_gate", false}}))[0].gate == larql::output_gate::none);
}

TEST_CASE("gqa rules: Nemotron-H has as many layers as types, as transformers saves it") {
    json config = config_of("nemotron_h", {{"layers_block_type", {"mamba", "attention", "moe"}}});
    config.erase("num_hidden_layers");
    const auto model = larql::parse_model_config(config);
    CHECK(model.num_hidden_layers == 3);
    CHECK(model.blocks.size() == 1);
    config["model_type"] = "jamba";
    config.erase("layers_block_type");
    config["layer_types"] = {"full_attention", "linear_attention"};
    LARQL_CHECK_ERROR(larql::parse_model_config(config), errc::missing_key, "num_hidden_layers: required and absent");
}

TEST_CASE("gqa rules: defaults are those of transformers' classes") {
    const auto groups = [](const char* type, json more) {
        more["num_attention_heads"] = 32;
        json config = config_of(type, more);
        config.erase("num_key_value_heads");
        return larql::parse_model_config(config).blocks.back().geometry.kv_heads();
    };
    const json types_and_ropes = with(types({full, sliding, full, sliding}), ropes);
    for (const char* type : {"iquestcoder", "solar_open", "phi4_multimodal"})
        CHECK_MESSAGE(groups(type, {}) == 8, type);
    CHECK(groups("minimax", types({full, full, full, full})) == 8);
    CHECK(groups("laguna", types_and_ropes) == 8);
    for (const char* type : {"kolibri1", "granite_swa"}) CHECK_MESSAGE(groups(type, {}) == 4, type);
    for (const char* type : {"mellum", "lfm3"}) CHECK_MESSAGE(groups(type, types_and_ropes) == 4, type);
    for (const char* type : {"flint", "lara_mini"})
        CHECK_MESSAGE(groups(type, types({full, sliding, full, full})) == 4, type);
    for (const char* type : {"granitemoe_swa", "exaone_moe", "afmoe", "jais2"})
        CHECK_MESSAGE(groups(type, {}) == 32, type);
    CHECK(blocks_of("jais2")[0].biases.contains(tensor_role::o));
    CHECK(blocks_of("granite_docling_text")[0].scale == 0.015625);
    CHECK(blocks_of("granite4_vision_text")[0].scale == 1.0);
    for (const char* type : {"glm_ocr_text", "emu3_text_model", "glm4v_moe_text"})
        CHECK_MESSAGE(groups(type, {}) == 8, type);
    CHECK(groups("granite_docling_text", {}) == 4);
    for (const char* type : {"glm4v_text", "paddleocr_vl_text"}) CHECK_MESSAGE(groups(type, {}) == 2, type);
    CHECK(rotated_of("glm4v_text")[0] == 8);
    CHECK(rotated_of("glm4v_moe_text")[0] == 4);
    CHECK(blocks_of("glm4v_moe_text")[0].biases.contains(tensor_role::v));
    CHECK(blocks_of("dbrx", {{"attn_config", {{"kv_n_heads", 4}, {"rope_theta", 500.0}}},
                             {"rope_theta", 500.0},
                             {"num_key_value_heads", 4}})[0]
              .rope.theta == 500.0);
    LARQL_CHECK_ERROR_TEXT(problem_of("dbrx", {{"attn_config", {{"rope_theta", 500.0}}}}), errc::not_understood,
                           "another name for it");
    for (const char* type : {"apertus1p5_text", "cwm"})
        LARQL_CHECK_ERROR_TEXT(problem_of(type, json::object()), errc::missing_key,
                               "rope_parameters: required and absent");
    LARQL_CHECK_ERROR_TEXT(problem_of("mellum", types({full, full, full, full})), errc::missing_key,
                           "rope_parameters: required and absent");
    // The context that longrope's factors are for is that of the class, whatever the dictionary says.
    const std::vector<double> factors(4, 2.0);
    const json longrope{{"rope_scaling",
                         {{"type", "longrope"},
                          {"short_factor", factors},
                          {"long_factor", factors},
                          {"original_max_position_embeddings", 16}}}};
    for (const char* type : {"phi3", "phi4_multimodal"}) {
        CHECK(blocks_of(type, longrope)[0].rope.original_max_position == 4096.0);
        CHECK(
            blocks_of(type, with(longrope, {{"original_max_position_embeddings", 32}}))[0].rope.original_max_position ==
            32.0);
    }
}

TEST_CASE("gqa rules: bases, shares and biases that no case has") {
    const auto theta = [](const char* type, const json& more) {
        json config = config_of(type, more);
        config.erase("rope_theta");
        return larql::parse_model_config(config).blocks.back().rope.theta;
    };
    const std::pair<const char*, double> bases[] = {
        {"aria_text", 1e4},           {"iquestcoder", 1e4},     {"jais2", 1e4},
        {"solar_open", 1e6},          {"hyperclovax", 1e4},     {"nanochat", 1e4},
        {"flex_olmo", 5e5},           {"phi4_multimodal", 1e4}, {"dbrx", 1e4},
        {"exaone_moe", 1e4},          {"cohere2_moe", 1e4},     {"granite_swa", 1e4},
        {"granitemoe_swa", 1e4},      {"olmo_hybrid", 1e4},     {"recurrent_gemma", 1e4},
        {"glm4v_text", 1e4},          {"glm4v_moe_text", 1e4},  {"glm_ocr_text", 1e4},
        {"paddleocr_vl_text", 5e5},   {"emu3_text_model", 1e6}, {"granite_docling_text", 1e4},
        {"granite4_vision_text", 1e4}};
    for (const auto& [type, base] : bases) {
        const bool whole = std::string_view(type) == "exaone_moe" || std::string_view(type) == "cohere2_moe";
        CHECK_MESSAGE(theta(type, whole ? json{{"sliding_window_pattern", 3}} : json::object()) == base, type);
    }
    json bare = with(types({full, sliding, "conv", sliding}), ropes);
    bare["rope_parameters"]["sliding_attention"].erase("rope_theta");
    CHECK(theta("lfm3", bare) == 1e6);
    CHECK(theta("minimax", types({full, full, full, full})) == 1e6);
    for (const char* type : {"recurrent_gemma", "glm_ocr_text", "glm4v_text", "glm4v_moe_text", "phi4_multimodal"})
        CHECK_MESSAGE(rotated_of(type, {{"partial_rotary_factor", 0.25}})[0] == 2, type);
    CHECK(blocks_of("granitemoe_swa", {{"attention_bias", true}})[0].biases.contains(tensor_role::o));
    const json gemma = with(types({sliding, full, sliding, full}), ropes);
    CHECK(blocks_of("gemma4_unified_text", with(gemma, {{"attention_bias", true}}))[0].biases.contains(tensor_role::o));
    CHECK(problem_of("gemma4_unified_text", with(gemma, {{"use_bidirectional_attention", "vision"}})) == "no error");
    LARQL_CHECK_ERROR_TEXT(problem_of("gemma4_unified_text", with(gemma, {{"use_bidirectional_attention", "all"}})),
                           errc::not_understood, "use_bidirectional_attention");
    // "yarn" means longrope, as in Phi-3.
    const std::vector<double> factors(4, 2.0);
    const json yarn{{"type", "yarn"}, {"short_factor", factors}, {"long_factor", factors}, {"factor", 2.0}};
    CHECK(blocks_of("phi4_multimodal", {{"rope_scaling", yarn}})[0].rope.kind == larql::rope_kind::longrope);
}

TEST_CASE("gqa rules: keys of other parts than attention") {
    const std::pair<const char*, json> inert[] = {
        {"biogpt", {{"scale_embedding", true}, {"layerdrop", 0.1}}},
        {"xglm", {{"scale_embedding", true}, {"add_cross_attention", false}}},
        {"hyperclovax", {{"use_post_norm", true}, {"residual_multiplier", 0.5}, {"logits_scaling", 8.0}}},
        {"afmoe", {{"route_scale", 2.8}, {"route_norm", true}, {"mup_enabled", true}}},
        {"cohere2_moe", {{"logit_scale", 0.06}, {"expert_selection_fn", "sigmoid"}}},
        {"granite_swa", {{"embedding_multiplier", 12.0}, {"residual_multiplier", 0.2}, {"logits_scaling", 8.0}}},
        {"nanochat", {{"final_logit_softcapping", 15.0}}},
        {"openai-gpt", {{"resid_pdrop", 0.1}, {"summary_type", "cls_index"}, {"n_ctx", 64}}},
        {"ctrl", {{"resid_pdrop", 0.1}, {"dff", 16}, {"n_ctx", 64}}},
        {"recurrent_gemma", {{"logits_soft_cap", 30.0}, {"w_init_variance_scale", 0.01}}},
        {"modernbert-decoder", {{"norm_bias", true}, {"classifier_bias", true}}},
        {"mellum", with(with(types({full, sliding, full, full}), ropes), {{"mtp_layer_types", {sliding}}})},
        {"lfm3", with(with(types({full, sliding, "conv", full}), ropes), {{"use_sandwich_norm", true}})},
        {"minimax", with(types({full, full, full, full}), {{"full_attn_alpha_factor", 3.5}, {"block_size", 256}})},
        {"laguna", with(with(types({full, sliding, full, full}), ropes), {{"moe_router_logit_softcapping", 30.0}})},
    };
    for (const auto& [type, more] : inert) CHECK_MESSAGE(problem_of(type, more) == "no error", type);
}

TEST_CASE("gqa rules: what is not computed is refused by name") {
    const std::pair<std::string, json> refused[] = {
        {"solar_open", {{"partial_rotary_factor", 0.5}}},
        {"iquestcoder", {{"clip_qkv", 3.0}}},
        {"iquestcoder", {{"use_sliding_window", true}}},
        {"kolibri1", {{"attention_bias", true}}},
        {"hyperclovax", {{"sliding_window", 7}}},
        {"xglm", {{"add_cross_attention", true}}},
        {"biogpt", {{"position_embedding_type", "alibi"}}},
        {"phi4_multimodal", {{"rope_scaling", {{"rope_type", "linear"}, {"factor", 2.0}}}}},
        {"openai-gpt", {{"scale_attn_weights", false}}},
    };
    for (const auto& [type, more] : refused) {
        CAPTURE(type);
        LARQL_CHECK_ERROR_TEXT(problem_of(type, more), errc::not_understood,
                               more.begin().key() == "rope_scaling" ? "rope type \"linear\"" : more.begin().key());
    }
    for (const char* type : {"bitnet", "diffllama", "doge", "dory", "hrm_text", "jetmoe", "zamba", "zamba2", "cpmant",
                             "gpt_neox_japanese", "roformer", "inkling2_loop_text"})
        LARQL_CHECK_ERROR_TEXT(problem_of(type, json::object()), errc::unsupported_architecture,
                               "larql does not implement");
}
