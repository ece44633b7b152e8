// SPDX-License-Identifier: Apache-2.0
//
// The operating system's part of reading: open, identify, read at a position, map.
#ifndef LARQL_DETAIL_IO_INPUT_FILE_HPP
#define LARQL_DETAIL_IO_INPUT_FILE_HPP

#include <larql/detail/concat.hpp>
#include <larql/error.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#if defined(_WIN32)
#ifndef NOMINMAX
#define NOMINMAX
#endif
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace larql::detail {

/// The path as text for errors: UTF-8 on every system.
inline std::string path_text(const std::filesystem::path& path) {
#if defined(_WIN32)
    const std::u8string text = path.u8string();
    return {reinterpret_cast<const char*>(text.data()), text.size()};
#else
    return path.native();
#endif
}

/// Which file a handle or path refers to, and in what state. Two equal identities mean: the same file, not modified in
/// between, as far as the file system records it.
struct file_identity {
    std::uint64_t volume = 0;
    std::uint64_t number = 0;  ///< inode or file index
    std::uint64_t size_bytes = 0;
    std::int64_t modified = 0;  ///< nanoseconds (POSIX) or 100 ns (Windows), of the system's own epoch

    friend bool operator==(const file_identity&, const file_identity&) = default;
    /// The same file, modified or not.
    [[nodiscard]] bool same_file(const file_identity& other) const noexcept {
        return volume == other.volume && number == other.number;
    }
};

/// Throws errc::io: "cannot <action>: <the system's words>".
[[noreturn]] inline void fail_system(const char* action, int code, const std::filesystem::path& path,
                                     errc kind = errc::io) {
    fail(kind, std::string("cannot ") + action + ": " + std::system_category().message(code),
         {.file = path_text(path)});
}

/// What stands in a folder and is no folder, sorted by name.
/// @throws error io
inline std::vector<std::filesystem::path> list_files(const std::filesystem::path& folder) {
    std::vector<std::filesystem::path> out;
    std::error_code code;
    std::filesystem::directory_iterator entry(folder, code);
    for (; !code && entry != std::filesystem::directory_iterator(); entry.increment(code)) {
        std::error_code ignored;
        if (!std::filesystem::is_directory(entry->path(), ignored)) out.push_back(entry->path());
    }
    if (code) fail_system("list the folder", code.value(), folder);
    std::sort(out.begin(), out.end());
    return out;
}

/// A path with a NUL inside would silently mean another file.
inline void refuse_nul_in_path(const std::filesystem::path& path) {
    if (path.native().find(std::filesystem::path::value_type{}) != std::filesystem::path::string_type::npos)
        fail(errc::bad_value, "the path contains a NUL character", {.file = path_text(path)});
}

/// An open regular file. Move-only.
class input_file {
public:
    /// Opens without blocking, so that a FIFO cannot hang the caller, and accepts regular files only.
    /// @throws error io if the system refuses, not_a_file for a directory, FIFO, device or socket
    static input_file open(const std::filesystem::path& path);

    input_file(input_file&& other) noexcept
        : m_handle(std::exchange(other.m_handle, no_handle())),
          m_identity(other.m_identity),
          m_path(std::move(other.m_path)) {}
    input_file& operator=(input_file&& other) noexcept {
        std::swap(m_handle, other.m_handle);
        std::swap(m_identity, other.m_identity);
        std::swap(m_path, other.m_path);
        return *this;
    }
    input_file(const input_file&) = delete;
    input_file& operator=(const input_file&) = delete;
    ~input_file() { close(); }

    [[nodiscard]] const file_identity& identity() const noexcept { return m_identity; }
    [[nodiscard]] std::uint64_t size_bytes() const noexcept { return m_identity.size_bytes; }

    /// Fills `out` with ordinary reads: a file that shrinks is an error here, where a map would be a signal.
    /// @throws error source_changed if the file ends too early, io if the system refuses
    void read_at(std::uint64_t offset, std::span<std::byte> out) const;

    /// Maps the whole file for reading. The map outlives the handle; free it with `unmap`. Null for an empty file.
    [[nodiscard]] const std::byte* map() const;
    static void unmap(const std::byte* data, std::uint64_t size_bytes) noexcept;

private:
#if defined(_WIN32)
    using handle = HANDLE;
    static handle no_handle() noexcept { return INVALID_HANDLE_VALUE; }
#else
    using handle = int;
    static handle no_handle() noexcept { return -1; }
#endif
    explicit input_file(handle h, std::filesystem::path path) : m_handle(h), m_path(std::move(path)) {}
    void close() noexcept;
    void identify();

    handle m_handle;
    file_identity m_identity{};
    std::filesystem::path m_path;
};

#if defined(_WIN32)

inline input_file input_file::open(const std::filesystem::path& path) {
    refuse_nul_in_path(path);
    const HANDLE h = ::CreateFileW(path.c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                                   nullptr, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, nullptr);
    if (h == INVALID_HANDLE_VALUE) fail_system("open", static_cast<int>(::GetLastError()), path);
    input_file file(h, path);
    file.identify();
    return file;
}

inline void input_file::identify() {
    BY_HANDLE_FILE_INFORMATION info{};
    if (::GetFileType(m_handle) != FILE_TYPE_DISK)
        fail(errc::not_a_file, "expected a regular file, got a device or pipe", {.file = path_text(m_path)});
    if (::GetFileInformationByHandle(m_handle, &info) == 0)
        fail_system("examine", static_cast<int>(::GetLastError()), m_path);
    if ((info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0)
        fail(errc::not_a_file, "expected a regular file, got a directory", {.file = path_text(m_path)});
    const auto join = [](DWORD high, DWORD low) { return (static_cast<std::uint64_t>(high) << 32) | low; };
    m_identity = {.volume = info.dwVolumeSerialNumber,
                  .number = join(info.nFileIndexHigh, info.nFileIndexLow),
                  .size_bytes = join(info.nFileSizeHigh, info.nFileSizeLow),
                  .modified = static_cast<std::int64_t>(
                      join(info.ftLastWriteTime.dwHighDateTime, info.ftLastWriteTime.dwLowDateTime))};
}

inline void input_file::close() noexcept {
    if (m_handle != no_handle()) ::CloseHandle(m_handle);
}

inline void input_file::read_at(std::uint64_t offset, std::span<std::byte> out) const {
    while (!out.empty()) {
        OVERLAPPED at{};
        at.Offset = static_cast<DWORD>(offset);
        at.OffsetHigh = static_cast<DWORD>(offset >> 32);
        const auto wanted = static_cast<DWORD>(std::min<std::size_t>(out.size(), std::size_t{1} << 30));
        DWORD got = 0;
        if (::ReadFile(m_handle, out.data(), wanted, &got, &at) == 0 && ::GetLastError() != ERROR_HANDLE_EOF)
            fail_system("read", static_cast<int>(::GetLastError()), m_path);
        if (got == 0)
            fail(errc::source_changed,
                 concat({"the file shrank while it was read: expected ", out.size(), " more bytes, got 0"}),
                 {.file = path_text(m_path), .offset = offset});
        out = out.subspan(got);
        offset += got;
    }
}

inline const std::byte* input_file::map() const {
    if (size_bytes() == 0) return nullptr;
    const HANDLE mapping = ::CreateFileMappingW(m_handle, nullptr, PAGE_READONLY, 0, 0, nullptr);
    if (mapping == nullptr) fail_system("map", static_cast<int>(::GetLastError()), m_path);
    const void* data = ::MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0);
    const DWORD code = ::GetLastError();
    ::CloseHandle(mapping);
    if (data == nullptr) fail_system("map", static_cast<int>(code), m_path);
    return static_cast<const std::byte*>(data);
}

inline void input_file::unmap(const std::byte* data, std::uint64_t) noexcept {
    if (data != nullptr) ::UnmapViewOfFile(data);
}

#else

inline const char* kind_of_file(mode_t mode) noexcept {
    if (S_ISDIR(mode)) return "a directory";
    if (S_ISFIFO(mode)) return "a FIFO";
    if (S_ISSOCK(mode)) return "a socket";
    if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
    return "something else";
}

inline file_identity identity_of(const struct stat& status) noexcept {
#if defined(__APPLE__)
    const timespec modified = status.st_mtimespec;
#else
    const timespec modified = status.st_mtim;
#endif
    return {.volume = static_cast<std::uint64_t>(status.st_dev),
            .number = static_cast<std::uint64_t>(status.st_ino),
            .size_bytes = static_cast<std::uint64_t>(status.st_size),
            .modified = static_cast<std::int64_t>(modified.tv_sec) * 1'000'000'000 + modified.tv_nsec};
}

inline input_file input_file::open(const std::filesystem::path& path) {
    refuse_nul_in_path(path);
    int descriptor = -1;
    do descriptor = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    while (descriptor < 0 && errno == EINTR);
    if (descriptor < 0) {
        const int code = errno;
        struct stat status {};
        if (::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode))  // a socket cannot even be opened
            fail(errc::not_a_file, std::string("expected a regular file, got ") + kind_of_file(status.st_mode),
                 {.file = path_text(path)});
        fail_system("open", code, path);
    }
    input_file file(descriptor, path);
    file.identify();
    return file;
}

inline void input_file::identify() {
    struct stat status {};
    if (::fstat(m_handle, &status) != 0) fail_system("examine", errno, m_path);
    if (!S_ISREG(status.st_mode))
        fail(errc::not_a_file, std::string("expected a regular file, got ") + kind_of_file(status.st_mode),
             {.file = path_text(m_path)});
    m_identity = identity_of(status);
}

inline void input_file::close() noexcept {
    if (m_handle != no_handle()) ::close(m_handle);
}

inline void input_file::read_at(std::uint64_t offset, std::span<std::byte> out) const {
    while (!out.empty()) {
        const std::size_t wanted = std::min<std::size_t>(out.size(), std::size_t{1} << 30);  // below every system's cap
        const ssize_t got = ::pread(m_handle, out.data(), wanted, static_cast<off_t>(offset));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) fail_system("read", errno, m_path);
        if (got == 0)
            fail(errc::source_changed,
                 concat({"the file shrank while it was read: expected ", out.size(), " more bytes, got 0"}),
                 {.file = path_text(m_path), .offset = offset});
        out = out.subspan(static_cast<std::size_t>(got));
        offset += static_cast<std::uint64_t>(got);
    }
}

