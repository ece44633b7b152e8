// SPDX-License-Identifier: Apache-2.0
#include <larql/gguf.hpp>

#include <doctest/doctest.h>
#include <support/files.hpp>
#include <support/gguf_builder.hpp>
#include <support/safetensors_builder.hpp>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

using larql::errc;
using larql::gguf_file;
using larql::gguf_type;
using larql::testing::gguf_builder;
using larql::testing::le;
using larql::testing::temporary_folder;
using larql::testing::write_file;

namespace {

const std::filesystem::path data = LARQL_TEST_DATA;

template <class T>
concept gives_views_of_temporary =
    requires(T (*open)()) { open().tensors(); } || requires(T (*open)()) { open().find_tensor("x"); } ||
    requires(T (*open)()) { open().at_tensor("x"); } || requires(T (*open)()) { open().find_value("x"); } ||
    requires(T (*open)()) { open().metadata(); } || requires(T (*open)()) { open().keys(); };

gguf_builder typical(std::uint32_t version = 3) {
    gguf_builder b(version);
    b.kv_string("general.architecture", "llama").kv("n", gguf_builder::u32, le(7U));
    b.floats("a", {2, 3}, {1, 2, 3, 4, 5, 6}).floats("b", {1}, {-8});
    return b;
}

}  // namespace

static_assert(std::is_nothrow_move_constructible_v<gguf_file> && std::is_nothrow_move_assignable_v<gguf_file>);
static_assert(!std::is_copy_constructible_v<gguf_file>);
static_assert(!gives_views_of_temporary<gguf_file>, "views of a temporary file must not compile");

TEST_CASE("gguf: reads versions 1, 2 and 3") {
    const temporary_folder folder;
    for (const std::uint32_t version : {1U, 2U, 3U}) {
        gguf_builder b = typical(version);
        b.kv_array("words", gguf_builder::string, 2, b.text("x") + b.text("yz"));
        const auto file = gguf_file::open(write_file(folder / "m.gguf", b.build()));
        CHECK(file.version() == version);
        CHECK(file.get<std::vector<std::string>>("words") == std::vector<std::string>{"x", "yz"});
        CHECK(file.get<std::string_view>("general.architecture") == "llama");
        CHECK(file.get<int>("n") == 7);
        CHECK(file.tensors().size() == 2);
        CHECK(file.read<2>("a") == larql::tensor<float, 2>{{1, 2}, {3, 4}, {5, 6}});
        CHECK(file.read<1>("b")(0) == -8);
        CHECK(file.alignment() == 32);
        CHECK(file.shard_count() == 1);
        CHECK(file.shard_path(0) == (folder / "m.gguf").string());
    }
}

TEST_CASE("gguf: shapes are row-major, bytes lie in the map, and both survive a move") {
    const temporary_folder folder;
    gguf_file opened = gguf_file::open(write_file(folder / "m.gguf", typical().build()));
    const larql::tensor_info& a = opened.at_tensor("a");
    const gguf_file file = std::move(opened);
    CHECK(&file.at_tensor("a") == &a);
    CHECK(a.name == "a");
    CHECK(a.shape == std::vector<std::uint64_t>{3, 2});
    CHECK(a.type == larql::dtype::f32);
    CHECK(a.size_bytes == 24);
    CHECK(a.offset % 32 == 0);
    float last = 0;
    std::memcpy(&last, file.bytes(a).data() + 20, 4);
    CHECK(last == 6);
    CHECK(file.find_tensor("c") == nullptr);
    LARQL_CHECK_ERROR(file.at_tensor("c"), errc::missing_tensor, "m.gguf: c: no such tensor among the 2");
    larql::tensor_info foreign = a;
    foreign.offset = 1 << 20;
    LARQL_CHECK_ERROR(file.bytes(foreign), errc::bad_value, "a tensor of another checkpoint");
    foreign.shard = 5;
    LARQL_CHECK_ERROR(file.bytes(foreign), errc::bad_value, "expected a shard below 1, got 5");
}

