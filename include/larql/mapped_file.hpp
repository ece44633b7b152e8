// SPDX-License-Identifier: Apache-2.0
//
// A read-only memory map of a whole file, on POSIX systems and Windows.
#ifndef LARQL_MAPPED_FILE_HPP
#define LARQL_MAPPED_FILE_HPP

#include <larql/detail/io/input_file.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>
#include <utility>

namespace larql {

/// A file in memory. Move-only; the bytes stay at their address when the object moves.
///
/// The map shows the file, not a copy. If another process shortens the file, touching the missing pages raises a signal
/// (SIGBUS) that a library cannot catch on behalf of its user; `verify_unchanged` before and after a long piece of work
/// tells whether the file stayed as it was. Reading functions of the checkpoint classes that fill the caller's memory
/// use ordinary reads instead and report such a file as an error.
class mapped_file {
public:
    /// Maps `path`, which may be a symbolic link. Only a regular file is accepted; a FIFO does not block.
    /// @throws error io if the system refuses, not_a_file for a directory, FIFO, device or socket
    static mapped_file open(const std::filesystem::path& path) {
        const detail::input_file file = detail::input_file::open(path);
        return mapped_file(file, path);
    }

    mapped_file(mapped_file&& other) noexcept
        : m_data(std::exchange(other.m_data, nullptr)),
          m_identity(std::exchange(other.m_identity, {})),
          m_path(std::move(other.m_path)),
          m_absolute(std::move(other.m_absolute)) {}
    mapped_file& operator=(mapped_file&& other) noexcept {
        std::swap(m_data, other.m_data);
        std::swap(m_identity, other.m_identity);
        std::swap(m_path, other.m_path);
        std::swap(m_absolute, other.m_absolute);
        return *this;
    }
    mapped_file(const mapped_file&) = delete;
    mapped_file& operator=(const mapped_file&) = delete;
    ~mapped_file() { detail::input_file::unmap(m_data, m_identity.size_bytes); }

    /// All bytes of the file, valid while this object, or the one that it was moved to, lives.
    [[nodiscard]] std::span<const std::byte> bytes() const& noexcept {
        return {m_data, static_cast<std::size_t>(m_identity.size_bytes)};
    }
    std::span<const std::byte> bytes() const&& = delete;  // the map would be gone at the end of the statement

    [[nodiscard]] const std::string& path() const& noexcept { return m_path; }
    const std::string& path() const&& = delete;
    [[nodiscard]] std::uint64_t size_bytes() const noexcept { return m_identity.size_bytes; }

    /// Checks that the path still names the file that was mapped, with the same size and modification time.
    /// @throws error source_changed if not
    void verify_unchanged() const { (void)reopen(); }

    /// The same file for ordinary reads, after the same check.
    [[nodiscard]] detail::input_file reopen() const { return detail::open_unchanged(m_absolute, m_identity); }
    [[nodiscard]] const detail::file_identity& identity() const& noexcept { return m_identity; }
    const detail::file_identity& identity() const&& = delete;

private:
    mapped_file(const detail::input_file& file, const std::filesystem::path& path)
        : m_identity(file.identity()), m_path(detail::path_text(path)) {
        std::error_code ignored;
        m_absolute = std::filesystem::absolute(path, ignored);
        if (ignored) m_absolute = path;
        m_data = file.map();  // last: nothing after it can throw and leak the map
    }

    const std::byte* m_data = nullptr;
    detail::file_identity m_identity{};
    std::string m_path;
    std::filesystem::path m_absolute;
};

}  // namespace larql

#endif
