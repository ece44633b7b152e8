// SPDX-License-Identifier: Apache-2.0
#include <larql/detail/io/json.hpp>
#include <larql/detail/io/json_string.hpp>
#include <larql/detail/io/utf8.hpp>

#include <nlohmann/json.hpp>

#include <doctest/doctest.h>
#include <support/files.hpp>
#include <support/json_peer.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

using larql::errc;
using larql::detail::json_limits;

namespace {

nlohmann::json parse(std::string_view text, const json_limits& limits = {}, std::uint64_t offset = 0) {
    return larql::detail::parse_json(text, {.file = "f.json", .offset = offset, .subject = {}}, limits);
}

std::string nested(std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

}  // namespace

TEST_CASE("json: builds the value that the text says") {
    const auto value =
        parse(R"( {"a":[1,-2,{"b":null,"":[]}],"c":true,"d":2.5,"e":"\u00e9\n","f":18446744073709551615} )");
    CHECK(value["a"][0] == 1);
    CHECK(value["a"][1] == -2);
    CHECK(value["a"][2]["b"].is_null());
    CHECK(value["a"][2][""].is_array());
    CHECK(value["c"] == true);
    CHECK(value["d"] == 2.5);
    CHECK(value["e"] == "\xc3\xa9\n");
    CHECK(value["f"].is_number_unsigned());
    CHECK(parse("7") == 7);
    CHECK(parse("\"x\"") == "x");
    CHECK(parse("\xef\xbb\xbf{}").is_object());
    CHECK(parse("[0, 1.0, 18446744073709551616]")[2].is_number_float());
}

TEST_CASE("json: rejects what is not JSON, with the byte") {
    for (const std::string_view bad :
         {"",         " ",        "{",       "{\"a\":1",    "[1,]",    "{\"a\":1,}", "{a:1}",       "'a'",   "[01]",
          "[1.]",     "[.5]",     "[+1]",    "nul",         "[NaN]",   "[Infinity]", "[-Infinity]", "{} {}", "{}x",
          "// c\n{}", "\"a\nb\"", "\"\\x\"", "\"\\ud800\"", "[1e999]", "\xef\xbb{}", "{\"a\" 1}"})
        LARQL_CHECK_ERROR(parse(bad), errc::corrupt_header, "f.json @ ");
    LARQL_CHECK_ERROR(parse("[1, 2, x]"), errc::corrupt_header,
                      "f.json @ 7: not JSON: line 1, column 8: expected a value, got \"x\"");
    LARQL_CHECK_ERROR(parse("{\n \"a\": 1,\n \"b\" 2}"), errc::corrupt_header,
                      "f.json @ 16: not JSON: line 3, column 6: expected ':', got \"2\"");
    LARQL_CHECK_ERROR(parse(std::string_view("{}\0", 3)), errc::corrupt_header,
                      "f.json @ 2: not JSON: line 1, column 3: expected text, got a NUL character");
    LARQL_CHECK_ERROR(parse(std::string_view("{}\0{", 4)), errc::corrupt_header, "f.json @ 2");
    LARQL_CHECK_ERROR(parse("[1, 2, x]", {}, 100), errc::corrupt_header, "f.json @ 107: not JSON");
}

TEST_CASE("json: says what it expected, and what it got") {
    const std::pair<std::string_view, std::string_view> cases[] = {
        {"[1 2]", "expected ',' or ']', got \"2\""},
        {"{\"a\":1]", "expected ',' or '}', got \"]\""},
        {"{a:1}", "expected a key in quotes, got \"a\""},
        {"{\"a\":1,}", "expected a key in quotes, got \"}\""},
        {"[1,]", "expected a value, got \"]\""},
        {"[1.]", "expected a digit, got \"]\""},
        {"[1e+]", "expected a digit, got \"]\""},
        {"[-]", "expected a digit, got \"]\""},
        {"[\"a", "expected a closing quote, got the end of the text"},
        {"[\"a\\n\x01\"]", "expected a closing quote, got \"\\x01\""},
        {"[\"\\q\"]", "expected an escape, got \"q\""},
        {"[\"\\u12g4\"]", "expected four hexadecimal digits, got \"g\""},
        {"[\"\\ud800\\u0041\"]", "half of a surrogate pair"},
        {"[\"\\udc00\"]", "half of a surrogate pair"},
        {"[\"x\xc3\"]", "ill-formed UTF-8: byte \\xc3"},
        {"[-1e999]", "expected a number within double's range"},
        {"[\xc3\xa9]", "expected a value, got \"\xc3\xa9\""},
        {"{} x", "expected the end of the text, got \"x\""},
    };
    for (const auto& [text, problem] : cases) LARQL_CHECK_ERROR(parse(text), errc::corrupt_header, problem);
}

TEST_CASE("json: is read as nlohmann's parser reads it") {
    using larql::testing::compare_json;
    using larql::testing::json_agreement;
    const std::string_view texts[] = {
        R"({"a":[1,-2,{"b":null,"":[]}],"c":true,"d":2.5e-3,"e":"\u00e9\n\ud83d\ude00\/\b\f\r\t\"\\"})",
        R"([0,-0,10,18446744073709551615,18446744073709551616,-9223372036854775808,-9223372036854775809])",
        R"([0.0,-0.0,1E5,1e-400,4.9e-324,1.7976931348623157e308,123456789012345678901234567890.5])",
        "\xef\xbb\xbf [ \"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\" ,\t{ } ,\r\n[ ] , false ] ",
        R"({"x.w":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},"__metadata__":{"format":"pt"}})"};
    std::size_t accepted = 0, refused = 0;
    const auto check = [&](const std::string& text) {
        const json_agreement found = compare_json(text);
        accepted += found == json_agreement::same_value ? 1 : 0;
        refused += found == json_agreement::both_refuse ? 1 : 0;
        CAPTURE(text);
        CHECK(found != json_agreement::differs);
    };
    for (const std::string_view text : texts) {
        REQUIRE(compare_json(text) == json_agreement::same_value);
        for (std::size_t at = 0; at < text.size(); ++at) {
            for (int byte = 1; byte < 256; ++byte) {
                std::string changed(text);
                changed[at] = static_cast<char>(byte);
                check(changed);
            }
            for (std::size_t length = 1; length < 30; ++length) {
                check(std::string(text).erase(at, length));
                check(std::string(text).insert(at, text.substr(at, length)));
            }
        }
    }
    CHECK(accepted > 10000);
    CHECK(refused > 10000);
}

