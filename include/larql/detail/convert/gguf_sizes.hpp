// SPDX-License-Identifier: Apache-2.0
//
// What a GGUF file says of itself by what it holds: the type of most of its numbers, and how many there are.
#ifndef LARQL_DETAIL_CONVERT_GGUF_SIZES_HPP
#define LARQL_DETAIL_CONVERT_GGUF_SIZES_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/convert/conversion_row.hpp>
#include <larql/dtype.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace larql::detail {

/// llama.cpp's number of a file's type (enum llama_ftype), from what most of its bytes are.
inline std::uint32_t file_type_of(std::span<const conversion_row> rows) {
    std::map<dtype, std::uint64_t> bytes;
    for (const conversion_row& row : rows)
        for (const planned_tensor& tensor : row.tensors)
            if (tensor.shape.size() > 1) bytes[tensor.type] += tensor.size_bytes();
    dtype most = dtype::f32;
    for (const auto& [type, size] : bytes)
        if (size > bytes[most]) most = type;
    switch (most) {
        case dtype::f16: return 1;
        case dtype::q4_0: return 2;
        case dtype::q4_1: return 3;
        case dtype::q8_0: return 7;
        case dtype::q5_0: return 8;
        case dtype::q5_1: return 9;
        case dtype::q2_k: return 10;
        case dtype::q3_k: return 12;
        case dtype::q4_k: return 15;
        case dtype::q5_k: return 17;
        case dtype::q6_k: return 18;
        case dtype::iq4_nl: return 25;
        case dtype::iq4_xs: return 30;
        case dtype::bf16: return 32;
        case dtype::mxfp4: return 38;
        default: return 0;
    }
}

/// "4x90K": experts and parameters, as gguf-py's size_label gives them.
inline std::string size_label(std::span<const conversion_row> rows) {
    double shared = 0.0, of_an_expert = 0.0, experts = 0.0, tensors = 0.0;
    for (const conversion_row& row : rows)
        for (const planned_tensor& tensor : row.tensors) {
            double count = 1.0;
            for (const std::uint64_t extent : tensor.shape) count *= static_cast<double>(extent);
            if (tensor.name.find("_exps.") == std::string::npos || tensor.shape.size() < 3) {
                shared += count;
                continue;
            }
            const auto here = static_cast<double>(tensor.shape.front());
            of_an_expert += std::floor(count / here);
            experts += here;
            tensors += 1.0;
        }
    double parameters = shared + of_an_expert;
    const char* suffix = "K";
    double unit = 1e3;
    for (const auto& [more, name] : {std::pair{1e6, "M"}, std::pair{1e9, "B"}, std::pair{1e12, "T"}})
        if (parameters > more) unit = more, suffix = name;
    parameters /= unit;
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), "%.0f", parameters);
    const std::size_t digits = std::string_view(text.data()) == "0" ? 0 : std::string_view(text.data()).size();
    std::snprintf(text.data(), text.size(), "%.*f%s", digits < 2 ? static_cast<int>(2 - digits) : 0, parameters,
                  suffix);
    if (tensors == 0.0) return text.data();
    return concat({static_cast<std::uint64_t>(experts / tensors), "x", text.data()});
}

}  // namespace larql::detail

#endif
