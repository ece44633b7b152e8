// SPDX-License-Identifier: Apache-2.0
//
// From the path that a user names to the files of one GGUF model, in order.
#ifndef LARQL_DETAIL_GGUF_SHARDS_HPP
#define LARQL_DETAIL_GGUF_SHARDS_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/gguf/parse.hpp>
#include <larql/detail/io/input_file.hpp>
#include <larql/detail/io/shard_names.hpp>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// What a file says about its place in a set: `split.no` counts from 0.
struct gguf_split {
    std::uint64_t number = 0;
    std::uint64_t count = 0;  ///< 0 if the file stands alone
};

/// An integer of any stored type, or nothing if the key is absent.
inline std::optional<std::uint64_t> find_gguf_integer(const gguf_contents& contents, const std::string& file,
                                                      std::string_view key) {
    const gguf_value* value = contents.find(key);
    if (value == nullptr) return std::nullopt;
    return value->to<std::uint64_t>({.file = file, .offset = value->offset(), .subject = std::string(key)});
}

inline gguf_split read_gguf_split(const gguf_contents& contents, const std::string& file) {
    const auto count = find_gguf_integer(contents, file, "split.count");
    const auto number = find_gguf_integer(contents, file, "split.no");
    if (count.value_or(0) == 0) return {};  // merging tools leave a count of 0 behind
    if (!number)
        fail(errc::missing_key, concat({"split.count is ", *count, " but split.no is absent"}),
             {.file = file, .subject = "split.no"});
    return {*number, *count};
}

inline constexpr std::string_view gguf_ending = ".gguf";

/// Finds the files of the set that `path` belongs to.
/// @throws error missing_shard naming the first absent file, bad_value if no name on the way says which shard it is
inline shard_set locate_gguf_shards(const std::filesystem::path& path, const gguf_split& split) {
    std::optional<shard_set> found = find_shard_set(path, gguf_ending);
    if (!found)
        fail(errc::bad_value,
             concat({"shard ", split.number + 1, " of ", split.count,
                     " by its metadata, but its name does not say so: expected a name that ends in "
                     "-<number>-of-<count>.gguf, got ",
                     path_text(path.filename())}),
             {.file = path_text(path), .subject = "split.count"});
    const std::filesystem::path* missing = first_missing(*found);
    if (missing == nullptr) return *std::move(found);
    fail(errc::missing_shard,
         concat({"a shard is missing: expected ", found->files.size(), " files, of which ",
                 path_text(missing->filename()), " is absent"}),
         {.file = path_text(*missing)});
}

/// The one model in a folder: its single file or any of its shards.
/// @throws error not_a_file if there is no .gguf file, bad_value if there are several models
inline std::filesystem::path find_gguf_in(const std::filesystem::path& folder) {
    std::vector<std::pair<std::filesystem::path, std::optional<shard_name>>> models;
    for (const std::filesystem::path& file : list_files(folder)) {
        const std::string name = path_text(file.filename());
        if (!name.ends_with(".gguf")) continue;
        auto shard = parse_shard_name(name, gguf_ending);
        const bool known = shard && std::any_of(models.begin(), models.end(), [&](const auto& model) {
                               return model.second && model.second->same_set(*shard);
                           });
        if (!known) models.emplace_back(file, std::move(shard));
    }
    if (models.empty())
        fail(errc::not_a_file, "expected a GGUF model, got a folder without a .gguf file", {.file = path_text(folder)});
    if (models.size() > 1)
        fail(errc::bad_value,
             concat({"which model? expected 1 GGUF model in the folder, got ", models.size(), ", such as ",
                     path_text(models[0].first.filename()), " and ", path_text(models[1].first.filename()),
                     "; name the file"}),
             {.file = path_text(folder)});
    return models.front().first;
}

}  // namespace larql::detail

#endif
