// SPDX-License-Identifier: Apache-2.0
//
// The bodies of verify.hpp.
#ifndef LARQL_DETAIL_BODIES_VERIFY_HPP
#define LARQL_DETAIL_BODIES_VERIFY_HPP

#include <larql/checkpoint.hpp>
#include <larql/detail/io/input_file.hpp>
#include <larql/detail/io/sha256.hpp>
#include <larql/detail/separate.hpp>
#include <larql/detail/verify/verification.hpp>
#include <larql/verify.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace larql {

LARQL_INLINE verify_report verify(const checkpoint& a, const checkpoint& b, const verify_options& options) {
    return detail::verification(a, b, options).run();
}

LARQL_INLINE std::string file_checksum(const std::filesystem::path& path) {
    constexpr std::uint64_t piece = std::uint64_t{1} << 20;
    const detail::input_file file = detail::input_file::open(path);
    std::vector<std::byte> buffer;
    detail::sha256 hash;
    for (std::uint64_t at = 0; at < file.size_bytes(); at += piece) {
        buffer.resize(static_cast<std::size_t>(std::min(piece, file.size_bytes() - at)));
        file.read_at(at, buffer);
        hash.update(buffer);
    }
    return detail::hex_text(hash.finish());
}

}  // namespace larql

#endif
