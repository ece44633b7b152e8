// SPDX-License-Identifier: Apache-2.0
//
// Every number format that a checkpoint stores, as one table, and the scalar conversions between float and the small
// floating-point formats. Block formats (ggml's quantised types) are listed here and decoded in ggml_blocks.hpp.
#ifndef LARQL_DTYPE_HPP
#define LARQL_DTYPE_HPP

#include <larql/detail/concat.hpp>
#include <larql/error.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

namespace larql {

/// A storage format. Values are larql's own; `dtype_traits` has the numbers that file formats use.
enum class dtype : std::uint8_t {
    f64,
    f32,
    f16,
    bf16,
    f8_e4m3,
    f8_e5m2,
    f8_e8m0,
    f4_e2m1,
    i8,
    i16,
    i32,
    i64,
    u8,
    u16,
    u32,
    u64,
    boolean,
    q4_0,
    q4_1,
    q5_0,
    q5_1,
    q8_0,
    q8_1,
    q2_k,
    q3_k,
    q4_k,
    q5_k,
    q6_k,
    q8_k,
    iq1_s,
    iq1_m,
    iq2_xxs,
    iq2_xs,
    iq2_s,
    iq3_xxs,
    iq3_s,
    iq4_nl,
    iq4_xs,
    tq1_0,
    tq2_0,
    mxfp4,
    nvfp4,
    q1_0,
    q2_0,
};

/// What the elements of a dtype are. Integers are never read as float unless the caller says so.
enum class dtype_kind : std::uint8_t { floating, integer, block };

/// One row of the table of formats.
struct dtype_traits {
    dtype type;
    std::string_view name;  ///< ggml's name where ggml has the type ("Q4_K"), else safetensors' ("F8_E4M3")
    dtype_kind kind;
    std::uint32_t block_elements;       ///< elements that are stored together
    std::uint32_t block_bytes;          ///< bytes of such a block
    int ggml_number;                    ///< ggml_type number in GGUF, -1 if GGUF has none
    std::string_view safetensors_name;  ///< dtype string in safetensors, empty if safetensors has none
};

namespace detail {

// Sources: ggml.h and ggml-common.h (numbers, block sizes), safetensors' README (names).
inline constexpr dtype_traits dtype_table[] = {
    {dtype::f64, "F64", dtype_kind::floating, 1, 8, 28, "F64"},
    {dtype::f32, "F32", dtype_kind::floating, 1, 4, 0, "F32"},
    {dtype::f16, "F16", dtype_kind::floating, 1, 2, 1, "F16"},
    {dtype::bf16, "BF16", dtype_kind::floating, 1, 2, 30, "BF16"},
    {dtype::f8_e4m3, "F8_E4M3", dtype_kind::floating, 1, 1, -1, "F8_E4M3"},
    {dtype::f8_e5m2, "F8_E5M2", dtype_kind::floating, 1, 1, -1, "F8_E5M2"},
    {dtype::f8_e8m0, "F8_E8M0", dtype_kind::floating, 1, 1, -1, "F8_E8M0"},
    {dtype::f4_e2m1, "F4", dtype_kind::floating, 2, 1, -1, "F4"},
    {dtype::i8, "I8", dtype_kind::integer, 1, 1, 24, "I8"},
    {dtype::i16, "I16", dtype_kind::integer, 1, 2, 25, "I16"},
    {dtype::i32, "I32", dtype_kind::integer, 1, 4, 26, "I32"},
    {dtype::i64, "I64", dtype_kind::integer, 1, 8, 27, "I64"},
    {dtype::u8, "U8", dtype_kind::integer, 1, 1, -1, "U8"},
    {dtype::u16, "U16", dtype_kind::integer, 1, 2, -1, "U16"},
    {dtype::u32, "U32", dtype_kind::integer, 1, 4, -1, "U32"},
    {dtype::u64, "U64", dtype_kind::integer, 1, 8, -1, "U64"},
    {dtype::boolean, "BOOL", dtype_kind::integer, 1, 1, -1, "BOOL"},
    {dtype::q4_0, "Q4_0", dtype_kind::block, 32, 18, 2, ""},
    {dtype::q4_1, "Q4_1", dtype_kind::block, 32, 20, 3, ""},
    {dtype::q5_0, "Q5_0", dtype_kind::block, 32, 22, 6, ""},
    {dtype::q5_1, "Q5_1", dtype_kind::block, 32, 24, 7, ""},
    {dtype::q8_0, "Q8_0", dtype_kind::block, 32, 34, 8, ""},
    {dtype::q8_1, "Q8_1", dtype_kind::block, 32, 36, 9, ""},
    {dtype::q2_k, "Q2_K", dtype_kind::block, 256, 84, 10, ""},
    {dtype::q3_k, "Q3_K", dtype_kind::block, 256, 110, 11, ""},
    {dtype::q4_k, "Q4_K", dtype_kind::block, 256, 144, 12, ""},
    {dtype::q5_k, "Q5_K", dtype_kind::block, 256, 176, 13, ""},
    {dtype::q6_k, "Q6_K", dtype_kind::block, 256, 210, 14, ""},
    {dtype::q8_k, "Q8_K", dtype_kind::block, 256, 292, 15, ""},
    {dtype::iq1_s, "IQ1_S", dtype_kind::block, 256, 50, 19, ""},
    {dtype::iq1_m, "IQ1_M", dtype_kind::block, 256, 56, 29, ""},
    {dtype::iq2_xxs, "IQ2_XXS", dtype_kind::block, 256, 66, 16, ""},
    {dtype::iq2_xs, "IQ2_XS", dtype_kind::block, 256, 74, 17, ""},
    {dtype::iq2_s, "IQ2_S", dtype_kind::block, 256, 82, 22, ""},
    {dtype::iq3_xxs, "IQ3_XXS", dtype_kind::block, 256, 98, 18, ""},
    {dtype::iq3_s, "IQ3_S", dtype_kind::block, 256, 110, 21, ""},
    {dtype::iq4_nl, "IQ4_NL", dtype_kind::block, 32, 18, 20, ""},
    {dtype::iq4_xs, "IQ4_XS", dtype_kind::block, 256, 136, 23, ""},
    {dtype::tq1_0, "TQ1_0", dtype_kind::block, 256, 54, 34, ""},
    {dtype::tq2_0, "TQ2_0", dtype_kind::block, 256, 66, 35, ""},
    {dtype::mxfp4, "MXFP4", dtype_kind::block, 32, 17, 39, ""},
    {dtype::nvfp4, "NVFP4", dtype_kind::block, 64, 36, 40, ""},
    {dtype::q1_0, "Q1_0", dtype_kind::block, 128, 18, 41, ""},
    {dtype::q2_0, "Q2_0", dtype_kind::block, 64, 18, 42, ""},
};
static_assert(std::size(dtype_table) == static_cast<std::size_t>(dtype::q2_0) + 1, "one row per dtype");
static_assert(
    [] {
        for (std::size_t i = 0; i < std::size(dtype_table); ++i)
            if (static_cast<std::size_t>(dtype_table[i].type) != i) return false;
        return true;
    }(),
    "rows in the order of the enumeration");

/// A ggml type number that no current GGUF may hold, with the name that it had or has elsewhere.
struct refused_ggml_type {
    std::int64_t number;
    std::string_view name;
    std::string_view remedy;
};

inline constexpr std::string_view removed_remedy =
    "removed from ggml; convert the original checkpoint again with a current converter";
inline constexpr std::string_view ik_remedy =
    "an ik_llama.cpp-only type; requantise the original checkpoint to a mainline ggml type";

// Sources: ggml.h (comments on removed types), ik_llama.cpp ggml.h. Number 41 is not here: both projects use it, for
// the same 128-element, 18-byte block.
inline constexpr refused_ggml_type refused_ggml_types[] = {
    {4, "Q4_2", removed_remedy},        {5, "Q4_3", removed_remedy},
    {31, "Q4_0_4_4", removed_remedy},   {32, "Q4_0_4_8", removed_remedy},
    {33, "Q4_0_8_8", removed_remedy},   {36, "IQ4_NL_4_4 (or ik_llama.cpp's I2_S)", removed_remedy},
    {37, "IQ4_NL_4_8", removed_remedy}, {38, "IQ4_NL_8_8", removed_remedy},
    {97, "Q8_0_X4", ik_remedy},         {98, "Q8_1_X4", ik_remedy},
    {99, "Q8_2_X4", ik_remedy},         {133, "Q6_0", ik_remedy},
    {134, "IQ1_BN", ik_remedy},         {135, "IQ2_BN", ik_remedy},
    {136, "Q8_K64", ik_remedy},         {137, "IQ2_K", ik_remedy},
    {138, "IQ3_K", ik_remedy},          {139, "IQ4_K", ik_remedy},
    {140, "IQ5_K", ik_remedy},          {141, "IQ6_K", ik_remedy},
    {144, "IQ4_KS", ik_remedy},         {145, "IQ2_KS", ik_remedy},
    {146, "IQ4_KSS", ik_remedy},        {147, "Q8_K16", ik_remedy},
    {148, "Q8_K32", ik_remedy},         {149, "Q8_KR8", ik_remedy},
    {150, "Q8_K128", ik_remedy},        {151, "Q8_KV", ik_remedy},
    {152, "IQ5_KS", ik_remedy},         {153, "IQ2_KT", ik_remedy},
    {154, "IQ3_KT", ik_remedy},         {155, "IQ4_KT", ik_remedy},
    {156, "IQ3_KS", ik_remedy},         {157, "IQ2_KL", ik_remedy},
    {158, "IQ1_KT", ik_remedy},
};

}  // namespace detail

/// The table row of a format.
constexpr const dtype_traits& traits_of(dtype type) noexcept {
    return detail::dtype_table[static_cast<std::size_t>(type)];
}

/// The name of a format, such as "Q4_K" or "F8_E4M3".
constexpr std::string_view to_string(dtype type) noexcept { return traits_of(type).name; }

/// The row with this ggml_type number, or null.
constexpr const dtype_traits* find_ggml_dtype(std::uint64_t number) noexcept {
    for (const dtype_traits& row : detail::dtype_table)
        if (row.ggml_number >= 0 && static_cast<std::uint64_t>(row.ggml_number) == number) return &row;
    return nullptr;
}

/// The row with this safetensors dtype string, or null.
constexpr const dtype_traits* find_safetensors_dtype(std::string_view name) noexcept {
    if (name.empty()) return nullptr;
    for (const dtype_traits& row : detail::dtype_table)
        if (row.safetensors_name == name) return &row;
    return nullptr;
}

/// The format with this ggml_type number.
/// @throws error unsupported_dtype for a removed or ik_llama.cpp-only number (by name, with what to do),
///         unknown_dtype for any other
inline dtype dtype_from_ggml(std::uint64_t number, error_where where = {}) {
    if (const dtype_traits* row = find_ggml_dtype(number)) return row->type;
    const std::string text = detail::concat({"ggml type ", number});
    for (const detail::refused_ggml_type& refused : detail::refused_ggml_types)
        if (static_cast<std::uint64_t>(refused.number) == number)
            detail::fail(errc::unsupported_dtype,
                         text + " is " + std::string(refused.name) + ": " + std::string(refused.remedy),
                         std::move(where));
    if (number >= 200 && number < 400)
        detail::fail(errc::unsupported_dtype, text + " is a row-interleaved repack: " + std::string(detail::ik_remedy),
                     std::move(where));
    detail::fail(errc::unknown_dtype, text + " is unknown; larql reads the types 0 to 42 of ggml", std::move(where));
}

// ---------------------------------------------------------------------------------------------------------------------
// Scalar conversions. Widening is exact; narrowing rounds to nearest, ties to even, and keeps NaN a NaN.

/// The float with the upper half of its bits given.
constexpr float bf16_to_float(std::uint16_t bits) noexcept {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

constexpr std::uint16_t float_to_bf16(float value) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((bits >> 16) | 0x40U);  // quiet the NaN
    return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

constexpr float f16_to_float(std::uint16_t bits) noexcept {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
    const std::uint32_t exponent = (bits >> 10) & 0x1fU;
    const std::uint32_t mantissa = bits & 0x3ffU;
    if (exponent == 0x1fU)  // infinity, or a NaN made quiet as the hardware does
        return std::bit_cast<float>(sign | 0x7f800000U | (mantissa << 13) | (mantissa != 0 ? 0x400000U : 0U));
    if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112U) << 23) | (mantissa << 13));
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;  // subnormal: exact in float
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
}

