// SPDX-License-Identifier: Apache-2.0
//
// The bodies of weight_reader.hpp.
#ifndef LARQL_DETAIL_BODIES_WEIGHT_READER_HPP
#define LARQL_DETAIL_BODIES_WEIGHT_READER_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/quant/find.hpp>
#include <larql/detail/quant/parts.hpp>
#include <larql/detail/quant/plain.hpp>
#include <larql/detail/quant/source.hpp>
#include <larql/detail/separate.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>
#include <larql/tensor_info.hpp>
#include <larql/weight_reader.hpp>
#include <larql/weight_storage.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql {

LARQL_INLINE void weight::read_rows(std::uint64_t row_begin, std::uint64_t row_end, float* out,
                                    std::size_t out_stride) const {
    if (row_begin > row_end || row_end > m_rows)
        detail::fail(errc::shape_mismatch,
                     detail::concat({"rows ", row_begin, " to ", row_end, " of a weight with ", m_rows, " rows"}),
                     {.subject = m_name});
    if (out_stride < columns())
        detail::fail(errc::shape_mismatch,
                     detail::concat({"expected a stride of at least ", columns(), ", got ", out_stride}),
                     {.subject = m_name});
    if (row_begin != row_end && columns() != 0) m_source->read_rows(row_begin, row_end, out, out_stride);
}

LARQL_INLINE weight weight::in(weight_storage storage) const {
    weight other = *this;
    if (storage == weight_storage::from_file) return other;
    if (storage == weight_storage::decoded)
        other.m_source = std::make_shared<detail::decoded_source>(*m_source, m_rows, columns());
    else
        other.m_source = m_source->held(storage);
    return other;
}

LARQL_INLINE weight::weight(std::string_view name, detail::found_weight&& found)
    : m_name(name),
      m_shape(std::move(found.shape)),
      m_type(found.type),
      m_scheme(found.scheme),
      m_stored_bytes(found.stored_bytes),
      m_raw(found.raw),
      m_source(std::move(found.source)) {
    for (std::size_t i = 0; i + 1 < m_shape.size(); ++i) m_rows *= m_shape[i];
}

LARQL_INLINE std::optional<weight> weight_reader::find(std::string_view name) const {
    if (m_gguf != nullptr) {
        const tensor_info* info = m_gguf->find_tensor(name);
        if (info == nullptr) return std::nullopt;
        return weight(name, from_gguf(*info));
    }
    auto found = detail::find_weight(m_safetensors, m_config, name);
    if (!found) return std::nullopt;
    return weight(name, std::move(*found));
}

LARQL_INLINE weight weight_reader::at(std::string_view name) const {
    if (auto found = find(name)) return *std::move(found);
    const std::string& path = m_gguf != nullptr ? m_gguf->shard_path(0) : m_safetensors->shard_path(0);
    const error_where where{.file = path, .offset = std::nullopt, .subject = std::string(name)};
    m_config.require_supported(where);  // the likelier reason, if it is one
    detail::fail(errc::missing_tensor, "no such weight in the checkpoint", where);
}

LARQL_INLINE bool weight_reader::contains(std::string_view name) const {
    return m_gguf != nullptr ? m_gguf->find_tensor(name) != nullptr : detail::stores_weight(*m_safetensors, name);
}

LARQL_INLINE std::vector<std::string> weight_reader::names() const {
    if (m_gguf == nullptr) return detail::logical_names(*m_safetensors);
    std::vector<std::string> out;
    for (const tensor_info& info : m_gguf->tensors())
        if (!is_gguf_scale(info)) out.emplace_back(info.name);
    return out;
}

LARQL_INLINE void weight_reader::require_file(bool given) {
    if (!given) detail::fail(errc::bad_value, "expected an open checkpoint, got a null pointer");
}

LARQL_INLINE const tensor_info* weight_reader::gguf_scale(const tensor_info& info) const {
    if (!info.name.ends_with(weight_ending)) return nullptr;
    std::string name(info.name.substr(0, info.name.size() - weight_ending.size()));
    return m_gguf->find_tensor(name += scale_ending);
}

LARQL_INLINE bool weight_reader::is_gguf_scale(const tensor_info& info) const {
    if (!info.name.ends_with(scale_ending)) return false;
    std::string name(info.name.substr(0, info.name.size() - scale_ending.size()));
    return m_gguf->find_tensor(name += weight_ending) != nullptr;
}

LARQL_INLINE detail::found_weight weight_reader::from_gguf(const tensor_info& info) const {
    detail::found_weight out{.shape = info.shape, .type = info.type, .stored_bytes = info.size_bytes};
    std::vector<float> factors;
    std::uint64_t rows_per_factor = info.rows();
    const tensor_info* scale = gguf_scale(info);
    if (scale == nullptr) {
        out.raw = &info;
    } else {
        const error_where where{m_gguf->shard_path(scale->shard), scale->offset, std::string(scale->name)};
        if (traits_of(scale->type).kind != dtype_kind::floating)
            detail::fail(errc::unsupported_dtype,
                         "is " + std::string(to_string(scale->type)) + ", expected F32, F16 or BF16", where);
        const std::uint64_t count = scale->element_count();
        const std::uint64_t leading = info.shape.size() > 2 ? info.shape.front() : 1;
        if (count != 1 && count != leading)
            detail::fail(errc::shape_mismatch,
                         detail::concat({"expected 1 or ", leading, " factors for ", info.name, " ",
                                         detail::shape_text(info.shape), ", got ", count}),
                         where);
        factors = detail::stored_part{.file = m_gguf, .info = scale, .type = scale->type}.read_all();
        rows_per_factor = info.rows() / count;
        out.stored_bytes += scale->size_bytes;
    }
    out.source = std::make_unique<detail::plain_source>(
        detail::stored_part{.file = m_gguf, .info = &info, .type = info.type}, std::move(factors), rows_per_factor,
        error_where{m_gguf->shard_path(info.shard), info.offset, std::string(info.name)});
    return out;
}

}  // namespace larql

#endif
