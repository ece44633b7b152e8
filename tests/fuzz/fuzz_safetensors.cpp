// SPDX-License-Identifier: Apache-2.0
#include <larql/detail/safetensors/header.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string_view>

#include "replay.hpp"

// Whatever the bytes, the parser returns checked contents or throws larql::error; what is read by comparing is read as
// JSON too, with the same result.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto read = [&](std::uint64_t offset, std::span<std::byte> out) {
        if (offset > size || out.size() > size - offset) std::abort();
        if (!out.empty()) std::memcpy(out.data(), data + offset, out.size());
    };
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    if (const auto plain = larql::detail::plain_safetensors_header::read(text)) {
        const auto json = larql::detail::parse_safetensors_json(text, {.file = "fuzz"});
        if (plain->metadata != json.metadata || plain->tensors.size() != json.tensors.size()) std::abort();
        for (std::size_t i = 0; i < json.tensors.size(); ++i) {
            const larql::tensor_info &a = plain->tensors[i], &b = json.tensors[i];
            if (a.name != b.name || a.shape != b.shape || a.type != b.type || a.offset != b.offset ||
                a.size_bytes != b.size_bytes)
                std::abort();
        }
    }
    try {
        const auto contents = larql::detail::parse_safetensors(size, "fuzz", read);
        std::uint64_t end = contents.data_offset;
        for (const larql::tensor_info& t : contents.tensors) {
            if (t.offset != end) std::abort();
            end += t.size_bytes;
        }
        if (end != size) std::abort();
    } catch (const larql::error&) {
    }
    return 0;
}
