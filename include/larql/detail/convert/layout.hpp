// SPDX-License-Identifier: Apache-2.0
//
// Where a conversion's tensors go: files, headers and offsets, all known before the first byte is written.
#ifndef LARQL_DETAIL_CONVERT_LAYOUT_HPP
#define LARQL_DETAIL_CONVERT_LAYOUT_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/convert/conversion_row.hpp>
#include <larql/detail/convert/number_formats.hpp>
#include <larql/detail/gguf/metadata.hpp>
#include <larql/detail/io/byte_reader.hpp>
#include <larql/error.hpp>
#include <larql/safetensors_writer.hpp>
#include <larql/tensor_info.hpp>

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// A tensor's place.
struct placed_tensor {
    std::size_t file = 0;
    std::uint64_t offset = 0;  ///< of its first byte in the file
};

/// A file that a conversion makes.
struct planned_file {
    std::string name;
    std::string header;                ///< its first bytes
    std::uint64_t size_bytes = 0;      ///< with the header
    std::vector<tensor_info> tensors;  ///< with offsets from the start of the file; names are those of the rows
};

/// A small file whose content is known: config.json, the index.
struct planned_text {
    std::string name;
    std::string content;
    /// The content with SHA-256 sums of all files, by name; empty: it has none.
    std::function<std::string(const std::map<std::string, std::string>&)> add_hashes{};
};

/// The output of a conversion, without its numbers.
struct conversion_layout {
    std::vector<planned_file> files;
    std::vector<std::vector<placed_tensor>> places;  ///< of each row, of each of its tensors
    std::vector<planned_text> texts;                 ///< in the order in which they get their names, after the files

    [[nodiscard]] std::uint64_t size_bytes() const noexcept {
        std::uint64_t bytes = 0;
        for (const planned_file& file : files) bytes += file.size_bytes;
        return bytes;
    }
};

/// Tensors of all rows, cut into files: a file takes tensors until the next would take it beyond `limit` bytes. A row's
/// tensors stay together where they fit.
class shard_cutter {
public:
    using member = std::pair<std::size_t, std::size_t>;  ///< row, tensor

    shard_cutter(std::span<const conversion_row> rows, std::uint64_t limit) : m_limit(limit) {
        for (std::size_t r = 0; r < rows.size(); ++r) {
            const std::uint64_t together = rows[r].size_bytes();
            if (together <= limit) make_room(together);
            for (std::size_t t = 0; t < rows[r].tensors.size(); ++t) {
                const std::uint64_t size = rows[r].tensors[t].size_bytes();
                make_room(size);
                if (m_shards.empty()) m_shards.emplace_back();
                m_shards.back().emplace_back(r, t);
                m_filled += size;
            }
        }
        if (m_shards.empty()) m_shards.emplace_back();
    }
    [[nodiscard]] const std::vector<std::vector<member>>& shards() const noexcept { return m_shards; }

private:
    void make_room(std::uint64_t size) {
        if (m_filled == 0 || size <= m_limit - std::min(m_limit, m_filled)) return;
        m_shards.emplace_back();
        m_filled = 0;
    }

    std::uint64_t m_limit;
    std::uint64_t m_filled = 0;
    std::vector<std::vector<member>> m_shards;
};

inline std::string numbered_name(std::string_view prefix, std::size_t index, std::size_t count,
                                 std::string_view ending) {
    char text[32];
    std::snprintf(text, sizeof text, "-%05zu-of-%05zu", index + 1, count);
    return std::string(prefix) + text + std::string(ending);
}

/// Lays out the tensors of one file.
class file_builder {
public:
    file_builder(std::span<const conversion_row> rows, std::span<const shard_cutter::member> members) {
        for (const auto& [row, tensor] : members) {
            const planned_tensor& planned = rows[row].tensors[tensor];
            m_file.tensors.push_back({.name = planned.name,
                                      .shape = planned.shape,
                                      .type = planned.type,
                                      .shard = 0,
                                      .offset = 0,
                                      .size_bytes = planned.size_bytes()});
        }
    }
    [[nodiscard]] std::vector<tensor_info>& tensors() noexcept { return m_file.tensors; }

    /// Gives tensors their offsets from the start of the data.
    void place(std::uint64_t alignment) {
        for (tensor_info& info : m_file.tensors) {
            info.offset = m_data_bytes;
            const auto next = checked_add(m_data_bytes, info.size_bytes);
            const auto aligned = next ? checked_align(*next, alignment) : next;
            if (!aligned || *aligned >= std::uint64_t{1} << 62)
                fail(errc::limit_exceeded, "expected less than 2^62 bytes in a file, got more",
                     {.subject = std::string(info.name)});
            m_data_bytes = *aligned;
        }
    }
    planned_file finish(std::string name, std::string header) {
        for (tensor_info& info : m_file.tensors) info.offset += header.size();
        m_file.name = std::move(name);
        m_file.size_bytes = header.size() + m_data_bytes;
        m_file.header = std::move(header);
        return std::move(m_file);
    }

private:
    planned_file m_file;
    std::uint64_t m_data_bytes = 0;
};

