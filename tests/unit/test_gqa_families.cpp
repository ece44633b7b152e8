// SPDX-License-Identifier: Apache-2.0
//
// Every family of plain attention against transformers 5.24: the cases that tests/data/make_family_cases.py wrote, and
// GGUF files that llama.cpp's converter did.
#include <larql/attention_cost.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/model/families.hpp>
#include <larql/detail/model/gguf_fields.hpp>

#include <nlohmann/json.hpp>
#include <support/gguf_builder.hpp>
#include <support/reference_case.hpp>
#include <support/tiny_configs.hpp>
#include <support/tiny_model.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using larql::attention_spec;
using larql::checkpoint;
using larql::errc;
using larql::parse_model_config;
using larql::tensor_role;
using larql::testing::worst_error;
using nlohmann::json;

// Folders of tests/data/hf: the model type, and after two underscores what is special.
constexpr std::string_view cases[] = {
    "apertus",
    "arcee",
    "cohere",
    "cohere2",
    "dots1",
    "ernie4_5",
    "ernie4_5_moe",
    "exaone4",
    "exaone4__full",
    "falcon__group",
    "falcon__heads",
    "falcon__single",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gemma3n_text",
    "gemma3n_text__biased",
    "gemma4_text",
    "gemma4_text__shared",
    "glm",
    "glm4",
    "glm4_moe",
    "gpt2",
    "gpt_bigcode",
    "gpt_neox",
    "gpt_oss",
    "granite",
    "granitemoe",
    "granitemoeshared",
    "helium",
    "hunyuan_v1_dense",
    "hunyuan_v1_moe",
    "internlm2",
    "llama4_text",
    "minimax_m2",
    "ministral",
    "ministral3",
    "mixtral",
    "nemotron",
    "olmo",
    "olmo2",
    "olmo3",
    "olmoe",
    "persimmon",
    "phi",
    "phi3",
    "phimoe",
    "qwen2_moe",
    "qwen3_5_moe_text",
    "qwen3_5_text",
    "qwen3_moe",
    "qwen3_next",
    "seed_oss",
    "smollm3",
    "stablelm",
    "starcoder2",
    "vaultgemma",
    "qwen3_vl_text",
    "qwen3_vl_moe_text",
    "chatglm",
    "exaone",
    "falcon_h1",
    "hy_v3",
    "internlm",
    "internlm3",
    "lfm2",
    "lfm2_moe",
    "minicpm",
    "mistral_params",
    "nemotron_h",
    "phi3_v",
    "qwen2_5_vl_text",
    "qwen2_vl_text",
    "sarvam_moe",
    "sarvam_moe__unnormed",
    "baichuan",
    "Yi",
    "mimo_v2_flash",
    "mimo_v2_flash__ropes",
    "mimo",
    "phi4mm",
    "qwen2_5_omni_text",
    "qwen3_omni_moe_text",
    "stablelm_epoch",
    "aquila",
    "baichuan__alibi",
    "bamba",
    "deepseek",
    "granitemoehybrid",
    "granitemoehybrid__rope",
    "jamba",
    "nemotron-nas",
    "opt",
    "opt__unbiased",
    "orion",
    "xverse",
    "bloom",
    "mpt",
    "chatglm__ratio",
    "codegen",
    "deepseek_v2__mha",
    "gpt_neo",
    "gptj",
    "llama__eagle3",
    "minicpm__long",
    "minicpmo",
    "minicpmv",
    "minicpmv__qwen2",
    "minicpmv__qwen3",
    "mllama_text_model",
    "molmo",
    "molmo__normed",
    "phi-msft",
    "phimoe__long",
    "phimoe__short",
    "qwen",
    "qwen__within",
    "afmoe",
    "apertus1p5_text",
    "aria_text",
    "biogpt",
    "cohere2_moe",
    "cohere2_moe__prefix",
    "cohere_compass_text",
    "ctrl",
    "cwm",
    "dbrx",
    "exaone_moe",
    "exaone_moe__full",
    "flex_olmo",
    "flint",
    "gemma4_unified_text",
    "gemma4_unified_text__layers",
    "gemma4_unified_text__shared",
    "gpt-sw3",
    "granite_swa",
    "granitemoe_swa",
    "hyperclovax",
    "hyperclovax__usual",
    "iquestcoder",
    "jais2",
    "kolibri1",
    "laguna",
    "laguna__elements",
    "lara_mini",
    "lfm3",
    "lfm3__ungated",
    "mellum",
    "minimax",
    "modernbert-decoder",
    "nanochat",
    "olmo_hybrid",
    "olmo_hybrid__nope",
    "openai-gpt",
    "phi4_multimodal",
    "recurrent_gemma",
    "solar_open",
    "step3p5",
    "step3p5__saved",
    "xglm",
    "emu3_text_model",
    "glm4v_moe_text",
    "glm4v_text",
    "glm_ocr_text",
    "granite4_vision_text",
    "granite_docling_text",
    "hunyuan_vl_text",
    "hunyuan_vl_text__alpha",
    "paddleocr_vl_text",
};

// Files of tests/data/make_converted_cases.py, named after the folders of their references.
constexpr std::string_view converted[] = {
    "chatglm_converted",
    "exaone_converted",
    "gemma4_converted",
    "gemma4_shared_converted",
    "glm4_converted",
    "glm4v_converted",
    "glm_converted",
    "granitemoehybrid_converted",
    "hy_v3_converted",
    "laguna_converted",
    "laguna_elements_converted",
    "lfm2_converted",
    "lfm2_moe_converted",
    "minicpm_converted",
    "ministral3_converted",
    "nemotron_nas_converted",
    "olmo3_converted",
    "qwen2_vl_converted",
    "qwen3_5_converted",
    "qwen3_5_moe_converted",
    "qwen3_next_converted",
    "qwen3_vl_converted",
    "qwen3_vl_moe_converted",
    "step3p5_converted",
};

std::string data() { return LARQL_TEST_DATA; }

using larql::testing::blocks_of;
using larql::testing::config_of;
using larql::testing::problem_of;
using larql::testing::rotated_of;
using larql::testing::windows_of;
using list = std::vector<std::size_t>;

/// The metadata of a GGUF file of four layers, with what a test adds.
class tiny_gguf {
public:
    explicit tiny_gguf(std::string architecture) : m_architecture(std::move(architecture)) {
        for (const auto& [key, value] : {std::pair("block_count", 4U),
                                         {"context_length", 64U},
                                         {"embedding_length", 16U},
                                         {"attention.head_count", 4U},
                                         {"attention.head_count_kv", 2U},
                                         {"attention.key_length", 4U},
                                         {"attention.value_length", 4U}})
            integer(key, value);
        number("attention.layer_norm_rms_epsilon", 1e-6F);
        number("rope.freq_base", 10000.0F);
    }
    tiny_gguf& integer(std::string_view key, unsigned value) { return set(key, builder::u32, le(value)); }
    tiny_gguf& number(std::string_view key, float value) { return set(key, builder::f32, le(value)); }
    tiny_gguf& flag(std::string_view key, bool value) {
        return set(key, builder::boolean, value ? "\1" : std::string(1, '\0'));
    }
    tiny_gguf& integers(std::string_view key, const std::vector<unsigned>& values) {
        std::string bytes = le(std::uint32_t{builder::u32}) + le(std::uint64_t{values.size()});
        for (const unsigned value : values) bytes += le(value);
        return set(key, builder::array, bytes);
    }
    tiny_gguf& flags(std::string_view key, const std::vector<bool>& values) {
        std::string bytes = le(std::uint32_t{builder::boolean}) + le(std::uint64_t{values.size()});
        for (const bool value : values) bytes += value ? '\1' : '\0';
        return set(key, builder::array, bytes);
    }
    tiny_gguf& tensor(std::string name, std::vector<float> values) {
        m_tensors[std::move(name)] = std::move(values);
        return *this;
    }
    [[nodiscard]] std::vector<attention_spec> blocks() const { return config().blocks; }
    [[nodiscard]] larql::model_config config() const {
        builder file;
        file.kv_string("general.architecture", m_architecture);
        for (const auto& [key, entry] : m_entries) file.kv(m_architecture + "." + key, entry.first, entry.second);
        for (const auto& [name, values] : m_tensors) file.floats(name, {values.size()}, values);
        const larql::testing::temporary_folder folder;
        const auto path = larql::testing::write_file(folder / "m.gguf", file.build());
        return larql::read_model_config(larql::gguf_file::open(path));
    }

private:
    using builder = larql::testing::gguf_builder;
    template <class T>
    static std::string le(T value) {
        return larql::testing::le(value);
    }
    tiny_gguf& set(std::string_view key, std::uint32_t type, std::string bytes) {
        m_entries[std::string(key)] = {type, std::move(bytes)};
        return *this;
    }

