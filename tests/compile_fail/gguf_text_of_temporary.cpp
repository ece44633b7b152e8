// SPDX-License-Identifier: Apache-2.0
// Text of the metadata lies in the file: a view of it needs a file that stays open. A copy does not.
// expect: deleted (member )?function.*get
#include <larql/gguf.hpp>

#include <string>
#include <string_view>

std::size_t length(const char* path);
std::size_t length(const char* path) {
#ifdef LARQL_FORBIDDEN
    const auto name = larql::gguf_file::open(path).get<std::string_view>("general.name");
#else
    const auto name = larql::gguf_file::open(path).get<std::string>("general.name");
#endif
    return name.size();
}
