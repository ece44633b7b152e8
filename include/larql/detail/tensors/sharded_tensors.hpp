// SPDX-License-Identifier: Apache-2.0
//
// What the readers of all formats share: the files of a checkpoint, and the tensors in them, by name and as numbers.
#ifndef LARQL_DETAIL_TENSORS_SHARDED_TENSORS_HPP
#define LARQL_DETAIL_TENSORS_SHARDED_TENSORS_HPP

#include <larql/detail/io/input_file.hpp>
#include <larql/detail/io/name_arena.hpp>
#include <larql/detail/io/name_index.hpp>
#include <larql/detail/separate.hpp>
#include <larql/detail/tensors/tensor_reading.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/error.hpp>
#include <larql/mapped_file.hpp>
#include <larql/tensor_info.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace larql::detail {

/// A file whose header was read, mapped when its bytes are first asked for.
class shard_file {
public:
    shard_file(const std::filesystem::path& path, const file_identity& identity);

    /// The path as the user sees it.
    [[nodiscard]] const std::string& text() const noexcept { return m_text; }

    /// All bytes, valid as long as this object.
    /// @throws error source_changed if this is not the file any more whose header was read
    [[nodiscard]] std::span<const std::byte> bytes() const;
    [[nodiscard]] bool is_mapped() const {
        const std::lock_guard lock(m_mutex);
        return m_map.has_value();
    }
    /// The same file for ordinary reads.
    [[nodiscard]] input_file reopen() const { return open_unchanged(m_path, m_identity); }

private:
    std::filesystem::path m_path;  // absolute
    std::string m_text;
    file_identity m_identity;
    mutable std::mutex m_mutex{};
    mutable std::optional<mapped_file> m_map{};
};

/// A tensor's name and the position of the shard that is said to have it.
struct placed_name {
    std::string_view name;
    std::uint32_t shard;
};

/// The part of an open checkpoint that does not depend on its format. Move-only; a base that nobody holds by itself.
class sharded_tensors {
public:
    /// Tensors of all shards, in the order of the files; within a file in the order of its infos (GGUF) or of the data
    /// (safetensors).
    [[nodiscard]] std::span<const tensor_info> tensors() const& noexcept { return m_tensors; }
    std::span<const tensor_info> tensors() const&& = delete;

    /// The tensor of this name, or null.
    [[nodiscard]] const tensor_info* find_tensor(std::string_view name) const& {
        const auto at = m_names.find(name, [this](std::size_t i) { return m_tensors[i].name; });
        return at ? &m_tensors[*at] : nullptr;
    }
    const tensor_info* find_tensor(std::string_view) const&& = delete;

    /// The tensor of this name.
    /// @throws error missing_tensor
    [[nodiscard]] const tensor_info& at_tensor(std::string_view name) const&;
    const tensor_info& at_tensor(std::string_view) const&& = delete;

    /// Fails for a tensor that the index names and its shard does not have: `find_tensor` gives null for it.
    /// @throws error missing_tensor naming the shard
    void require_not_absent(std::string_view name) const;

    /// The stored bytes of a tensor of this checkpoint, a view into the map of its shard, which is mapped by the first
    /// call. See mapped_file for what happens if somebody shortens the file meanwhile.
    /// @throws error source_changed if the shard is not the file whose header was read
    [[nodiscard]] std::span<const std::byte> bytes(const tensor_info& info) const&;
    std::span<const std::byte> bytes(const tensor_info&) const&& = delete;

    /// Fills `out` with stored bytes of a tensor, from its byte `first` on, by ordinary reads.
    /// @throws error source_changed if the file was changed, replaced or shortened since it was opened, bad_value if
    ///         the range leaves the tensor
    void read_bytes(const tensor_info& info, std::uint64_t first, std::span<std::byte> out) const;

    /// Reads rows [row_begin, row_end) of a tensor as float, whatever its format; a row is the innermost dimension.
    ///
    /// @param out         row r goes to out + (r - row_begin) * out_stride
    /// @param out_stride  floats from one row to the next, at least the columns; 0: as many as there are columns
    /// @throws error unsupported_dtype for integers, bad_value if there are no such rows or the stride is too short,
    /// source_changed as read_bytes
    /// @note   Ordinary reads of the rows asked for and nothing else; 128 KiB of scratch.
    void read_rows(const tensor_info& info, std::uint64_t row_begin, std::uint64_t row_end, float* out,
                   std::size_t out_stride = 0) const;

    /// All of a tensor as float, in its row-major shape.
    /// @throws error missing_tensor, shape_mismatch if it has not `Rank` dimensions, and as read_rows
    template <std::size_t Rank>
    [[nodiscard]] tensor<float, Rank> read(std::string_view name) const {
        const tensor_info& info = at_tensor(name);
        const shard_file& shard = shard_of(info);
        return read_tensor<Rank>(shard.reopen(), info, shard.text());
    }

    /// All of a tensor of integers (or bools, as 0 and 1) as T, checked for range.
    /// @throws error missing_tensor, shape_mismatch if it has not `Rank` dimensions, unsupported_dtype if it does not
    ///         hold integers, bad_value if one does not fit T
    template <class T, std::size_t Rank>
    [[nodiscard]] tensor<T, Rank> read_integers(std::string_view name) const {
        const tensor_info& info = at_tensor(name);
        const shard_file& shard = shard_of(info);
        return read_integer_tensor<T, Rank>(shard.reopen(), info, shard.text());
    }

    [[nodiscard]] std::size_t shard_count() const noexcept { return m_shards.size(); }
    /// Path of a shard, from 0.
    [[nodiscard]] const std::string& shard_path(std::size_t index) const& { return m_shards.at(index)->text(); }
    const std::string& shard_path(std::size_t) const&& = delete;

    /// Checks that every shard still is the file that was opened, with the same size and modification time.
    /// @throws error source_changed naming the shard
    void verify_unchanged() const;

protected:
    sharded_tensors() = default;
    sharded_tensors(sharded_tensors&&) noexcept = default;
    sharded_tensors& operator=(sharded_tensors&&) noexcept = default;
    sharded_tensors(const sharded_tensors&) = delete;
    sharded_tensors& operator=(const sharded_tensors&) = delete;
    ~sharded_tensors() = default;

    /// Sets the name of the checkpoint in errors; without it, that is the first shard's.
    void set_path(std::string path) { m_path = std::move(path); }

    /// Adds a shard with its tensors, which it takes over.
    void add_shard(const std::filesystem::path& path, const file_identity& identity, std::vector<tensor_info>&& found);

    /// Notes tensors that are said to be in a shard and are not, each once, and what their names point into.
    void set_absent(std::vector<placed_name> absent, name_arena names) {
        m_absent = std::move(absent);
        m_absent_text = std::move(names);
        (void)m_absent_names.build(m_absent.size(), [this](std::size_t i) { return m_absent[i].name; });
    }

    /// Ends the additions.
    /// @throws error duplicate_name if two tensors have one name
    void index_names();

    [[nodiscard]] bool is_shard_mapped(std::size_t index) const { return m_shards.at(index)->is_mapped(); }

private:
    const shard_file& shard_of(const tensor_info& info) const;

    std::string m_path{};
    std::vector<std::unique_ptr<shard_file>> m_shards{};  // behind pointers: a mutex does not move
    std::vector<tensor_info> m_tensors{};
    name_index m_names{};
    std::vector<placed_name> m_absent{};
    name_arena m_absent_text{};
    name_index m_absent_names{};
};

}  // namespace larql::detail

#ifndef LARQL_SEPARATE
#include <larql/detail/bodies/sharded_tensors.hpp>
#endif

#endif