    std::string m_architecture;
    std::map<std::string, std::pair<std::uint32_t, std::string>> m_entries{};
    std::map<std::string, std::vector<float>> m_tensors{};
};

}  // namespace

TEST_CASE("gqa families: each computes what transformers computed, in one pass and token by token") {
    for (const std::string_view name : cases) {
        CAPTURE(name);
        const std::string problem = larql::testing::error_of([&] {  // so that one case does not hide the others
            // A Baichuan as small as this one has the sizes of none, and larql would not believe it.
            const bool odd = name == "baichuan";
            const auto unknown = odd ? larql::unknown_policy::ignore : larql::unknown_policy::refuse;
            const checkpoint model = checkpoint::open(data() + "/hf/" + std::string(name), {.unknown = unknown});
            CHECK(worst_error(model, std::string(name)) <= 1e-5);
            CHECK(model.config().warnings.size() == (odd ? 1 : 0));
        });
        CHECK(problem == "no error");
    }
}

TEST_CASE("gqa families: Mistral's own params.json without a latent") {
    const json params = larql::read_config_json(data() + "/hf/mistral_params/params.json");
    const auto blocks = [](const json& config) { return parse_model_config(config).blocks; };
    CHECK(blocks(params)[1].sliding_window == 13);
    CHECK(blocks(params)[1].temperature.length == 16.0);
    CHECK(larql::make_rope_table(blocks(params)[0].rope).magnitude == 1.0);
    json plain = params;  // Mistral-7B's and Mixtral's
    for (const char* key : {"yarn", "llama_4_scaling", "sliding_window", "max_position_embeddings"}) plain.erase(key);
    CHECK(blocks(plain)[0].sliding_window == 0);
    CHECK(blocks(plain)[0].temperature.scale == 0.0);
    CHECK(blocks(plain)[0].geometry.num_kv_heads == 2);
    plain["vision_encoder"] = {{"num_attention_heads", 3}, {"rope_theta", 5.0}};
    CHECK(blocks(plain)[0].rope.theta == 10000.0);
    plain.erase("rope_theta");  // mistral-inference has had two defaults
    LARQL_CHECK_ERROR(blocks(plain), errc::missing_key, "rope_theta: required and absent");
    json other = params;
    other.erase("norm_eps");
    LARQL_CHECK_ERROR(blocks(other), errc::missing_key, "rms_norm_eps");
}

TEST_CASE("gqa families: every row has a case, or is refused") {
    std::set<std::string> tested;
    for (const std::string_view name : cases) tested.emplace(name.substr(0, name.find("__")));
    tested.insert({"llama", "mistral", "qwen2", "qwen3"});  // test_families.cpp
    // The same in one object with the configuration of a vision tower.
    tested.insert({"qwen2_vl", "qwen2_5_vl", "llava", "llava_llama"});
    for (const larql::model_family& family : larql::detail::gqa_families)
        for (const std::string_view type : family.model_types)
            if (!type.empty() && family.refused.empty() && !type.starts_with("RefinedWeb"))  // falcon's old names
                CHECK_MESSAGE(tested.contains(std::string(type)), type);
}

TEST_CASE("gqa families: GGUF files of llama.cpp's converter give what transformers computed") {
    const auto error = [](const std::string& name, const json& stated = nullptr) {
        return worst_error(checkpoint::open(data() + "/gguf/" + name + "-bf16.gguf", {.config = stated}), name);
    };
    CHECK(error("gpt_oss_converted") <= 2e-5);
    CHECK(error("phi3_converted") <= 2e-5);
    // GGUF has no place for gemma's query_pre_attn_scalar.
    LARQL_CHECK_ERROR(error("gemma2_converted"), errc::missing_key, "gemma2.query_pre_attn_scalar: GGUF has no place");
    CHECK(error("gemma2_converted", {{"query_pre_attn_scalar", 48}}) <= 2e-5);
    for (const std::string_view name : converted) {
        CAPTURE(name);
        const std::string problem = larql::testing::error_of([&] { CHECK(error(std::string(name)) <= 2e-5); });
        CHECK(problem == "no error");
    }
    // As config.json says it, where that says all; of layers that differ none is written.
    const auto open = [](const char* name) { return checkpoint::open(data() + "/gguf/" + name + "-bf16.gguf"); };
    const checkpoint ministral = open("ministral3_converted");
    const attention_spec again = parse_model_config(ministral.config_json()).blocks[1];
    CHECK(again.rope == ministral.spec(1).rope);
    CHECK(again.temperature.scale == ministral.spec(1).temperature.scale);
    CHECK(again.temperature.length == ministral.spec(1).temperature.length);
    for (const char* name : {"laguna_converted", "nemotron_nas_converted", "qwen3_vl_converted", "minicpm_converted"})
        LARQL_CHECK_ERROR(open(name).config_json(), errc::unsupported_architecture, "does not write a config.json");
    // A number of tokens with or without the one that sees them.
    LARQL_CHECK_ERROR(error("mimo_v2_flash_converted"), errc::missing_key,
                      "mimo2.attention.sliding_window: GGUF does not tell whether the token itself is counted");
    CHECK(error("mimo_v2_flash_converted", {{"sliding_window", 7}}) <= 2e-5);
    CHECK(error("mimo_v2_flash_converted", {{"sliding_window_size", 6}}) <= 2e-5);
    // Of the temperature, and of the size of chunks, which llama.cpp has as constants.
    CHECK(error("llama4_converted", {{"attention_chunk_size", 12}, {"floor_scale", 10}, {"attn_scale", 0.3}}) <= 2e-5);
}

TEST_CASE("gqa families: a GGUF of gemma has the scale of its number of blocks, and no defaults of classes") {
    using larql::testing::gguf_builder;
    using larql::testing::le;
    const auto block = [](const std::string& architecture, unsigned blocks, unsigned window) {
        gguf_builder file;
        file.kv_string("general.architecture", architecture);
        const std::pair<const char*, unsigned> sizes[] = {{"block_count", blocks},
                                                          {"context_length", 64},
                                                          {"embedding_length", 48},
                                                          {"attention.head_count", 4},
                                                          {"attention.key_length", 16},
                                                          {"attention.value_length", 16},
                                                          {"attention.sliding_window", window}};
        for (const auto& [key, value] : sizes)
            if (value != 0) file.kv(architecture + "." + key, gguf_builder::u32, le(value));
        file.kv(architecture + ".attention.layer_norm_rms_epsilon", gguf_builder::f32, le(1e-6F));
        const larql::testing::temporary_folder folder;
        const auto path = larql::testing::write_file(folder / "m.gguf", file.build());
        return larql::read_model_config(larql::gguf_file::open(path)).blocks[0];
    };
    CHECK(block("gemma2", 42, 7).scale == 1.0 / 4.0);
    CHECK(block("gemma2", 46, 7).scale == 1.0 / std::sqrt(12.0));
    LARQL_CHECK_ERROR(block("gemma2", 27, 7), errc::missing_key, "no published model has 27 blocks");
    for (const unsigned blocks : {18U, 26U, 34U, 48U}) CHECK(block("gemma3", blocks, 7).scale == 1.0 / 4.0);
    CHECK(block("gemma2", 26, 7).scale == 1.0 / 4.0);
    CHECK(block("gemma3", 62, 7).scale == 1.0 / std::sqrt(12.0));
    LARQL_CHECK_ERROR(block("gemma3", 46, 7), errc::missing_key, "no published model has 46 blocks");
    // What GGUF leaves out is not so, whatever transformers' class assumes.
    CHECK(block("gemma2", 42, 7).sliding_window == 7);
    CHECK(block("gemma2", 42, 0).sliding_window == 0);
    CHECK(block("gemma2", 42, 7).softcap == 0.0);
    CHECK(block("exaone4", 4, 0).sliding_window == 0);
    CHECK(block("nemotron", 4, 0).geometry.qk_rope_head_dim == 16);
}