constexpr std::uint16_t float_to_f16(float value) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000U);
    const std::uint32_t magnitude = bits & 0x7fffffffU;
    if (magnitude > 0x7f800000U) return static_cast<std::uint16_t>(sign | 0x7e00U | ((magnitude >> 13) & 0x3ffU));
    if (magnitude >= 0x477ff000U) return static_cast<std::uint16_t>(sign | 0x7c00U);  // from 65520 on: infinity
    if (magnitude >= 0x38800000U) {                                                   // normal
        const std::uint32_t rounded = magnitude + 0xfffU + ((magnitude >> 13) & 1U);
        return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000U) >> 13));
    }
    if (magnitude <= 0x33000000U) return sign;  // half of the smallest subnormal, and below: ties to even zero
    const std::uint32_t exponent = magnitude >> 23;
    const std::uint32_t mantissa = (magnitude & 0x7fffffU) | 0x800000U;
    const std::uint32_t shift = 126U - exponent;  // 14 to 24
    const std::uint32_t half = 1U << (shift - 1);
    const std::uint32_t rounded = mantissa + half - 1U + ((mantissa >> shift) & 1U);
    return static_cast<std::uint16_t>(sign | (rounded >> shift));
}

/// OCP 8-bit float, 4 exponent and 3 mantissa bits, bias 7, no infinity; 0x7f and 0xff are NaN.
constexpr float f8_e4m3_to_float(std::uint8_t bits) noexcept {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x80U) << 24;
    const std::uint32_t exponent = (bits >> 3) & 0xfU;
    const std::uint32_t mantissa = bits & 7U;
    if ((bits & 0x7fU) == 0x7fU) return std::bit_cast<float>(sign | 0x7fc00000U);
    if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 120U) << 23) | (mantissa << 20));
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(static_cast<float>(mantissa) * 0x1p-9F));
}

