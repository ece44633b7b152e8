// SPDX-License-Identifier: Apache-2.0
//
// What changes attention and is not understood is refused by name; what is known to change nothing is not.
#include <larql/detail/model/families.hpp>
#include <larql/detail/model/gguf_source.hpp>
#include <larql/detail/model/inert_keys.hpp>
#include <larql/detail/model/json_source.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/print.hpp>
#include <larql/model_config.hpp>

#include <nlohmann/json.hpp>
#include <support/gguf_builder.hpp>
#include <support/tiny_model.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

using larql::errc;
using larql::model_config;
using larql::parse_model_config;
using larql::testing::gguf_builder;
using larql::testing::le;
using larql::testing::tiny_llama_config;
using nlohmann::json;

json published(const std::string& name) {
    std::ifstream in(std::string(LARQL_TEST_DATA) + "/hf/" + name + "/config.json");
    std::ostringstream text;
    text << in.rdbuf();
    return json::parse(text.str());
}

/// The tiny llama with one more key.
json with(const std::string& key, const json& value) {
    json config = tiny_llama_config();
    config[key] = value;
    return config;
}

std::string problem_of(const json& config) {
    return larql::testing::error_of([&] { return parse_model_config(config, {.file = "config.json"}); });
}

/// A llama's metadata, with what a test adds.
gguf_builder llama_metadata() {
    gguf_builder b;
    b.kv_string("general.architecture", "llama")
        .kv("llama.block_count", gguf_builder::u32, le(1u))
        .kv("llama.context_length", gguf_builder::u32, le(64u))
        .kv("llama.embedding_length", gguf_builder::u32, le(24u))
        .kv("llama.attention.head_count", gguf_builder::u32, le(4u))
        .kv("llama.attention.head_count_kv", gguf_builder::u32, le(2u))
        .kv("llama.attention.key_length", gguf_builder::u32, le(8u))
        .kv("llama.attention.layer_norm_rms_epsilon", gguf_builder::f32, le(1e-5F));
    return b;
}

/// A DeepSeek-V2's.
gguf_builder deepseek2_metadata() {
    gguf_builder b;
    b.kv_string("general.architecture", "deepseek2")
        .kv("deepseek2.attention.layer_norm_rms_epsilon", gguf_builder::f32, le(1e-6F))
        .kv("deepseek2.rope.freq_base", gguf_builder::f32, le(1e4F));
    const std::pair<const char*, std::uint32_t> sizes[] = {{"block_count", 1},
                                                           {"context_length", 64},
                                                           {"embedding_length", 24},
                                                           {"attention.head_count", 2},
                                                           {"attention.head_count_kv", 1},
                                                           {"attention.q_lora_rank", 0},
                                                           {"attention.kv_lora_rank", 16},
                                                           {"attention.key_length", 24},
                                                           {"attention.value_length", 16},
                                                           {"attention.key_length_mla", 12},
                                                           {"attention.value_length_mla", 8},
                                                           {"rope.dimension_count", 8}};
    for (const auto& [key, value] : sizes) b.kv("deepseek2." + std::string(key), gguf_builder::u32, le(value));
    return b;
}

model_config read_gguf(const gguf_builder& b, const larql::config_options& options = {}) {
    const larql::testing::temporary_folder folder;
    const auto path = larql::testing::write_file(folder / "m.gguf", b.build());
    return larql::read_model_config(larql::gguf_file::open(path), options);
}
std::string gguf_problem(const gguf_builder& b) {
    return larql::testing::error_of([&] { return read_gguf(b); });
}

}  // namespace

TEST_CASE("closed world: a key that looks like attention and that no row claims is refused, at any level") {
    const std::pair<const char*, json> unknown[] = {
        {"rope_mode", "xpos"},   {"qk_clip", 8.0},           {"key_scale", 2.0},
        {"v_norm", true},        {"window_pattern", {1, 2}}, {"attn_config", {{"clip_qkv", 8}}},
        {"kv_share_every", 2},   {"num_sink_tokens", 4},     {"mup_attn", true},
        {"use_head_gate", true}, {"sparse_block", 64},       {"scale_depth", 1.4},
    };
    for (const auto& [key, value] : unknown) {
        CAPTURE(key);
        LARQL_CHECK_ERROR_TEXT(problem_of(with(key, value)), errc::not_understood,
                               std::string(key) + " (" + larql::detail::shown(value) + ") is unknown");
    }
    for (const char* name : {"numKeyValueGroups", "ROPE_MODE", "useSlidingAttention", "bidirectional", "use_xpos",
                             "layers_block_type", "hybrid_override_pattern", "positional_embedding_base"}) {
        CAPTURE(std::string(name));
        LARQL_CHECK_ERROR_TEXT(problem_of(with(name, "other")), errc::not_understood, name);
    }
    LARQL_CHECK_ERROR_TEXT(problem_of(with("blocks", json::array({{{"attn_window", 8}}}))), errc::not_understood,
                           "blocks[0].attn_window (8) is unknown");
    LARQL_CHECK_ERROR_TEXT(problem_of(with("decoder_config", {{"attn", 1}})), errc::not_understood,
                           "decoder_config.attn (1) is unknown");
    LARQL_CHECK_ERROR_TEXT(problem_of(with("is_causal", false)), errc::not_understood, "is_causal is false");
    LARQL_CHECK_ERROR_TEXT(problem_of(with("per_layer_config", {{"1", {{"num_key_value_heads", 1}}}})),
                           errc::not_understood, "per_layer_config");
    LARQL_CHECK_ERROR_TEXT(problem_of(with("modules", {{"first", {{"rope_offset", 3}}}})), errc::not_understood,
                           "modules.first.rope_offset (3) is unknown");
    // All of them in one message, with the way out.
    json config = with("rope_mode", "xpos");
    config["qk_clip"] = 8;
    const std::string problem = problem_of(config);
    CHECK(problem.find("rope_mode (\"xpos\") is unknown") != std::string::npos);
    CHECK(problem.find("qk_clip (8) is unknown") != std::string::npos);
    CHECK(problem.find("--config") != std::string::npos);
    CHECK(problem.find("--unknown ignore") != std::string::npos);
    // A caller may know better, and is told what was passed over.
    const model_config ignored = parse_model_config(config, {}, {.unknown = larql::unknown_policy::ignore});
    CHECK(ignored.warnings == std::vector<std::string>{"qk_clip (8) is unknown", "rope_mode (\"xpos\") is unknown"});
}

