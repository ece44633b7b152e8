// SPDX-License-Identifier: Apache-2.0
//
// What the parts of a conversion leave for the one that joins them: their journals, with a sum of every file.
#ifndef LARQL_DETAIL_CONVERT_PART_RECORDS_HPP
#define LARQL_DETAIL_CONVERT_PART_RECORDS_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/convert/journal.hpp>
#include <larql/detail/convert/row_runner.hpp>
#include <larql/detail/io/file_names.hpp>
#include <larql/detail/io/input_file.hpp>
#include <larql/detail/io/sha256.hpp>
#include <larql/detail/safetensors/index.hpp>
#include <larql/error.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace larql::detail {

/// SHA-256 of a file, in hexadecimal digits.
inline std::string hash_of_file(const std::filesystem::path& path) {
    const input_file file = input_file::open(path);
    sha256 hash;
    std::vector<std::byte> bytes;
    for (std::uint64_t at = 0; at < file.size_bytes(); at += bytes.size()) {
        bytes.resize(static_cast<std::size_t>(std::min(written_piece_bytes, file.size_bytes() - at)));
        file.read_at(at, bytes);
        hash.update(bytes);
    }
    return hex_text(hash.finish());
}

/// How many parts have left records in a folder.
/// @throws error errc::missing_shard if there are none, or of conversions into different numbers of parts
inline std::size_t count_parts(const std::filesystem::path& folder, const std::string& journal_name) {
    std::set<std::size_t> counts;
    const std::string begin = journal_name + "-", between = "-of-";
    for (const std::string& name : names_in(folder)) {
        const std::size_t of = name.find(between, begin.size());
        if (!name.starts_with(begin) || of == name.npos) continue;
        std::size_t count = 0;
        const char* const first = name.data() + of + between.size();
        if (std::from_chars(first, name.data() + name.size(), count).ptr == name.data() + name.size())
            counts.insert(count);
    }
    if (counts.size() != 1)
        fail(errc::missing_shard,
             counts.empty() ? "no part has left a record here: run the parts first"
                            : "parts of different numbers of parts are here: say which with --part",
             {.file = path_text(folder)});
    return *counts.begin();
}

/// The finished files of all parts, by name.
/// @param path_of  the journal of a part, from 1
/// @throws error errc::missing_shard naming the part that is missing, unfinished, or of another conversion
inline std::map<std::string, finished_file> read_part_records(
    std::size_t count, std::string_view plan_print, const std::function<std::filesystem::path(std::size_t)>& path_of) {
    std::map<std::string, finished_file> records;
    for (std::size_t i = 1; i <= count; ++i) {
        const std::filesystem::path path = path_of(i);
        std::error_code ignored;
        std::optional<journal_content> content;
        if (std::filesystem::exists(path, ignored)) content = parse_journal(read_text_file(path));
        const auto refuse = [&](const std::string& why) {
            fail(errc::missing_shard, concat({"part ", i, " of ", count, " ", why}), {.file = path_text(path)});
        };
        if (!content) refuse("has left no record here: run it first");
        if (content->plan != plan_print) refuse("was made by another command, or from other files: run it again");
        if (!content->complete) refuse("is not finished: run it again with --resume");
        for (const auto& [name, finished] : content->finished) records[name] = finished;
    }
    return records;
}

}  // namespace larql::detail

#endif
