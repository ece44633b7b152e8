// SPDX-License-Identifier: Apache-2.0
//
// Where the language model lies in a checkpoint: its configuration in a wrapper's, its tensors beside those of towers;
// tensors of attention that nothing reads; what a caller's configuration replaces.
#include <larql/checkpoint.hpp>

#include <nlohmann/json.hpp>
#include <support/tiny_model.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <vector>

namespace {

using larql::attention_form;
using larql::checkpoint;
using larql::errc;
using larql::safetensors_file;
using larql::tensor_role;
using larql::testing::add_llama_layer;
using larql::testing::gqa_tensors;
using larql::testing::matrix;
using larql::testing::relative_error;
using larql::testing::temporary_folder;
using larql::testing::tiny_llama_config;
using larql::testing::tiny_model;
using nlohmann::json;

const std::string data = LARQL_TEST_DATA;

/// The error of a block against the reference, in float against double.
double error_of_block(const checkpoint& model, const gqa_tensors& w, std::size_t block = 0) {
    larql::testing::random_source random(9);
    const matrix x = larql::testing::random_matrix(random, 7, larql::testing::tiny_width);
    const auto [context, out] = larql::testing::reference_gqa(x, w, larql::testing::tiny_llama_rules());
    return relative_error(model.attention(block, attention_form::factored).forward(x).out, out);
}

/// A wrapper around the tiny llama, as multimodal models are published.
json wrapper(const std::string& part = "text_config") {
    json text = tiny_llama_config();
    text.erase("architectures");
    return {{"architectures", {"SeeingForConditionalGeneration"}},
            {"model_type", "seeing"},
            {"vision_config", {{"hidden_size", 32}, {"num_attention_heads", 4}, {"head_dim", 8}}},
            {part, text}};
}

double worst_reference_error(const std::string& name, const checkpoint& model) {
    const auto reference = safetensors_file::open(data + "/hf/" + name + "/reference.safetensors");
    double worst = 0.0;
    for (std::size_t block = 0; block < model.attention_blocks(); ++block) {
        const std::string layer = "layer" + std::to_string(block) + ".";
        const auto got = model.attention(block, attention_form::factored).forward(reference.read<2>(layer + "hidden"));
        for (const double e : {relative_error(got.context, reference.read<2>(layer + "context")),
                               relative_error(got.out, reference.read<2>(layer + "out"))})
            if (!(e <= worst)) worst = e;
    }
    return worst;
}

}  // namespace

TEST_CASE("language model: its tensors are found under any published prefix") {
    for (const std::string prefix :
         {"model.", "", "language_model.model.", "model.language_model.", "llm.", "brain."}) {
        CAPTURE(prefix);
        const temporary_folder folder;
        tiny_model source;
        source.config = tiny_llama_config();
        const gqa_tensors w = add_llama_layer(source, prefix);
        source.write(folder.path());
        const checkpoint model = checkpoint::open(folder.path());
        CHECK(error_of_block(model, w) < 1e-5);
        CHECK(model.tensor_name(tensor_role::q, 0) == prefix + "layers.0.self_attn.q_proj.weight");
    }
}

TEST_CASE("language model: towers with the same names and sizes do not stand in its way, wherever they sort") {
    for (const std::string tower : {"audio_tower.", "vision_tower.encoder.", "zzz.encoder.", "model.visual."}) {
        for (const std::string prefix : {"language_model.model.", "model.language_model.", "model."}) {
            CAPTURE(tower);
            CAPTURE(prefix);
            const temporary_folder folder;
            tiny_model source;
            source.config = wrapper();
            add_llama_layer(source, tower);
            const gqa_tensors w = add_llama_layer(source, prefix);
            source.write(folder.path());
            CHECK(error_of_block(checkpoint::open(folder.path()), w) < 1e-5);
        }
    }
}

