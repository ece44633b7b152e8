// SPDX-License-Identifier: Apache-2.0
// The tensors' names are text of the checkpoint.
// expect: deleted (member )?function.*tensors
#include <larql/checkpoint.hpp>

std::size_t count(const char* path);
std::size_t count(const char* path) {
#ifdef LARQL_FORBIDDEN
    return larql::checkpoint::open(path).tensors().size();
#else
    const auto model = larql::checkpoint::open(path);
    return model.tensors().size();
#endif
}
