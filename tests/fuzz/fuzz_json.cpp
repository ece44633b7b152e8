// SPDX-License-Identifier: Apache-2.0
#include <larql/detail/io/json.hpp>
#include <larql/detail/safetensors/index.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include <support/json_peer.hpp>

#include "replay.hpp"

namespace {

template <class Call>
void attempt(const Call& call) {
    try {
        call();
    } catch (const larql::error&) {
    }
}

}  // namespace

// Whatever the bytes, each reader returns or throws larql::error; a value that was read reads back from its own text,
// and is the one that nlohmann's parser reads.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    if (larql::testing::compare_json(text) == larql::testing::json_agreement::differs) std::abort();
    const larql::error_where where{.file = "fuzz", .offset = 0, .subject = {}};
    attempt([&] {
        const nlohmann::json value = larql::detail::parse_json(text, where);
        if (larql::detail::parse_json(value.dump(), where) != value) std::abort();
    });
    attempt([&] {
        (void)larql::detail::parse_json(text, where,
                                        {.max_depth = 4, .drop_deeper = true, .tolerate_non_finite = true});
    });
    attempt([&] { (void)larql::detail::parse_safetensors_index(text, "fuzz"); });
    return 0;
}