TEST_CASE("language model: a tower that is complete where the model is not does not become the model") {
    const temporary_folder folder;
    tiny_model source;
    source.config = tiny_llama_config(2);
    add_llama_layer(source, "encoder.", 0);
    const gqa_tensors first = add_llama_layer(source, "model.", 0), second = add_llama_layer(source, "model.", 1);
    source.write(folder.path());
    const checkpoint model = checkpoint::open(folder.path());
    CHECK(error_of_block(model, first, 0) < 1e-5);
    CHECK(error_of_block(model, second, 1) < 1e-5);
    source.remove("model.layers.1.self_attn.k_proj.weight");
    source.write(folder.path());
    const checkpoint broken = checkpoint::open(folder.path());
    CHECK(error_of_block(broken, first, 0) < 1e-5);
    LARQL_CHECK_ERROR(broken.attention(1, attention_form::factored), errc::missing_tensor,
                      "model.layers.1.self_attn.k_proj.weight");
}

TEST_CASE("language model: a tower alone, or beside a model that lacks a tensor, is not the model") {
    const temporary_folder folder;
    tiny_model source;
    source.config = wrapper();
    add_llama_layer(source, "audio_tower.");
    source.write(folder.path());
    LARQL_CHECK_ERROR(checkpoint::open(folder.path()).attention(0, attention_form::factored), errc::missing_tensor,
                      "model.layers.0.self_attn.q_proj.weight");
    add_llama_layer(source, "encoder.");
    add_llama_layer(source, "language_model.model.");
    source.remove("language_model.model.layers.0.self_attn.v_proj.weight");
    source.write(folder.path());
    LARQL_CHECK_ERROR(checkpoint::open(folder.path()).attention(0, attention_form::factored), errc::missing_tensor,
                      "language_model.model.layers.0.self_attn.v_proj.weight");
}

TEST_CASE("language model: two complete models of equal standing are refused, not chosen from") {
    for (const auto& [one, other] : {std::pair<std::string, std::string>{"left.", "right."},
                                     std::pair<std::string, std::string>{"model.", "language_model.model."}}) {
        const temporary_folder folder;
        tiny_model source;
        source.config = tiny_llama_config();
        add_llama_layer(source, one);
        add_llama_layer(source, other);
        source.write(folder.path());
        const std::string problem = larql::testing::error_of([&] { return checkpoint::open(folder.path()).config(); });
        LARQL_CHECK_ERROR_TEXT(problem, errc::not_understood, "several sets of tensors are complete models");
        CHECK(problem.find("\"" + one + "\"") != std::string::npos);
        CHECK(problem.find("\"" + other + "\"") != std::string::npos);
    }
}

TEST_CASE("language model: its configuration is found in a wrapper of any type, which may repeat sizes") {
    for (const std::string part : {"text_config", "llm_config", "language_config"}) {
        CAPTURE(part);
        json config = wrapper(part);
        CHECK(larql::parse_model_config(config).family == "llama");
        config["hidden_size"] = larql::testing::tiny_width;
        config["rope_theta"] = 10000.0;
        CHECK(larql::parse_model_config(config).blocks[0].geometry.hidden_size == larql::testing::tiny_width);
        config["rope_theta"] = 5e5;  // transformers reads the inner one; somebody meant something else
        LARQL_CHECK_ERROR(larql::parse_model_config(config), errc::not_understood,
                          "rope_theta is 500000.0 and " + part + ".rope_theta is 10000.0");
        config.erase("rope_theta");
        config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 4.0}};
        LARQL_CHECK_ERROR(larql::parse_model_config(config), errc::not_understood, "rope_scaling");
    }
    json nested = {{"model_type", "speaking"}, {"thinker_config", wrapper()}};
    CHECK(larql::parse_model_config(nested).family == "llama");
    json inner_heads = wrapper();
    inner_heads["text_config"]["architectures"] = {"MedusaLlamaModel"};
    LARQL_CHECK_ERROR(larql::parse_model_config(inner_heads), errc::unsupported_architecture,
                      "text_config.architectures");
    json unknown = wrapper();
    unknown["text_config"]["model_type"] = "mystery";
    LARQL_CHECK_ERROR(larql::parse_model_config(unknown), errc::unsupported_architecture,
                      "larql does not implement \"mystery\"");
    json key = wrapper();
    key["text_config"]["qk_clip"] = 2.0;
    LARQL_CHECK_ERROR(larql::parse_model_config(key), errc::not_understood, "text_config.qk_clip (2.0) is unknown");
}