TEST_CASE("closed world: a known key of another family is refused unless it says none") {
    const std::pair<const char*, json> foreign[] = {
        {"sliding_window", 4096},
        {"attn_logit_softcapping", 50.0},
        {"attention_multiplier", 0.5},
        {"query_pre_attn_scalar", 256},
        {"attn_temperature_tuning", 4},
        {"attention_chunk_size", 16},
        {"no_rope_layers", {1, 0}},
        {"sliding_window_pattern", 6},
        {"rope_local_base_freq", 10000.0},
        {"rotary_dim", 64},
        {"attention_out_bias", true},
        {"multi_query", true},
        {"q_lora_rank", 16},
        {"partial_rotary_factor", 0.5},
        {"qk_norm", true},
        {"use_qk_norm", true},
        {"clip_qkv", 6.0},
        {"alibi", true},
        {"use_rope", false},
        {"embedding_multiplier", 12.0},
        {"norm_type", "layernorm"},
        {"position_embedding_type", "absolute"},
        {"rope_interleave", true},
        {"layer_types", {"sliding_attention"}},
    };
    for (const auto& [key, value] : foreign) {
        CAPTURE(std::string(key));
        LARQL_CHECK_ERROR_TEXT(problem_of(with(key, value)), errc::not_understood, key);
    }
    const std::pair<const char*, json> none[] = {
        {"sliding_window", nullptr},
        {"attn_logit_softcapping", nullptr},
        {"attention_multiplier", nullptr},
        {"partial_rotary_factor", 1.0},
        {"qk_norm", false},
        {"clip_qkv", nullptr},
        {"use_rope", true},
        {"embedding_multiplier", 1.0},
        {"position_embedding_type", "rope"},
        {"rope_interleave", false},
        {"layer_types", {"full_attention"}},
        {"use_sliding_window", false},
        {"kv_share_every", nullptr},
        {"attention_dropout", 0.1},
        {"head_init", false},
        {"rope_scaling", nullptr},
        {"norm_topk_prob", true},
    };
    for (const auto& [key, value] : none) {
        CAPTURE(std::string(key));
        CHECK(problem_of(with(key, value)) == "no error");
    }
    json off = with("sliding_window", 4096);
    off["use_sliding_window"] = false;
    CHECK(problem_of(off) == "no error");
    json v2 = published("deepseek_v2");
    v2["rope_interleave"] = false;  // transformers' DeepSeek-V2 rotates neighbours whatever this says
    LARQL_CHECK_ERROR_TEXT(problem_of(v2), errc::not_understood, "rope_interleave is false");
    v2["rope_interleave"] = true;
    CHECK(problem_of(v2) == "no error");
    json plain = published("deepseek_v2");
    plain["use_mla"] = false;
    LARQL_CHECK_ERROR_TEXT(problem_of(plain), errc::not_understood,
                           "kv_lora_rank is 32, which \"deepseek_v2_mha\" does not have");
}

TEST_CASE("closed world: keys about other things are none of larql's business") {
    json config = tiny_llama_config();
    config["pretraining_tp"] = 2;
    config["vision_config"] = {{"attention_heads", 16}, {"rope_mode", "2d"}};
    config["quantization_config"] = {{"quant_method", "fp8"}, {"kv_cache_scheme", nullptr}};
    config["task_specific_params"] = {{"rope_test", 1}};
    config["custom"] = {{"colour", "blue"}};
    config["initializer_range"] = 0.02;
    CHECK(problem_of(config) == "no error");
}

