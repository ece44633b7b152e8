// SPDX-License-Identifier: Apache-2.0
// A reader of weights takes over a temporary file, but it cannot take over a constant one.
// expect: deleted (function|constructor).*weight_reader
#include <larql/weight_reader.hpp>

void use(const char* path);
void use(const char* path) {
#ifdef LARQL_FORBIDDEN
    const auto file = larql::gguf_file::open(path);
    const larql::weight_reader reader(std::move(file));
#else
    auto file = larql::gguf_file::open(path);
    const larql::weight_reader reader(std::move(file));
#endif
}
