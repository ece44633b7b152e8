// SPDX-License-Identifier: Apache-2.0
#include <larql/convert.hpp>

#include <nlohmann/json.hpp>
#include <support/converted.hpp>
#include <support/files.hpp>
#include <support/reference_mla.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <set>
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
using larql::testing::rounded;

const std::string data = LARQL_TEST_DATA;

errc code_of(const auto& act) {
    try {
        act();
    } catch (const larql::error& e) {
        return e.code();
    }
    FAIL("no error");
    return errc::io;
}

}  // namespace

TEST_CASE("convert: every form written in float32 computes what transformers computed") {
    const larql::testing::temporary_folder folder;
    const std::string sources[] = {"hf/deepseek_v2",
                                   "hf/deepseek_v2_lite",
                                   "hf/deepseek_v3_bias",
                                   "hf/kimi_k2",
                                   "hf/deepseek_v3_fp8",
                                   "gguf/deepseek_v3-bf16.gguf",
                                   "gguf/sharded/deepseek_v2-old-f16-00002-of-00004.gguf"};
    int number = 0;
    for (const std::string& source : sources) {
        const checkpoint model = checkpoint::open(data + "/" + source);
        std::string name = fs::path(source).filename().string();
        name = name.substr(0, name.find_first_of("-."));
        for (const attention_form form : {attention_form::factored, attention_form::dense, attention_form::latent}) {
            CAPTURE(source);
            CAPTURE(larql::to_string(form));
            const fs::path out = folder.path() / std::to_string(number++);
            convert_to_safetensors(model, out, {.form = form});
            const checkpoint converted = checkpoint::open(out);
            CHECK(converted.config().form == form);
            CHECK(error_against(name, converted, form) <= 1e-5);
        }
    }
}

TEST_CASE("convert: bf16 and f16 hold what their precision holds, plain attention and published factors nearly all") {
    const larql::testing::temporary_folder folder;
    // The published numbers are bf16; rounding a product to 8 or 11 bits moves a result by a few of these bits.
    const checkpoint v3 = checkpoint::open(data + "/hf/deepseek_v3");
    convert_to_safetensors(v3, folder.path() / "a", {.form = attention_form::dense, .type = dtype::bf16});
    const double bf16 = error_against("deepseek_v3", checkpoint::open(folder.path() / "a"), attention_form::dense);
    CHECK(bf16 <= 3e-2);
    CHECK(bf16 > 1e-5);
    convert_to_safetensors(v3, folder.path() / "b", {.form = attention_form::dense, .type = dtype::f16});
    CHECK(error_against("deepseek_v3", checkpoint::open(folder.path() / "b"), attention_form::dense) <= 4e-3);
    convert_to_safetensors(v3, folder.path() / "c", {.form = attention_form::factored, .type = dtype::bf16});
    CHECK(error_against("deepseek_v3", checkpoint::open(folder.path() / "c"), attention_form::factored) <= 1e-5);
    const checkpoint llama = checkpoint::open(data + "/gguf/llama3-bf16.gguf");
    convert_to_safetensors(llama, folder.path() / "d", {.form = attention_form::factored, .type = dtype::bf16});
    CHECK(error_against("llama3", checkpoint::open(folder.path() / "d"), attention_form::factored) <= 1e-5);
}

TEST_CASE("convert: factored, every tensor is that of the published model, in name, shape, type and bits") {
    const larql::testing::temporary_folder folder;
    for (const std::string name : {"llama3", "deepseek_v2", "deepseek_v3", "kimi_k2"}) {
        const checkpoint published = checkpoint::open(data + "/hf/" + name);
        for (const std::string& source : {"/gguf/" + name + "-bf16.gguf", "/hf/" + name}) {
            CAPTURE(source);
            const fs::path out = folder.path() / fs::path(source.substr(1));
            fs::create_directories(out.parent_path());
            convert_to_safetensors(checkpoint::open(data + source), out,
                                   {.form = attention_form::factored, .type = dtype::bf16});
            const checkpoint converted = checkpoint::open(out);
            CHECK(names_of(converted) == names_of(published));
            for (const larql::tensor_info& info : published.tensors()) {
                CAPTURE(info.name);
                const larql::tensor_info& same = converted.safetensors()->at_tensor(info.name);
                CHECK(same.type == info.type);
                CHECK(same.shape == info.shape);
                CHECK(std::ranges::equal(converted.bytes(same), published.bytes(info)));
            }
        }
    }
}