TEST_CASE("gqa families: what GGUF leaves to llama.cpp's programs is taken from the published models, or refused") {
    CHECK(tiny_gguf("llama4").integer("expert_count", 16).blocks()[0].q_norm.kind == larql::norm_kind::rms);
    const auto maverick = tiny_gguf("llama4").integer("expert_count", 128).blocks();
    CHECK(maverick[0].q_norm.kind == larql::norm_kind::none);
    CHECK(maverick[0].chunk == 8192);
    CHECK(maverick[3].chunk == 0);
    CHECK(maverick[3].geometry.qk_rope_head_dim == 0);
    CHECK(maverick[3].temperature.length == 8192.0);
    CHECK(maverick[3].temperature.scale == 0.1);
    LARQL_CHECK_ERROR(tiny_gguf("llama4").integer("expert_count", 8).blocks(), errc::missing_key,
                      "llama4.use_qk_norm: GGUF has no place for it, and no published model has 8 experts");
    LARQL_CHECK_ERROR(tiny_gguf("llama4").integer("expert_count", 16).integer("attention.sliding_window", 0).blocks(),
                      errc::not_understood, "llama4.attention.sliding_window is stated");

    // Without a temperature a file of architecture mistral3 is a Mistral's.
    CHECK(tiny_gguf("mistral3").blocks()[0].temperature.scale == 0.0);
    const auto warm = [](unsigned original) {
        return tiny_gguf("mistral3")
            .number("attention.temperature_scale", 0.1F)
            .integer("rope.scaling.original_context_length", original)
            .blocks()[0]
            .temperature;
    };
    CHECK(warm(16).length == 16.0);
    LARQL_CHECK_ERROR(warm(0), errc::bad_value, "mistral3.rope.scaling.original_context_length");
    LARQL_CHECK_ERROR(tiny_gguf("mistral3").number("rope.scaling.yarn_log_multiplier", 0.5F).blocks(),
                      errc::not_understood, "mistral3.rope.scaling.yarn_log_multiplier is 0.5");

    // A larger base may be ChatGLM3's, or divided positions of ChatGLM2's; GLM-4 is known by its vocabulary.
    LARQL_CHECK_ERROR(tiny_gguf("chatglm").number("rope.freq_base", 5e5F).blocks(), errc::not_understood,
                      "chatglm.rope.freq_base is 500000, and \"chatglm\" has 10000");
    CHECK(tiny_gguf("chatglm").integer("vocab_size", 151552).number("rope.freq_base", 5e5F).blocks()[0].rope.theta ==
          5e5);

    // Granite's switch of rotation.
    LARQL_CHECK_ERROR(
        tiny_gguf("granite").number("attention.scale", 0.5F).flag("rope.scaling.finetuned", false).blocks(),
        errc::not_understood, "granite.rope.scaling.finetuned is false");
}

TEST_CASE("gqa families: a GGUF says which layers see a window, and what rotates and how many heads there are") {
    using flags = std::vector<bool>;
    const auto windows = [](const std::vector<attention_spec>& blocks) {
        list sizes;
        for (const attention_spec& spec : blocks) sizes.push_back(spec.sliding_window);
        return sizes;
    };
    const auto laguna = tiny_gguf("laguna").integer("attention.sliding_window", 7).number("rope.freq_base_swa", 20.0F);
    CHECK(windows(laguna.blocks()) == list{0, 7, 7, 7});
    CHECK(windows(tiny_gguf("laguna").blocks()) == list{0, 0, 0, 0});
    const auto listed = tiny_gguf(laguna).flags(larql::detail::gguf_windows, {true, false, false, true});
    CHECK(windows(listed.blocks()) == list{7, 0, 0, 7});
    CHECK(listed.blocks()[0].rope.theta == 20.0);
    CHECK(listed.blocks()[0].geometry.qk_rope_head_dim == 4);
    CHECK(tiny_gguf(listed).integer("rope.dimension_count", 2).blocks()[0].geometry.qk_rope_head_dim == 2);
    const auto own = tiny_gguf(listed).integer("rope.dimension_count", 2).integer("rope.dimension_count_swa", 4);
    CHECK(own.blocks()[0].geometry.qk_rope_head_dim == 4);
    CHECK(own.blocks()[1].geometry.qk_rope_head_dim == 2);
    LARQL_CHECK_ERROR(tiny_gguf("laguna").integer("attention.sliding_window", 7).blocks(), errc::missing_key,
                      "laguna.rope.freq_base_swa: required and absent");
    LARQL_CHECK_ERROR(tiny_gguf(laguna).integer(larql::detail::gguf_windows, 2).blocks(), errc::wrong_type,
                      "laguna.attention.sliding_window_pattern: expected a flag for each layer");
    LARQL_CHECK_ERROR(tiny_gguf("mimo2").integer("attention.sliding_window", 7).blocks(), errc::missing_key,
                      "mimo2.attention.sliding_window_pattern");

    // Windows of OLMo 3 have the base of the others, if they have none of their own; without any it is an OLMo 2.
    const auto olmo = [] { return tiny_gguf("olmo2").number("rope.freq_base", 300.0F); };
    CHECK(windows(olmo().integer("attention.sliding_window", 7).blocks()) == list{7, 7, 7, 0});
    CHECK(olmo().integer("attention.sliding_window", 7).blocks()[0].rope.theta == 300.0);
    CHECK(olmo().blocks()[0].rope.theta == 300.0);
    CHECK(windows(olmo().blocks()) == list{0, 0, 0, 0});
    CHECK(olmo().config().family == "olmo2");

    // Half of a head, and divisors for it alone.
    const auto step = [](const std::vector<float>& divisors) {
        tiny_gguf file("step35");
        file.integer("attention.sliding_window", 7).number("rope.freq_base_swa", 20.0F);
        file.flags(larql::detail::gguf_windows, flags{false, true, true, true});
        return file.tensor("rope_freqs.weight", divisors);
    };
    CHECK(step({3.0F, 1.0F}).blocks()[0].geometry.qk_rope_head_dim == 2);
    CHECK(step({3.0F, 1.0F}).blocks()[0].rope.divisors == std::vector<double>{3.0});
    CHECK(step({3.0F, 1.0F}).blocks()[1].geometry.qk_rope_head_dim == 4);
    CHECK(step({3.0F, 1.0F}).blocks()[1].rope.divisors.empty());
    LARQL_CHECK_ERROR(step({3.0F, 2.0F}).blocks(), errc::not_understood, "elements that do not rotate");

    // Lists of heads: a number for each layer, and no layer without, but where layers may have no attention.
    const auto heads = [](const std::string& architecture, const std::vector<unsigned>& query,
                          const std::vector<unsigned>& key) {
        tiny_gguf file(architecture);
        return file.integers("attention.head_count", query).integers("attention.head_count_kv", key);
    };
    CHECK(heads("laguna", {4, 6, 8, 2}, {2, 2, 2, 1}).blocks()[1].geometry.num_heads == 6);
    CHECK(heads("laguna", {4, 6, 8, 2}, {2, 2, 2, 1}).blocks()[3].geometry.kv_heads() == 1);
    LARQL_CHECK_ERROR(heads("laguna", {4, 6, 8}, {2, 2, 2, 1}).blocks(), errc::bad_value,
                      "laguna.attention.head_count: expected 4 numbers, got 3");
    LARQL_CHECK_ERROR(heads("laguna", {4, 6, 0, 2}, {2, 2, 2, 1}).blocks(), errc::bad_value,
                      "laguna.attention.head_count[2]: expected 1 to 1048576, got 0");
    list with_attention;
    for (const attention_spec& spec : heads("deci", {4, 0, 4, 4}, {2, 0, 0, 4}).blocks())
        with_attention.push_back(spec.layer);
    CHECK(with_attention == list{0, 3});
    LARQL_CHECK_ERROR(heads("llama", {4, 4, 4, 4}, {2, 1, 2, 2}).blocks(), errc::unsupported_architecture,
                      "llama.attention.head_count_kv: differs from layer to layer");

    const auto layers_of = [](const tiny_gguf& file) {
        list layers;
        for (const attention_spec& spec : file.blocks()) layers.push_back(spec.layer);
        return layers;
    };
    CHECK(layers_of(tiny_gguf("qwen35")) == list{3});
    CHECK(layers_of(tiny_gguf("qwen35").integer("full_attention_interval", 2)) == list{1, 3});
    LARQL_CHECK_ERROR(tiny_gguf("qwen35").integer("full_attention_interval", 0).blocks(), errc::bad_value,
                      "qwen35.full_attention_interval: expected 1 to");

    // Heads of Gemma 4 rotate whole, of either size.
    const auto gemma = [](unsigned rotated, unsigned rotated_of_windows) {
        tiny_gguf file("gemma4");
        file.integer("attention.sliding_window", 7).number("rope.freq_base_swa", 20.0F);
        file.flags(larql::detail::gguf_windows, flags{true, false, true, false});
        file.integer("attention.key_length_swa", 2).integer("attention.value_length_swa", 2);
        file.integer("rope.dimension_count", rotated).integer("rope.dimension_count_swa", rotated_of_windows);
        return file.blocks();
    };
    CHECK(gemma(4, 2)[0].geometry.qk_head_dim() == 2);
    CHECK(gemma(4, 2)[1].geometry.qk_head_dim() == 4);
    LARQL_CHECK_ERROR(gemma(2, 2), errc::shape_mismatch, "gemma4.rope.dimension_count: is 2");
    LARQL_CHECK_ERROR(gemma(4, 4), errc::shape_mismatch, "gemma4.rope.dimension_count_swa: is 4, and heads have 2");
}

