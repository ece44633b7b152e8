// SPDX-License-Identifier: Apache-2.0
//
// The whole path on real checkpoints: files made by transformers and by llama.cpp's converters, held against what
// transformers computed on them.
#include <larql/checkpoint.hpp>
#include <support/files.hpp>
#include <support/reference_mla.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

namespace {

using larql::attention_form;
using larql::checkpoint;
using larql::safetensors_file;
using larql::tensor;
using larql::testing::relative_error;

const std::string data = LARQL_TEST_DATA;

struct reference_case {
    std::string name;  // of the folder that holds the reference
    std::string path;  // what is opened
    double tolerance;  // of transformers' own float32: 1e-5; another stack's stored formats: 2e-5
    bool latent;       // has latent attention, so all three forms
};

std::vector<reference_case> reference_cases() {
    std::vector<reference_case> cases;
    for (const std::string name : {"deepseek_v2", "deepseek_v2_lite", "deepseek_v3", "deepseek_v3_bias",
                                   "deepseek_v3_fp8", "kimi_k2", "llama3"}) {
        const bool latent = name != "llama3";
        cases.push_back({name, "hf/" + name, 1e-5, latent});
        if (std::filesystem::exists(data + "/hf/" + name + "_sharded"))
            cases.push_back({name, "hf/" + name + "_sharded", 1e-5, latent});
        for (const std::string file : {"-bf16.gguf", "-old-f16.gguf"})
            if (std::filesystem::exists(data + "/gguf/" + name + file))
                cases.push_back({name, "gguf/" + name + file, 2e-5, latent});
    }
    cases.push_back({"deepseek_v2", "gguf/sharded/deepseek_v2-old-f16-00003-of-00004.gguf", 2e-5, true});
    cases.push_back({"deepseek_v3", "gguf/sharded/deepseek_v3-bf16-00002-of-00003.gguf", 2e-5, true});
    return cases;
}

}  // namespace

TEST_CASE(
    "checkpoint: every reference model, in every container, dialect and form, computes what transformers computed") {
    const auto cases = reference_cases();
    CHECK(cases.size() >= 15);
    for (const reference_case& c : cases) {
        const checkpoint model = checkpoint::open(data + "/" + c.path);
        const safetensors_file reference = safetensors_file::open(data + "/hf/" + c.name + "/reference.safetensors");
        REQUIRE(model.attention_blocks() == 2);
        for (const attention_form form : {attention_form::factored, attention_form::dense, attention_form::latent}) {
            if (!c.latent && form != attention_form::factored) continue;
            for (std::size_t block = 0; block < model.attention_blocks(); ++block) {
                CAPTURE(c.path);
                CAPTURE(larql::to_string(form));
                CAPTURE(block);
                const std::string layer = "layer" + std::to_string(block) + ".";
                const auto result = model.attention(block, form).forward(reference.read<2>(layer + "hidden"));
                CHECK(relative_error(result.context, reference.read<2>(layer + "context")) <= c.tolerance);
                CHECK(relative_error(result.out, reference.read<2>(layer + "out")) <= c.tolerance);
            }
        }
    }
}

TEST_CASE("checkpoint: token by token through a cache gives what one pass gives, in every form") {
    const checkpoint model = checkpoint::open(data + "/hf/deepseek_v3");
    const safetensors_file reference = safetensors_file::open(data + "/hf/deepseek_v3/reference.safetensors");
    const tensor<float, 2> hidden = reference.read<2>("layer1.hidden");
    const std::size_t tokens = hidden.shape(0), width = hidden.shape(1);
    for (const attention_form form : {attention_form::factored, attention_form::dense, attention_form::latent}) {
        CAPTURE(larql::to_string(form));
        const auto layer = model.attention(1, form);
        const auto whole = layer.forward(hidden);
        auto cache = layer.make_cache(tokens);
        for (std::size_t t = 0; t < tokens;) {
            const std::size_t count = t == 0 ? 3 : 1;  // a prompt, then single tokens
            tensor<float, 2> step = tensor<float, 2>::from_shape({count, width});
            std::copy_n(hidden.data() + t * width, count * width, step.data());
            const auto result = layer.forward(step, cache);
            for (std::size_t i = 0; i < count; ++i)
                for (std::size_t c = 0; c < width; ++c)
                    CHECK(result.out(i, c) == doctest::Approx(whole.out(t + i, c)).epsilon(1e-4));
            t += count;
            CHECK(cache.size() == t);
        }
        CHECK_THROWS_AS((void)layer.forward(hidden, cache), larql::error);  // full
    }
}

