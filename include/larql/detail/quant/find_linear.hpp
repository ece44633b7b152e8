// SPDX-License-Identifier: Apache-2.0
//
// AWQ and GPTQ layers: `qweight`, `qzeros`, `scales` and perhaps `g_idx` in place of `weight`.
#ifndef LARQL_DETAIL_QUANT_FIND_LINEAR_HPP
#define LARQL_DETAIL_QUANT_FIND_LINEAR_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/quant/parts.hpp>
#include <larql/detail/quant/transposed.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace larql::detail {

inline unsigned quantised_linear_bits(weight_parts& p, const tensor_info& info, bool awq) {
    if (p.config().bits.size() != 1)
        fail(errc::missing_key,
             concat({"expected one number of bits in quantization_config, got ", p.config().bits.size()}),
             p.where(info));
    const std::uint64_t bits = p.config().bits.front();
    if (bits != 4 && (awq || (bits != 8 && bits != 2)))
        fail(errc::unsupported_dtype,
             concat({p.config().method, " with ", bits, " bits is not supported; larql reads ",
                     (awq ? "4" : "2, 4 and 8")}),
             p.where(info));
    return static_cast<unsigned>(bits);
}

inline void set_linear_groups(weight_parts& p, packed_linear& layer, const tensor_info& info) {
    if (!p.config().group_size || *p.config().group_size == 0)
        fail(errc::missing_key, "expected group_size in quantization_config", p.where(info));
    const std::uint64_t inputs = std::max<std::uint64_t>(layer.inputs, 1);
    layer.group = *p.config().group_size < 0 ? inputs : static_cast<std::uint64_t>(*p.config().group_size);
    layer.groups = ceil_div(layer.inputs, layer.group);
    const tensor_info* g_idx = p.tensor(p.module() + ".g_idx");
    if (g_idx == nullptr) return;
    p.require_shape(*g_idx, std::array{layer.inputs});
    layer.group_index = read_group_index(g_idx->type, p.read_all(*g_idx), layer.groups, p.where(*g_idx));
}

/// The code that all words repeat, or nothing.
inline std::optional<unsigned> only_code(std::span<const std::byte> words, unsigned bits) {
    if (words.empty()) return std::nullopt;
    const unsigned mask = (1U << bits) - 1U;
    const unsigned first = load_u32_le(words.data()) & mask;
    const std::uint32_t repeated = 0xffffffffU / mask * first;
    for (std::size_t i = 0; i < words.size(); i += 4)
        if (load_u32_le(words.data() + i) != repeated) return std::nullopt;
    return first;
}

/// What is to be added to GPTQ's stored zero points. Symmetric quantisation has the one zero point 2^(bits - 1), so
/// that its files say by themselves how they store it. There are files of the first format, which stores it less one,
/// that were written with the zero itself: with 2^(bits - 1) + 1 every weight would be off by one scale.
inline unsigned gptq_zero_increment(weight_parts& p, const tensor_info& zero, unsigned bits) {
    const unsigned by_format = find_linear_format(p.config())->zeros_less_one ? 1 : 0;
    const unsigned middle = 1U << (bits - 1);
    if (p.config().symmetric == false || zero.size_bytes == 0) return by_format;
    const std::optional<unsigned> stored = only_code(p.peek(zero), bits);
    const bool decides = stored == middle || stored == middle - 1;
    if (p.config().symmetric == true) {
        if (decides) return middle - *stored;
        fail(errc::bad_value,
             concat({"sym is true in quantization_config, and the stored zero points are not symmetric: expected ",
                     middle, " or ", middle - 1, " throughout, got ",
                     (stored ? std::to_string(*stored) : "different ones")}),
             p.where(zero));
    }
    if (decides && *stored + by_format != middle)
        fail(errc::missing_key,
             concat({"every stored zero point is ", *stored, ", which means ", middle, " if they are symmetric, and ",
                     *stored + by_format, " otherwise: expected sym in quantization_config"}),
             p.where(zero));
    return by_format;
}

inline found_weight find_quantised_linear(weight_parts& p, const tensor_info& info) {
    p.require_scheme(info);
    const linear_format* format = find_linear_format(p.config());
    if (format == nullptr)
        fail(errc::unsupported_dtype,
             "expected quant_method \"awq\", \"gptq\" or \"auto-round\" beside a qweight, got " +
                 quoted_name(p.config().method),
             p.where(info));
    const bool awq = format->awq;
    p.require_type(info, {dtype::i32});
    if (info.shape.size() != 2)
        fail(errc::shape_mismatch, "expected 2 dimensions, got " + shape_text(info.shape), p.where(info));
    const tensor_info& scale = p.need(p.module() + ".scales");
    const tensor_info& zero = p.need(p.module() + ".qzeros");
    packed_linear layer;
    layer.layout = awq ? packed_layout::awq : packed_layout::gptq;
    layer.bits = quantised_linear_bits(p, info, awq);
    const std::uint64_t per_word = 32 / layer.bits;
    layer.inputs = awq ? info.shape[0] : info.shape[0] * per_word;  // at most the stored bytes times 4
    layer.outputs = awq ? info.shape[1] * per_word : info.shape[1];
    set_linear_groups(p, layer, info);
    p.require_type(scale, {dtype::f16, dtype::bf16, dtype::f32});
    p.require_shape(scale, std::array{layer.groups, layer.outputs});
    p.require_type(zero, {dtype::i32});
    p.require_shape(zero, std::array{layer.groups, ceil_div(layer.outputs, per_word)});
    if (layer.outputs % per_word != 0)
        fail(errc::shape_mismatch, concat({"expected a multiple of ", per_word, " outputs, got ", layer.outputs}),
             p.where(info));
    layer.codes = p.map(info);
    layer.zeros = p.map(zero);
    layer.scales = p.map(scale);
    layer.scale_type = scale.type;
    layer.zero_increment = awq ? 0 : gptq_zero_increment(p, zero, layer.bits);
    std::vector<std::uint64_t> shape{layer.outputs, layer.inputs};
    return p.finish(std::move(shape), info.type, awq ? "awq" : "gptq",
                    std::make_unique<packed_linear_source>(std::move(layer)));
}

}  // namespace larql::detail

#endif
