// SPDX-License-Identifier: Apache-2.0
//
// The bodies of detail/tensors/sharded_tensors.hpp.
#ifndef LARQL_DETAIL_BODIES_SHARDED_TENSORS_HPP
#define LARQL_DETAIL_BODIES_SHARDED_TENSORS_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/io/input_file.hpp>
#include <larql/detail/separate.hpp>
#include <larql/detail/tensors/sharded_tensors.hpp>
#include <larql/detail/tensors/tensor_reading.hpp>
#include <larql/error.hpp>
#include <larql/mapped_file.hpp>
#include <larql/tensor_info.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace larql::detail {

LARQL_INLINE shard_file::shard_file(const std::filesystem::path& path, const file_identity& identity)
    : m_text(path_text(path)), m_identity(identity) {
    std::error_code failed;
    m_path = std::filesystem::absolute(path, failed);
    if (failed) m_path = path;
}

LARQL_INLINE std::span<const std::byte> shard_file::bytes() const {
    const std::lock_guard lock(m_mutex);
    if (!m_map) {
        mapped_file opened = mapped_file::open(m_path);
        if (opened.identity() != m_identity)
            fail(errc::source_changed,
                 concat({"the file changed after its header was read: expected ", m_identity.size_bytes, " bytes, got ",
                         opened.size_bytes(), ", or it was modified or replaced"}),
                 {.file = m_text});
        m_map.emplace(std::move(opened));
    }
    return m_map->bytes();
}

LARQL_INLINE const tensor_info& sharded_tensors::at_tensor(std::string_view name) const& {
    if (const tensor_info* info = find_tensor(name)) return *info;
    require_not_absent(name);
    fail(errc::missing_tensor, concat({"no such tensor among the ", m_tensors.size(), " of the checkpoint"}),
         {.file = m_path, .subject = std::string(name)});
}

LARQL_INLINE void sharded_tensors::require_not_absent(std::string_view name) const {
    const auto at = m_absent_names.find(name, [this](std::size_t i) { return m_absent[i].name; });
    if (!at) return;
    fail(errc::missing_tensor,
         "the index names a tensor that is not in its shard: expected it in " + shard_path(m_absent[*at].shard) +
             ", got no such tensor",
         {.file = m_path, .subject = std::string(name)});
}

LARQL_INLINE std::span<const std::byte> sharded_tensors::bytes(const tensor_info& info) const& {
    const shard_file& shard = shard_of(info);
    const std::span<const std::byte> all = shard.bytes();
    if (info.offset > all.size() || info.size_bytes > all.size() - info.offset)
        fail(errc::bad_value,
             concat({"a tensor of another checkpoint: expected an end within ", all.size(), " bytes, got ", info.offset,
                     " + ", info.size_bytes}),
             {.file = shard.text(), .subject = std::string(info.name)});
    return all.subspan(static_cast<std::size_t>(info.offset), static_cast<std::size_t>(info.size_bytes));
}

LARQL_INLINE void sharded_tensors::read_bytes(const tensor_info& info, std::uint64_t first,
                                              std::span<std::byte> out) const {
    const shard_file& shard = shard_of(info);
    read_tensor_bytes(shard.reopen(), info, shard.text(), first, out);
}

LARQL_INLINE void sharded_tensors::read_rows(const tensor_info& info, std::uint64_t row_begin, std::uint64_t row_end,
                                             float* out, std::size_t out_stride) const {
    const shard_file& shard = shard_of(info);
    if (out_stride == 0) out_stride = static_cast<std::size_t>(info.columns());
    if (out_stride < info.columns())
        fail(errc::bad_value, concat({"expected a stride of at least ", info.columns(), ", got ", out_stride}),
             {.file = shard.text(), .subject = std::string(info.name)});
    read_tensor_rows(shard.reopen(), info, shard.text(), row_begin, row_end, out, out_stride);
}

LARQL_INLINE void sharded_tensors::verify_unchanged() const {
    for (const auto& shard : m_shards) (void)shard->reopen();
}

LARQL_INLINE void sharded_tensors::add_shard(const std::filesystem::path& path, const file_identity& identity,
                                             std::vector<tensor_info>&& found) {
    for (tensor_info& info : found) info.shard = static_cast<std::uint32_t>(m_shards.size());
    if (m_tensors.empty())
        m_tensors = std::move(found);  // of a large file twice would be much
    else
        m_tensors.insert(m_tensors.end(), std::move_iterator(found.begin()), std::move_iterator(found.end()));
    m_shards.push_back(std::make_unique<shard_file>(path, identity));
    if (m_path.empty()) m_path = m_shards.back()->text();
}

LARQL_INLINE void sharded_tensors::index_names() {
    const auto twice = m_names.build(m_tensors.size(), [this](std::size_t i) { return m_tensors[i].name; });
    if (!twice) return;
    const tensor_info& first = m_tensors[twice->first];
    const tensor_info& second = m_tensors[twice->second];
    fail(errc::duplicate_name,
         concat({"tensor stored twice: in ", shard_path(first.shard), " at byte ", first.offset, " and again"}),
         {.file = shard_path(second.shard), .offset = second.offset, .subject = std::string(second.name)});
}

LARQL_INLINE const shard_file& sharded_tensors::shard_of(const tensor_info& info) const {
    if (info.shard >= m_shards.size())
        fail(errc::bad_value,
             concat({"a tensor of another checkpoint: expected a shard below ", m_shards.size(), ", got ", info.shard}),
             {.subject = std::string(info.name)});
    return *m_shards[info.shard];
}

}  // namespace larql::detail

#endif
