// SPDX-License-Identifier: Apache-2.0
#include <larql/convert.hpp>

#include <nlohmann/json.hpp>
#include <support/files.hpp>

#include <doctest/doctest.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;
using larql::checkpoint;
using larql::errc;
using larql::gguf_file;

const std::string data = LARQL_TEST_DATA;

/// A copy of a case (of llama3: 48 tokens) that files can be put beside.
fs::path model_in(const larql::testing::temporary_folder& folder, const std::string& name = "llama3") {
    const fs::path model = folder / "model";
    fs::create_directory(model);
    for (const char* file : {"config.json", "model.safetensors"})
        fs::copy(data + "/hf/" + name + "/" + file, model / file);
    return model;
}

gguf_file converted(const fs::path& model, const fs::path& to, const nlohmann::json& over = {}) {
    larql::open_options how;
    if (!over.is_null() && !over.empty()) how.config = over;
    larql::conversion(checkpoint::open(model, how), to,
                      {.form = larql::attention_form::factored, .to = larql::container::gguf, .replace = true})
        .run();
    return gguf_file::open(to);
}

nlohmann::json llama_tokenizer() {
    const std::string pattern =
        R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
    nlohmann::json vocabulary = {{"a", 0}, {"b", 1}, {"ab", 2}, {"\u0120a", 3}};
    return {{"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", {"a b", {"\u0120", "a"}, {"a b", "c"}}}}},
            {"added_tokens",
             {{{"id", 40}, {"content", "<s>"}, {"special", true}},
              {{"id", 41}, {"content", "<|end|>"}, {"special", false}},
              {{"id", 42}, {"content", "tool"}, {"special", false}}}},
            {"pre_tokenizer",
             {{"type", "Sequence"},
              {"pretokenizers",
               {{{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}},
                {{"type", "ByteLevel"}, {"use_regex", false}}}}}}};
}

/// A field of a protocol buffer.
std::string field(int number, const std::string& bytes) {
    return std::string(1, static_cast<char>(number << 3 | 2)) + static_cast<char>(bytes.size()) + bytes;
}
std::string piece(const std::string& text, float score, int type) {
    const auto bits = std::bit_cast<std::uint32_t>(score);
    std::string one = field(1, text);
    one += static_cast<char>(2 << 3 | 5);
    for (int i = 0; i < 4; ++i) one += static_cast<char>(bits >> (8 * i));
    if (type != 1) {
        one += static_cast<char>(3 << 3);
        one += static_cast<char>(type);
    }
    return field(1, one);
}

}  // namespace

TEST_CASE("gguf tokenizer: byte pairs of a tokenizer.json, and the file itself for the way back") {
    const larql::testing::temporary_folder folder;
    const fs::path model = model_in(folder);
    CHECK(converted(model, folder / "none.gguf").find<std::string>("tokenizer.ggml.model") == "none");

    const std::string text = llama_tokenizer().dump();
    larql::testing::write_file(model / "tokenizer.json", text);
    larql::testing::write_file(model / "tokenizer_config.json",
                               R"({"bos_token": "<s>", "eos_token": {"content": "<|end|>"}, "add_bos_token": true,
                                   "chat_template": "{{ messages }}"})");
    const gguf_file made = converted(model, folder / "a.gguf");
    CHECK(made.find<std::string>("tokenizer.ggml.model") == "gpt2");
    CHECK(made.find<std::string>("tokenizer.ggml.pre") == "llama-bpe");
    const auto tokens = made.find<std::vector<std::string>>("tokenizer.ggml.tokens").value();
    const auto types = made.find<std::vector<std::int32_t>>("tokenizer.ggml.token_type").value();
    REQUIRE(tokens.size() == 48);
    REQUIRE(types.size() == 48);
    CHECK(tokens[2] == "ab");
    CHECK(types[2] == 1);
    CHECK(tokens[7] == "[PAD7]");
    CHECK(types[7] == 5);
    CHECK(tokens[40] == "<s>");
    CHECK(types[40] == 3);
    CHECK(types[41] == 3);  // not called special, and looks it
    CHECK(types[42] == 4);
    CHECK(made.find<std::vector<std::string>>("tokenizer.ggml.merges").value() ==
          std::vector<std::string>{"a b", "\u0120 a", "a\u0120b c"});
    CHECK(made.find<std::uint32_t>("tokenizer.ggml.bos_token_id") == 40U);
    CHECK(made.find<std::uint32_t>("tokenizer.ggml.eos_token_id") == 41U);
    CHECK(made.find<std::uint32_t>("tokenizer.ggml.padding_token_id") == 0U);  // as config.json says
    CHECK(made.find<bool>("tokenizer.ggml.add_bos_token") == true);
    CHECK(made.find<std::string>("tokenizer.chat_template") == "{{ messages }}");

    larql::conversion(checkpoint::open(folder / "a.gguf"), folder / "back", {.form = larql::attention_form::factored})
        .run();
    std::ifstream file(folder / "back" / "tokenizer.json", std::ios::binary);
    CHECK(std::string(std::istreambuf_iterator<char>(file), {}) == text);
    CHECK(fs::exists(folder / "back" / "chat_template.jinja"));

    // Files beside the weights go along where the container is a folder.
    larql::conversion(checkpoint::open(model), folder / "copy", {.form = larql::attention_form::factored}).run();
    CHECK(fs::exists(folder / "copy" / "tokenizer_config.json"));
}

