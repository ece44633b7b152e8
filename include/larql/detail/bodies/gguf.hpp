// SPDX-License-Identifier: Apache-2.0
//
// The bodies of gguf.hpp.
#ifndef LARQL_DETAIL_BODIES_GGUF_HPP
#define LARQL_DETAIL_BODIES_GGUF_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/gguf/contents.hpp>
#include <larql/detail/gguf/parse.hpp>
#include <larql/detail/gguf/shards.hpp>
#include <larql/detail/io/header_memory.hpp>
#include <larql/detail/io/input_file.hpp>
#include <larql/detail/io/shard_names.hpp>
#include <larql/detail/separate.hpp>
#include <larql/error.hpp>
#include <larql/gguf.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace larql {

LARQL_INLINE gguf_file gguf_file::open(const std::filesystem::path& path) {
    std::error_code ignored;
    const bool folder = std::filesystem::is_directory(path, ignored);
    gguf_file out;
    out.load(folder ? detail::find_gguf_in(path) : path);
    return out;
}

LARQL_INLINE std::vector<std::string_view> gguf_file::keys() const& {
    std::vector<std::string_view> out;
    out.reserve(metadata().size());
    for (const gguf_entry& entry : metadata()) out.push_back(entry.key);
    return out;
}

LARQL_INLINE gguf_file::loaded gguf_file::load_one(const std::filesystem::path& path) {
    const detail::input_file file = detail::input_file::open(path);
    loaded out{.name = detail::path_text(path), .identity = file.identity(), .header = detail::header_memory(file)};
    out.contents = detail::gguf_parser(out.header, out.name).parse();
    out.header.detach();
    return out;
}

LARQL_INLINE void gguf_file::add(const std::filesystem::path& path, loaded&& shard) {
    add_shard(path, shard.identity, std::move(shard.contents.tensors));
    m_contents.push_back(std::move(shard.contents));
    m_headers.push_back(std::move(shard.header));
}

LARQL_INLINE void gguf_file::load(const std::filesystem::path& path) {
    loaded given = load_one(path);
    const detail::gguf_split split = detail::read_gguf_split(given.contents, given.name);
    if (split.count == 0 || (split.count == 1 && !detail::shard_set_at(path, detail::gguf_ending))) {
        add(path, std::move(given));  // a set of one is complete whatever its name
    } else {
        const detail::shard_set set = detail::locate_gguf_shards(path, split);
        for (std::size_t i = 0; i < set.files.size(); ++i) {
            add(set.files[i], i == set.given ? std::move(given) : load_one(set.files[i]));
            check_place(i, set.files.size());
        }
    }
    index_names();
    check_set();
}

LARQL_INLINE void gguf_file::check_place(std::size_t position, std::size_t count) const {
    const std::string& file = shard_path(position);
    const detail::gguf_split split = detail::read_gguf_split(m_contents[position], file);
    const auto expect = [&](std::string_view key, std::uint64_t expected, std::uint64_t got) {
        if (expected == got) return;
        detail::fail(
            errc::bad_value,
            detail::concat({"the file's name and metadata disagree: expected ", expected, " by its name, got ", got}),
            {.file = file, .subject = std::string(key)});
    };
    expect("split.count", count, split.count);
    expect("split.no", position, split.number);
}

LARQL_INLINE void gguf_file::check_set() const {
    if (m_contents.size() < 2) return;
    constexpr std::string_view total = "split.tensors.count";
    constexpr std::string_view architecture = "general.architecture";
    const gguf_value* expected = m_contents.front().find(architecture);
    for (std::size_t i = 0; i < m_contents.size(); ++i) {
        const std::string& file = shard_path(i);
        const auto count = detail::find_gguf_integer(m_contents[i], file, total);
        if (count && *count != tensors().size())
            detail::fail(
                errc::shape_mismatch,
                detail::concat({"the shards do not add up: expected ", *count, " tensors, got ", tensors().size()}),
                {.file = file, .subject = std::string(total)});
        const gguf_value* repeated = m_contents[i].find(architecture);
        if (expected == nullptr || repeated == nullptr) continue;
        const error_where where{.file = file, .offset = repeated->offset(), .subject = std::string(architecture)};
        const auto first = expected->to<std::string>({.file = shard_path(0), .subject = where.subject});
        const auto other = repeated->to<std::string>(where);
        if (first != other)
            detail::fail(errc::bad_value,
                         "shards of different models: expected " + detail::quoted_name(first) + ", got " +
                             detail::quoted_name(other),
                         where);
    }
}

}  // namespace larql

#endif
