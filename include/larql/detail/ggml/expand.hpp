// SPDX-License-Identifier: Apache-2.0
//
// The second half of decoding a block: small integers times a scale, plus an offset where the format has one, as float.
// The first half (ggml/formats.hpp) exists once for each format, this one once for each level of vector code.
#ifndef LARQL_DETAIL_GGML_EXPAND_HPP
#define LARQL_DETAIL_GGML_EXPAND_HPP

#include <larql/detail/ggml/formats.hpp>
#include <larql/detail/ggml/vectors.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

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

/// Vector k of the integers, looked up if they are codes.
template <block_scaling Scaling>
LARQL_GGML_AVX2 lanes integers_of(const unpacked_run& run, std::size_t k) noexcept {
    if constexpr (Scaling == block_scaling::looked_up)
        return look_up(load_lanes(reinterpret_cast<const std::byte*>(run.table)), run.q[k]);
    else
        return run.q[k];
}

template <block_scaling Scaling>
LARQL_TARGET_AVX2 void expand_avx2(const unpacked_run& run, float* out) noexcept {
    for (std::size_t k = 0; k < run.count; ++k, out += 16) {
        const lanes q = integers_of<Scaling>(run, k);
        const auto halves = reinterpret_cast<lane_halves>(q);
        float_x8 low = signed_to_x8(q) * run.scale[k];
        float_x8 high =
            signed_to_x8(reinterpret_cast<lanes>(__builtin_shufflevector(halves, halves, 1, 1))) * run.scale[k];
        if constexpr (Scaling == block_scaling::shifted) {
            low += run.offset[k];
            high += run.offset[k];
        }
        store_x8(out, low);
        store_x8(out + 8, high);
    }
}

template <block_scaling Scaling>
LARQL_TARGET_AVX512 void expand_avx512(const unpacked_run& run, float* out) noexcept {
    for (std::size_t k = 0; k < run.count; ++k, out += 16) {
        float_x16 x = signed_to_x16(integers_of<Scaling>(run, k)) * run.scale[k];
        if constexpr (Scaling == block_scaling::shifted) x += run.offset[k];
        store_x16(out, x);
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