/// Notes where each tensor of the rows went, by its name.
/// @throws error duplicate_name
inline void note_places(std::span<const conversion_row> rows, conversion_layout& layout) {
    std::map<std::string_view, placed_tensor> found;
    for (std::size_t f = 0; f < layout.files.size(); ++f)
        for (const tensor_info& info : layout.files[f].tensors)
            if (!found.emplace(info.name, placed_tensor{f, info.offset}).second)
                fail(errc::duplicate_name, "the conversion makes this tensor twice",
                     {.subject = std::string(info.name)});
    for (const conversion_row& row : rows) {
        std::vector<placed_tensor>& places = layout.places.emplace_back();
        for (const planned_tensor& tensor : row.tensors) places.push_back(found.at(tensor.name));
    }
}

/// Safetensors as transformers names them, with the index of several shards.
inline conversion_layout lay_out_safetensors(std::span<const conversion_row> rows, std::uint64_t shard_bytes) {
    conversion_layout layout;
    const shard_cutter cut(rows, shard_bytes);
    const std::size_t count = cut.shards().size();
    nlohmann::json map = nlohmann::json::object();
    std::uint64_t total = 0;
    for (std::size_t i = 0; i < count; ++i) {
        file_builder file(rows, cut.shards()[i]);
        sort_for_safetensors(file.tensors());
        file.place(1);
        const std::string name = count == 1 ? "model.safetensors" : numbered_name("model", i, count, ".safetensors");
        for (const tensor_info& info : file.tensors()) {
            map[std::string(info.name)] = name;
            total += info.size_bytes;
        }
        std::string header = safetensors_header(file.tensors(), {{"format", "pt"}}, {.file = name});
        layout.files.push_back(file.finish(name, std::move(header)));
    }
    note_places(rows, layout);
    if (count > 1)
        layout.texts.push_back(
            {"model.safetensors.index.json",
             nlohmann::json{{"metadata", {{"total_size", total}}}, {"weight_map", map}}.dump(2) + "\n",
             {}});
    return layout;
}

/// GGUF, in one file or as gguf-split cuts and names it: the first shard has the model's metadata.
/// @param name  of the file, or of the set with its ending
inline conversion_layout lay_out_gguf(std::span<const conversion_row> rows, gguf_metadata metadata,
                                      std::string_view name, std::uint64_t shard_bytes) {
    conversion_layout layout;
    const shard_cutter cut(rows, shard_bytes);
    const std::size_t count = cut.shards().size();
    std::size_t tensors = 0;
    for (const auto& shard : cut.shards()) tensors += shard.size();
    if (count > 65535)  // split.count is a uint16
        fail(errc::limit_exceeded, concat({"expected at most 65535 shards, got ", count}), {.subject = "shard size"});
    const std::string_view prefix = name.substr(0, name.size() - std::string_view(".gguf").size());
    for (std::size_t i = 0; i < count; ++i) {
        gguf_metadata own;
        if (i == 0) own = metadata;
        if (i > 0 && metadata.alignment() != gguf_default_alignment)
            own.set(gguf_metadata::alignment_key, metadata.alignment());
        if (count > 1) {
            own.set("split.no", static_cast<std::uint16_t>(i));
            own.set("split.tensors.count", static_cast<std::int32_t>(tensors));
            own.set("split.count", static_cast<std::uint16_t>(count));
        }
        file_builder file(rows, cut.shards()[i]);
        for (tensor_info& info : file.tensors()) {
            check_gguf_name(info.name, gguf_max_name_bytes, {.subject = std::string(info.name)});
            if (info.shape.empty()) info.shape = {1};
            if (info.shape.size() > gguf_max_dimensions)
                fail(errc::unsupported_architecture,
                     concat({"GGUF holds at most ", gguf_max_dimensions, " dimensions, got ", info.shape.size()}),
                     {.subject = std::string(info.name)});
        }
        file.place(own.alignment());
        std::string header = own.header(file.tensors());
        layout.files.push_back(
            file.finish(count == 1 ? std::string(name) : numbered_name(prefix, i, count, ".gguf"), std::move(header)));
    }
    note_places(rows, layout);
    return layout;
}

}  // namespace larql::detail

#endif
