// SPDX-License-Identifier: Apache-2.0
//
// What blocks look like between the two halves of decoding: small integers with scales. The first half
// (ggml/formats.hpp) exists once for each format; the second, which makes numbers of them (ggml/expand.hpp) or
// multiplies with them (gemm/few_body.hpp), once for each level of vector code.
#ifndef LARQL_DETAIL_GGML_UNPACKED_HPP
#define LARQL_DETAIL_GGML_UNPACKED_HPP

#include <larql/detail/ggml/lanes.hpp>

#include <cstddef>
#include <cstdint>

namespace larql::detail {

/// Where a format puts what it unpacks: a vector of 16 integers, their scale, and their offset where the format has
/// one. The scale is the product of an f16 (11 significant bits) and a small integer, and q is small too: scale * q is
/// exact in float. So it makes no difference that some processors fuse it with the sum that follows.
struct block_parts {
    lanes* q;
    float* scale;
    float* offset;
};

/// How the integers of a format become values.
enum class block_scaling {
    scaled,     ///< q * scale
    shifted,    ///< q * scale + offset
    looked_up,  ///< values[q] * scale
};

/// The first half of a format, for runs of blocks.
struct block_unpacker {
    std::size_t elements;  ///< of a block
    std::size_t bytes;     ///< of a block
    block_scaling scaling;
    const std::int8_t* table;  ///< 16 values, if looked up
    /// Unpacks blocks that follow each other, elements / 16 vectors each.
    void (*unpack)(const std::byte* in, std::size_t blocks, const block_parts& out) noexcept;
};

/// Vectors of 16 that are unpacked at once: they stay in the first-level cache. A multiple of every format's block.
inline constexpr std::size_t unpacked_vectors = 64;

}  // namespace larql::detail

#endif