inline const std::byte* input_file::map() const {
    if (size_bytes() == 0) return nullptr;
    if (size_bytes() > std::numeric_limits<std::size_t>::max())
        fail(errc::limit_exceeded,
             concat({"the file does not fit the address space: expected at most ",
                     std::numeric_limits<std::size_t>::max(), " bytes, got ", size_bytes()}),
             {.file = path_text(m_path)});
    void* data = ::mmap(nullptr, static_cast<std::size_t>(size_bytes()), PROT_READ, MAP_PRIVATE, m_handle, 0);
    if (data == MAP_FAILED) fail_system("map", errno, m_path);
    return static_cast<const std::byte*>(data);
}

inline void input_file::unmap(const std::byte* data, std::uint64_t size_bytes) noexcept {
    if (data != nullptr) ::munmap(const_cast<std::byte*>(data), static_cast<std::size_t>(size_bytes));
}

#endif

/// Opens `path` again and checks that it still is the file with this identity.
/// @throws error source_changed if it is gone, replaced, modified, or of another size
inline input_file open_unchanged(const std::filesystem::path& path, const file_identity& expected) {
    const auto changed = [&](const std::string& how) {
        fail(errc::source_changed, "the file changed after it was opened: " + how, {.file = path_text(path)});
    };
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) changed("it is gone");
    input_file file = input_file::open(path);
    const file_identity& now = file.identity();
    if (!now.same_file(expected)) changed("another file has its name");
    if (now.size_bytes != expected.size_bytes)
        changed(concat({"expected ", expected.size_bytes, " bytes, got ", now.size_bytes}));
    if (now.modified != expected.modified) changed("its modification time is another");
    return file;
}

}  // namespace larql::detail

#endif
