// SPDX-License-Identifier: Apache-2.0
//
// The grammar of one GGUF file, checked from the first byte to the last. Layout: magic, version, tensor count, metadata
// count; metadata (key, type, value); tensor infos (name, dimensions innermost first, type, offset); padding; data.
// Source: GGUF specification, docs/gguf.md of ggml.
#ifndef LARQL_DETAIL_GGUF_PARSE_HPP
#define LARQL_DETAIL_GGUF_PARSE_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/gguf/contents.hpp>
#include <larql/detail/gguf/value.hpp>
#include <larql/detail/io/byte_reader.hpp>
#include <larql/detail/io/header_memory.hpp>
#include <larql/detail/io/name_index.hpp>
#include <larql/detail/io/not_a_checkpoint.hpp>
#include <larql/detail/io/utf8.hpp>
#include <larql/tensor_info.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace larql::detail {

inline constexpr std::string_view gguf_magic = "GGUF";
inline constexpr std::uint64_t gguf_max_key_bytes = 65535;  // specification
inline constexpr std::uint64_t gguf_max_name_bytes = 64;    // specification
inline constexpr std::uint32_t gguf_max_dimensions = 4;     // specification
inline constexpr std::uint32_t gguf_max_array_depth = 8;    // deeper than any use, shallow enough to recurse

/// Reads one file. Each step below checks what it reads before the next one relies on it.
class gguf_parser {
public:
    /// Reads a file into `memory`, which the result then views.
    gguf_parser(header_memory& memory, const std::string& file)
        : m_memory(memory), m_file(file), m_reader(memory, file) {}
    /// The same for a whole file in memory.
    gguf_parser(std::span<const std::byte> bytes, const std::string& file)
        : m_whole(bytes), m_memory(m_whole), m_file(file), m_reader(m_memory, file) {}
    gguf_parser(const gguf_parser&) = delete;
    gguf_parser& operator=(const gguf_parser&) = delete;

    gguf_contents parse() {
        read_magic();
        read_version();
        const std::uint64_t tensor_count = read_count("tensor count", m_short ? 20 : 24);
        const std::uint64_t entry_count = read_count("metadata count", m_short ? 9 : 13);
        read_entries(entry_count);
        read_alignment();
        read_tensors(tensor_count);
        place_tensors();
        return std::move(m_out);
    }

private:
    // Room for so many things of at least `smallest` bytes each, as far as a header can hold them; what is not used is
    // never touched.
    template <class T>
    void reserve(std::vector<T>& list, std::uint64_t count, std::uint64_t smallest) const {
        list.reserve(static_cast<std::size_t>(std::min(count, max_header_bytes / smallest)));
    }

    void read_magic() {
        const auto first = [this](std::size_t count) {
            const std::uint64_t held = std::min<std::uint64_t>(m_memory.file_size(), count);
            m_memory.load(held, m_reader.where("magic"));
            return std::string_view(reinterpret_cast<const char*>(m_memory.data()), static_cast<std::size_t>(held));
        };
        const std::string_view head = first(other_file_head_bytes), found = head.substr(0, gguf_magic.size());
        const std::size_t held = found.size();
        if (found != gguf_magic.substr(0, held))
            fail(errc::bad_magic,
                 "not a GGUF file: expected \"GGUF\", got \"" + std::string(found) + "\"" + or_what_it_is(head),
                 m_reader.where("magic"));
        if (head.empty())
            fail(errc::truncated, "the file ends within the header: expected 4 more bytes, got 0" + or_what_it_is(head),
                 m_reader.where("magic"));
        m_reader.skip(gguf_magic.size(), "magic");
    }

    void read_version() {
        const error_where where = m_reader.where("version");
        const auto version = m_reader.read<std::uint32_t>("version");
        if (version != 0 && (version & 0xffffU) == 0)
            fail(errc::unsupported_version,
                 concat({"big-endian GGUF files are unsupported: expected a little-endian version 1 to 3, got ",
                         version, "; convert the file to little-endian"}),
                 where);
        if (version < 1 || version > 3)
            fail(errc::unsupported_version, concat({"expected version 1, 2 or 3, got ", version}), where);
        m_out.version = version;
        m_short = version == 1;
    }

    // Places are built when something fails, not on the way: a name and a path for each entry would cost more than the
    // parsing.
    [[nodiscard]] error_where place(std::uint64_t offset, std::string_view subject) const {
        return {.file = m_file, .offset = offset, .subject = std::string(subject)};
    }

