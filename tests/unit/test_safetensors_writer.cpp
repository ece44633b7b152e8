// SPDX-License-Identifier: Apache-2.0
#include <larql/detail/io/output_file.hpp>
#include <larql/safetensors.hpp>
#include <larql/safetensors_writer.hpp>

#include <doctest/doctest.h>
#include <support/failing_calls.hpp>
#include <support/files.hpp>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#if !defined(_WIN32)
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

using larql::dtype;
using larql::errc;
using larql::safetensors_file;
using larql::safetensors_writer;
using larql::testing::read_file;
using larql::testing::temporary_folder;
using larql::testing::write_file;

namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
    return std::as_bytes(std::span(text.data(), text.size()));
}

// A small file, by the same steps each time; `stop_before_commit` leaves the writer to its destructor.
void write_small(const std::filesystem::path& path, const larql::output_options& options = {}, bool commit = true) {
    safetensors_writer writer(path, options);
    writer.add_tensor("a", dtype::u8, {4});
    writer.write("a", bytes_of("abcd"));
    if (commit) writer.commit();
}

bool is_small(const std::filesystem::path& path) {
    const auto file = safetensors_file::open(path);
    return file.read_integers<int, 1>("a")(3) == 'd';
}

}  // namespace

static_assert(std::is_move_constructible_v<safetensors_writer> && !std::is_copy_constructible_v<safetensors_writer>);

TEST_CASE("safetensors_writer: what is written is what is read") {
    const temporary_folder folder;
    const auto path = folder / "m.safetensors";
    {
        safetensors_writer writer(path);
        writer.set_metadata("format", "np");
        writer.set_metadata("format", "pt");  // replaced
        writer.set_metadata("odd \"key\"", "line\nbreak \xc3\xa9");
        writer.add_tensor("bytes", dtype::u8, {3});
        writer.add_tensor("name \"with\"\\ \n", dtype::bf16, {1, 2});
        writer.add_tensor("scalar", dtype::f64, {});
        writer.add_tensor("empty", dtype::f32, {0, 7});
        writer.add_tensor("halves", dtype::f16, {3});
        writer.write("bytes", bytes_of("x"));
        writer.write("scalar", bytes_of(std::string_view("\0\0\0\0\0\0\xf0\x3f", 8)));
        writer.write("bytes", bytes_of("yz"));
        writer.write("name \"with\"\\ \n", bytes_of(std::string_view("\x80\x3f\0\x40", 4)));
        writer.write("halves", bytes_of(std::string_view("\0\x3c\0\x3c\0\xbc", 6)));
        CHECK(!std::filesystem::exists(path));
        writer.commit();
    }
    CHECK(folder.file_count() == 1);
    const auto file = safetensors_file::open(path);
    CHECK(file.metadata().at("format") == "pt");
    CHECK(file.metadata().at("odd \"key\"") == "line\nbreak \xc3\xa9");
    constexpr std::string_view order[] = {"scalar", "empty", "name \"with\"\\ \n", "halves", "bytes"};
    for (std::size_t i = 0; i < std::size(order); ++i) CHECK(file.tensors()[i].name == order[i]);
    CHECK(file.read<2>("name \"with\"\\ \n")(0, 1) == 2);
    CHECK(file.read<0>("scalar")() == 1);
    CHECK(file.read<2>("empty").shape(1) == 7);
    CHECK(file.read<1>("halves")(2) == -1);
    CHECK(file.read_integers<int, 1>("bytes")(2) == 'z');
    for (const auto& t : file.tensors()) CHECK(t.offset % larql::traits_of(t.type).block_bytes == 0);
}

TEST_CASE("safetensors_writer: a file without tensors is a file") {
    const temporary_folder folder;
    safetensors_writer(folder / "a").commit();
    CHECK(read_file(folder / "a") == std::string("\x08\0\0\0\0\0\0\0{}      ", 16));
    safetensors_writer with_metadata(folder / "b");
    with_metadata.set_metadata("a", "b");
    with_metadata.commit();
    CHECK(safetensors_file::open(folder / "b").shard_count() == 1);
}

