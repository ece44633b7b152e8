// SPDX-License-Identifier: Apache-2.0
//
// A file that this process alone writes: made anew, or found and known to be its user's own. And what is done to names
// of a folder, durably.
#ifndef LARQL_DETAIL_IO_OWNED_FILE_HPP
#define LARQL_DETAIL_IO_OWNED_FILE_HPP

#include <larql/detail/io/file_writing.hpp>
#include <larql/detail/io/input_file.hpp>
#include <larql/error.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>
#include <utility>

#if !defined(_WIN32)
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace larql::detail {

/// A file that nobody but its user may read or write until `set_final_mode`. Closed by the destructor, without a word.
class owned_file {
public:
    enum class how : std::uint8_t {
        anew,      ///< whatever has the name is removed first, unless it is a folder
        adopt,     ///< a file of this user that nobody else may write is taken over; anything else is removed first
        existing,  ///< it must be such a file
    };

    /// @throws error errc::io, errc::not_a_file
    owned_file(std::filesystem::path path, how wanted);
    owned_file(const owned_file&) = delete;
    owned_file& operator=(const owned_file&) = delete;
    ~owned_file();

    [[nodiscard]] const std::filesystem::path& path() const noexcept { return m_path; }
    [[nodiscard]] bool adopted() const noexcept { return m_adopted; }
    [[nodiscard]] std::uint64_t size_bytes() const;
    void resize(std::uint64_t size_bytes);
    /// Puts bytes at a position; from any thread.
    void write(std::uint64_t offset, std::span<const std::byte> bytes);
    void sync();
    void close();
    /// Locks the file for this process, until it is closed.
    /// @return  false if another process holds the lock
    [[nodiscard]] bool lock();

private:
    std::filesystem::path m_path;
    bool m_adopted = false;
#if defined(_WIN32)
    HANDLE m_handle = INVALID_HANDLE_VALUE;
#else
    int m_descriptor = -1;
#endif
};

#if defined(_WIN32)

inline owned_file::owned_file(std::filesystem::path path, how wanted) : m_path(std::move(path)) {
    std::error_code ignored;
    m_adopted = wanted == how::adopt && std::filesystem::is_regular_file(m_path, ignored);
    m_handle = ::CreateFileW(m_path.c_str(), GENERIC_READ | GENERIC_WRITE, 0, nullptr,
                             m_adopted ? OPEN_EXISTING : CREATE_ALWAYS, FILE_ATTRIBUTE_NORMAL, nullptr);
    if (m_handle == INVALID_HANDLE_VALUE) fail_system("create", static_cast<int>(::GetLastError()), m_path);
}
inline owned_file::~owned_file() {
    if (m_handle != INVALID_HANDLE_VALUE) ::CloseHandle(m_handle);
}
inline std::uint64_t owned_file::size_bytes() const {
    LARGE_INTEGER size{};
    if (::GetFileSizeEx(m_handle, &size) == 0) fail_system("examine", static_cast<int>(::GetLastError()), m_path);
    return static_cast<std::uint64_t>(size.QuadPart);
}
inline void owned_file::resize(std::uint64_t size_bytes) { resize_file(m_handle, size_bytes, m_path); }
inline void owned_file::write(std::uint64_t offset, std::span<const std::byte> bytes) {
    write_fully(m_handle, offset, bytes, m_path);
}
inline void owned_file::sync() { sync_file(m_handle, m_path); }
inline void owned_file::close() {
    if (m_handle == INVALID_HANDLE_VALUE) return;
    if (::CloseHandle(std::exchange(m_handle, INVALID_HANDLE_VALUE)) == 0)
        fail_system("close", static_cast<int>(::GetLastError()), m_path);
}
inline bool owned_file::lock() { return true; }  // opened without sharing

inline void sync_folder(const std::filesystem::path&) {}
inline void set_final_mode(const std::filesystem::path&, const std::filesystem::path&) {}
inline std::uint64_t allocated_bytes(const std::filesystem::path&) { return 0; }
inline unsigned long process_number() { return ::GetCurrentProcessId(); }

#else

inline owned_file::owned_file(std::filesystem::path path, how wanted) : m_path(std::move(path)) {
    refuse_nul_in_path(m_path);
    struct stat there {};
    const bool taken = ::lstat(m_path.c_str(), &there) == 0;
    if (taken && S_ISDIR(there.st_mode))
        fail(errc::not_a_file, "expected to create a file of its own, got a folder of this name",
             {.file = path_text(m_path)});
    const bool own = taken && S_ISREG(there.st_mode) && there.st_nlink == 1 && there.st_uid == ::geteuid() &&
                     (there.st_mode & (S_IWGRP | S_IWOTH)) == 0;
    if (own && wanted != how::anew) {
        m_descriptor = ::open(m_path.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
        struct stat opened {};
        m_adopted = m_descriptor >= 0 && ::fstat(m_descriptor, &opened) == 0 && opened.st_ino == there.st_ino &&
                    opened.st_dev == there.st_dev;
        if (!m_adopted && m_descriptor >= 0) ::close(std::exchange(m_descriptor, -1));
    }
    if (!m_adopted && wanted == how::existing)
        fail(errc::io, "the file that was being written is gone, or another has its name", {.file = path_text(m_path)});
    if (!m_adopted) {
        if (taken && ::unlink(m_path.c_str()) != 0 && errno != ENOENT) fail_system("replace", errno, m_path);
        m_descriptor = ::open(m_path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);
        if (m_descriptor < 0) fail_system("create", errno, m_path);
    }
}
inline owned_file::~owned_file() {
    if (m_descriptor >= 0) ::close(m_descriptor);
}
inline std::uint64_t owned_file::size_bytes() const {
    struct stat status {};
    if (::fstat(m_descriptor, &status) != 0) fail_system("examine", errno, m_path);
    return static_cast<std::uint64_t>(status.st_size);
}
inline void owned_file::resize(std::uint64_t size_bytes) { resize_file(m_descriptor, size_bytes, m_path); }
inline void owned_file::write(std::uint64_t offset, std::span<const std::byte> bytes) {
    write_fully(m_descriptor, offset, bytes, m_path);
}
inline void owned_file::sync() { sync_file(m_descriptor, m_path); }
inline void owned_file::close() {
    if (m_descriptor < 0) return;
    if (::close(std::exchange(m_descriptor, -1)) != 0 && errno != EINTR) fail_system("close", errno, m_path);
}
inline bool owned_file::lock() { return ::flock(m_descriptor, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK; }

/// Gives a finished file the permissions of the one that it replaces, or those of any new file.
inline void set_final_mode(const std::filesystem::path& path, const std::filesystem::path& replaced) {
    struct stat old {};
    mode_t mode = 0;
    if (::lstat(replaced.c_str(), &old) == 0 && S_ISREG(old.st_mode)) {
        mode = old.st_mode & 07777;
    } else {
        mode = ::umask(077);  // there is no other way to read it
        ::umask(mode);
        mode = 0666 & ~mode;
    }
    if (::chmod(path.c_str(), mode) != 0) fail_system("set the permissions of", errno, path);
}

/// Makes the names of a folder durable, on file systems that know how.
inline void sync_folder(const std::filesystem::path& folder) {
    const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return;  // a folder that may be written but not read
    const int code = ::fsync(descriptor) == 0 ? 0 : errno;
    ::close(descriptor);
    if (code != 0 && code != EINVAL && code != ENOTSUP) fail_system("sync the folder", code, folder);
}

inline unsigned long process_number() { return static_cast<unsigned long>(::getpid()); }

/// Bytes that a file takes on the disk; 0 if there is none, or if nobody knows.
inline std::uint64_t allocated_bytes(const std::filesystem::path& path) {
    struct stat status {};
    return ::lstat(path.c_str(), &status) == 0 ? static_cast<std::uint64_t>(status.st_blocks) * 512 : 0;
}

#endif

}  // namespace larql::detail

#endif
