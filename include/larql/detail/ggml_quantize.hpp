// SPDX-License-Identifier: Apache-2.0
#ifndef LARQL_DETAIL_GGML_QUANTIZE_HPP
#define LARQL_DETAIL_GGML_QUANTIZE_HPP

#include <larql/dtype.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace larql {

/// What quantising did to the numbers.
struct quantize_report {
    std::uint64_t overflowed = 0;  ///< finite values that became infinite
};

namespace detail {

/// Narrows each float to 16 bits; `infinity` is the magnitude that means infinity in the narrow format.
template <class Narrow>
quantize_report narrow_each(const float* in, std::byte* out, std::size_t count, std::uint16_t infinity,
                            Narrow narrow) noexcept {
    quantize_report report;
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint16_t bits = narrow(in[i]);
        if ((bits & 0x7fffU) == infinity && !std::isinf(in[i])) ++report.overflowed;
        std::memcpy(out + 2 * i, &bits, sizeof bits);
    }
    return report;
}

inline quantize_report quantize_run(dtype type, const float* in, std::byte* out, std::size_t count) {
    switch (type) {
        case dtype::f32:
            if (count != 0) std::memcpy(out, in, count * sizeof(float));
            return {};
        case dtype::f16: return narrow_each(in, out, count, 0x7c00U, float_to_f16);
        case dtype::bf16: return narrow_each(in, out, count, 0x7f80U, float_to_bf16);
        default: fail(errc::unsupported_dtype, std::string(to_string(type)) + " is not written by larql");
    }
}

}  // namespace detail
}  // namespace larql

#endif
