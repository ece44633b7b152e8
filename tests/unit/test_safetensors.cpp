// SPDX-License-Identifier: Apache-2.0
#include <larql/safetensors.hpp>
#include <larql/weight_reader.hpp>

#include <doctest/doctest.h>
#include <support/files.hpp>
#include <support/safetensors_builder.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <vector>

using larql::errc;
using larql::safetensors_file;
using larql::testing::le;
using larql::testing::safetensors_builder;
using larql::testing::temporary_folder;
using larql::testing::write_file;

namespace {

const std::filesystem::path data = LARQL_TEST_DATA;

template <class T>
concept gives_views_of_temporary = requires(T (*open)()) { open().tensors(); } || requires(T (*open)()) {
    open().find_tensor("x");
} || requires(T (*open)()) { open().at_tensor("x"); } || requires(T (*open)()) { open().metadata(); };

safetensors_builder typical() {
    safetensors_builder b;
    b.entry("__metadata__", R"({"format":"pt","note":"a\nb"})");
    b.tensor("m", "F32", "[2,3]", le(1.F) + le(2.F) + le(3.F) + le(4.F) + le(5.F) + le(6.F));
    b.tensor("s", "BF16", "[]", le<std::uint16_t>(0x3f80));
    b.tensor("none", "F16", "[0,7]", "");
    b.tensor("i", "I64", "[2]", le<std::int64_t>(-1) + le<std::int64_t>(300));
    return b;
}

}  // namespace

static_assert(std::is_nothrow_move_constructible_v<safetensors_file>);
static_assert(!std::is_copy_constructible_v<safetensors_file>);
static_assert(!gives_views_of_temporary<safetensors_file>, "views of a temporary file must not compile");

TEST_CASE("safetensors: reads tensors of any rank, metadata, and survives a move") {
    const temporary_folder folder;
    safetensors_file opened = safetensors_file::open(write_file(folder / "m.safetensors", typical().build()));
    const larql::tensor_info& m = opened.at_tensor("m");
    const safetensors_file file = std::move(opened);
    CHECK(&file.at_tensor("m") == &m);
    CHECK(file.tensors().size() == 4);
    CHECK(m.shape == std::vector<std::uint64_t>{2, 3});
    CHECK(m.type == larql::dtype::f32);
    CHECK(m.size_bytes == 24);
    CHECK(file.read<2>("m") == larql::tensor<float, 2>{{1, 2, 3}, {4, 5, 6}});
    CHECK(file.read<0>("s")() == 1);
    CHECK(file.read<2>("none").shape(1) == 7);
    CHECK(file.bytes(file.at_tensor("s")).size() == 2);
    CHECK(file.metadata().at("format") == "pt");
    CHECK(file.metadata().at("note") == "a\nb");
    CHECK(file.find_tensor("absent") == nullptr);
    CHECK(file.read_integers<int, 1>("i")(1) == 300);
    LARQL_CHECK_ERROR(file.at_tensor("absent"), errc::missing_tensor,
                      "m.safetensors: absent: no such tensor among the 4");
    LARQL_CHECK_ERROR(file.read<1>("i"), errc::unsupported_dtype,
                      "i: expected numbers to read as float, got integers of type I64");
    LARQL_CHECK_ERROR((file.read_integers<std::uint8_t, 1>("i")), errc::bad_value, "expected 0 to 255, got -1");
    LARQL_CHECK_ERROR((file.read_integers<int, 2>("m")), errc::unsupported_dtype, "expected integers, got type F32");
    LARQL_CHECK_ERROR((file.read_integers<int, 2>("none")), errc::unsupported_dtype, "expected integers, got type F16");
    std::vector<float> row(3);
    file.read_rows(m, 1, 2, row.data());
    CHECK(row == std::vector<float>{4, 5, 6});
    LARQL_CHECK_ERROR(file.read_rows(m, 2, 3, row.data()), errc::bad_value, "expected rows within 0 to 2, got 2 to 3");
    std::vector<std::byte> bytes(2);
    file.read_bytes(file.at_tensor("s"), 0, bytes);
    CHECK(std::to_integer<int>(bytes[0]) == 0x80);
    LARQL_CHECK_ERROR(file.read_bytes(file.at_tensor("s"), 1, bytes), errc::bad_value,
                      "expected at most 2 bytes, got 1 + 2");
    larql::tensor_info foreign = m;
    foreign.size_bytes = 1000;
    LARQL_CHECK_ERROR(file.bytes(foreign), errc::bad_value, "a tensor of another checkpoint");
    foreign.shard = 1;
    LARQL_CHECK_ERROR(file.bytes(foreign), errc::bad_value, "expected a shard below 1, got 1");
}

