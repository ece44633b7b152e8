// SPDX-License-Identifier: Apache-2.0
//
// Makes system calls fail on demand, by defining them in the test program (Linux only). Include it in one source file
// of a program.
#ifndef LARQL_TESTS_SUPPORT_FAILING_CALLS_HPP
#define LARQL_TESTS_SUPPORT_FAILING_CALLS_HPP

#if defined(__linux__)
#define LARQL_FAILING_CALLS 1

#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstddef>
#include <string_view>

namespace larql::testing {

/// The call of this name fails with `code` once `after` calls have succeeded, `times` times. Ends with the object.
class failing_call {
public:
    failing_call(std::string_view name, int code, int after = 0, int times = INT_MAX) {
        state() = {name, code, after, times};
    }
    failing_call(const failing_call&) = delete;
    failing_call& operator=(const failing_call&) = delete;
    ~failing_call() { state() = {}; }

    static bool fails(std::string_view name) {
        if (state().name != name || state().after-- > 0 || state().times-- <= 0) return false;
        errno = state().code;
        return true;
    }

private:
    struct wanted {
        std::string_view name{};
        int code = 0;
        int after = 0;
        int times = 0;
    };
    static wanted& state() {
        static wanted w;
        return w;
    }
};

}  // namespace larql::testing

extern "C" inline __attribute__((used)) ssize_t pwrite(int file, const void* data, size_t size, off_t offset) {
    if (larql::testing::failing_call::fails("pwrite")) return -1;
    return static_cast<ssize_t>(::syscall(SYS_pwrite64, file, data, size, offset));
}
extern "C" inline __attribute__((used)) int fsync(int file) {
    if (larql::testing::failing_call::fails("fsync")) return -1;
    return static_cast<int>(::syscall(SYS_fsync, file));
}
extern "C" inline __attribute__((used)) int close(int file) {
    const bool fails = larql::testing::failing_call::fails("close");
    const int code = errno;
    const auto result = static_cast<int>(::syscall(SYS_close, file));
    if (!fails) return result;
    errno = code;
    return -1;
}
extern "C" inline __attribute__((used)) int rename(const char* from, const char* to) noexcept {
    if (larql::testing::failing_call::fails("rename")) return -1;
    return static_cast<int>(::syscall(SYS_renameat2, -100, from, -100, to, 0));
}
extern "C" inline __attribute__((used)) int ftruncate(int file, off_t size) noexcept {
    if (larql::testing::failing_call::fails("ftruncate")) return -1;
    return static_cast<int>(::syscall(SYS_ftruncate, file, size));
}

#else
#define LARQL_FAILING_CALLS 0
#endif

#endif