/// Rounded to nearest, ties to even. Beyond 464, where 448 is no longer the nearest, it is NaN.
constexpr std::uint8_t float_to_f8_e4m3(float value) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const auto sign = static_cast<std::uint8_t>((bits >> 24) & 0x80U);
    const std::uint32_t magnitude = bits & 0x7fffffffU;
    if (magnitude > 0x43e80000U) return static_cast<std::uint8_t>(sign | 0x7fU);
    if (magnitude >= 0x3c800000U) {  // normal
        const std::uint32_t rounded = magnitude + 0x7ffffU + ((magnitude >> 20) & 1U);
        return static_cast<std::uint8_t>(sign | ((rounded - 0x3c000000U) >> 20));
    }
    if (magnitude <= 0x3a800000U) return sign;  // half of the smallest subnormal, and below: ties to even zero
    const std::uint32_t mantissa = (magnitude & 0x7fffffU) | 0x800000U;
    const std::uint32_t shift = 141U - (magnitude >> 23);  // 21 to 24
    const std::uint32_t rounded = mantissa + (1U << (shift - 1)) - 1U + ((mantissa >> shift) & 1U);
    return static_cast<std::uint8_t>(sign | (rounded >> shift));
}

/// OCP 8-bit float, 5 exponent and 2 mantissa bits: the upper byte of an f16.
constexpr float f8_e5m2_to_float(std::uint8_t bits) noexcept {
    return f16_to_float(static_cast<std::uint16_t>(bits << 8));
}

