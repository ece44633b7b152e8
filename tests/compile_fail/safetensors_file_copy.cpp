// SPDX-License-Identifier: Apache-2.0
// An owner of maps has one owner: a copy would unmap twice.
// expect: deleted (function|constructor).*safetensors_file
#include <larql/safetensors.hpp>

#include <utility>

larql::safetensors_file take(larql::safetensors_file& file);
larql::safetensors_file take(larql::safetensors_file& file) {
#ifdef LARQL_FORBIDDEN
    return larql::safetensors_file(file);
#else
    return larql::safetensors_file(std::move(file));
#endif
}
