// SPDX-License-Identifier: Apache-2.0
#ifndef LARQL_DETAIL_CEIL_DIV_HPP
#define LARQL_DETAIL_CEIL_DIV_HPP

#include <cstdint>

namespace larql::detail {

/// n / d, rounded up; d is not 0.
constexpr std::uint64_t ceil_div(std::uint64_t n, std::uint64_t d) noexcept { return n / d + (n % d != 0 ? 1 : 0); }

}  // namespace larql::detail

#endif
