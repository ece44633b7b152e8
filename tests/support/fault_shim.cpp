// SPDX-License-Identifier: Apache-2.0
//
// Loaded before a program (LD_PRELOAD), makes one of its calls for files of a folder go wrong.
//
//   LARQL_FAULT_FOLDER=FOLDER             absolute; calls for other files are none of these
//   LARQL_FAULT=CALL:NUMBER:WHAT          CALL: open, pread, pwrite, ftruncate, fsync, close, rename, or any of those
//                                         that read ("read") or write ("write"); NUMBER from 1; WHAT: an error number,
//                                         "short" (half of the bytes), "kill" (before the call), or "cut" or "swap"
//   LARQL_FAULT_FILE=FILE                 for "cut" (to no bytes) and "swap" (FILE.other takes its name), before the
//   call LARQL_FAULT_MARK=FILE                 made when it happens
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

struct plan {
    std::string folder, call, what, file, mark;
    int number = -1;
};

std::string variable(const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
}

const plan& planned() {
    static const plan made = [] {
        plan p;
        p.folder = variable("LARQL_FAULT_FOLDER");
        p.file = variable("LARQL_FAULT_FILE");
        p.mark = variable("LARQL_FAULT_MARK");
        const std::string fault = variable("LARQL_FAULT");
        const std::size_t first = fault.find(':'), second = fault.find(':', first + 1);
        if (second == std::string::npos) return p;
        p.call = fault.substr(0, first);
        p.number = std::atoi(fault.c_str() + first + 1);
        p.what = fault.substr(second + 1);
        return p;
    }();
    return made;
}

bool within(const std::string& path) {
    if (planned().folder.empty()) return false;
    char here[PATH_MAX] = {};
    const bool relative = !path.starts_with('/') && ::getcwd(here, sizeof here) != nullptr;
    return (relative ? std::string(here) + "/" + path : path).starts_with(planned().folder + "/");
}
bool within(int file) {
    char path[PATH_MAX + 1] = {};
    const std::string link = "/proc/self/fd/" + std::to_string(file);
    return ::readlink(link.c_str(), path, PATH_MAX) > 0 && within(std::string(path));
}

template <class F>
F real(const char* name) {
    return reinterpret_cast<F>(::dlsym(RTLD_NEXT, name));
}

std::atomic<int> count = 0;

/// Counts a call; at the planned one, does what is to be done before it.
/// @return  whether the call is to fail or come short
template <class File>
bool comes(const char* call, bool reads, File file) {
    const plan& p = planned();
    const bool meant = p.call == call || p.call == (reads ? "read" : "write");
    if (p.number < 0 || !meant || !within(file) || ++count != p.number) return false;
    const int mark = real<int (*)(const char*, int, ...)>("open")(p.mark.c_str(), O_CREAT | O_WRONLY, 0600);
    if (mark >= 0) real<int (*)(int)>("close")(mark);
    if (p.what == "kill") ::raise(SIGKILL);
    if (p.what == "cut") return ::truncate(p.file.c_str(), 0) > 0;
    if (p.what == "swap")
        return real<int (*)(const char*, const char*)>("rename")((p.file + ".other").c_str(), p.file.c_str()) > 0;
    errno = std::atoi(p.what.c_str());
    return true;
}
bool comes_short() { return planned().what == "short"; }

}  // namespace

extern "C" {

int open(const char* path, int how, ...) {
    mode_t mode = 0;
    if ((how & O_CREAT) != 0) {
        va_list rest;
        va_start(rest, how);
        mode = va_arg(rest, mode_t);
        va_end(rest);
    }
    if (comes("open", (how & O_ACCMODE) == O_RDONLY, path)) return -1;
    return real<int (*)(const char*, int, ...)>("open")(path, how, mode);
}

ssize_t pread(int file, void* data, size_t size, off_t offset) {
    if (comes("pread", true, file)) {
        if (!comes_short()) return -1;
        size = (size + 1) / 2;
    }
    return real<ssize_t (*)(int, void*, size_t, off_t)>("pread")(file, data, size, offset);
}

ssize_t pwrite(int file, const void* data, size_t size, off_t offset) {
    if (comes("pwrite", false, file)) {
        if (!comes_short()) return -1;
        size = (size + 1) / 2;
    }
    return real<ssize_t (*)(int, const void*, size_t, off_t)>("pwrite")(file, data, size, offset);
}

int ftruncate(int file, off_t size) noexcept {
    if (comes("ftruncate", false, file)) return -1;
    return real<int (*)(int, off_t)>("ftruncate")(file, size);
}

int fsync(int file) {
    if (comes("fsync", false, file)) return -1;
    return real<int (*)(int)>("fsync")(file);
}

int close(int file) {
    const bool fails = comes("close", true, file);
    const int code = errno;
    const int result = real<int (*)(int)>("close")(file);
    if (!fails) return result;
    errno = code;
    return -1;
}

int rename(const char* from, const char* to) noexcept {
    if (comes("rename", false, from)) return -1;
    return real<int (*)(const char*, const char*)>("rename")(from, to);
}

int renameat2(int at, const char* from, int to_at, const char* to, unsigned how) noexcept {
    if (comes("rename", false, from)) return -1;
    return real<int (*)(int, const char*, int, const char*, unsigned)>("renameat2")(at, from, to_at, to, how);
}

}  // extern "C"