TEST_CASE("gqa families: phi3 takes the rope type \"yarn\" for longrope") {
    const std::vector<double> factors(4, 2.0);
    const json rope{{"type", "yarn"}, {"short_factor", factors}, {"long_factor", factors}, {"factor", 2.0}};
    CHECK(blocks_of("phi3", {{"rope_scaling", rope}})[0].rope.kind == larql::rope_kind::longrope);
}

TEST_CASE("gqa families: which blocks have a window when layer_types do not say so") {
    CHECK(windows_of("gemma2", {{"sliding_window", 7}}) == list{7, 0, 7, 0});
    CHECK(windows_of("gemma3_text", {{"sliding_window", 7}, {"num_hidden_layers", 7}}) == list{7, 7, 7, 7, 7, 0, 7});
    CHECK(windows_of("gemma3_text", {{"sliding_window", 7}, {"sliding_window_pattern", 2}}) == list{7, 0, 7, 0});
    CHECK(windows_of("gemma3_text") == list{4096, 4096, 4096, 4096});
    CHECK(windows_of("gemma3_text", {{"sliding_window", nullptr}}) == list{0, 0, 0, 0});
    CHECK(windows_of("exaone4", {{"sliding_window", 7}, {"sliding_window_pattern", "LG"}}) == list{7, 0, 7, 0});
    CHECK(windows_of("qwen2_moe", {{"sliding_window", 7}}) == list{0, 0, 0, 0});
    CHECK(windows_of("qwen2_moe", {{"sliding_window", 7}, {"use_sliding_window", true}, {"max_window_layers", 2}}) ==
          list{7, 0, 0, 0});
    CHECK(windows_of("ministral", {{"sliding_window", 7}}) == list{7, 7, 7, 7});
    CHECK(windows_of("qwen3_moe", {{"sliding_window", 7}}) == list{0, 0, 0, 0});
    CHECK(windows_of("phi3") == list{0, 0, 0, 0});
    LARQL_CHECK_ERROR_TEXT(problem_of("exaone4", {{"sliding_window_pattern", "LGLG"}}), errc::bad_value,
                           "sliding_window_pattern: expected a number of blocks");
    LARQL_CHECK_ERROR_TEXT(problem_of("gemma2", {{"layer_types", {"full_attention"}}}), errc::bad_value,
                           "layer_types: expected 4 entries, got 1");
    LARQL_CHECK_ERROR_TEXT(problem_of("gemma2", {{"layer_types", json::array({"linear_attention", "full_attention",
                                                                              "full_attention", "full_attention"})}}),
                           errc::not_understood, "layer type \"linear_attention\" is unknown");
}

TEST_CASE("gqa families: hybrids say which layers have attention, and of how many groups") {
    const auto layers = [](const std::string& type, const json& more) {
        list with_attention;
        for (const auto& spec : blocks_of(type, more)) with_attention.push_back(spec.layer);
        return with_attention;
    };
    CHECK(layers("jamba", {{"attn_layer_period", 2}, {"attn_layer_offset", 1}}) == list{1, 3});
    CHECK(layers("jamba", {{"num_hidden_layers", 16}}) == list{4, 12});
    LARQL_CHECK_ERROR_TEXT(problem_of("jamba", {{"attn_layer_period", 2}, {"attn_layer_offset", 2}}), errc::bad_value,
                           "attn_layer_offset: expected less than attn_layer_period 2, got 2");
    CHECK(layers("mllama_text_model", {{"cross_attention_layers", {0, 3}}}) == list{1, 2});
    LARQL_CHECK_ERROR_TEXT(problem_of("mllama_text_model", {{"cross_attention_layers", {4}}}), errc::bad_value,
                           "cross_attention_layers: expected numbers from 0 to 3");
    LARQL_CHECK_ERROR_TEXT(problem_of("mllama_text_model", json::object()), errc::missing_key,
                           "cross_attention_layers: required and absent");
    const json whole(4, "full_attention");
    const auto pairing = [&](const json& position) {
        return blocks_of("granitemoehybrid", {{"layer_types", whole}, {"position_embedding_type", position}})[0]
            .geometry.pairing;
    };
    CHECK(pairing("rope") == larql::rope_pairing::half_split);
    for (const json& other : {json("nope"), json()}) CHECK(pairing(other) == larql::rope_pairing::none);
    CHECK(problem_of("llama", {{"position_embedding_type", "rope"}}) == "no error");
    LARQL_CHECK_ERROR_TEXT(
        problem_of("granitemoehybrid", {{"layer_types", whole}, {"position_embedding_type", "alibi"}}),
        errc::not_understood, "position_embedding_type is \"alibi\"");
    const json group{{"attention", {{"n_heads_in_group", 2}}}}, none{{"attention", {{"no_op", true}}}};
    json odd = group, window = group;
    odd["attention"]["n_heads_in_group"] = 3;
    window["attention"]["window_length"] = 7;
    const auto blocks = [&](const json& second) {
        return json{{"num_key_value_heads", nullptr}, {"block_configs", {group, second, none, group}}};
    };
    CHECK(layers("nemotron-nas", blocks(none)) == list{0, 3});
    CHECK(blocks_of("nemotron-nas", blocks(none))[1].geometry.kv_heads() == 2);
    LARQL_CHECK_ERROR_TEXT(problem_of("nemotron-nas", blocks(odd)), errc::bad_value,
                           "block_configs[1].attention.n_heads_in_group: expected a divisor of num_attention_heads 4");
    LARQL_CHECK_ERROR_TEXT(problem_of("nemotron-nas", blocks(window)), errc::not_understood,
                           "block_configs[1].attention.window_length (7) is unknown");
    LARQL_CHECK_ERROR_TEXT(problem_of("nemotron-nas", json::object()), errc::missing_key, "block_configs: required");
}

