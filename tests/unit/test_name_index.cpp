// SPDX-License-Identifier: Apache-2.0
#include <larql/detail/io/name_index.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

using larql::detail::name_index;
using names = std::vector<std::string_view>;
using twice = std::optional<std::pair<std::size_t, std::size_t>>;

namespace {

twice build(const names& list) {
    name_index index;
    return index.build(list.size(), [&](std::size_t i) { return list[i]; });
}

// Three names of one hash, computed by inverting the MurmurHash64A of libstdc++; elsewhere they are any names.
constexpr std::string_view colliding[] = {
    "tensor_0"
    "\x2e\x77\x65\x69\x67\x68\x74\x2e",
    "tensor_1"
    "\x1c\x98\x46\x49\x74\x6a\x13\x55",
    "tensor_2"
    "\x22\x34\x7c\x1d\xe8\xae\x61\x3f"};

}  // namespace

TEST_CASE("name_index: finds each name's position, and no other name") {
    const names list{"b", "", "a", "c"};
    const auto name_of = [&](std::size_t i) { return list[i]; };
    name_index index;
    CHECK(index.find("b", name_of) == std::nullopt);
    CHECK(index.build(list.size(), name_of) == std::nullopt);
    for (std::size_t i = 0; i < list.size(); ++i) CHECK(index.find(list[i], name_of) == i);
    for (const std::string_view other : {"d", "aa", "B", " "}) CHECK(index.find(other, name_of) == std::nullopt);
    CHECK(index.build(1, name_of) == std::nullopt);  // forgets what it held
    CHECK(index.find("a", name_of) == std::nullopt);
}

TEST_CASE("name_index: gives the first name that occurs again, with its first two positions") {
    CHECK(build({}) == std::nullopt);
    CHECK(build({"a", "a"}) == twice({0, 1}));
    CHECK(build({"a", "b", "b", "a"}) == twice({1, 2}));
    CHECK(build({"b", "a", "a", "b"}) == twice({1, 2}));
    CHECK(build({"a", "b", "a", "a", "b"}) == twice({0, 2}));
    CHECK(build({"b", "a", "b", "b", "a"}) == twice({0, 2}));
}

TEST_CASE("name_index: tells names of the same hash apart") {
#if defined(__GLIBCXX__) && defined(__LP64__)
    for (const std::string_view name : colliding)
        CHECK(std::hash<std::string_view>{}(name) == std::hash<std::string_view>{}(colliding[0]));
#endif
    for (const names& list : {names{colliding[0], colliding[1]}, names{colliding[1], colliding[0]}}) {
        const auto name_of = [&](std::size_t i) { return list[i]; };
        name_index index;
        CHECK(index.build(list.size(), name_of) == std::nullopt);
        for (std::size_t i = 0; i < list.size(); ++i) CHECK(index.find(list[i], name_of) == i);
        CHECK(index.find(colliding[2], name_of) == std::nullopt);
        const auto others_of = [](std::size_t i) { return colliding[i + 1]; };
        CHECK(index.build(2, others_of) == std::nullopt);
        CHECK(index.find(colliding[0], others_of) == std::nullopt);
    }
    CHECK(build({colliding[0], colliding[1], colliding[2], colliding[0]}) == twice({0, 3}));
    CHECK(build({colliding[1], colliding[0], colliding[2], colliding[1]}) == twice({0, 3}));
    CHECK(build({colliding[2], colliding[1], colliding[0], colliding[2]}) == twice({0, 3}));
}
