// SPDX-License-Identifier: Apache-2.0
//
// The formats without blocks: each element on its own becomes a float.
#ifndef LARQL_DETAIL_GGML_CONVERT_HPP
#define LARQL_DETAIL_GGML_CONVERT_HPP

#include <larql/detail/ggml_lanes.hpp>
#include <larql/dtype.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace larql::detail {

/// `convert` of each element of type Stored; `in` need not be aligned.
template <class Stored, class Convert>
void convert_each(const std::byte* in, float* out, std::size_t count, Convert convert) noexcept {
    for (std::size_t i = 0; i < count; ++i) out[i] = convert(load_as<Stored>(in + i * sizeof(Stored)));
}

/// The formats that hold floating-point numbers one by one. False if `type` is none of them.
inline bool convert_portable(dtype type, const std::byte* in, float* out, std::size_t count) noexcept {
    switch (type) {
        case dtype::f64:
            convert_each<double>(in, out, count, [](double x) { return static_cast<float>(x); });
            return true;
        case dtype::f32:
            if (count != 0) std::memcpy(out, in, count * sizeof(float));
            return true;
        case dtype::f16: convert_each<std::uint16_t>(in, out, count, f16_to_float); return true;
        case dtype::bf16: convert_each<std::uint16_t>(in, out, count, bf16_to_float); return true;
        case dtype::f8_e4m3: convert_each<std::uint8_t>(in, out, count, f8_e4m3_to_float); return true;
        case dtype::f8_e5m2: convert_each<std::uint8_t>(in, out, count, f8_e5m2_to_float); return true;
        case dtype::f8_e8m0: convert_each<std::uint8_t>(in, out, count, f8_e8m0_to_float); return true;
        case dtype::f4_e2m1:
            for (std::size_t i = 0; i + 1 < count; i += 2) {
                const auto pair = load_as<std::uint8_t>(in + i / 2);
                out[i] = f4_e2m1_to_float(pair & 15);
                out[i + 1] = f4_e2m1_to_float(pair >> 4);
            }
            return true;
        default: return false;
    }
}

/// Integers as the nearest float. False if `type` is no integer type.
inline bool convert_integers(dtype type, const std::byte* in, float* out, std::size_t count) noexcept {
    const auto nearest = [](auto x) { return static_cast<float>(x); };
    switch (type) {
        case dtype::i8: convert_each<std::int8_t>(in, out, count, nearest); return true;
        case dtype::i16: convert_each<std::int16_t>(in, out, count, nearest); return true;
        case dtype::i32: convert_each<std::int32_t>(in, out, count, nearest); return true;
        case dtype::i64: convert_each<std::int64_t>(in, out, count, nearest); return true;
        case dtype::u8: convert_each<std::uint8_t>(in, out, count, nearest); return true;
        case dtype::u16: convert_each<std::uint16_t>(in, out, count, nearest); return true;
        case dtype::u32: convert_each<std::uint32_t>(in, out, count, nearest); return true;
        case dtype::u64: convert_each<std::uint64_t>(in, out, count, nearest); return true;
        case dtype::boolean:
            convert_each<std::uint8_t>(in, out, count, [](std::uint8_t x) { return x != 0 ? 1.0F : 0.0F; });
            return true;
        default: return false;
    }
}

}  // namespace larql::detail

#endif
