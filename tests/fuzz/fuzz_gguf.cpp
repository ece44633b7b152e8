// SPDX-License-Identifier: Apache-2.0
#include <larql/detail/gguf/parse.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "replay.hpp"

// Whatever the bytes, the parser returns checked contents or throws larql::error.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string file = "fuzz";
    const auto bytes = std::as_bytes(std::span(data, size));
    try {
        const auto contents = larql::detail::gguf_parser(bytes, file).parse();
        for (const larql::tensor_info& t : contents.tensors)
            if (t.offset > size || t.size_bytes > size - t.offset) std::abort();
        for (const larql::gguf_entry& e : contents.entries) {
            if (contents.find(e.key) != &e.value) std::abort();
            try {
                (void)e.value.to<std::vector<std::string_view>>();
            } catch (const larql::error&) {
            }
            try {
                (void)e.value.to<std::vector<std::vector<std::uint8_t>>>();
            } catch (const larql::error&) {
            }
            try {
                (void)e.value.to<std::vector<double>>();
            } catch (const larql::error&) {
            }
        }
    } catch (const larql::error&) {
    }
    return 0;
}
