// SPDX-License-Identifier: Apache-2.0
#include <larql/mapped_file.hpp>

#include <doctest/doctest.h>
#include <support/files.hpp>

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#if !defined(_WIN32)
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#endif

using larql::errc;
using larql::mapped_file;
using larql::testing::temporary_folder;
using larql::testing::write_file;

namespace {

std::string text_of(const mapped_file& file) {
    return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

template <class T>
concept gives_bytes_of_temporary = requires(T (*open)()) { open().bytes(); };

}  // namespace

static_assert(std::is_nothrow_move_constructible_v<mapped_file> && std::is_nothrow_move_assignable_v<mapped_file>);
static_assert(!std::is_copy_constructible_v<mapped_file> && !std::is_copy_assignable_v<mapped_file>);
static_assert(!gives_bytes_of_temporary<mapped_file>, "a view of a temporary map must not compile");

TEST_CASE("mapped_file: shows the bytes, the size and the path, also after a move") {
    const temporary_folder folder;
    const auto path = write_file(folder / "a.bin", std::string("abc\0def", 7));
    mapped_file file = mapped_file::open(path);
    const std::byte* at = file.bytes().data();
    CHECK(text_of(file) == std::string("abc\0def", 7));
    CHECK(file.size_bytes() == 7);
    CHECK(file.path() == path.string());
    const mapped_file moved = std::move(file);
    CHECK(moved.bytes().data() == at);
    CHECK(text_of(moved) == std::string("abc\0def", 7));
    CHECK(moved.path() == path.string());
    moved.verify_unchanged();
    mapped_file other = mapped_file::open(write_file(folder / "b.bin", "xy"));
    other = mapped_file::open(path);
    CHECK(other.size_bytes() == 7);
    CHECK(text_of(other) == std::string("abc\0def", 7));
    CHECK(other.path() == path.string());
    std::filesystem::remove(folder / "b.bin");
    other.verify_unchanged();
}

TEST_CASE("mapped_file: the map outlives the object that it was moved from, and ends once") {
    const temporary_folder folder;
    auto first = std::make_unique<mapped_file>(mapped_file::open(write_file(folder / "a.bin", "abc")));
    const mapped_file second = std::move(*first);
    CHECK(first->bytes().empty());
    first.reset();
    CHECK(text_of(second) == "abc");
}

#if defined(__linux__)
namespace {

/// The number of this process's open descriptors of a file, and whether all of them close in a program it starts.
struct open_descriptors {
    int count = 0;
    bool private_ones = true;

    explicit open_descriptors(const std::filesystem::path& path) {
        for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
            std::error_code gone;  // the descriptor of the listing itself
            if (std::filesystem::read_symlink(entry.path(), gone) != path) continue;
            ++count;
            private_ones &= (::fcntl(std::stoi(entry.path().filename()), F_GETFD) & FD_CLOEXEC) != 0;
        }
    }
};

bool is_mapped(const std::filesystem::path& path) {
    return larql::testing::read_file("/proc/self/maps").find(path.string()) != std::string::npos;
}

}  // namespace

TEST_CASE("mapped_file: holds a map and no descriptor, and leaves neither behind") {
    const temporary_folder folder;
    const auto path = std::filesystem::canonical(write_file(folder / "a.bin", "abc"));
    {
        const mapped_file file = mapped_file::open(path);
        CHECK(is_mapped(path));
        CHECK(open_descriptors(path).count == 0);
        const auto reads = file.reopen();
        CHECK(open_descriptors(path).count == 1);
        CHECK(open_descriptors(path).private_ones);
    }
    CHECK(!is_mapped(path));
    CHECK(open_descriptors(path).count == 0);
}
#endif

TEST_CASE("mapped_file: opens an empty file") {
    const temporary_folder folder;
    const mapped_file file = mapped_file::open(write_file(folder / "empty", ""));
    CHECK(file.bytes().empty());
    file.verify_unchanged();
}