TEST_CASE("safetensors_writer: large tensors in pieces of many sizes, by turns") {
    const temporary_folder folder;
    std::string text(3000001, '\0');
    for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 31 >> 3);
    safetensors_writer writer(folder / "m.safetensors");
    writer.add_tensor("a", dtype::u8, {text.size()});
    writer.add_tensor("b", dtype::i8, {text.size()});
    std::size_t at = 0;
    for (std::size_t step = 1; at < text.size(); step = step * 3 + 1) {
        const auto piece = bytes_of(std::string_view(text).substr(at, step));
        writer.write("a", piece);
        writer.write("b", piece);
        at += piece.size();
    }
    writer.commit();
    const auto file = safetensors_file::open(folder / "m.safetensors");
    for (const char* name : {"a", "b"}) {
        const auto bytes = file.bytes(file.at_tensor(name));
        CHECK(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()) == text);
    }
}

TEST_CASE("safetensors_writer: refuses wrong declarations and wrong amounts of data, and leaves nothing") {
    const temporary_folder folder;
    const auto path = folder / "m.safetensors";
    {
        safetensors_writer writer(path);
        LARQL_CHECK_ERROR(writer.add_tensor("q", dtype::q4_k, {256}), errc::unsupported_dtype,
                          "q: expected a type of safetensors, got Q4_K");
        LARQL_CHECK_ERROR(writer.add_tensor("\xff", dtype::u8, {1}), errc::corrupt_header, "UTF-8");
        LARQL_CHECK_ERROR(writer.add_tensor("__metadata__", dtype::u8, {1}), errc::corrupt_header,
                          "other than __metadata__");
        LARQL_CHECK_ERROR(writer.set_metadata("a", "\xff"), errc::corrupt_header, "not UTF-8");
        LARQL_CHECK_ERROR(writer.set_metadata("\xff", "a"), errc::corrupt_header, "not UTF-8");
        LARQL_CHECK_ERROR(writer.add_tensor("f", dtype::f4_e2m1, {3}), errc::shape_mismatch,
                          "expected a multiple of 2 for F4, got 3");
        LARQL_CHECK_ERROR(writer.add_tensor("f", dtype::f4_e2m1, {}), errc::shape_mismatch,
                          "expected a multiple of 2 for F4, got 1");
        LARQL_CHECK_ERROR(writer.add_tensor("big", dtype::u8, {1ULL << 32, 1ULL << 32}), errc::bad_value, "too large");
        LARQL_CHECK_ERROR(writer.add_tensor("big", dtype::f64, {1ULL << 62}), errc::bad_value, "too large");
        writer.add_tensor("a", dtype::u8, {2});
        writer.write("a", bytes_of("x"));
        LARQL_CHECK_ERROR(writer.write("b", bytes_of("x")), errc::missing_tensor, "b: expected a declared tensor");
        LARQL_CHECK_ERROR(writer.write("a", bytes_of("xy")), errc::bad_value,
                          "a: more data than declared: expected at most 1 more bytes, got 2");
        LARQL_CHECK_ERROR(writer.add_tensor("c", dtype::u8, {1}), errc::bad_value,
                          "expected declarations before the first data");
        LARQL_CHECK_ERROR(writer.set_metadata("c", "d"), errc::bad_value,
                          "expected declarations before the first data");
        LARQL_CHECK_ERROR(writer.commit(), errc::bad_value, "a: incomplete: expected 2 bytes of data, got 1");
    }
    CHECK(folder.file_count() == 0);
    {
        safetensors_writer writer(path);
        writer.add_tensor("a", dtype::u8, {2});
        writer.add_tensor("a", dtype::u8, {2});
        LARQL_CHECK_ERROR(writer.write("a", bytes_of("x")), errc::duplicate_name, "a: tensor declared twice");
        safetensors_writer huge(folder / "huge");
        huge.add_tensor("a", dtype::u8, {(1ULL << 63) - 1});
        huge.add_tensor("b", dtype::u8, {1});
        LARQL_CHECK_ERROR(huge.write("a", bytes_of("x")), errc::limit_exceeded,
                          "expected fewer than 2^63 bytes of data");
        safetensors_writer long_header(folder / "long");
        long_header.add_tensor(std::string(100000000, 'n'), dtype::u8, {0});
        LARQL_CHECK_ERROR(long_header.commit(), errc::limit_exceeded,
                          "header too large: expected at most 100000000 bytes, got 1000000");
        const std::string rest = R"({"":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})";
        const std::string longest(100000000 - rest.size(), 'n');
        safetensors_writer largest(folder / "largest");
        largest.add_tensor(longest, dtype::u8, {0});
        largest.write(longest, {});
        safetensors_writer larger(folder / "larger");
        larger.add_tensor(longest + 'n', dtype::u8, {0});
        LARQL_CHECK_ERROR(larger.write(longest + 'n', {}), errc::limit_exceeded, "got 100000008");
    }
    CHECK(folder.file_count() == 0);
}

