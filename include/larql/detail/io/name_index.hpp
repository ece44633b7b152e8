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
        for (std::size_t i = 0; i < count; ++i) m_slots.push_back(slot{hash_of(name_of(i))} << 32 | i);
        std::sort(m_slots.begin(), m_slots.end());
        std::optional<std::pair<std::size_t, std::size_t>> found;
        for (auto run = m_slots.begin(); run != m_slots.end();) {
            const auto end = std::find_if(run + 1, m_slots.end(), [&](slot s) { return hash_in(s) != hash_in(*run); });
            if (end - run > 1) sort_by_name(run, end, name_of, found);
            run = end;
        }
        return found;
    }

    /// The position of a name, or nothing.
    [[nodiscard]] std::optional<std::size_t> find(std::string_view name, names name_of) const {
        const std::uint32_t hash = hash_of(name);
        const auto before = [&](slot s, std::string_view wanted) {
            return hash_in(s) != hash ? hash_in(s) < hash : name_of(position_in(s)) < wanted;
        };
        const auto at = std::lower_bound(m_slots.begin(), m_slots.end(), name, before);
        if (at == m_slots.end() || hash_in(*at) != hash || name_of(position_in(*at)) != name) return std::nullopt;
        return position_in(*at);
    }

private:
    /// The hash of a name above its position: as one number they are sorted several times as fast as by names.
    using slot = std::uint64_t;
    static std::uint32_t hash_in(slot s) noexcept { return static_cast<std::uint32_t>(s >> 32); }
    static std::size_t position_in(slot s) noexcept { return static_cast<std::uint32_t>(s); }
    static std::uint32_t hash_of(std::string_view name) noexcept {
        return static_cast<std::uint32_t>(std::hash<std::string_view>{}(name));
    }

    /// Sorts names of one hash; `found` becomes the earliest of those that occur again.
    static void sort_by_name(std::vector<slot>::iterator begin, std::vector<slot>::iterator end, names name_of,
                             std::optional<std::pair<std::size_t, std::size_t>>& found) {
        std::sort(begin, end, [&](slot a, slot b) {
            const int order = name_of(position_in(a)).compare(name_of(position_in(b)));
            return order != 0 ? order < 0 : a < b;
        });
        for (auto at = begin + 1; at != end; ++at) {
            const std::size_t earlier = position_in(at[-1]), later = position_in(*at);
            if (name_of(earlier) == name_of(later) && (!found || later < found->second)) found.emplace(earlier, later);
        }
    }

    std::vector<slot> m_slots{};
};

}  // namespace larql::detail

#endif
