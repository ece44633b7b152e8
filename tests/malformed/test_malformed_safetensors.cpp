// SPDX-License-Identifier: Apache-2.0
//
// One defect per file: each must give its own code, the place, and both numbers that disagree.
#include <larql/safetensors.hpp>

#include <doctest/doctest.h>
#include <support/files.hpp>
#include <support/safetensors_builder.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#if !defined(_WIN32)
#include <sys/stat.h>
#endif

using larql::errc;
using larql::safetensors_file;
using larql::testing::le;
using larql::testing::safetensors_builder;
using larql::testing::safetensors_bytes;
using larql::testing::temporary_folder;
using larql::testing::write_file;

namespace {

std::string open_error(const std::string& bytes, const char* name = "m.safetensors") {
    return larql::testing::open_error<safetensors_file>(name, bytes);
}

void refuses(const std::string& bytes, errc code, std::string_view fragment) {
    LARQL_CHECK_ERROR_TEXT(open_error(bytes), code, fragment);
}

void refuses(const safetensors_builder& b, errc code, std::string_view fragment) { refuses(b.build(), code, fragment); }

// One entry "t" with this JSON, and one byte of data.
void refuses_entry(std::string_view json, errc code, std::string_view fragment) {
    refuses(safetensors_bytes("{\"t\":" + std::string(json) + "}", "x"), code, fragment);
}

}  // namespace

TEST_CASE("safetensors: rejects bad header lengths") {
    refuses("", errc::truncated, "m.safetensors @ 0: not a safetensors file: expected at least 8 bytes, got 0");
    refuses("1234567", errc::truncated, "expected at least 8 bytes, got 7");
    refuses(safetensors_bytes("", ""), errc::corrupt_header, "expected a JSON object padded with spaces");
    refuses(safetensors_bytes("{}", "", 3), errc::truncated,
            "header length: the file ends within the header: expected 3 bytes, got 2");
    refuses(safetensors_bytes("{}", "", 100000001), errc::limit_exceeded,
            "header length: expected at most 100000000 bytes, got 100000001");
    refuses(safetensors_bytes("{}", "", UINT64_MAX), errc::limit_exceeded, "got 18446744073709551615");
    refuses(safetensors_bytes("{}", "", 100000000), errc::truncated, "expected 100000000 bytes, got 2");
}

TEST_CASE("safetensors: rejects headers that are not one object padded with spaces") {
    for (const std::string_view bad :
         {" {}", "[]", "{}\n", "{} \t", "\xef\xbb\xbf{}", "7", "{", "{}x", "        ", "null", "\"{}"})
        refuses(safetensors_bytes(bad, ""), errc::corrupt_header,
                "m.safetensors @ 8: header: expected a JSON object padded");
    refuses(safetensors_bytes("{}{}", ""), errc::corrupt_header, "m.safetensors @ 10: header: not JSON");
    refuses(safetensors_bytes(std::string_view("{}\0 }", 5), ""), errc::corrupt_header, "got a NUL character");
    refuses(safetensors_bytes(R"({"a":})", ""), errc::corrupt_header, "not JSON: line 1, column 6: expected a value");
    refuses(safetensors_bytes("{\"\xff\":{}}", ""), errc::corrupt_header, "ill-formed UTF-8: byte");
    refuses(safetensors_bytes(R"({"a":NaN})", ""), errc::corrupt_header, "not JSON");
    refuses(safetensors_bytes("{\"a\":" + std::string(4000000, '[') + "}", ""), errc::corrupt_header,
            "a: expected an object, got an array");
    refuses(safetensors_bytes("{\"a\":" + std::string(4000000, '{') + "}", ""), errc::corrupt_header, "not JSON");
}

TEST_CASE("safetensors: rejects metadata that is not a map of strings") {
    const auto meta = [](std::string_view json) { return safetensors_builder().entry("__metadata__", json).build(); };
    refuses(meta("1"), errc::corrupt_header, "__metadata__: expected an object, got a number");
    refuses(meta("[]"), errc::corrupt_header, "__metadata__: expected an object, got an array");
    refuses(meta(R"({"a":1})"), errc::corrupt_header, "__metadata__: metadata \"a\": expected a string, got a number");
    refuses(meta(R"({"a":null})"), errc::corrupt_header, "expected a string, got a null");
    refuses(meta(R"({"a":{}})"), errc::corrupt_header, "metadata: expected a string, got a container");
    refuses(meta(R"({"a":"1","a":"1"})"), errc::duplicate_name, "a: key stored twice in one object");
    CHECK(open_error(meta("{}")) == "no error");
}

