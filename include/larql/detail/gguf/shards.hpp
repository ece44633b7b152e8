// SPDX-License-Identifier: Apache-2.0
//
// From the path that a user names to the files of one GGUF model, in order.
#ifndef LARQL_DETAIL_GGUF_SHARDS_HPP
#define LARQL_DETAIL_GGUF_SHARDS_HPP

#include <larql/detail/gguf/parse.hpp>
#include <larql/detail/io/input_file.hpp>
#include <larql/detail/io/shard_names.hpp>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
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
        fail(errc::missing_key, "split.count is " + std::to_string(*count) + " but split.no is absent",
             {.file = file, .subject = "split.no"});
    return {*number, *count};
}

/// The shard files of a set, first to last.
struct gguf_shard_set {
    std::vector<std::filesystem::path> files{};
    std::size_t given = 0;  ///< position of the file that the user named
};

inline std::optional<gguf_shard_set> gguf_set_at(const std::filesystem::path& path) {
    const auto name = parse_gguf_shard_name(path_text(path.filename()));
    if (!name) return std::nullopt;
    gguf_shard_set out;
    out.given = name->number - 1;
    for (std::uint32_t i = 1; i <= name->count; ++i)
        out.files.push_back(i == name->number ? path : path.parent_path() / std::filesystem::path(name->name_of(i)));
    return out;
}

inline const std::filesystem::path* first_missing(const gguf_shard_set& set) {
    for (const std::filesystem::path& file : set.files) {
        std::error_code ignored;
        if (!std::filesystem::exists(file, ignored)) return &file;
    }
    return nullptr;
}

/// Finds the files of the set that `path` belongs to. A symbolic link may stand among links to the other shards (as in
/// download caches) or point from elsewhere to a shard among its siblings, so each link on the way is looked at.
/// @throws error missing_shard naming the first absent file, bad_value if no name on the way says which shard it is
inline gguf_shard_set locate_gguf_shards(const std::filesystem::path& path, const gguf_split& split) {
    std::optional<gguf_shard_set> incomplete;
    std::filesystem::path at = path;
    for (int hops = 0; hops < 40; ++hops) {  // as many links as systems follow
        if (auto set = gguf_set_at(at)) {
            if (first_missing(*set) == nullptr) return std::move(*set);
            if (!incomplete) incomplete = std::move(set);
        }
        std::error_code code;
        const std::filesystem::path target = std::filesystem::read_symlink(at, code);
        if (code) break;
        at = target.is_absolute() ? target : at.parent_path() / target;
    }
    if (!incomplete)
        fail(errc::bad_value,
             "shard " + std::to_string(split.number + 1) + " of " + std::to_string(split.count) +
                 " by its metadata, but its name does not say so: expected a name that ends in "
                 "-<number>-of-<count>.gguf, got " +
                 path_text(path.filename()),
             {.file = path_text(path), .subject = "split.count"});
    fail(errc::missing_shard,
         "a shard is missing: expected " + std::to_string(incomplete->files.size()) + " files, of which " +
             path_text(first_missing(*incomplete)->filename()) + " is absent",
         {.file = path_text(*first_missing(*incomplete))});
}

/// The one model in a folder: its single file or any of its shards.
/// @throws error not_a_file if there is no .gguf file, bad_value if there are several models
inline std::filesystem::path find_gguf_in(const std::filesystem::path& folder) {
    std::vector<std::pair<std::filesystem::path, std::optional<gguf_shard_name>>> models;
    for (const std::filesystem::path& file : list_files(folder)) {
        const std::string name = path_text(file.filename());
        if (!name.ends_with(".gguf")) continue;
        auto shard = parse_gguf_shard_name(name);
        const bool known = shard && std::any_of(models.begin(), models.end(), [&](const auto& model) {
                               return model.second && model.second->same_set(*shard);
                           });
        if (!known) models.emplace_back(file, std::move(shard));
    }
    if (models.empty())
        fail(errc::not_a_file, "expected a GGUF model, got a folder without a .gguf file", {.file = path_text(folder)});
    if (models.size() > 1)
        fail(errc::bad_value,
             "which model? expected 1 GGUF model in the folder, got " + std::to_string(models.size()) + ", such as " +
                 path_text(models[0].first.filename()) + " and " + path_text(models[1].first.filename()) +
                 "; name the file",
             {.file = path_text(folder)});
    return models.front().first;
}

}  // namespace larql::detail

#endif
