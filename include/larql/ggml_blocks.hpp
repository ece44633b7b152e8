// SPDX-License-Identifier: Apache-2.0
//
// Numbers as checkpoints store them, to float and back: ggml's block formats, and the floating-point and integer
// formats of GGUF and safetensors. Decoding gives bit for bit what ggml's own scalar code gives, on every processor.
#ifndef LARQL_GGML_BLOCKS_HPP
#define LARQL_GGML_BLOCKS_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/cpu.hpp>
#include <larql/detail/ggml/decoders.hpp>
#include <larql/detail/ggml/quantize_k.hpp>
#include <larql/dtype.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace larql {

namespace detail {

/// Refuses sizes that do not fit each other: `elements` floats and `size_bytes` bytes of `type`.
inline void check_block_sizes(dtype type, std::size_t elements, std::size_t size_bytes) {
    const dtype_traits& traits = traits_of(type);
    if (elements % traits.block_elements != 0)
        fail(errc::shape_mismatch, concat({traits.name, ": ", elements, " elements are not a multiple of its block of ",
                                           traits.block_elements}));
    const std::size_t blocks = elements / traits.block_elements;
    // Compared by division, since the product could overflow.
    if (size_bytes % traits.block_bytes != 0 || size_bytes / traits.block_bytes != blocks)
        fail(errc::shape_mismatch, concat({traits.name, ": ", elements, " elements take ", blocks, " x ",
                                           traits.block_bytes, " bytes, got ", size_bytes}));
}

}  // namespace detail

/// Decodes a run of elements with the named level of vector code; the result does not depend on the level.
///
/// @param type    a floating-point or block format
/// @param blocks  the stored bytes, of any alignment; exactly as many as out.size() elements take
/// @param out     [n] the values, n a multiple of the format's block
/// @param level   at most what the processor has (detail::detected_simd_level())
/// @throws error unsupported_dtype for an integer format (see dequantize_integers), shape_mismatch if the sizes
/// disagree
/// @note   A NaN stays a NaN; its payload is not specified. Must not overlap. O(n), no allocation.
/// @source ggml-quants.c of llama.cpp, functions dequantize_row_*; values in tests/data/ggml_types
inline void dequantize(dtype type, std::span<const std::byte> blocks, std::span<float> out, detail::simd_level level) {
    const dtype_traits& traits = traits_of(type);
    if (traits.kind == dtype_kind::integer)
        detail::fail(errc::unsupported_dtype,
                     std::string(traits.name) + " holds integers, which are not read as float unless asked for");
    detail::check_block_sizes(type, out.size(), blocks.size());
    detail::decode_run(detail::find_decoder(type), traits, blocks.data(), out.data(), out.size(), level);
}

/// Decodes a run of elements with the best vector code of this machine.
inline void dequantize(dtype type, std::span<const std::byte> blocks, std::span<float> out) {
    dequantize(type, blocks, out, detail::active_simd_level());
}

/// Converts integers (I8 to I64, U8 to U64, BOOL as 0 and 1) to the nearest float.
///
/// @throws error unsupported_dtype for a format that holds no integers, shape_mismatch if the sizes disagree
inline void dequantize_integers(dtype type, std::span<const std::byte> blocks, std::span<float> out) {
    const dtype_traits& traits = traits_of(type);
    if (traits.kind != dtype_kind::integer)
        detail::fail(errc::unsupported_dtype, std::string(traits.name) + " holds no integers");
    detail::check_block_sizes(type, out.size(), blocks.size());
    detail::convert_integers(type, blocks.data(), out.data(), out.size());
}

/// What encoding did to the numbers.
struct quantize_report {
    std::uint64_t overflowed = 0;  ///< finite values that became infinite or NaN
};

/// Whether quantize() writes this format.
inline bool can_quantize(dtype type) noexcept { return detail::find_encoder(type) != nullptr; }

/// Encodes a run of elements as F32 (a copy), F16 or BF16 (nearest, ties to even; a NaN stays a NaN), Q8_0 or Q4_0 (bit
/// for bit as ggml's reference), Q4_K or Q6_K. In a block format, a block that holds a NaN or an infinity becomes NaN.
///
/// @param in      [n] n a multiple of the format's block
/// @param blocks  where the bytes go; exactly as many as n elements take
/// @param level   as for dequantize; the result does not depend on it
/// @throws error unsupported_dtype for any other format, shape_mismatch if the sizes disagree
/// @note   Must not overlap. O(n), no allocation.
/// @source ggml-quants.c of llama.cpp, functions quantize_row_*_ref
inline quantize_report quantize(dtype type, std::span<const float> in, std::span<std::byte> blocks,
                                detail::simd_level level) {
    const detail::run_encoder encode = detail::find_encoder(type);
    if (encode == nullptr)
        detail::fail(errc::unsupported_dtype, std::string(to_string(type)) + " is read by larql, but not written");
    detail::check_block_sizes(type, in.size(), blocks.size());
    return {encode(in.data(), blocks.data(), in.size(), level)};
}

/// Encodes a run of elements with the best vector code of this machine.
inline quantize_report quantize(dtype type, std::span<const float> in, std::span<std::byte> blocks) {
    return quantize(type, in, blocks, detail::active_simd_level());
}

}  // namespace larql

#endif