TEST_CASE("mapped_file: refuses what is not a regular file, at once") {
    const temporary_folder folder;
    LARQL_CHECK_ERROR(mapped_file::open(folder / "absent"), errc::io, "absent: cannot open: No such file");
    LARQL_CHECK_ERROR(mapped_file::open(folder.path()), errc::not_a_file, "expected a regular file, got a directory");
    LARQL_CHECK_ERROR(mapped_file::open(folder.path() / std::string("a\0b", 3)), errc::bad_value, "NUL");
#if !defined(_WIN32)
    const auto fifo = folder / "fifo";
    REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
    LARQL_CHECK_ERROR(mapped_file::open(fifo), errc::not_a_file, "expected a regular file, got a FIFO");
    LARQL_CHECK_ERROR(mapped_file::open("/dev/zero"), errc::not_a_file, "expected a regular file, got a device");
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string name = (folder / "socket").string();
    if (name.size() < sizeof(address.sun_path)) {
        name.copy(address.sun_path, name.size());
        const int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
        REQUIRE(::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
        LARQL_CHECK_ERROR(mapped_file::open(folder / "socket"), errc::not_a_file,
                          "expected a regular file, got a socket");
        ::close(socket);
    }
    std::filesystem::create_symlink(folder / "loop2", folder / "loop1");
    std::filesystem::create_symlink(folder / "loop1", folder / "loop2");
    LARQL_CHECK_ERROR(mapped_file::open(folder / "loop1"), errc::io, "loop1: cannot open: Too many levels");
    if (::geteuid() != 0) {  // root may read everything
        const auto locked = write_file(folder / "locked", "x");
        std::filesystem::permissions(locked, std::filesystem::perms::none);
        LARQL_CHECK_ERROR(mapped_file::open(locked), errc::io, "cannot open: Permission denied");
    }
#endif
}

TEST_CASE("mapped_file: tells that the file changed, shrank, was replaced or went away") {
    const temporary_folder folder;
    const auto path = write_file(folder / "a.bin", "abcdef");
    const auto start = std::filesystem::file_time_type::clock::now() - std::chrono::hours(1);
    std::filesystem::last_write_time(path, start);
    const mapped_file file = mapped_file::open(path);
    file.verify_unchanged();

    std::filesystem::last_write_time(path, start + std::chrono::minutes(1));
    LARQL_CHECK_ERROR(file.verify_unchanged(), errc::source_changed, "its modification time is another");
    std::filesystem::last_write_time(path, start + std::chrono::milliseconds(1));
    if (std::filesystem::last_write_time(path) != start)  // not every file system counts so finely
        LARQL_CHECK_ERROR(file.verify_unchanged(), errc::source_changed, "its modification time is another");
    std::filesystem::last_write_time(path, start);
    file.verify_unchanged();

    std::filesystem::resize_file(path, 4);
    LARQL_CHECK_ERROR(file.verify_unchanged(), errc::source_changed, "expected 6 bytes, got 4");

    std::filesystem::rename(path, folder / "old.bin");
    LARQL_CHECK_ERROR(file.verify_unchanged(), errc::source_changed, "it is gone");
    write_file(path, "abcdef");
    std::filesystem::last_write_time(path, start);
    LARQL_CHECK_ERROR(file.verify_unchanged(), errc::source_changed, "another file has its name");
}

TEST_CASE("mapped_file: ordinary reads report a file that shrank") {
    const temporary_folder folder;
    const auto path = write_file(folder / "a.bin", "abcdef");
    const auto file = larql::detail::input_file::open(path);
    std::vector<std::byte> out(4);
    file.read_at(2, out);
    CHECK(std::to_integer<char>(out[3]) == 'f');
    std::filesystem::resize_file(path, 4);
    LARQL_CHECK_ERROR(file.read_at(2, out), errc::source_changed,
                      "a.bin @ 4: the file shrank while it was read: expected 2");
}

TEST_CASE("mapped_file: finds its file again after the working folder changed") {
    const temporary_folder folder;
    write_file(folder / "a.bin", "abc");
    const auto before = std::filesystem::current_path();
    std::filesystem::current_path(folder.path());
    const mapped_file file = mapped_file::open("a.bin");
    std::filesystem::current_path(before);
    CHECK(file.path() == "a.bin");
    file.verify_unchanged();
}