TEST_CASE("gguf: gives every metadata type, and arrays of it") {
    const temporary_folder folder;
    gguf_builder b;
    b.kv("u8", gguf_builder::u8, le<std::uint8_t>(255)).kv("i8", gguf_builder::i8, le<std::int8_t>(-128));
    b.kv("u16", gguf_builder::u16, le<std::uint16_t>(65535)).kv("i16", gguf_builder::i16, le<std::int16_t>(-3));
    b.kv("u32", gguf_builder::u32, le<std::uint32_t>(4000000000U)).kv("i32", gguf_builder::i32, le<std::int32_t>(-4));
    b.kv("u64", gguf_builder::u64, le<std::uint64_t>(UINT64_MAX)).kv("i64", gguf_builder::i64, le<std::int64_t>(-5));
    b.kv("f32", gguf_builder::f32, le(1.5F)).kv("f64", gguf_builder::f64, le(1e300));
    b.kv("max", gguf_builder::f64, le(static_cast<double>(std::numeric_limits<float>::max())));
    b.kv("inf", gguf_builder::f64, le(std::numeric_limits<double>::infinity()));
    b.kv("yes", gguf_builder::boolean, "\1").kv_string("s", std::string_view("a\0b", 3));
    b.kv_array("i32s", gguf_builder::i32, 3, le(1) + le(-2) + le(3));
    b.kv_array("strings", gguf_builder::string, 3, b.text("x") + b.text("") + b.text("zz"));
    b.kv_array("bools", gguf_builder::boolean, 2, std::string("\1\0", 2));
    b.kv_array("empty", gguf_builder::f32, 0, "");
    b.kv_array(
        "nested", gguf_builder::array, 2,
        le<std::uint32_t>(gguf_builder::u8) + b.length(2) + "\1\2" + le<std::uint32_t>(gguf_builder::u8) + b.length(0));
    const auto file = gguf_file::open(write_file(folder / "m.gguf", b.build()));

    CHECK(file.get<int>("u8") == 255);
    CHECK(file.get<long>("i8") == -128);
    CHECK(file.get<std::uint16_t>("u16") == 65535);
    CHECK(file.get<std::int8_t>("i16") == -3);
    CHECK(file.get<std::uint64_t>("u32") == 4000000000U);
    CHECK(file.get<std::int64_t>("i32") == -4);
    CHECK(file.get<std::uint64_t>("u64") == UINT64_MAX);
    CHECK(file.get<int>("i64") == -5);
    CHECK(file.get<double>("f32") == 1.5);
    CHECK(file.get<float>("f32") == 1.5F);
    CHECK(file.get<double>("f64") == 1e300);
    CHECK(file.get<float>("max") == std::numeric_limits<float>::max());
    CHECK(file.get<float>("inf") == std::numeric_limits<float>::infinity());
    CHECK(file.get<bool>("yes"));
    CHECK(file.get<std::string_view>("s") == std::string_view("a\0b", 3));
    CHECK(file.get<std::string>("s").size() == 3);
    CHECK(file.get<std::vector<int>>("i32s") == std::vector<int>{1, -2, 3});
    CHECK(file.get<std::vector<std::string_view>>("strings") == std::vector<std::string_view>{"x", "", "zz"});
    CHECK(file.get<std::vector<bool>>("bools") == std::vector<bool>{true, false});
    CHECK(file.get<std::vector<float>>("empty").empty());
    CHECK(file.get<std::vector<std::vector<int>>>("nested") == std::vector<std::vector<int>>{{1, 2}, {}});
    CHECK(file.find<int>("absent") == std::nullopt);
    CHECK(file.find_value("absent") == nullptr);
    CHECK(file.keys().front() == "u8");
    CHECK(file.keys().size() == 19);
    CHECK(file.metadata()[1].key == "i8");

    const larql::gguf_value* strings = file.find_value("strings");
    CHECK(strings->is_array());
    CHECK(strings->type() == gguf_type::array);
    CHECK(strings->element_type() == gguf_type::string);
    CHECK(strings->count() == 3);
    CHECK(strings->bytes().size() == 3 * 8 + 3);
    CHECK(strings->type_name() == "array of string");
    CHECK(file.find_value("f32")->count() == 1);
    CHECK(file.find_value("f32")->element_type() == gguf_type::float32);
    CHECK(to_string(gguf_type::float64) == "float64");
}

