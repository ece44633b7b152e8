// SPDX-License-Identifier: Apache-2.0
//
// nlohmann's parser, to hold larql's reader of JSON against.
#ifndef LARQL_TESTS_SUPPORT_JSON_PEER_HPP
#define LARQL_TESTS_SUPPORT_JSON_PEER_HPP

#include <larql/detail/io/json.hpp>
#include <larql/error.hpp>

#include <nlohmann/json.hpp>

#include <string_view>

namespace larql::testing {

/// What reading a text both ways shows.
enum class json_agreement { differs, both_refuse, same_value, not_comparable };

/// Not comparable are keys that occur twice, which the peer lets through, nesting that larql does not keep, and NUL,
/// which the peer takes for the end of the text.
inline json_agreement compare_json(std::string_view text) {
    if (text.find('\0') != std::string_view::npos) return json_agreement::not_comparable;
    const nlohmann::json peer = nlohmann::json::parse(text, nullptr, false);
    try {
        const nlohmann::json ours = detail::parse_json(text, {.file = "x", .offset = 0, .subject = {}});
        return !peer.is_discarded() && ours == peer && ours.dump() == peer.dump() ? json_agreement::same_value
                                                                                  : json_agreement::differs;
    } catch (const error& e) {
        if (e.code() == errc::duplicate_name || e.code() == errc::limit_exceeded) return json_agreement::not_comparable;
        return peer.is_discarded() ? json_agreement::both_refuse : json_agreement::differs;
    }
}

}  // namespace larql::testing

#endif