    std::uint64_t read_length(std::string_view what) {
        return m_short ? m_reader.read<std::uint32_t>(what) : m_reader.read<std::uint64_t>(what);
    }

    // A count of things that take at least `smallest` bytes each is bounded by the rest of the file.
    void check_count(std::string_view what, std::uint64_t count, std::uint64_t smallest) {
        if (count > m_reader.remaining() / smallest)
            fail(errc::truncated,
                 concat({"more entries than the file can hold: expected at most ", m_reader.remaining() / smallest,
                         " in the remaining ", m_reader.remaining(), " bytes, got ", count}),
                 m_reader.where(what));
    }

    std::uint64_t read_count(std::string_view what, std::uint64_t smallest) {
        const std::uint64_t count = read_length(what);
        check_count(what, count, smallest);
        return count;
    }

    // A key or tensor name. `kind` and `number` say which, for the error.
    std::string_view read_name(std::string_view kind, std::uint64_t number, std::uint64_t longest) {
        const std::uint64_t at = m_reader.offset();
        const auto refuse = [&](const std::string& problem) {
            fail(errc::corrupt_header, problem, place(at, concat({kind, " ", number})));
        };
        const std::uint64_t length = read_length(kind);
        if (length == 0 || length > longest)
            refuse(concat({"length out of range: expected 1 to ", longest, " bytes, got ", length}));
        const std::string_view name = m_reader.read_text(length, kind);
        if (const std::size_t nul = name.find('\0'); nul != std::string_view::npos)
            refuse(concat({"the name holds a NUL character at byte ", nul, " of ", length}));
        if (!is_utf8(name)) refuse("the name is not UTF-8");
        return name;
    }

    gguf_type read_type(std::string_view subject) {
        const std::uint64_t at = m_reader.offset();
        const auto number = m_reader.read<std::uint32_t>(subject);
        if (number >= gguf_types.size())
            fail(errc::corrupt_header,
                 concat({"unknown metadata type: expected 0 to ", gguf_types.size() - 1, ", got ", number}),
                 place(at, subject));
        return static_cast<gguf_type>(number);
    }

    void read_entries(std::uint64_t count) {
        reserve(m_out.entries, count, m_short ? 9 : 13);
        for (std::uint64_t i = 0; i < count; ++i) {
            const std::string_view key = read_name("metadata key", i, gguf_max_key_bytes);
            m_out.entries.push_back({key, read_value(key)});
        }
        const auto twice =
            m_out.keys.build(m_out.entries.size(), [this](std::size_t i) { return m_out.entries[i].key; });
        if (twice)
            fail(errc::duplicate_name,
                 concat({"metadata key stored twice: entries ", twice->first, " and ", twice->second}),
                 {.file = m_file,
                  .offset = m_out.entries[twice->second].value.offset(),
                  .subject = std::string(m_out.entries[twice->second].key)});
    }

    gguf_value read_value(std::string_view key) {
        gguf_value::layout value;
        value.length_bytes = m_short ? 4 : 8;
        value.type = value.element_type = read_type(key);
        if (value.type == gguf_type::array) {
            value.element_type = read_type(key);
            value.count = read_length(key);
        } else if (value.type == gguf_type::string) {
            const std::uint64_t length = read_length(key);
            value.offset = m_reader.offset();
            const std::string_view text = m_reader.read_text(length, key);
            value.content = std::as_bytes(std::span(text.data(), text.size()));
            return gguf_value(value);
        }
        value.offset = m_reader.offset();
        skip_elements(value.element_type, value.count, key, 1);
        value.content = std::span(m_memory.data(), m_memory.loaded())
                            .subspan(static_cast<std::size_t>(value.offset),
                                     static_cast<std::size_t>(m_reader.offset() - value.offset));
        return gguf_value(value);
    }

    // Walks `count` elements, checking each length and each bool.
    void skip_elements(gguf_type type, std::uint64_t count, std::string_view key, std::uint32_t depth) {
        if (type == gguf_type::string) return skip_strings(count, key);
        if (type == gguf_type::array) return skip_arrays(count, key, depth);
        const std::uint64_t size = gguf_type_size(type);
        check_count(key, count, size);
        if (type == gguf_type::boolean) return check_bools(count, key);
        m_reader.skip(count * size, key);
    }

    void skip_strings(std::uint64_t count, std::string_view key) {
        check_count(key, count, m_short ? 4 : 8);
        for (std::uint64_t i = 0; i < count; ++i) {
            const std::uint64_t length = read_length(key);
            m_reader.skip(length, key);
        }
    }

