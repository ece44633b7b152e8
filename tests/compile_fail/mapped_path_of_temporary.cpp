// SPDX-License-Identifier: Apache-2.0
// The path that a map hands out is a part of it.
// expect: deleted (member )?function.*path
#include <larql/mapped_file.hpp>

std::size_t length(const char* path);
std::size_t length(const char* path) {
#ifdef LARQL_FORBIDDEN
    return larql::mapped_file::open(path).path().size();
#else
    const auto file = larql::mapped_file::open(path);
    return file.path().size();
#endif
}
