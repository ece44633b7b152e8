// SPDX-License-Identifier: Apache-2.0
#include <larql/detail/safetensors/header.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>

#include "replay.hpp"

// Whatever the bytes, the parser returns checked contents or throws larql::error.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto read = [&](std::uint64_t offset, std::span<std::byte> out) {
        if (offset > size || out.size() > size - offset) std::abort();
        if (!out.empty()) std::memcpy(out.data(), data + offset, out.size());
    };
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
