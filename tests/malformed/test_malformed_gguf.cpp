// SPDX-License-Identifier: Apache-2.0
//
// One defect per file: each must give its own code, the place, and both numbers that disagree.
#include <larql/gguf.hpp>

#include <doctest/doctest.h>
#include <support/files.hpp>
#include <support/gguf_builder.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#if !defined(_WIN32)
#include <sys/stat.h>
#endif

using larql::errc;
using larql::gguf_file;
using larql::testing::gguf_builder;
using larql::testing::gguf_tensor;
using larql::testing::le;
using larql::testing::temporary_folder;
using larql::testing::write_file;

namespace {

const std::filesystem::path data = LARQL_TEST_DATA;
using type = gguf_builder;

std::string open_error(const std::string& bytes) { return larql::testing::open_error<gguf_file>("m.gguf", bytes); }

void refuses(const std::string& bytes, errc code, std::string_view fragment) {
    LARQL_CHECK_ERROR_TEXT(open_error(bytes), code, fragment);
}

void refuses(const gguf_builder& b, errc code, std::string_view fragment) { refuses(b.build(), code, fragment); }

gguf_builder with(gguf_tensor t) {
    gguf_builder b;
    b.tensor(std::move(t));
    return b;
}

}  // namespace

TEST_CASE("gguf: rejects another magic and other versions") {
    gguf_builder b;
    refuses("", errc::truncated, "m.gguf @ 0: magic: the file ends within the header: expected 4 more bytes, got 0");
    refuses("GGU", errc::truncated, "expected 4 more bytes, got 3");
    refuses("GGUF\3\0", errc::truncated, "@ 4: version: the file ends within the header: expected 4 more bytes, got 1");
    b.magic = "tjgg";
    refuses(b, errc::bad_magic, "expected \"GGUF\", got \"tjgg\"");
    refuses("PK\3\4 and so on", errc::bad_magic, "expected \"GGUF\", got \"PK\\x03\\x04\"");
    refuses(gguf_builder(0), errc::unsupported_version, "m.gguf @ 4: version: expected version 1, 2 or 3, got 0");
    refuses(gguf_builder(4), errc::unsupported_version, "expected version 1, 2 or 3, got 4");
    refuses(gguf_builder(0x03000000), errc::unsupported_version, "big-endian GGUF files are unsupported");
}

TEST_CASE("gguf: rejects counts that the file cannot hold, before it allocates") {
    for (const std::uint32_t version : {1U, 3U}) {
        gguf_builder b(version);
        b.kv_string("a", "b").tensor_count = version == 1 ? UINT32_MAX : UINT64_MAX;
        refuses(b, errc::truncated, version == 1 ? "got 4294967295" : "got 18446744073709551615");
        b.tensor_count = 1;
        refuses(b, errc::truncated, "tensor count: more entries than the file can hold: expected at most 0");
        b.tensor_count = 0;
        b.kv_count = version == 1 ? UINT32_MAX : std::uint64_t{1} << 63;
        refuses(b, errc::truncated, "metadata count: more entries than the file can hold: expected at most");
    }
}

TEST_CASE("gguf: rejects bad metadata keys") {
    const std::string value = le<std::uint32_t>(type::u8) + "\1";
    gguf_builder b;
    refuses(gguf_builder().raw_kv(b.text("") + value), errc::corrupt_header,
            "@ 24: metadata key 0: length out of range: expected 1 to 65535 bytes, got 0");
    refuses(gguf_builder().raw_kv(b.text(std::string(65536, 'k')) + value), errc::corrupt_header,
            "expected 1 to 65535 bytes, got 65536");
    CHECK(open_error(gguf_builder().raw_kv(b.text(std::string(65535, 'k')) + value).build()) == "no error");
    refuses(gguf_builder().raw_kv(le(UINT64_MAX) + "k" + value), errc::corrupt_header, "got 18446744073709551615");
    refuses(gguf_builder().raw_kv(le(std::uint64_t{60}) + "k" + value), errc::truncated,
            "metadata key: the file ends within the header: expected 60 more bytes, got 6");
    refuses(gguf_builder().raw_kv(b.text(std::string_view("a\0b", 3)) + value), errc::corrupt_header,
            "metadata key 0: the name holds a NUL character at byte 1 of 3");
    for (const std::string_view bad :
         {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "abcdefgh\x80"})
        refuses(gguf_builder().raw_kv(b.text(bad) + value), errc::corrupt_header, "the name is not UTF-8");
    CHECK(open_error(gguf_builder().raw_kv(b.text("caf\xc3\xa9\xf0\x9f\x98\x80") + value).build()) == "no error");
    refuses(gguf_builder().kv_string("twice", "a").kv_string("once", "").kv_string("twice", "b"), errc::duplicate_name,
            ": twice: metadata key stored twice: entries 0 and 2");
}

