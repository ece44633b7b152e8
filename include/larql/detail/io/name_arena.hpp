// SPDX-License-Identifier: Apache-2.0
#ifndef LARQL_DETAIL_IO_NAME_ARENA_HPP
#define LARQL_DETAIL_IO_NAME_ARENA_HPP

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

namespace larql::detail {

/// Holds many names one behind the other, which as strings would each cost several times their length. Move-only; what
/// it hands out stays valid when it moves.
class name_arena {
public:
    std::string_view add(std::string_view name) {
        if (name.empty()) return {};
        if (name.size() > m_room) {
            const std::size_t size = std::max(name.size(), block_bytes);
            m_blocks.push_back(std::make_unique_for_overwrite<char[]>(size));
            m_next = m_blocks.back().get();
            m_room = size;
        }
        std::copy_n(name.data(), name.size(), m_next);
        const std::string_view stored(m_next, name.size());
        m_next += name.size();
        m_room -= name.size();
        return stored;
    }

private:
    static constexpr std::size_t block_bytes = std::size_t{1} << 15;

    std::vector<std::unique_ptr<char[]>> m_blocks{};
    char* m_next = nullptr;
    std::size_t m_room = 0;
};

}  // namespace larql::detail

#endif
