// SPDX-License-Identifier: Apache-2.0
#include <larql/convert.hpp>
#include <support/files.hpp>
#include <support/reference_mla.hpp>

#include <doctest/doctest.h>

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
    CHECK_THROWS_AS((void)part.attention(0, attention_form::dense), larql::error);
    CHECK(part.attention(1, attention_form::dense).config().form == attention_form::dense);
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