TEST_CASE("convert: factored from a file that rounded, every tensor is the published one so rounded") {
    const larql::testing::temporary_folder folder;
    const checkpoint published = checkpoint::open(data + "/hf/deepseek_v2");
    convert_to_safetensors(checkpoint::open(data + "/gguf/deepseek_v2-old-f16.gguf"), folder.path(),
                           {.form = attention_form::factored});
    const checkpoint converted = checkpoint::open(folder.path());
    CHECK(names_of(converted) == names_of(published));
    for (const larql::tensor_info& info : published.tensors()) {
        CAPTURE(info.name);
        const bool matrix = info.shape.size() == 2 && !info.name.ends_with("mlp.gate.weight");
        std::vector<float> want = numbers(published, info.name);
        if (matrix) want = rounded(want, dtype::f16);
        CHECK(numbers(converted, info.name) == want);
    }
}

TEST_CASE("convert: quantised weights are decoded in every form, and nothing of the quantisation stays") {
    const larql::testing::temporary_folder folder;
    const checkpoint published = checkpoint::open(data + "/hf/deepseek_v3_fp8");
    for (const attention_form form : {attention_form::factored, attention_form::dense, attention_form::latent}) {
        CAPTURE(larql::to_string(form));
        const fs::path out = folder.path() / larql::to_string(form);
        convert_to_safetensors(published, out, {.form = form, .type = dtype::bf16});
        const checkpoint converted = checkpoint::open(out);
        CHECK(!converted.config_json().contains("quantization_config"));
        CHECK(converted.config_json().at("dtype") == "bfloat16");
        std::set<std::string> left = names_of(converted);
        for (const std::string& name : published.weights().names()) {
            CAPTURE(name);
            if (form != attention_form::factored && name.find("self_attn") != std::string::npos) continue;
            REQUIRE(left.erase(name) == 1);
            const larql::tensor_info& info = converted.safetensors()->at_tensor(name);
            const larql::weight original = published.weights().at(name);
            CHECK(info.type == (original.raw() != nullptr ? original.type() : dtype::bf16));
            CHECK(numbers(converted, name) == rounded(numbers(published, name), info.type));
        }
        for (const std::string& name : left) CHECK(name.find("self_attn") != std::string::npos);
        for (const larql::tensor_info& info : converted.tensors()) CHECK(info.type != dtype::f8_e4m3);
        if (form == attention_form::factored) CHECK(left.empty());
    }
}

TEST_CASE("convert: the other tensors arrive byte for byte in every form") {
    const larql::testing::temporary_folder folder;
    const checkpoint published = checkpoint::open(data + "/hf/deepseek_v3");
    for (const std::string source : {"hf/deepseek_v3", "gguf/deepseek_v3-bf16.gguf"})
        for (const attention_form form : {attention_form::dense, attention_form::latent}) {
            CAPTURE(source);
            const fs::path out = folder.path() / (source.substr(0, 2) + std::string(larql::to_string(form)));
            convert_to_safetensors(checkpoint::open(data + "/" + source), out, {.form = form, .type = dtype::bf16});
            const checkpoint converted = checkpoint::open(out);
            std::size_t compared = 0;
            for (const larql::tensor_info& info : published.tensors()) {
                if (info.name.find("self_attn") != std::string_view::npos) continue;
                CAPTURE(info.name);
                const larql::tensor_info& same = converted.safetensors()->at_tensor(info.name);
                CHECK(same.type == info.type);
                CHECK(same.shape == info.shape);
                CHECK(std::ranges::equal(converted.bytes(same), published.bytes(info)));
                ++compared;
            }
            CHECK(compared >= 20);
            for (const larql::tensor_info& info : converted.tensors())
                CHECK(info.name.find("kv_b_proj") == std::string_view::npos);
        }
}