TEST_CASE("tensors: what lies in an attention block and nobody reads is refused, all of it listed") {
    const temporary_folder folder;
    tiny_model source;
    source.config = tiny_llama_config(1);
    const gqa_tensors w = add_llama_layer(source, "model.");
    source.add_vector("model.layers.0.self_attn.q_norm.weight", larql::testing::tiny_dim, 1.0);
    source.add("model.layers.0.cross_attn.q_proj.weight", 4, 4);
    source.add_vector("model.layers.0.attn_gate", 4);
    source.add_vector("model.layers.1.self_attn.q_norm.weight", 4);   // a prediction block, beyond the model's layers
    source.add_vector("vision.layers.0.self_attn.q_norm.weight", 4);  // another tower
    source.add("model.layers.0.mlp.gate_proj.weight", 4, 4);
    source.add_vector("model.layers.0.self_attn.rotary_emb.inv_freq", 4);  // stored by old versions, and computed
    source.write(folder.path());
    const std::string problem = larql::testing::error_of([&] { return checkpoint::open(folder.path()).config(); });
    LARQL_CHECK_ERROR_TEXT(problem, errc::not_understood, "model.layers.0.self_attn.q_norm.weight is unknown");
    CHECK(problem.find("model.layers.0.cross_attn.q_proj.weight is unknown") != std::string::npos);
    CHECK(problem.find("model.layers.0.attn_gate is unknown") != std::string::npos);
    CHECK(problem.find("layers.1.") == std::string::npos);
    CHECK(problem.find("vision") == std::string::npos);
    CHECK(problem.find("mlp") == std::string::npos);
    CHECK(problem.find("inv_freq") == std::string::npos);
    CHECK(problem.find("--unknown ignore") != std::string::npos);

    const checkpoint ignored = checkpoint::open(folder.path(), {.unknown = larql::unknown_policy::ignore});
    CHECK(ignored.config().warnings.size() == 3);
    CHECK(error_of_block(ignored, w) < 1e-5);
    // The tensors themselves can be read whatever the model is.
    CHECK(checkpoint::open(folder.path()).weights().at("model.layers.0.attn_gate").columns() == 4);
}

TEST_CASE("tensors: biases must be those that the configuration states") {
    const temporary_folder folder;
    tiny_model source;
    source.config = tiny_llama_config();
    gqa_tensors w = add_llama_layer(source, "model.");
    const std::string at = "model.layers.0.self_attn.";
    w.q_bias = source.add_vector(at + "q_proj.bias", w.q.shape(0));
    source.write(folder.path());
    LARQL_CHECK_ERROR(checkpoint::open(folder.path()).config(), errc::not_understood,
                      at + "q_proj.bias is there, and the configuration states no bias");
    source.config["attention_bias"] = true;
    source.write(folder.path());
    LARQL_CHECK_ERROR(checkpoint::open(folder.path()).attention(0, attention_form::factored), errc::missing_tensor,
                      "a bias is required here");
    w.k_bias = source.add_vector(at + "k_proj.bias", w.k.shape(0));
    w.v_bias = source.add_vector(at + "v_proj.bias", w.v.shape(0));
    source.add_vector(at + "o_proj.bias", w.o.shape(0));
    source.write(folder.path());
    const checkpoint model = checkpoint::open(folder.path());
    CHECK(model.config().attention_bias);
    larql::testing::random_source random(9);
    const matrix x = larql::testing::random_matrix(random, 7, larql::testing::tiny_width);
    const auto context = larql::testing::reference_gqa(x, w, larql::testing::tiny_llama_rules()).first;
    CHECK(relative_error(model.attention(0, attention_form::factored).forward(x).context, context) < 1e-5);
    CHECK(checkpoint::open(data + "/gguf/deepseek_v3_bias-bf16.gguf").config().attention_bias);
    CHECK_FALSE(checkpoint::open(data + "/gguf/deepseek_v3-bf16.gguf").config().attention_bias);
}

