// SPDX-License-Identifier: Apache-2.0
#include <larql/convert.hpp>
#include <support/files.hpp>
#include <support/gguf_builder.hpp>
#include <support/reference_mla.hpp>
#include <support/tiny_model.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
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
using larql::testing::relative_error;

const std::string data = LARQL_TEST_DATA;

/// Worst error of context and output over the blocks, against what transformers computed.
double error_against(const std::string& reference_case, const checkpoint& model, attention_form form) {
    const safetensors_file reference =
        safetensors_file::open(data + "/hf/" + reference_case + "/reference.safetensors");
    double worst = 0.0;
    for (std::size_t block = 0; block < model.attention_blocks(); ++block) {
        const std::string layer = "layer" + std::to_string(block) + ".";
        const auto result = model.attention(block, form).forward(reference.read<2>(layer + "hidden"));
        for (const double e : {relative_error(result.context, reference.read<2>(layer + "context")),
                               relative_error(result.out, reference.read<2>(layer + "out"))})
            if (!(e <= worst)) worst = e;
    }
    return worst;
}

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

TEST_CASE("convert: the other tensors arrive byte for byte, from GGUF under transformers' names") {
    const larql::testing::temporary_folder folder;
    const checkpoint hf = checkpoint::open(data + "/hf/deepseek_v3");
    convert_to_safetensors(hf, folder.path() / "hf", {.form = attention_form::dense});
    convert_to_safetensors(checkpoint::open(data + "/gguf/deepseek_v3-bf16.gguf"), folder.path() / "gguf",
                           {.form = attention_form::dense});
    const checkpoint from_hf = checkpoint::open(folder.path() / "hf"),
                     from_gguf = checkpoint::open(folder.path() / "gguf");
    std::size_t compared = 0;
    for (const larql::tensor_info& info : hf.tensors()) {
        if (info.name.find("self_attn") != std::string_view::npos) continue;
        CAPTURE(info.name);
        const larql::tensor_info& same = from_hf.safetensors()->at_tensor(info.name);
        CHECK(same.type == info.type);
        CHECK(same.shape == info.shape);
        CHECK(std::ranges::equal(from_hf.bytes(same), hf.bytes(info)));
        const larql::weight a = hf.weights().at(info.name), b = from_gguf.weights().at(info.name);
        std::vector<float> x(info.element_count()), y(x.size());
        REQUIRE(b.rows() == a.rows());
        a.read_rows(0, a.rows(), x.data(), a.columns());
        b.read_rows(0, b.rows(), y.data(), b.columns());
        CHECK(x == y);
        ++compared;
    }
    CHECK(compared >= 20);
    for (const larql::tensor_info& info : from_hf.tensors())
        CHECK(info.name.find("kv_b_proj") == std::string_view::npos);
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
    CHECK(part.config_json()["larql"]["layers"] == nlohmann::json{1, 2});
    LARQL_CHECK_ERROR(part.attention(0, attention_form::dense), errc::bad_value,
                      "block 0 was not converted: these files hold blocks 1 to 1");
    CHECK(part.attention(1, attention_form::dense).spec().form == attention_form::dense);
    const larql::testing::temporary_folder published;
    convert_to_safetensors(model, published.path(), {.form = attention_form::factored, .layer_begin = 1});
    CHECK(checkpoint::open(published.path()).config_json()["model_type"] == "larql-factored");
    CHECK(checkpoint::open(published.path()).attention(1, attention_form::latent).spec().form == attention_form::latent);
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

TEST_CASE("convert: GGUF becomes the checkpoint that it was made from, value by value") {
    const std::pair<std::string, std::string> cases[] = {{"llama3", "llama3-bf16.gguf"},
                                                         {"deepseek_v2", "deepseek_v2-old-f16.gguf"},
                                                         {"deepseek_v3", "deepseek_v3-bf16.gguf"},
                                                         {"kimi_k2", "kimi_k2-bf16.gguf"},
                                                         {"deepseek_v3_bias", "deepseek_v3_bias-bf16.gguf"}};
    for (const auto& [name, file] : cases) {
        CAPTURE(name);
        const larql::testing::temporary_folder folder;
        convert_to_safetensors(checkpoint::open(data + "/gguf/" + file), folder.path(),
                               {.form = attention_form::factored, .type = dtype::f32});
        const checkpoint original = checkpoint::open(data + "/hf/" + name), back = checkpoint::open(folder.path());
        CHECK_FALSE(back.config_json().contains("larql"));
        CHECK(back.config_json()["model_type"] == (name == "kimi_k2" ? "deepseek_v3" : original.config().model_type));
        std::size_t compared = 0;
        for (const std::string& tensor : original.weights().names()) {
            if (tensor.find("layers.2.") != std::string::npos) continue;  // a prediction block, which GGUF leaves out
            CAPTURE(tensor);
            REQUIRE(back.weights().contains(tensor));
            const larql::weight a = original.weights().at(tensor), b = back.weights().at(tensor);
            CHECK(std::ranges::equal(a.shape(), b.shape()));
            std::vector<float> x(a.rows() * a.columns()), y(x.size());
            a.read_rows(0, a.rows(), x.data(), a.columns());
            b.read_rows(0, b.rows(), y.data(), b.columns());
            // bfloat16 is exact in what GGUF stores here, but for float16, which rounds the smallest numbers.
            const double lost = file.find("f16") != std::string::npos && file.find("bf16") == std::string::npos ? 0x1p-25 : 0.0;
            const auto close = [&](float p, float q) { return std::abs(double{p} - double{q}) <= lost; };
            CHECK(std::ranges::equal(x, y, close));
            ++compared;
        }
        CHECK(compared >= 20);
        CHECK(back.weights().names().size() == compared);  // and nothing else
        CHECK(error_against(name, back, attention_form::factored) <= 1e-5);
    }
}

TEST_CASE("convert: a configuration says what the tensors are, and transformers' classes only where they are theirs") {
    const larql::testing::temporary_folder folder;
    const checkpoint v3 = checkpoint::open(data + "/hf/deepseek_v3");
    const auto config_of = [&](const checkpoint& source, const std::string& name, larql::conversion_options options) {
        convert_to_safetensors(source, folder / name, std::move(options));
        return checkpoint::open(folder / name).config_json();
    };
    const auto factored = config_of(v3, "a", {.form = attention_form::factored, .type = dtype::bf16});
    CHECK(factored["model_type"] == "deepseek_v3");
    CHECK(factored["architectures"] == v3.config_json()["architectures"]);
    CHECK(factored["dtype"] == "bfloat16");
    CHECK_FALSE(factored.contains("larql"));
    for (const attention_form form : {attention_form::dense, attention_form::latent}) {
        const std::string name(larql::to_string(form));
        const auto config = config_of(v3, name, {.form = form});
        CHECK(config["model_type"] == "larql-" + name);
        CHECK(config["architectures"] != v3.config_json()["architectures"]);
        CHECK(config["larql"]["model_type"] == "deepseek_v3");
        CHECK(config["dtype"] == "float32");
        CHECK(checkpoint::open(folder / name).config().family == "deepseek_v3");
        CHECK(checkpoint::open(folder / name).spec(0).scale == v3.spec(0).scale);
    }
    // A converted folder converts again, into its own form.
    const checkpoint dense = checkpoint::open(folder / "dense");
    const auto again = config_of(dense, "again", {.form = attention_form::dense, .type = dtype::bf16});
    CHECK(again["larql"]["model_type"] == "deepseek_v3");
    CHECK(error_against("deepseek_v3", checkpoint::open(folder / "again"), attention_form::dense) <= 3e-2);
}

TEST_CASE("convert: a quantisation leaves the configuration with the tensors that it described") {
    const larql::testing::temporary_folder folder;
    const checkpoint fp8 = checkpoint::open(data + "/hf/deepseek_v3_fp8");
    REQUIRE(fp8.config_json().contains("quantization_config"));
    for (const attention_form form : {attention_form::factored, attention_form::dense, attention_form::latent}) {
        const auto out = folder / std::string(larql::to_string(form));
        convert_to_safetensors(fp8, out, {.form = form, .type = dtype::bf16});
        const checkpoint converted = checkpoint::open(out);
        CHECK_FALSE(converted.config_json().contains("quantization_config"));
        for (const larql::tensor_info& info : converted.tensors()) {
            CAPTURE(info.name);
            CHECK(larql::traits_of(info.type).block_bytes >= 2);  // no FP8 is left, and no scale of it
            CHECK(info.name.find("scale") == std::string_view::npos);
        }
        // What is not attention has its values: FP8 times a power of two or a float, rounded to bf16 once.
        const std::string name = "model.layers.0.mlp.down_proj.weight";
        const larql::weight a = fp8.weights().at(name), b = converted.weights().at(name);
        std::vector<float> x(a.rows() * a.columns()), y(x.size());
        a.read_rows(0, a.rows(), x.data(), a.columns());
        b.read_rows(0, b.rows(), y.data(), b.columns());
        CHECK(relative_error(y, x) <= 0x1p-8);
    }
}

TEST_CASE("convert: a GGUF tensor without a name in transformers is refused before anything is written") {
    const larql::testing::temporary_folder folder;
    larql::testing::gguf_builder b;
    using gguf = larql::testing::gguf_builder;
    using larql::testing::le;
    b.kv_string("general.architecture", "llama")
        .kv("llama.block_count", gguf::u32, le(1u))
        .kv("llama.embedding_length", gguf::u32, le(8u))
        .kv("llama.attention.head_count", gguf::u32, le(2u))
        .kv("llama.attention.layer_norm_rms_epsilon", gguf::f32, le(1e-5F));
    for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output"})
        b.tensor({.name = "blk.0." + std::string(name) + ".weight", .ne = {8, 8}, .bytes = 256});
    b.tensor({.name = "blk.0.ffn_gate_exps.weight", .ne = {8, 8}, .bytes = 256});
    b.tensor({.name = "mystery.weight", .ne = {8}, .bytes = 32});
    const auto path = larql::testing::write_file(folder / "m.gguf", b.build());
    const checkpoint model = checkpoint::open(path);
    LARQL_CHECK_ERROR(convert_to_safetensors(model, folder / "out", {.form = attention_form::factored}),
                      errc::unsupported_architecture,
                      "transformers has no names for these tensors: blk.0.ffn_gate_exps.weight, mystery.weight");
    CHECK_FALSE(fs::exists(folder / "out" / "config.json"));
}

TEST_CASE("convert: the language model of a wrapper keeps its names and its place") {
    const larql::testing::temporary_folder folder;
    larql::testing::tiny_model source;
    source.config = {{"model_type", "seeing"}, {"text_config", larql::testing::tiny_llama_config()}};
    larql::testing::add_llama_layer(source, "language_model.model.");
    larql::testing::add_llama_layer(source, "vision.");
    source.write(folder / "in");
    const checkpoint in = checkpoint::open(folder / "in");
    convert_to_safetensors(in, folder / "out", {.form = attention_form::factored, .type = dtype::f32});
    const checkpoint out = checkpoint::open(folder / "out");
    CHECK(out.config_json()["model_type"] == "seeing");
    CHECK(out.name_prefix() == "language_model.model.");
    for (const std::string& name : in.weights().names()) {
        CAPTURE(name);
        CHECK(std::ranges::equal(out.bytes(out.safetensors()->at_tensor(name)), in.bytes(in.safetensors()->at_tensor(name))));
    }
}
