// SPDX-License-Identifier: Apache-2.0
#include <larql/error.hpp>
#include <larql/gguf.hpp>
#include <larql/printable.hpp>
#include <larql/safetensors.hpp>

#include <doctest/doctest.h>
#include <support/files.hpp>
#include <support/gguf_builder.hpp>
#include <support/safetensors_builder.hpp>

#include <string>

using larql::errc;
using larql::printable;
namespace testing = larql::testing;

TEST_CASE("printable: letters of any script stay, and what would act on a terminal is spelled out") {
    CHECK(printable("").empty());
    CHECK(printable("model.layers.0 ~ \\ \"") == "model.layers.0 ~ \\ \"");
    for (const std::string kept :
         {"\u00e9", "\u4e2d\u6587", "\U0001f600", "\u00a0", "\u200d", "\u2027\u202f\u2065\u206a"})
        CHECK(printable(kept) == kept);
    CHECK(printable(std::string("a\0b", 3)) == "a\\x00b");
    CHECK(printable("\x1b[2J\r\n\t\x7f") == "\\x1b[2J\\x0d\\x0a\\x09\\x7f");
    CHECK(printable("\u0080\u0085\u009b31m\u009f") == "\\u0080\\u0085\\u009b31m\\u009f");
    CHECK(printable("\u200e\u200f\u061c") == "\\u200e\\u200f\\u061c");
    CHECK(printable("\u2028\u2029\u202a\u202e\u2066\u2069") == "\\u2028\\u2029\\u202a\\u202e\\u2066\\u2069");
}

TEST_CASE("printable: bytes that are not UTF-8 are spelled out one by one") {
    CHECK(printable("a\xff\xfe") == "a\\xff\\xfe");
    CHECK(printable("\x9b\x80") == "\\x9b\\x80");                    // C1 as single bytes
    CHECK(printable("\xc2") == "\\xc2");                             // cut short
    CHECK(printable("\xc1\x9b") == "\\xc1\\x9b");                    // overlong
    CHECK(printable("\xed\xa0\x80") == "\\xed\\xa0\\x80");           // a surrogate
    CHECK(printable("\xf4\x90\x80\x80") == "\\xf4\\x90\\x80\\x80");  // beyond Unicode
    for (const std::string text : {"\x1b\xff\u202e", "abc", "\u4e2d"})
        CHECK(printable(printable(text)) == printable(text));
}

TEST_CASE("printable: long text is cut between characters, and its length is said") {
    CHECK(printable("abcd", 4) == "abcd");
    CHECK(printable("abcde", 4) == "abcd... (5 bytes in all)");
    CHECK(printable("abc\n", 4) == "abc... (4 bytes in all)");
    CHECK(printable("abc\u4e2d", 5) == "abc... (6 bytes in all)");
    CHECK(printable("abc\u4e2d", 6) == "abc\u4e2d");
    CHECK(printable("a", 0) == "... (1 bytes in all)");
}

TEST_CASE("error: what() is one line of text, whatever the names and files are") {
    const std::string hostile = "a\nb\x1b[2J\u009bc\u202ed\xff";
    const larql::error e(errc::bad_value, "got " + hostile, {.file = hostile, .offset = 7, .subject = hostile});
    const std::string shown = "a\\x0ab\\x1b[2J\\u009bc\\u202ed\\xff";
    CHECK(e.what() == shown + " @ 7: " + shown + ": got " + shown);
    CHECK(e.subject() == hostile);  // as it is stored
    const std::string name(100'000, 'n');
    const std::string line = larql::error(errc::bad_value, name, {.file = name, .offset = {}, .subject = name}).what();
    CHECK(line.size() < 9000);
    CHECK(line.find(": " + std::string(200, 'n') + "... (100000 bytes in all): ") != std::string::npos);
}

TEST_CASE("error: names from hostile headers are shown as text and cut short") {
    const std::string hostile = "w\u202e\u009b\x7f";
    testing::gguf_builder builder;
    builder.floats(hostile, {2}, {1, 2}).floats(hostile, {2}, {1, 2});
    LARQL_CHECK_ERROR_TEXT(testing::open_error<larql::gguf_file>("a.gguf", builder.build()), errc::duplicate_name,
                           "w\\u202e\\u009b\\x7f");
    const std::string dtype(50'000, 'D'), key(50'000, 'K');
    const std::string unknown = testing::open_error<larql::safetensors_file>(
        "a.safetensors", testing::safetensors_builder().tensor(hostile.substr(0, 6), dtype, "[]", "1234").build());
    LARQL_CHECK_ERROR_TEXT(unknown, errc::unknown_dtype, "DDD... (50000 bytes in all)\"");
    CHECK(unknown.size() < 1000);
    const std::string metadata = testing::open_error<larql::safetensors_file>(
        "a.safetensors", testing::safetensors_builder().entry("__metadata__", "{\"" + key + "\":1}").build());
    LARQL_CHECK_ERROR_TEXT(metadata, errc::corrupt_header, "KKK... (50000 bytes in all)\"");
    CHECK(metadata.size() < 1000);
}