TEST_CASE("convert: config.json is the published one, or one that nobody takes for it") {
    const larql::testing::temporary_folder folder;
    const auto config_of = [&](const std::string& source, const larql::conversion_options& options) {
        return larql::converted_config(checkpoint::open(data + "/" + source), options);
    };
    const nlohmann::json published = checkpoint::open(data + "/hf/deepseek_v3").config_json();
    CHECK(config_of("hf/deepseek_v3", {.form = attention_form::factored, .type = dtype::bf16}) == published);

    const nlohmann::json llama =
        config_of("gguf/llama3-bf16.gguf", {.form = attention_form::factored, .type = dtype::f16});
    CHECK(!llama.contains("larql"));
    CHECK(llama.at("model_type") == "llama");
    CHECK(llama.at("torch_dtype") == "float16");
    const nlohmann::json original = checkpoint::open(data + "/hf/llama3").config_json();
    for (const auto& [key, value] : original.at("rope_scaling").items())
        CHECK(llama.at("rope_scaling").at(key) == value);

    nlohmann::json dense = config_of("hf/deepseek_v3", {.form = attention_form::dense, .type = dtype::f16});
    CHECK(dense.at("larql") ==
          nlohmann::json{
              {"model_type", "deepseek_v3"}, {"row_order", "rope_nope"}, {"pairing", "half_split"}, {"dtype", "F16"}});
    CHECK(dense.at("model_type") == "larql-dense");
    CHECK(dense.at("architectures") == nlohmann::json::array({"LarqlDenseForCausalLM"}));
    CHECK(dense.at("dtype") == "float16");
    for (const char* own : {"larql", "model_type", "architectures", "dtype"})
        dense[own] = published.value(own, nlohmann::json());
    dense.erase("larql");
    CHECK(dense == published);

    const nlohmann::json latent = config_of("gguf/deepseek_v3-bf16.gguf", {.form = attention_form::latent});
    CHECK(latent.at("model_type") == "larql-latent");
    CHECK(latent.at("architectures") == nlohmann::json::array({"LarqlLatentForCausalLM"}));
    const nlohmann::json part =
        config_of("gguf/llama3-bf16.gguf", {.form = attention_form::factored, .layer_begin = 1});
    CHECK(part.at("model_type") == "larql-factored");
    CHECK(part.at("larql").at("layers") == nlohmann::json::array({1, 2}));
    CHECK(part.at("larql").at("pairing") == "half_split");
    CHECK(part.at("larql").at("row_order") == "rope_nope");
}

TEST_CASE("convert: a size limit gives shards with an index, a range of blocks gives these blocks") {
    const larql::testing::temporary_folder folder;
    const checkpoint model = checkpoint::open(data + "/hf/deepseek_v3");
    convert_to_safetensors(model, folder.path(), {.form = attention_form::latent, .shard_bytes = 60'000});
    CHECK(fs::exists(folder.path() / "model.safetensors.index.json"));
    const checkpoint sharded = checkpoint::open(folder.path());
    CHECK(sharded.shard_count() > 3);
    CHECK(error_against("deepseek_v3", sharded, attention_form::latent) <= 1e-5);

    const larql::testing::temporary_folder other;
    convert_to_safetensors(model, other.path(), {.form = attention_form::dense, .layer_begin = 1, .layer_end = 2});
    const checkpoint part = checkpoint::open(other.path());
    LARQL_CHECK_ERROR((void)part.attention(0, attention_form::dense), errc::bad_value, "was not converted");
    const auto hidden = safetensors_file::open(data + "/hf/deepseek_v3/reference.safetensors");
    const auto result = part.attention(1, attention_form::dense).forward(hidden.read<2>("layer1.hidden"));
    CHECK(relative_error(result.out, hidden.read<2>("layer1.out")) <= 1e-5);

    // A part of a part has no more than the part; all blocks that it has are converted if none are named.
    const larql::testing::temporary_folder again;
    convert_to_safetensors(part, again.path() / "a", {.form = attention_form::dense});
    const checkpoint copy = checkpoint::open(again.path() / "a");
    CHECK(copy.config_json() == part.config_json());
    CHECK(names_of(copy) == names_of(part));
    CHECK(code_of([&] {
              convert_to_safetensors(part, again.path() / "b", {.form = attention_form::dense, .layer_end = 1});
          }) == errc::bad_value);
}

TEST_CASE("convert: leaves alone what is there unless told otherwise, and never writes over its source") {
    const larql::testing::temporary_folder folder;
    const checkpoint model = checkpoint::open(data + "/hf/deepseek_v3");
    const larql::conversion_options dense{.form = attention_form::dense};
    convert_to_safetensors(model, folder.path(), dense);
    CHECK(code_of([&] { convert_to_safetensors(model, folder.path(), dense); }) == errc::already_exists);
    larql::conversion_options replace{.form = attention_form::latent, .replace = true};
    convert_to_safetensors(model, folder.path(), replace);
    const checkpoint converted = checkpoint::open(folder.path());
    CHECK(converted.config().form == attention_form::latent);
    CHECK(code_of([&] { convert_to_safetensors(converted, folder.path(), replace); }) == errc::already_exists);
    CHECK(code_of([&] { convert_to_safetensors(converted, folder.path() / "x", dense); }) ==
          errc::unsupported_architecture);
    std::size_t files = 0;
    for (const auto& entry : fs::directory_iterator(folder.path())) files += entry.is_regular_file() ? 1 : 0;
    CHECK(files == 2);  // nothing temporary stays
    CHECK(code_of([&] { convert_to_safetensors(model, folder.path() / "y", {.type = dtype::q4_k}); }) ==
          errc::unsupported_dtype);
    CHECK(code_of([&] { convert_to_safetensors(model, folder.path() / "y", {.layer_begin = 2}); }) == errc::bad_value);
}
