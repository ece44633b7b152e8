// SPDX-License-Identifier: Apache-2.0
// An owner of maps has one owner: a copy would unmap twice.
// expect: deleted (function|constructor).*mapped_file
#include <larql/mapped_file.hpp>

#include <utility>

larql::mapped_file take(larql::mapped_file& file);
larql::mapped_file take(larql::mapped_file& file) {
#ifdef LARQL_FORBIDDEN
    return larql::mapped_file(file);
#else
    return larql::mapped_file(std::move(file));
#endif
}