TEST_CASE("safetensors: knows every dtype, packed ones included") {
    const temporary_folder folder;
    safetensors_builder b;
    for (const std::string_view name : {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "I16",
                                        "I32", "I64", "U8", "U16", "U32", "U64", "BOOL"})
        b.tensor(name, name, "[2]", std::string(larql::find_safetensors_dtype(name)->block_bytes * 2, '\0'));
    b.tensor("F4", "F4", "[1,4]", "\x21\x43");
    b.tensor("odd", "F4", "[2,3]", "\x21\x43\x65");
    const auto file = safetensors_file::open(write_file(folder / "m.safetensors", b.build()));
    CHECK(file.at_tensor("F8_E8M0").type == larql::dtype::f8_e8m0);
    CHECK(file.read<2>("F4") == larql::tensor<float, 2>{{0.5F, 1, 1.5F, 2}});
    CHECK(file.read<2>("odd")(1, 2) == 4);
    std::vector<float> row(3);
    LARQL_CHECK_ERROR(
        file.read_rows(file.at_tensor("odd"), 1, 2, row.data()), errc::shape_mismatch,
        "odd: rows that do not begin and end on bytes: expected a multiple of 2 elements of F4, got 3 to 6");
    LARQL_CHECK_ERROR(file.read_rows(file.at_tensor("odd"), 0, 1, row.data()), errc::shape_mismatch, "got 0 to 3");
}

TEST_CASE("safetensors: reads integers of every type, and more than one piece of them") {
    const temporary_folder folder;
    safetensors_builder b;
    b.tensor("I8", "I8", "[]", le<std::int8_t>(-128)).tensor("U8", "U8", "[]", le<std::uint8_t>(255));
    b.tensor("I16", "I16", "[]", le<std::int16_t>(-32768)).tensor("U16", "U16", "[]", le<std::uint16_t>(65535));
    b.tensor("I32", "I32", "[]", le<std::int32_t>(-70000)).tensor("U32", "U32", "[]", le(UINT32_MAX));
    b.tensor("I64", "I64", "[]", le(INT64_MIN)).tensor("U64", "U64", "[]", le(UINT64_MAX));
    b.tensor("BOOL", "BOOL", "[]", "\1");
    std::string many;
    for (std::int32_t i = 0; i < 40000; ++i) many += le(i);
    b.tensor("many", "I32", "[40000]", many);
    const auto file = safetensors_file::open(write_file(folder / "m.safetensors", b.build()));
    CHECK(file.read_integers<std::int64_t, 0>("I8")() == -128);
    CHECK(file.read_integers<std::int64_t, 0>("U8")() == 255);
    CHECK(file.read_integers<std::int64_t, 0>("I16")() == -32768);
    CHECK(file.read_integers<std::int64_t, 0>("U16")() == 65535);
    CHECK(file.read_integers<std::int64_t, 0>("I32")() == -70000);
    CHECK(file.read_integers<std::int64_t, 0>("U32")() == UINT32_MAX);
    CHECK(file.read_integers<std::int64_t, 0>("I64")() == INT64_MIN);
    CHECK(file.read_integers<std::uint64_t, 0>("U64")() == UINT64_MAX);
    CHECK(file.read_integers<std::int64_t, 0>("BOOL")() == 1);
    const auto read = file.read_integers<std::int32_t, 1>("many");
    CHECK(read(0) == 0);
    CHECK(read(39999) == 39999);
}