TEST_CASE("gguf: rejects bad metadata values") {
    refuses(gguf_builder().kv("k", 13, "12345678"), errc::corrupt_header,
            "@ 33: k: unknown metadata type: expected 0 to 12, got 13");
    refuses(gguf_builder().kv("k", UINT32_MAX, "12345678"), errc::corrupt_header, "got 4294967295");
    refuses(gguf_builder().kv("k", type::boolean, "\2"), errc::bad_value,
            "@ 37: k: not a bool: expected 0 or 1, got 2");
    refuses(gguf_builder().kv("k", type::u64, "1234"), errc::truncated, "k: more entries than the file can hold");
    refuses(gguf_builder().kv("k", type::string, le(std::uint64_t{9}) + "12345678"), errc::truncated,
            "k: the file ends within the header: expected 9 more bytes, got 8");
    refuses(gguf_builder().kv("k", type::string, le(UINT64_MAX - 7) + "12345678"), errc::truncated,
            "expected 18446744073709551608 more bytes, got 8");
}

TEST_CASE("gguf: rejects bad arrays") {
    gguf_builder b;
    refuses(gguf_builder().kv_array("k", 13, 0, ""), errc::corrupt_header,
            "unknown metadata type: expected 0 to 12, got 13");
    refuses(gguf_builder().kv_array("k", type::boolean, 3, std::string("\0\1\7", 3)), errc::bad_value,
            "@ 51: k: not a bool: expected 0 or 1, got 7");
    refuses(gguf_builder().kv_array("k", type::u32, 3, "12345678"), errc::truncated,
            "expected at most 2 in the remaining 8 bytes, got 3");
    refuses(gguf_builder().kv_array("k", type::f64, std::uint64_t{1} << 61, "12345678"), errc::truncated,
            "expected at most 1 in the remaining 8 bytes, got 2305843009213693952");
    refuses(gguf_builder().kv_array("k", type::string, UINT64_MAX, b.text("a")), errc::truncated,
            "expected at most 1 in the remaining 9 bytes, got 18446744073709551615");
    refuses(gguf_builder().kv_array("k", type::string, 1, le(std::uint64_t{2}) + "a"), errc::truncated,
            "expected 2 more bytes, got 1");
    refuses(gguf_builder().kv_array("k", type::array, 2, le(4U) + le(std::uint64_t{0})), errc::truncated,
            "expected at most 1 in the remaining 12 bytes, got 2");
    gguf_builder old(1);
    refuses(gguf_builder(1).kv_array("k", type::string, 3, old.text("a") + old.text("b")), errc::truncated,
            "expected at most 2 in the remaining 10 bytes, got 3");

    const auto nested = [](int depth) {  // depth arrays in each other, the innermost of one u8
        std::string value;
        for (int i = 1; i < depth; ++i) value += le<std::uint32_t>(type::array) + le(std::uint64_t{1});
        return gguf_builder().kv("k", type::array, value + le<std::uint32_t>(type::u8) + le(std::uint64_t{1}) + "\7");
    };
    CHECK(open_error(nested(8).build()) == "no error");
    refuses(nested(9), errc::limit_exceeded, "k: arrays nested too deep: expected at most 8, got 9");
    refuses(nested(100000), errc::limit_exceeded, "expected at most 8, got 9");
}

