// SPDX-License-Identifier: Apache-2.0
// Views into a checkpoint do not outlive the statement that opened it.
// expect: deleted (member )?function.*at_tensor
#include <larql/safetensors.hpp>

std::size_t rank(const char* path);
std::size_t rank(const char* path) {
#ifdef LARQL_FORBIDDEN
    const larql::tensor_info& info = larql::safetensors_file::open(path).at_tensor("w");
#else
    const auto file = larql::safetensors_file::open(path);
    const larql::tensor_info& info = file.at_tensor("w");
#endif
    return info.shape.size();
}
