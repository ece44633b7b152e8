// SPDX-License-Identifier: Apache-2.0
//
// model.safetensors.index.json: which shard holds which tensor.
#ifndef LARQL_DETAIL_SAFETENSORS_INDEX_HPP
#define LARQL_DETAIL_SAFETENSORS_INDEX_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/io/input_file.hpp>
#include <larql/detail/io/json_text.hpp>
#include <larql/detail/io/name_arena.hpp>
#include <larql/detail/io/shard_names.hpp>
#include <larql/detail/tensors/sharded_tensors.hpp>
#include <larql/printable.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace larql::detail {

inline constexpr std::uint64_t max_index_bytes = 1'000'000'000;  // a thousand times the largest that is published
inline constexpr std::uint64_t max_config_bytes = 16'000'000;    // likewise; it is kept as a tree, 30 times its size

/// The whole of a small text file.
/// @throws error errc::limit_exceeded for a file of more than `most` bytes
inline std::string read_text_file(const std::filesystem::path& path, std::uint64_t most = max_index_bytes) {
    const input_file file = input_file::open(path);
    if (file.size_bytes() > most)
        fail(errc::limit_exceeded, concat({"expected at most ", most, " bytes of text, got ", file.size_bytes()}),
             {.file = path_text(path)});
    std::string text(static_cast<std::size_t>(file.size_bytes()), '\0');
    file.read_at(0, std::as_writable_bytes(std::span(text)));
    return text;
}

inline constexpr std::size_t max_index_shards = 65535;  // as GGUF's

struct safetensors_index {
    std::vector<std::string> shards{};      ///< relative paths, sorted, each once
    std::vector<placed_name> weight_map{};  ///< tensors, and their places in `shards`
    name_arena names{};                     ///< what the tensors' names point into
};

/// Collects weight_map; everything else (metadata, total_size) is skipped, as it is often wrong.
class safetensors_index_consumer final : public json_consumer {
public:
    void open(bool object) override {
        ++m_depth;
        if (m_depth == 1 && !object) refuse("the index: expected an object, got an array");
        if (m_depth == 2 && m_in_map && !object) refuse("weight_map: expected an object, got an array");
        if (m_depth == 2 && m_in_map) m_found = true;
        if (m_depth == 3 && m_in_map) refuse("weight_map: expected a file name, got a container");
    }
    void close() override { --m_depth; }
    void key(std::string_view name) override {
        if (m_depth == 1)
            m_in_map = name == "weight_map";
        else if (m_depth == 2 && m_in_map)
            m_name = name;
    }
    void scalar(const json_scalar& value) override {
        if (m_depth == 0) refuse(std::string("the index: expected an object, got a ") + type_name(value));
        if (!m_in_map) return;
        if (m_depth == 1) refuse(std::string("weight_map: expected an object, got a ") + type_name(value));
        const std::string_view* const file = text_in(value);
        if (file == nullptr) refuse(std::string("weight_map: expected a file name, got a ") + type_name(value));
        if (file->empty() || *file != m_stored_path) {  // neighbours mostly lie in one file
            m_shard = number_of(check_path(*file));
            m_stored_path = *file;
        }
        m_out.weight_map.push_back({m_out.names.add(m_name), m_shard});
    }

    safetensors_index take(const error_where& where) {
        if (!m_found)
            fail(errc::missing_key, "expected an object, got no such key",
                 {.file = where.file, .subject = "weight_map"});
        std::vector<std::uint32_t> position(m_numbers.size());  // by the numbers in which files were met
        for (const auto& [file, number] : m_numbers) {
            position[number] = static_cast<std::uint32_t>(m_out.shards.size());
            m_out.shards.push_back(file);
        }
        for (placed_name& tensor : m_out.weight_map) tensor.shard = position[tensor.shard];
        return std::move(m_out);
    }

private:
    [[noreturn]] void refuse(const std::string& problem) const { fail_here(errc::corrupt_header, problem, m_name); }

    std::uint32_t number_of(std::string&& file) {
        const auto [at, added] = m_numbers.try_emplace(std::move(file), static_cast<std::uint32_t>(m_numbers.size()));
        if (added && m_numbers.size() > max_index_shards)
            fail_here(errc::limit_exceeded,
                      concat({"too many shards: expected at most ", max_index_shards, ", got more"}), m_name);
        return at->second;
    }