    void skip_arrays(std::uint64_t count, std::string_view key, std::uint32_t depth) {
        check_count(key, count, m_short ? 8 : 12);
        if (depth >= gguf_max_array_depth)
            fail(errc::limit_exceeded,
                 concat({"arrays nested too deep: expected at most ", gguf_max_array_depth, ", got ", depth + 1}),
                 m_reader.where(key));
        for (std::uint64_t i = 0; i < count; ++i) {
            const gguf_type type = read_type(key);
            const std::uint64_t inner = read_length(key);
            skip_elements(type, inner, key, depth + 1);
        }
    }

    void check_bools(std::uint64_t count, std::string_view key) {
        const std::uint64_t begin = m_reader.offset();
        const std::byte* bools = m_reader.take(count, key);
        for (std::uint64_t i = 0; i < count; ++i)
            if (const auto value = std::to_integer<unsigned>(bools[i]); value > 1)
                fail(errc::bad_value, concat({"not a bool: expected 0 or 1, got ", value}), place(begin + i, key));
    }

    void read_alignment() {
        constexpr std::string_view key = "general.alignment";
        const gguf_value* value = m_out.find(key);
        if (value == nullptr) return;
        const error_where where{.file = m_file, .offset = value->offset(), .subject = std::string(key)};
        if (value->type() != gguf_type::uint32)
            fail(errc::wrong_type, "metadata of another type: expected uint32, got " + value->type_name(), where);
        m_out.alignment = value->to<std::uint32_t>(where);
        if (!std::has_single_bit(m_out.alignment))
            fail(errc::bad_value, concat({"not an alignment: expected a power of two, got ", m_out.alignment}), where);
    }

    void read_tensors(std::uint64_t count) {
        check_count("tensor count", count, m_short ? 20 : 24);
        reserve(m_out.tensors, count, m_short ? 20 : 24);
        for (std::uint64_t i = 0; i < count; ++i) read_tensor(i);
        m_infos_end = m_reader.offset();
    }

    // Leaves the offset relative to the data, whose start is known only after the last info.
    void read_tensor(std::uint64_t number) {
        tensor_info info;
        info.name = read_name("tensor", number, gguf_max_name_bytes);
        const std::uint64_t at_shape = m_reader.offset();
        const auto dimensions = m_reader.read<std::uint32_t>(info.name);
        if (dimensions > gguf_max_dimensions)
            fail(errc::corrupt_header,
                 concat({"too many dimensions: expected at most ", gguf_max_dimensions, ", got ", dimensions}),
                 place(at_shape, info.name));
        info.shape.resize(dimensions);
        for (std::uint32_t i = 0; i < dimensions; ++i) info.shape[dimensions - 1 - i] = read_length(info.name);
        const std::uint64_t at_type = m_reader.offset();
        const auto type = m_reader.read<std::uint32_t>(info.name);
        const dtype_traits* traits = find_ggml_dtype(type);
        info.type = traits != nullptr ? traits->type : dtype_from_ggml(type, place(at_type, info.name));
        info.size_bytes = stored_size(info, at_shape);
        const std::uint64_t at_offset = m_reader.offset();
        info.offset = m_reader.read<std::uint64_t>(info.name);
        if (info.offset % m_out.alignment != 0)
            fail(errc::misaligned,
                 concat({"misaligned data: expected a multiple of ", m_out.alignment, ", got ", info.offset}),
                 place(at_offset, info.name));
        m_out.tensors.push_back(std::move(info));
    }

    [[nodiscard]] std::uint64_t stored_size(const tensor_info& info, std::uint64_t at_shape) const {
        constexpr std::uint64_t limit = std::uint64_t{1} << 63;
        std::uint64_t elements = 1;
        for (auto extent = info.shape.rbegin(); extent != info.shape.rend(); ++extent) {  // in stored order
            const auto product = checked_multiply(elements, *extent);
            if (*extent >= limit || !product || *product >= limit)
                fail(errc::corrupt_header,
                     concat({"too large: expected fewer than 2^63 elements, got a dimension of ", *extent, " times ",
                             elements}),
                     place(at_shape, info.name));
            elements = *product;
        }
        const dtype_traits& traits = traits_of(info.type);
        if (info.columns() % traits.block_elements != 0)
            fail(errc::shape_mismatch,
                 concat({"a row is no whole number of blocks: expected a multiple of ", traits.block_elements, " for ",
                         traits.name, ", got ", info.columns()}),
                 place(at_shape, info.name));
        const auto size = checked_multiply(elements / traits.block_elements, traits.block_bytes);
        if (!size)
            fail(errc::corrupt_header,
                 concat({"too large: expected a size below 2^64 bytes, got ", elements, " elements of ", traits.name}),
                 place(at_shape, info.name));
        return *size;
    }