TEST_CASE("gguf: rejects bad alignments") {
    const auto aligned = [](std::uint32_t value_type, const std::string& value) {
        return gguf_builder().kv("general.alignment", value_type, value).floats("a", {1}, {1});
    };
    refuses(aligned(type::u32, le(0U)), errc::bad_value,
            "general.alignment: not an alignment: expected a power of two, got 0");
    refuses(aligned(type::u32, le(48U)), errc::bad_value, "expected a power of two, got 48");
    refuses(aligned(type::u64, le(std::uint64_t{32})), errc::wrong_type,
            "general.alignment: metadata of another type: expected uint32, got uint64");
    refuses(aligned(type::u32, le(1U << 31)), errc::truncated,
            "the file ends before the tensor data: expected it at byte 2147483648");
}

TEST_CASE("gguf: rejects bad tensor names") {
    refuses(with({.name = "", .ne = {1}, .bytes = 4}), errc::corrupt_header,
            "@ 24: tensor 0: length out of range: expected 1 to 64 bytes, got 0");
    refuses(with({.name = std::string(65, 'n'), .ne = {1}, .bytes = 4}), errc::corrupt_header,
            "expected 1 to 64 bytes, got 65");
    CHECK(open_error(with({.name = std::string(64, 'n'), .ne = {1}, .bytes = 4}).build()) == "no error");
    refuses(with({.name = std::string("a\0", 2), .ne = {1}, .bytes = 4}), errc::corrupt_header,
            "tensor 0: the name holds a NUL");
    refuses(with({.name = "\x80", .ne = {1}, .bytes = 4}), errc::corrupt_header, "tensor 0: the name is not UTF-8");
    refuses(gguf_builder().floats("t", {1}, {1}).floats("u", {1}, {1}).floats("t", {1}, {1}), errc::duplicate_name,
            "m.gguf @ 192: t: tensor stored twice: in ");
    refuses(with({.name = "a\nb", .ne = {1}, .type = 77, .bytes = 4}), errc::unknown_dtype, "a\\x0ab");
}

TEST_CASE("gguf: rejects bad shapes") {
    refuses(with({.name = "t", .ne = {1, 1, 1, 1, 1}, .bytes = 4}), errc::corrupt_header,
            "t: too many dimensions: expected at most 4, got 5");
    refuses(with({.name = "t", .ne = {1}, .bytes = 4, .dimensions = UINT32_MAX}), errc::corrupt_header,
            "got 4294967295");
    const std::uint64_t half = std::uint64_t{1} << 63;
    refuses(with({.name = "t", .ne = {half}, .bytes = 4}), errc::corrupt_header, "expected fewer than 2^63 elements");
    refuses(with({.name = "t", .ne = {0, half}, .bytes = 4}), errc::corrupt_header,
            "got a dimension of 9223372036854775808");
    refuses(with({.name = "t", .ne = {std::uint64_t{1} << 32, std::uint64_t{1} << 32, 0}}), errc::corrupt_header,
            "got a dimension of 4294967296 times 4294967296");
    refuses(with({.name = "t", .ne = {std::uint64_t{1} << 31, std::uint64_t{1} << 32}}), errc::corrupt_header,
            "too large: expected fewer than 2^63 elements, got a dimension of 4294967296 times 2147483648");
    refuses(with({.name = "t", .ne = {std::uint64_t{1} << 62}}), errc::corrupt_header,
            "too large: expected a size below 2^64 bytes, got 4611686018427387904 elements of F32");
    refuses(with({.name = "t", .ne = {33, 32}, .type = 8, .bytes = 36 * 34}), errc::shape_mismatch,
            "t: a row is no whole number of blocks: expected a multiple of 32 for Q8_0, got 33");
    refuses(with({.name = "t", .ne = {128, 2}, .type = 12, .bytes = 144}), errc::shape_mismatch,
            "expected a multiple of 256 for Q4_K, got 128");
    refuses(with({.name = "t", .ne = {}, .type = 8, .bytes = 34}), errc::shape_mismatch, "got 1");
}

TEST_CASE("gguf: rejects unknown and removed tensor types") {
    refuses(with({.name = "t", .ne = {32}, .type = 4, .bytes = 18}), errc::unsupported_dtype,
            "t: ggml type 4 is Q4_2: removed");
    refuses(with({.name = "t", .ne = {32}, .type = 31, .bytes = 18}), errc::unsupported_dtype, "Q4_0_4_4");
    refuses(with({.name = "t", .ne = {256}, .type = 138, .bytes = 18}), errc::unsupported_dtype,
            "IQ3_K: an ik_llama.cpp-only type");
    refuses(with({.name = "t", .ne = {1}, .type = 43, .bytes = 18}), errc::unknown_dtype, "43");
    refuses(with({.name = "t", .ne = {1}, .type = UINT32_MAX, .bytes = 18}), errc::unknown_dtype, "4294967295");
}

