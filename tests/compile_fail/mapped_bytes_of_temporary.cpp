// SPDX-License-Identifier: Apache-2.0
// The bytes of a map do not outlive the map.
// expect: deleted (member )?function.*bytes
#include <larql/mapped_file.hpp>

std::span<const std::byte> all(larql::mapped_file& file);
std::span<const std::byte> all(larql::mapped_file& file) {
#ifdef LARQL_FORBIDDEN
    return std::move(file).bytes();
#else
    return file.bytes();
#endif
}
