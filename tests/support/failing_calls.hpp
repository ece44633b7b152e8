// SPDX-License-Identifier: Apache-2.0
//
// Makes system calls fail, come short or be preceded by something, by defining them in the test program (Linux only).
// Include it in one source file of a program.
#ifndef LARQL_TESTS_SUPPORT_FAILING_CALLS_HPP
#define LARQL_TESTS_SUPPORT_FAILING_CALLS_HPP

#if defined(__linux__)
#define LARQL_FAILING_CALLS 1

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstddef>
#include <functional>
#include <string_view>
#include <utility>

namespace larql::testing {

/// In place of an error code: a call that reads or writes does so for half of the bytes.
inline constexpr int comes_short = -1;

/// The call of this name fails with `code` once `after` calls have succeeded, `times` times. Ends with the object.
class failing_call {
public:
    failing_call(std::string_view name, int code, int after = 0, int times = INT_MAX) {
        state() = {name, code, after, times};
    }
    failing_call(const failing_call&) = delete;
    failing_call& operator=(const failing_call&) = delete;
    ~failing_call() { state() = {}; }

    /// Whether any call has failed.
    [[nodiscard]] static bool happened() { return state().count != 0; }

    static bool fails(std::string_view name) { return state().code != comes_short && hits(name); }
    static std::size_t size_of(std::string_view name, std::size_t wanted) {
        return wanted > 1 && state().code == comes_short && hits(name) ? wanted / 2 : wanted;
    }

private:
    static bool hits(std::string_view name) {
        if (state().name != name || state().after-- > 0 || state().times-- <= 0) return false;
        ++state().count;
        if (state().code != comes_short) errno = state().code;
        return true;
    }

    struct wanted {
        std::string_view name{};
        int code = 0;
        int after = 0;
        int times = 0;
        int count = 0;
    };
    static wanted& state() {
        static wanted w;
        return w;
    }
};

/// Before the call number `number`, from 0, of those that open, read or close files, something is done.
class before_call {
public:
    before_call(int number, std::function<void()> action) { state() = {number, std::move(action), 0}; }
    before_call(const before_call&) = delete;
    before_call& operator=(const before_call&) = delete;
    ~before_call() { state() = {}; }

    [[nodiscard]] static bool happened() { return state().count > state().number; }

    static void comes() {
        if (!state().action || state().count > state().number || state().count++ < state().number) return;
        state().action();
    }

private:
    struct wanted {
        int number = 0;
        std::function<void()> action{};
        int count = 0;
    };
    static wanted& state() {
        static wanted w;
        return w;
    }
};

}  // namespace larql::testing

extern "C" inline __attribute__((used)) int open(const char* path, int how, ...) {
    larql::testing::before_call::comes();
    if (larql::testing::failing_call::fails("open")) return -1;
    mode_t mode = 0;
    if ((how & O_CREAT) != 0) {
        va_list rest;
        va_start(rest, how);
        mode = va_arg(rest, mode_t);
        va_end(rest);
    }
    return static_cast<int>(::syscall(SYS_openat, AT_FDCWD, path, how, mode));
}
extern "C" inline __attribute__((used)) ssize_t pread(int file, void* data, size_t size, off_t offset) {
    larql::testing::before_call::comes();
    if (larql::testing::failing_call::fails("pread")) return -1;
    size = larql::testing::failing_call::size_of("pread", size);
    return static_cast<ssize_t>(::syscall(SYS_pread64, file, data, size, offset));
}
extern "C" inline __attribute__((used)) ssize_t pwrite(int file, const void* data, size_t size, off_t offset) {
    if (larql::testing::failing_call::fails("pwrite")) return -1;
    size = larql::testing::failing_call::size_of("pwrite", size);
    return static_cast<ssize_t>(::syscall(SYS_pwrite64, file, data, size, offset));
}
extern "C" inline __attribute__((used)) int fsync(int file) {
    if (larql::testing::failing_call::fails("fsync")) return -1;
    return static_cast<int>(::syscall(SYS_fsync, file));
}
extern "C" inline __attribute__((used)) int close(int file) {
    larql::testing::before_call::comes();
    const bool fails = larql::testing::failing_call::fails("close");
    const int code = errno;
    const auto result = static_cast<int>(::syscall(SYS_close, file));
    if (!fails) return result;
    errno = code;
    return -1;
}
extern "C" inline __attribute__((used)) int rename(const char* from, const char* to) noexcept {
    if (larql::testing::failing_call::fails("rename")) return -1;
    return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}
extern "C" inline __attribute__((used)) int renameat2(int at, const char* from, int to_at, const char* to,
                                                      unsigned how) noexcept {
    if (larql::testing::failing_call::fails("rename")) return -1;
    return static_cast<int>(::syscall(SYS_renameat2, at, from, to_at, to, how));
}
extern "C" inline __attribute__((used)) int ftruncate(int file, off_t size) noexcept {
    if (larql::testing::failing_call::fails("ftruncate")) return -1;
    return static_cast<int>(::syscall(SYS_ftruncate, file, size));
}

#else
#define LARQL_FAILING_CALLS 0
#endif

#endif
