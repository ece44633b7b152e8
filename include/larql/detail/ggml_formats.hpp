// SPDX-License-Identifier: Apache-2.0
//
// How each block format is laid out, and the first half of decoding it: the quantised integers in the order of the
// elements, and the scale of each group. Source of the layouts: ggml-common.h and ggml-quants.c of llama.cpp.
#ifndef LARQL_DETAIL_GGML_FORMATS_HPP
#define LARQL_DETAIL_GGML_FORMATS_HPP

#include <larql/detail/ggml_expand.hpp>
#include <larql/dtype.hpp>

namespace larql::detail {

/// What every format states. A format with a code book has 4-bit codes as q and names the table of their values.
template <dtype Type, std::size_t Group, bool HasOffset = false, bool HasCodebook = false>
struct block_format {
    static constexpr dtype type = Type;
    static constexpr std::size_t elements = traits_of(Type).block_elements;
    static constexpr std::size_t bytes = traits_of(Type).block_bytes;
    static constexpr std::size_t group = Group;
    static constexpr bool has_offset = HasOffset;
    static constexpr bool has_codebook = HasCodebook;
};

struct q4_0_format : block_format<dtype::q4_0, 32> {
    template <class Block>
    LARQL_INLINE static void unpack(const std::byte* in, Block& out) noexcept {
        out.scale[0] = load_f16(in);
        const lanes q = load_lanes(in + 2);
        out.q[0] = (q & 15) - 8;
        out.q[1] = shift_right<4>(q) - 8;
    }
};

struct q8_0_format : block_format<dtype::q8_0, 32> {
    template <class Block>
    LARQL_INLINE static void unpack(const std::byte* in, Block& out) noexcept {
        out.scale[0] = load_f16(in);
        out.q[0] = load_lanes(in + 2);
        out.q[1] = load_lanes(in + 18);
    }
};

}  // namespace larql::detail

#endif