TEST_CASE("tensors: a projection that the block does not use is refused, an engine's scales are not") {
    const temporary_folder folder;
    const auto source = std::filesystem::path(data) / "hf" / "deepseek_v2";
    std::filesystem::copy_file(source / "model.safetensors", folder / "model-00001-of-00002.safetensors");
    std::filesystem::copy_file(source / "config.json", folder / "config.json");
    const auto add = [&](const std::string& name) {
        larql::safetensors_writer file(folder / "model-00002-of-00002.safetensors", {.replace = true});
        file.add_tensor(name, larql::dtype::f32, {1});
        const std::vector<float> one{1.0F};
        file.write(name, std::as_bytes(std::span(one)));
        file.commit();
    };
    add("model.layers.0.self_attn.q_proj.weight");
    LARQL_CHECK_ERROR(checkpoint::open(folder.path()).config(), errc::not_understood,
                      "model.layers.0.self_attn.q_proj.weight has no use in this block");
    for (const char* name : {"k_scale", "kv_b_proj.k_scale", "o_proj.input_scale", "v_scale"}) {
        add("model.layers.0.self_attn." + std::string(name));
        CHECK(worst_reference_error("deepseek_v2", checkpoint::open(folder.path())) <= 1e-5);
    }
}

TEST_CASE("tensors: blocks of any name are closed, too") {
    constexpr static larql::name_row names[] = {{tensor_role::q, "h.{}.attn.q.weight"},
                                                {tensor_role::k, "h.{}.attn.k.weight"},
                                                {tensor_role::v, "h.{}.attn.v.weight"},
                                                {tensor_role::o, "h.{}.attn.o.weight"}};
    constexpr static larql::model_family rows[] = {
        {.name = "h", .model_types = {"h"}, .names = names, .default_rope_theta = 1e4, .default_rms_norm_eps = 1e-6}};
    const temporary_folder folder;
    tiny_model source;
    source.config = tiny_llama_config();
    source.config["model_type"] = "h";
    source.config.erase("architectures");
    for (const char* name : {"q", "k", "v", "o"}) {
        const bool wide = *name == 'q';
        source.add("transformer.h.0.attn." + std::string(name) + ".weight",
                   *name == 'o' ? larql::testing::tiny_width : (wide ? 4 : 2) * larql::testing::tiny_dim,
                   *name == 'o' ? 4 * larql::testing::tiny_dim : larql::testing::tiny_width);
    }
    source.write(folder.path());
    CHECK_NOTHROW((void)checkpoint::open(folder.path(), {.families = rows}).attention(0, attention_form::factored));
    source.add_vector("transformer.h.0.attn.mystery", 3);
    source.write(folder.path());
    LARQL_CHECK_ERROR(checkpoint::open(folder.path(), {.families = rows}).config(), errc::not_understood,
                      "transformer.h.0.attn.mystery is unknown");
}

TEST_CASE("tensors: an absent q_lora_rank is settled by them") {
    for (const std::string name : {"deepseek_v2", "deepseek_v2_lite"}) {
        CAPTURE(name);
        const temporary_folder folder;
        const auto source = std::filesystem::path(data) / "hf" / name;
        std::filesystem::copy_file(source / "model.safetensors", folder / "model.safetensors");
        json config = json::parse(larql::testing::read_file(source / "config.json"));
        const std::size_t rank = config["q_lora_rank"].is_null() ? 0 : config["q_lora_rank"].get<std::size_t>();
        config.erase("q_lora_rank");
        larql::testing::write_file(folder / "config.json", config.dump());
        const checkpoint model = checkpoint::open(folder.path());
        CHECK(model.spec(0).geometry.q_lora_rank == rank);
        CHECK(worst_reference_error(name, model) <= 1e-5);
    }
}

