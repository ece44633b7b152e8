// SPDX-License-Identifier: Apache-2.0
//
// Counts that stop at the largest number instead of wrapping: sums of bytes and operations of models of any size.
#ifndef LARQL_DETAIL_SATURATING_HPP
#define LARQL_DETAIL_SATURATING_HPP

#include <cstdint>

namespace larql::detail {

/// A count that is either exact or `most`, which then means "at least so many".
class saturating {
public:
    static constexpr std::uint64_t most = UINT64_MAX;

    constexpr saturating(std::uint64_t count = 0) noexcept : m_count(count) {}  // NOLINT: a number
    [[nodiscard]] constexpr std::uint64_t value() const noexcept { return m_count; }
    [[nodiscard]] constexpr bool is_exact() const noexcept { return m_count != most; }

    friend constexpr saturating operator+(saturating a, saturating b) noexcept {
        return a.m_count > most - b.m_count ? most : a.m_count + b.m_count;
    }
    friend constexpr saturating operator*(saturating a, saturating b) noexcept {
        return b.m_count != 0 && a.m_count > most / b.m_count ? most : a.m_count * b.m_count;
    }
    /// A part of a sum. What was too large stays so.
    friend constexpr saturating operator-(saturating a, saturating b) noexcept {
        return a.is_exact() ? saturating(a.m_count - b.m_count) : a;
    }
    /// By a number above 0. What was too large stays so.
    friend constexpr saturating operator/(saturating a, std::uint64_t b) noexcept {
        return a.is_exact() ? saturating(a.m_count / b) : a;
    }
    constexpr saturating& operator+=(saturating b) noexcept { return *this = *this + b; }

    friend constexpr bool operator==(saturating, saturating) noexcept = default;

private:
    std::uint64_t m_count;
};

}  // namespace larql::detail

#endif
