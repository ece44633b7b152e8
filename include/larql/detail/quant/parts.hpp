// SPDX-License-Identifier: Apache-2.0
//
// The tensors that make up one weight of a safetensors checkpoint: looking them up, checking them, adding up their
// bytes.
#ifndef LARQL_DETAIL_QUANT_PARTS_HPP
#define LARQL_DETAIL_QUANT_PARTS_HPP

#include <larql/detail/quant/config.hpp>
#include <larql/detail/quant/source.hpp>
#include <larql/safetensors.hpp>
#include <larql/tensor_info.hpp>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// A weight that was found: what weight_reader hands out.
struct found_weight {
    std::vector<std::uint64_t> shape{};
    dtype type = dtype::f32;
    std::string_view scheme{};
    std::uint64_t stored_bytes = 0;
    const tensor_info* raw = nullptr;
    std::unique_ptr<const row_source> source{};
};

/// Endings of the tensors that belong to a weight, by which a listing leaves them out.
struct part_suffix {
    std::string_view ending;
    std::string_view weight;  ///< what replaces it in the weight's name
};

inline constexpr part_suffix part_suffixes[] = {
    {".weight_scale_inv", ".weight"},
    {".weight_scale_2", ".weight"},
    {".weight_scale", ".weight"},
    {".weight_zero_point", ".weight"},
    {".weight_global_scale", ".weight"},
    {".weight_shape", ".weight"},
    {".weight_g_idx", ".weight"},
    {".weight_packed", ".weight"},
    {".scale", ".weight"},
    {".qscale_weight", ".weight"},
    {".qweight", ".weight"},
    {".qzeros", ".weight"},
    {".scales", ".weight"},
    {".g_idx", ".weight"},
    {"_scale_inv", ""},
    {"_scale_2", ""},
    {"_scale", ""},
    {"_blocks", ""},
    {"_scales", ""},
    {".blocks", ""},
    {".scales", ""},
};

/// Whether a part holds the codes, under whose name a packed weight is listed.
inline bool is_main_part(std::string_view name) {
    for (const char* ending : {"_packed", "_blocks", ".blocks", ".qweight"})
        if (name.ends_with(ending)) return true;
    return false;
}

/// Tensors beside a module's weight that only a scheme which larql does not read has.
struct foreign_part {
    std::string_view ending;  ///< after the module's name
    std::string_view scheme;
};

inline constexpr foreign_part foreign_parts[] = {
    {".weight.absmax", "bitsandbytes"},
    {".weight.quant_map", "bitsandbytes"},
    {".SCB", "bitsandbytes (LLM.int8)"},
    {".W_q", "HQQ"},
    {".weight_scales", "EETQ"},
    {".weight._data", "quanto"},
    {".codebooks", "AQLM"},
    {".codes", "AQLM"},
    {".centroids", "VPTQ"},
    {".weight_packed.scale_packed", "marlin-24"},
    {".scale_packed", "marlin-24"},
    {".weight.bitmask", "sparse-bitmask"},
    {".weight.compressed", "sparse-bitmask"},
    {".weight:_data", "torchao"},
    {".weight_bitmask", "sparse-bitmask"},
    {".Qidxs", "QuIP#"},
    {".trellis", "EXL3"},
    {".q_weight", "EXL2"},
    {".pre_quant_scale", "modelopt's scaled inputs (pre_quant_scale)"},
    {".svdquant_lora_a", "modelopt's SVDQuant"},
};

/// Looks up the parts of one weight.
class weight_parts {
public:
    weight_parts(std::shared_ptr<const safetensors_file> file, const quantization_config& config, std::string_view name)
        : m_file(std::move(file)), m_config(config), m_name(name) {
        constexpr std::string_view ending = ".weight";
        if (m_name.ends_with(ending)) m_module = m_name.substr(0, m_name.size() - ending.size());
    }

    [[nodiscard]] const quantization_config& config() const noexcept { return m_config; }
    [[nodiscard]] const std::string& name() const noexcept { return m_name; }
    /// The name without ".weight"; empty if it does not end so.
    [[nodiscard]] const std::string& module() const noexcept { return m_module; }

    /// The tensor of this name, or null.
    /// @throws error missing_tensor if the index says that there is one
    [[nodiscard]] const tensor_info* tensor(const std::string& name) const {
        const tensor_info* info = m_file->find_tensor(name);
        if (info == nullptr) m_file->require_not_absent(name);
        return info;
    }

