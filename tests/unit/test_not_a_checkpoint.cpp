// SPDX-License-Identifier: Apache-2.0
//
// Files that stand where a checkpoint should be, under every name that a checkpoint has.
#include <larql/checkpoint.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <support/files.hpp>
#include <support/gguf_builder.hpp>
#include <support/safetensors_builder.hpp>

#include <string>
#include <string_view>
#include <vector>

using larql::errc;
namespace testing = larql::testing;
using namespace std::string_literals;

namespace {

struct other_file {
    std::string bytes;
    std::vector<std::string> says;
};

const std::string lfs_pointer =
    "version https://git-lfs.github.com/spec/v1\noid sha256:" + std::string(64, '0') + "\nsize 4976698672\n";

std::string gguf_bytes() { return testing::gguf_builder().floats("w", {2}, {1, 2}).build(); }
std::string safetensors_file_bytes() {
    return testing::safetensors_builder().tensor("w", "F32", "[2]", "12345678").build();
}

/// What opening a checkpoint says where `bytes` have this name, alone or, for configurations, beside good weights.
std::string open_as(const std::string& name, const std::string& bytes) {
    const testing::temporary_folder folder;
    const auto path = testing::write_file(folder / name, bytes);
    const bool config = name == "config.json";
    if (config) testing::write_file(folder / "model.safetensors", safetensors_file_bytes());
    return testing::error_of([&] {
        const auto model = larql::checkpoint::open(config ? folder.path() : path);
        return model.config().hidden_size;
    });
}

const std::vector<std::string> names = {"model.safetensors", "model.gguf", "model.safetensors.index.json",
                                        "config.json"};

void check_everywhere(const other_file& other, const std::string& but_not = "") {
    for (const std::string& name : names) {
        if (name == but_not) continue;
        const std::string error = open_as(name, other.bytes);
        CAPTURE(error);
        CHECK(error.find('\n') == std::string::npos);
        CHECK(error.find(name) != std::string::npos);
        for (const std::string& words : other.says) CHECK_MESSAGE(error.find(words) != std::string::npos, words);
    }
}

}  // namespace

TEST_CASE("not a checkpoint: a Git LFS pointer says that the weights must be downloaded, and how large they are") {
    check_everywhere({lfs_pointer, {"bad_magic: ", "Git LFS pointer", "of 4976698672 bytes", "git lfs pull"}});
    check_everywhere({"version https://git-lfs.github.com/spec/v1\n", {"Git LFS pointer", "git lfs pull"}});
    const std::string hostile = "version https://git-lfs.github.com/spec/v1\nsize " + std::string(400, '9') + "\x1b[2J";
    check_everywhere({hostile, {"Git LFS pointer"}});
    for (const std::string& name : names) CHECK(open_as(name, hostile).size() < 400);
}

TEST_CASE("not a checkpoint: pages that a server sent are told from files") {
    for (const std::string_view page : {"<!DOCTYPE html><html><body>Access denied</body></html>", "<!doctype HTML>",
                                        "\r\n\t <HTML lang=\"en\">", "\xef\xbb\xbf<html>"})
        check_everywhere({std::string(page) + std::string(600, 'x'), {"bad_magic: ", "an HTML page", "download"}});
    check_everywhere(
        {"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", {"an XML document", "download"}});
}

TEST_CASE("not a checkpoint: empty files, and space that was never written, are to be downloaded again") {
    check_everywhere({"", {"an empty file", "download it again"}});
    for (const std::size_t size : {8UL, 100UL, 5000UL})
        check_everywhere({std::string(size, '\0'), {"never written", "download it again"}});
    // Data after the head does not matter: downloads arrive out of order.
    check_everywhere({std::string(4096, '\0') + "data", {"never written"}});
}

TEST_CASE("not a checkpoint: archives and pickles are named, with what to do") {
    check_everywhere(
        {"PK\3\4\0\0\0\0\0\0model/data.pkl"s, {"bad_magic: ", "zip archive", "save the model as safetensors"}});
    check_everywhere({"PK\5\6"s + std::string(18, '\0'), {"zip archive"}});
    check_everywhere(
        {"\x1f\x8b\x08\0\0\0\0\0\0\3"s + std::string(600, 'z'), {"bad_magic: ", "gzip archive", "unpack"}});
    check_everywhere({"\x80\2\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80"s, {"bad_magic: ", "Python pickle"}});
}

TEST_CASE("not a checkpoint: each format under the other's name is told which name it needs") {
    check_everywhere({gguf_bytes(), {"bad_magic: ", "a GGUF file", "ends in .gguf"}}, "model.gguf");
    LARQL_CHECK_ERROR_TEXT(open_as("model.gguf", safetensors_file_bytes()), errc::bad_magic, "ends in .safetensors");
    for (const char* json : {"config.json", "model.safetensors.index.json"})
        CHECK(open_as(json, safetensors_file_bytes()).find("ends in .safetensors") != std::string::npos);
    LARQL_CHECK_ERROR_TEXT(open_as("model.gguf", "tjgg\1\0\0\0"s), errc::bad_magic, "from before GGUF");
}

TEST_CASE("not a checkpoint: a pointer in the place of one shard is named") {
    const testing::temporary_folder folder;
    testing::write_file(folder / "a.safetensors", safetensors_file_bytes());
    testing::write_file(folder / "b.safetensors", lfs_pointer);
    testing::write_file(folder / "model.safetensors.index.json",
                        R"({"weight_map":{"w":"a.safetensors","v":"b.safetensors"}})");
    LARQL_CHECK_ERROR(larql::safetensors_file::open(folder.path()), errc::bad_magic, "b.safetensors @ 0: not a");
}

TEST_CASE("not a checkpoint: whatever opens is opened, whatever its first bytes look like") {
    // Header lengths whose bytes are those of gzip and of a pickle.
    for (const std::size_t length : {0x8b1fUL, 0x280UL}) {
        std::string header = R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
        header.resize(length, ' ');
        const testing::temporary_folder folder;
        const auto path = testing::write_file(folder / "a.safetensors", testing::safetensors_bytes(header, "x"));
        const auto file = larql::safetensors_file::open(path);
        CHECK(file.find_tensor("w") != nullptr);
    }
}

#if !defined(_WIN32)
TEST_CASE("not a checkpoint: a configuration too large to be one is not read") {
    const testing::temporary_folder folder;
    const auto config = testing::write_file(folder / "config.json", "{}");
    std::filesystem::resize_file(config, 16'000'001);  // sparse
    LARQL_CHECK_ERROR(larql::read_config_json(config), errc::limit_exceeded, "expected at most 16000000 bytes of text");
    LARQL_CHECK_ERROR(larql::checkpoint::open(folder.path()), errc::limit_exceeded,
                      "config.json: expected at most 16000000 bytes of text, got 16000001");
}
#endif