TEST_CASE("gqa families: MiMo-V2's blocks with a window have sinks, and heads of their own number") {
    const json base{{"head_dim", 8}, {"v_head_dim", 6}, {"rope_theta", nullptr}, {"num_key_value_heads", 2}};
    const auto blocks = [&](const json& more) {
        json all = base;
        all.update(more);
        return blocks_of("mimo_v2_flash", all);
    };
    const auto problem = [&](const json& more) { return larql::testing::error_of([&] { return blocks(more); }); };
    const auto plain = blocks(json::object());
    CHECK_FALSE(plain[0].sinks);
    CHECK(plain[1].sinks);
    CHECK(plain[1].sliding_window == 129);
    CHECK(plain[1].geometry.kv_heads() == 2 * plain[0].geometry.kv_heads());
    CHECK(plain[1].rope.theta == 10000.0);
    CHECK(plain[0].rope.theta == 5000000.0);
    CHECK(plain[0].value_scale == 0.707);
    CHECK(blocks({{"sliding_window", 7}})[1].sliding_window == 7);
    CHECK(blocks({{"sliding_window", 7}, {"sliding_window_size", 7}})[1].sliding_window == 8);
    CHECK(blocks({{"swa_num_key_value_heads", 1}})[1].geometry.kv_heads() == 1);
    CHECK(blocks({{"hybrid_layer_pattern", {0, 1, 1, 1}}})[3].sliding_window == 129);
    LARQL_CHECK_ERROR_TEXT(problem({{"hybrid_layer_pattern", {0, 1, 1, 0}}}), errc::not_understood,
                           "hybrid_layer_pattern names other blocks");
    for (const json& theta : {json(5000000), json(5e6)}) CHECK(problem({{"rope_theta", theta}}) == "no error");
    LARQL_CHECK_ERROR_TEXT(problem({{"rope_theta", 500}}), errc::not_understood, "rope_theta is 500");
    LARQL_CHECK_ERROR_TEXT(problem({{"add_full_attention_sink_bias", true}}), errc::not_understood,
                           "add_full_attention_sink_bias is true");
    json chunked = base;
    chunked["attention_chunk_size"] = 128;
    const auto model = parse_model_config(config_of("mimo_v2_flash", chunked));
    CHECK(model.unused_chunk_size == 128);
    CHECK(model.blocks[1].chunk == 0);
}

TEST_CASE("gqa families: GPT-Neo says the types of its blocks by repetition") {
    const auto windows = [](const json& types) { return windows_of("gpt_neo", {{"attention_types", types}}); };
    CHECK(windows({{{"global", "local"}, 2}}) == list{0, 256, 0, 256});
    CHECK(windows({{{"local"}, 1}, {{"global"}, 3}}) == list{256, 0, 0, 0});
    const auto problem = [](const json& types) { return problem_of("gpt_neo", {{"attention_types", types}}); };
    LARQL_CHECK_ERROR_TEXT(problem({{{"global"}, 2}}), errc::bad_value, "attention_types: expected 4 entries, got 2");
    LARQL_CHECK_ERROR_TEXT(problem({{{"global"}, -2}}), errc::wrong_type,
                           "attention_types: expected a list of strings");
    LARQL_CHECK_ERROR_TEXT(problem({{{"global"}, 1U << 30}}), errc::bad_value, "at most 4096 strings");
    LARQL_CHECK_ERROR_TEXT(problem({{{"global", "sparse"}, 2}}), errc::not_understood, "\"sparse\" is unknown");
}

TEST_CASE("gqa families: rows of one model_type are told apart by classes and by keys") {
    const auto family = [](const std::string& type, const json& more) {
        return parse_model_config(config_of(type, more)).family;
    };
    const auto problem = [&](const std::string& type, const json& more) {
        return larql::testing::error_of([&] { return family(type, more); });
    };
    const json eagle{{"architectures", {"LlamaForCausalLMEagle3"}}, {"num_hidden_layers", 1}};
    CHECK(family("llama", json::object()) == "llama");
    CHECK(family("llama", {{"num_hidden_layers", 1}}) == "llama");
    CHECK(family("llama", eagle) == "llama_eagle3");
    CHECK(blocks_of("llama", eagle)[0].input_width() == 2 * blocks_of("llama")[0].input_width());
    LARQL_CHECK_ERROR_TEXT(problem("llama", {{"architectures", {"LlamaForCausalLMEagle3"}}}), errc::not_understood,
                           "num_hidden_layers is 4, and \"llama_eagle3\" has 1");
    const json latent{{"kv_lora_rank", 4},
                      {"q_lora_rank", nullptr},
                      {"qk_nope_head_dim", 4},
                      {"qk_rope_head_dim", 4},
                      {"v_head_dim", 4}};
    json plain{{"use_mla", false}, {"kv_lora_rank", nullptr}};
    CHECK(family("deepseek_v2", latent) == "deepseek_v2");
    CHECK(family("deepseek_v2", plain) == "deepseek_v2_mha");
    plain["kv_lora_rank"] = 4;
    LARQL_CHECK_ERROR_TEXT(problem("deepseek_v2", plain), errc::not_understood, "kv_lora_rank is 4, which");
    CHECK(family("minicpmv", {{"version", 2.6}}) == "minicpmv_qwen2");
    for (const json& version : {json(4.0), json(4), json("4.0")})
        CHECK(family("minicpmv", {{"version", version}}) == "minicpmv_llama");
    CHECK(family("minicpmv", {{"version", 4.5}}) == "minicpmv_qwen3");
    LARQL_CHECK_ERROR_TEXT(problem("minicpmv", {{"version", 3.0}}), errc::unsupported_architecture,
                           "larql does not implement \"minicpmv\" whose \"version\" is 3.0");
    LARQL_CHECK_ERROR_TEXT(problem("minicpmv", json::object()), errc::unsupported_architecture,
                           "larql does not implement \"minicpmv\" whose \"version\" is absent");
    const json small{{"hidden_size", 4096}, {"num_attention_heads", 32}, {"num_key_value_heads", 32}};
    CHECK(family("baichuan", small) == "baichuan");
    CHECK(blocks_of("baichuan", small)[0].alibi == 0.0);
    const auto baichuan = [&](const json& more, bool positions) {
        json config = config_of("baichuan", small);
        config.update(more);
        if (!positions) config.erase("max_position_embeddings");
        return larql::testing::error_of([&] { return parse_model_config(config); });
    };
    const json large{{"hidden_size", 5120}, {"rope_theta", nullptr}};
    CHECK(baichuan(large, false) == "no error");
    LARQL_CHECK_ERROR_TEXT(baichuan(large, true), errc::not_understood, "hidden_size is 5120");
    LARQL_CHECK_ERROR_TEXT(baichuan({{"rope_theta", nullptr}}, false), errc::not_understood, "hidden_size is 4096");
    LARQL_CHECK_ERROR_TEXT(baichuan({{"rope_theta", 500}}, true), errc::not_understood, "rope_theta is 500");
    json first{{"architectures", {"BaiChuanForCausalLM"}}};
    CHECK(baichuan(first, true) == "no error");
    first.update(large);
    LARQL_CHECK_ERROR_TEXT(baichuan(first, false), errc::unsupported_architecture,
                           "whose \"max_position_embeddings\" is absent");
}