    void place_tensors() {
        const auto start = checked_align(m_infos_end, m_out.alignment);
        m_out.data_offset = start.value_or(m_infos_end);
        if (m_out.tensors.empty()) return refuse_joined_file(m_infos_end);
        if (!start || *start > m_memory.file_size())
            fail(errc::truncated,
                 concat({"the file ends before the tensor data: expected it at byte ", start.value_or(UINT64_MAX),
                         ", got ", m_memory.file_size(), " bytes"}),
                 {.file = m_file, .offset = m_infos_end});
        check_bounds();
        for (tensor_info& info : m_out.tensors) info.offset += m_out.data_offset;
        refuse_joined_file(check_overlaps());
    }

    void check_bounds() const {
        const std::uint64_t held = m_memory.file_size() - m_out.data_offset;
        const tensor_info* first = nullptr;
        std::uint64_t needed = held;
        for (const tensor_info& info : m_out.tensors) {
            const auto end = checked_add(info.offset, info.size_bytes);
            if (!end || !checked_add(*end, m_out.data_offset))
                fail(errc::offset_out_of_range,
                     concat({"data beyond any file: expected an end below 2^64, got offset ", info.offset, " and size ",
                             info.size_bytes}),
                     {.file = m_file, .offset = m_infos_end, .subject = std::string(info.name)});
            if (*end <= held) continue;
            if (first == nullptr) first = &info;
            needed = std::max(needed, *end);
        }
        if (first != nullptr)
            fail(errc::truncated,
                 concat({"the file is cut short: expected ", m_out.data_offset + needed, " bytes, got ",
                         m_memory.file_size(), ": ", needed - held, " bytes are missing"}),
                 {.file = m_file, .offset = m_out.data_offset + first->offset, .subject = std::string(first->name)});
    }

    // Returns the end of the last tensor.
    std::uint64_t check_overlaps() const {
        const auto& tensors = m_out.tensors;
        std::vector<std::uint32_t> order(tensors.size());  // a header has room for no more than 2^24
        std::iota(order.begin(), order.end(), std::uint32_t{0});
        std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
            return tensors[a].offset != tensors[b].offset ? tensors[a].offset < tensors[b].offset
                                                          : tensors[a].size_bytes < tensors[b].size_bytes;
        });
        std::uint64_t end = m_out.data_offset;
        const tensor_info* before = nullptr;
        for (const std::uint32_t i : order) {
            const tensor_info& info = tensors[i];
            if (info.size_bytes == 0) continue;
            if (info.offset < end)
                fail(errc::offset_out_of_range,
                     concat({"overlaps tensor ", quoted_name(before->name), ": expected a start at or after byte ", end,
                             ", got ", info.offset}),
                     {.file = m_file, .offset = info.offset, .subject = std::string(info.name)});
            end = info.offset + info.size_bytes;
            before = &info;
        }
        return end;
    }

    // Shards joined with `cat` look like a file with trailing bytes, which is allowed; reading only the first part of
    // the model would be silent damage.
    void refuse_joined_file(std::uint64_t end) const {
        for (const std::uint64_t at : {end, checked_align(end, m_out.alignment).value_or(end)}) {
            if (at > m_memory.file_size() || m_memory.file_size() - at < gguf_magic.size()) continue;
            std::string next(gguf_magic.size(), '\0');
            m_memory.peek(at, std::as_writable_bytes(std::span(next)));
            if (next == gguf_magic)
                fail(errc::corrupt_header,
                     concat({"several GGUF files joined into one, as by cat: expected the end of the file at byte ", at,
                             ", got another \"GGUF\" header; split the file there, or download the "
                             "shards again and merge them with a GGUF-aware tool"}),
                     {.file = m_file, .offset = at});
        }
    }

    header_memory m_whole{std::span<const std::byte>{}};
    header_memory& m_memory;
    const std::string& m_file;
    byte_reader m_reader;
    gguf_contents m_out{};
    bool m_short = false;  // version 1: 32-bit counts, lengths and dimensions
    std::uint64_t m_infos_end = 0;
};

}  // namespace larql::detail

#endif
