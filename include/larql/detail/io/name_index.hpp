// SPDX-License-Identifier: Apache-2.0
#ifndef LARQL_DETAIL_IO_NAME_INDEX_HPP
#define LARQL_DETAIL_IO_NAME_INDEX_HPP

#include <larql/detail/function_ref.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// Finds the position of a name in a list that somebody else holds. Sorted by hash, then by name: names that were
/// chosen to collide cost n log n, where a hash table would cost n squared.
///
/// `name_of(i)` gives the i-th name; the list must not change between build and find.
class name_index {
public:
    using names = function_ref<std::string_view(std::size_t)>;

    /// Indexes `count` names, fewer than 2^32.
    /// @return  the positions (earlier, later) of the first name that occurs again, or nothing
    std::optional<std::pair<std::size_t, std::size_t>> build(std::size_t count, names name_of) {
        m_slots.clear();
        m_slots.reserve(count);
        for (std::size_t i = 0; i < count; ++i) m_slots.push_back({hash_of(name_of(i)), static_cast<std::uint32_t>(i)});
        std::sort(m_slots.begin(), m_slots.end(), [&](const slot& a, const slot& b) {
            if (a.hash != b.hash) return a.hash < b.hash;
            if (const int order = name_of(a.position).compare(name_of(b.position)); order != 0) return order < 0;
            return a.position < b.position;
        });
        std::optional<std::pair<std::size_t, std::size_t>> found;
        for (std::size_t i = 1; i < m_slots.size(); ++i) {
            const slot& a = m_slots[i - 1];
            const slot& b = m_slots[i];
            if (a.hash != b.hash || name_of(a.position) != name_of(b.position)) continue;
            if (!found || b.position < found->second) found.emplace(a.position, b.position);
        }
        return found;
    }

    /// The position of a name, or nothing.
    [[nodiscard]] std::optional<std::size_t> find(std::string_view name, names name_of) const {
        const std::uint32_t hash = hash_of(name);
        const auto before = [&](const slot& s, std::string_view wanted) {
            return s.hash != hash ? s.hash < hash : name_of(s.position) < wanted;
        };
        const auto at = std::lower_bound(m_slots.begin(), m_slots.end(), name, before);
        if (at == m_slots.end() || at->hash != hash || name_of(at->position) != name) return std::nullopt;
        return at->position;
    }

private:
    // Of half the width that they could have: there are as many of these as names.
    struct slot {
        std::uint32_t hash;
        std::uint32_t position;
    };
    static std::uint32_t hash_of(std::string_view name) noexcept {
        return static_cast<std::uint32_t>(std::hash<std::string_view>{}(name));
    }
    std::vector<slot> m_slots{};
};

}  // namespace larql::detail

#endif
