// SPDX-License-Identifier: Apache-2.0
//
// Writing to an open file: all of the bytes, at their place, durably, or an error that says why.
#ifndef LARQL_DETAIL_IO_FILE_WRITING_HPP
#define LARQL_DETAIL_IO_FILE_WRITING_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/io/input_file.hpp>
#include <larql/error.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#if !defined(_WIN32)
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace larql::detail {

#if defined(_WIN32)

inline void write_fully(HANDLE file, std::uint64_t offset, std::span<const std::byte> bytes,
                        const std::filesystem::path& path) {
    while (!bytes.empty()) {
        OVERLAPPED at{};
        at.Offset = static_cast<DWORD>(offset);
        at.OffsetHigh = static_cast<DWORD>(offset >> 32);
        const auto wanted = static_cast<DWORD>(std::min<std::size_t>(bytes.size(), std::size_t{1} << 30));
        DWORD written = 0;
        if (::WriteFile(file, bytes.data(), wanted, &written, &at) == 0 || written == 0)
            fail_system("write", static_cast<int>(::GetLastError()), path);
        bytes = bytes.subspan(written);
        offset += written;
    }
}

inline void resize_file(HANDLE file, std::uint64_t size_bytes, const std::filesystem::path& path) {
    LARGE_INTEGER end{};
    end.QuadPart = static_cast<LONGLONG>(size_bytes);
    if (::SetFilePointerEx(file, end, nullptr, FILE_BEGIN) == 0 || ::SetEndOfFile(file) == 0)
        fail_system("resize", static_cast<int>(::GetLastError()), path);
}

inline void sync_file(HANDLE file, const std::filesystem::path& path) {
    if (::FlushFileBuffers(file) == 0) fail_system("sync", static_cast<int>(::GetLastError()), path);
}

inline void rename_to_free_name(const std::filesystem::path& from, const std::filesystem::path& to) {
    if (::MoveFileExW(from.c_str(), to.c_str(), MOVEFILE_WRITE_THROUGH) == 0)
        fail_system("rename", static_cast<int>(::GetLastError()), from);
}

#else

/// Beyond the size that a process may write, the system would send a signal (SIGXFSZ) that ends it.
inline void require_writable_size(std::uint64_t offset, std::uint64_t more, const char* what,
                                  const std::filesystem::path& path) {
    rlimit limit{};
    if (::getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
    const std::uint64_t most = limit.rlim_cur;
    if (offset <= most && more <= most - offset) return;
    fail(errc::io,
         concat({"cannot ", what, ": the process may not write files that large: expected at most ", most,
                 " bytes, got ", offset, " + ", more}),
         {.file = path_text(path)});
}

inline void write_fully(int file, std::uint64_t offset, std::span<const std::byte> bytes,
                        const std::filesystem::path& path) {
    require_writable_size(offset, bytes.size(), "write", path);
    while (!bytes.empty()) {
        const std::size_t wanted = std::min<std::size_t>(bytes.size(), std::size_t{1} << 30);
        const ssize_t written = ::pwrite(file, bytes.data(), wanted, static_cast<off_t>(offset));
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) fail_system("write", written < 0 ? errno : ENOSPC, path);
        bytes = bytes.subspan(static_cast<std::size_t>(written));
        offset += static_cast<std::uint64_t>(written);
    }
}

inline void resize_file(int file, std::uint64_t size_bytes, const std::filesystem::path& path) {
    require_writable_size(size_bytes, 0, "resize", path);
    if (::ftruncate(file, static_cast<off_t>(size_bytes)) != 0) fail_system("resize", errno, path);
}

inline void sync_file(int file, const std::filesystem::path& path) {
    int synced = 0;
    do synced = ::fsync(file);
    while (synced != 0 && errno == EINTR);
    if (synced != 0) fail_system("sync", errno, path);
}

/// Renames a file unless the name is taken: at once, so that nothing which comes into being meanwhile is lost.
/// @throws error errc::io
inline void rename_to_free_name(const std::filesystem::path& from, const std::filesystem::path& to) {
#if defined(__linux__)
    if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return;
#elif defined(__APPLE__)
    if (::renamex_np(from.c_str(), to.c_str(), RENAME_EXCL) == 0) return;
#else
    errno = ENOSYS;
#endif
    if (errno != ENOSYS && errno != EINVAL && errno != ENOTSUP) fail_system("rename", errno, from);
    // A file system that knows no such call mostly knows a second name, which never replaces either.
    if (::link(from.c_str(), to.c_str()) == 0) {
        ::unlink(from.c_str());
        return;
    }
    const bool linked = errno == EEXIST;
    struct stat taken {};
    struct stat own {};
    if (::lstat(to.c_str(), &taken) == 0) {
        const bool same = linked && ::lstat(from.c_str(), &own) == 0 && own.st_ino == taken.st_ino &&
                          own.st_dev == taken.st_dev;  // an earlier run ended between the two steps
        if (!same) fail_system("rename", EEXIST, from);
        ::unlink(from.c_str());
        return;
    }
    if (::rename(from.c_str(), to.c_str()) != 0) fail_system("rename", errno, from);
}

#endif

}  // namespace larql::detail

#endif
