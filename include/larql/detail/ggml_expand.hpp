// SPDX-License-Identifier: Apache-2.0
//
// The second half of decoding a block: small integers times a scale, plus an offset where the format has one, as float.
// The first half (ggml_formats.hpp) exists once for each format, this one once for each level of vector code.
#ifndef LARQL_DETAIL_GGML_EXPAND_HPP
#define LARQL_DETAIL_GGML_EXPAND_HPP

#include <larql/detail/ggml_formats.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

#if LARQL_X86_DISPATCH
#include <immintrin.h>
#endif

namespace larql::detail {

/// Unpacked blocks on their way to float: `count` vectors of 16 integers; see block_parts.
struct unpacked_run {
    const lanes* q;
    const float* scale;
    const float* offset;       ///< read if Scaling is shifted
    const std::int8_t* table;  ///< 16 values, read if Scaling is looked_up
    std::size_t count;
};

template <block_scaling Scaling>
void expand_portable(const unpacked_run& run, float* out) noexcept {
    for (std::size_t k = 0; k < run.count; ++k, out += 16) {
        std::int8_t q[16];
        std::memcpy(q, run.q + k, sizeof q);
        if constexpr (Scaling == block_scaling::looked_up)
            for (std::int8_t& x : q) x = run.table[x];
        const float scale = run.scale[k];
        if constexpr (Scaling == block_scaling::shifted) {
            const float offset = run.offset[k];
            for (int i = 0; i < 16; ++i) out[i] = scale * static_cast<float>(q[i]) + offset;
        } else {
            for (int i = 0; i < 16; ++i) out[i] = scale * static_cast<float>(q[i]);
        }
    }
}

#if LARQL_X86_DISPATCH

template <block_scaling Scaling>
LARQL_TARGET_AVX2 void expand_avx2(const unpacked_run& run, float* out) noexcept {
    __m128i table = _mm_setzero_si128();
    if constexpr (Scaling == block_scaling::looked_up)
        table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(run.table));
    for (std::size_t k = 0; k < run.count; ++k, out += 16) {
        __m128i q = _mm_loadu_si128(reinterpret_cast<const __m128i*>(run.q + k));
        if constexpr (Scaling == block_scaling::looked_up) q = _mm_shuffle_epi8(table, q);
        __m256 low = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
        __m256 high = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(q, q)));
        const __m256 scale = _mm256_set1_ps(run.scale[k]);
        if constexpr (Scaling == block_scaling::shifted) {
            const __m256 offset = _mm256_set1_ps(run.offset[k]);
            low = _mm256_fmadd_ps(low, scale, offset);
            high = _mm256_fmadd_ps(high, scale, offset);
        } else {
            low = _mm256_mul_ps(low, scale);
            high = _mm256_mul_ps(high, scale);
        }
        _mm256_storeu_ps(out, low);
        _mm256_storeu_ps(out + 8, high);
    }
}

// The zero-masking forms with a full mask: the plain ones make GCC 12 warn about its own header.
template <block_scaling Scaling>
LARQL_TARGET_AVX512 void expand_avx512(const unpacked_run& run, float* out) noexcept {
    constexpr __mmask16 all = 0xffff;
    __m128i table = _mm_setzero_si128();
    if constexpr (Scaling == block_scaling::looked_up)
        table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(run.table));
    for (std::size_t k = 0; k < run.count; ++k, out += 16) {
        __m128i q = _mm_loadu_si128(reinterpret_cast<const __m128i*>(run.q + k));
        if constexpr (Scaling == block_scaling::looked_up) q = _mm_shuffle_epi8(table, q);
        __m512 x = _mm512_maskz_cvtepi32_ps(all, _mm512_maskz_cvtepi8_epi32(all, q));
        const __m512 scale = _mm512_set1_ps(run.scale[k]);
        if constexpr (Scaling == block_scaling::shifted)
            x = _mm512_fmadd_ps(x, scale, _mm512_set1_ps(run.offset[k]));
        else
            x = _mm512_mul_ps(x, scale);
        _mm512_storeu_ps(out, x);
    }
}

#endif

template <block_scaling Scaling>
void expand(const unpacked_run& run, float* out, simd_level level) noexcept {
#if LARQL_X86_DISPATCH
    if (level == simd_level::avx512) return expand_avx512<Scaling>(run, out);
    if (level == simd_level::avx2) return expand_avx2<Scaling>(run, out);
#endif
    static_cast<void>(level);
    expand_portable<Scaling>(run, out);
}

}  // namespace larql::detail

#endif