TEST_CASE("config: a caller's configuration goes before the file's") {
    // A window, which GGUF's architecture "llama" has no place for.
    const std::string gguf = data + "/gguf/mistral_swa-bf16.gguf";
    const json mistral = json::parse(larql::testing::read_file(data + "/hf/mistral_swa/config.json"));
    const checkpoint without = checkpoint::open(gguf);
    CHECK(without.config().container_loses.find("window") != std::string::npos);
    CHECK(worst_reference_error("mistral_swa", without) > 0.1);
    const checkpoint with = checkpoint::open(gguf, {.config = mistral});
    CHECK(with.config().family == "mistral");
    CHECK(with.config().container_loses.empty());
    CHECK(worst_reference_error("mistral_swa", with) <= 2e-5);
    CHECK(worst_reference_error("mistral_swa", checkpoint::open(data + "/hf/mistral_swa")) <= 1e-5);

    // A part of a configuration replaces that part.
    const checkpoint theta =
        checkpoint::open(data + "/gguf/llama3-bf16.gguf", {.config = nlohmann::json{{"rope_theta", 1234.5}}});
    CHECK(theta.spec(0).rope.theta == 1234.5);
    CHECK(theta.spec(0).rope.kind == larql::rope_kind::divisors);
    const checkpoint scaling =
        checkpoint::open(data + "/gguf/llama3-bf16.gguf",
                         {.config = nlohmann::json{{"rope_scaling", {{"rope_type", "linear"}, {"factor", 3.0}}}}});
    CHECK(scaling.spec(0).rope.kind == larql::rope_kind::linear);
    CHECK(scaling.spec(0).rope.theta == 500000.0);
    const checkpoint none =
        checkpoint::open(data + "/gguf/llama3-bf16.gguf", {.config = nlohmann::json{{"rope_scaling", nullptr}}});
    CHECK(none.spec(0).rope.kind == larql::rope_kind::standard);

    // What is wrong in it is an error whatever the container, and no reason to believe the file instead.
    for (const std::string path : {"/gguf/llama3-bf16.gguf", "/hf/llama3"}) {
        CAPTURE(path);
        LARQL_CHECK_ERROR(checkpoint::open(data + path, {.config = nlohmann::json{{"rope_theta", -5}}}).config(),
                          errc::bad_value, "rope_theta: expected a number from 1e-30 to 1e+30, got -5");
        LARQL_CHECK_ERROR(checkpoint::open(data + path, {.config = nlohmann::json{{"head_dim", "x"}}}).config(),
                          errc::wrong_type, "head_dim: expected an integer");
        LARQL_CHECK_ERROR(
            checkpoint::open(data + path, {.config = nlohmann::json{{"architectures", {"Eagle3"}}}}).config(),
            errc::unsupported_architecture, "\"Eagle3\" is not a class");
    }

    const checkpoint hf = checkpoint::open(data + "/hf/llama3", {.config = nlohmann::json{{"rope_theta", 77.0}}});
    CHECK(hf.spec(0).rope.theta == 77.0);
    CHECK(hf.spec(0).rope.kind == larql::rope_kind::llama3);
    LARQL_CHECK_ERROR(checkpoint::open(gguf, {.config = nlohmann::json{{"qk_clip", 3}}}).config(), errc::not_understood,
                      "qk_clip");
    LARQL_CHECK_ERROR(checkpoint::open(gguf, {.config = nlohmann::json{{"model_type", "deepseek_v3"}}}).config(),
                      errc::bad_value, "is not stored as architecture \"llama\"");
    LARQL_CHECK_ERROR(checkpoint::open(gguf, {.config = nlohmann::json{{"sliding_window", 5}}}).config(),
                      errc::not_understood, "sliding_window is 5, which \"llama\" does not have");

    // A base stated beside the dictionaries goes before that within them, and stays when a dictionary goes.
    const temporary_folder modern;
    tiny_model five;
    five.config = tiny_llama_config();
    five.config.erase("rope_theta");
    five.config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 500000.0}};
    add_llama_layer(five, "model.");
    five.write(modern.path());
    const auto rope_with = [&](const json& over) {
        return checkpoint::open(modern.path(), {.config = over}).spec(0).rope;
    };
    CHECK(rope_with({{"rope_theta", 1000.0}}).theta == 1000.0);
    CHECK(rope_with({{"rope_scaling", {{"rope_type", "linear"}, {"factor", 2.0}}}}).theta == 500000.0);
    CHECK(rope_with({{"rope_scaling", {{"rope_type", "linear"}, {"factor", 2.0}}}}).kind == larql::rope_kind::linear);
    CHECK(rope_with({{"rope_scaling", {{"rope_type", "linear"}, {"factor", 2.0}, {"rope_theta", 7.0}}}}).theta == 7.0);
    CHECK(rope_with({{"rope_scaling", nullptr}}).theta == 500000.0);
    CHECK(rope_with({{"rope_scaling", nullptr}}).kind == larql::rope_kind::standard);
    // What is wrong in it is an error over GGUF, too.
    LARQL_CHECK_ERROR(checkpoint::open(gguf, {.config = nlohmann::json{{"rms_norm_eps", -1}}}).config(),
                      errc::bad_value, "rms_norm_eps");
    LARQL_CHECK_ERROR(
        checkpoint::open(gguf, {.config = nlohmann::json{{"model_type", "mistral"}, {"sliding_window", "8"}}}).config(),
        errc::wrong_type, "sliding_window");
    LARQL_CHECK_ERROR(checkpoint::open(data + "/gguf/deepseek_v3-bf16.gguf",
                                       {.config = nlohmann::json{{"model_type", "larql-dense"},
                                                                 {"larql", {{"model_type", "deepseek_v3"}}}}})
                          .config(),
                      errc::bad_value, "describes converted tensors");

    // Inside a wrapper, what is stated without it means the language model.
    const temporary_folder folder;
    tiny_model source;
    source.config = wrapper();
    add_llama_layer(source, "language_model.model.");
    source.write(folder.path());
    CHECK(checkpoint::open(folder.path(), {.config = nlohmann::json{{"rope_theta", 55.0}}}).spec(0).rope.theta == 55.0);
    CHECK(checkpoint::open(folder.path(), {.config = nlohmann::json{{"text_config", {{"rope_theta", 56.0}}}}})
              .spec(0)
              .rope.theta == 56.0);

    // Instead of a config.json that is not there.
    std::filesystem::remove(folder / "config.json");
    LARQL_CHECK_ERROR(checkpoint::open(folder.path()).config(), errc::missing_key, "no config.json");
    CHECK(checkpoint::open(folder.path(), {.config = tiny_llama_config()}).config().family == "llama");
}