TEST_CASE("safetensors: key order, unaligned data, unknown fields and an empty file are fine") {
    const temporary_folder folder;
    const auto path = folder / "m.safetensors";
    write_file(path, larql::testing::safetensors_bytes(
                         R"({"b":{"data_offsets":[1,3],"x":{"y":[1,{"z":2}]},"shape":[1],"dtype":"F16"},)"
                         R"("nothing":{"shape":[0],"dtype":"U8","data_offsets":[1,1]},)"
                         R"("a":{"shape":[1],"dtype":"U8","data_offsets":[0,1]}}   )",
                         "abc"));
    const auto file = safetensors_file::open(path);
    CHECK(file.tensors()[0].name == "a");        // in the order of the data
    CHECK(file.tensors()[1].name == "nothing");  // where b begins
    CHECK(file.tensors()[2].name == "b");
    CHECK(std::to_integer<char>(file.bytes(file.at_tensor("b"))[1]) == 'c');
    write_file(folder / "empty.safetensors", larql::testing::safetensors_bytes("{}", ""));
    const auto empty = safetensors_file::open(folder / "empty.safetensors");
    CHECK(empty.tensors().empty());
    CHECK(empty.metadata().empty());
}

TEST_CASE("safetensors: an entry's keys stand in any order, escaped or not, beside others, each once") {
    const temporary_folder folder;
    const auto open = [&](const std::string& header) {
        write_file(folder / "m.safetensors", larql::testing::safetensors_bytes(header, "ab"));
        return safetensors_file::open(folder / "m.safetensors");
    };
    std::vector<std::string> keys = {R"("d\u0061ta_offsets":[0,2])", R"("dtype":"\u0055\u0038")", R"("shape":[ 1, 2 ])",
                                     R"("x":[{"dtype":1},"shape"])"};
    std::ranges::sort(keys);
    do {
        const std::string entry = keys[0] + "," + keys[1] + "," + keys[2] + "," + keys[3];
        const auto file = open("{\"\\u00e9\\n\": {" + entry + "}\r}");
        REQUIRE(file.tensors().size() == 1);
        CHECK(file.tensors()[0].name == "\xc3\xa9\n");
        CHECK(file.tensors()[0].shape == std::vector<std::uint64_t>{1, 2});
        CHECK(file.tensors()[0].size_bytes == 2);
        for (const std::string& again : keys)
            LARQL_CHECK_ERROR(open("{\"a\":{" + entry + "," + again + "}}"), errc::duplicate_name,
                              "key stored twice in one object");
    } while (std::ranges::next_permutation(keys).found);
    LARQL_CHECK_ERROR(open(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                           R"("\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})"),
                      errc::duplicate_name, "a: key stored twice in one object");
}

TEST_CASE("safetensors: shards of an index are one checkpoint, mapped only when asked for") {
    for (const std::string name : {"deepseek_v3", "llama3"}) {
        const auto whole = safetensors_file::open(data / "hf" / name);
        const auto folder = data / "hf" / (name + "_sharded");
        for (const auto& path : {folder, folder / "model.safetensors.index.json"}) {
            const auto file = safetensors_file::open(path);
            REQUIRE(file.shard_count() == 3);
            CHECK(file.shard_path(0).ends_with("model-00001-of-00003.safetensors"));
            REQUIRE(file.tensors().size() == whole.tensors().size());
            for (std::size_t i = 0; i < 3; ++i) CHECK(!file.is_mapped(i));
            (void)file.read<1>("model.norm.weight");
            for (std::size_t i = 0; i < 3; ++i) CHECK(!file.is_mapped(i));  // read with ordinary reads
            for (const larql::tensor_info& t : file.tensors())
                if (t.shard == 1) (void)file.bytes(t);
            CHECK(!file.is_mapped(0));
            CHECK(file.is_mapped(1));
            CHECK(!file.is_mapped(2));
            for (const larql::tensor_info& t : whole.tensors()) {
                const auto a = whole.bytes(t);
                const auto b = file.bytes(file.at_tensor(t.name));
                CHECK(std::equal(a.begin(), a.end(), b.begin(), b.end()));
            }
            CHECK(file.metadata().at("format") == "pt");
        }
    }
}

