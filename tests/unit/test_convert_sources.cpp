// SPDX-License-Identifier: Apache-2.0
//
// Conversions of models that are not simply a folder of transformers' or a file of llama.cpp's converter.
#include <larql/convert.hpp>
#include <larql/detail/model/families.hpp>
#include <larql/gguf_writer.hpp>
#include <larql/safetensors_writer.hpp>

#include <nlohmann/json.hpp>
#include <support/converted.hpp>
#include <support/files.hpp>
#include <support/reference_mla.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <iterator>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;
using larql::attention_form;
using larql::checkpoint;
using larql::convert_to_safetensors;
using larql::dtype;
using larql::errc;
using larql::safetensors_file;
using larql::testing::error_against;
using larql::testing::names_of;
using larql::testing::numbers;
using larql::testing::relative_error;

const std::string data = LARQL_TEST_DATA;

}  // namespace

TEST_CASE("convert: a language model in a wrapper keeps its names; other forms have its configuration at the top") {
    const larql::testing::temporary_folder folder;
    const checkpoint plain = checkpoint::open(data + "/hf/deepseek_v3");
    nlohmann::json wrapper = {{"model_type", "some_vision_model"},
                              {"architectures", {"SomeForConditionalGeneration"}},
                              {"text_config", plain.config_json()},
                              {"vision_config", {{"hidden_size", 8}, {"dtype", "bfloat16"}}},
                              {"torch_dtype", "bfloat16"}};
    wrapper["text_config"].erase("q_lora_rank");  // the tensors settle it
    larql::testing::write_file(folder / "config.json", wrapper.dump());
    larql::safetensors_writer writer(folder / "model.safetensors");
    for (const larql::tensor_info& info : plain.tensors())
        writer.add_tensor("language_model." + std::string(info.name), info.type, info.shape);
    writer.add_tensor("vision_tower.layers.0.self_attn.q_proj.weight", dtype::f32, {1, 1});
    for (const larql::tensor_info& info : plain.tensors())
        writer.write("language_model." + std::string(info.name), plain.bytes(info));
    const float one = 1.0F;
    writer.write("vision_tower.layers.0.self_attn.q_proj.weight", std::as_bytes(std::span(&one, 1)));
    writer.commit();

    const checkpoint wrapped = checkpoint::open(folder.path());
    const larql::testing::temporary_folder out;
    convert_to_safetensors(wrapped, out / "factored", {.form = attention_form::factored, .type = dtype::f16});
    const checkpoint factored = checkpoint::open(out / "factored");
    CHECK(names_of(factored) == names_of(wrapped));
    nlohmann::json expected = wrapper;
    expected["torch_dtype"] = expected["text_config"]["dtype"] = "float16";
    CHECK(factored.config_json() == expected);
    for (const attention_form form : {attention_form::dense, attention_form::latent}) {
        convert_to_safetensors(wrapped, out / larql::to_string(form), {.form = form});
        const checkpoint converted = checkpoint::open(out / larql::to_string(form));
        CHECK(!converted.config_json().contains("text_config"));
        CHECK(error_against("deepseek_v3", converted, form) <= 1e-5);
        CHECK(names_of(converted).contains("language_model.model.layers.0.self_attn.q_a_proj.weight"));
        CHECK(names_of(converted).contains("vision_tower.layers.0.self_attn.q_proj.weight"));
    }
}

TEST_CASE("convert: prediction blocks are copied in their own form, scales of activations go with the quantisation") {
    const larql::testing::temporary_folder folder;
    const checkpoint plain = checkpoint::open(data + "/hf/deepseek_v3_fp8");
    larql::testing::write_file(folder / "config.json", plain.config_json().dump());
    larql::safetensors_writer writer(folder / "model.safetensors");
    const std::string mlp = "model.layers.0.mlp.up_proj.";
    const std::string predicting = "model.layers.2.self_attn.kv_b_proj.weight";
    const std::vector<float> numbers_of_it = {1.0F, 2.0F};
    for (const larql::tensor_info& info : plain.tensors()) writer.add_tensor(info.name, info.type, info.shape);
    writer.add_tensor(mlp + "input_scale", dtype::f32, {2});
    writer.add_tensor(predicting, dtype::f32, {1, 2});
    for (const larql::tensor_info& info : plain.tensors()) writer.write(info.name, plain.bytes(info));
    for (const std::string& name : {mlp + "input_scale", predicting})
        writer.write(name, std::as_bytes(std::span(numbers_of_it)));
    writer.commit();
    for (const attention_form form : {attention_form::factored, attention_form::dense}) {
        CAPTURE(larql::to_string(form));
        convert_to_safetensors(checkpoint::open(folder.path()), folder / larql::to_string(form),
                               {.form = form, .type = dtype::f32});
        const checkpoint converted = checkpoint::open(folder / larql::to_string(form));
        CHECK(names_of(converted).contains(mlp + "weight"));
        CHECK(!names_of(converted).contains(mlp + "input_scale"));
        CHECK(numbers(converted, predicting) == numbers_of_it);
        CHECK(error_against("deepseek_v3_fp8", converted, form) <= 1e-5);
    }
}

