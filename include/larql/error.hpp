// SPDX-License-Identifier: Apache-2.0
//
// The one exception type of larql. Bad input and wrong shapes both throw larql::error; nothing in the library prints,
// aborts, or asserts on input.
#ifndef LARQL_ERROR_HPP
#define LARQL_ERROR_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/language.hpp>
#include <larql/printable.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace larql {

/// What went wrong, stable across versions: a code never changes its meaning.
enum class errc {
    io,                        ///< the operating system refused: open, stat, map, write, sync, rename
    not_a_file,                ///< the path is a directory, FIFO, device or socket where a regular file is needed
    truncated,                 ///< fewer bytes than the content declares
    bad_magic,                 ///< not the format that the caller asked for
    unsupported_version,       ///< a version or byte order of the format that larql does not read
    corrupt_header,            ///< the header breaks its own grammar
    duplicate_name,            ///< a tensor, key or shard appears twice
    unknown_dtype,             ///< a type number or name that no format defines
    unsupported_dtype,         ///< a known type or quantisation scheme that larql refuses by name
    offset_out_of_range,       ///< data lies outside its file, overlaps other data, or leaves a gap
    misaligned,                ///< an offset that is not a multiple of the declared alignment
    missing_key,               ///< a required metadata or configuration key is absent
    wrong_type,                ///< a value of another type than the one asked for
    bad_value,                 ///< a value outside what the format or model allows
    missing_tensor,            ///< a tensor that the model needs, or that an index names, is absent
    missing_shard,             ///< a file of a sharded checkpoint is absent
    shape_mismatch,            ///< sizes that must agree do not
    unsupported_architecture,  ///< a model that larql knows about and does not implement
    not_understood,            ///< a key, value or tensor that may change results and that larql does not know
    source_changed,            ///< a file changed or shrank while it was being read
    already_exists,            ///< an output exists and replacing it was not asked for
    limit_exceeded,            ///< a size beyond a documented limit
};

/// The name of a code, as in the enumeration.
inline std::string_view to_string(errc code) noexcept {
    switch (code) {
        case errc::io: return "io";
        case errc::not_a_file: return "not_a_file";
        case errc::truncated: return "truncated";
        case errc::bad_magic: return "bad_magic";
        case errc::unsupported_version: return "unsupported_version";
        case errc::corrupt_header: return "corrupt_header";
        case errc::duplicate_name: return "duplicate_name";
        case errc::unknown_dtype: return "unknown_dtype";
        case errc::unsupported_dtype: return "unsupported_dtype";
        case errc::offset_out_of_range: return "offset_out_of_range";
        case errc::misaligned: return "misaligned";
        case errc::missing_key: return "missing_key";
        case errc::wrong_type: return "wrong_type";
        case errc::bad_value: return "bad_value";
        case errc::missing_tensor: return "missing_tensor";
        case errc::missing_shard: return "missing_shard";
        case errc::shape_mismatch: return "shape_mismatch";
        case errc::unsupported_architecture: return "unsupported_architecture";
        case errc::not_understood: return "not_understood";
        case errc::source_changed: return "source_changed";
        case errc::already_exists: return "already_exists";
        case errc::limit_exceeded: return "limit_exceeded";
    }
    return "unknown";
}

/// Where an error was found. Every part is optional.
struct error_where {
    std::string file{};                     ///< path as the caller gave it, or the shard's path
    std::optional<std::uint64_t> offset{};  ///< bytes from the start of the file
    std::string subject{};                  ///< tensor, metadata key, JSON path or argument
};

/// The exception that every larql function throws.
///
/// what() is one line: `file @ byte: subject: problem`, leaving out what is not known. The problem states the two
/// numbers that disagree. Text from files is in it as `printable` makes it, a long subject cut short.
class error : public std::runtime_error {
public:
    error(errc code, const std::string& problem, error_where where = {})
        : std::runtime_error(format(problem, where)), m_code(code), m_where(std::move(where)), m_problem(problem) {}

    [[nodiscard]] errc code() const noexcept { return m_code; }
    [[nodiscard]] const std::string& file() const noexcept { return m_where.file; }
    [[nodiscard]] std::optional<std::uint64_t> offset() const noexcept { return m_where.offset; }
    [[nodiscard]] const std::string& subject() const noexcept { return m_where.subject; }
    /// The message without the place.
    [[nodiscard]] const std::string& problem() const noexcept { return m_problem; }

private:
    // Names come from hostile files.
    static std::string format(const std::string& problem, const error_where& where) {
        constexpr std::size_t limit = 4096;  // of a path on most systems, and no list of problems is as long
        std::string out = printable(where.file, limit);
        if (where.offset) out += (out.empty() ? "@ " : " @ ") + std::to_string(*where.offset);
        if (!out.empty()) out += ": ";
        if (!where.subject.empty()) {
            out += printable(where.subject, max_printable_name);
            out += ": ";
        }
        out += printable(problem, limit);
        return out;
    }

    errc m_code;
    error_where m_where;
    std::string m_problem;
};

namespace detail {

/// The single place that throws, out of line so that callers stay small.
[[noreturn]]
#if defined(__GNUC__)
__attribute__((noinline, cold))
#endif
inline void
fail(errc code, const std::string& problem, error_where where = {}) {
    throw error(code, problem, std::move(where));
}

}  // namespace detail
}  // namespace larql

#endif