TEST_CASE("safetensors: several threads may ask for the same shard first") {
    const auto file = safetensors_file::open(data / "hf/deepseek_v3_sharded");
    std::vector<std::thread> threads;
    std::vector<const std::byte*> seen(4);
    for (std::size_t i = 0; i < seen.size(); ++i)
        threads.emplace_back([&, i] { seen[i] = file.bytes(file.tensors().front()).data(); });
    for (std::thread& t : threads) t.join();
    for (const std::byte* p : seen) CHECK(p == seen[0]);
}

TEST_CASE("safetensors: an index may use subfolders, forget tensors and be wrong about sizes") {
    const temporary_folder folder;
    std::filesystem::create_directory(folder / "sub");
    write_file(folder / "sub" / "a.safetensors", typical().build());
    write_file(folder / "b.safetensors", safetensors_builder()
                                             .entry("__metadata__", R"({"format":"other","more":"b"})")
                                             .tensor("extra", "U8", "[1]", "x")
                                             .tensor("b", "U8", "[1]", "y")
                                             .build());
    const auto index = write_file(
        folder / "x.safetensors.index.json",
        R"({"metadata":{"total_size":-7e9,"deep":[[[]]]},"weight_map":{"m":"sub/a.safetensors","b":"./b.safetensors","s":"sub/./a.safetensors"}})");
    const auto file = safetensors_file::open(index);
    CHECK(file.shard_count() == 2);
    CHECK(file.find_tensor("extra") != nullptr);
    CHECK(file.find_tensor("none") != nullptr);
    CHECK(file.metadata().at("format") == "other");  // of the first shard, b
    CHECK(file.metadata().at("note") == "a\nb");
    LARQL_CHECK_ERROR(file.at_tensor("absent"), errc::missing_tensor,
                      "x.safetensors.index.json: absent: no such tensor among the 6");
    const auto same = safetensors_file::open(folder.path());  // the only index of the folder
    CHECK(same.tensors().size() == 6);
}

TEST_CASE("safetensors: a folder gives its model, index, or only file") {
    const temporary_folder folder;
    LARQL_CHECK_ERROR(safetensors_file::open(folder.path()), errc::not_a_file, "a folder without one");
    write_file(folder / "a.safetensors", typical().build());
    const auto count = [&] {
        const auto file = safetensors_file::open(folder.path());
        return file.tensors().size();
    };
    CHECK(count() == 4);
    write_file(folder / "a.txt", "about a.safetensors");
    CHECK(count() == 4);
    write_file(folder / "b.safetensors", typical().build());
    LARQL_CHECK_ERROR(safetensors_file::open(folder.path()), errc::bad_value,
                      "expected 1 index or file in the folder, got 2, such as a.safetensors and b.safetensors");
    write_file(folder / "other.safetensors.index.json", R"({"weight_map":{"m":"a.safetensors"}})");
    write_file(folder / "model.safetensors.index.json", R"({"weight_map":{}})");
    CHECK(count() == 0);
    std::filesystem::rename(folder / "model.safetensors.index.json", folder / "x.safetensors.index.json");
    LARQL_CHECK_ERROR(safetensors_file::open(folder.path()), errc::bad_value, "got 2, such as other.safetensors.index");
    write_file(folder / "model.safetensors", larql::testing::safetensors_bytes("{}", ""));
    CHECK(count() == 0);
}

