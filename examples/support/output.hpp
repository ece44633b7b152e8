// SPDX-License-Identifier: Apache-2.0
//
// What a program may write over: what the same program made, or whatever regular file --force allows; never an input.
#ifndef LARQL_EXAMPLES_SUPPORT_OUTPUT_HPP
#define LARQL_EXAMPLES_SUPPORT_OUTPUT_HPP

#include <larql/checkpoint.hpp>
#include <larql/safetensors.hpp>
#include <larql/safetensors_writer.hpp>

#include <filesystem>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace larql::program {

/// The metadata key that says which program made a file.
inline constexpr const char* made_by = "made_by";

/// Whether a file is one that `program` made, or an empty one that waits for it.
inline bool is_own_output(const std::string& path, const std::string& program) {
    std::error_code unknown;
    if (!std::filesystem::is_regular_file(path, unknown)) return false;
    if (std::filesystem::file_size(path, unknown) == 0) return true;
    try {
        const safetensors_file file = safetensors_file::open(path);
        const auto found = file.metadata().find(made_by);
        return found != file.metadata().end() && found->second == program;
    } catch (const error&) {
        return false;
    }
}

/// A writer for `path`, which says who made the file.
/// @param inputs  files beside the model's that are read
inline safetensors_writer open_output(const std::string& path, const std::string& program, bool force,
                                      const checkpoint& model, const std::vector<std::string>& inputs) {
    std::vector<std::filesystem::path> all = model.paths();
    for (const std::string& input : inputs)
        if (!input.empty()) all.emplace_back(input);
    safetensors_writer writer(path, {.replace = force || is_own_output(path, program), .inputs = std::move(all)});
    writer.set_metadata(made_by, program);
    return writer;
}

}  // namespace larql::program

#endif
