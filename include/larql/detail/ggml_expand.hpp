// SPDX-License-Identifier: Apache-2.0
//
// The second half of decoding a block: small integers times a scale, plus an offset where the format has one, as float.
// One kernel per level of vector code; each takes blocks of any format, which unpack themselves (ggml_formats.hpp).
#ifndef LARQL_DETAIL_GGML_EXPAND_HPP
#define LARQL_DETAIL_GGML_EXPAND_HPP

#include <larql/detail/ggml_lanes.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

#if LARQL_X86_DISPATCH
#include <immintrin.h>
#endif

namespace larql::detail {

/// A block as its format unpacks it: in the order of the elements, element i has the value
/// `value(q[i]) * scale[i / group] (+ offset[i / group])`, where value() is q as a signed byte or a look-up by q.
template <class Format>
struct unpacked_block {
    alignas(64) lanes q[Format::elements / 16];
    float scale[Format::elements / Format::group];
    float offset[Format::has_offset ? Format::elements / Format::group : 1];
};

/// ggml rounds the product before it adds. Plain code states that by way of double, where the product of a float and a
/// small integer is exact; x86 without FMA has nothing to fuse with, so float serves there.
LARQL_INLINE float rounded_product(float a, float b) noexcept {
#if LARQL_X86_DISPATCH && !defined(__FMA__)
    return a * b;
#else
    return static_cast<float>(static_cast<double>(a) * static_cast<double>(b));
#endif
}

template <class Format>
void decode_portable(const std::byte* in, float* out, std::size_t blocks) noexcept {
    for (std::size_t b = 0; b < blocks; ++b, in += Format::bytes) {
        unpacked_block<Format> block;
        Format::unpack(in, block);
        for (std::size_t i = 0; i < Format::elements / 16; ++i, out += 16) {
            constexpr std::size_t per_scale = Format::group / 16;
            std::int8_t q[16];
            std::memcpy(q, &block.q[i], 16);
            if constexpr (Format::has_codebook)
                for (std::int8_t& x : q) x = Format::codebook[static_cast<std::size_t>(x)];
            const float scale = block.scale[i / per_scale];
            if constexpr (Format::has_offset) {
                const float offset = block.offset[i / per_scale];
                for (int k = 0; k < 16; ++k) out[k] = rounded_product(scale, static_cast<float>(q[k])) + offset;
            } else {
                for (int k = 0; k < 16; ++k) out[k] = scale * static_cast<float>(q[k]);
            }
        }
    }
}

#if LARQL_X86_DISPATCH

// Compilers turn intrinsics for multiply and add into one fused instruction; an empty statement that may change the
// product keeps them apart.
LARQL_TARGET_AVX2 LARQL_INLINE void keep_rounded(__m256& product) noexcept { __asm__("" : "+x"(product)); }
LARQL_TARGET_AVX512 LARQL_INLINE void keep_rounded(__m512& product) noexcept { __asm__("" : "+v"(product)); }

template <class Format>
LARQL_TARGET_AVX2 void decode_avx2(const std::byte* in, float* out, std::size_t blocks) noexcept {
    for (std::size_t b = 0; b < blocks; ++b, in += Format::bytes) {
        unpacked_block<Format> block;
        Format::unpack(in, block);
        for (std::size_t i = 0; i < Format::elements / 16; ++i, out += 16) {
            constexpr std::size_t per_scale = Format::group / 16;
            __m128i q = _mm_load_si128(reinterpret_cast<const __m128i*>(&block.q[i]));
            if constexpr (Format::has_codebook)
                q = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(Format::codebook.data())), q);
            const __m256 scale = _mm256_set1_ps(block.scale[i / per_scale]);
            __m256 low = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)), scale);
            __m256 high = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(q, q))), scale);
            if constexpr (Format::has_offset) {
                const __m256 offset = _mm256_set1_ps(block.offset[i / per_scale]);
                keep_rounded(low);
                keep_rounded(high);
                low = _mm256_add_ps(low, offset);
                high = _mm256_add_ps(high, offset);
            }
            _mm256_storeu_ps(out, low);
            _mm256_storeu_ps(out + 8, high);
        }
    }
}

template <class Format>
LARQL_TARGET_AVX512 void decode_avx512(const std::byte* in, float* out, std::size_t blocks) noexcept {
    for (std::size_t b = 0; b < blocks; ++b, in += Format::bytes) {
        unpacked_block<Format> block;
        Format::unpack(in, block);
        for (std::size_t i = 0; i < Format::elements / 16; ++i, out += 16) {
            constexpr std::size_t per_scale = Format::group / 16;
            __m128i q = _mm_load_si128(reinterpret_cast<const __m128i*>(&block.q[i]));
            if constexpr (Format::has_codebook)
                q = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(Format::codebook.data())), q);
            const __m512 scale = _mm512_set1_ps(block.scale[i / per_scale]);
            __m512 x = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)), scale);
            if constexpr (Format::has_offset) {
                keep_rounded(x);
                x = _mm512_add_ps(x, _mm512_set1_ps(block.offset[i / per_scale]));
            }
            _mm512_storeu_ps(out, x);
        }
    }
}

#endif

}  // namespace larql::detail

#endif
