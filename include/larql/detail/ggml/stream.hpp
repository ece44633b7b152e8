// SPDX-License-Identifier: Apache-2.0
//
// Decoding into memory that no cache will hold: a store that goes past the caches need not read the line first.
#ifndef LARQL_DETAIL_GGML_STREAM_HPP
#define LARQL_DETAIL_GGML_STREAM_HPP

#include <larql/detail/cpu.hpp>
#include <larql/detail/ggml/vectors.hpp>
#include <larql/dtype.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace larql::detail {

/// Decodes `count` elements, a multiple of the format's block.
using run_decoder = void (*)(const std::byte* in, float* out, std::size_t count, simd_level level) noexcept;

/// From this size on, output goes past the caches. It is well beyond a second-level cache and what a core gets of a
/// shared one, so that little of it would still be there for a reader. Measured on one core of a server with 2 MiB of
/// second-level cache, ordinary against streaming stores in GB/s: 18 against 15 for 4 MiB of output, 7 to 13 against 15
/// for 16 MiB, 7.2 against 15 from 32 MiB.
inline constexpr std::size_t stream_from_bytes = std::size_t{32} << 20;

#if LARQL_X86_DISPATCH

inline constexpr std::size_t floats_per_line = 16;

/// Asks for a line of the page that will be written some pages later, so that its address is known by then: a store
/// past the caches that has to wait for the walk through the page tables holds up all that follow. Measured on one core
/// of a server with pages of 4 KiB, 64 MiB of output: 6.0 ms without, 4.1 with, and 4.0 with huge pages, either way.
inline void look_up_page_ahead(const float* to, std::size_t about_to_write) noexcept {
    constexpr std::uintptr_t page = 4096, ahead = 4;
    const auto at = reinterpret_cast<std::uintptr_t>(to);
    if (at % page < about_to_write) __builtin_prefetch(reinterpret_cast<const void*>(at + ahead * page), 0, 0);
}

/// Copies whole cache lines; `to` lies on a line.
LARQL_TARGET_AVX2 inline void stream_lines(const float* from, float* to, std::size_t lines) noexcept {
    for (std::size_t i = 0; i < lines * floats_per_line; i += floats_per_line) {
        stream_x8(to + i, load_x8(from + i));
        stream_x8(to + i + 8, load_x8(from + i + 8));
    }
}

/// Decodes by way of a buffer, from which whole lines are streamed; a rest stays for the next round.
inline void decode_streaming(run_decoder decode, const dtype_traits& traits, const std::byte* in, float* out,
                             std::size_t count, simd_level level) noexcept {
    constexpr std::size_t at_once = 256;  // the largest block; more would leave the stores no work to hide behind
    alignas(64) float buffer[floats_per_line + at_once];
    std::size_t held = 0;
    std::size_t head = (64 - reinterpret_cast<std::uintptr_t>(out) % 64) % 64 / sizeof(float);  // to the first line
    for (std::size_t done = 0; done < count;) {
        const std::size_t now = count - done < at_once ? count - done : at_once;
        decode(in, buffer + held, now, level);
        in += now / traits.block_elements * traits.block_bytes;
        done += now;
        std::memcpy(out, buffer, head * sizeof(float));
        out += head;
        const std::size_t lines = (held + now - head) / floats_per_line;
        look_up_page_ahead(out, lines * floats_per_line * sizeof(float));
        stream_lines(buffer + head, out, lines);
        out += lines * floats_per_line;
        const std::size_t used = head + lines * floats_per_line;
        held = held + now - used;
        std::memmove(buffer, buffer + used, held * sizeof(float));
        head = 0;
    }
    std::memcpy(out, buffer, held * sizeof(float));
    __builtin_ia32_sfence();
}

#endif

inline void decode_run(run_decoder decode, const dtype_traits& traits, const std::byte* in, float* out,
                       std::size_t count, simd_level level, std::size_t stream_from = stream_from_bytes) noexcept {
#if LARQL_X86_DISPATCH
    if (level != simd_level::portable && count >= floats_per_line && count >= stream_from / sizeof(float))
        return decode_streaming(decode, traits, in, out, count, level);
#endif
    static_cast<void>(traits);
    static_cast<void>(stream_from);
    decode(in, out, count, level);
}

}  // namespace larql::detail

#endif
