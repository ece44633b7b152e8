// SPDX-License-Identifier: Apache-2.0
//
// Two GGUF files held against each other.
#ifndef LARQL_TESTS_SUPPORT_GGUF_FILES_HPP
#define LARQL_TESTS_SUPPORT_GGUF_FILES_HPP

#include <larql/gguf.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <set>
#include <span>
#include <string_view>

namespace larql::testing {

/// Whether two float32 tensors are the same but for the last bits of their numbers.
inline bool same_but_last_bit(std::span<const std::byte> a, std::span<const std::byte> b) {
    if (a.size() != b.size()) return false;
    for (std::size_t at = 0; at < a.size(); at += sizeof(float)) {
        float x = 0.0F, y = 0.0F;
        std::memcpy(&x, a.data() + at, sizeof x);
        std::memcpy(&y, b.data() + at, sizeof y);
        if (!(std::fabs(x - y) <= std::ldexp(std::fabs(x), -23))) return false;
    }
    return true;
}

/// Tensors of the same names, types, shapes and bytes.
/// @param computed  how the names end of those that hold exponentials, whose last bit is the program's
inline void check_same_tensors(const gguf_file& got, const gguf_file& want, std::string_view computed = ".ssm_a") {
    CHECK(got.tensors().size() == want.tensors().size());
    for (const larql::tensor_info& info : want.tensors()) {
        CAPTURE(info.name);
        const larql::tensor_info& same = got.at_tensor(info.name);
        CHECK(same.type == info.type);
        CHECK(same.shape == info.shape);
        if (info.name.ends_with(computed))
            CHECK(same_but_last_bit(got.bytes(same), want.bytes(info)));
        else
            CHECK(std::ranges::equal(got.bytes(same), want.bytes(info)));
    }
}

/// Metadata that are the same but for names; `but` may be absent in either.
inline void check_same_metadata(const gguf_file& got, const gguf_file& want,
                                const std::set<std::string_view>& but = {}) {
    for (const gguf_file* file : {&got, &want})
        for (const std::string_view key : file->keys()) {
            if (key == "general.name" || but.contains(key)) continue;
            CAPTURE(key);
            const auto a = got.find_value(key), b = want.find_value(key);
            REQUIRE(a != nullptr);
            REQUIRE(b != nullptr);
            CHECK(a->type() == b->type());
            CHECK(std::ranges::equal(a->bytes(), b->bytes()));
        }
}

}  // namespace larql::testing

#endif
