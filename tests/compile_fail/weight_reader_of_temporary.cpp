// SPDX-License-Identifier: Apache-2.0
// A reader of weights refers to its file.
// expect: deleted (function|constructor).*weight_reader
#include <larql/weight_reader.hpp>

void use(const char* path);
void use(const char* path) {
#ifdef LARQL_FORBIDDEN
    const larql::weight_reader reader(larql::gguf_file::open(path));
#else
    const auto file = larql::gguf_file::open(path);
    const larql::weight_reader reader(file);
#endif
}