TEST_CASE("gguf: a wrong metadata type or range names the key, what was wanted and what was found") {
    const temporary_folder folder;
    gguf_builder b;
    b.kv("n", gguf_builder::u32, le(300U)).kv("x", gguf_builder::f32, le(1.0F)).kv("big", gguf_builder::f64, le(1e300));
    b.kv_string("s", "t").kv_array("a", gguf_builder::i32, 1, le(-1));
    b.kv("w", gguf_builder::u64, le(std::uint64_t{1})).kv("small", gguf_builder::f64, le(-1e300));
    const auto file = gguf_file::open(write_file(folder / "m.gguf", b.build()));
    LARQL_CHECK_ERROR(file.get<int>("s"), errc::wrong_type,
                      ": s: metadata of another type: expected integer, got string");
    LARQL_CHECK_ERROR(file.get<int>("x"), errc::wrong_type, "expected integer, got float32");
    LARQL_CHECK_ERROR(file.get<float>("n"), errc::wrong_type, "expected float32 or float64, got uint32");
    LARQL_CHECK_ERROR(file.get<double>("w"), errc::wrong_type, "expected float32 or float64, got uint64");
    LARQL_CHECK_ERROR(file.get<bool>("n"), errc::wrong_type, "expected bool, got uint32");
    LARQL_CHECK_ERROR(file.get<std::string_view>("n"), errc::wrong_type, "expected string, got uint32");
    LARQL_CHECK_ERROR(file.get<int>("a"), errc::wrong_type, "expected integer, got array of int32");
    LARQL_CHECK_ERROR(file.get<std::vector<int>>("n"), errc::wrong_type, "expected array of integer, got uint32");
    LARQL_CHECK_ERROR(file.get<std::vector<std::string>>("a"), errc::wrong_type, "got array of int32");
    LARQL_CHECK_ERROR(file.get<std::vector<std::vector<int>>>("a"), errc::wrong_type,
                      "expected array of array of integer, got array of int32");
    LARQL_CHECK_ERROR(file.get<std::uint8_t>("n"), errc::bad_value,
                      ": n: integer out of range: expected 0 to 255, got 300");
    LARQL_CHECK_ERROR(file.get<std::vector<std::uint32_t>>("a"), errc::bad_value, "expected 0 to 4294967295, got -1");
    LARQL_CHECK_ERROR(file.get<float>("big"), errc::bad_value, "number out of range");
    LARQL_CHECK_ERROR(file.get<float>("small"), errc::bad_value, "small: number out of range");
    LARQL_CHECK_ERROR(file.get<int>("absent"), errc::missing_key, "absent: expected integer, got no such");
    LARQL_CHECK_ERROR(file.find<int>("s"), errc::wrong_type, "s: ");
}

