// SPDX-License-Identifier: Apache-2.0
//
// A file that appears under its name complete or not at all: written beside the target, synced, checked, renamed.
#ifndef LARQL_DETAIL_IO_OUTPUT_FILE_HPP
#define LARQL_DETAIL_IO_OUTPUT_FILE_HPP

#include <larql/detail/io/file_writing.hpp>
#include <larql/detail/io/input_file.hpp>
#include <larql/error.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#if !defined(_WIN32)
#include <sys/file.h>
#endif

namespace larql {

/// How a writer treats what is already on the disk.
struct output_options {
    bool replace = false;  ///< replace an existing regular file; it stays whole until the new one is complete
    std::vector<std::filesystem::path> inputs{};  ///< files being read; the output must be none of them, by any name
};

namespace detail {

/// Identity of what a path leads to, or nothing if it cannot be opened as a file.
inline std::optional<file_identity> find_identity(const std::filesystem::path& path) {
    try {
        return input_file::open(path).identity();
    } catch (const error&) {
        return std::nullopt;
    }
}

/// Refuses an output that is one of the inputs, through whatever links.
inline void refuse_input_as_output(const std::filesystem::path& output,
                                   const std::vector<std::filesystem::path>& inputs) {
    const auto existing = find_identity(output);
    if (!existing) return;
    for (const std::filesystem::path& input : inputs) {
        const auto other = find_identity(input);
        if (other && existing->same_file(*other))
            fail(errc::already_exists, "the output is the same file as the input " + path_text(input),
                 {.file = path_text(output)});
    }
}

/// True if the name is taken, even by a link that leads nowhere.
inline bool name_taken(const std::filesystem::path& path) {
    std::error_code ignored;
    return std::filesystem::exists(std::filesystem::symlink_status(path, ignored));
}

/// The file being written. Until `publish` the target is untouched; a destructor without it removes the temporary file.
/// The temporary's name follows from the target's, so that a rerun takes over what a killed process left behind; a lock
/// tells a dead writer's from a living one's.
class output_file {
public:
    /// @throws error already_exists, io, not_a_file or bad_value; nothing is left behind
    output_file(std::filesystem::path target, const output_options& options)
        : m_target(std::move(target)), m_temporary(m_target), m_replace(options.replace) {
        refuse_nul_in_path(m_target);
        if (!m_target.has_filename())
            fail(errc::bad_value, "expected the name of a file to write, got a folder", {.file = path_text(m_target)});
        m_temporary += ".larql-part";
        refuse_input_as_output(m_target, options.inputs);
        refuse_input_as_output(m_temporary, options.inputs);
        check_target();
        create();
    }
    output_file(const output_file&) = delete;
    output_file& operator=(const output_file&) = delete;
    ~output_file() { discard(); }

    [[nodiscard]] const std::filesystem::path& target() const noexcept { return m_target; }
    [[nodiscard]] const std::filesystem::path& temporary() const noexcept { return m_temporary; }

    /// Puts bytes at a position, by any order. Small pieces in sequence are gathered.
    void write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
        if (offset != m_buffer_offset + m_buffer.size() || bytes.size() > buffer_bytes - m_buffer.size()) flush();
        if (bytes.size() >= buffer_bytes) return put(offset, bytes);
        if (m_buffer.empty()) m_buffer_offset = offset;
        m_buffer.insert(m_buffer.end(), bytes.begin(), bytes.end());
    }

    /// Sets the size, makes everything durable, and closes. What was never written reads as zero.
    void finish(std::uint64_t size_bytes) {
        flush();
        guard([&] { sync_and_close(size_bytes); });
    }

    /// Gives the finished file its name, at once and durably.
    void publish() {
        guard([&] {
            check_target();
            rename();
        });
        release();
    }

    /// Removes the temporary file, if there still is one.
    void discard() noexcept;

private:
    static constexpr std::size_t buffer_bytes = std::size_t{1} << 20;