TEST_CASE("safetensors_writer: an existing output is refused, or replaced when it is complete") {
    const temporary_folder folder;
    const auto path = write_file(folder / "m.safetensors", "precious");
    LARQL_CHECK_ERROR(write_small(path), errc::already_exists, "m.safetensors: the output exists");
    write_small(path, {.replace = true}, false);
    CHECK(read_file(path) == "precious");
    CHECK(folder.file_count() == 1);
    {
        safetensors_writer writer(path, {.replace = true});
        writer.add_tensor("a", dtype::u8, {4});
        writer.write("a", bytes_of("abcd"));
        CHECK(read_file(path) == "precious");
        writer.commit();
    }
    CHECK(is_small(path));
    CHECK(folder.file_count() == 1);
    LARQL_CHECK_ERROR(write_small(folder.path(), {.replace = true}), errc::already_exists, "a folder of this name");
    LARQL_CHECK_ERROR(write_small(folder / ""), errc::bad_value, "expected the name of a file");
    LARQL_CHECK_ERROR(larql::detail::output_file(folder / std::string("a\0b", 3), {}), errc::bad_value,
                      "contains a NUL");
    LARQL_CHECK_ERROR(write_small(folder / "no" / "m"), errc::io, "cannot create: No such file");
    {  // it appears while we write
        safetensors_writer writer(folder / "late");
        write_file(folder / "late", "other");
        LARQL_CHECK_ERROR(writer.commit(), errc::already_exists, "late: the output exists");
    }
    CHECK(read_file(folder / "late") == "other");
    CHECK(folder.file_count() == 2);
#if !defined(_WIN32)
    std::filesystem::create_symlink("nowhere", folder / "dangling");
    LARQL_CHECK_ERROR(write_small(folder / "dangling"), errc::already_exists, "the output exists");
#endif
}

TEST_CASE("safetensors_writer: an output that is an input is refused, by whatever name") {
    const temporary_folder folder;
    const auto input = folder / "in.safetensors";
    write_small(input);
    const larql::output_options options{.replace = true, .inputs = {folder / "other", input}};
    LARQL_CHECK_ERROR(write_small(input, options), errc::already_exists, "the output is the same file as the input");
    LARQL_CHECK_ERROR(write_small(folder / "." / "in.safetensors", options), errc::already_exists, "same file");
    std::filesystem::create_hard_link(input, folder / "hard");
    LARQL_CHECK_ERROR(write_small(folder / "hard", options), errc::already_exists,
                      "hard: the output is the same file as the input");
    std::filesystem::create_hard_link(input, folder / "out.larql-part");
    LARQL_CHECK_ERROR(write_small(folder / "out", options), errc::already_exists,
                      "out.larql-part: the output is the same");
    LARQL_CHECK_ERROR(write_small(folder / "out"), errc::not_a_file, "expected to create a file of its own");
#if !defined(_WIN32)
    std::filesystem::create_symlink(input, folder / "soft");
    LARQL_CHECK_ERROR(write_small(folder / "soft", options), errc::already_exists,
                      "soft: the output is the same file as the input");
    std::filesystem::create_symlink(folder / "elsewhere", folder / "led");
    LARQL_CHECK_ERROR(write_small(folder / "led", options), errc::not_a_file, "expected a regular file to replace");
    CHECK(!std::filesystem::exists(folder / "elsewhere"));
    REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
    LARQL_CHECK_ERROR(write_small(folder / "pipe", options), errc::not_a_file, "expected a regular file to replace");
    std::filesystem::create_symlink(input, folder / "link.larql-part");
    LARQL_CHECK_ERROR(write_small(folder / "link"), errc::io, "cannot create");
    REQUIRE(::mkfifo((folder / "fifo.larql-part").c_str(), 0600) == 0);
    LARQL_CHECK_ERROR(write_small(folder / "fifo"), errc::not_a_file, "expected to create a file of its own");
#endif
    CHECK(is_small(input));
}

