// SPDX-License-Identifier: Apache-2.0
//
// Long work: how far it is, on a terminal as a bar and elsewhere as a line now and then, and how it is interrupted.
#ifndef LARQL_EXAMPLES_SUPPORT_PROGRESS_HPP
#define LARQL_EXAMPLES_SUPPORT_PROGRESS_HPP

#include "program.hpp"

#include <larql/error.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>

namespace larql::program {

/// "1.5 GB": decimal units, as disks are sold and shard sizes given.
inline std::string size_text(std::uint64_t bytes) {
    constexpr std::array units = {"bytes", "kB", "MB", "GB", "TB", "PB", "EB"};
    auto value = static_cast<double>(bytes);
    std::size_t unit = 0;
    for (; value >= 1000.0 && unit + 1 < units.size(); ++unit) value /= 1000.0;
    std::array<char, 48> text{};
    std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return text.data();
}

/// "1:05:09", "0:42".
inline std::string time_text(double seconds) {
    const auto whole = static_cast<std::uint64_t>(std::clamp(seconds, 0.0, 3.6e9) + 0.5);
    std::array<char, 48> text{};
    if (whole >= 3600)
        std::snprintf(text.data(), text.size(), "%llu:%02llu:%02llu", static_cast<unsigned long long>(whole / 3600),
                      static_cast<unsigned long long>(whole / 60 % 60), static_cast<unsigned long long>(whole % 60));
    else
        std::snprintf(text.data(), text.size(), "%llu:%02llu", static_cast<unsigned long long>(whole / 60),
                      static_cast<unsigned long long>(whole % 60));
    return text.data();
}

/// Progress in bytes on standard error: a bar that is drawn anew on a terminal, a line every ten seconds elsewhere.
class progress_line {
public:
    progress_line(std::string label, bool quiet) : m_label(std::move(label)), m_quiet(quiet) {}
    progress_line(const progress_line&) = delete;
    progress_line& operator=(const progress_line&) = delete;
    ~progress_line() { finish(); }

    void show(std::uint64_t done, std::uint64_t total) {
        if (m_quiet || total == 0) return;
        const clock::time_point now = clock::now();
        const auto interval = m_terminal ? std::chrono::milliseconds(100) : std::chrono::milliseconds(10'000);
        if (m_first == clock::time_point{}) {
            m_first = m_last = now;
            m_done_before = done;
            if (!m_terminal) return;
        } else if (now - m_last < interval && !(m_terminal && done == total)) {
            return;
        }
        m_last = now;
        const double seconds = std::chrono::duration<double>(now - m_first).count();
        const double rate = seconds > 0.0 ? static_cast<double>(done - m_done_before) / seconds : 0.0;
        std::string text = m_label + " " + bar(done, total) + size_text(done) + " of " + size_text(total);
        if (rate > 0.0)
            text += ", " + size_text(static_cast<std::uint64_t>(rate)) + "/s, " +
                    time_text(static_cast<double>(total - std::min(done, total)) / rate) + " left";
        std::fprintf(stderr, m_terminal ? "\r%s\033[K" : "%s\n", text.c_str());
        m_drawn = m_terminal;
    }
    /// Clears the bar.
    void finish() {
        if (std::exchange(m_drawn, false)) std::fputs("\r\033[K", stderr);
    }

private:
    using clock = std::chrono::steady_clock;

    [[nodiscard]] std::string bar(std::uint64_t done, std::uint64_t total) const {
        if (!m_terminal) return "";
        constexpr std::size_t width = 30;
        const double share = static_cast<double>(std::min(done, total)) / static_cast<double>(total);
        std::string text(static_cast<std::size_t>(share * width), '#');
        text.resize(width, '.');
        return "[" + text + "] ";
    }

    std::string m_label;
    bool m_quiet;
    bool m_terminal = stderr_is_terminal();
    bool m_drawn = false;
    std::uint64_t m_done_before = 0;
    clock::time_point m_first{}, m_last{};
};

inline volatile std::sig_atomic_t asked_to_stop = 0;

/// Lets SIGINT and SIGTERM end the work at its next step, by `stop_if_asked`; a second one ends the process.
inline void catch_interrupts() {
    for (const int number : {SIGINT, SIGTERM})
        std::signal(number, [](int which) {
            asked_to_stop = 1;
            std::signal(which, SIG_DFL);
        });
}
/// @throws error if a signal came
inline void stop_if_asked() {
    if (asked_to_stop != 0)
        throw error(errc::io, "interrupted; --resume goes on with what is finished, if anything is");
}

}  // namespace larql::program

#endif