TEST_CASE("safetensors: rejects entries of another form") {
    refuses_entry("1", errc::corrupt_header, "t: expected an object, got a number");
    refuses_entry("null", errc::corrupt_header, "t: expected an object, got a null");
    refuses_entry("{}", errc::corrupt_header, "t: expected dtype, shape and data_offsets, got no dtype");
    refuses_entry(R"({"dtype":"U8","data_offsets":[0,1]})", errc::corrupt_header, "got no shape");
    refuses_entry(R"({"dtype":"U8","shape":[1]})", errc::corrupt_header, "got no data_offsets");
    refuses_entry(R"({"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]})", errc::duplicate_name,
                  "dtype: key stored twice");
    refuses_entry(R"({"dtype":1,"shape":[1],"data_offsets":[0,1]})", errc::corrupt_header,
                  "t: dtype: expected a string, got a number");
    refuses_entry(R"({"dtype":["U8"],"shape":[1],"data_offsets":[0,1]})", errc::corrupt_header,
                  "dtype: expected a string, got a container");
    refuses_entry(R"({"dtype":"U8","shape":1,"data_offsets":[0,1]})", errc::corrupt_header,
                  "t: shape: expected an array, got a number");
    refuses_entry(R"({"dtype":"U8","shape":"U8","data_offsets":[0,1]})", errc::corrupt_header,
                  "t: shape: expected an array, got a string");
    refuses_entry(R"({"dtype":"U8","shape":{},"data_offsets":[0,1]})", errc::corrupt_header,
                  "shape: expected an array, got an object");
    refuses_entry(R"({"dtype":"U8","shape":[[1]],"data_offsets":[0,1]})", errc::corrupt_header,
                  "shape: expected an integer, got a container");
    for (const std::string_view bad : {"true", "1.0", "-1", "18446744073709551616", "1e0", "\"1\"", "null", "-0"})
        refuses_entry("{\"dtype\":\"U8\",\"shape\":[" + std::string(bad) + "],\"data_offsets\":[0,1]}",
                      errc::corrupt_header, "t: shape: expected an integer from 0 to 2^64 - 1, got ");
    refuses_entry(R"({"dtype":"U8","shape":[1],"data_offsets":[0]})", errc::corrupt_header,
                  "data_offsets: expected 2 integers, got 1");
    refuses_entry(R"({"dtype":"U8","shape":[1],"data_offsets":[0,1,2]})", errc::corrupt_header,
                  "data_offsets: expected 2 integers, got 3");
    refuses_entry(R"({"dtype":"U8","shape":[1],"data_offsets":[0,1.0]})", errc::corrupt_header,
                  "data_offsets: expected an integer");
    refuses_entry(R"({"dtype":"U8","shape":[1],"data_offsets":[1,0]})", errc::corrupt_header,
                  "expected an end at or after 1, got 0");
    for (const std::string_view bad : {"u8", "UINT8", "", "F8", "Q4_K", "U8 ", "C64"})
        refuses_entry("{\"dtype\":\"" + std::string(bad) + "\",\"shape\":[1],\"data_offsets\":[0,1]}",
                      errc::unknown_dtype, "t: expected a known dtype, got \"" + std::string(bad) + "\"");
    for (const std::string_view bad : {R"({"shape":[],"data_offsets":[1,2]})", R"({"dtype":"U8","data_offsets":[1,2]})",
                                       R"({"dtype":"U8","shape":[]})"})
        refuses(safetensors_builder().tensor("t", "U8", "[]", "x").entry("u", bad).data("y"), errc::corrupt_header,
                "u: expected dtype, shape and data_offsets, got no ");  // nothing is taken from the entry before
    refuses(safetensors_builder().tensor("t", "U8", "[1]", "x").tensor("t", "U8", "[1]", "x"), errc::duplicate_name,
            "t: key stored twice");
}

TEST_CASE("safetensors: rejects sizes that disagree or overflow") {
    const safetensors_builder b;
    refuses(safetensors_builder().tensor("t", "F32", "[2]", "1234567"), errc::shape_mismatch,
            "t: shape and data_offsets disagree: expected 8 bytes, got 7");
    refuses(safetensors_builder().tensor("t", "F32", "[2]", "123456789"), errc::shape_mismatch,
            "expected 8 bytes, got 9");
    refuses(safetensors_builder().tensor("t", "U8", "[]", ""), errc::shape_mismatch, "expected 1 bytes, got 0");
    refuses(safetensors_builder().tensor("t", "F4", "[3]", "xx"), errc::shape_mismatch,
            "t: expected a multiple of 2 elements of F4, got 3");
    refuses(safetensors_builder().tensor("t", "U8", "[4294967296,4294967296]", ""), errc::corrupt_header, "too large");
    refuses(safetensors_builder().tensor("t", "F64", "[2305843009213693952]", ""), errc::corrupt_header, "too large");
    refuses(safetensors_builder().tensor("t", "U8", "[4294967296,4294967296,0]", ""), errc::corrupt_header,
            "too large");
}

