// SPDX-License-Identifier: Apache-2.0
//
// Whether the processor has AMX, the matrix unit of recent x86 processors, and permission to use it.
#ifndef LARQL_DETAIL_AMX_HPP
#define LARQL_DETAIL_AMX_HPP

#include <larql/detail/cpu.hpp>

#if LARQL_X86_DISPATCH && defined(__linux__)
#define LARQL_AMX 1
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#define LARQL_AMX 0
#endif

namespace larql::detail {

#if LARQL_AMX
/// Whether the processor has AMX tiles and their bfloat16 products. It is asked once: the instruction that tells is
/// emulated in virtual machines and takes ten microseconds there.
inline bool processor_has_amx() noexcept {
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
}

/// Asks the operating system for permission, for the whole process and its future threads.
/// @return  whether this process may use AMX now
inline bool request_amx() noexcept {
    constexpr long arch_get_xcomp_perm = 0x1022;  // asm/prctl.h of Linux 5.16
    constexpr long arch_req_xcomp_perm = 0x1023;
    constexpr long tile_data_feature = 18;
    const auto granted = [] {
        unsigned long features = 0;
        return syscall(SYS_arch_prctl, arch_get_xcomp_perm, &features) == 0 &&
               (features >> tile_data_feature & 1UL) != 0;
    };
    if (!processor_has_amx()) return false;
    if (!granted()) (void)syscall(SYS_arch_prctl, arch_req_xcomp_perm, tile_data_feature);
    return granted();
}
#endif

}  // namespace larql::detail

#endif
