// SPDX-License-Identifier: Apache-2.0
//
// The header of one safetensors file: 8 bytes length, JSON padded with spaces, data. Source: README of safetensors.
#ifndef LARQL_DETAIL_SAFETENSORS_HEADER_HPP
#define LARQL_DETAIL_SAFETENSORS_HEADER_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/function_ref.hpp>
#include <larql/detail/io/byte_reader.hpp>
#include <larql/detail/io/json_text.hpp>
#include <larql/detail/io/not_a_checkpoint.hpp>
#include <larql/detail/safetensors/contents.hpp>
#include <larql/tensor_info.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace larql::detail {

/// Collects the header's entries, offsets from the start of the data; whatever it does not know inside an entry is
/// skipped, whatever shape it has.
class safetensors_header_consumer final : public json_consumer {
public:
    safetensors_header_consumer(safetensors_contents& out) : m_out(out) {}

    void open(bool object) override {
        ++m_depth;
        if (m_depth == 1 && !object) refuse("the header: expected an object, got an array");
        if (m_depth == 2) {
            if (!object) refuse("expected an object, got an array");
            m_has = {};
        }
        if (m_depth == 3) {
            if (m_in_metadata) refuse("metadata: expected a string, got a container");
            if (m_field == field::dtype) refuse("dtype: expected a string, got a container");
            if (m_field != field::other && object) refuse(field_name() + ": expected an array, got an object");
            if (m_field != field::other) start_list();
        }
        if (m_depth == 4 && m_field != field::other) refuse(field_name() + ": expected an integer, got a container");
    }

    void close() override {
        if (m_depth == 2 && !m_in_metadata) finish_entry();
        --m_depth;
    }

    void key(std::string_view name) override {
        if (m_depth == 1) {
            m_in_metadata = name == "__metadata__";
            m_name = name;
        } else if (m_depth == 2 && m_in_metadata) {
            m_metadata_key = name;
        } else if (m_depth == 2) {
            m_field = name == "dtype"          ? field::dtype
                      : name == "shape"        ? field::shape
                      : name == "data_offsets" ? field::offsets
                                               : field::other;
        }
    }

    void scalar(const json_scalar& value) override {
        if (m_depth == 0) refuse(std::string("the header: expected an object, got a ") + type_name(value));
        if (m_depth == 1 && m_in_metadata && std::holds_alternative<std::nullptr_t>(value)) return;  // as good as none
        if (m_depth == 1) refuse(std::string("expected an object, got a ") + type_name(value));
        if (m_in_metadata) return metadata_value(value);
        if (m_field == field::other) return;
        if (m_depth == 2) {
            const std::string_view* const text = text_in(value);
            if (m_field != field::dtype || text == nullptr)
                refuse(field_name() + ": expected " + (m_field == field::dtype ? "a string" : "an array") + ", got a " +
                       type_name(value));
            m_dtype = *text;
            m_has.dtype = true;
            return;
        }
        const std::uint64_t* const number = std::get_if<std::uint64_t>(&value);
        if (number == nullptr)
            refuse(field_name() + ": expected an integer from 0 to 2^64 - 1, got " +
                   to_json(value).dump(-1, ' ', true));
        auto& list = m_field == field::shape ? m_shape : m_offsets;
        if (list.size() == safetensors_max_rank)
            refuse(concat({field_name(), ": expected at most ", safetensors_max_rank, " numbers, got more"}),
                   errc::limit_exceeded);
        list.push_back(*number);
    }

private:
    enum class field { other, dtype, shape, offsets };
    struct fields {
        bool dtype = false, shape = false, offsets = false;
    };

    [[noreturn]] void refuse(const std::string& problem, errc code = errc::corrupt_header) const {
        fail_here(code, problem, m_name);
    }
    [[nodiscard]] std::string field_name() const {
        return m_field == field::dtype ? "dtype" : m_field == field::shape ? "shape" : "data_offsets";
    }

    void start_list() {
        (m_field == field::shape ? m_has.shape : m_has.offsets) = true;
        (m_field == field::shape ? m_shape : m_offsets).clear();
    }

    void metadata_value(const json_scalar& value) {
        const std::string_view* const text = text_in(value);
        if (text == nullptr)
            refuse("metadata " + quoted_name(m_metadata_key) + ": expected a string, got a " + type_name(value));
        if (m_out.metadata.size() == safetensors_max_metadata)
            refuse(concat({"too much metadata: expected at most ", safetensors_max_metadata, " entries, got more"}),
                   errc::limit_exceeded);
        m_out.metadata.emplace(std::move(m_metadata_key), *text);
    }

    void finish_entry() {
        for (const auto& [name, present] : {std::pair{"dtype", m_has.dtype}, std::pair{"shape", m_has.shape},
                                            std::pair{"data_offsets", m_has.offsets}})
            if (!present) refuse("expected dtype, shape and data_offsets, got no " + std::string(name));
        if (m_offsets.size() != 2) refuse(concat({"data_offsets: expected 2 integers, got ", m_offsets.size()}));
        const std::uint64_t begin = m_offsets[0];
        const std::uint64_t end = m_offsets[1];
        if (begin > end) refuse(concat({"data_offsets: expected an end at or after ", begin, ", got ", end}));
        const dtype_traits* traits = find_safetensors_dtype(m_dtype);
        if (traits == nullptr) refuse("expected a known dtype, got " + quoted_name(m_dtype), errc::unknown_dtype);
        check_size(*traits, end - begin);
        m_out.tensors.push_back({.name = m_out.names->add(m_name),
                                 .shape = m_shape,
                                 .type = traits->type,
                                 .shard = 0,
                                 .offset = begin,
                                 .size_bytes = end - begin});
        m_name.clear();
    }

