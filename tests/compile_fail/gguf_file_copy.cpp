// SPDX-License-Identifier: Apache-2.0
// An owner of maps has one owner: a copy would unmap twice.
// expect: deleted (function|constructor).*gguf_file
#include <larql/gguf.hpp>

#include <utility>

larql::gguf_file take(larql::gguf_file& file);
larql::gguf_file take(larql::gguf_file& file) {
#ifdef LARQL_FORBIDDEN
    return larql::gguf_file(file);
#else
    return larql::gguf_file(std::move(file));
#endif
}