TEST_CASE("safetensors: rejects data that does not fill the file exactly") {
    refuses(safetensors_builder().tensor("t", "U8", "[2]", "xy").data("z"), errc::offset_out_of_range,
            "bytes after the last tensor: expected 2 bytes of data, got 3");
    refuses(safetensors_bytes("{}", "x"), errc::offset_out_of_range, "expected 0 bytes of data, got 1");
    refuses(safetensors_builder().data("z").tensor("t", "U8", "[2]", "xy"), errc::offset_out_of_range,
            "t: leaves a gap after the tensor before it: expected data at 0, got 1");
    refuses(safetensors_builder().tensor("a", "U8", "[1]", "x").data("z").tensor("t", "U8", "[2]", "xy"),
            errc::offset_out_of_range, "t: leaves a gap after the tensor before it: expected data at 1, got 2");
    const auto entry = [](std::string_view range, int count) {
        return "{\"dtype\":\"U8\",\"shape\":[" + std::to_string(count) + "],\"data_offsets\":" + std::string(range) +
               "}";
    };
    refuses(safetensors_builder().entry("a", entry("[0,2]", 2)).entry("b", entry("[1,3]", 2)).data("xyz"),
            errc::offset_out_of_range, "b: overlaps the tensor before it: expected data at 2, got 1");
    refuses(safetensors_builder().entry("a", entry("[0,2]", 2)).entry("b", entry("[0,2]", 2)).data("xy"),
            errc::offset_out_of_range, "overlaps");
    refuses(safetensors_builder().entry("a", entry("[0,2]", 2)).entry("b", entry("[1,1]", 0)).data("xy"),
            errc::offset_out_of_range, "b: overlaps");
    refuses(safetensors_builder().entry("a", entry("[0,2]", 2)).entry("b", entry("[3,3]", 0)).data("xy"),
            errc::truncated, "1 bytes are missing");
    refuses(safetensors_builder().entry("a", entry("[0,9]", 9)).data("xy"), errc::truncated,
            "the file is cut short: expected 9 bytes of data, got 2: 7 bytes are missing");
    refuses(safetensors_builder().entry("a", entry("[0,9]", 9)).entry("b", entry("[1,2]", 1)).data("xy"),
            errc::truncated, "7 bytes are missing");
    refuses(safetensors_builder().entry(
                "a", "{\"dtype\":\"U8\",\"shape\":[18446744073709551615],\"data_offsets\":[0,18446744073709551615]}"),
            errc::truncated, "expected 18446744073709551615 bytes of data, got 0");
}

TEST_CASE("safetensors: rejects what is not a regular file, at once") {
    const temporary_folder folder;
    LARQL_CHECK_ERROR(safetensors_file::open(folder / "absent.safetensors"), errc::io, "cannot open");
#if !defined(_WIN32)
    REQUIRE(::mkfifo((folder / "f.safetensors").c_str(), 0600) == 0);
    LARQL_CHECK_ERROR(safetensors_file::open(folder / "f.safetensors"), errc::not_a_file, "got a FIFO");
    REQUIRE(::mkfifo((folder / "f.safetensors.index.json").c_str(), 0600) == 0);
    LARQL_CHECK_ERROR(safetensors_file::open(folder / "f.safetensors.index.json"), errc::not_a_file, "got a FIFO");
#endif
}

TEST_CASE("safetensors: a file cut anywhere is refused") {
    const std::string whole = safetensors_builder()
                                  .entry("__metadata__", R"({"a":"b"})")
                                  .tensor("t", "F32", "[2]", "12345678")
                                  .tensor("u", "U8", "[3]", "abc")
                                  .build();
    const temporary_folder folder;
    const auto path = write_file(folder / "m.safetensors", whole);
    CHECK(safetensors_file::open(path).shard_count() == 1);
    for (std::size_t size = whole.size(); size-- > 0;) {
        std::filesystem::resize_file(path, size);
        LARQL_CHECK_ERROR(safetensors_file::open(path), errc::truncated, "m.safetensors @ ");
    }
}

namespace {

struct indexed {
    temporary_folder folder;
    indexed() {
        write_file(folder / "a.safetensors", safetensors_builder().tensor("a", "U8", "[1]", "x").build());
        write_file(folder / "b.safetensors", safetensors_builder().tensor("b", "U8", "[1]", "x").build());
    }
    std::string error(std::string_view json) const {
        const auto path = write_file(folder / "model.safetensors.index.json", json);
        return larql::testing::error_of([&] { return safetensors_file::open(path); });
    }
    std::string map_error(std::string_view file) const {
        return error("{\"weight_map\":{\"a\":\"" + std::string(file) + "\"}}");
    }
};

#define LARQL_CHECK_REFUSED(found, code, fragment) CHECK_MESSAGE(larql::testing::is_error(found, code, fragment), found)

}  // namespace