TEST_CASE("safetensors: a file that changed since it was opened is an error of its own") {
    const temporary_folder folder;
    const auto path = write_file(folder / "m.safetensors", typical().build());
    const auto file = safetensors_file::open(path);
    file.verify_unchanged();
    std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
    LARQL_CHECK_ERROR(file.verify_unchanged(), errc::source_changed,
                      "m.safetensors: the file changed after it was opened");
    LARQL_CHECK_ERROR(file.read<2>("m"), errc::source_changed, "m.safetensors");
    LARQL_CHECK_ERROR(file.bytes(file.at_tensor("m")), errc::source_changed,
                      "the file changed after its header was read");

    const auto replaced = safetensors_file::open(write_file(path, typical().build()));
    std::filesystem::remove(path);
    write_file(folder / "other", "x");  // takes the inode, so that the new file has another
    write_file(path, typical().build());
    LARQL_CHECK_ERROR(replaced.bytes(replaced.at_tensor("m")), errc::source_changed, "it was modified or replaced");

    std::filesystem::copy_file(path, folder / "n.safetensors");
    write_file(path, safetensors_builder().tensor("n", "U8", "[1]", "x").build());
    const auto sharded = safetensors_file::open(
        write_file(folder / "index.json", R"({"weight_map":{"n":"m.safetensors","m":"n.safetensors"}})"));
    sharded.verify_unchanged();
    std::filesystem::remove(folder / "n.safetensors");
    LARQL_CHECK_ERROR(sharded.verify_unchanged(), errc::source_changed, "n.safetensors: the file changed");
}

TEST_CASE("safetensors: a file opened by a relative path is found from any folder") {
    const temporary_folder folder;
    write_file(folder / "m.safetensors", typical().build());
    const auto before = std::filesystem::current_path();
    std::filesystem::current_path(folder.path());
    const auto file = safetensors_file::open("m.safetensors");
    std::filesystem::current_path(before);
    CHECK(file.shard_path(0) == "m.safetensors");
    CHECK(file.read<0>("s")() == 1);
    CHECK(file.bytes(file.at_tensor("s")).size() == 2);
}

TEST_CASE("safetensors: 20,000 tensors open within two seconds") {
    const temporary_folder folder;
    safetensors_builder b;
    const std::string prefix(200, 'x');
    for (int i = 0; i < 20000; ++i) b.tensor(prefix + std::to_string(i), "U8", "[1]", "x");
    const auto path = write_file(folder / "m.safetensors", b.build());
    const auto start = std::chrono::steady_clock::now();
    const auto file = safetensors_file::open(path);
    CHECK(file.find_tensor(prefix + "19999") != nullptr);
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(2));
}

TEST_CASE("safetensors: a null __metadata__ is as good as none") {
    for (const char* entry : {"first", "last"}) {
        const temporary_folder folder;
        safetensors_builder b;
        if (entry == std::string("first")) b.entry("__metadata__", "null");
        b.tensor("t", "U8", "[1]", "x");
        if (entry == std::string("last")) b.entry("__metadata__", "null");
        const auto file = safetensors_file::open(write_file(folder / "m.safetensors", b.build()));
        CHECK(file.tensors().size() == 1);
        CHECK(file.metadata().empty());
    }
}

TEST_CASE("safetensors: a tensor that the index names and no shard has is missing when it is asked for") {
    const temporary_folder folder;
    write_file(folder / "a.safetensors", typical().build());
    write_file(folder / "b.safetensors", safetensors_builder().tensor("b.weight", "F8_E4M3", "[1]", "x").build());
    write_file(folder / "model.safetensors.index.json",
               R"({"weight_map":{"m":"a.safetensors","b.weight":"b.safetensors","mtp.fc.weight":"b.safetensors",)"
               R"("b.weight_scale_inv":"a.safetensors"}})");
    const auto file = safetensors_file::open(folder.path());
    CHECK(file.tensors().size() == 5);
    CHECK(file.read<0>("s")() == 1);
    CHECK(file.find_tensor("mtp.fc.weight") == nullptr);
    const char* said = "index.json: mtp.fc.weight: the index names a tensor that is not in its shard: expected it in ";
    LARQL_CHECK_ERROR(file.at_tensor("mtp.fc.weight"), errc::missing_tensor, said);
    LARQL_CHECK_ERROR(file.at_tensor("mtp.fc.weight"), errc::missing_tensor, "b.safetensors, got no such tensor");
    LARQL_CHECK_ERROR(file.read<1>("mtp.fc.weight"), errc::missing_tensor, said);
    LARQL_CHECK_ERROR(file.at_tensor("mtp.fc"), errc::missing_tensor, "no such tensor among the 5");

    const larql::weight_reader reader(file);
    CHECK(reader.names().size() == 5);
    CHECK(!reader.contains("mtp.fc.weight"));
    CHECK(!reader.find("mtp.fc"));
    LARQL_CHECK_ERROR(reader.at("mtp.fc.weight"), errc::missing_tensor, said);
    LARQL_CHECK_ERROR(reader.find("mtp.fc.weight"), errc::missing_tensor, said);
    LARQL_CHECK_ERROR(reader.at("b.weight"), errc::missing_tensor, "a.safetensors, got no such tensor");  // the scale
}

