// SPDX-License-Identifier: Apache-2.0
//
// What all larql programs share: one-line errors and exit codes, and a progress bar that only a terminal sees. What
// they print of files and arguments goes through larql::printable.
#ifndef LARQL_EXAMPLES_SUPPORT_PROGRAM_HPP
#define LARQL_EXAMPLES_SUPPORT_PROGRAM_HPP

#include <larql/amx.hpp>
#include <larql/error.hpp>
#include <larql/openblas.hpp>
#include <larql/printable.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <iostream>
#include <new>
#include <string>
#include <thread>

#if defined(_WIN32)
#include <io.h>
#else
#include <unistd.h>
#endif

namespace larql::program {

inline constexpr int exit_failure = 1;
inline constexpr int exit_usage = 2;

/// Parses the arguments and runs the program.
/// @return 0; 1 after one line on stderr if `body` threw; 2 for bad usage
template <class Body>
int run(CLI::App& app, int argc, char** argv, Body body) {
    const std::string name = app.get_name();
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& asked) {  // --help
        return app.exit(asked);
    } catch (const CLI::ParseError& wrong) {
        std::cerr << name << ": " << printable(wrong.what(), 1000) << " (--help lists the options)\n";
        return exit_usage;
    }
    try {
        body();
        std::cout.flush();
        if (!std::cout) throw error(errc::io, "cannot write to standard output");
        return 0;
    } catch (const std::bad_alloc&) {
        std::cerr << name << ": out of memory\n";
    } catch (const std::exception& e) {
        std::cerr << name << ": " << printable(e.what()) << '\n';
    }
    return exit_failure;
}

/// Lets the process compute as fast as the processor can: call it before any thread starts.
inline void use_whole_processor() {
    enable_amx();
    openblas_use_best_kernels();
}

/// As many threads as were asked for, within reason: more than these would only cost memory.
inline std::size_t thread_number(std::size_t asked) {
    const std::size_t most = std::max<std::size_t>(4 * std::thread::hardware_concurrency(), 64);
    return std::min(asked, most);
}

/// Whether standard error is a terminal.
inline bool stderr_is_terminal() {
#if defined(_WIN32)
    return _isatty(2) != 0;
#else
    return isatty(2) != 0;
#endif
}

/// A bar on standard error, drawn only on a terminal.
class progress_bar {
public:
    progress_bar(std::string label, bool quiet)
        : m_label(std::move(label)), m_visible(!quiet && stderr_is_terminal()) {}
    progress_bar(const progress_bar&) = delete;
    progress_bar& operator=(const progress_bar&) = delete;
    ~progress_bar() {
        if (m_drawn) std::fputs("\r\033[K", stderr);
    }

    void show(std::size_t done, std::size_t total) {
        if (!m_visible || total == 0) return;
        constexpr std::size_t width = 30;
        const std::size_t filled = done * width / total;
        if (m_drawn && filled == m_filled && done != total) return;
        m_filled = filled;
        m_drawn = true;
        std::string bar(filled, '#');
        bar.resize(width, '.');
        std::fprintf(stderr, "\r%s [%s] %zu/%zu", m_label.c_str(), bar.c_str(), done, total);
    }

private:
    std::string m_label;
    std::size_t m_filled = 0;
    bool m_visible;
    bool m_drawn = false;
};

}  // namespace larql::program

#endif
