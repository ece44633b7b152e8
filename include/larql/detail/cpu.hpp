// SPDX-License-Identifier: Apache-2.0
//
// Which instruction set the running processor has, and the attributes that compile a function for one of them.
// A default build has no -march: every vector kernel exists once per level and is chosen at run time.
#ifndef LARQL_DETAIL_CPU_HPP
#define LARQL_DETAIL_CPU_HPP

#include <larql/detail/language.hpp>

#include <cstdlib>
#include <string_view>

#if (defined(__x86_64__) || defined(_M_X64)) && defined(__GNUC__)
#define LARQL_X86_DISPATCH 1
#else
#define LARQL_X86_DISPATCH 0
#endif

// Put one of these on each function of a kernel. A helper that is inlined into a kernel needs the kernel's attribute.
#if LARQL_X86_DISPATCH
#define LARQL_TARGET_AVX2 __attribute__((target("avx2,fma,f16c,bmi,bmi2")))
#define LARQL_TARGET_AVX512 __attribute__((target("avx2,fma,f16c,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl")))
#endif

namespace larql::detail {

/// Levels of vector code, weakest first. `portable` is plain C++ and runs on any processor.
enum class simd_level { portable, avx2, avx512 };

inline constexpr simd_level all_simd_levels[] = {simd_level::portable, simd_level::avx2, simd_level::avx512};

inline std::string_view to_string(simd_level level) noexcept {
    switch (level) {
        case simd_level::portable: return "portable";
        case simd_level::avx2: return "avx2";
        case simd_level::avx512: return "avx512";
    }
    return "unknown";
}

/// The strongest level that this processor and operating system can run.
inline simd_level detected_simd_level() noexcept {
#if LARQL_X86_DISPATCH
    __builtin_cpu_init();
    // No query for F16C: clang 16 does not know it, and every processor with AVX2 has it.
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (avx512) return simd_level::avx512;
    if (avx2) return simd_level::avx2;
#endif
    return simd_level::portable;
}

/// The level in use: the detected one, lowered by the environment variable LARQL_SIMD (portable, avx2 or avx512) when
/// that is set, so that every path can be tested on one machine. Read once per process.
inline simd_level active_simd_level() noexcept {
    static const simd_level level = [] {
        const simd_level best = detected_simd_level();
        const char* wanted = std::getenv("LARQL_SIMD");
        if (wanted == nullptr) return best;
        for (const simd_level l : all_simd_levels)
            if (to_string(l) == wanted && l < best) return l;
        return best;
    }();
    return level;
}

}  // namespace larql::detail

#endif
