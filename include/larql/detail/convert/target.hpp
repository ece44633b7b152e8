// SPDX-License-Identifier: Apache-2.0
//
// What surrounds the tensors of a conversion: where it goes, what is there already, which files go along.
#ifndef LARQL_DETAIL_CONVERT_TARGET_HPP
#define LARQL_DETAIL_CONVERT_TARGET_HPP

#include <larql/checkpoint.hpp>
#include <larql/detail/checkpoint/files.hpp>
#include <larql/detail/convert/layout.hpp>
#include <larql/detail/convert/number_formats.hpp>
#include <larql/detail/convert/output_set.hpp>
#include <larql/detail/io/file_names.hpp>
#include <larql/detail/io/shard_names.hpp>
#include <larql/detail/safetensors/index.hpp>
#include <larql/error.hpp>

#include <algorithm>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace larql::detail {

/// Where a conversion goes.
struct conversion_target {
    std::filesystem::path folder;
    std::string gguf_name;  ///< of the file, or of the set with its ending
    std::string journal_name = "larql-journal";

    /// @param path  a folder; for GGUF also the name of a file, which ends in .gguf
    conversion_target(const std::filesystem::path& path, container kind) : folder(path), gguf_name("model.gguf") {
        std::error_code ignored;
        if (kind != container::gguf || path.extension() != ".gguf" || std::filesystem::is_directory(path, ignored))
            return;
        folder = path.has_parent_path() ? path.parent_path() : ".";
        gguf_name = path_text(path.filename());
        journal_name = gguf_name + ".larql-journal";
    }
};

/// Whether a file's name says that it holds weights, or what describes them in another container.
inline bool is_weight_file(std::string_view name) {
    for (const std::string_view ending :
         {".safetensors", ".safetensors.index.json", ".gguf", ".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".h5",
          ".msgpack", ".onnx", ".npz", part_ending, old_ending})
        if (name.ends_with(ending)) return true;
    return name == "config.json" || name == "params.json" || name.find("larql-journal") != name.npos;
}

/// The files beside the weights of a model in transformers' layout: tokenizer, templates, code, licence.
inline std::vector<std::pair<std::string, std::filesystem::path>> files_beside(const checkpoint& source) {
    std::vector<std::pair<std::string, std::filesystem::path>> files;
    if (source.gguf() != nullptr || source.shard_count() == 0) return files;
    std::filesystem::path folder = path_from_text(source.shard_path(0)).parent_path();
    if (folder.empty()) folder = ".";
    for (const std::string& name : names_in(folder)) {
        const std::filesystem::path path = folder / path_from_text(name);
        std::error_code ignored;
        if (name.starts_with('.') || is_weight_file(name) || !std::filesystem::is_regular_file(path, ignored)) continue;
        files.emplace_back(name, path);
    }
    return files;
}

/// Refuses a target in which something would be written over the source.
inline void refuse_source(const checkpoint& source, const conversion_target& target, container kind,
                          std::span<const std::string> names) {
    const auto same = [](const std::filesystem::path& a, const std::filesystem::path& b) {
        std::error_code ignored;
        return std::filesystem::equivalent(a, b, ignored);
    };
    std::vector<std::filesystem::path> inputs = source.paths();
    inputs.push_back(path_from_text(source.path()));
    for (const std::filesystem::path& input : inputs) {
        std::error_code ignored;
        const std::filesystem::path parent = input.has_parent_path() ? input.parent_path() : ".";
        if (kind != container::gguf && (same(target.folder, parent) || same(target.folder, input)))
            fail(errc::already_exists, "the output folder is the folder of the input",
                 {.file = path_text(target.folder)});
        for (const std::string& name : names)
            if (same(target.folder / path_from_text(name), input))
                fail(errc::already_exists, "the output is the same file as the input " + path_text(input),
                     {.file = path_text(target.folder / path_from_text(name))});
    }
}

/// What is in the target's place: files with planned names, and those of the model that is there. Its description comes
/// first, without which there is no model.
/// @throws error errc::already_exists unless it may be replaced, errc::not_a_file for what is no regular file
inline std::vector<std::string> old_files(const conversion_target& target, container kind,
                                          std::span<const std::string> planned, bool replace) {
    std::vector<std::string> found;
    const auto add = [&](const std::string& name) {
        if (std::ranges::find(found, name) == found.end()) found.push_back(name);
    };
    const std::vector<std::string> there = names_in(target.folder);
    const auto exists = [&](const std::string& name) { return std::ranges::binary_search(there, name); };
    const bool folder = kind != container::gguf;
    const std::string index = "model.safetensors.index.json";
    for (const std::string& name : {std::string("config.json"), std::string("index.json"), index})
        if (folder && exists(name)) add(name);
    if (folder && exists(index)) {
        try {
            const safetensors_index old =
                parse_safetensors_index(read_text_file(target.folder / index), path_text(target.folder / index));
            for (const std::string& shard : old.shards)
                if (exists(shard)) add(shard);
        } catch (const error& e) {
            if (e.code() == errc::io || e.code() == errc::source_changed) throw;
            // Else it is no index of anything that could be removed.
        }
    }
    const std::string prefix = target.gguf_name.substr(0, target.gguf_name.size() - std::string_view(".gguf").size());
    for (const std::string& name : there) {
        const auto shard = parse_shard_name(name, ".gguf");
        const bool of_set = !folder && shard && shard->prefix == prefix;
        const bool of_model = folder && (name == "model.safetensors" || name == "weight_manifest.json");
        if (of_set || of_model || std::ranges::find(planned, name) != planned.end()) add(name);
        if (folder && !replace && name.ends_with(".safetensors")) add(name);
    }
    if (!folder && exists(target.gguf_name)) add(target.gguf_name);
    if (!found.empty() && !replace)
        fail(errc::already_exists, "a model is already there, and replacing it was not asked for",
             {.file = path_text(target.folder / path_from_text(found.front()))});
    for (const std::string& name : found) {
        const std::filesystem::path path = target.folder / path_from_text(name);
        std::error_code ignored;
        if (!std::filesystem::is_regular_file(std::filesystem::symlink_status(path, ignored)))
            fail(errc::not_a_file, "expected a regular file to replace, got something else", {.file = path_text(path)});
    }
    return found;
}

}  // namespace larql::detail

#endif
