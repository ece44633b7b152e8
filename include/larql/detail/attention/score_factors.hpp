// SPDX-License-Identifier: Apache-2.0
#ifndef LARQL_DETAIL_ATTENTION_SCORE_FACTORS_HPP
#define LARQL_DETAIL_ATTENTION_SCORE_FACTORS_HPP

#include <larql/error.hpp>

#include <cmath>
#include <cstdio>
#include <limits>
#include <string>

namespace larql::detail {

/// Refuses a scale and a cap of scores that T does not hold: all scores would be infinite, or not a number.
template <class T>
void check_score_factors(double scale, double softcap) {
    // Kernels count scores in powers of two, which takes a factor of log2(e).
    constexpr double most = static_cast<double>(std::numeric_limits<T>::max()) / 2;
    constexpr double least = static_cast<double>(std::numeric_limits<T>::min());
    const auto refuse = [](const char* subject, double value, const std::string& expected) {
        char text[32];
        std::snprintf(text, sizeof text, "%g", value);
        fail(errc::bad_value, std::string("is ") + text + ", expected " + expected, {.subject = subject});
    };
    if (!(std::abs(scale) <= most)) refuse("scale", scale, "a number well within the range of the arithmetic");
    if (softcap == 0) return;
    if (!(softcap >= least && softcap <= most))
        refuse("softcap", softcap, "0 or a positive number well within the range of the arithmetic");
    if (!(std::abs(scale / softcap) <= most)) refuse("softcap", softcap, "a number that the scale can be divided by");
}

}  // namespace larql::detail

#endif