TEST_CASE("gguf tokenizer: files of a tokenizer that larql does not read are named in a warning") {
    const larql::testing::temporary_folder folder;
    const fs::path model = model_in(folder);
    const auto warnings = [&] {
        return larql::conversion(checkpoint::open(model), folder / "a.gguf",
                                 {.form = larql::attention_form::factored, .to = larql::container::gguf})
            .warnings();
    };
    CHECK(warnings().empty());
    for (const char* file : {"tokenization_kimi.py", "tokenizer_config.json"})
        larql::testing::write_file(model / file, "{}");
    CHECK(warnings().empty());
    for (const char* file : {"tiktoken.model", "tekken.json"}) larql::testing::write_file(model / file, "x");
    CHECK(warnings() ==
          std::vector<std::string>{
              "left out: the tokenizer (tekken.json, tiktoken.model), in a format that larql does not read"});
    larql::testing::write_file(model / "tokenizer.json", llama_tokenizer().dump());
    CHECK(warnings().empty());
}

TEST_CASE("gguf tokenizer: what a family's converter says of its tokens and of what splits them") {
    const larql::testing::temporary_folder folder;
    const fs::path model = model_in(folder, "glm_moe_dsa_gguf");
    nlohmann::json tokenizer = llama_tokenizer();
    tokenizer["added_tokens"] = {{{"id", 20}, {"content", "<|endoftext|>"}, {"special", true}},
                                 {{"id", 21}, {"content", "[gMASK]"}, {"special", true}},
                                 {{"id", 22}, {"content", "<|user|>"}, {"special", true}},
                                 {{"id", 23}, {"content", "<|observation|>"}, {"special", true}}};
    larql::testing::write_file(model / "tokenizer.json", tokenizer.dump());
    CHECK(converted(model, folder / "stated.gguf").find<std::uint32_t>("tokenizer.ggml.bos_token_id") == 1U);
    nlohmann::json config = nlohmann::json::parse(std::ifstream(model / "config.json"));
    config.erase("bos_token_id");
    larql::testing::write_file(model / "config.json", config.dump());
    const gguf_file made = converted(model, folder / "a.gguf");
    CHECK(made.find<std::string>("tokenizer.ggml.pre") == "glm4");  // of the same pattern as Llama 3's
    CHECK(made.find<std::uint32_t>("tokenizer.ggml.bos_token_id") == 21U);
    CHECK(made.find<std::uint32_t>("tokenizer.ggml.eot_token_id") == 22U);
    CHECK(made.find<std::uint32_t>("tokenizer.ggml.eom_token_id") == 23U);
    CHECK(made.find<std::uint32_t>("tokenizer.ggml.unknown_token_id") == 20U);
}

TEST_CASE("gguf tokenizer: what splits the text is named, or stated by the caller, or refused") {
    const larql::testing::temporary_folder folder;
    const fs::path model = model_in(folder);
    nlohmann::json tokenizer = llama_tokenizer();
    tokenizer["pre_tokenizer"] = {{"type", "ByteLevel"}, {"use_regex", true}};
    larql::testing::write_file(model / "tokenizer.json", tokenizer.dump());
    CHECK(converted(model, folder / "a.gguf").find<std::string>("tokenizer.ggml.pre") == "gpt-2");

    tokenizer["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "\\w"}}}};
    larql::testing::write_file(model / "tokenizer.json", tokenizer.dump());
    LARQL_CHECK_ERROR((void)converted(model, folder / "b.gguf"), errc::unsupported_architecture, "tokenizer_pre");
    CHECK(
        converted(model, folder / "b.gguf", {{"tokenizer_pre", "smaug-bpe"}}).find<std::string>("tokenizer.ggml.pre") ==
        "smaug-bpe");

    tokenizer["added_tokens"].push_back({{"id", 48}, {"content", "beyond"}});
    larql::testing::write_file(model / "tokenizer.json", tokenizer.dump());
    LARQL_CHECK_ERROR((void)converted(model, folder / "c.gguf"), errc::unsupported_architecture, "vocab_size");
    tokenizer["model"]["type"] = "WordPiece";
    larql::testing::write_file(model / "tokenizer.json", tokenizer.dump());
    LARQL_CHECK_ERROR((void)converted(model, folder / "c.gguf"), errc::unsupported_architecture, "WordPiece");
}

TEST_CASE("gguf tokenizer: pieces of a SentencePiece model, with their scores and types") {
    const larql::testing::temporary_folder folder;
    const fs::path model = model_in(folder);
    const std::string pieces =
        piece("<unk>", 0.0F, 2) + piece("<s>", 0.0F, 3) + piece("<0x0A>", 0.0F, 6) + piece("\u2581the", -1.5F, 1);
    larql::testing::write_file(model / "tokenizer.model", pieces + field(2, "settings of the trainer"));
    larql::testing::write_file(model / "tokenizer_config.json",
                               R"({"added_tokens_decoder": {"1": {"content": "<s>", "special": true},
                                                            "30": {"content": "<tool>", "special": true}}})");
    const gguf_file made = converted(model, folder / "a.gguf");
    CHECK(made.find<std::string>("tokenizer.ggml.model") == "llama");
    const auto tokens = made.find<std::vector<std::string>>("tokenizer.ggml.tokens").value();
    const auto types = made.find<std::vector<std::int32_t>>("tokenizer.ggml.token_type").value();
    const auto scores = made.find<std::vector<float>>("tokenizer.ggml.scores").value();
    REQUIRE(tokens.size() == 48);
    CHECK(tokens[3] == "\u2581the");
    CHECK(scores[3] == -1.5F);
    CHECK(std::vector(types.begin(), types.begin() + 5) == std::vector<std::int32_t>{2, 3, 6, 1, 5});
    CHECK(tokens[30] == "<tool>");
    CHECK(types[30] == 3);
    CHECK(tokens[31] == "[PAD31]");

    larql::testing::write_file(model / "tokenizer.model", pieces.substr(0, pieces.size() - 3));
    LARQL_CHECK_ERROR((void)converted(model, folder / "b.gguf"), errc::unsupported_architecture, "cut off");
}
