// SPDX-License-Identifier: Apache-2.0
#include <larql/detail/concat.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

using larql::detail::concat;

TEST_CASE("concat: texts, characters and numbers of every kind, one after the other") {
    CHECK(concat({}).empty());
    const std::string text("a\0b", 3);
    CHECK(concat({text, std::string_view("c d").substr(1), "e", 'f', std::string("g")}) == text + " defg");
    CHECK(concat({std::uint8_t{7}, ' ', std::int8_t{-7}, ' ', 0U, ' ', -1L}) == "7 -7 0 -1");
    CHECK(concat({std::numeric_limits<std::uint64_t>::max()}) == "18446744073709551615");
    CHECK(concat({std::numeric_limits<std::int64_t>::min()}) == "-9223372036854775808");
    CHECK(concat({2.5, " ", 1.5F}) == "2.500000 1.500000");
}
