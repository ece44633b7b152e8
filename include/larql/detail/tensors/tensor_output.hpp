// SPDX-License-Identifier: Apache-2.0
//
// What the writers of all formats share: tensors declared first, then filled piece by piece, then counted.
#ifndef LARQL_DETAIL_TENSORS_TENSOR_OUTPUT_HPP
#define LARQL_DETAIL_TENSORS_TENSOR_OUTPUT_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/io/byte_reader.hpp>
#include <larql/detail/io/name_index.hpp>
#include <larql/detail/io/output_file.hpp>
#include <larql/tensor_info.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// What a reader finds in a finished file, and whatever the names point into.
struct read_back {
    std::vector<tensor_info> tensors;
    std::shared_ptr<const void> owner;

    template <class Owner>
    read_back(std::vector<tensor_info> t, Owner o) : tensors(std::move(t)), owner(std::move(o)) {}
};

/// Declared tensors and the file that they go to.
class tensor_output {
public:
    tensor_output(std::filesystem::path target, const output_options& options)
        : m_file(std::make_unique<output_file>(std::move(target), options)) {}

    [[nodiscard]] error_where where(std::string_view subject = {}) const {
        return {.file = path_text(m_file->target()), .offset = {}, .subject = std::string(subject)};
    }
    [[nodiscard]] bool is_open() const noexcept { return m_open; }
    /// The declared tensors, whose order the format may change before `place`.
    [[nodiscard]] std::vector<tensor_info>& tensors() noexcept { return m_tensors; }
    [[nodiscard]] const std::vector<tensor_info>& tensors() const noexcept { return m_tensors; }

    void require_declaring() const {
        if (m_open) fail(errc::bad_value, "expected declarations before the first data, got one after it", where());
    }

    void declare(std::string_view name, dtype type, std::vector<std::uint64_t> shape) {
        require_declaring();
        const dtype_traits& traits = traits_of(type);
        std::uint64_t elements = 1;
        for (const std::uint64_t extent : shape) {
            const auto product = checked_multiply(elements, extent);
            if (!product || *product >= std::uint64_t{1} << 63)
                fail(errc::bad_value,
                     concat({"too large: expected fewer than 2^63 elements, got a dimension of ", extent, " times ",
                             elements}),
                     where(name));
            elements = *product;
        }
        const std::uint64_t columns = shape.empty() ? 1 : shape.back();
        if (columns % traits.block_elements != 0)
            fail(errc::shape_mismatch,
                 concat({"a row is no whole number of blocks: expected a multiple of ", traits.block_elements, " for ",
                         traits.name, ", got ", columns}),
                 where(name));
        const auto bytes = checked_multiply(elements / traits.block_elements, traits.block_bytes);
        if (!bytes || *bytes >= std::uint64_t{1} << 63)
            fail(errc::bad_value,
                 concat({"too large: expected fewer than 2^63 bytes, got ", elements, " elements of ", traits.name}),
                 where(name));
        m_names.emplace_back(name);
        m_tensors.push_back({.name = m_names.back(),
                             .shape = std::move(shape),
                             .type = type,
                             .shard = 0,
                             .offset = 0,
                             .size_bytes = *bytes});
    }

    /// Ends the declarations: gives each tensor its offset from the start of the data, a multiple of `alignment`.
    /// @throws error duplicate_name if a name was declared twice, limit_exceeded
    void place(std::uint64_t alignment) {
        const auto twice = m_index.build(m_tensors.size(), [this](std::size_t i) { return m_tensors[i].name; });
        if (twice) fail(errc::duplicate_name, "tensor declared twice", where(m_tensors[twice->first].name));
        std::uint64_t end = 0;
        for (tensor_info& info : m_tensors) {
            info.offset = end;
            const auto next = checked_add(end, info.size_bytes);
            const auto aligned = next ? checked_align(*next, alignment) : next;
            if (!aligned || *aligned >= std::uint64_t{1} << 63)
                fail(errc::limit_exceeded,
                     concat({"expected fewer than 2^63 bytes of data, got ", end, " + ", info.size_bytes}),
                     where(info.name));
            end = *aligned;
        }
        m_size_bytes = end;
    }

    /// Begins the file with its header, after which the data follows.
    void open(std::string_view header) {
        for (tensor_info& info : m_tensors) info.offset += header.size();
        m_size_bytes += header.size();
        m_written.assign(m_tensors.size(), 0);
        m_open = true;
        m_file->write_at(0, std::as_bytes(std::span(header.data(), header.size())));
    }

    void append(std::string_view name, std::span<const std::byte> bytes) {
        const auto at = m_index.find(name, [this](std::size_t i) { return m_tensors[i].name; });
        if (!at) fail(errc::missing_tensor, "expected a declared tensor, got another name", where(name));
        const tensor_info& info = m_tensors[*at];
        std::uint64_t& written = m_written[*at];
        if (bytes.size() > info.size_bytes - written)
            fail(errc::bad_value,
                 concat({"more data than declared: expected at most ", info.size_bytes - written, " more bytes, got ",
                         bytes.size()}),
                 where(name));
        m_file->write_at(info.offset + written, bytes);
        written += bytes.size();
    }

    /// Completes the file. `reader(path)` gives the read_back of it.
    template <class Reader>
    void commit(const Reader& reader) {
        for (std::size_t i = 0; i < m_tensors.size(); ++i)
            if (m_written[i] != m_tensors[i].size_bytes)
                fail(errc::bad_value,
                     concat({"incomplete: expected ", m_tensors[i].size_bytes, " bytes of data, got ", m_written[i]}),
                     where(m_tensors[i].name));
        m_file->finish(m_size_bytes);
        try {
            check(reader(m_file->temporary()).tensors);
        } catch (...) {
            m_file->discard();
            throw;
        }
        m_file->publish();
    }

private:
    void check(const std::vector<tensor_info>& found) const {
        bool same = found.size() == m_tensors.size();
        for (std::size_t i = 0; same && i < found.size(); ++i) {
            const auto at = m_index.find(found[i].name, [this](std::size_t k) { return m_tensors[k].name; });
            same = at && m_tensors[*at].shape == found[i].shape && m_tensors[*at].type == found[i].type &&
                   m_tensors[*at].offset == found[i].offset;
        }
        if (!same)
            fail(errc::source_changed,
                 concat({"the file does not read back as it was written: expected ", m_tensors.size(), " tensors, got ",
                         found.size(), " or others"}),
                 where());
    }

    std::unique_ptr<output_file> m_file;
    std::deque<std::string> m_names{};  // stable: the infos view them
    std::vector<tensor_info> m_tensors{};
    std::vector<std::uint64_t> m_written{};
    name_index m_index{};
    std::uint64_t m_size_bytes = 0;
    bool m_open = false;
};

}  // namespace larql::detail

#endif