namespace {

/// A folder with the shards `numbers` of `count`, each with a tensor "t<number>".
struct numbered {
    temporary_folder folder;
    numbered(std::initializer_list<int> numbers, int count, const std::string& prefix = "model") {
        for (const int i : numbers) add(i, count, prefix);
    }
    std::filesystem::path add(int number, int count, const std::string& prefix = "model") const {
        return write_file(path(number, count, prefix),
                          safetensors_builder().tensor("t" + std::to_string(number), "U8", "[1]", "x").build());
    }
    [[nodiscard]] std::filesystem::path path(int number, int count, const std::string& prefix = "model") const {
        char name[64];
        std::snprintf(name, sizeof name, "-%05d-of-%05d.safetensors", number, count);
        return folder / (prefix + name);
    }
};

}  // namespace

TEST_CASE("safetensors: numbered shards without an index are one model, by folder and by any of them") {
    for (const int count : {1, 2, 12}) {
        numbered set({}, count);
        for (int i = count; i >= 1; --i) set.add(i, count);
        for (const auto& path : {set.folder.path(), set.path(1, count), set.path(count, count)}) {
            const auto file = safetensors_file::open(path);
            REQUIRE(file.shard_count() == static_cast<std::size_t>(count));
            for (int i = 1; i <= count; ++i) {
                const larql::tensor_info& info = file.at_tensor("t" + std::to_string(i));
                CHECK(info.shard == static_cast<std::size_t>(i - 1));  // in the order of their numbers
                CHECK(file.shard_path(info.shard) == set.path(i, count).string());
            }
        }
    }
    numbered twice({1}, 2);
    write_file(twice.path(2, 2), safetensors_builder().tensor("t1", "U8", "[1]", "x").build());
    LARQL_CHECK_ERROR(safetensors_file::open(twice.folder.path()), errc::duplicate_name,
                      "-00002-of-00002.safetensors @");
}

TEST_CASE("safetensors: an incomplete set of numbered shards says which are missing, and that there is no index") {
    const auto checks = [](const numbered& set, const std::filesystem::path& named, const char* said) {
        for (const auto& path : {set.folder.path(), named})
            LARQL_CHECK_ERROR(safetensors_file::open(path), errc::missing_shard, said);
    };
    const char* index = ", and there is no model.safetensors.index.json that lists the model's files";
    const numbered last({1}, 2), first({2, 3}, 3), several({2}, 14);
    checks(last, last.path(1, 2),
           (std::string("model-00002-of-00002.safetensors: a shard is missing: number 2 of 2") + index).c_str());
    checks(first, first.path(3, 3), (std::string("a shard is missing: number 1 of 3") + index).c_str());
    checks(several, several.path(2, 14), "13 shards are missing: numbers 1, 3, 4, 5, 6, 7, 8, 9 and more of 14");
}