TEST_CASE("json: rejects strings that are not UTF-8") {
    for (const std::string_view bad : {"\xff", "\x80", "\xc0\x80", "\xc3", "\xe0\x80\x80", "\xed\xa0\x80",
                                       "\xf0\x8f\x80\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80"}) {
        LARQL_CHECK_ERROR(parse("[\"" + std::string(bad) + "\"]"), errc::corrupt_header, "not JSON");
        CHECK(
            larql::detail::is_utf8(larql::testing::error_of([&] { return parse("[\"" + std::string(bad) + "\"]"); })));
        CHECK(!larql::detail::is_utf8(bad));
        for (std::size_t before = 0; before <= 8; ++before)  // eight bytes are looked at together
            CHECK(!larql::detail::is_utf8(std::string(before, 'x') + std::string(bad) + "12345678"));
    }
    for (const std::string_view good :
         {"", "a", "\xc3\xa9", "\xe2\x82\xac", "\xed\x9f\xbf", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf"}) {
        CHECK(parse("[\"" + std::string(good) + "\"]")[0] == good);
        CHECK(larql::detail::is_utf8(good));
    }
}

TEST_CASE("json: rejects a key that occurs twice in one object, at any depth") {
    LARQL_CHECK_ERROR(parse(R"({"a":1,"b":2,"a":3})"), errc::duplicate_name, ": a: key stored twice in one object");
    LARQL_CHECK_ERROR(parse(R"([{"x":{"k":1,"\u006b":1}}])"), errc::duplicate_name, ": k: key stored twice");
    LARQL_CHECK_ERROR(parse(R"({"o":{"c":1,"b":2,"a":3,"b":4}})"), errc::duplicate_name, ": b: key stored twice");
    for (const std::size_t keys : {3U, 7U, 8U, 9U, 200U}) {  // few keys are compared, many are indexed
        std::string text = "{";
        for (std::size_t i = 0; i < keys; ++i) text += "\"k" + std::to_string(i) + "\":0,";
        CHECK_NOTHROW(parse(text + "\"k\":0}"));
        LARQL_CHECK_ERROR(parse(text + "\"k1\":0}"), errc::duplicate_name, ": k1: key stored twice");
        LARQL_CHECK_ERROR(parse("{\"a\":1,\"b\":" + text + "\"k1\":0}}"), errc::duplicate_name,
                          ": k1: key stored twice");
    }
    CHECK(parse(R"({"a":{"a":{"a":1}},"b":{"a":1}})").size() == 2);
}

TEST_CASE("json: limits depth without recursing") {
    CHECK(parse(nested(64)).is_array());
    LARQL_CHECK_ERROR(parse(nested(65)), errc::limit_exceeded, "nested too deep: expected at most 64 levels, got 65");
    LARQL_CHECK_ERROR(parse(std::string(5000000, '[')), errc::limit_exceeded, "expected at most 64 levels");
    const auto dropped = parse("{\"deep\":" + nested(2000000) + ",\"n\":[1,[2]],\"o\":{\"p\":[{}]}}",
                               {.max_depth = 3, .drop_deeper = true});
    CHECK(parse(R"({"q":[[[1,2,{"k":3}],4]]})", {.max_depth = 3, .drop_deeper = true})["q"].dump() == "[[null,4]]");
    CHECK(dropped["n"][1][0] == 2);
    CHECK(dropped["deep"][0][0].is_null());
    CHECK(dropped["o"]["p"][0].is_null());
    LARQL_CHECK_ERROR(parse("[[[{\"a\":1,\"a\":1}]]]", {.max_depth = 2, .drop_deeper = true}), errc::duplicate_name,
                      ": a: ");
}

TEST_CASE("json: tolerates bare NaN and infinities where asked to, as strings") {
    const json_limits python{.tolerate_non_finite = true};
    const auto value =
        parse(R"({"a":NaN,"b":[Infinity,-Infinity],"c":"NaN -Infinity \" Infinity \\","d":-1,"NaN":1})", python);
    CHECK(value["a"] == "NaN");
    CHECK(value["b"][0] == "Infinity");
    CHECK(value["b"][1] == "-Infinity");
    CHECK(value["c"] == "NaN -Infinity \" Infinity \\");
    CHECK(value["d"] == -1);
    CHECK(value["NaN"] == 1);
    for (const std::string_view bad : {"[NaNs]", "[aNaN]", "[NaN,Nab]", "[NaN,Inxxxxxx]", "[NaN,-Ixxxxxxx]",
                                       "[Infinit]", "[-NaN]", "[+Infinity]", "[NaN Infinity]", "{NaN:1}x", "\"NaN"})
        LARQL_CHECK_ERROR(parse(bad, python), errc::corrupt_header, "f.json");
    LARQL_CHECK_ERROR(parse("[NaN, x]", python), errc::corrupt_header, "f.json @ 6: not JSON");
}

TEST_CASE("json: a string written is the string read") {
    const std::string text = std::string("q\" b\\ n\n t\t", 10) + std::string(1, '\x01') + "\x1f\x7f caf\xc3\xa9";
    std::string out;
    larql::detail::append_json_string(out, text);
    CHECK(parse(out) == text);
}
