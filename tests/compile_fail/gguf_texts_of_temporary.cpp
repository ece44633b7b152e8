// SPDX-License-Identifier: Apache-2.0
// An array of views needs a file that stays open, an array of numbers does not.
// expect: deleted (member )?function.*find
#include <larql/gguf.hpp>

#include <string_view>
#include <vector>

bool has_tokens(const char* path);
bool has_tokens(const char* path) {
#ifdef LARQL_FORBIDDEN
    return larql::gguf_file::open(path).find<std::vector<std::string_view>>("tokenizer.ggml.tokens").has_value();
#else
    return larql::gguf_file::open(path).find<std::vector<int>>("tokenizer.ggml.token_type").has_value();
#endif
}