TEST_CASE("safetensors: numbered shards beside another model are ambiguous, unless one is named") {
    numbered set({1, 2}, 2);
    set.add(1, 2, "other");
    set.add(2, 2, "other");
    LARQL_CHECK_ERROR(safetensors_file::open(set.folder.path()), errc::bad_value,
                      "got 2, such as model-00001-of-00002.safetensors and other-00001-of-00002.safetensors");
    CHECK(safetensors_file::open(set.path(2, 2, "other")).shard_count() == 2);
    write_file(set.folder / "adapter.safetensors", typical().build());
    LARQL_CHECK_ERROR(safetensors_file::open(set.folder.path()), errc::bad_value,
                      "got 3, such as adapter.safetensors, model-00001-of-00002.safetensors and other-0000");
    // A second count under one name is a second set, and model.safetensors decides, as it does for transformers.
    numbered counts({1, 2}, 2);
    counts.add(1, 3);
    LARQL_CHECK_ERROR(safetensors_file::open(counts.folder.path()), errc::bad_value,
                      "model-00001-of-00002.safetensors and model-00001-of-00003.safetensors");
    write_file(counts.folder / "model.safetensors", typical().build());
    CHECK(safetensors_file::open(counts.folder.path()).shard_count() == 1);
}

TEST_CASE("safetensors: a shard that an index lists opens the index, and one that it does not list its own set") {
    numbered set({1, 2}, 2);
    write_file(set.folder / "model.safetensors.index.json",
               R"({"weight_map":{"t1":"model-00001-of-00002.safetensors","t2":"model-00002-of-00002.safetensors",)"
               R"("absent":"model-00002-of-00002.safetensors"}})");
    const auto file = safetensors_file::open(set.path(2, 2));
    CHECK(file.shard_count() == 2);
    LARQL_CHECK_ERROR(file.at_tensor("absent"), errc::missing_tensor,
                      "model.safetensors.index.json: absent: the index");
    set.add(1, 1);
    CHECK(safetensors_file::open(set.path(1, 1)).shard_count() == 1);
}

#if !defined(_WIN32)
TEST_CASE("safetensors: numbered shards are found through symbolic links, as in download caches") {
    const numbered set({1, 2}, 2);
    std::filesystem::create_directories(set.folder / "blobs");
    std::filesystem::create_directories(set.folder / "snapshot");
    for (const int i : {1, 2}) {
        const auto blob = std::filesystem::path("blobs") / std::to_string(i);
        std::filesystem::rename(set.path(i, 2), set.folder / blob);
        std::filesystem::create_symlink(".." / blob, set.folder / "snapshot" / set.path(i, 2).filename());
    }
    CHECK(safetensors_file::open(set.folder / "snapshot").shard_count() == 2);
    const auto shard = set.folder / "snapshot" / set.path(2, 2).filename();
    CHECK(safetensors_file::open(shard).shard_count() == 2);
    std::filesystem::create_symlink(shard, set.path(2, 2));  // from elsewhere to a shard among its siblings
    CHECK(safetensors_file::open(set.path(2, 2)).shard_count() == 2);
}
#endif

TEST_CASE("safetensors: rows go where the stride says, also when one is longer than what is read at once") {
    const temporary_folder folder;
    for (const std::size_t columns : {3UL, 70000UL, 200000UL}) {  // 128 KiB are 65536 BF16
        std::string bf16, f32;
        for (std::size_t i = 0; i < 4 * columns; ++i) {
            const auto value = static_cast<float>(i % 251);
            bf16 += le(larql::float_to_bf16(value));
            f32 += le(value);
        }
        const std::string shape = "[4," + std::to_string(columns) + "]";
        const auto file = safetensors_file::open(
            write_file(folder / "m.safetensors",
                       safetensors_builder().tensor("f", "F32", shape, f32).tensor("h", "BF16", shape, bf16).build()));
        for (const char* name : {"f", "h"})
            for (const std::size_t gap : {0UL, 5UL}) {
                const std::size_t stride = columns + gap;
                std::vector<float> out(3 * stride, -1);
                file.read_rows(file.at_tensor(name), 1, 4, out.data(), stride);
                std::size_t wrong = 0;
                for (std::size_t i = 0; i < out.size(); ++i) {
                    const std::size_t column = i % stride, at = (1 + i / stride) * columns + column;
                    if (out[i] != (column < columns ? static_cast<float>(at % 251) : -1.0F)) ++wrong;
                }
                CHECK(wrong == 0);
                LARQL_CHECK_ERROR((file.read_rows(file.at_tensor(name), 0, 1, out.data(), columns - 1), 0),
                                  errc::bad_value, "expected a stride of at least");
            }
    }
}