TEST_CASE("gguf: alignments 1, 8 and 64, gaps, any order of data, empty tensors and trailing bytes are fine") {
    const temporary_folder folder;
    for (const std::uint32_t alignment : {1U, 8U, 64U}) {
        gguf_builder b = typical();
        b.kv("general.alignment", gguf_builder::u32, le(alignment)).alignment = alignment;
        const auto file = gguf_file::open(write_file(folder / "m.gguf", b.build()));
        CHECK(file.alignment() == alignment);
        CHECK(file.read<1>("b")(0) == -8);
    }
    gguf_builder b;
    b.tensor({.name = "late", .ne = {2}, .bytes = 96, .offset = 96});  // data is written one after the other: zeros
    b.tensor({.name = "early", .ne = {3}, .bytes = 32, .offset = 0});
    b.tensor({.name = "nothing", .ne = {0, 5}, .offset = 32});
    b.tensor({.name = "scalar", .ne = {}, .bytes = 4, .offset = 64});
    b.tensor({.name = "long", .ne = {16}, .bytes = 64, .offset = 128});
    b.tensor({.name = "nothing within", .ne = {0}, .offset = 160});
    b.pad_end = false;
    b.trailing = "not a header";
    const auto file = gguf_file::open(write_file(folder / "m.gguf", b.build()));
    CHECK(file.at_tensor("nothing").shape == std::vector<std::uint64_t>{5, 0});
    CHECK(file.bytes(file.at_tensor("nothing")).empty());
    CHECK(file.read<2>("nothing").size() == 0);
    CHECK(file.at_tensor("scalar").shape.empty());
    CHECK(file.read<0>("scalar")() == 0);
    CHECK(file.tensors()[0].name == "late");
}

TEST_CASE("gguf: reads rows of a quantised tensor, and only whole tensors of the rank asked for") {
    const temporary_folder folder;
    gguf_builder b;
    std::string blocks;
    for (int i = 0; i < 4; ++i) blocks += le<std::uint16_t>(0x3c00) + std::string(32, static_cast<char>(i));  // scale 1
    b.tensor({.name = "q", .ne = {64, 2}, .type = 8, .data = blocks});
    b.tensor({.name = "i", .ne = {2}, .type = 26, .data = le(5) + le(-70000)});
    const auto file = gguf_file::open(write_file(folder / "m.gguf", b.build()));
    const auto all = file.read<2>("q");
    CHECK(all(0, 31) == 0);
    CHECK(all(0, 32) == 1);
    CHECK(all(1, 63) == 3);
    std::vector<float> row(64);
    file.read_rows(file.at_tensor("q"), 1, 2, row.data());
    CHECK(row[0] == 2);
    CHECK(row[63] == 3);
    file.read_rows(file.at_tensor("q"), 2, 2, nullptr);
    LARQL_CHECK_ERROR(file.read_rows(file.at_tensor("q"), 1, 3, row.data()), errc::bad_value,
                      "q: rows out of range: expected rows within 0 to 2, got 1 to 3");
    LARQL_CHECK_ERROR(file.read<3>("q"), errc::shape_mismatch, "q: expected 3 dimensions, got 2");
    LARQL_CHECK_ERROR(file.read<1>("q"), errc::shape_mismatch, "q: expected 1 dimensions, got 2");
    LARQL_CHECK_ERROR(file.read<1>("i"), errc::unsupported_dtype, "integers of type I32");
    LARQL_CHECK_ERROR(file.read<1>("none"), errc::missing_tensor, "none: no such tensor");
    CHECK(file.read_integers<int, 1>("i")(1) == -70000);
    LARQL_CHECK_ERROR((file.read_integers<std::int16_t, 1>("i")), errc::bad_value,
                      "expected -32768 to 32767, got -70000");
    LARQL_CHECK_ERROR((file.read_integers<int, 2>("q")), errc::unsupported_dtype, "expected integers, got type Q8_0");
    std::vector<std::byte> bytes(4);
    file.read_bytes(file.at_tensor("i"), 4, bytes);
    CHECK(std::memcmp(bytes.data(), le(-70000).data(), 4) == 0);
    LARQL_CHECK_ERROR(file.read_bytes(file.at_tensor("i"), 5, bytes), errc::bad_value,
                      "read beyond the tensor: expected at most 8 bytes, got 5 + 4");
}

TEST_CASE("gguf: a tensor larger than one piece is read whole") {
    const temporary_folder folder;
    std::vector<float> values(100001);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
    gguf_builder b;
    b.floats("t", {100001}, values);
    const auto file = gguf_file::open(write_file(folder / "m.gguf", b.build()));
    const auto t = file.read<1>("t");
    CHECK(std::equal(t.begin(), t.end(), values.begin(), values.end()));
}