    // An error leaves no temporary behind.
    template <class Work>
    void guard(const Work& work) {
        try {
            work();
        } catch (...) {
            discard();
            throw;
        }
    }

    void check_target() const {
        std::error_code ignored;
        if (std::filesystem::is_directory(m_target, ignored))
            fail(errc::already_exists, "expected a file to write, got a folder of this name",
                 {.file = path_text(m_target)});
        if (!name_taken(m_target)) return;
        if (!m_replace)
            fail(errc::already_exists, "the output exists, and replacing it was not asked for",
                 {.file = path_text(m_target)});
        // A link would lead elsewhere, and a device or pipe is not what a file replaces.
        if (!std::filesystem::is_regular_file(std::filesystem::symlink_status(m_target, ignored)))
            fail(errc::not_a_file, "expected a regular file to replace, got something else",
                 {.file = path_text(m_target)});
    }

    void flush() {
        if (m_buffer.empty()) return;
        put(m_buffer_offset, m_buffer);
        m_buffer.clear();
    }

    void put(std::uint64_t offset, std::span<const std::byte> bytes) {
        guard([&] { write_all(offset, bytes); });
    }

    void create();
    void write_all(std::uint64_t offset, std::span<const std::byte> bytes);
    void sync_and_close(std::uint64_t size_bytes);
    void rename();
    void release() noexcept;