TEST_CASE("safetensors_writer: takes over what a dead writer left, not what a living one holds") {
    const temporary_folder folder;
    const auto path = folder / "m.safetensors";
    write_file(folder / "m.safetensors.larql-part", std::string(5000, 'x'));
    {
        safetensors_writer living(path);
        LARQL_CHECK_ERROR(write_small(path), errc::io, "another process is writing this file");
        living.add_tensor("b", dtype::u8, {1});
        living.write("b", bytes_of("y"));
        living.commit();
    }
    CHECK(safetensors_file::open(path).shard_count() == 1);
    CHECK(folder.file_count() == 1);
}

#if !defined(_WIN32)
TEST_CASE("output_file: a temporary that others may write is made anew, and a replaced file keeps its permissions") {
    const temporary_folder folder;
    const auto path = folder / "m", part = folder / "m.larql-part";
    write_file(part, "theirs");
    std::filesystem::permissions(part, static_cast<std::filesystem::perms>(0666));
    std::ifstream theirs(part);
    write_file(path, "private");
    std::filesystem::permissions(path, static_cast<std::filesystem::perms>(0600));
    larql::detail::output_file out(path, {.replace = true});
    CHECK((std::filesystem::status(part).permissions() & std::filesystem::perms(0077)) == std::filesystem::perms::none);
    out.write_at(0, bytes_of("mine"));
    out.finish(4);
    out.publish();
    std::string held;
    CHECK((std::getline(theirs, held) && held == "theirs"));  // another file
    CHECK(read_file(path) == "mine");
    CHECK(std::filesystem::status(path).permissions() == static_cast<std::filesystem::perms>(0600));
}
#endif

TEST_CASE("output_file: a name that was taken while the file was written is not given to it") {
    const temporary_folder folder;
    const auto path = folder / "m";
    larql::detail::output_file out(path, {});
    out.finish(0);
    // Between the last look at the name and the renaming: neither call may replace.
    write_file(folder / "late", "precious");
    LARQL_CHECK_ERROR(larql::detail::rename_to_free_name(out.temporary(), folder / "late"), errc::io, "cannot rename");
    CHECK(read_file(folder / "late") == "precious");
    out.publish();
    CHECK(std::filesystem::exists(path));
}

TEST_CASE("output_file: the name is held until the file has it, and not longer") {
    const temporary_folder folder;
    const auto path = folder / "m";
    const larql::output_options options{.replace = true};
    auto first = std::make_unique<larql::detail::output_file>(path, options);
    first->write_at(0, bytes_of("first"));
    first->finish(5);
    LARQL_CHECK_ERROR(larql::detail::output_file(path, options), errc::io, "another process is writing this file");
    first->publish();
    larql::detail::output_file second(path, options);
    first.reset();  // must not take the second's temporary file with it
    second.write_at(0, bytes_of("second"));
    second.finish(6);
    CHECK(read_file(path) == "first");
    second.publish();
    CHECK(read_file(path) == "second");
}

TEST_CASE("output_file: holds no more than a piece of what is written") {
    const temporary_folder folder;
    larql::detail::output_file out(folder / "m", {});
    const std::string piece(1 << 16, 'x');
    for (std::uint64_t at = 0; at < 3 << 20; at += piece.size()) out.write_at(at, bytes_of(piece));
    CHECK(std::filesystem::file_size(out.temporary()) >= 2 << 20);
}

