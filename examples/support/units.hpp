// SPDX-License-Identifier: Apache-2.0
//
// Counts of bytes and operations as people read them.
#ifndef LARQL_EXAMPLES_SUPPORT_UNITS_HPP
#define LARQL_EXAMPLES_SUPPORT_UNITS_HPP

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace larql::program {

inline std::string with_unit(double value, double step, const std::vector<std::string>& units) {
    std::size_t unit = 0;
    while (value >= step && unit + 1 < units.size()) {
        value /= step;
        ++unit;
    }
    char text[32];
    std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.2f %s", value, units[unit].c_str());
    return text;
}
/// UINT64_MAX stands for more than 64 bits hold.
inline std::string byte_text(std::uint64_t n) {
    if (n == UINT64_MAX) return "over 16 EiB";
    return with_unit(static_cast<double>(n), 1024.0, {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"});
}
inline std::string flop_text(std::uint64_t n) {
    if (n == UINT64_MAX) return "over 18 E";
    return with_unit(static_cast<double>(n), 1000.0, {"", "k", "M", "G", "T", "P", "E"});
}

}  // namespace larql::program

#endif