TEST_CASE("gqa families: a ChatGLM's rope_ratio is read where its meaning is certain") {
    const auto rope = [](const json& more) { return blocks_of("chatglm", more)[0].rope; };
    const auto problem = [](const json& more) { return problem_of("chatglm", more); };
    CHECK(rope({{"rope_ratio", 500}, {"padded_vocab_size", 151552}}).theta == 5e6);
    for (const json& one : {json(1), json(1.0), json()}) CHECK(rope({{"rope_ratio", one}}).theta == 1e4);
    for (const json& vocabulary : {json(65024), json()}) {
        const std::string text = problem({{"rope_ratio", 50}, {"padded_vocab_size", vocabulary}});
        LARQL_CHECK_ERROR_TEXT(text, errc::not_understood, "rope_ratio is 50");
        CHECK(text.find("divides positions") != std::string::npos);
        CHECK(text.find("rope_theta or a linear rope_scaling") != std::string::npos);
    }
    // What the message offers.
    CHECK(rope({{"rope_ratio", 1}, {"rope_theta", 5e5}}).theta == 5e5);
    CHECK(rope({{"rope_ratio", 1}, {"rope_scaling", {{"type", "linear"}, {"factor", 50}}}}).factor == 50.0);
    LARQL_CHECK_ERROR_TEXT(problem({{"rope_scaling", {{"type", "dynamic"}, {"factor", 2}}}}), errc::not_understood,
                           "rope_scaling.type: \"chatglm\" has no rope type \"dynamic\"");
}

TEST_CASE("gqa families: rope dictionaries that a family's code does not read are refused") {
    const json linear{{"type", "linear"}, {"factor", 2.0}};
    const auto sizes = [](const std::string& type) -> json {
        if (type == "gptj" || type == "codegen" || type == "phi-msft") return {{"rotary_dim", 4}};
        if (type == "qwen") return {{"seq_length", 64}, {"rotary_emb_base", 10000}};
        if (type == "chatglm") return {{"padded_vocab_size", 151552}};
        if (type != "baichuan") return json::object();
        return {{"hidden_size", 4096}, {"num_attention_heads", 32}, {"num_key_value_heads", 32}};
    };
    for (const char* type : {"gptj", "codegen", "phi-msft", "baichuan", "qwen", "molmo", "chatglm", "stablelm_epoch"})
        for (const char* key : {"rope_scaling", "rope_parameters"}) {
            CAPTURE(std::string(type));
            json more = sizes(type);
            more[key] = nullptr;
            CHECK(problem_of(type, more) == "no error");
            more[key] = linear;
            LARQL_CHECK_ERROR_TEXT(problem_of(type, more), errc::not_understood, key);
        }
    for (const char* type : {"gptj", "codegen", "phi-msft"})
        LARQL_CHECK_ERROR_TEXT(problem_of(type, {{"rotary_dim", 4}, {"rope_theta", 500}}), errc::not_understood,
                               "rope_theta is 500");
    LARQL_CHECK_ERROR_TEXT(problem_of("qwen", {{"seq_length", 64}}), errc::not_understood,
                           "rope_theta is 10000.0, which \"qwen\" does not read, and rotary_emb_base");
    const json mimo{{"v_head_dim", 6}, {"rope_theta", nullptr}, {"rope_parameters", {{"rope_type", "default"}}}};
    LARQL_CHECK_ERROR_TEXT(problem_of("mimo_v2_flash", mimo), errc::not_understood,
                           "reads no rope dictionary but by layer type");
    LARQL_CHECK_ERROR_TEXT(problem_of("phimoe", {{"rope_scaling", linear}}), errc::not_understood,
                           "rope_scaling.type: \"phimoe\" has no rope type \"linear\"");
    CHECK(problem_of("phimoe", {{"rope_scaling", {{"type", "default"}}}}) == "no error");
    LARQL_CHECK_ERROR_TEXT(problem_of("phi4mm", {{"rope_scaling", linear}}), errc::not_understood,
                           "rope_scaling.type: \"phi4mm\" has no rope type \"linear\"");
    LARQL_CHECK_ERROR_TEXT(problem_of("molmo", {{"rope", false}}), errc::not_understood, "rope is false");
    CHECK(problem_of("molmo", {{"rope", true}}) == "no error");
}

TEST_CASE("gqa families: Phi-4-multimodal's magnitude goes by its lengths") {
    const auto magnitude = [](double longest, const json& stated) {
        const std::vector<double> factors(4, 2.0);
        json rope{{"type", "longrope"}, {"short_factor", factors}, {"long_factor", factors}};
        rope.update(stated);
        const json more{{"rope_scaling", rope},
                        {"max_position_embeddings", static_cast<std::size_t>(longest)},
                        {"original_max_position_embeddings", 16}};
        return larql::make_rope_table(blocks_of("phi4mm", more)[0].rope).magnitude;
    };
    const double fourfold = std::sqrt(1.5);
    CHECK(magnitude(64, json::object()) == doctest::Approx(fourfold).epsilon(1e-12));
    CHECK(magnitude(64, {{"factor", 8.0}, {"attention_factor", 3.0}}) == doctest::Approx(fourfold).epsilon(1e-12));
    for (const double longest : {8.0, 16.0}) CHECK(magnitude(longest, {{"factor", 8.0}}) == 1.0);
}

TEST_CASE("gqa families: a number of rotated elements is taken as it is, and fits a head") {
    for (const char* type : {"gptj", "codegen", "phi-msft"}) {
        CAPTURE(std::string(type));
        CHECK(rotated_of(type, {{"rotary_dim", 6}}) == list{6, 6, 6, 6});
        LARQL_CHECK_ERROR_TEXT(problem_of(type, {{"rotary_dim", 10}}), errc::bad_value,
                               "rotary_dim: expected at most 8, the elements of a head, got 10");
        LARQL_CHECK_ERROR_TEXT(problem_of(type, {{"rotary_dim", nullptr}}), errc::missing_key,
                               "rotary_dim: required and null");
        LARQL_CHECK_ERROR_TEXT(problem_of(type, json::object()), errc::bad_value, "rotary_dim: expected at most 8");
    }
    // In doubles, 44 * (30 / 44) is below 30.
    CHECK(rotated_of("minimax_m2", {{"head_dim", 44}, {"rotary_dim", 30}}) == list{30, 30, 30, 30});
    LARQL_CHECK_ERROR_TEXT(problem_of("minimax_m2", {{"rotary_dim", 16}}), errc::bad_value, "expected at most 8");
}

TEST_CASE("gqa families: half of Bamba's heads rotate, unless its rope dictionary says otherwise") {
    const auto more = [](const json& stated) {
        json config{{"attn_layer_indices", {0, 1, 2, 3}}};
        config.update(stated);
        return config;
    };
    const auto rotated = [&](const json& stated) { return rotated_of("bamba", more(stated))[0]; };
    const auto problem = [&](const json& stated) { return problem_of("bamba", more(stated)); };
    const json whole{{"rope_parameters", {{"rope_type", "default"}, {"partial_rotary_factor", 1.0}}}};
    CHECK(rotated(json::object()) == 4);
    CHECK(rotated(whole) == 8);
    CHECK(rotated({{"attn_rotary_emb", 4}}) == 4);
    CHECK(rotated({{"partial_rotary_factor", 0.5}}) == 4);
    LARQL_CHECK_ERROR_TEXT(problem({{"attn_rotary_emb", 8}}), errc::not_understood,
                           "attn_rotary_emb is 8, which \"bamba\" does not read");
    LARQL_CHECK_ERROR_TEXT(problem({{"partial_rotary_factor", 0.25}}), errc::not_understood,
                           "partial_rotary_factor is 0.25");
}

TEST_CASE("gqa families: XVERSE has no default base") {
    json config = config_of("xverse", json::object());
    CHECK(parse_model_config(config).blocks[0].rope.theta == 1e4);
    config.erase("rope_theta");
    LARQL_CHECK_ERROR(parse_model_config(config), errc::missing_key, "rope_theta: required and absent");
}

TEST_CASE("gqa families: keys of other parts than attention, and those that say what is always so") {
    CHECK(problem_of("mimo", {{"attention_bias", true}}) == "no error");
    LARQL_CHECK_ERROR_TEXT(problem_of("mimo", {{"attention_bias", false}}), errc::not_understood,
                           "attention_bias is false");
    CHECK(problem_of("jamba", {{"num_hidden_layers", 8}, {"mamba_inner_layernorms", true}}) == "no error");
    CHECK(problem_of("llama", {{"architectures", {"LlamaForCausalLMEagle3"}},
                               {"num_hidden_layers", 1},
                               {"norm_before_residual", true}}) == "no error");
    CHECK(problem_of("stablelm_epoch", {{"rotary_scaling_factor", 1.0}}) == "no error");
    LARQL_CHECK_ERROR_TEXT(problem_of("stablelm_epoch", {{"rotary_scaling_factor", 2.0}}), errc::not_understood,
                           "rotary_scaling_factor is 2.0");
}