TEST_CASE("gguf: rejects tensors outside the file, misaligned, or over one another") {
    refuses(with({.name = "t", .ne = {1}, .bytes = 4, .offset = 8}), errc::misaligned,
            "t: misaligned data: expected a multiple of 32, got 8");
    gguf_builder cut = with({.name = "t", .ne = {100}, .bytes = 399});
    cut.pad_end = false;
    refuses(cut, errc::truncated, "t: the file is cut short: expected 464 bytes, got 463: 1 bytes are missing");
    refuses(with({.name = "t", .ne = {1}, .bytes = 4, .offset = std::uint64_t{1} << 60}), errc::truncated,
            "t: the file is cut short: expected 1152921504606847044 bytes, got 96");
    refuses(with({.name = "t", .ne = {8}, .bytes = 32, .offset = UINT64_MAX - 31}), errc::offset_out_of_range,
            "t: data beyond any file: expected an end below 2^64, got offset 18446744073709551584 and size 32");
    refuses(with({.name = "t", .ne = {8}, .bytes = 32, .offset = UINT64_MAX - 63}), errc::offset_out_of_range,
            "got offset 18446744073709551552 and size 32");  // 2^64 only with the header before it
    gguf_builder several;  // the first to be cut is named, with the bytes that all of them need
    several.tensor({.name = "whole", .ne = {8}, .bytes = 32}).tensor({.name = "far", .ne = {8}, .offset = 6400});
    several.tensor({.name = "near", .ne = {8}, .offset = 3200});
    refuses(several, errc::truncated,
            "far: the file is cut short: expected 6592 bytes, got 192: 6400 bytes are missing");
    gguf_builder overlap;
    overlap.tensor({.name = "first", .ne = {16}, .bytes = 64});
    overlap.tensor({.name = "second", .ne = {8}, .bytes = 32, .offset = 32});
    refuses(overlap, errc::offset_out_of_range,
            "second: overlaps tensor \"first\": expected a start at or after byte 192, got 160");
    gguf_builder third;
    third.tensor({.name = "first", .ne = {8}, .bytes = 32}).tensor({.name = "second", .ne = {16}, .bytes = 64});
    third.tensor({.name = "third", .ne = {8}, .bytes = 32, .offset = 64});
    refuses(third, errc::offset_out_of_range, "third: overlaps tensor \"second\": expected a start at or after");
    gguf_builder same;
    same.tensor({.name = "a", .ne = {8}, .bytes = 32}).tensor({.name = "b", .ne = {8}, .bytes = 32, .offset = 0});
    refuses(same, errc::offset_out_of_range, "overlaps tensor \"a\"");
    gguf_builder larger;
    larger.tensor({.name = "a", .ne = {16}, .bytes = 64}).tensor({.name = "b", .ne = {8}, .bytes = 32, .offset = 0});
    refuses(larger, errc::offset_out_of_range, "a: overlaps tensor \"b\"");  // the order is that of the data
    const std::string header = gguf_builder().floats("a", {1}, {1}).header();
    refuses(header, errc::truncated, "the file ends before the tensor data: expected it at byte 64, got 57 bytes");
}

TEST_CASE("gguf: recognises files joined with cat") {
    const auto joined = [](const std::string& first) { return first + gguf_builder().floats("b", {1}, {1}).build(); };
    gguf_builder b;
    b.floats("a", {1}, {1});
    refuses(joined(b.build()), errc::corrupt_header,
            "@ 96: several GGUF files joined into one, as by cat: expected the end");
    b.pad_end = false;
    refuses(joined(b.build()), errc::corrupt_header, "@ 68: several GGUF files joined into one");
    refuses(joined(gguf_builder().kv_string("a", "b").build()), errc::corrupt_header, "several GGUF files");
    refuses(b.build() + "GGUF", errc::corrupt_header, "@ 68: several GGUF files joined into one");
    CHECK(open_error(b.build() + "GGU") == "no error");
    // Without tensors, the aligned end may lie beyond the file, and any memory near it.
    CHECK(open_error(gguf_builder().kv("general.alignment", type::u32, le(1U << 31)).build()) == "no error");
    const auto one = larql::testing::read_file(data / "gguf/sharded/deepseek_v3-bf16-00001-of-00003.gguf");
    const auto two = larql::testing::read_file(data / "gguf/sharded/deepseek_v3-bf16-00002-of-00003.gguf");
    refuses(one + two, errc::corrupt_header, "several GGUF files joined into one");
}

