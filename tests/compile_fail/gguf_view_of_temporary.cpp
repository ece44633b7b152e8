// SPDX-License-Identifier: Apache-2.0
// Views into a checkpoint do not outlive the statement that opened it.
// expect: deleted (member )?function.*tensors
#include <larql/gguf.hpp>

std::size_t count(const char* path);
std::size_t count(const char* path) {
#ifdef LARQL_FORBIDDEN
    return larql::gguf_file::open(path).tensors().size();
#else
    const auto file = larql::gguf_file::open(path);
    return file.tensors().size();
#endif
}