    std::filesystem::path m_target;
    std::filesystem::path m_temporary;
    bool m_replace;
    bool m_owns_temporary = false;
    std::vector<std::byte> m_buffer{};
    std::uint64_t m_buffer_offset = 0;
#if defined(_WIN32)
    HANDLE m_handle = INVALID_HANDLE_VALUE;
#else
    int m_descriptor = -1;
    int m_lock = -1;  // the same open file: holds the lock until after the rename
#endif
};

#if defined(_WIN32)

inline void output_file::create() {
    m_handle = ::CreateFileW(m_temporary.c_str(), GENERIC_READ | GENERIC_WRITE, 0, nullptr, CREATE_ALWAYS,
                             FILE_ATTRIBUTE_NORMAL, nullptr);  // no sharing: a living writer's file cannot be opened
    if (m_handle == INVALID_HANDLE_VALUE) fail_system("create", static_cast<int>(::GetLastError()), m_temporary);
    m_owns_temporary = true;
}

inline void output_file::write_all(std::uint64_t offset, std::span<const std::byte> bytes) {
    write_fully(m_handle, offset, bytes, m_temporary);
}

inline void output_file::sync_and_close(std::uint64_t size_bytes) {
    resize_file(m_handle, size_bytes, m_temporary);
    sync_file(m_handle, m_temporary);
    const BOOL closed = ::CloseHandle(std::exchange(m_handle, INVALID_HANDLE_VALUE));
    if (closed == 0) fail_system("close", static_cast<int>(::GetLastError()), m_temporary);
}

inline void output_file::rename() {
    const DWORD how = MOVEFILE_WRITE_THROUGH | (m_replace ? MOVEFILE_REPLACE_EXISTING : 0);
    if (::MoveFileExW(m_temporary.c_str(), m_target.c_str(), how) == 0)
        fail_system("rename", static_cast<int>(::GetLastError()), m_temporary);
    m_owns_temporary = false;
}

inline void output_file::release() noexcept {}

inline void output_file::discard() noexcept {
    m_buffer.clear();
    if (m_handle != INVALID_HANDLE_VALUE) ::CloseHandle(std::exchange(m_handle, INVALID_HANDLE_VALUE));
    if (std::exchange(m_owns_temporary, false)) ::DeleteFileW(m_temporary.c_str());
}

#else

inline void output_file::create() {
    constexpr int how = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;
    for (int attempt = 0;; ++attempt) {
        m_descriptor = ::open(m_temporary.c_str(), how);
        const bool fresh = m_descriptor < 0 && errno == ENOENT;
        if (fresh) m_descriptor = ::open(m_temporary.c_str(), how | O_CREAT | O_EXCL, 0666);
        if (m_descriptor < 0 && errno == EEXIST && attempt < 100) continue;
        if (m_descriptor < 0) fail_system("create", errno, m_temporary);
        struct stat opened {};
        struct stat named {};
        const bool examined = ::fstat(m_descriptor, &opened) == 0;
        const bool regular = examined && S_ISREG(opened.st_mode) && opened.st_nlink <= 1;
        const bool busy = regular && ::flock(m_descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
        // Its last owner may have renamed or removed it between the opening and the locking.
        const bool same = regular && !busy && ::lstat(m_temporary.c_str(), &named) == 0 &&
                          named.st_ino == opened.st_ino && named.st_dev == opened.st_dev;
        // What another user made, or may write, would remain theirs to change under the final name.
        const bool own = fresh || (opened.st_uid == ::geteuid() && (opened.st_mode & (S_IWGRP | S_IWOTH)) == 0);
        if (same && own) break;
        ::close(std::exchange(m_descriptor, -1));
        if (!regular)
            fail(errc::not_a_file, "expected to create a file of its own, got something else of this name",
                 {.file = path_text(m_temporary)});
        if (busy || attempt > 100)
            fail(errc::io, "cannot create: another process is writing this file", {.file = path_text(m_temporary)});
        if (same && ::unlink(m_temporary.c_str()) != 0 && errno != ENOENT) fail_system("replace", errno, m_temporary);
    }
    m_owns_temporary = true;
    guard([&] {
        if (::ftruncate(m_descriptor, 0) != 0) fail_system("empty", errno, m_temporary);
        // What takes a file's place is no more readable than that was.
        struct stat replaced {};
        if (m_replace && ::lstat(m_target.c_str(), &replaced) == 0 && S_ISREG(replaced.st_mode) &&
            ::fchmod(m_descriptor, replaced.st_mode & 0777) != 0)
            fail_system("set the permissions of", errno, m_temporary);
    });
}

inline void output_file::write_all(std::uint64_t offset, std::span<const std::byte> bytes) {
    write_fully(m_descriptor, offset, bytes, m_temporary);
}

inline void output_file::sync_and_close(std::uint64_t size_bytes) {
    resize_file(m_descriptor, size_bytes, m_temporary);
    sync_file(m_descriptor, m_temporary);
    m_lock = ::dup(m_descriptor);  // closing reports errors of delayed writes; the lock must outlive it
    if (::close(std::exchange(m_descriptor, -1)) != 0 && errno != EINTR) fail_system("close", errno, m_temporary);
}

inline void output_file::rename() {
    const bool replaced = name_taken(m_target);
    if (!replaced)
        rename_to_free_name(m_temporary, m_target);
    else if (::rename(m_temporary.c_str(), m_target.c_str()) != 0)
        fail_system("rename", errno, m_temporary);
    m_owns_temporary = false;
    const std::filesystem::path folder = m_target.has_parent_path() ? m_target.parent_path() : ".";
    const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return;  // a folder that may be written but not read
    const int code = ::fsync(descriptor) == 0 ? 0 : errno;
    ::close(descriptor);
    if (code == 0 || code == EINVAL || code == ENOTSUP) return;  // file systems that sync no folders
    if (!replaced) ::unlink(m_target.c_str());
    fail_system("sync the folder of", code, m_target);
}

inline void output_file::release() noexcept {
    if (m_lock >= 0) ::close(std::exchange(m_lock, -1));
}

inline void output_file::discard() noexcept {
    m_buffer.clear();
    if (std::exchange(m_owns_temporary, false)) ::unlink(m_temporary.c_str());  // before the lock goes
    if (m_descriptor >= 0) ::close(std::exchange(m_descriptor, -1));
    release();
}

#endif

}  // namespace detail
}  // namespace larql

#endif