TEST_CASE("gguf: a file that changed since it was opened is an error of its own") {
    const temporary_folder folder;
    const auto path = write_file(folder / "m.gguf", typical().build());
    const auto file = gguf_file::open(path);
    file.verify_unchanged();
    std::filesystem::resize_file(path, std::filesystem::file_size(path) - 40);
    LARQL_CHECK_ERROR(file.verify_unchanged(), errc::source_changed, "m.gguf: the file changed after it was opened");
    LARQL_CHECK_ERROR(file.read<2>("a"), errc::source_changed, "m.gguf: the file changed after it was opened");
}

TEST_CASE("gguf: a model is the same whole and in shards, from any shard") {
    const auto whole = gguf_file::open(data / "gguf/deepseek_v3-bf16.gguf");
    for (int i = 1; i <= 3; ++i) {
        const auto name = "deepseek_v3-bf16-0000" + std::to_string(i) + "-of-00003.gguf";
        const auto file = gguf_file::open(data / "gguf/sharded" / name);
        CHECK(file.shard_count() == 3);
        CHECK(file.shard_path(2).ends_with("deepseek_v3-bf16-00003-of-00003.gguf"));
        CHECK(file.get<std::string_view>("general.architecture") == "deepseek2");
        LARQL_CHECK_ERROR(file.at_tensor("none"), errc::missing_tensor, "-00001-of-00003.gguf: none: no such tensor");
        REQUIRE(file.tensors().size() == whole.tensors().size());
        for (const larql::tensor_info& t : whole.tensors()) {
            const auto a = whole.bytes(t);
            const auto b = file.bytes(file.at_tensor(t.name));
            CHECK(std::equal(a.begin(), a.end(), b.begin(), b.end()));
        }
    }
}

TEST_CASE("gguf: a model holds the numbers that its safetensors form holds") {
    const auto file = gguf_file::open(data / "gguf/llama3-bf16.gguf");
    CHECK(file.read<2>("token_embd.weight").shape(1) == 64);
    CHECK(file.at_tensor("blk.0.attn_q.weight").type == larql::dtype::bf16);
    CHECK(file.at_tensor("output_norm.weight").type == larql::dtype::f32);
}

namespace {

std::size_t tensor_count(const std::filesystem::path& path) {
    const auto file = gguf_file::open(path);
    return file.tensors().size();
}

// A set of shards, the first without tensors as gguf-split can make it.
void write_shards(const std::filesystem::path& folder, std::uint16_t count, const std::string& width = "0000") {
    for (std::uint16_t i = 0; i < count; ++i) {
        gguf_builder b;
        if (i == 0) b.kv_string("general.architecture", "llama");
        b.split(i, count, count - 1);
        if (i > 0) b.floats("t" + std::to_string(i), {1}, {static_cast<float>(i)});
        write_file(folder / ("m-" + width + std::to_string(i + 1) + "-of-" + width + std::to_string(count) + ".gguf"),
                   b.build());
    }
}

}  // namespace