    // An index must not reach outside its folder.
    [[nodiscard]] std::string check_path(std::string_view text) const {
        const auto bad = [&](const char* what) {
            fail_here(errc::bad_value,
                      std::string("expected a path within the index's folder, got ") + what + ": " +
                          printable(text, max_printable_name),
                      m_name);
        };
        if (text.empty()) bad("an empty one");
        if (text.find('\0') != std::string_view::npos) bad("a NUL character");
        const std::filesystem::path path(std::u8string(text.begin(), text.end()));
        if (path.has_root_path()) bad("an absolute one");
        for (const std::filesystem::path& part : path)
            if (part == "..") bad("a parent folder");
        const std::u8string plain = path.lexically_normal().generic_u8string();
        return {plain.begin(), plain.end()};
    }

    std::size_t m_depth = 0;
    bool m_in_map = false;
    bool m_found = false;
    std::string m_name{};
    std::string m_stored_path{};  // empty paths are refused, so that this means none
    std::uint32_t m_shard = 0;    // of m_stored_path
    std::map<std::string, std::uint32_t> m_numbers{};
    safetensors_index m_out{};
};

inline safetensors_index parse_safetensors_index(std::string_view text, const std::string& file) {
    const error_where where{.file = file, .offset = 0, .subject = {}};
    safetensors_index_consumer consumer;
    consumer.read(text, where);
    return consumer.take(where);
}

inline constexpr std::string_view safetensors_ending = ".safetensors";

/// The name of the index that lists the shards of a set.
inline std::string index_name_of(const shard_name& shard) {
    return shard.prefix + std::string(safetensors_ending) + ".index.json";
}

/// The files of a set of numbered shards that no index lists.
/// @throws error missing_shard naming what is absent
inline std::vector<std::filesystem::path> numbered_shards(const std::filesystem::path& path, const shard_name& name) {
    shard_set set = *find_shard_set(path, safetensors_ending);
    std::string missing;
    std::size_t count = 0;
    for (std::size_t i = 0; i < set.files.size(); ++i) {
        std::error_code ignored;
        if (std::filesystem::exists(set.files[i], ignored) || ++count > 8) continue;
        missing += concat({(missing.empty() ? "" : ", "), i + 1});
    }
    if (count == 0) return std::move(set.files);
    fail(errc::missing_shard,
         concat({(count == 1 ? "a shard is missing: number " : concat({count, " shards are missing: numbers "})),
                 missing, (count > 8 ? " and more" : ""), " of ", set.files.size(), ", and there is no ",
                 index_name_of(name), " that lists the model's files"}),
         {.file = path_text(*first_missing(set))});
}

/// "a, b and c", the first eight of them.
inline std::string list_names(const std::vector<std::filesystem::path>& files) {
    std::string out;
    for (std::size_t i = 0; i < std::min<std::size_t>(files.size(), 8); ++i)
        out += (i == 0                  ? ""
                : i + 1 == files.size() ? " and "
                                        : ", ") +
               printable(path_text(files[i].filename()), max_printable_name);
    return out;
}

/// The checkpoint in a folder, as transformers chooses it: model.safetensors, the model's index, or else the only
/// index, the only safetensors file, or the first of the only set of numbered shards; without a config.json also
/// consolidated.safetensors.
inline std::filesystem::path find_safetensors_in(const std::filesystem::path& folder) {
    std::error_code code;
    for (const char* usual : {"model.safetensors", "model.safetensors.index.json"})
        if (std::filesystem::exists(folder / usual, code)) return folder / usual;
    if (!std::filesystem::exists(folder / "config.json", code))  // Mistral's own, with a params.json
        for (const char* usual : {"consolidated.safetensors", "consolidated.safetensors.index.json"})
            if (std::filesystem::exists(folder / usual, code)) return folder / usual;
    std::vector<std::filesystem::path> indices;
    std::vector<std::filesystem::path> files;
    std::vector<shard_name> sets;
    for (const std::filesystem::path& file : list_files(folder)) {
        const std::string name = path_text(file.filename());
        if (name.ends_with(".safetensors.index.json")) indices.push_back(file);
        if (!name.ends_with(safetensors_ending)) continue;
        if (auto shard = parse_shard_name(name, safetensors_ending)) {
            const auto same = [&](const shard_name& set) { return set.same_set(*shard); };
            if (std::any_of(sets.begin(), sets.end(), same)) continue;
            sets.push_back(*std::move(shard));
        }
        files.push_back(file);
    }
    std::vector<std::filesystem::path>& found = indices.empty() ? files : indices;
    if (found.size() == 1) return found.front();
    const error_where where{.file = path_text(folder), .offset = {}, .subject = {}};
    if (found.empty()) fail(errc::not_a_file, "expected a safetensors model, got a folder without one", where);
    const bool numbered = indices.empty() && !sets.empty();
    fail(errc::bad_value,
         concat({"which model? expected 1 index or file in the folder, got ", found.size(), ", such as ",
                 list_names(found), (numbered ? " (numbered shards count once)" : ""), "; name the file"}),
         where);
}

}  // namespace larql::detail

#endif