TEST_CASE("closed world: a rope dictionary holds nothing unknown") {
    const auto scaled = [](const json& scaling) { return with("rope_scaling", scaling); };
    LARQL_CHECK_ERROR_TEXT(problem_of(scaled({{"rope_type", "linear"}, {"factor", 2.0}, {"offset", 3}})),
                           errc::not_understood, "rope_scaling.offset (3) is unknown");
    LARQL_CHECK_ERROR_TEXT(problem_of(scaled({{"rope_type", "spiral"}, {"factor", 2.0}})), errc::not_understood,
                           "rope_scaling.rope_type: rope type \"spiral\" is unknown");
    LARQL_CHECK_ERROR_TEXT(problem_of(scaled({{"factor", 2.0}})), errc::not_understood,
                           "rope_scaling.factor is stated without a rope_type");
    LARQL_CHECK_ERROR_TEXT(problem_of(scaled({{"rope_type", "dynamic"}, {"alpha", 1000.0}, {"factor", 1.0}})),
                           errc::not_understood, "rope_scaling.alpha is 1000.0, which \"llama\" does not have");
    LARQL_CHECK_ERROR_TEXT(problem_of(scaled({{"rope_type", "yarn"}, {"factor", 4.0}, {"llama_4_scaling_beta", 0.1}})),
                           errc::not_understood, "rope_scaling.llama_4_scaling_beta");
    LARQL_CHECK_ERROR_TEXT(
        problem_of(with("rope_parameters", {{"full_attention", {{"rope_type", "default"}, {"rope_theta", 1e4}}},
                                            {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 1e5}}}})),
        errc::not_understood, "rope_parameters differs by layer type, which \"llama\" does not have");
    CHECK(problem_of(scaled({{"type", "deepseek_yarn"}, {"factor", 4.0}})) == "no error");
    LARQL_CHECK_ERROR_TEXT(problem_of(scaled("yarn")), errc::wrong_type, "rope_scaling: expected an object");
}

TEST_CASE("closed world: every row's names are claimed once, and every known key is one for a reason") {
    std::set<std::string_view> seen;
    for (const auto& row : larql::detail::top_keys)
        for (const std::string_view name : row.hf)
            if (!name.empty()) CHECK_MESSAGE(seen.insert(name).second, name);
    std::set<std::string_view> gguf;
    for (const std::span<const larql::detail::key_row> rows :
         {std::span<const larql::detail::key_row>(larql::detail::top_keys),
          std::span<const larql::detail::key_row>(larql::detail::rope_keys)})
        for (const auto& row : rows)
            for (const std::string_view name : row.gguf)
                if (!name.empty()) CHECK_MESSAGE(gguf.insert(name).second, name);
    for (const auto& key : larql::detail::gguf_inert_keys) CHECK_MESSAGE(gguf.insert(key.name).second, key.name);
    std::size_t adjusted = 0;
    for (const auto& family : larql::detail::families) adjusted += family.adjust != nullptr ? 1 : 0;
    CHECK(adjusted == 0);  // no family needs code of its own
}

TEST_CASE("closed world: a row's defaults are of keys whose default is looked up there") {
    using enum larql::model_key;
    static constexpr larql::model_key looked_up[] = {
        attention_bias,
        attention_chunk_size,
        attention_k_eq_v,
        attention_layer_offset,
        attention_layer_period,
        attention_multiplier,
        attention_out_bias,
        dynamic_ntk,
        full_attention_interval,
        global_head_dim,
        kv_lora_rank,
        logn,
        mla_use_output_gate,
        multi_query,
        new_decoder_architecture,
        no_rope_layer_interval,
        norm_topk_prob,
        num_attention_heads,
        num_hidden_layers,
        num_key_value_heads,
        num_kv_shared_layers,
        o_groups,
        o_lora_rank,
        partial_rotary_factor,
        qk_nope_head_dim,
        qk_norm,
        qk_rope_head_dim,
        query_pre_attn_scalar,
        rope_original_max_position,
        rotary_dim,
        sliding_window_pattern,
        softcap,
        temperature_length,
        temperature_scale,
        temperature_tuning,
        v_head_dim,
        value_scale,
    };
    for (const auto& family : larql::detail::families)
        for (const larql::key_default& row : family.defaults)
            CHECK_MESSAGE(
                (row.key == larql::model_key{} || std::ranges::find(looked_up, row.key) != std::end(looked_up)),
                family.name << ": default of key number " << static_cast<int>(row.key));
}

TEST_CASE("closed world: two names of one key must say the same") {
    const auto norm = [](const json& first, const json& second) {
        json config = tiny_llama_config();
        config["model_type"] = "cohere";
        config.erase("architectures");
        config.erase("rms_norm_eps");
        config["layer_norm_eps"] = first;
        config["norm_eps"] = second;
        return problem_of(config);
    };
    CHECK(norm(1e-5, 1e-5) == "no error");
    LARQL_CHECK_ERROR_TEXT(norm(1e-5, 1e-6), errc::not_understood,
                           "layer_norm_eps is 1e-05, and norm_eps, another name for it, is 1e-06");
    const auto scaled = [](const char* first, const char* second) {
        return problem_of(with("rope_scaling", {{"rope_type", first}, {"type", second}, {"factor", 2.0}}));
    };
    CHECK(scaled("linear", "linear") == "no error");
    CHECK(scaled("yarn", "deepseek_yarn") == "no error");
    LARQL_CHECK_ERROR_TEXT(scaled("linear", "yarn"), errc::not_understood,
                           "rope_scaling.rope_type is \"linear\", and rope_scaling.type, another name for it, is");
    // A name of a key that the family does not read hides no other.
    json hidden = with("qk_norm", true);
    hidden["use_qk_norm"] = false;
    LARQL_CHECK_ERROR_TEXT(problem_of(hidden), errc::not_understood, "qk_norm is true");
}

