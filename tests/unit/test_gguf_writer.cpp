// SPDX-License-Identifier: Apache-2.0
#include <larql/gguf.hpp>
#include <larql/gguf_writer.hpp>

#include <doctest/doctest.h>
#include <support/files.hpp>
#include <support/gguf_builder.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

using larql::dtype;
using larql::errc;
using larql::gguf_file;
using larql::gguf_type;
using larql::gguf_writer;
using larql::testing::gguf_builder;
using larql::testing::le;
using larql::testing::read_file;
using larql::testing::temporary_folder;
using larql::testing::write_file;

namespace {

const std::filesystem::path data = LARQL_TEST_DATA;

std::span<const std::byte> bytes_of(std::string_view text) {
    return std::as_bytes(std::span(text.data(), text.size()));
}

void copy(const gguf_file& from, const std::filesystem::path& to) {
    gguf_writer writer(to);
    for (const larql::gguf_entry& e : from.metadata()) writer.set(e.key, e.value);
    for (const larql::tensor_info& t : from.tensors()) writer.add_tensor(t.name, t.type, t.shape);
    for (const larql::tensor_info& t : from.tensors()) writer.write(t.name, from.bytes(t));
    writer.commit();
}

}  // namespace

static_assert(std::is_move_constructible_v<gguf_writer> && !std::is_copy_constructible_v<gguf_writer>);

TEST_CASE("gguf_writer: a copy of a model is the same file, byte for byte") {
    const temporary_folder folder;
    const auto source = data / "gguf/deepseek_v3-bf16.gguf";
    copy(gguf_file::open(source), folder / "copy.gguf");
    CHECK(read_file(folder / "copy.gguf") == read_file(source));
    CHECK(folder.file_count() == 1);
}

TEST_CASE("gguf_writer: writes every metadata type, as what it is") {
    const temporary_folder folder;
    {
        gguf_writer writer(folder / "m.gguf");
        writer.set("u8", std::uint8_t{255});
        writer.set("i8", std::int8_t{-1});
        writer.set("u16", std::uint16_t{65535});
        writer.set("i16", std::int16_t{-2});
        writer.set("u32", std::uint32_t{7});
        writer.set("i32", -3);
        writer.set("u64", UINT64_MAX);
        writer.set("i64", std::int64_t{-4});
        writer.set("f32", 1.5F);
        writer.set("f64", 2.5);
        writer.set("bool", true);
        writer.set("literal", "text");
        writer.set("string", std::string("a\0b", 3));
        writer.set("ints", std::vector<std::int32_t>{1, -2});
        writer.set("strings", std::vector<std::string>{"x", "", "yz"});
        writer.set("bools", std::vector<bool>{true, false});
        writer.set("nested", std::vector<std::vector<float>>{{1}, {}, {2, 3}});
        writer.set("gone", 1);
        writer.set("u32", std::uint32_t{8});  // replaced in its place
        writer.remove("gone");
        writer.remove("never there");
        writer.commit();
    }
    const auto file = gguf_file::open(folder / "m.gguf");
    CHECK(file.keys() == std::vector<std::string_view>{"u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "f32",
                                                       "f64", "bool", "literal", "string", "ints", "strings", "bools",
                                                       "nested"});
    constexpr gguf_type types[] = {gguf_type::uint8,   gguf_type::int8,    gguf_type::uint16,  gguf_type::int16,
                                   gguf_type::uint32,  gguf_type::int32,   gguf_type::uint64,  gguf_type::int64,
                                   gguf_type::float32, gguf_type::float64, gguf_type::boolean, gguf_type::string,
                                   gguf_type::string};
    for (std::size_t i = 0; i < std::size(types); ++i) CHECK(file.metadata()[i].value.type() == types[i]);
    CHECK(file.get<int>("u32") == 8);
    CHECK(file.get<int>("i16") == -2);
    CHECK(file.get<double>("f64") == 2.5);
    CHECK(file.get<std::string_view>("string") == std::string_view("a\0b", 3));
    CHECK(file.get<std::vector<int>>("ints") == std::vector<int>{1, -2});
    CHECK(file.get<std::vector<std::string>>("strings") == std::vector<std::string>{"x", "", "yz"});
    CHECK(file.get<std::vector<bool>>("bools") == std::vector<bool>{true, false});
    CHECK(file.get<std::vector<std::vector<float>>>("nested") == std::vector<std::vector<float>>{{1}, {}, {2, 3}});
}

