// SPDX-License-Identifier: Apache-2.0
//
// Bounds-checked little-endian reading and checked 64-bit arithmetic: every number that comes from a file passes here.
#ifndef LARQL_DETAIL_IO_BYTE_READER_HPP
#define LARQL_DETAIL_IO_BYTE_READER_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/io/header_memory.hpp>
#include <larql/error.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace larql::detail {

/// a * b, or nothing if the product does not fit 64 bits.
constexpr std::optional<std::uint64_t> checked_multiply(std::uint64_t a, std::uint64_t b) noexcept {
    if (b != 0 && a > UINT64_MAX / b) return std::nullopt;
    return a * b;
}

/// a + b, or nothing if the sum does not fit 64 bits.
constexpr std::optional<std::uint64_t> checked_add(std::uint64_t a, std::uint64_t b) noexcept {
    if (a > UINT64_MAX - b) return std::nullopt;
    return a + b;
}

/// The smallest multiple of `alignment` (a power of two) that is at least `value`; nothing if it does not fit 64 bits.
constexpr std::optional<std::uint64_t> checked_align(std::uint64_t value, std::uint64_t alignment) noexcept {
    const auto sum = checked_add(value, alignment - 1);
    if (!sum) return std::nullopt;
    return *sum & ~(alignment - 1);
}

/// The little-endian number of type T at `from`, which need not be aligned.
template <class T>
    requires std::is_arithmetic_v<T>
T load_little_endian(const std::byte* from) noexcept {
    T value;
    std::memcpy(&value, from, sizeof(T));
    return value;
}

/// A cursor over bytes that belong to a file. Reading past the end throws errc::truncated with both numbers. It views
/// the bytes, or the memory that they are read into, and the file's name; both must outlive it.
class byte_reader {
public:
    /// @param bytes  what may be read
    /// @param file   name for errors
    /// @param base   bytes from the start of the file to `bytes`
    byte_reader(std::span<const std::byte> bytes, const std::string& file, std::uint64_t base = 0) noexcept
        : m_begin(bytes.data()), m_size(bytes.size()), m_ready(bytes.size()), m_base(base), m_file(&file) {}
    /// Reads a file from its beginning, into this memory, as far as the cursor goes.
    byte_reader(header_memory& memory, const std::string& file) noexcept
        : m_begin(memory.data()),
          m_size(memory.file_size()),
          m_ready(memory.loaded()),
          m_base(0),
          m_file(&file),
          m_memory(&memory) {}

    /// Bytes from the start of the file to the cursor.
    [[nodiscard]] std::uint64_t offset() const noexcept { return m_base + m_position; }
    [[nodiscard]] std::uint64_t remaining() const noexcept { return m_size - m_position; }
    [[nodiscard]] const std::string& file() const noexcept { return *m_file; }

    /// The place of the cursor, for errors.
    [[nodiscard]] error_where where(std::string_view subject) const {
        return {.file = *m_file, .offset = offset(), .subject = std::string(subject)};
    }

    /// @param what  what is being read, for the error
    template <class T>
    T read(std::string_view what) {
        const std::byte* from = take(sizeof(T), what);
        return load_little_endian<T>(from);
    }

    std::string_view read_text(std::uint64_t length, std::string_view what) {
        const std::byte* from = take(length, what);
        return {reinterpret_cast<const char*>(from), static_cast<std::size_t>(length)};
    }

    void skip(std::uint64_t length, std::string_view what) { take(length, what); }

    /// The next bytes, behind which the cursor then stands.
    const std::byte* take(std::uint64_t length, std::string_view what) {
        if (length > m_ready - m_position) fetch(length, what);
        const std::byte* from = m_begin + m_position;
        m_position += static_cast<std::size_t>(length);
        return from;
    }

private:
#if defined(__GNUC__)
    __attribute__((noinline, cold))
#endif
    void
    fetch(std::uint64_t length, std::string_view what) {
        if (length > m_size - m_position) fail_truncated(length, what);
        m_memory->load(m_position + length, where(what));
        m_ready = m_memory->loaded();
    }

    [[noreturn]]
#if defined(__GNUC__)
    __attribute__((noinline, cold))
#endif
    void
    fail_truncated(std::uint64_t length, std::string_view what) const {
        fail(errc::truncated,
             concat({"the file ends within the header: expected ", length, " more bytes, got ", remaining()}),
             where(what));
    }

    const std::byte* m_begin;
    std::uint64_t m_size;
    std::size_t m_ready;  // up to here there are bytes behind m_begin
    std::size_t m_position = 0;
    std::uint64_t m_base;
    const std::string* m_file;
    header_memory* m_memory = nullptr;  // null: all bytes are there
};

}  // namespace larql::detail

#endif
