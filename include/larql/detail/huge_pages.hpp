// SPDX-License-Identifier: Apache-2.0
//
// Large buffers on large pages.
#ifndef LARQL_DETAIL_HUGE_PAGES_HPP
#define LARQL_DETAIL_HUGE_PAGES_HPP

#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace larql::detail {

/// Asks the system to back fresh memory with 2 MiB pages: the first touch of 100 MiB then takes 50 page faults and not
/// 25,600. Changes nothing else, and nothing where the system has no such pages or the memory is small.
/// @param data  not yet touched
inline void advise_huge_pages(void* data, std::size_t bytes) noexcept {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr std::size_t huge = std::size_t{2} << 20;
    if (bytes < 2 * huge) return;
    // Whole huge pages only, so that no neighbour's memory is concerned.
    const std::size_t skipped = (huge - reinterpret_cast<std::uintptr_t>(data) % huge) % huge;
    const std::size_t length = (bytes - skipped) / huge * huge;
    static_cast<void>(::madvise(static_cast<char*>(data) + skipped, length, MADV_HUGEPAGE));
#else
    static_cast<void>(data);
    static_cast<void>(bytes);
#endif
}

}  // namespace larql::detail

#endif