namespace {

/// llama's GGUF names, and safetensors in which the projections are fused.
const std::vector<larql::name_row>& fused_names() {
    static const std::vector<larql::name_row> rows = [] {
        std::vector<larql::name_row> all(std::begin(larql::detail::llama_names), std::end(larql::detail::llama_names));
        for (larql::name_row& row : all)
            if (row.role == larql::tensor_role::q || row.role == larql::tensor_role::k ||
                row.role == larql::tensor_role::v)
                row.hf = "";
        all.push_back({larql::tensor_role::qkv, "layers.{}.self_attn.qkv_proj.weight"});
        return all;
    }();
    return rows;
}

larql::model_family llama_with(std::span<const larql::name_row> names) {
    larql::model_family family = *std::ranges::find(larql::detail::families, "llama", &larql::model_family::name);
    family.model_types = {"own_llama"};
    family.names = names;
    return family;
}

/// A copy of a GGUF file with more tensors, all float32 vectors.
void copy_gguf(const std::string& from, const fs::path& to, const std::map<std::string, std::vector<float>>& more) {
    const larql::gguf_file source = larql::gguf_file::open(from);
    larql::gguf_writer writer(to);
    for (const std::string_view key : source.keys()) writer.set(key, *source.find_value(key));
    for (const larql::tensor_info& info : source.tensors()) writer.add_tensor(info.name, info.type, info.shape);
    for (const auto& [name, values] : more) writer.add_tensor(name, dtype::f32, {values.size()});
    for (const larql::tensor_info& info : source.tensors()) writer.write(info.name, source.bytes(info));
    for (const auto& [name, values] : more) writer.write(name, std::as_bytes(std::span(values)));
    writer.commit();
}

std::vector<float> counting(std::size_t n) {
    std::vector<float> values(n);
    for (std::size_t i = 0; i < n; ++i) values[i] = static_cast<float>(i) / 64.0F;
    return values;
}

}  // namespace

TEST_CASE("convert: projections that a family has fused are fused, and stay so") {
    const larql::testing::temporary_folder folder;
    const larql::model_family families[] = {llama_with(fused_names())};
    const larql::open_options how{.families = families};
    const larql::conversion_options options{.form = attention_form::factored, .type = dtype::bf16};
    convert_to_safetensors(checkpoint::open(data + "/gguf/llama3-bf16.gguf", how), folder / "a", options);
    const checkpoint fused = checkpoint::open(folder / "a", how);
    convert_to_safetensors(fused, folder / "b", options);
    const checkpoint published = checkpoint::open(data + "/hf/llama3");
    for (const checkpoint& converted : {fused, checkpoint::open(folder / "b", how)}) {
        CHECK(names_of(converted).size() == names_of(published).size() - 4);
        for (const std::string layer : {"0", "1"}) {
            const std::string block = "model.layers." + layer + ".self_attn.";
            std::vector<float> want;
            for (const char* part : {"q_proj.weight", "k_proj.weight", "v_proj.weight"})
                for (const float value : numbers(published, block + part)) want.push_back(value);
            CHECK(numbers(converted, block + "qkv_proj.weight") == want);
        }
        CHECK(error_against("llama3", converted, attention_form::factored) <= 1e-5);
    }
}

TEST_CASE("convert: what GGUF has and transformers has no name for is an error that lists it") {
    const larql::testing::temporary_folder folder;
    copy_gguf(data + "/gguf/llama3-bf16.gguf", folder / "a.gguf",
              {{"blk.1.new_thing.weight", {1}}, {"other.bias", {1}}, {"blk.0.ffn_up.bias", {1}}});
    const checkpoint model = checkpoint::open(folder / "a.gguf");
    const auto convert = [&] {
        convert_to_safetensors(model, folder / "out", {.form = attention_form::factored});
        return 0;
    };
    for (const char* name : {"blk.1.new_thing.weight", "other.bias", "blk.0.ffn_up.bias"})
        LARQL_CHECK_ERROR(convert(), errc::not_understood, name);
    CHECK(!fs::exists(folder / "out"));
}

TEST_CASE("convert: biases of GGUF come in the published order, and the configuration says that they are there") {
    const larql::testing::temporary_folder folder;
    std::map<std::string, std::vector<float>> biases;
    for (const std::string block : {"blk.0.attn_", "blk.1.attn_"}) {
        biases[block + "q.bias"] = counting(128);
        biases[block + "k.bias"] = counting(64);
        biases[block + "v.bias"] = counting(64);
        biases[block + "output.bias"] = counting(64);
    }
    copy_gguf(data + "/gguf/llama3-bf16.gguf", folder / "a.gguf", biases);
    const checkpoint source = checkpoint::open(folder / "a.gguf");
    convert_to_safetensors(source, folder / "a", {.form = attention_form::factored});
    const checkpoint converted = checkpoint::open(folder / "a");
    CHECK(converted.config_json().at("attention_bias") == true);
    const std::vector<float> q = numbers(converted, "model.layers.1.self_attn.q_proj.bias");
    REQUIRE(q.size() == 128);
    for (std::size_t i = 0; i < q.size(); ++i) {
        const std::size_t head = i / 32 * 32, j = i % 32;
        CHECK(q[i] == static_cast<float>(head + (j < 16 ? 2 * j : 2 * (j - 16) + 1)) / 64.0F);
    }
    CHECK(numbers(converted, "model.layers.0.self_attn.v_proj.bias") == counting(64));
    const auto hidden = safetensors_file::open(data + "/hf/llama3/reference.safetensors").read<2>("layer1.hidden");
    const auto want = source.attention(1, attention_form::factored).forward(hidden);
    const auto got = converted.attention(1, attention_form::factored).forward(hidden);
    CHECK(relative_error(got.out, want.out) <= 1e-6);

    biases.erase("blk.1.attn_output.bias");  // transformers would make it up
    copy_gguf(data + "/gguf/llama3-bf16.gguf", folder / "b.gguf", biases);
    LARQL_CHECK_ERROR(larql::converted_config(checkpoint::open(folder / "b.gguf"), {.form = attention_form::factored}),
                      errc::unsupported_architecture, "blk.1.attn_output.bias");
}