TEST_CASE("gguf: finds shards through a folder, links, and numbers of any width from three digits") {
    const temporary_folder folder;
    for (const std::string width : {"00", "0000", "0000000"}) {
        const auto set = folder / ("set" + width);
        std::filesystem::create_directory(set);
        write_shards(set, 3, width);
        CHECK(tensor_count(set) == 2);
        CHECK(gguf_file::open(set / ("m-" + width + "2-of-" + width + "3.gguf")).read<1>("t2")(0) == 2);
    }
    const auto set = folder / "set0000";
#if !defined(_WIN32)
    // One link to a shard among its siblings, as a user makes it.
    std::filesystem::create_symlink(set / "m-00003-of-00003.gguf", folder / "link.gguf");
    CHECK(gguf_file::open(folder / "link.gguf").shard_count() == 3);
    std::filesystem::create_symlink("link.gguf", folder / "link to a link.gguf");
    CHECK(gguf_file::open(folder / "link to a link.gguf").shard_count() == 3);
    // Links with the right names to blobs with others, as a download cache makes them.
    std::filesystem::create_directory(folder / "snapshot");
    std::filesystem::create_directory(folder / "blobs");
    for (const std::string i : {"1", "2", "3"}) {
        std::filesystem::copy_file(set / ("m-0000" + i + "-of-00003.gguf"), folder / "blobs" / ("hash" + i));
        std::filesystem::create_symlink("../blobs/hash" + i, folder / "snapshot" / ("m-0000" + i + "-of-00003.gguf"));
    }
    CHECK(tensor_count(folder / "snapshot/m-00002-of-00003.gguf") == 2);
    CHECK(tensor_count(folder / "snapshot") == 2);
#endif
    // A merged file says that it has no shards, and a set of one is complete whatever its name.
    gguf_builder merged;
    merged.split(0, 0, 9).floats("a", {1}, {1});
    CHECK(gguf_file::open(write_file(folder / "x-00001-of-00009.gguf", merged.build())).shard_count() == 1);
    gguf_builder alone;
    alone.split(0, 1, 1).floats("a", {1}, {1});
    CHECK(gguf_file::open(write_file(folder / "alone.gguf", alone.build())).shard_count() == 1);
}

TEST_CASE("gguf: the smallest strings, arrays and entries may end a file") {
    const temporary_folder folder;
    for (const std::uint32_t version : {1U, 3U}) {
        gguf_builder strings(version), nested(version), entries(version);
        strings.kv_array("k", gguf_builder::string, 3, strings.text("") + strings.text("") + strings.text(""));
        const std::string none = le<std::uint32_t>(gguf_builder::u8) + nested.length(0);
        nested.kv_array("k", gguf_builder::array, 2, none + none);
        for (const char* key : {"a", "b", "c"}) entries.kv(key, gguf_builder::u8, "\1");
        gguf_builder infos(version);
        infos.kv("general.alignment", gguf_builder::u32, le(1U)).alignment = 1;
        for (char name = 'A'; name <= 'Z'; ++name) infos.tensor({std::string(1, name), {}, 24, "x"});  // I8 scalars
        for (const gguf_builder* b : {&strings, &nested, &entries, &infos})
            CHECK(gguf_file::open(write_file(folder / "m.gguf", b->build())).version() == version);
    }
}

TEST_CASE("gguf: split keys may be integers of any type") {
    const temporary_folder folder;
    for (std::uint16_t i = 0; i < 2; ++i) {
        gguf_builder b;
        b.kv("split.no", gguf_builder::i64, le<std::int64_t>(i))
            .kv("split.count", gguf_builder::u64, le<std::uint64_t>(2));
        b.kv("split.tensors.count", gguf_builder::u8, le<std::uint8_t>(2)).floats("t" + std::to_string(i), {1}, {1});
        write_file(folder / ("m-00" + std::to_string(i + 1) + "-of-002.gguf"), b.build());
    }
    CHECK(tensor_count(folder.path()) == 2);
}

TEST_CASE("gguf: 20,000 keys and 20,000 tensors open within two seconds") {
    const temporary_folder folder;
    gguf_builder b;
    const std::string prefix(30, 'x');
    std::string tensors;
    for (int i = 0; i < 20000; ++i) {
        b.kv(prefix + std::to_string(i), gguf_builder::u8, "\1");
        b.tensor({.name = prefix + std::to_string(i), .ne = {0}});
    }
    const auto path = write_file(folder / "m.gguf", b.build());
    const auto start = std::chrono::steady_clock::now();
    const auto file = gguf_file::open(path);
    CHECK(file.find_tensor(prefix + "19999") != nullptr);
    CHECK(file.get<int>(prefix + "777") == 1);
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(2));
}
