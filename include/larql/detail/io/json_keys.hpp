// SPDX-License-Identifier: Apache-2.0
#ifndef LARQL_DETAIL_IO_JSON_KEYS_HPP
#define LARQL_DETAIL_IO_JSON_KEYS_HPP

#include <larql/detail/io/name_index.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace larql::detail {

/// The keys of all open objects, to find those that occur twice in one. They stand one behind the other, outermost
/// object first: a text may be all keys, and nested objects all else.
class json_keys {
public:
    void open() { m_first.push_back(static_cast<std::uint32_t>(m_ends.size())); }

    void add(std::string_view key) {
        m_text += key;
        m_ends.push_back(static_cast<std::uint32_t>(m_text.size()));
    }

    /// Ends the innermost object.
    /// @return  a key of it that occurs twice; valid until the next call
    std::optional<std::string_view> close() {
        if (const std::optional<std::size_t> twice = repeated()) return key_at(*twice);
        m_ends.resize(m_first.back());
        m_text.resize(m_ends.empty() ? 0 : m_ends.back());
        m_first.pop_back();
        return std::nullopt;
    }

private:
    [[nodiscard]] std::string_view key_at(std::size_t i) const {
        const std::size_t begin = i == 0 ? 0 : m_ends[i - 1];
        return std::string_view(m_text).substr(begin, m_ends[i] - begin);
    }

    std::optional<std::size_t> repeated() {
        constexpr std::size_t few = 8;  // headers have an object of three keys for each tensor
        const std::size_t first = m_first.back(), count = m_ends.size() - first;
        if (count > few) {
            const auto twice = m_index.build(count, [&](std::size_t i) { return key_at(first + i); });
            return twice ? std::optional(first + twice->first) : std::nullopt;
        }
        for (std::size_t i = 1; i < count; ++i)
            for (std::size_t j = 0; j < i; ++j)
                if (key_at(first + i) == key_at(first + j)) return first + j;
        return std::nullopt;
    }

    std::string m_text{};
    std::vector<std::uint32_t> m_ends{};
    std::vector<std::uint32_t> m_first{};  // per open object, where its keys begin
    name_index m_index{};
};

}  // namespace larql::detail

#endif