TEST_CASE("gqa families: MLC's word for a window may repeat transformers' own") {
    CHECK(windows_of("mistral", {{"sliding_window", 7}, {"sliding_window_size", 7}}) == list{7, 7, 7, 7});
    CHECK(windows_of("mistral", {{"sliding_window", 7}, {"attention_sink_size", 0}}) == list{7, 7, 7, 7});
    for (const json& other : {json(8), json()})
        LARQL_CHECK_ERROR_TEXT(problem_of("mistral", {{"sliding_window", other}, {"sliding_window_size", 7}}),
                               errc::not_understood, "sliding_window_size is 7");
    LARQL_CHECK_ERROR_TEXT(problem_of("mistral", {{"sliding_window_size", 7}}), errc::not_understood,
                           "sliding_window does not say the same");
    LARQL_CHECK_ERROR_TEXT(problem_of("mistral", {{"attention_sink_size", 4}}), errc::not_understood,
                           "attention_sink_size");
    LARQL_CHECK_ERROR_TEXT(problem_of("llama", {{"attention_sink_size", 4}}), errc::not_understood,
                           "attention_sink_size");
}

TEST_CASE("gqa families: the first Qwen's frequencies and queries follow the length beyond that of training") {
    const auto block = [](const json& more) {
        json config{{"seq_length", 16}, {"head_dim", 8}, {"num_key_value_heads", nullptr}, {"rotary_emb_base", 10000}};
        config.update(more);
        return blocks_of("qwen", config)[0];
    };
    const auto second = [&](double length) {
        return larql::make_rope_table(block(json::object()).rope, length).frequencies[1];
    };
    const auto scaled = [](double alpha) { return std::pow(1e4 * std::pow(alpha, 8.0 / 6.0), -2.0 / 8.0); };
    for (const double length : {1.0, 16.0}) CHECK(second(length) == doctest::Approx(scaled(1.0)).epsilon(1e-12));
    for (const double length : {17.0, 32.0}) CHECK(second(length) == doctest::Approx(scaled(3.0)).epsilon(1e-12));
    CHECK(second(33.0) == doctest::Approx(scaled(7.0)).epsilon(1e-12));
    CHECK(block(json::object()).temperature.logarithmic);
    CHECK(block({{"use_logn_attn", false}}).temperature.scale == 0.0);
    CHECK(block({{"use_dynamic_ntk", false}}).rope.kind == larql::rope_kind::standard);
    // A later call would go on with the frequencies of the first one, which a cache does not hold.
    const checkpoint model = checkpoint::open(data() + "/hf/qwen");  // trained on 12
    const auto attention = model.attention(0, larql::attention_form::factored);
    auto cache = attention.make_cache(20);
    const auto tokens = [&](std::size_t count) {
        auto x = larql::tensor<float, 2>::from_shape({count, attention.spec().input_width()});
        x.fill(1.0F);
        return attention.forward(x, cache).out.shape(0);
    };
    CHECK(tokens(7) == 7);
    CHECK(tokens(5) == 5);
    LARQL_CHECK_ERROR(tokens(1), errc::bad_value, "a sequence of 13 tokens in several calls");
    CHECK(cache.size() == 12);
    cache.truncate(0);
    CHECK(tokens(13) == 13);
    LARQL_CHECK_ERROR(tokens(1), errc::bad_value, "passes the trained length, 12");
    // What is left of a longer call was rotated for that call's length, however little is left, and wherever it went.
    cache.truncate(4);
    LARQL_CHECK_ERROR(tokens(1), errc::bad_value, "a sequence of 13 tokens in several calls");
    auto moved = std::move(cache);
    CHECK(moved.longest() == 13);
    cache = std::move(moved);
    LARQL_CHECK_ERROR(tokens(1), errc::bad_value, "a sequence of 13 tokens in several calls");
    CHECK(cache.size() == 4);
    cache.clear();
    CHECK(cache.longest() == 0);
    CHECK(tokens(4) == 4);
    CHECK(tokens(1) == 1);
}

TEST_CASE("gqa families: which blocks do not rotate") {
    const json window{{"sliding_window", 7}};
    CHECK(rotated_of("cohere2", window) == list{8, 8, 8, 0});
    CHECK(rotated_of("exaone4", window) == list{8, 8, 8, 0});
    CHECK(rotated_of("exaone4", {{"sliding_window", nullptr}}) == list{8, 8, 8, 8});
    CHECK(rotated_of("smollm3") == list{8, 8, 8, 0});
    CHECK(rotated_of("smollm3", {{"no_rope_layer_interval", 2}}) == list{8, 0, 8, 0});
    CHECK(rotated_of("smollm3", {{"no_rope_layers", {0, 1, 1, 0}}}) == list{0, 8, 8, 0});
    CHECK(rotated_of("smollm3", {{"no_rope_layers", json::array()}}) == list{8, 8, 8, 0});
    LARQL_CHECK_ERROR_TEXT(problem_of("smollm3", {{"no_rope_layers", {1, 0}}}), errc::bad_value,
                           "no_rope_layers: expected 4 entries, got 2");
}

TEST_CASE("gqa families: llama4's chunks and norms are where it rotates, its temperature where it does not") {
    const auto blocks = blocks_of("llama4_text", {{"attention_chunk_size", 12}});
    CHECK(blocks[0].chunk == 12);
    CHECK(blocks[0].q_norm.kind == larql::norm_kind::rms);
    CHECK(blocks[0].temperature.scale == 0.0);
    CHECK(blocks[3].chunk == 0);
    CHECK(blocks[3].q_norm.kind == larql::norm_kind::none);
    CHECK(blocks[3].temperature.scale == 0.1);
    CHECK(blocks[3].temperature.length == 8192.0);
    CHECK(blocks_of("llama4_text", {{"attn_temperature_tuning", false}})[3].temperature.scale == 0.0);
    CHECK(blocks_of("llama4_text", {{"use_qk_norm", false}})[0].q_norm.kind == larql::norm_kind::none);
    LARQL_CHECK_ERROR_TEXT(problem_of("smollm3", {{"layer_types", json::array({"chunked_attention", "full_attention",
                                                                               "full_attention", "full_attention"})}}),
                           errc::not_understood, "layer type \"chunked_attention\" is unknown");
}