TEST_CASE("gguf_writer: copies metadata of version 1, whose lengths are narrower") {
    const temporary_folder folder;
    gguf_builder old(1);
    old.kv_string("s", "text").kv("n", gguf_builder::u16, le<std::uint16_t>(9));
    old.kv_array("strings", gguf_builder::string, 2, old.text("x") + old.text("yz"));
    old.kv_array("numbers", gguf_builder::f32, 1, le(0.5F));
    old.kv_array("nested", gguf_builder::array, 1,
                 le<std::uint32_t>(gguf_builder::string) + old.length(1) + old.text("deep"));
    old.floats("t", {2, 1}, {3, 4});
    copy(gguf_file::open(write_file(folder / "old.gguf", old.build())), folder / "new.gguf");
    const auto file = gguf_file::open(folder / "new.gguf");
    CHECK(file.version() == 3);
    CHECK(file.get<std::string>("s") == "text");
    CHECK(file.get<int>("n") == 9);
    CHECK(file.get<std::vector<std::string>>("strings") == std::vector<std::string>{"x", "yz"});
    CHECK(file.get<std::vector<float>>("numbers") == std::vector<float>{0.5F});
    CHECK(file.get<std::vector<std::vector<std::string>>>("nested") == std::vector<std::vector<std::string>>{{"deep"}});
    CHECK(file.read<2>("t")(0, 1) == 4);
}

TEST_CASE("gguf_writer: aligns tensors as asked, in the order of declaration, filled in any order") {
    const temporary_folder folder;
    for (const std::uint32_t alignment : {0U, 1U, 8U, 128U}) {
        const auto path = folder / ("m" + std::to_string(alignment) + ".gguf");
        gguf_writer writer(path);
        if (alignment != 0) writer.set("general.alignment", alignment);
        writer.add_tensor("b", dtype::i8, {3});
        writer.add_tensor("none", dtype::f32, {0});
        writer.add_tensor("a", dtype::q8_0, {1, 1, 2, 32});
        writer.write("a", bytes_of(std::string(68, '\1')));
        writer.write("b", bytes_of("x"));
        writer.write("b", bytes_of("yz"));
        writer.commit();
        const auto file = gguf_file::open(path);
        CHECK(file.alignment() == (alignment == 0 ? 32 : alignment));
        CHECK(file.tensors()[0].name == "b");
        CHECK(file.tensors()[2].shape == std::vector<std::uint64_t>{1, 1, 2, 32});
        CHECK(file.read_integers<int, 1>("b")(2) == 'z');
        CHECK(std::filesystem::file_size(path) % file.alignment() == 0);
    }
}

TEST_CASE("gguf_writer: a value that was removed leaves the others and the defaults as they were") {
    const temporary_folder folder;
    gguf_writer writer(folder / "m.gguf");
    writer.set("a", 1);
    writer.set("b", 2);
    writer.set("c", 3);
    writer.set("general.alignment", 64U);
    writer.remove("a");
    writer.remove("general.alignment");
    writer.set("b", 4);
    writer.set("a", 5);
    writer.add_tensor("t", dtype::i8, {1});
    writer.write("t", bytes_of("x"));
    writer.commit();
    const auto file = gguf_file::open(folder / "m.gguf");
    CHECK(file.keys() == std::vector<std::string_view>{"b", "c", "a"});
    CHECK(file.get<int>("b") == 4);
    CHECK(file.get<int>("c") == 3);
    CHECK(file.get<int>("a") == 5);
    CHECK(std::filesystem::file_size(folder / "m.gguf") % 64 == 32);  // aligned to 32 again
}

TEST_CASE("gguf_writer: a file that does not read back as it was declared gets no name") {
    // Changes the header on the disk and gives what committing says then.
    const auto error_after = [](auto&& change) {
        const temporary_folder folder;
        gguf_writer writer(folder / "m.gguf");
        writer.set("general.alignment", 256U);  // the data begins there with one tensor and with two
        writer.add_tensor("first", dtype::i8, {4});
        writer.add_tensor("name", dtype::i8, {4});
        writer.write("name", bytes_of("abcd"));  // out of order, so that the header goes to the disk
        const auto temporary = std::filesystem::directory_iterator(folder.path())->path();
        std::string bytes = read_file(temporary);
        change(bytes);
        write_file(temporary, bytes);
        writer.write("first", bytes_of("efgh"));
        const std::string found = larql::testing::error_of([&] { writer.commit(); });
        CHECK(folder.file_count() == 0);  // while the writer lives
        return found;
    };
    const auto refuses = [&](auto&& change) {
        LARQL_CHECK_ERROR_TEXT(error_after(change), errc::source_changed, "m.gguf: the file does not read back");
    };
    refuses([](std::string& bytes) { bytes.replace(bytes.find("name"), 4, "nome"); });
    refuses([](std::string& bytes) { bytes[8] = 1; });                         // tensors
    refuses([](std::string& bytes) { bytes[bytes.find("name") + 8] = 3; });    // the extent
    refuses([](std::string& bytes) { bytes[bytes.find("name") + 16] = 25; });  // the type: I16
    refuses([](std::string& bytes) {                                           // the offsets of both
        std::swap(bytes[bytes.find("first") + 22], bytes[bytes.find("name") + 21]);
    });
    LARQL_CHECK_ERROR_TEXT(error_after([](std::string& bytes) { bytes[0] = 'X'; }), errc::bad_magic, "larql-part");
}