namespace {

struct shard_set {
    temporary_folder folder;
    std::filesystem::path file(int number) const {
        return folder / ("m-0000" + std::to_string(number) + "-of-00003.gguf");
    }
    gguf_builder shard(std::uint16_t index, std::uint16_t count = 3) const {
        gguf_builder b;
        b.kv_string("general.architecture", "llama").split(index, count, 3);
        b.floats("t" + std::to_string(index), {1}, {1});
        return b;
    }
    shard_set() {
        for (std::uint16_t i = 0; i < 3; ++i) write_file(file(i + 1), shard(i).build());
    }
};

}  // namespace

TEST_CASE("gguf shards: a missing shard is named, whichever shard was opened") {
    const shard_set set;
    std::filesystem::remove(set.file(2));
    for (const int given : {1, 3})
        LARQL_CHECK_ERROR(
            gguf_file::open(set.file(given)), errc::missing_shard,
            "m-00002-of-00003.gguf: a shard is missing: expected 3 files, of which m-00002-of-00003.gguf is absent");
    LARQL_CHECK_ERROR(gguf_file::open(set.folder.path()), errc::missing_shard, "m-00002-of-00003.gguf is absent");
#if !defined(_WIN32)
    // Through a link it is the set that the user named, not the one that the link leads to.
    const auto link = set.folder / "link-00003-of-00003.gguf";
    std::filesystem::create_symlink(set.file(3), link);
    LARQL_CHECK_ERROR(gguf_file::open(link), errc::missing_shard, "link-00001-of-00003.gguf is absent");
#endif
}

TEST_CASE("gguf shards: a set of two is held to its numbers, and may leave out the architecture") {
    const temporary_folder folder;
    const auto write = [&](std::uint16_t index, std::int32_t total) {
        gguf_builder b;
        if (index == 1) b.kv_string("general.architecture", "llama");
        b.split(index, 2, total).floats("t" + std::to_string(index), {1}, {1});
        return write_file(folder / ("m-00" + std::to_string(index + 1) + "-of-002.gguf"), b.build());
    };
    const auto path = write(0, 2);
    write(1, 2);
    CHECK(gguf_file::open(path).shard_count() == 2);
    write(1, 3);
    LARQL_CHECK_ERROR(gguf_file::open(path), errc::shape_mismatch,
                      "m-002-of-002.gguf: split.tensors.count: the shards do not add up: expected 3 tensors, got 2");
}