    void check_size(const dtype_traits& traits, std::uint64_t stored) const {
        if (stored_bytes(traits, m_shape) == stored) return;
        std::optional<std::uint64_t> elements = 1;
        for (const std::uint64_t extent : m_shape)
            if (elements) elements = checked_multiply(*elements, extent);
        std::optional<std::uint64_t> bytes;
        if (elements && *elements % traits.block_elements == 0)
            bytes = checked_multiply(*elements / traits.block_elements, traits.block_bytes);
        if (!elements || (!bytes && *elements % traits.block_elements == 0))
            refuse("too large: expected a size below 2^64 bytes, got a product of dimensions beyond it");
        if (!bytes)
            refuse(concat({"expected a multiple of ", traits.block_elements, " elements of ", traits.name, ", got ",
                           *elements}),
                   errc::shape_mismatch);
        refuse(concat({"shape and data_offsets disagree: expected ", *bytes, " bytes, got ", stored}),
               errc::shape_mismatch);
    }

    safetensors_contents& m_out;
    std::size_t m_depth = 0;
    bool m_in_metadata = false;
    field m_field = field::other;
    std::string m_name{};
    std::string m_metadata_key{};
    // Of the entry that is being read; they keep their memory from entry to entry.
    fields m_has{};
    std::string m_dtype{};
    std::vector<std::uint64_t> m_shape{}, m_offsets{};
};

/// Sorts the tensors by their data and checks that they fill it: from its start to the file's end, without gap or
/// overlap.
inline void place_safetensors(safetensors_contents& contents, std::uint64_t file_size, const std::string& file) {
    auto& tensors = contents.tensors;
    const auto ends = [](const tensor_info& t) { return t.offset + t.size_bytes; };
    const auto before = [&](const tensor_info& a, const tensor_info& b) {
        return a.offset != b.offset ? a.offset < b.offset : ends(a) < ends(b);
    };
    if (!std::is_sorted(tensors.begin(), tensors.end(), before))  // sorting takes memory for half of them
        std::stable_sort(tensors.begin(), tensors.end(), before);
    const std::uint64_t held = file_size - contents.data_offset;
    std::uint64_t longest = 0;
    for (const tensor_info& info : tensors) longest = std::max(longest, ends(info));
    if (longest > held)
        fail(errc::truncated,
             concat({"the file is cut short: expected ", longest, " bytes of data, got ", held, ": ", longest - held,
                     " bytes are missing"}),
             {.file = file, .offset = file_size});
    std::uint64_t end = 0;
    for (tensor_info& info : tensors) {
        if (info.offset != end)
            fail(
                errc::offset_out_of_range,
                concat({info.offset < end ? "overlaps the tensor before it" : "leaves a gap after the tensor before it",
                        ": expected data at ", end, ", got ", info.offset}),
                {.file = file, .offset = contents.data_offset + info.offset, .subject = std::string(info.name)});
        end = ends(info);
        info.offset += contents.data_offset;
    }
    if (end != held)
        fail(errc::offset_out_of_range,
             concat({"bytes after the last tensor: expected ", end, " bytes of data, got ", held}),
             {.file = file, .offset = contents.data_offset + end});
}

/// Fills `to` with the bytes of a file from an offset on.
using byte_source = function_ref<void(std::uint64_t offset, std::span<std::byte> to)>;

/// Reads the header and checks all of it.
inline safetensors_contents parse_safetensors(std::uint64_t file_size, const std::string& file, byte_source read) {
    std::string head(static_cast<std::size_t>(std::min<std::uint64_t>(file_size, other_file_head_bytes)), '\0');
    read(std::uint64_t{0}, std::as_writable_bytes(std::span(head)));
    if (file_size < 8)
        fail(errc::truncated,
             concat({"not a safetensors file: expected at least 8 bytes, got ", file_size, or_what_it_is(head)}),
             {.file = file, .offset = 0});
    const auto length = load_little_endian<std::uint64_t>(std::as_bytes(std::span(head)).data());
    const bool object_follows = file_size > 8 && head[8] == '{';
    // Zeros are a header's length too, and are judged below.
    if (!object_follows && length != 0) refuse_other_file(head, "a safetensors file", file);
    const error_where at_length{.file = file, .offset = 0, .subject = "header length"};
    if (length > safetensors_max_header_bytes)
        fail(errc::limit_exceeded, concat({"expected at most ", safetensors_max_header_bytes, " bytes, got ", length}),
             at_length);
    if (length > file_size - 8)
        fail(errc::truncated,
             concat({"the file ends within the header: expected ", length, " bytes, got ", file_size - 8}), at_length);
    std::string text(static_cast<std::size_t>(length), '\0');
    read(std::uint64_t{8}, std::as_writable_bytes(std::span(text)));
    const error_where where{.file = file, .offset = 8, .subject = "header"};
    const std::size_t last = text.find_last_not_of(' ');
    if (last == std::string::npos || text.front() != '{' || text[last] != '}')
        fail(errc::corrupt_header,
             "expected a JSON object padded with spaces, got other text" + (length == 0 ? or_what_it_is(head) : ""),
             where);

    const std::string_view object = std::string_view(text).substr(0, last + 1);
    safetensors_contents out;
    safetensors_header_consumer(out).read(object, where);
    out.data_offset = 8 + length;
    place_safetensors(out, file_size, file);
    return out;
}

}  // namespace larql::detail

#endif
