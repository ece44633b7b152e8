// SPDX-License-Identifier: Apache-2.0
//
// The beginning of a file in memory, read only as far as it is asked for. Its bytes stay where they are while more of
// them come, so that views of what was read first remain valid; and they stay what they are when the file changes.
#ifndef LARQL_DETAIL_IO_HEADER_MEMORY_HPP
#define LARQL_DETAIL_IO_HEADER_MEMORY_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/io/input_file.hpp>
#include <larql/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <new>
#include <span>
#include <string>
#include <utility>

namespace larql::detail {

/// No header is longer: ten times the largest that is published, which is all vocabulary.
inline constexpr std::uint64_t max_header_bytes = std::uint64_t{1} << 28;

/// Addresses for the whole of the longest header that a file can have, and memory behind those that were read.
/// Move-only.
class header_memory {
public:
    /// For bytes that are in memory already, all of them; views only.
    explicit header_memory(std::span<const std::byte> whole) noexcept
        : m_begin(const_cast<std::byte*>(whole.data())), m_file_size(whole.size()), m_loaded(whole.size()) {}

    /// Reserves, and reads nothing. The file must stay open while this object is asked for more.
    /// @throws std::bad_alloc
    explicit header_memory(const input_file& file)
        : m_file(&file),
          m_file_size(file.size_bytes()),
          m_reserved(static_cast<std::size_t>(std::min(file.size_bytes(), max_header_bytes))) {
        if (m_reserved != 0) m_begin = reserve(m_reserved);
    }

    header_memory(header_memory&& other) noexcept
        : m_file(std::exchange(other.m_file, nullptr)),
          m_begin(std::exchange(other.m_begin, nullptr)),
          m_file_size(std::exchange(other.m_file_size, 0)),
          m_loaded(std::exchange(other.m_loaded, 0)),
          m_reserved(std::exchange(other.m_reserved, 0)) {}
    header_memory& operator=(header_memory&& other) noexcept {
        std::swap(m_file, other.m_file);
        std::swap(m_begin, other.m_begin);
        std::swap(m_file_size, other.m_file_size);
        std::swap(m_loaded, other.m_loaded);
        std::swap(m_reserved, other.m_reserved);
        return *this;
    }
    header_memory(const header_memory&) = delete;
    header_memory& operator=(const header_memory&) = delete;
    ~header_memory() {
        if (m_reserved != 0) release(m_begin, m_reserved);
    }

    [[nodiscard]] const std::byte* data() const noexcept { return m_begin; }
    [[nodiscard]] std::uint64_t file_size() const noexcept { return m_file_size; }
    /// How many bytes from the first on may be looked at.
    [[nodiscard]] std::size_t loaded() const noexcept { return m_loaded; }

    /// Reads up to `end` at least, which is within the file, and a little beyond.
    /// @throws error limit_exceeded beyond the longest header, source_changed if the file became shorter
    void load(std::uint64_t end, const error_where& where) {
        if (end <= m_loaded) return;
        if (end > m_reserved)
            fail(errc::limit_exceeded,
                 concat({"the header is too long: expected at most ", max_header_bytes, " bytes, got at least ", end}),
                 where);
        // Ever larger steps: few reads for long headers, little beyond the end of short ones.
        const std::size_t step = std::clamp(m_loaded / 2, smallest_step, largest_step);
        const std::size_t wanted = std::max(static_cast<std::size_t>(end), m_loaded + step);
        const std::size_t until = std::min(wanted, m_reserved);
        commit(m_begin, m_loaded, until);
        m_file->read_at(m_loaded, std::span(m_begin + m_loaded, until - m_loaded));
        m_loaded = until;
    }

    /// Copies bytes from anywhere within the file.
    /// @throws error source_changed if the file became shorter
    void peek(std::uint64_t offset, std::span<std::byte> out) const {
        if (m_file != nullptr) return m_file->read_at(offset, out);
        std::copy_n(m_begin + offset, out.size(), out.data());
    }

    /// Ends the reading: the file may be closed, what was loaded stays, and the other addresses are given back.
    void detach() noexcept {
        m_file = nullptr;
        if (m_reserved != 0) m_reserved = trim(m_begin, m_loaded, m_reserved);
    }

private:
    static constexpr std::size_t smallest_step = std::size_t{1} << 15;
    static constexpr std::size_t largest_step = std::size_t{1} << 20;