TEST_CASE("checkpoint: says what it opened") {
    const checkpoint hf = checkpoint::open(data + "/hf/deepseek_v3");
    CHECK(hf.format() == "safetensors");
    CHECK(hf.dialect() == "kv_b");
    CHECK(hf.config().family == "deepseek_v3");
    CHECK(hf.shard_count() == 1);
    const checkpoint split = checkpoint::open(data + "/gguf/deepseek_v3-bf16.gguf");
    CHECK(split.format() == "gguf");
    CHECK(split.dialect() == "k_b+v_b");
    CHECK(checkpoint::open(data + "/gguf/deepseek_v3-old-f16.gguf").dialect() == "kv_b");
    CHECK(checkpoint::open(data + "/hf/llama3").dialect() == "");
}

TEST_CASE(
    "checkpoint: a folder whose index lists shards in a folder within it is a model, and without them a "
    "configuration") {
    namespace fs = std::filesystem;
    const larql::testing::temporary_folder folder;
    fs::create_directory(folder / "weights");
    for (const auto& entry : fs::directory_iterator(data + "/hf/deepseek_v3_sharded")) {
        const std::string name = entry.path().filename().string();
        const bool shard = name.ends_with(".safetensors") && name.starts_with("model-");
        if (shard || name == "config.json") fs::copy_file(entry.path(), folder / (shard ? "weights/" + name : name));
    }
    std::string index = larql::testing::read_file(data + "/hf/deepseek_v3_sharded/model.safetensors.index.json");
    for (std::size_t at = 0; (at = index.find("\"model-", at)) != index.npos; at += 9) index.insert(at + 1, "weights/");
    larql::testing::write_file(folder / "model.safetensors.index.json", index);
    const checkpoint model = checkpoint::open(folder.path()), flat = checkpoint::open(data + "/hf/deepseek_v3_sharded");
    CHECK(model.shard_count() == 3);
    CHECK(model.tensors().size() == flat.tensors().size());
    fs::remove(folder / "weights/model-00002-of-00003.safetensors");
    LARQL_CHECK_ERROR(checkpoint::open(folder.path()), larql::errc::missing_shard, "model-00002-of-00003.safetensors");
    fs::remove_all(folder / "weights");
    CHECK(checkpoint::open(folder.path()).shard_count() == 0);
    CHECK(checkpoint::open(folder.path()).config().family == "deepseek_v3");
}

TEST_CASE("checkpoint: k_b and v_b read as the kv_b that the other dialect holds") {
    const checkpoint split = checkpoint::open(data + "/gguf/deepseek_v3-bf16.gguf");
    const checkpoint whole = checkpoint::open(data + "/gguf/deepseek_v3-old-f16.gguf");
    // The weights are bf16-representable, and f16 holds all but the smallest of them.
    CHECK(relative_error(split.factors(0).kv_b.to_tensor(), whole.factors(0).kv_b.to_tensor()) < 1e-6);
}

TEST_CASE("checkpoint: refuses blocks and forms that are not there, and names tensors that do not fit") {
    const checkpoint model = checkpoint::open(data + "/hf/deepseek_v3");
    CHECK_THROWS_AS((void)model.attention(2, attention_form::factored), larql::error);
    const checkpoint llama = checkpoint::open(data + "/hf/llama3");
    try {
        (void)llama.attention(0, attention_form::dense);
        FAIL("made a dense form of plain attention");
    } catch (const larql::error& e) {
        CHECK(e.code() == larql::errc::unsupported_architecture);
        CHECK(std::string(e.what()).find("\"llama\" has no latent attention") != std::string::npos);
    }
}
