// SPDX-License-Identifier: Apache-2.0
//
// What is in a folder.
#ifndef LARQL_DETAIL_IO_FILE_NAMES_HPP
#define LARQL_DETAIL_IO_FILE_NAMES_HPP

#include <larql/detail/io/input_file.hpp>
#include <larql/error.hpp>

#include <algorithm>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

namespace larql::detail {

/// Names of files in a folder, sorted. Not those of its subfolders.
inline std::vector<std::string> names_in(const std::filesystem::path& folder) {
    std::vector<std::string> names;
    std::error_code problem;
    for (auto entry = std::filesystem::directory_iterator(folder, problem);
         !problem && entry != std::filesystem::directory_iterator(); entry.increment(problem))
        names.push_back(path_text(entry->path().filename()));
    if (problem && problem != std::errc::no_such_file_or_directory)
        fail(errc::io, "cannot list the folder: " + problem.message(), {.file = path_text(folder)});
    std::ranges::sort(names);
    return names;
}

}  // namespace larql::detail

#endif
