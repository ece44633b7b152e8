// SPDX-License-Identifier: Apache-2.0
//
// In which type a conversion writes a tensor: what was asked for, what the container holds, and what is never rounded.
#ifndef LARQL_DETAIL_CONVERT_NUMBER_FORMATS_HPP
#define LARQL_DETAIL_CONVERT_NUMBER_FORMATS_HPP

#include <larql/attention_form.hpp>
#include <larql/checkpoint.hpp>
#include <larql/container.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>
#include <larql/ggml_blocks.hpp>
#include <larql/tensor_role.hpp>
#include <larql/weight_reader.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace larql::detail {

/// What is converted to what.
struct conversion_scope {
    attention_form form = attention_form::factored;
    container kind = container::safetensors;
    std::optional<dtype> general{};    ///< nothing: as stored
    std::optional<dtype> attention{};  ///< of matrices of attention; nothing: as stored, computed ones as float32
    std::size_t block_begin = 0, block_end = 0;
    std::optional<dtype>
        of_vectors{};        ///< if nothing is asked for: what the model's matrices are, where vectors are not
    bool whole = true;       ///< all blocks
    bool split_kv_b = true;  ///< of published GGUF: k_b and v_b, not kv_b

    [[nodiscard]] std::optional<dtype> wanted(bool of_attention) const noexcept {
        return of_attention ? attention : general;
    }
    /// Whether llama.cpp's names are written.
    [[nodiscard]] bool published_gguf() const noexcept {
        return kind == container::gguf && form == attention_form::factored && whole;
    }
};

/// Small matrices that llama.cpp has as float32, as it has vectors, whatever the model's type is.
inline constexpr role_set float32_matrices{tensor_role::router,
                                           tensor_role::indexer_weights,
                                           tensor_role::indexer_pool_gate,
                                           tensor_role::indexer_pool_bias,
                                           tensor_role::hyper_attention_mix,
                                           tensor_role::hyper_ffn_mix};

/// The type that most bytes of a checkpoint's matrices have: F16, BF16, or F32 for all others.
inline dtype most_of_matrices(const checkpoint& source) {
    std::map<dtype, std::uint64_t> bytes;
    for (const tensor_info& info : source.tensors())
        if (info.shape.size() > 1) bytes[info.type] += info.size_bytes;
    dtype most = dtype::f32;
    for (const auto& [type, size] : bytes)
        if (size > bytes[most]) most = type;
    return most == dtype::f16 || most == dtype::bf16 ? most : dtype::f32;
}

/// Whether a container has a word for a type.
inline bool holds(container kind, dtype type) noexcept {
    switch (kind) {
        case container::safetensors: return !traits_of(type).safetensors_name.empty();
        case container::gguf: return traits_of(type).ggml_number >= 0;
        case container::vindex: return type == dtype::f32 || type == dtype::f16;
    }
    return false;
}

/// The type that llama.cpp's quantiser takes for rows whose length a block does not divide (tensor_type_fallback in
/// src/llama-quant.cpp), but for Q5_0, which larql does not write: Q8_0 holds more.
inline dtype fit_columns(dtype type, std::uint64_t columns) noexcept {
    if (columns % traits_of(type).block_elements == 0) return type;
    if (traits_of(type).block_elements > 32 && columns % 32 == 0) return dtype::q8_0;
    return dtype::f16;
}

/// Whether numbers survive a type unchanged.
inline bool holds_exactly(dtype type, std::span<const float> values) {
    if (type == dtype::f32) return true;
    std::vector<std::byte> bytes(values.size() * traits_of(type).block_bytes);
    std::vector<float> back(values.size());
    (void)quantize(type, values, bytes);
    dequantize(type, bytes, back);
    return std::ranges::equal(values, back);
}

/// The type of a matrix.
/// @param raw  its stored type if its bytes alone are the weight, or nothing
inline dtype matrix_type(const conversion_scope& scope, bool of_attention, std::optional<dtype> raw,
                         std::uint64_t columns) {
    if (const auto wanted = scope.wanted(of_attention)) return fit_columns(*wanted, columns);
    if (!raw || !holds(scope.kind, *raw)) return dtype::f32;
    return *raw;
}

/// The type of a matrix that is not copied: the same, where larql writes it.
inline dtype remade_type(const conversion_scope& scope, bool of_attention, std::optional<dtype> raw,
                         std::uint64_t columns) {
    const dtype type = matrix_type(scope, of_attention, raw, columns);
    return fit_columns(can_quantize(type) ? type : dtype::q8_0, columns);
}

/// The type of few numbers (gains, biases, routers). llama.cpp has them as float32 always; elsewhere they take the
/// wanted type where it holds them exactly, and float32 otherwise: rounding them would gain nothing.
inline dtype small_type(const conversion_scope& scope, bool of_attention, std::optional<dtype> stored,
                        std::span<const float> values) {
    if (scope.published_gguf()) return dtype::f32;
    const dtype kept = scope.of_vectors.value_or(stored.value_or(dtype::f32));
    const dtype type = scope.wanted(of_attention).value_or(kept);
    const bool possible = traits_of(type).kind == dtype_kind::floating && can_quantize(type) && holds(scope.kind, type);
    return possible && holds_exactly(type, values) ? type : dtype::f32;
}

/// @throws error errc::unsupported_dtype for a type that the container cannot hold, or larql does not write
inline void require_writable_type(container kind, const std::optional<dtype>& type, std::string_view subject) {
    if (!type || (can_quantize(*type) && holds(kind, *type))) return;
    const char* const expected = kind == container::gguf          ? "F32, F16, BF16, Q8_0, Q4_0, Q4_K or Q6_K"
                                 : kind == container::safetensors ? "F32, F16 or BF16"
                                                                  : "F32 or F16";
    fail(errc::unsupported_dtype,
         "expected " + std::string(expected) + " in " + std::string(to_string(kind)) + ", got " +
             std::string(to_string(*type)),
         {.subject = std::string(subject)});
}

}  // namespace larql::detail

#endif