TEST_CASE("closed world: architectures must be classes of the family") {
    for (const char* name : {"EagleLlamaForCausalLM", "MedusaLlamaModel"}) {
        CAPTURE(name);
        LARQL_CHECK_ERROR_TEXT(problem_of(with("architectures", {name})), errc::unsupported_architecture,
                               "architectures: \"" + std::string(name) + "\" is not a class of \"llama\"");
    }
    for (const json& good : {json{"LlamaForCausalLM"}, json{"LlamaForSequenceClassification"}, json::array(), json()}) {
        CHECK(problem_of(with("architectures", good)) == "no error");
    }
    json absent = tiny_llama_config();
    absent.erase("architectures");
    CHECK(problem_of(absent) == "no error");
    json kimi = published("kimi_k2");
    CHECK(problem_of(kimi) == "no error");
    kimi["architectures"] = {"LlamaForCausalLM"};
    LARQL_CHECK_ERROR_TEXT(problem_of(kimi), errc::unsupported_architecture, "\"LlamaForCausalLM\" is not a class");
}

TEST_CASE("closed world: absent keys have the family's default, which is transformers', or are errors") {
    json config = tiny_llama_config();
    config.erase("rope_theta");
    config.erase("rms_norm_eps");
    const model_config defaults = parse_model_config(config);
    CHECK(defaults.blocks[0].rope.theta == 10000.0);
    CHECK(defaults.rms_norm_eps == 1e-6);
    constexpr larql::model_family strict[] = {
        {.name = "strict", .model_types = {"llama"}, .classes = {"LlamaForCausalLM"}}};
    const std::string problem =
        larql::testing::error_of([&] { return parse_model_config(config, {}, {.families = strict}); });
    CHECK(problem.find("rope_theta: required and absent") != std::string::npos);
    CHECK(problem.find("rms_norm_eps: required and absent") != std::string::npos);

    // Null is no size, and a value that was refused is not absent, too.
    for (const char* key : {"hidden_size", "num_attention_heads", "num_hidden_layers"}) {
        CAPTURE(std::string(key));
        LARQL_CHECK_ERROR_TEXT(problem_of(with(key, nullptr)), errc::missing_key,
                               std::string(key) + ": required and null");
        const std::string wrong = problem_of(with(key, "x"));
        LARQL_CHECK_ERROR_TEXT(wrong, errc::wrong_type, std::string(key) + ": expected an integer");
        CHECK(wrong.find("absent") == std::string::npos);
    }

    json llama3 = with("rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}});
    const std::string missing = problem_of(llama3);
    CHECK(missing.find("rope_scaling.low_freq_factor: required by rope type \"llama3\"") != std::string::npos);
    CHECK(missing.find("rope_scaling.high_freq_factor: required by rope type \"llama3\"") != std::string::npos);
    LARQL_CHECK_ERROR_TEXT(problem_of(with("rope_scaling", {{"rope_type", "linear"}})), errc::missing_key,
                           "rope_scaling.factor: required by rope type \"linear\"");
    json no_length = with("rope_scaling", {{"rope_type", "dynamic"}, {"factor", 2.0}});
    no_length.erase("max_position_embeddings");
    LARQL_CHECK_ERROR_TEXT(problem_of(no_length), errc::missing_key, "max_position_embeddings");

    // A required size that is null is none at all.
    for (const char* key : {"hidden_size", "num_hidden_layers", "num_attention_heads"}) {
        CAPTURE(std::string(key));
        LARQL_CHECK_ERROR_TEXT(problem_of(with(key, nullptr)), errc::missing_key,
                               std::string(key) + ": required and null");
    }
    json v3 = published("deepseek_v3");
    v3["rope_interleave"] = nullptr;  // as good as false to transformers
    CHECK(parse_model_config(v3).blocks[0].geometry.pairing == larql::rope_pairing::half_split);
    v3 = published("deepseek_v3");
    v3["rope_scaling"]["truncate"] = nullptr;
    CHECK_FALSE(parse_model_config(v3).blocks[0].rope.truncate);

    // transformers takes a Mistral with layer_types for another model, and does not read use_sliding_window.
    json types = published("mistral_swa");
    types["layer_types"] = {"full_attention", "full_attention"};
    LARQL_CHECK_ERROR_TEXT(problem_of(types), errc::not_understood, "layer_types");
    types.erase("layer_types");
    types["use_sliding_window"] = false;
    CHECK(parse_model_config(types).blocks[1].sliding_window == 7);

    // Mistral: an absent window is 4096, and null is none.
    json mistral = published("mistral_swa");
    CHECK(parse_model_config(mistral).blocks[1].sliding_window == 7);
    mistral["sliding_window"] = nullptr;
    CHECK(parse_model_config(mistral).blocks[1].sliding_window == 0);
    mistral.erase("sliding_window");
    CHECK(parse_model_config(mistral).blocks[1].sliding_window == 4096);
}

TEST_CASE("rope in config.json: statements of one thing in two places count as in transformers") {
    // The configuration's own original context goes before that of the dictionary.
    json twice =
        with("rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 16}});
    CHECK(parse_model_config(twice).blocks[0].rope.original_max_position == 16);
    twice["original_max_position_embeddings"] = 32;
    CHECK(parse_model_config(twice).blocks[0].rope.original_max_position == 32);
    // Without either, max_position_embeddings.
    twice.erase("original_max_position_embeddings");
    twice["rope_scaling"].erase("original_max_position_embeddings");
    CHECK(parse_model_config(twice).blocks[0].rope.original_max_position == 64);

    // rope_scaling takes the place of rope_parameters, with its theta.
    json both = with("rope_parameters", {{"rope_type", "default"}, {"rope_theta", 5e5}});
    CHECK(parse_model_config(both).blocks[0].rope.theta == 5e5);
    both["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 4.0}};
    CHECK(parse_model_config(both).blocks[0].rope.kind == larql::rope_kind::linear);
    CHECK(parse_model_config(both).blocks[0].rope.theta == 1e4);
    both["rope_scaling"] = json::object();
    CHECK(parse_model_config(both).blocks[0].rope.theta == 5e5);

    // A theta within the dictionary goes before the one beside it.
    json inner = with("rope_scaling", {{"rope_type", "linear"}, {"factor", 4.0}, {"rope_theta", 77.0}});
    CHECK(parse_model_config(inner).blocks[0].rope.theta == 77.0);
}

TEST_CASE("rope in config.json: proportional scaling is applied once") {
    constexpr larql::model_family partial[] = {
        {.name = "partial", .model_types = {"partial"}, .partial_rotary = true, .default_rms_norm_eps = 1e-6}};
    json config = tiny_llama_config();
    config["model_type"] = "partial";
    config.erase("architectures");
    config["head_dim"] = 32;
    config["rope_scaling"] = {{"rope_type", "proportional"}, {"partial_rotary_factor", 0.5}};
    const auto proportional = parse_model_config(config, {}, {.families = partial}).blocks[0];
    const auto table = larql::make_rope_table(proportional.rope);
    CHECK(table.frequencies.size() == 16);
    CHECK(std::ranges::count_if(table.frequencies, [](double w) { return w != 0.0; }) == 8);
    CHECK(table.frequencies[1] == doctest::Approx(std::pow(10000.0, -2.0 / 32.0)));
    CHECK(proportional.geometry.qk_rope_head_dim == 32);
    config.erase("rope_scaling");
    config["partial_rotary_factor"] = 0.5;  // another thing: exponents over the rotated half
    const auto half = parse_model_config(config, {}, {.families = partial}).blocks[0];
    CHECK(larql::make_rope_table(half.rope).frequencies.size() == 8);
    CHECK(larql::make_rope_table(half.rope).frequencies[1] == doctest::Approx(std::pow(10000.0, -2.0 / 16.0)));
    CHECK(half.geometry.qk_nope_head_dim == 16);
    for (const double none : {0.0, -0.5}) {  // nothing rotated is another model
        CAPTURE(none);
        config["partial_rotary_factor"] = none;
        LARQL_CHECK_ERROR_TEXT(
            larql::testing::error_of([&] { return parse_model_config(config, {}, {.families = partial}); }),
            errc::bad_value, "partial_rotary_factor");
    }
}

TEST_CASE("rope: parameters that are good one by one and give numbers that are not") {
    json config = tiny_llama_config();
    config["rope_theta"] = 1.0;
    config["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 4096}};
    LARQL_CHECK_ERROR_TEXT(problem_of(config), errc::bad_value, "these parameters give frequency");
    json v3 = published("deepseek_v3");
    v3["rope_scaling"]["mscale"] = 1e308;
    v3["rope_scaling"]["mscale_all_dim"] = 1e300;
    CHECK(problem_of(v3) != "no error");
    v3["rope_scaling"]["mscale"] = -1.0;
    LARQL_CHECK_ERROR_TEXT(problem_of(v3), errc::bad_value, "rope_scaling.mscale");
    CHECK_THROWS_AS(larql::make_rope_table(
                        {.kind = larql::rope_kind::proportional, .rotary_dim = 8, .partial_rotary_factor = 1e308}),
                    larql::error);
}

TEST_CASE("closed world: key/value heads divide the heads of every block, whichever key they are from") {
    json global = published("gemma4_text");
    global["num_global_key_value_heads"] = 3;
    LARQL_CHECK_ERROR_TEXT(problem_of(global), errc::bad_value,
                           "num_global_key_value_heads: expected a divisor of num_attention_heads 4, got 3");
    json doubled = published("mimo_v2_flash");  // blocks with a window have twice as many, unless stated
    doubled.erase("swa_num_key_value_heads");
    doubled["num_attention_heads"] = 3;
    doubled["num_key_value_heads"] = 3;
    LARQL_CHECK_ERROR_TEXT(problem_of(doubled), errc::bad_value,
                           "num_key_value_heads: expected a divisor of num_attention_heads 3, got 6");
}

TEST_CASE("closed world: layers with attention are named within those that there are, and there is one") {
    for (const char* family : {"bamba", "kimi_linear_b", "mllama_text_model"}) {
        CAPTURE(family);
        json uncounted = published(family);
        uncounted.erase("num_hidden_layers");
        LARQL_CHECK_ERROR_TEXT(problem_of(uncounted), errc::missing_key, "num_hidden_layers: required and absent");
    }
    json beyond = published("bamba");
    beyond["attn_layer_indices"] = {beyond["num_hidden_layers"]};
    LARQL_CHECK_ERROR_TEXT(problem_of(beyond), errc::bad_value, "attn_layer_indices: expected numbers from 0 to ");
    json none = published("qwen3_5_moe_text");
    none["layer_types"] = json::array({"linear_attention", "linear_attention"});
    LARQL_CHECK_ERROR_TEXT(problem_of(none), errc::unsupported_architecture, "configuration: no layer has attention");
    none.erase("layer_types");
    none["num_hidden_layers"] = 1;  // by default, every fourth has
    LARQL_CHECK_ERROR_TEXT(problem_of(none), errc::unsupported_architecture, "configuration: no layer has attention");
}

TEST_CASE("closed world: numbers that kernels compute with are within the range of float") {
    struct out_of_range {
        const char *family, *key;
        double value;
    };
    const out_of_range numbers[] = {{"granite", "attention_multiplier", 1e200},
                                    {"granite", "attention_multiplier", 1e-200},
                                    {"mimo_v2_flash", "attention_value_scale", 1e100},
                                    {"olmo", "clip_qkv", 1e200},
                                    {"llama3", "rms_norm_eps", 1e-200},
                                    {"gemma2", "attn_logit_softcapping", 1e-40},
                                    {"gemma2", "attn_logit_softcapping", 1e200}};
    for (const auto& [family, key, value] : numbers) {
        CAPTURE(key);
        CAPTURE(value);
        json config = published(family);
        CHECK(problem_of(config) == "no error");
        config[key] = value;
        LARQL_CHECK_ERROR_TEXT(problem_of(config), errc::bad_value, key);
    }
    json yarn = published("deepseek_v3");
    yarn["rope_scaling"]["mscale_all_dim"] = 1e25;
    LARQL_CHECK_ERROR_TEXT(problem_of(yarn), errc::bad_value, "gives a softmax scale of");
    larql::rope_config rope{.kind = larql::rope_kind::yarn, .rotary_dim = 8, .factor = 4.0};
    rope.original_max_position = 4096;
    rope.attention_factor = 1e39;
    CHECK_THROWS_AS(larql::make_rope_table(rope), larql::error);
    // An angle at a late position would be infinite, and its sine not a number.
    CHECK_THROWS_AS(larql::make_rope_table({.rotary_dim = 64, .theta = 1e-300}), larql::error);
}

TEST_CASE("closed world: GGUF metadata of attention that no row claims is refused") {
    CHECK(gguf_problem(llama_metadata()) == "no error");
    LARQL_CHECK_ERROR_TEXT(gguf_problem(llama_metadata().kv("llama.attention.key_gain", gguf_builder::f32, le(2.0F))),
                           errc::not_understood, "llama.attention.key_gain is unknown");
    LARQL_CHECK_ERROR_TEXT(gguf_problem(llama_metadata().kv_string("llama.rope.scaling.mode", "xpos")),
                           errc::not_understood, "llama.rope.scaling.mode is unknown");
    LARQL_CHECK_ERROR_TEXT(gguf_problem(llama_metadata().kv("llama.qk_norm", gguf_builder::boolean, "\1")),
                           errc::not_understood, "llama.qk_norm is unknown");
    for (const char* key : {"attention.sliding_window", "attention.indexer.top_k"}) {
        CAPTURE(key);
        LARQL_CHECK_ERROR_TEXT(
            gguf_problem(llama_metadata().kv("llama." + std::string(key), gguf_builder::u32, le(64u))),
            errc::not_understood, key);
        CHECK(gguf_problem(llama_metadata().kv("llama." + std::string(key), gguf_builder::u32, le(0u))) == "no error");
    }
    for (const char* key : {"attn_logit_softcapping", "attention.scale", "logit_scale", "attention.clamp_kqv",
                            "attention.temperature_scale", "rope.scaling.alpha", "rope.scaling.yarn_ext_factor"}) {
        CAPTURE(key);
        LARQL_CHECK_ERROR_TEXT(
            gguf_problem(llama_metadata().kv("llama." + std::string(key), gguf_builder::f32, le(0.5F))),
            errc::not_understood, key);
    }
    CHECK(gguf_problem(llama_metadata()
                           .kv("llama.logit_scale", gguf_builder::f32, le(1.0F))
                           .kv("llama.rope.scaling.finetuned", gguf_builder::boolean, "\1")
                           .kv("llama.expert_weights_scale", gguf_builder::f32, le(2.5F))
                           .kv("other.attention.key_gain", gguf_builder::f32, le(2.0F))) == "no error");
    const model_config ignored = read_gguf(llama_metadata().kv("llama.attention.key_gain", gguf_builder::f32, le(2.0F)),
                                           {.unknown = larql::unknown_policy::ignore});
    CHECK(ignored.warnings == std::vector<std::string>{"llama.attention.key_gain is unknown"});
}

TEST_CASE("GGUF: what a family's row says of biases and of inert keys holds for its metadata, too") {
    using larql::tensor_role;
    static constexpr std::string_view inert[] = {"residual_scale"};
    constexpr larql::model_family own[] = {{.name = "own",
                                            .model_types = {"own"},
                                            .classes = {"OwnForCausalLM"},
                                            .gguf_architecture = "llama",
                                            .biases = {tensor_role::q, tensor_role::k},
                                            .biases_by_key = {tensor_role::o},
                                            .default_rope_theta = 10000.0,
                                            .inert_keys = inert}};
    const gguf_builder scaled = llama_metadata().kv("llama.residual_scale", gguf_builder::f32, le(0.5F));
    LARQL_CHECK_ERROR_TEXT(gguf_problem(scaled), errc::not_understood, "llama.residual_scale");
    const model_config model = read_gguf(scaled, {.families = own});
    CHECK(model.blocks[0].biases == larql::role_set{tensor_role::q, tensor_role::k});
    CHECK(model.blocks[0].possible_biases == larql::role_set{tensor_role::o});
}

TEST_CASE("GGUF: old and rare keys of rope, as llama.cpp reads them") {
    const auto rope_of = [](const gguf_builder& b) { return read_gguf(b).blocks[0].rope; };
    CHECK(rope_of(llama_metadata()).kind == larql::rope_kind::standard);
    CHECK(rope_of(llama_metadata()).theta == 10000.0);
    const auto old = rope_of(llama_metadata().kv("llama.rope.scale_linear", gguf_builder::f32, le(4.0F)));
    CHECK(old.kind == larql::rope_kind::linear);
    CHECK(old.factor == 4.0);
    const auto untyped = rope_of(llama_metadata().kv("llama.rope.scaling.factor", gguf_builder::f32, le(2.0F)));
    CHECK(untyped.kind == larql::rope_kind::linear);
    const auto yarn = rope_of(llama_metadata()
                                  .kv_string("llama.rope.scaling.type", "yarn")
                                  .kv("llama.rope.scaling.factor", gguf_builder::f32, le(4.0F))
                                  .kv("llama.rope.scaling.original_context_length", gguf_builder::u32, le(16u))
                                  .kv("llama.rope.scaling.attn_factor", gguf_builder::f32, le(0.5F)));
    CHECK(larql::make_rope_table(yarn).magnitude == doctest::Approx(0.5 * (1.0 + 0.1 * std::log(4.0))));
    const auto linear = rope_of(llama_metadata()
                                    .kv("llama.rope.scaling.factor", gguf_builder::f32, le(2.0F))
                                    .kv("llama.rope.scaling.attn_factor", gguf_builder::f32, le(0.5F)));
    CHECK(larql::make_rope_table(linear).magnitude == 0.5);
    LARQL_CHECK_ERROR_TEXT(gguf_problem(llama_metadata().kv("llama.rope.dimension_count", gguf_builder::u32, le(4u))),
                           errc::shape_mismatch, "llama.rope.dimension_count: is 4, and heads have 8 elements");
    LARQL_CHECK_ERROR_TEXT(
        gguf_problem(llama_metadata().kv("llama.attention.value_length", gguf_builder::u32, le(16u))),
        errc::shape_mismatch, "llama.attention.value_length: is 16");
    // One divisor too many is found before the tensor is decoded, and a tensor of millions is not decoded at all.
    LARQL_CHECK_ERROR_TEXT(gguf_problem(llama_metadata().floats("rope_freqs.weight", {5}, {1, 1, 1, 1, 1})),
                           errc::shape_mismatch, "rope_freqs.weight: expected 4 numbers, got 5");
    LARQL_CHECK_ERROR_TEXT(
        gguf_problem(llama_metadata().tensor({.name = "rope_freqs.weight", .ne = {1 << 20}, .bytes = 4 << 20})),
        errc::bad_value, "expected at most 524288 numbers, got 1048576");
    const auto divided = rope_of(llama_metadata().floats("rope_freqs.weight", {4}, {1, 1, 2, 8}));
    CHECK(larql::make_rope_table(divided).frequencies[3] == doctest::Approx(1e-3 / 8.0));
    const auto longrope = rope_of(llama_metadata()
                                      .floats("rope_factors_short.weight", {4}, {1, 1, 1, 1})
                                      .floats("rope_factors_long.weight", {4}, {1, 2, 4, 8})
                                      .kv("llama.rope.scaling.original_context_length", gguf_builder::u32, le(16u)));
    // What llama.cpp would apply beside stored divisors, or does not know, is refused.
    const auto scaled = [](const char* type, float factor) {
        auto b = llama_metadata();
        if (*type != 0) b.kv_string("llama.rope.scaling.type", type);
        if (factor != 1.0F) b.kv("llama.rope.scaling.factor", gguf_builder::f32, le(factor));
        return b;
    };
    LARQL_CHECK_ERROR_TEXT(gguf_problem(scaled("", 2.0F).floats("rope_freqs.weight", {4}, {1, 1, 2, 8})),
                           errc::not_understood, "scales what rope_freqs.weight divides");
    LARQL_CHECK_ERROR_TEXT(gguf_problem(scaled("dynamic", 2.0F)), errc::not_understood,
                           "GGUF has no rope type \"dynamic\"");
    LARQL_CHECK_ERROR_TEXT(
        gguf_problem(scaled("yarn", 4.0F).kv("llama.rope.scaling.yarn_log_multiplier", gguf_builder::f32, le(0.1F))),
        errc::not_understood, "llama.rope.scaling.yarn_log_multiplier is stated");
    CHECK(rope_of(scaled("yarn", 1.0F).kv("llama.rope.scaling.original_context_length", gguf_builder::u32, le(16u)))
              .factor == 1.0);
    CHECK(rope_of(scaled("linear", 0.0F)).factor == 1.0);  // 0: not set
    // llama.cpp would scale the softmax of multi-head latent attention by it as well, which no published model means.
    CHECK(gguf_problem(deepseek2_metadata()) == "no error");
    LARQL_CHECK_ERROR_TEXT(
        gguf_problem(deepseek2_metadata().kv("deepseek2.rope.scaling.attn_factor", gguf_builder::f32, le(0.5F))),
        errc::not_understood, "deepseek2.rope.scaling.attn_factor is stated, which \"deepseek_v2\" does not have");
    LARQL_CHECK_ERROR_TEXT(
        gguf_problem(llama_metadata().kv("llama.attention.causal", gguf_builder::boolean, std::string(1, '\0'))),
        errc::not_understood, "llama.attention.causal");
    CHECK(longrope.kind == larql::rope_kind::longrope);
    CHECK(larql::make_rope_table(longrope, 17).frequencies[3] == doctest::Approx(1e-3 / 8.0));
    CHECK(larql::make_rope_table(longrope, 16).frequencies[3] == doctest::Approx(1e-3));
    CHECK(larql::make_rope_table(longrope, 17).magnitude == 1.0);
}

TEST_CASE("GGUF: the configuration that transformers would have") {
    const auto json_of = [](const std::string& name) {
        return larql::to_config_json(larql::gguf_file::open(std::string(LARQL_TEST_DATA) + "/gguf/" + name));
    };
    // Llama 3's scaling is recovered from the divisors.
    const json llama = json_of("llama3-bf16.gguf"), original = published("llama3");
    CHECK(llama["model_type"] == "llama");
    CHECK(llama["architectures"] == json{"LlamaForCausalLM"});
    CHECK_FALSE(llama.contains("larql"));
    const json &got = llama["rope_scaling"], &want = original["rope_scaling"];
    CHECK(got["rope_type"] == "llama3");
    CHECK(got["factor"].get<double>() == doctest::Approx(want["factor"].get<double>()));
    // Only the ratios of the other three can be told; frequencies are what counts.
    const auto a = larql::make_rope_table(parse_model_config(llama).blocks[0].rope),
               b = larql::make_rope_table(parse_model_config(original).blocks[0].rope);
    REQUIRE(a.frequencies.size() == b.frequencies.size());
    for (std::size_t j = 0; j < a.frequencies.size(); ++j)
        CHECK(a.frequencies[j] == doctest::Approx(b.frequencies[j]).epsilon(1e-5));

    // Also from other parameters than the published ones.
    for (const double high : {2.5, 4.0, 16.0}) {
        CAPTURE(high);
        const larql::rope_config scaled{.kind = larql::rope_kind::llama3,
                                        .rotary_dim = 128,
                                        .theta = 500000.0,
                                        .factor = 32.0,
                                        .original_max_position = 4096,
                                        .low_freq_factor = 0.5 * high - 0.5,
                                        .high_freq_factor = high};
        larql::rope_config stored = scaled;
        stored.kind = larql::rope_kind::standard;
        const auto plain = larql::make_rope_table(stored), want_table = larql::make_rope_table(scaled);
        stored.kind = larql::rope_kind::divisors;
        for (std::size_t j = 0; j < 64; ++j)
            stored.divisors.push_back(static_cast<float>(plain.frequencies[j] / want_table.frequencies[j]));
        const auto fit = larql::detail::fit_llama3(stored);
        REQUIRE(fit.has_value());
        const auto got_table = larql::make_rope_table(*fit);
        for (std::size_t j = 0; j < 64; ++j)
            CHECK(got_table.frequencies[j] == doctest::Approx(want_table.frequencies[j]).epsilon(1e-5));
    }

    // What surrounds attention comes along.
    for (const std::string name : {"deepseek_v3", "deepseek_v2"}) {
        CAPTURE(name);
        const json config = json_of(name + "-bf16.gguf"), hf = published(name);
        for (const char* key : {"model_type",
                                "architectures",
                                "hidden_size",
                                "num_hidden_layers",
                                "num_attention_heads",
                                "q_lora_rank",
                                "kv_lora_rank",
                                "qk_nope_head_dim",
                                "qk_rope_head_dim",
                                "v_head_dim",
                                "intermediate_size",
                                "moe_intermediate_size",
                                "n_routed_experts",
                                "n_shared_experts",
                                "num_experts_per_tok",
                                "first_k_dense_replace",
                                "routed_scaling_factor",
                                "n_group",
                                "topk_group",
                                "scoring_func",
                                "tie_word_embeddings",
                                "max_position_embeddings",
                                "vocab_size",
                                "norm_topk_prob",
                                "rms_norm_eps"}) {
            CAPTURE(key);
            if (hf.contains(key)) CHECK(config[key] == hf[key]);
        }
    }
    CHECK(json_of("deepseek_v3_bias-bf16.gguf")["attention_bias"] == true);
    CHECK(json_of("deepseek_v3-bf16.gguf")["attention_bias"] == false);
    // exp_probs_b says sigmoid routing where no key does.
    CHECK(json_of("deepseek_v3_bias-bf16.gguf")["model_type"] == "deepseek_v3");
    // What transformers has no words for is refused.
    const auto refused = [](const gguf_builder& metadata) {
        const larql::testing::temporary_folder folder;
        const auto path = larql::testing::write_file(folder / "m.gguf", metadata.build());
        return larql::testing::error_of([&] { return larql::to_config_json(larql::gguf_file::open(path)); });
    };
    LARQL_CHECK_ERROR_TEXT(refused(llama_metadata().floats("rope_freqs.weight", {4}, {1, 3, 2, 8})),
                           errc::unsupported_architecture, "transformers has no rope type");
    LARQL_CHECK_ERROR_TEXT(refused(llama_metadata()
                                       .kv("llama.rope.scaling.factor", gguf_builder::f32, le(2.0F))
                                       .kv("llama.rope.scaling.attn_factor", gguf_builder::f32, le(0.5F))),
                           errc::unsupported_architecture, "transformers has no magnitude");
}