TEST_CASE("gqa families: a rope dictionary of gemma3 is for blocks that see all keys") {
    const auto blocks = blocks_of(
        "gemma3_text", {{"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}}, {"sliding_window_pattern", 2}});
    CHECK(blocks[0].rope.theta == 10000.0);
    CHECK(blocks[0].rope.kind == larql::rope_kind::standard);
    CHECK(blocks[1].rope.kind == larql::rope_kind::linear);
    CHECK(blocks_of("gemma3_text", {{"rope_local_base_freq", 500.0}})[0].rope.theta == 500.0);
}

TEST_CASE("gqa families: defaults are those of transformers' classes") {
    CHECK(blocks_of("gemma2")[0].softcap == 50.0);
    CHECK(blocks_of("gemma2", {{"attn_logit_softcapping", nullptr}})[0].softcap == 0.0);
    CHECK(blocks_of("gemma2")[0].scale == 1.0 / 16.0);
    CHECK(blocks_of("granitemoe")[0].scale == 1.0);
    CHECK(blocks_of("starcoder2")[0].biases.contains(tensor_role::o));
    CHECK(blocks_of("starcoder2", {{"use_bias", false}})[0].biases.empty());
    CHECK(blocks_of("seed_oss")[0].biases == larql::role_set{tensor_role::q, tensor_role::k, tensor_role::v});
    const auto groups = [&](const char* type, const json& more) {
        json config = config_of(type, more);
        config.erase("num_key_value_heads");
        return parse_model_config(config).blocks[0].geometry.kv_heads();
    };
    const json heads{{"num_attention_heads", 16}};
    for (const char* type : {"phimoe", "jamba", "bamba", "mllama_text_model"}) {
        json more = heads;
        if (std::string_view(type) == "jamba") more["num_hidden_layers"] = 8;
        if (std::string_view(type) == "bamba") more["attn_layer_indices"] = {0};
        if (std::string_view(type) == "mllama_text_model") more["cross_attention_layers"] = {3};
        CHECK_MESSAGE(groups(type, more) == 8, type);
    }
    for (const char* type : {"qwen2_5_omni_text", "qwen3_omni_moe_text"}) CHECK_MESSAGE(groups(type, heads) == 4, type);
    CHECK(groups("mimo_v2_flash", {{"num_attention_heads", 16}, {"v_head_dim", 6}, {"rope_theta", nullptr}}) == 4);
    for (const char* half : {"glm4", "glm4_moe", "nemotron", "phi", "persimmon"})
        CHECK_MESSAGE(blocks_of(half)[0].geometry.qk_rope_head_dim == 4, half);
    for (const char* quarter : {"stablelm", "gpt_neox", "qwen3_next"})
        CHECK_MESSAGE(blocks_of(quarter).back().geometry.qk_rope_head_dim == 2, quarter);
    CHECK(blocks_of("persimmon")[0].q_norm.kind == larql::norm_kind::layer);
    CHECK(blocks_of("phi")[0].q_norm.kind == larql::norm_kind::none);
    CHECK(blocks_of("minimax_m2", {{"rotary_dim", 4}})[0].geometry.qk_rope_head_dim == 4);
    const json falcon{{"head_dim", nullptr}, {"num_key_value_heads", nullptr}};
    CHECK(blocks_of("falcon", falcon)[0].geometry.kv_heads() == 1);
    for (const char* type : {"gpt_oss", "apertus", "ministral3"})
        LARQL_CHECK_ERROR_TEXT(problem_of(type, json::object()), errc::missing_key,
                               "rope_parameters: required and absent");
}

TEST_CASE("gqa families: gemma4's blocks that see all keys have heads of another size, and keys as values") {
    const json ropes{{"full_attention", {{"rope_type", "proportional"}, {"partial_rotary_factor", 0.25}}},
                     {"sliding_attention", {{"rope_type", "default"}}}};
    json more{{"rope_parameters", ropes},
              {"sliding_window_pattern", 2},
              {"attention_k_eq_v", true},
              {"global_head_dim", 16},
              {"num_global_key_value_heads", 1}};
    for (auto& [type, rope] : more["rope_parameters"].items()) rope["rope_theta"] = 1e4;
    const auto blocks = blocks_of("gemma4_text", more);
    CHECK(blocks[0].geometry.v_head_dim == 8);
    CHECK(blocks[0].geometry.kv_heads() == 2);
    CHECK_FALSE(blocks[0].value_is_key);
    CHECK(blocks[1].geometry.v_head_dim == 16);
    CHECK(blocks[1].geometry.kv_heads() == 1);
    CHECK(blocks[1].value_is_key);
    CHECK(blocks[1].v_norm.kind == larql::norm_kind::rms);
    more["num_hidden_layers"] = 3;  // the last one sees all keys
    CHECK(blocks_of("gemma4_text", more)[2].sliding_window == 0);
    more["use_bidirectional_attention"] = "vision";
    CHECK(blocks_of("gemma4_text", more).size() == 3);
    more["use_bidirectional_attention"] = "all";
    LARQL_CHECK_ERROR_TEXT(problem_of("gemma4_text", more), errc::not_understood, "use_bidirectional_attention");
}

TEST_CASE("gqa families: layers of linear attention have no block") {
    const checkpoint model = checkpoint::open(data() + "/hf/qwen3_next");
    REQUIRE(model.attention_blocks() == 1);
    CHECK(model.spec(0).layer == 2);
    CHECK(model.config().num_hidden_layers == 3);
    std::vector<std::size_t> layers;
    json more = {{"num_hidden_layers", 9}};
    for (const auto& spec : blocks_of("qwen3_next", more)) layers.push_back(spec.layer);
    CHECK(layers == std::vector<std::size_t>{3, 7});  // every fourth by the class default
    const auto layers_of = [](const char* type, const json& config) {
        std::vector<std::size_t> with_attention;
        for (const auto& spec : blocks_of(type, config)) with_attention.push_back(spec.layer);
        return with_attention;
    };
    const auto problem = [&](const char* type, const json& config) {
        return larql::testing::error_of([&] { return layers_of(type, config); });
    };
    CHECK(layers_of("nemotron_h", {{"hybrid_override_pattern", "M*E-"}}) == list{1});
    LARQL_CHECK_ERROR_TEXT(problem("nemotron_h", {{"hybrid_override_pattern", "M*"}}), errc::bad_value,
                           "hybrid_override_pattern: expected 4 letters, got 2");
    LARQL_CHECK_ERROR_TEXT(problem("nemotron_h", {{"hybrid_override_pattern", "M*XM"}}), errc::not_understood,
                           "letters other than");
    CHECK(layers_of("nemotron_h", {{"layers_block_type", {"mamba", "attention", "moe", "attention"}}}) == list{1, 3});
    CHECK(layers_of("lfm2", {{"full_attn_idxs", {0, 3}}}) == list{0, 3});
    CHECK(layers_of("lfm2", json::object()) == list{0, 1, 2, 3});
    LARQL_CHECK_ERROR_TEXT(problem("lfm2", {{"full_attn_idxs", {4}}}), errc::bad_value,
                           "full_attn_idxs: expected numbers from 0 to 3");
}

TEST_CASE("gqa families: what changes a family's attention and is not computed is refused by name") {
    const std::pair<std::string, json> refused[] = {
        {"falcon", {{"alibi", true}}},
        {"stablelm", {{"qk_layernorm", true}}},
        {"gpt2", {{"scale_attn_by_inverse_layer_idx", true}}},
        {"gpt2", {{"scale_attn_weights", false}}},
        {"gemma2", {{"use_bidirectional_attention", true}}},
        {"gemma3_text", {{"attn_logit_softcapping", 30.0}}},
        {"olmo3", {{"rope_scaling", {{"rope_type", "default"}, {"short_mscale", 1.2}}}}},
        {"cohere2", {{"use_qk_norm", true}}},
        {"phi3", {{"clip_qkv", 3.0}}},
        {"internlm2", {{"sliding_window", 7}}},
        {"glm", {{"rope_ratio", 500.0}}},
        {"llama", {{"draft_vocab_size", 32000}}},
        {"gptj", {{"rotary", false}, {"rotary_dim", 4}}},
        {"mpt", {{"attn_config", {{"alibi", false}}}}},
        {"mpt", {{"attn_config", {{"qk_ln", true}}}}},
        {"mpt", {{"attn_config", {{"alibi_bias_max", 4}}}}},
        {"mpt", {{"attn_config", {{"softmax_scale", 0.5}}}}},
        {"qwen", {{"no_bias", false}, {"rotary_emb_base", 10000}, {"seq_length", 64}}},
        {"molmo", {{"layer_norm_type", "default"}}},
        {"gpt_neo", {{"attention_bias", true}, {"attention_types", {{{"global"}, 4}}}}},
        {"chatglm", {{"position_encoding_2d", true}}},
        {"chatglm", {{"multi_query_attention", false}}},
        {"hy_v3", {{"qk_norm", false}}},
        {"llama", {{"key_multiplier", 0.5}}},
        {"nemotron_h", {{"attention_bias", true}, {"hybrid_override_pattern", "M*M*"}}},
    };
    for (const auto& [type, more] : refused) {
        CAPTURE(type);
        const std::string key = more.begin().key() == "rope_scaling" ? "short_mscale" : more.begin().key();
        LARQL_CHECK_ERROR_TEXT(problem_of(type, more), errc::not_understood, key);
    }
}
