// SPDX-License-Identifier: Apache-2.0
//
// Scaling of rotation that GGUF has as tensors, not as metadata.
// Source: llama.cpp's conversion/llama.py, conversion/minicpm.py (generate_extra_tensors).
#ifndef LARQL_DETAIL_CONVERT_GGUF_ROPE_ROWS_HPP
#define LARQL_DETAIL_CONVERT_GGUF_ROPE_ROWS_HPP

#include <larql/checkpoint.hpp>
#include <larql/detail/convert/conversion_row.hpp>
#include <larql/detail/convert/row_makers.hpp>
#include <larql/dtype.hpp>
#include <larql/rope_config.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace larql::detail {

/// The divisors of Llama 3's scaling as llama.cpp's converter computes them, in float32, in which torch
/// divides a number by a tensor's element as the number times the element's reciprocal.
inline conversion_row llama3_divisors_row(const rope_config& rope) {
    const auto factor = static_cast<float>(rope.factor);
    const double low = rope.original_max_position / rope.low_freq_factor;
    const double high = rope.original_max_position / rope.high_freq_factor;
    std::vector<float> divisors;
    for (std::size_t i = 0; i < rope.rotary_dim; i += 2) {
        const float exponent = static_cast<float>(i) / static_cast<float>(rope.rotary_dim);
        const float frequency = 1.0F / std::pow(static_cast<float>(rope.theta), exponent);
        const float wavelength = 1.0F / frequency * static_cast<float>(2.0 * std::numbers::pi);
        if (wavelength < static_cast<float>(high)) {
            divisors.push_back(1.0F);
        } else if (wavelength > static_cast<float>(low)) {
            divisors.push_back(factor);
        } else {
            const float smooth = (1.0F / wavelength * static_cast<float>(rope.original_max_position) -
                                  static_cast<float>(rope.low_freq_factor)) /
                                 static_cast<float>(rope.high_freq_factor - rope.low_freq_factor);
            divisors.push_back(1.0F / ((1.0F - smooth) / factor + smooth));
        }
    }
    const std::uint64_t count = divisors.size();
    return small_row("rope_freqs.weight", dtype::f32, {count}, std::move(divisors));
}

inline conversion_row rope_factors_row(std::string name, std::span<const double> factors) {
    std::vector<float> values;
    for (const double factor : factors) values.push_back(static_cast<float>(factor));
    const std::uint64_t count = values.size();
    return small_row(std::move(name), dtype::f32, {count}, std::move(values));
}

/// The rows that a published GGUF of a model in transformers' names has beside its tensors.
inline std::vector<conversion_row> gguf_rope_rows(const checkpoint& source) {
    const rope_config& rope = source.spec(0).rope;
    std::vector<conversion_row> rows;
    if (source.has_gguf_names()) return rows;
    if (rope.kind == rope_kind::llama3) rows.push_back(llama3_divisors_row(rope));
    if (rope.kind == rope_kind::longrope && source.family().gguf_output.rope_factors) {
        rows.push_back(rope_factors_row("rope_factors_long.weight", rope.long_factor));
        rows.push_back(rope_factors_row("rope_factors_short.weight", rope.short_factor));
    }
    return rows;
}

}  // namespace larql::detail

#endif