TEST_CASE("gguf_writer: refuses what the format cannot hold, and leaves nothing") {
    const temporary_folder folder;
    {
        gguf_writer writer(folder / "m.gguf");
        LARQL_CHECK_ERROR(writer.set("", 1), errc::corrupt_header, "expected a name of 1 to 65535 bytes");
        LARQL_CHECK_ERROR(writer.set("\xff", 1), errc::corrupt_header, "UTF-8");
        LARQL_CHECK_ERROR(writer.set(std::string("a\0b", 3), 1), errc::corrupt_header, "without NUL");
        LARQL_CHECK_ERROR(writer.set("general.alignment", 32), errc::wrong_type,
                          "general.alignment: expected uint32, got int32");
        LARQL_CHECK_ERROR(writer.set("general.alignment", 24U), errc::bad_value, "expected a power of two, got 24");
        LARQL_CHECK_ERROR(writer.add_tensor("t", dtype::f8_e4m3, {1}), errc::unsupported_dtype,
                          "t: expected a type of GGUF, got F8_E4M3");
        LARQL_CHECK_ERROR(writer.add_tensor(std::string(65, 'n'), dtype::f32, {1}), errc::corrupt_header,
                          "expected a name of 1 to 64 bytes");
        LARQL_CHECK_ERROR(writer.add_tensor("t", dtype::f32, {}), errc::corrupt_header,
                          "expected 1 to 4 dimensions, got 0");
        LARQL_CHECK_ERROR(writer.add_tensor("t", dtype::f32, {1, 1, 1, 1, 1}), errc::corrupt_header, "got 5");
        LARQL_CHECK_ERROR(writer.add_tensor("t", dtype::q4_k, {256, 32}), errc::shape_mismatch,
                          "expected a multiple of 256 for Q4_K, got 32");
        constexpr std::uint64_t half = std::uint64_t{1} << 62;
        LARQL_CHECK_ERROR(writer.add_tensor("t", dtype::i8, {2, half}), errc::bad_value,
                          "t: too large: expected fewer than 2^63 elements, got a dimension of 4611686018427387904");
        LARQL_CHECK_ERROR(writer.add_tensor("t", dtype::f32, {half}), errc::bad_value,
                          "t: too large: expected fewer than 2^63 bytes, got 4611686018427387904 elements of F32");
        LARQL_CHECK_ERROR(writer.add_tensor("t", dtype::f32, {half / 2}), errc::bad_value, "fewer than 2^63 bytes");
        writer.add_tensor("t", dtype::f32, {1});
        writer.add_tensor(std::string(64, 'n'), dtype::f32, {0});  // just short enough
        LARQL_CHECK_ERROR(writer.commit(), errc::bad_value, "t: incomplete: expected 4 bytes of data, got 0");
        LARQL_CHECK_ERROR(writer.write("u", bytes_of("x")), errc::missing_tensor,
                          "u: expected a declared tensor, got another name");
        writer.write("t", bytes_of("xyz"));
        LARQL_CHECK_ERROR(writer.write("t", bytes_of("ab")), errc::bad_value,
                          "t: more data than declared: expected at most 1 more bytes, got 2");
        LARQL_CHECK_ERROR(writer.set("late", 1), errc::bad_value, "expected declarations before the first data");
        LARQL_CHECK_ERROR(writer.remove("late"), errc::bad_value, "expected declarations before the first data");
    }
    CHECK(folder.file_count() == 0);
    gguf_writer writer(folder / "m.gguf");
    writer.add_tensor("t", dtype::f32, {1});
    writer.add_tensor("t", dtype::f32, {1});
    LARQL_CHECK_ERROR(writer.commit(), errc::duplicate_name, "t: tensor declared twice");
    gguf_writer huge(folder / "huge.gguf");
    for (const char* name : {"a", "b"}) huge.add_tensor(name, dtype::i8, {std::uint64_t{1} << 62});
    LARQL_CHECK_ERROR(huge.write("a", {}), errc::limit_exceeded,
                      "b: expected fewer than 2^63 bytes of data, got 4611686018427387904 + 4611686018427387904");
    LARQL_CHECK_ERROR(gguf_writer(write_file(folder / "there.gguf", "x")), errc::already_exists,
                      "there.gguf: the output exists");
    LARQL_CHECK_ERROR(gguf_writer(folder / "there.gguf", {.replace = true, .inputs = {folder / "there.gguf"}}),
                      errc::already_exists, "same file");
}

TEST_CASE("gguf_writer: shards of a set can be written one by one") {
    const temporary_folder folder;
    for (std::uint16_t i = 0; i < 2; ++i) {
        gguf_writer writer(folder / ("m-0000" + std::to_string(i + 1) + "-of-00002.gguf"));
        writer.set("split.no", i);
        writer.set("split.count", std::uint16_t{2});
        writer.set("split.tensors.count", std::int32_t{2});
        writer.add_tensor("t" + std::to_string(i), dtype::i8, {1});
        writer.write("t" + std::to_string(i), bytes_of("x"));
        writer.commit();
    }
    CHECK(gguf_file::open(folder.path()).shard_count() == 2);
}
