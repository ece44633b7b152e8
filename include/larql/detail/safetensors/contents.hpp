// SPDX-License-Identifier: Apache-2.0
#ifndef LARQL_DETAIL_SAFETENSORS_CONTENTS_HPP
#define LARQL_DETAIL_SAFETENSORS_CONTENTS_HPP

#include <larql/detail/io/byte_reader.hpp>
#include <larql/detail/io/name_arena.hpp>
#include <larql/dtype.hpp>
#include <larql/tensor_info.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace larql::detail {

inline constexpr std::uint64_t safetensors_max_header_bytes = 100'000'000;  // the reference implementation's limit
inline constexpr std::size_t safetensors_max_rank = 64;                     // torch's and numpy's limit
inline constexpr std::size_t safetensors_max_metadata = 65536;              // a thousand times what is published

/// What one file holds. `names` owns the tensors' names and is stable when moved.
struct safetensors_contents {
    std::uint64_t data_offset = 0;       ///< bytes from the start of the file
    std::vector<tensor_info> tensors{};  ///< in the order of their data
    std::unique_ptr<name_arena> names = std::make_unique<name_arena>();
    std::map<std::string, std::string> metadata{};
};

/// Bytes that numbers of a type take, if they are whole blocks and fewer than 2^64.
inline std::optional<std::uint64_t> stored_bytes(const dtype_traits& traits, std::span<const std::uint64_t> shape) {
    std::optional<std::uint64_t> elements = 1;
    for (const std::uint64_t extent : shape)
        if (elements) elements = checked_multiply(*elements, extent);
    if (!elements || *elements % traits.block_elements != 0) return std::nullopt;
    return checked_multiply(*elements / traits.block_elements, traits.block_bytes);
}

}  // namespace larql::detail

#endif