#if LARQL_FAILING_CALLS
TEST_CASE("safetensors_writer: a failing system call is one error, no output and no rubbish") {
    struct fault {
        std::string_view call;
        int code;
        int after;
        std::string_view message;
    };
    using larql::testing::failing_call;
    for (const fault& f :
         {fault{"pwrite", ENOSPC, 0, "cannot write: No space left on device"},
          fault{"pwrite", EDQUOT, 0, "cannot write: Disk quota exceeded"},
          fault{"fsync", EIO, 0, "cannot sync: Input/output error"}, fault{"ftruncate", EIO, 0, "cannot empty: "},
          fault{"ftruncate", EFBIG, 1, "cannot resize: "}, fault{"close", EIO, 0, "cannot close: Input/output error"},
          fault{"rename", EACCES, 0, "cannot rename: Permission denied"},
          fault{"fsync", EIO, 1, "cannot sync the folder of: Input/output error"}}) {
        for (const bool replace : {false, true}) {
            const temporary_folder folder;
            const auto path = folder / "m.safetensors";
            if (replace) write_file(path, "precious");
            std::string found;
            {
                const failing_call fails(f.call, f.code, f.after);
                found = larql::testing::error_of([&] { write_small(path, {.replace = replace}); });
            }
            CHECK_MESSAGE(larql::testing::is_error(found, errc::io, f.message), found);
            CHECK(folder.file_count() == (replace ? 1 : 0));
            if (replace && f.message.find("folder") == std::string_view::npos) CHECK(read_file(path) == "precious");
            write_small(path, {.replace = replace});  // and a rerun succeeds
            CHECK(is_small(path));
        }
    }
    const temporary_folder folder;
    const auto succeeds = [&](std::string_view call, int code, int after, int times) {
        const failing_call fails(call, code, after, times);
        write_small(folder / "m.safetensors", {.replace = true});
        CHECK(is_small(folder / "m.safetensors"));
    };
    for (const int code : {EINVAL, ENOTSUP}) succeeds("fsync", code, 1, 1);  // file systems that sync no folders
    for (const std::string_view call : {"pwrite", "fsync"}) succeeds(call, EINTR, 0, 1);
    succeeds("close", EINTR, 0, 100);  // is not repeated: the descriptor is gone
}

TEST_CASE("safetensors_writer: a large write that fails late leaves nothing, even while the writer lives") {
    const temporary_folder folder;
    safetensors_writer writer(folder / "m.safetensors");
    writer.add_tensor("a", dtype::u8, {4 << 20});
    const std::string piece(2 << 20, 'x');
    writer.write("a", bytes_of(piece));
    const larql::testing::failing_call fails("pwrite", ENOSPC);
    LARQL_CHECK_ERROR(writer.write("a", bytes_of(piece)), errc::io, "No space left");
    CHECK(folder.file_count() == 0);
    LARQL_CHECK_ERROR(writer.commit(), errc::bad_value, "incomplete");
    CHECK(folder.file_count() == 0);
}
#endif

#if !defined(_WIN32)
TEST_CASE("safetensors_writer: a limit on file sizes is an error, not a signal") {
    const temporary_folder folder;
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    const rlimit small{1 << 16, before.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
    const std::string found = larql::testing::error_of([&] {
        safetensors_writer writer(folder / "m.safetensors");
        writer.add_tensor("a", dtype::u8, {1 << 17});
        writer.write("a", bytes_of(std::string(1 << 17, 'x')));
        writer.commit();
    });
    const std::string beyond = larql::testing::error_of([&] {
        larql::detail::output_file out(folder / "m", {});
        out.write_at(1 << 17, bytes_of(std::string(1 << 20, 'x')));
    });
    const std::string resized = larql::testing::error_of([&] {
        larql::detail::output_file out(folder / "m", {});
        out.finish((1 << 16) + 1);
    });
    const std::size_t left = folder.file_count();
    const std::string full = larql::testing::error_of([&] {
        larql::detail::output_file out(folder / "m", {});
        out.write_at(0, bytes_of(std::string(1 << 16, 'x')));
        out.finish(1 << 16);
        out.publish();
    });
    ::setrlimit(RLIMIT_FSIZE, &before);
    LARQL_CHECK_ERROR_TEXT(found, errc::io, "expected at most 65536 bytes, got");
    LARQL_CHECK_ERROR_TEXT(beyond, errc::io, "expected at most 65536 bytes, got 131072 + 1048576");
    LARQL_CHECK_ERROR_TEXT(resized, errc::io,
                           "cannot resize: the process may not write files that large: expected at "
                           "most 65536 bytes, got 65537");
    CHECK(left == 0);
    CHECK_MESSAGE(full == "no error", full);
}

TEST_CASE("safetensors_writer: a killed writer leaves no output, and a rerun succeeds") {
    const temporary_folder folder;
    const auto path = folder / "m.safetensors";
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        safetensors_writer writer(path);
        writer.add_tensor("a", dtype::u8, {8 << 20});
        writer.write("a", bytes_of(std::string(3 << 20, 'x')));
        ::raise(SIGKILL);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    CHECK(!std::filesystem::exists(path));
    CHECK(std::filesystem::exists(folder / "m.safetensors.larql-part"));
    write_small(path);
    CHECK(is_small(path));
    CHECK(folder.file_count() == 1);
}
#endif