TEST_CASE("safetensors index: rejects another form") {
    const indexed set;
    LARQL_CHECK_REFUSED(set.error(""), errc::corrupt_header, "index.json @ 0: not JSON");
    LARQL_CHECK_REFUSED(set.error("[]"), errc::corrupt_header, "the index: expected an object, got an array");
    LARQL_CHECK_REFUSED(set.error("7"), errc::corrupt_header, "the index: expected an object, got a number");
    LARQL_CHECK_REFUSED(set.error("{}"), errc::missing_key, "weight_map: expected an object, got no such key");
    LARQL_CHECK_REFUSED(set.error(R"({"weight_map":[]})"), errc::corrupt_header,
                        "weight_map: expected an object, got an array");
    LARQL_CHECK_REFUSED(set.error(R"({"weight_map":"a"})"), errc::corrupt_header,
                        "weight_map: expected an object, got a string");
    LARQL_CHECK_REFUSED(set.error(R"({"weight_map":{"a":1}})"), errc::corrupt_header,
                        "a: weight_map: expected a file name, got a number");
    LARQL_CHECK_REFUSED(set.error(R"({"weight_map":{"a":[]}})"), errc::corrupt_header,
                        "a: weight_map: expected a file name, got a container");
    LARQL_CHECK_REFUSED(set.error(R"({"weight_map":{"a":"a.safetensors","a":"b.safetensors"}})"), errc::duplicate_name,
                        "a: key stored twice");
    LARQL_CHECK_REFUSED(set.error(R"({"weight_map":{"a":"a.safetensors"}} x)"), errc::corrupt_header, "not JSON");
    LARQL_CHECK_REFUSED(set.error("{\"x\":" + std::string(3000000, '[') + "}"), errc::corrupt_header, "not JSON");
    const auto config = write_file(set.folder / "config.json", "{}");  // any JSON file is taken for an index
    LARQL_CHECK_ERROR(safetensors_file::open(config), errc::missing_key, "config.json: weight_map: ");
#if !defined(_WIN32)
    std::filesystem::resize_file(config, 1000000001);  // sparse
    LARQL_CHECK_ERROR(safetensors_file::open(config), errc::limit_exceeded,
                      "config.json: expected at most 1000000000 bytes of text, got 1000000001");
#endif
    CHECK(set.error("{\"x\":" + std::string(3000, '[') + std::string(3000, ']') +
                    R"(,"weight_map":{"a":"a.safetensors"}})") == "no error");
}

TEST_CASE("safetensors index: paths stay within the folder") {
    const indexed set;
    LARQL_CHECK_REFUSED(set.map_error(""), errc::bad_value,
                        "a: expected a path within the index's folder, got an empty one");
    LARQL_CHECK_REFUSED(set.map_error("/etc/passwd"), errc::bad_value, "got an absolute one: /etc/passwd");
    LARQL_CHECK_REFUSED(set.map_error("../a.safetensors"), errc::bad_value, "got a parent folder: ../a.safetensors");
    LARQL_CHECK_REFUSED(set.map_error("x/../a.safetensors"), errc::bad_value, "got a parent folder");
    LARQL_CHECK_REFUSED(set.map_error("a.safetensors\\u0000.txt"), errc::bad_value, "got a NUL character");
    CHECK(set.map_error("a.safetensors") == "no error");
}

TEST_CASE("safetensors index: is held against its shards") {
    const indexed set;
    LARQL_CHECK_REFUSED(set.map_error("c.safetensors"), errc::missing_shard,
                        "c.safetensors: a shard is missing: expected the 1 files of");
    LARQL_CHECK_REFUSED(set.error(R"({"weight_map":{"a":"a.safetensors","absent":"c.safetensors"}})"),
                        errc::missing_shard, "c.safetensors: a shard is missing");
    LARQL_CHECK_REFUSED(set.error(R"({"weight_map":{"a":"b.safetensors","b":"a.safetensors"}})"), errc::missing_tensor,
                        "got it in");
    write_file(set.folder / "c.safetensors",
               safetensors_builder().tensor("a", "U8", "[1]", "x").tensor("c", "U8", "[1]", "x").build());
    LARQL_CHECK_REFUSED(set.error(R"({"weight_map":{"a":"a.safetensors","c":"c.safetensors"}})"), errc::duplicate_name,
                        "c.safetensors @");
    write_file(set.folder / "b.safetensors", "12345");
    LARQL_CHECK_REFUSED(set.error(R"({"weight_map":{"a":"a.safetensors","b":"b.safetensors"}})"), errc::truncated,
                        "b.safetensors @ 0");
    std::filesystem::create_directory(set.folder / "d.safetensors");
    LARQL_CHECK_REFUSED(set.map_error("d.safetensors"), errc::not_a_file,
                        "d.safetensors: expected a regular file, got a directory");
}
