// SPDX-License-Identifier: Apache-2.0
//
// AMX multiplies bfloat16 tiles. A float is the sum of three bfloat16 numbers exactly (8 + 8 + 8 bits of significand),
// so a product of floats with bfloat16 numbers is the sum of three tile products exactly, and of fewer where the floats
// need fewer terms: a bfloat16 weight times a bfloat16 gain needs two, the weight alone one.
#ifndef LARQL_DETAIL_GEMM_AMX_KERNELS_HPP
#define LARQL_DETAIL_GEMM_AMX_KERNELS_HPP

#include <larql/detail/amx.hpp>
#include <larql/detail/cpu.hpp>

#include <cstddef>
#include <cstdint>

#if LARQL_AMX
namespace larql::detail {

using amx_vector [[gnu::vector_size(64), gnu::may_alias]] = float;
using amx_vector_unaligned [[gnu::vector_size(64), gnu::may_alias, gnu::aligned(4)]] = float;
using amx_words [[gnu::vector_size(64), gnu::may_alias]] = std::uint32_t;

// A tile holds 16 rows of 16 pairs; a pair is one 32-bit word. The two of a pair are steps p and p + 16 of the sum, the
// same for both factors, which needs no shuffle: any order of a sum will do.
inline constexpr std::size_t tile_words = 16 * 16;
inline constexpr std::size_t tile_depth = 32;  // steps of the sum in a tile
inline constexpr std::size_t amx_block = 32;   // rows and columns of C that the kernel holds: 2 x 2 tiles
inline constexpr std::size_t max_terms = 3;

/// What decides how a group of numbers is multiplied.
struct float_class {
    std::size_t terms = 1;  ///< bfloat16 terms that hold each number exactly
    bool usable = true;  ///< false: not finite, or so large or small that a tile product may overflow or flush to zero
};

/// Gathers float_class over many numbers, lane by lane.
struct float_survey {
    amx_words beyond_first{};  // bits of what the first term leaves
    amx_words beyond_second{};
    amx_words magnitude{};  // largest magnitude, as bits
};

[[gnu::always_inline]] LARQL_TARGET_AVX512 inline amx_words bits_of(amx_vector x) { return (amx_words)x; }

// To the nearest bfloat16, ties to even, as a float. Not for NaN.
[[gnu::always_inline]] LARQL_TARGET_AVX512 inline amx_vector round_to_bf16(amx_vector x) {
    const amx_words u = bits_of(x);
    return (amx_vector)((u + 0x7fffU + ((u >> 16) & 1U)) & 0xffff0000U);
}

[[gnu::always_inline]] LARQL_TARGET_AVX512 inline void survey(float_survey& s, amx_vector x) {
    const amx_vector rest = x - round_to_bf16(x);
    const amx_vector last = rest - round_to_bf16(rest);
    const amx_words size = bits_of(x) & 0x7fffffffU;
    s.beyond_first |= bits_of(rest) & 0x7fffffffU;
    s.beyond_second |= bits_of(last) & 0x7fffffffU;
    s.magnitude = size > s.magnitude ? size : s.magnitude;
}

// Within 2^-40 and 2^50 the largest product of two groups is between 2^-80 and 2^100: sums of any length stay finite,
// and what the hardware flushes to zero (below 2^-126 for each step) is far below the rounding of that product.
inline bool magnitude_usable(std::uint32_t bits) noexcept {
    constexpr std::uint32_t smallest = (127U - 40U) << 23;
    constexpr std::uint32_t largest = (127U + 50U) << 23;
    return bits == 0 || (bits >= smallest && bits < largest);
}

LARQL_TARGET_AVX512 inline std::size_t surveyed_terms(const float_survey& s) {
    std::uint32_t first = 0;
    std::uint32_t second = 0;
    for (std::size_t i = 0; i < 16; ++i) {
        first |= s.beyond_first[i];
        second |= s.beyond_second[i];
    }
    return second != 0 ? 3 : first != 0 ? 2 : 1;
}

// Lanes 0 to count - 1 from memory, the others zero; times a scale if there is one.
[[gnu::always_inline]] LARQL_TARGET_AVX512 inline amx_vector load_lanes(const float* p, std::size_t count,
                                                                        const float* scale) {
    if (count >= 16) {
        const amx_vector x = *reinterpret_cast<const amx_vector_unaligned*>(p);
        return scale == nullptr ? x : x * *reinterpret_cast<const amx_vector_unaligned*>(scale);
    }
    amx_vector x{};
    for (std::size_t i = 0; i < count; ++i) x[i] = scale == nullptr ? p[i] : p[i] * scale[i];
    return x;
}

// The words of one tile row, term by term, `plane` words apart.
[[gnu::always_inline]] LARQL_TARGET_AVX512 inline void store_terms(amx_vector low, amx_vector high, std::size_t terms,
                                                                   std::uint32_t* out, std::size_t plane) {
    for (std::size_t t = 0; t < terms; ++t, out += plane) {
        const amx_vector low_term = round_to_bf16(low);
        const amx_vector high_term = round_to_bf16(high);
        *reinterpret_cast<amx_words*>(out) = (bits_of(low_term) >> 16) | bits_of(high_term);
        low -= low_term;
        high -= high_term;
    }
}

inline std::size_t lanes_left(std::size_t at, std::size_t end) noexcept { return at < end ? end - at : 0; }

/// Surveys `count` rows of `depth` numbers, each times its scale.
LARQL_TARGET_AVX512 inline float_class classify_rows(const float* rows, std::size_t stride, std::size_t count,
                                                     std::size_t depth, const float* scale) {
    float_class out;
    float_survey all;
    for (std::size_t r = 0; r < count; ++r) {
        all.magnitude = amx_words{};
        for (std::size_t k = 0; k < depth; k += 16)
            survey(all, load_lanes(rows + r * stride + k, depth - k, scale == nullptr ? nullptr : scale + k));
        std::uint32_t largest = 0;
        for (std::size_t i = 0; i < 16; ++i) largest = all.magnitude[i] > largest ? all.magnitude[i] : largest;
        out.usable = out.usable && magnitude_usable(largest);
    }
    out.terms = surveyed_terms(all);
    return out;
}

/// Surveys a block of up to tile_depth rows and amx_block columns, whose columns are summed over.
LARQL_TARGET_AVX512 inline float_class classify_columns(const float* rows, std::size_t stride, std::size_t count,
                                                        std::size_t cols) {
    float_class out;
    for (std::size_t j = 0; j < cols; j += 16) {
        float_survey part;
        for (std::size_t k = 0; k < count; ++k) survey(part, load_lanes(rows + k * stride + j, cols - j, nullptr));
        for (std::size_t i = 0; i < 16; ++i) out.usable = out.usable && magnitude_usable(part.magnitude[i]);
        const std::size_t terms = surveyed_terms(part);
        out.terms = terms > out.terms ? terms : out.terms;
    }
    return out;
}

/// Tiles of 16 rows, from rows whose numbers are steps of the sum: tile after tile along the depth, `step` words apart.
LARQL_TARGET_AVX512 inline void pack_row_tiles(const float* rows, std::size_t stride, std::size_t count,
                                               std::size_t depth, const float* scale, std::size_t terms,
                                               std::uint32_t* out, std::size_t step, std::size_t plane) {
    for (std::size_t r = 0; r < 16; ++r) {
        const float* from = rows + r * stride;
        std::uint32_t* to = out + r * 16;
        for (std::size_t k = 0; k < depth; k += tile_depth, to += step) {
            amx_vector low{};
            amx_vector high{};
            if (r < count) {
                low = load_lanes(from + k, depth - k, scale == nullptr ? nullptr : scale + k);
                const std::size_t left = lanes_left(k + 16, depth);
                if (left > 0) high = load_lanes(from + k + 16, left, scale == nullptr ? nullptr : scale + k + 16);
            }
            store_terms(low, high, terms, to, plane);
        }
    }
}

/// One tile of 16 columns of bfloat16 numbers from up to tile_depth rows, which are steps of the sum.
LARQL_TARGET_AVX512 inline void pack_column_tile(const float* rows, std::size_t stride, std::size_t count,
                                                 std::size_t cols, std::uint32_t* out) {
    for (std::size_t p = 0; p < 16; ++p) {
        amx_vector low{};
        amx_vector high{};
        if (p < count) low = load_lanes(rows + p * stride, cols, nullptr);
        if (p + 16 < count) high = load_lanes(rows + (p + 16) * stride, cols, nullptr);
        store_terms(low, high, 1, out + p * 16, 0);
    }
}

/// Configures the tile registers of the running thread, all of 16 rows of 64 bytes, until it goes out of scope.
class tile_session {
public:
    tile_session() noexcept {
        alignas(64) std::uint8_t config[64] = {1};  // palette 1
        for (std::size_t t = 0; t < 8; ++t) {
            config[16 + 2 * t] = 64;  // bytes of a row
            config[48 + t] = 16;      // rows
        }
        asm volatile("ldtilecfg %0" : : "m"(config));
    }
    tile_session(const tile_session&) = delete;
    tile_session& operator=(const tile_session&) = delete;
    ~tile_session() { asm volatile("tilerelease"); }
};

/// block[32][32] = A B over `steps` tiles of depth. Needs a tile_session.
/// @param a      tiles [step][2 halves of the rows], `plane` words between the terms
/// @param b      tiles [step][2 halves of the columns]
inline void multiply_tiles(std::size_t steps, const std::uint32_t* a, std::size_t plane, std::size_t a_terms,
                           const std::uint32_t* b, float* block) {
    constexpr std::size_t row_bytes = 64;
    constexpr std::size_t step_words = 2 * tile_words;
    asm volatile("tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3" : :);
    const auto add_step = [&](const std::uint32_t* a_step, const std::uint32_t* b_step) {
        asm volatile("tileloadd (%0,%2,1), %%tmm4\n\ttileloadd (%1,%2,1), %%tmm5"
                     :
                     : "r"(a_step), "r"(a_step + tile_words), "r"(row_bytes)
                     : "memory");
        asm volatile("tileloadd (%0,%2,1), %%tmm6\n\ttileloadd (%1,%2,1), %%tmm7"
                     :
                     : "r"(b_step), "r"(b_step + tile_words), "r"(row_bytes)
                     : "memory");
        asm volatile(
            "tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n\ttdpbf16ps %%tmm7, %%tmm4, %%tmm1\n\t"
            "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\n\ttdpbf16ps %%tmm7, %%tmm5, %%tmm3"
            :
            :);
    };
    // The smallest terms of all steps first: then the sums round at full size only as often as sums in float do.
    for (std::size_t t = a_terms; t-- > 0;)
        for (std::size_t k = 0; k < steps; ++k) add_step(a + t * plane + k * step_words, b + k * step_words);
    constexpr std::size_t block_row_bytes = amx_block * sizeof(float);
    asm volatile(
        "tilestored %%tmm0, (%0,%2,1)\n\ttilestored %%tmm1, 64(%0,%2,1)\n\t"
        "tilestored %%tmm2, (%1,%2,1)\n\ttilestored %%tmm3, 64(%1,%2,1)"
        :
        : "r"(block), "r"(block + 16 * amx_block), "r"(block_row_bytes)
        : "memory");
}

}  // namespace larql::detail
#endif

#endif
