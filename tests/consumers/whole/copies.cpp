// SPDX-License-Identifier: Apache-2.0
#include <larql/larql.hpp>

#include <filesystem>

bool copies(const larql::checkpoint& source, const std::filesystem::path& folder);

bool copies(const larql::checkpoint& source, const std::filesystem::path& folder) {
    larql::convert_to_safetensors(source, folder, {.form = larql::attention_form::factored, .replace = true});
    return larql::verify(source, larql::checkpoint::open(folder)).holds();
}