/// OCP 8-bit exponent: 2^(bits - 127); 0xff is NaN. 0 is 2^-127, a subnormal float.
constexpr float f8_e8m0_to_float(std::uint8_t bits) noexcept {
    if (bits == 0xffU) return std::numeric_limits<float>::quiet_NaN();
    return std::bit_cast<float>(bits == 0 ? 0x00400000U : static_cast<std::uint32_t>(bits) << 23);
}

/// OCP 4-bit float, 2 exponent and 1 mantissa bits: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives. Upper bits ignored.
constexpr float f4_e2m1_to_float(std::uint8_t bits) noexcept {
    constexpr float magnitude[] = {0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F};
    return (bits & 8U) != 0 ? -magnitude[bits & 7U] : magnitude[bits & 7U];
}

/// A bfloat16 number: an array element type (K/V caches, weights). Arithmetic happens in float.
struct bf16 {
    std::uint16_t bits = 0;

    constexpr bf16() noexcept = default;
    constexpr explicit bf16(float value) noexcept : bits(float_to_bf16(value)) {}
    constexpr operator float() const noexcept { return bf16_to_float(bits); }  // NOLINT: widening is exact
};

/// An IEEE half-precision number, as `bf16`.
struct f16 {
    std::uint16_t bits = 0;

    constexpr f16() noexcept = default;
    constexpr explicit f16(float value) noexcept : bits(float_to_f16(value)) {}
    constexpr operator float() const noexcept { return f16_to_float(bits); }  // NOLINT: widening is exact
};

/// An OCP 8-bit float (E4M3), for K/V caches of a quarter of the memory: 3 bits of mantissa, magnitudes from 2^-9 to
/// 448, NaN beyond. Whoever needs another range divides keys and values by a factor of their own before they are
/// stored, and multiplies the attention's scale and its result by it.
struct f8_e4m3 {
    std::uint8_t bits = 0;

    constexpr f8_e4m3() noexcept = default;
    constexpr explicit f8_e4m3(float value) noexcept : bits(float_to_f8_e4m3(value)) {}
    constexpr operator float() const noexcept { return f8_e4m3_to_float(bits); }  // NOLINT: widening is exact
};

/// 32 numbers of ggml's Q8_0, for K/V caches of half the memory of f16 and nearly its exactness: a number is
/// scale * code. Encoding divides by the largest magnitude of the block over 127, so that errors are about 1/254 of
/// it. A block with a number that is not finite, or whose scale is beyond f16's range, holds NaN.
struct q8_0_block {
    static constexpr std::size_t elements = 32;

    f16 scale{};
    std::int8_t codes[elements]{};
};

static_assert(sizeof(bf16) == 2 && sizeof(f16) == 2 && sizeof(f8_e4m3) == 1 && sizeof(q8_0_block) == 34);

}  // namespace larql

#endif