    static std::byte* reserve(std::size_t size);
    static void commit(std::byte* begin, std::size_t from, std::size_t to);
    static std::size_t trim(std::byte* begin, std::size_t used, std::size_t size) noexcept;
    static void release(std::byte* begin, std::size_t size) noexcept;

    const input_file* m_file = nullptr;
    std::byte* m_begin = nullptr;
    std::uint64_t m_file_size = 0;
    std::size_t m_loaded = 0;
    std::size_t m_reserved = 0;  // 0: nothing to release
};

#if defined(_WIN32)

inline std::byte* header_memory::reserve(std::size_t size) {
    void* memory = ::VirtualAlloc(nullptr, size, MEM_RESERVE, PAGE_NOACCESS);
    if (memory == nullptr) throw std::bad_alloc();
    return static_cast<std::byte*>(memory);
}
inline void header_memory::commit(std::byte* begin, std::size_t from, std::size_t to) {
    if (::VirtualAlloc(begin + from, to - from, MEM_COMMIT, PAGE_READWRITE) == nullptr) throw std::bad_alloc();
}
inline std::size_t header_memory::trim(std::byte*, std::size_t, std::size_t size) noexcept { return size; }
inline void header_memory::release(std::byte* begin, std::size_t) noexcept { ::VirtualFree(begin, 0, MEM_RELEASE); }

#else

inline constexpr std::size_t large_page = std::size_t{1} << 21;
inline constexpr std::size_t header_in_small_pages = std::size_t{1} << 19;

/// The distance to the end of the large page that holds the last of `size` bytes.
inline std::size_t up_to_large_page(const std::byte* begin, std::size_t size) noexcept {
    const auto end = reinterpret_cast<std::uintptr_t>(begin + size) + large_page - 1;
    return static_cast<std::size_t>(end / large_page * large_page - reinterpret_cast<std::uintptr_t>(begin));
}

/// How much is mapped from `begin` on for so many bytes.
inline std::size_t mapped_header_bytes(const std::byte* begin, std::size_t size) noexcept {
    return size <= 2 * header_in_small_pages ? size : up_to_large_page(begin, size);
}

// What is reserved costs memory only as it is touched. Most of the time of reading a long header would go into faults
// of small pages, so that it stands in large ones from its first half mebibyte on; most headers are no longer than
// that.
inline std::byte* header_memory::reserve(std::size_t size) {
    int how = MAP_PRIVATE | MAP_ANONYMOUS;
#if defined(MAP_NORESERVE)
    how |= MAP_NORESERVE;
#endif
    const bool is_long = size > 2 * header_in_small_pages;
    const std::size_t room = is_long ? size + 2 * large_page : size;
    void* memory = ::mmap(nullptr, room, PROT_READ | PROT_WRITE, how, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    auto* const first = static_cast<std::byte*>(memory);
    if (!is_long) return first;
    const auto address = reinterpret_cast<std::uintptr_t>(first);
    const std::uintptr_t aligned = (address + header_in_small_pages + large_page - 1) / large_page * large_page;
    std::byte* const begin = first + (aligned - header_in_small_pages - address);
    std::byte* const end = begin + mapped_header_bytes(begin, size);
    if (begin != first) ::munmap(first, static_cast<std::size_t>(begin - first));
    if (end != first + room) ::munmap(end, static_cast<std::size_t>(first + room - end));
#if defined(MADV_HUGEPAGE)
    ::madvise(begin + header_in_small_pages, static_cast<std::size_t>(end - begin) - header_in_small_pages,
              MADV_HUGEPAGE);
#endif
    return begin;
}
inline void header_memory::commit(std::byte*, std::size_t, std::size_t) {}
inline std::size_t header_memory::trim(std::byte* begin, std::size_t used, std::size_t size) noexcept {
    const std::size_t kept = up_to_large_page(begin, used);  // half of one would be split
    if (kept >= size || ::munmap(begin + kept, mapped_header_bytes(begin, size) - kept) != 0) return size;
    return kept;
}
inline void header_memory::release(std::byte* begin, std::size_t size) noexcept {
    ::munmap(begin, mapped_header_bytes(begin, size));
}

#endif

}  // namespace larql::detail

#endif
