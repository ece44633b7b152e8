// SPDX-License-Identifier: Apache-2.0
//
// What one GGUF file holds.
#ifndef LARQL_DETAIL_GGUF_CONTENTS_HPP
#define LARQL_DETAIL_GGUF_CONTENTS_HPP

#include <larql/detail/gguf/value.hpp>
#include <larql/detail/io/name_index.hpp>
#include <larql/tensor_info.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace larql::detail {

inline constexpr std::uint32_t gguf_default_alignment = 32;

/// Views point into the bytes that were parsed.
struct gguf_contents {
    std::uint32_t version = 0;
    std::uint64_t alignment = gguf_default_alignment;
    std::uint64_t data_offset = 0;  ///< start of the data, aligned, in bytes from the start of the file
    std::vector<gguf_entry> entries{};
    std::vector<tensor_info> tensors{};
    name_index keys{};

    [[nodiscard]] const gguf_value* find(std::string_view key) const {
        const auto at = keys.find(key, [this](std::size_t i) { return entries[i].key; });
        return at ? &entries[*at].value : nullptr;
    }
};

}  // namespace larql::detail

#endif
