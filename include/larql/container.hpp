// SPDX-License-Identifier: Apache-2.0
//
// What conversions write.
#ifndef LARQL_CONTAINER_HPP
#define LARQL_CONTAINER_HPP

#include <cstdint>
#include <string_view>

namespace larql {

/// What a conversion writes.
enum class container : std::uint8_t {
    safetensors,  ///< a folder with config.json, read by transformers
    gguf,         ///< a file or a set of shards, read by llama.cpp in the factored form
    vindex,       ///< a folder of the original larql's layout, version 2
};

constexpr std::string_view to_string(container kind) noexcept {
    switch (kind) {
        case container::safetensors: return "safetensors";
        case container::gguf: return "gguf";
        case container::vindex: return "vindex";
    }
    return "unknown";
}

}  // namespace larql

#endif