TEST_CASE("gguf shards: numbers inside must agree with the names") {
    const shard_set set;
    write_file(set.file(2), set.shard(0).build());  // a copy of the first
    LARQL_CHECK_ERROR(
        gguf_file::open(set.file(1)), errc::bad_value,
        "m-00002-of-00003.gguf: split.no: the file's name and metadata disagree: expected 1 by its name, got 0");
    write_file(set.file(2), set.shard(1, 4).build());
    LARQL_CHECK_ERROR(
        gguf_file::open(set.file(1)), errc::bad_value,
        "00002-of-00003.gguf: split.count: the file's name and metadata disagree: expected 3 by its name, got 4");
    write_file(set.file(2), gguf_builder().floats("t1", {1}, {1}).build());
    LARQL_CHECK_ERROR(gguf_file::open(set.file(1)), errc::bad_value,
                      "split.count: the file's name and metadata disagree: expected 3 by its name, got 0");
    write_file(set.file(2), set.shard(0, 1).build());  // complete by what it says, one of three by its name
    LARQL_CHECK_ERROR(gguf_file::open(set.file(2)), errc::bad_value,
                      "split.count: the file's name and metadata disagree: expected 3 by its name, got 1");
    gguf_builder negative;
    negative.kv("split.no", type::i16, le<std::int16_t>(-1)).kv("split.count", type::i16, le<std::int16_t>(3));
    write_file(set.file(2), negative.build());
    LARQL_CHECK_ERROR(gguf_file::open(set.file(1)), errc::bad_value, "split.no: integer out of range");
    gguf_builder text;
    text.kv_string("split.count", "3");
    write_file(set.file(2), text.build());
    LARQL_CHECK_ERROR(gguf_file::open(set.file(1)), errc::wrong_type,
                      "split.count: metadata of another type: expected integer, got string");
    gguf_builder numberless;
    numberless.kv("split.count", type::u16, le<std::uint16_t>(3));
    write_file(set.file(2), numberless.build());
    LARQL_CHECK_ERROR(gguf_file::open(set.file(2)), errc::missing_key,
                      "split.no: split.count is 3 but split.no is absent");
    gguf_builder wide;  // 65536 + 1 must not become 1
    wide.kv("split.no", type::u32, le(65537U))
        .kv("split.count", type::u16, le<std::uint16_t>(3))
        .floats("t1", {1}, {1});
    write_file(set.file(2), wide.build());
    LARQL_CHECK_ERROR(gguf_file::open(set.file(1)), errc::bad_value, "expected 1 by its name, got 65537");
}

TEST_CASE("gguf shards: a shard without its number in the name cannot find the others") {
    const shard_set set;
    for (const char* name : {"renamed.gguf", "m-2-of-3.gguf", "m-02-of-03.gguf", "m-00004-of-00003.gguf",
                             "m-00000-of-00003.gguf", "m-00002-of-99999.gguf", "m-4294967298-of-4294967299.gguf",
                             "m-00002-of-00003.GGUF", "m-00002-of-00003", "m_00002-of-00003.gguf"}) {
        const auto path = write_file(set.folder / name, set.shard(1).build());
        LARQL_CHECK_ERROR(gguf_file::open(path), errc::bad_value,
                          "split.count: shard 2 of 3 by its metadata, but its name does not say so");
    }
}

TEST_CASE("gguf shards: every shard is checked, and tensors must add up and be unique over the set") {
    const shard_set set;
    write_file(set.file(3), set.shard(2).build().substr(0, 150));
    LARQL_CHECK_ERROR(gguf_file::open(set.file(1)), errc::truncated, "m-00003-of-00003.gguf");
    write_file(set.file(3), "GGUF");
    LARQL_CHECK_ERROR(gguf_file::open(set.file(1)), errc::truncated, "m-00003-of-00003.gguf @ 4");
    write_file(set.file(3), "");
    LARQL_CHECK_ERROR(gguf_file::open(set.file(1)), errc::truncated, "m-00003-of-00003.gguf @ 0");

    write_file(set.file(3), gguf_builder().split(2, 3, 3).floats("t1", {1}, {1}).build());
    LARQL_CHECK_ERROR(gguf_file::open(set.file(1)), errc::duplicate_name, "00003-of-00003.gguf @");
    write_file(set.file(3), gguf_builder().split(2, 3, 3).build());
    LARQL_CHECK_ERROR(gguf_file::open(set.file(1)), errc::shape_mismatch,
                      "split.tensors.count: the shards do not add up: expected 3 tensors, got 2");
    write_file(set.file(3), gguf_builder().split(2, 3, 2).floats("t2", {1}, {1}).build());
    LARQL_CHECK_ERROR(gguf_file::open(set.file(1)), errc::shape_mismatch,
                      "00003-of-00003.gguf: split.tensors.count: the shards do not add up: expected 2 tensors, got 3");
    write_file(set.file(3),
               gguf_builder().kv_string("general.architecture", "gemma").split(2, 3, 3).floats("t2", {1}, {1}).build());
    LARQL_CHECK_ERROR(gguf_file::open(set.file(1)), errc::bad_value,
                      "00003-of-00003.gguf @ 64: general.architecture: shards of different models: expected \"llama\", "
                      "got \"gemma\"");
    std::filesystem::remove(set.file(3));
    std::filesystem::create_directory(set.file(3));
    LARQL_CHECK_ERROR(gguf_file::open(set.file(1)), errc::not_a_file,
                      "m-00003-of-00003.gguf: expected a regular file, got a directory");
#if !defined(_WIN32)
    std::filesystem::remove(set.file(3));
    REQUIRE(::mkfifo(set.file(3).c_str(), 0600) == 0);
    LARQL_CHECK_ERROR(gguf_file::open(set.file(1)), errc::not_a_file,
                      "m-00003-of-00003.gguf: expected a regular file, got a FIFO");
    std::filesystem::remove(set.file(3));
    std::filesystem::create_symlink(set.file(3), set.file(3));
    LARQL_CHECK_ERROR(gguf_file::open(set.file(1)), errc::missing_shard, "m-00003-of-00003.gguf");
    LARQL_CHECK_ERROR(gguf_file::open(set.file(3)), errc::io, "Too many levels");
#endif
}

