// SPDX-License-Identifier: Apache-2.0
// The configuration is a part of the checkpoint.
// expect: deleted (member )?function.*config
#include <larql/checkpoint.hpp>

std::size_t blocks(const char* path);
std::size_t blocks(const char* path) {
#ifdef LARQL_FORBIDDEN
    const auto& config = larql::checkpoint::open(path).config();
#else
    const auto model = larql::checkpoint::open(path);
    const auto& config = model.config();
#endif
    return config.num_hidden_layers;
}
