// SPDX-License-Identifier: Apache-2.0
// Factors read from their checkpoint as they are used.
// expect: deleted (member )?function.*factors
#include <larql/checkpoint.hpp>

std::size_t rank(const char* path);
std::size_t rank(const char* path) {
#ifdef LARQL_FORBIDDEN
    return larql::checkpoint::open(path).factors(0).kv_b.cols();
#else
    const auto model = larql::checkpoint::open(path);
    return model.factors(0).kv_b.cols();
#endif
}