TEST_CASE("gguf: a folder must hold exactly one model") {
    const temporary_folder folder;
    LARQL_CHECK_ERROR(gguf_file::open(folder.path()), errc::not_a_file, "a folder without a .gguf file");
    write_file(folder / "b.gguf", gguf_builder().build());
    std::filesystem::create_directory(folder / "c.gguf");
    write_file(folder / "a.txt", "about b.gguf");
    CHECK(gguf_file::open(folder.path()).version() == 3);
    write_file(folder / "a.gguf", gguf_builder().build());
    LARQL_CHECK_ERROR(gguf_file::open(folder.path()), errc::bad_value,
                      "expected 1 GGUF model in the folder, got 2, such as a.gguf and b.gguf; name the file");
    LARQL_CHECK_ERROR(gguf_file::open(folder / "none"), errc::io, "cannot open");
    for (const char* other : {"n-00001-of-00003.gguf", "m-00001-of-00004.gguf", "m-0001-of-00003.gguf"}) {
        const shard_set set;  // and a shard of another set, which differs in one part of its name
        write_file(set.folder / other, set.shard(0).build());
        LARQL_CHECK_ERROR(gguf_file::open(set.folder.path()), errc::bad_value, "expected 1 GGUF model in the folder");
    }
}

TEST_CASE("gguf: a file cut anywhere is refused") {
    gguf_builder b;
    b.kv_string("general.architecture", "llama").kv_array("tokens", type::string, 2, b.text("a") + b.text("bc"));
    b.kv("general.alignment", type::u32, le(8U)).alignment = 8;
    b.floats("t", {2, 2}, {1, 2, 3, 4}).floats("u", {1}, {5});
    b.pad_end = false;  // so that every byte is needed
    const std::string whole = b.build();
    const temporary_folder folder;
    const auto path = write_file(folder / "m.gguf", whole);
    CHECK(gguf_file::open(path).version() == 3);
    for (std::size_t size = whole.size(); size-- > 0;) {
        std::filesystem::resize_file(path, size);
        LARQL_CHECK_ERROR(gguf_file::open(path), errc::truncated, "m.gguf @ ");
    }
}

TEST_CASE("gguf shards: a shard cut anywhere is refused, or holds all of its data") {
    const temporary_folder folder;
    for (int i = 1; i <= 3; ++i) {
        const auto name = "deepseek_v3-bf16-0000" + std::to_string(i) + "-of-00003.gguf";
        std::filesystem::copy_file(data / "gguf/sharded" / name, folder / name);
    }
    const auto first = folder / "deepseek_v3-bf16-00001-of-00003.gguf";
    const auto third = folder / "deepseek_v3-bf16-00003-of-00003.gguf";
    const std::string whole = larql::testing::read_file(third);
    std::uint64_t needed = 0;
    {
        const auto file = gguf_file::open(first);
        for (const auto& t : file.tensors())
            if (t.shard == 2) needed = std::max(needed, t.offset + t.size_bytes);
    }
    for (std::size_t size = whole.size(); size-- > 0; size > 3000 ? size -= 61 : size) {
        std::filesystem::resize_file(third, size);
        if (size >= needed)
            CHECK(gguf_file::open(first).shard_count() == 3);
        else
            LARQL_CHECK_ERROR(gguf_file::open(first), errc::truncated, "00003-of-00003.gguf @ ");
    }
}