TEST_CASE("rope: dynamic scaling follows the length of the sequence, in a cache as in transformers") {
    const checkpoint model = checkpoint::open(data + "/hf/llama_dynamic_long");
    CHECK(worst_reference_error("llama_dynamic_long", model) <= 1e-5);
    // Tokens rotate as of the length that they end; what is cached stays as it was rotated.
    const auto layer = model.attention(0, attention_form::factored);
    const auto reference = safetensors_file::open(data + "/hf/llama_dynamic_long/reference.safetensors");
    const auto hidden = reference.read<2>("layer0.hidden");
    auto cache = layer.make_cache(hidden.shape(0));
    const auto rows = [&](std::size_t begin, std::size_t end) {
        auto part = larql::tensor<float, 2>::from_shape({end - begin, hidden.shape(1)});
        std::copy_n(hidden.data() + begin * hidden.shape(1), part.size(), part.data());
        return part;
    };
    const auto prompt = layer.forward(rows(0, 30), cache);
    CHECK(relative_error(prompt.out, layer.forward(rows(0, 30)).out) < 1e-6);
    const larql::tensor<float, 3> cached = cache.keys();
    const auto next = layer.forward(rows(30, 31), cache);
    const auto whole = layer.forward(rows(0, 31));
    const auto tokens = [](const larql::tensor<float, 3>& x, std::size_t begin, std::size_t end) {
        const std::size_t size = x.shape(1) * x.shape(2);
        return std::vector<float>(x.data() + begin * size, x.data() + end * size);
    };
    CHECK(relative_error(tokens(next.q, 0, 1), tokens(whole.q, 30, 31)) < 1e-6);
    CHECK(tokens(cache.keys(), 0, 30) == tokens(cached, 0, 30));
}

