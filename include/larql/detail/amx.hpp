// SPDX-License-Identifier: Apache-2.0
//
// Whether this process may use AMX, the matrix unit of recent x86 processors, and how to ask for it.
#ifndef LARQL_DETAIL_AMX_HPP
#define LARQL_DETAIL_AMX_HPP

#include <larql/detail/cpu.hpp>

#include <atomic>

#if LARQL_X86_DISPATCH && defined(__linux__)
#define LARQL_AMX 1
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#define LARQL_AMX 0
#endif

namespace larql::detail {

/// Whether the processor has AMX tiles and their bfloat16 products. It is asked once: the instruction that tells is
/// emulated in virtual machines and takes ten microseconds there.
inline bool processor_has_amx() noexcept {
#if LARQL_AMX
    static const bool has = [] {
        unsigned a = 0;
        unsigned b = 0;
        unsigned c = 0;
        unsigned d = 0;
        if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
        constexpr unsigned amx_bf16 = 1U << 22;
        constexpr unsigned amx_tile = 1U << 24;
        return (d & amx_bf16) != 0 && (d & amx_tile) != 0 && detected_simd_level() >= simd_level::avx512;
    }();
    return has;
#else
    return false;
#endif
}

/// What is known about the operating system's permission, which is asked once for each value.
enum class amx_permission : int { unknown, denied, granted };
inline std::atomic<amx_permission>& known_amx_permission() noexcept {
    static std::atomic<amx_permission> known{amx_permission::unknown};
    return known;
}

/// Asks the operating system whether it lets this process use AMX. Changes nothing.
inline bool ask_amx_permission() noexcept {
    bool granted = false;
#if LARQL_AMX
    constexpr long arch_get_xcomp_perm = 0x1022;  // asm/prctl.h of Linux 5.16
    constexpr unsigned long tile_data = 1UL << 18;
    unsigned long features = 0;
    granted = processor_has_amx() && syscall(SYS_arch_prctl, arch_get_xcomp_perm, &features) == 0 &&
              (features & tile_data) != 0;
#endif
    known_amx_permission().store(granted ? amx_permission::granted : amx_permission::denied);
    return granted;
}

/// Whether the operating system lets this process use AMX: what it said at the first call, or after request_amx().
inline bool amx_permitted() noexcept {
    const amx_permission known = known_amx_permission().load(std::memory_order_relaxed);
    return known == amx_permission::unknown ? ask_amx_permission() : known == amx_permission::granted;
}

/// Asks for permission, for the whole process and its future threads. @return amx_permitted() afterwards
inline bool request_amx() noexcept {
#if LARQL_AMX
    constexpr long arch_req_xcomp_perm = 0x1023;
    constexpr long tile_data_feature = 18;
    if (!processor_has_amx()) return false;
    if (!ask_amx_permission()) (void)syscall(SYS_arch_prctl, arch_req_xcomp_perm, tile_data_feature);
    return ask_amx_permission();
#else
    return false;
#endif
}

}  // namespace larql::detail

#endif