    const tensor_info& need(const std::string& name) const {
        const tensor_info* info = tensor(name);
        if (info == nullptr)
            fail(errc::missing_tensor, "expected it beside the weight " + quoted_name(m_name) + ", got none",
                 {.file = m_file->shard_path(0), .subject = name});
        return *info;
    }

    [[nodiscard]] error_where where(const tensor_info& info) const {
        return {.file = m_file->shard_path(info.shard), .offset = info.offset, .subject = std::string(info.name)};
    }

    /// A part to be read later, counted as part of the weight.
    stored_part take(const tensor_info& info) {
        m_bytes += info.size_bytes;
        return {.file = m_file, .info = &info, .type = info.type};
    }
    /// The mapped bytes of a part, counted as part of the weight.
    mapped_part map(const tensor_info& info) {
        m_bytes += info.size_bytes;
        return {.owner = m_file, .bytes = m_file->bytes(info)};
    }
    /// All bytes of a small part.
    [[nodiscard]] std::vector<std::byte> peek(const tensor_info& info) const {
        std::vector<std::byte> bytes(static_cast<std::size_t>(info.size_bytes));
        m_file->read_bytes(info, 0, bytes);
        return bytes;
    }
    /// All bytes of a small part, counted as part of the weight.
    std::vector<std::byte> read_all(const tensor_info& info) {
        m_bytes += info.size_bytes;
        return peek(info);
    }

    /// Scales to be read later; U8 holds E8M0 exponents, which is the only meaning that any scheme gives it.
    stored_part take_scales(const tensor_info& info, std::initializer_list<dtype> types) {
        require_type(info, types);
        stored_part part = take(info);
        if (info.type == dtype::u8) part.type = dtype::f8_e8m0;
        return part;
    }

    void require_type(const tensor_info& info, std::initializer_list<dtype> types) const {
        std::string wanted;
        for (const dtype type : types) {
            if (info.type == type) return;
            wanted += (wanted.empty() ? "" : " or ") + std::string(to_string(type));
        }
        fail(errc::unsupported_dtype, "is " + std::string(to_string(info.type)) + ", expected " + wanted, where(info));
    }

    void require_shape(const tensor_info& info, std::span<const std::uint64_t> wanted) const {
        if (!std::equal(info.shape.begin(), info.shape.end(), wanted.begin(), wanted.end()))
            fail(errc::shape_mismatch, "expected " + shape_text(wanted) + ", got " + shape_text(info.shape),
                 where(info));
    }

    found_weight finish(std::vector<std::uint64_t> shape, dtype type, std::string_view scheme,
                        std::unique_ptr<const row_source> source) const {
        return {.shape = std::move(shape),
                .type = type,
                .scheme = scheme,
                .stored_bytes = m_bytes,
                .source = std::move(source)};
    }

    /// Refuses what the configuration or tensors beside the weight say that larql does not read.
    void require_scheme(const tensor_info& info) const {
        m_config.require_supported(where(info));
        refuse_foreign();
    }

    void refuse_foreign() const {
        if (m_module.empty()) return;
        for (const foreign_part& part : foreign_parts)
            if (const tensor_info* info = tensor(m_module + std::string(part.ending)))
                fail(errc::unsupported_dtype,
                     "belongs to a weight stored by " + std::string(part.scheme) + ", which larql does not read",
                     where(*info));
    }

    [[noreturn]] void refuse_unscaled(const tensor_info& info) const {
        require_scheme(info);
        const std::string method =
            m_config.method.empty() ? "no quant_method" : "quant_method " + quoted_name(m_config.method);
        fail(errc::unsupported_dtype,
             std::string(to_string(info.type)) + " without a scale tensor, under " + method +
                 ": no scheme that larql reads stores a weight like that",
             where(info));
    }

    /// Whether this name is itself a part of a weight, such as a scale, which is read as it is.
    [[nodiscard]] bool is_part() const {
        for (const part_suffix& suffix : part_suffixes)
            if (m_name.ends_with(suffix.ending)) return true;
        return false;
    }

private:
    std::shared_ptr<const safetensors_file> m_file;
    const quantization_config& m_config;
    std::string m_name;
    std::string m_module{};
    std::uint64_t m_bytes = 0;
};

}  // namespace larql::detail

#endif
