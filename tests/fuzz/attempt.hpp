// SPDX-License-Identifier: Apache-2.0
//
// What every target asks of the library, whatever the input.
#ifndef LARQL_TESTS_FUZZ_ATTEMPT_HPP
#define LARQL_TESTS_FUZZ_ATTEMPT_HPP

#include <larql/error.hpp>
#include <larql/printable.hpp>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace larql::testing {

/// Ends the program as a finding unless `holds`.
inline void require(bool holds, const std::string& what) {
    if (holds) return;
    std::fprintf(stderr, "FINDING: %s\n", what.c_str());
    std::abort();
}

/// Texts of errors end up in terminals and logs: one line, no control characters, a bounded length.
inline void require_error_text(const std::string& text) {
    constexpr std::size_t longest = 32768;  // some hundred problems of a configuration, each on its own part of a line
    require(printable(text) == text, "an error's text holds characters that a terminal obeys: " + printable(text));
    require(text.size() <= longest, "an error's text of " + std::to_string(text.size()) + " bytes");
}

/// Calls, and takes a larql::error for an answer; anything else that is thrown ends the program.
/// @return whether nothing was thrown
template <class Call>
bool attempt(const Call& call) {
    try {
        call();
        return true;
    } catch (const error& e) {
        require_error_text(e.what());
        return false;
    }
}

}  // namespace larql::testing

#endif
