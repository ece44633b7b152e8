// SPDX-License-Identifier: Apache-2.0
//
// Opening checkpoints of the size that users have: headers, metadata and names, no data.
#include <larql/gguf.hpp>
#include <larql/safetensors.hpp>

#include <benchmark/benchmark.h>
#include <support/files.hpp>
#include <support/gguf_builder.hpp>
#include <support/safetensors_builder.hpp>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "least_time.hpp"

namespace {

using larql::testing::gguf_builder;
using larql::testing::le;
using larql::testing::temporary_folder;
using larql::testing::write_file;

constexpr std::uint16_t shards = 14;
constexpr int tensors = 1200;
constexpr int tokens = 160000;

std::string number(const char* format, unsigned n) {
    char text[64];
    std::snprintf(text, sizeof text, format, n);
    return text;
}

// What a vocabulary of 160,000 tokens and as many merges looks like in front of a model.
void add_vocabulary(gguf_builder& b) {
    std::string strings;
    std::string types;
    for (unsigned i = 0; i < tokens; ++i) {
        strings += b.text(number("tok%u", i * 7919));
        types += le<std::int32_t>(1);
    }
    b.kv_string("general.architecture", "deepseek2");
    b.kv_array("tokenizer.ggml.tokens", gguf_builder::string, tokens, strings);
    b.kv_array("tokenizer.ggml.token_type", gguf_builder::i32, tokens, types);
}

void write_gguf_shards(const temporary_folder& folder) {
    for (std::uint16_t s = 0; s < shards; ++s) {
        gguf_builder b;
        if (s == 0) add_vocabulary(b);
        b.split(s, shards, tensors);
        for (unsigned t = s; t < tensors; t += shards)
            b.tensor({.name = number("blk.%u.attn_kv_a_mqa.weight", t), .ne = {64, 2}, .bytes = 512});
        write_file(folder / number("model-%05u-of-00014.gguf", s + 1U), b.build());
    }
}

void open_14_shards(benchmark::State& state) {
    const temporary_folder folder;
    write_gguf_shards(folder);
    const std::filesystem::path path = folder / "model-00003-of-00014.gguf";
    {
        const auto file = larql::gguf_file::open(path);
        const auto names = file.get<std::vector<std::string_view>>("tokenizer.ggml.tokens");
        if (file.tensors().size() != tensors || names.size() != tokens || names[1] != "tok7919" ||
            file.find_tensor("blk.1199.attn_kv_a_mqa.weight") == nullptr)
            return state.SkipWithError("the file does not read back");
    }
    larql::benchmarks::time_least(state, [&] {
        const auto file = larql::gguf_file::open(path);
        benchmark::DoNotOptimize(file.tensors().data());
    });
}

// A model as DeepSeek-V3 is published: 163 shards, 91,000 tensors.
void open_163_safetensors(benchmark::State& state) {
    constexpr unsigned count = 163;
    constexpr unsigned each = 558;
    const temporary_folder folder;
    std::string map;
    for (unsigned s = 0; s < count; ++s) {
        larql::testing::safetensors_builder b;
        const std::string file = number("model-%05u-of-000163.safetensors", s + 1);
        for (unsigned t = 0; t < each; ++t) {
            const std::string name = number("model.layers.%u.mlp.experts.down_proj.weight_scale_inv", s * each + t);
            b.tensor(name, "BF16", "[1,2]", "abcd");
            map += (map.empty() ? "\"" : ",\"") + name + "\":\"" + file + "\"";
        }
        write_file(folder / file, b.build());
    }
    write_file(folder / "model.safetensors.index.json", "{\"metadata\":{},\"weight_map\":{" + map + "}}");
    const auto size = [&] {
        const auto file = larql::safetensors_file::open(folder.path());
        return file.tensors().size();
    };
    if (size() != std::size_t{count} * each) return state.SkipWithError("the files do not read back");
    larql::benchmarks::time_least(state, [&] { benchmark::DoNotOptimize(size()); });
}

const bool registered = [] {
    larql::benchmarks::add_case("open/14shards", open_14_shards);
    larql::benchmarks::add_case("open/163safetensors", open_163_safetensors);
    return true;
}();

}  // namespace