TEST_CASE("lifetimes: layers, weights and readers keep their checkpoint alive") {
    const auto make_layer = [](attention_form form) {
        return checkpoint::open(data + "/hf/deepseek_v3").attention(1, form);
    };
    const auto reference = safetensors_file::open(data + "/hf/deepseek_v3/reference.safetensors");
    for (const attention_form form : {attention_form::factored, attention_form::dense, attention_form::latent}) {
        const auto layer = make_layer(form);
        CHECK(relative_error(layer.forward(reference.read<2>("layer1.hidden")).out, reference.read<2>("layer1.out")) <=
              1e-5);
    }
    const larql::weight q =
        checkpoint::open(data + "/gguf/deepseek_v3-bf16.gguf").weights().at("blk.0.attn_q_a.weight");
    std::vector<float> row(q.columns());
    q.read_rows(0, 1, row.data(), row.size());
    CHECK(row != std::vector<float>(row.size()));
    const auto& config = checkpoint::open(data + "/hf/deepseek_v3").config();
    CHECK(config.blocks.size() == 2);
    const auto file = checkpoint::open(data + "/gguf/deepseek_v3-bf16.gguf").gguf();
    CHECK(file->tensors().size() > 10);
}

TEST_CASE("lifetimes: a handle that was moved from is still one; a configuration alone has no bytes") {
    checkpoint model = checkpoint::open(data + "/hf/deepseek_v3");
    const checkpoint other = std::move(model);
    CHECK(model.attention_blocks() == 2);
    CHECK(model.bytes(model.tensors()[0]).size() == other.tensors()[0].size_bytes);
    const temporary_folder folder;
    larql::testing::write_file(folder / "config.json", tiny_llama_config().dump());
    const checkpoint alone = checkpoint::open(folder.path());
    CHECK(alone.config().family == "llama");
    CHECK(alone.tensors().empty());
    CHECK(alone.tensor_name(larql::tensor_role::q, 0) == "model.layers.0.self_attn.q_proj.weight");  // would be
    LARQL_CHECK_ERROR(alone.bytes(model.tensors()[0]), errc::missing_tensor, "the checkpoint has no tensors");
    LARQL_CHECK_ERROR(alone.weights(), errc::missing_tensor, "the checkpoint has no tensors");
    LARQL_CHECK_ERROR(alone.attention(0, attention_form::factored), errc::missing_tensor,
                      "the checkpoint has no tensors");
}

TEST_CASE("forward: what throws leaves the cache as it was, and a cache of another layer is refused") {
    struct failing final : larql::executor {
        std::size_t left;
        explicit failing(std::size_t runs) : left(runs) {}
        [[nodiscard]] std::size_t concurrency() const noexcept override { return 2; }
        void run(std::size_t count, larql::task_ref task) override {
            if (left-- == 0) throw std::runtime_error("stopped");
            for (std::size_t i = 0; i < count; ++i) task(i);
        }
    };
    const checkpoint model = checkpoint::open(data + "/hf/deepseek_v3");
    const auto hidden = safetensors_file::open(data + "/hf/deepseek_v3/reference.safetensors").read<2>("layer0.hidden");
    for (const attention_form form : {attention_form::factored, attention_form::dense, attention_form::latent}) {
        const auto layer = model.attention(0, form);
        const auto want = layer.forward(hidden);
        std::size_t failures = 0;
        for (std::size_t runs = 0; runs < 60; ++runs) {
            auto cache = layer.make_cache(hidden.shape(0));
            failing threads(runs);
            try {
                (void)layer.forward(hidden, cache, &threads);
                break;
            } catch (const std::runtime_error&) {
                ++failures;
                CHECK(cache.size() == 0);
                CHECK(relative_error(layer.forward(hidden, cache).out, want.out) < 1e-6);
            }
        }
        CHECK(failures >= 4);
        CHECK(failures < 60);
    }
    const auto latent = model.attention(0, attention_form::latent), dense = model.attention(0, attention_form::dense);
    auto other = dense.make_cache(8);
    LARQL_CHECK_ERROR(latent.forward(hidden, other), errc::shape_mismatch, "the layer caches 1 heads of 48/32, latent");
    auto unequal = larql::kv_cache<float>::latent(8, 16, 32);
    LARQL_CHECK_ERROR(latent.forward(hidden, unequal), errc::shape_mismatch,
                      "the cache holds 1 heads of 48/16, latent");
    auto separate = larql::kv_cache<float>({.capacity = 8, .kv_heads = 1, .key_size = 48, .value_size = 32});
    LARQL_CHECK_ERROR(latent.forward(hidden, separate), errc::shape_mismatch, "cache");
}
