// SPDX-License-Identifier: Apache-2.0
//
// Which kernels OpenBLAS runs, and a repair for builds that do not know a newer processor: such a build falls back to
// its oldest kernels and multiplies up to seven times slower (0.3.21 of Debian 12 on Xeons from 2021 on). larql's own
// float products do not depend on it; products in double, and programs that call BLAS themselves, do.
//
// OpenBLAS is looked up among the loaded libraries and never linked, so this header works with any BLAS, or none.
#ifndef LARQL_OPENBLAS_HPP
#define LARQL_OPENBLAS_HPP

#include <larql/detail/cpu.hpp>

#include <cstddef>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#define LARQL_HAS_DLSYM 1
#else
#define LARQL_HAS_DLSYM 0
#endif

namespace larql {

/// What openblas_status() found.
struct openblas_report {
    bool present = false;           ///< an OpenBLAS with its diagnostic functions is loaded in this process
    std::string config{};           ///< its own words: version and build options
    std::string core{};             ///< the kernels in use, by OpenBLAS's name ("Prescott", "Haswell", "SkylakeX")
    std::string best_core{};        ///< the kernels that this processor could run; empty where larql knows no answer
    bool better_available = false;  ///< the build can change its kernels, and those in use are of an older kind
    std::string message{};          ///< all of it in one line, with the remedy if there is one
};

namespace detail {

/// A function of a loaded library, or null.
template <class Function>
Function* find_loaded(const char* name) noexcept {
#if LARQL_HAS_DLSYM
    return reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
#else
    static_cast<void>(name);
    return nullptr;
#endif
}

/// The vector instructions that the kernels of a core use. Names from OpenBLAS's driver/others/dynamic.c; every x86
/// core that is not listed is older than AVX2.
inline simd_level openblas_core_level(std::string_view core) noexcept {
    for (const std::string_view name : {"SkylakeX", "Cooperlake", "SapphireRapids"})
        if (core == name) return simd_level::avx512;
    for (const std::string_view name : {"Haswell", "Zen", "Excavator"})
        if (core == name) return simd_level::avx2;
    return simd_level::portable;
}

/// The core to ask for on a processor of this level; empty below AVX2, where OpenBLAS's own choice stands.
inline std::string_view openblas_core_for(simd_level level) noexcept {
    switch (level) {
        case simd_level::avx512: return "SkylakeX";
        case simd_level::avx2: return "Haswell";
        case simd_level::portable: break;
    }
    return {};
}

inline std::string text_or_empty(const char* text) { return text != nullptr ? text : ""; }

}  // namespace detail

/// Says which kernels OpenBLAS uses in this process and whether it could do better. Changes nothing.
///
/// @return  present is false, and the rest empty, if no OpenBLAS is loaded (another BLAS, or a static link)
inline openblas_report openblas_status() {
    using text_function = char*();
    auto* const get_core = detail::find_loaded<text_function>("openblas_get_corename");
    auto* const get_config = detail::find_loaded<text_function>("openblas_get_config");
    openblas_report report;
    if (get_core == nullptr || get_config == nullptr) {
        report.message = "no OpenBLAS is loaded";
        return report;
    }
    report.present = true;
    report.config = detail::text_or_empty(get_config());
    report.core = detail::text_or_empty(get_core());
    const detail::simd_level possible = detail::detected_simd_level();
    const bool older = detail::openblas_core_level(report.core) < possible;
    report.best_core = older ? std::string(detail::openblas_core_for(possible)) : report.core;
    report.better_available = older && report.config.find("DYNAMIC_ARCH") != std::string::npos;
    report.message = "OpenBLAS uses its " + report.core + " kernels";
    if (report.better_available)
        report.message += "; this processor runs the faster " + report.best_core +
                          " kernels: set OPENBLAS_CORETYPE=" + report.best_core +
                          " or call larql::openblas_use_best_kernels()";
    else if (older)
        report.message +=
            "; this processor could run " + report.best_core + " kernels, but this build has one kind only";
    return report;
}

/// Makes OpenBLAS use the best kernels that this processor runs, without a restart.
///
/// Changes the whole process: all later BLAS calls, from whatever code, use the new kernels, and results may differ in
/// the last bits. Not safe while any other thread calls BLAS or reads or writes the environment: call it at the start
/// of the program. It sets the environment variable OPENBLAS_CORETYPE while OpenBLAS chooses again, then restores it.
///
/// @return  whether the best kernels are in use now: true if they were already, false without a loaded OpenBLAS that
///          can change its kernels
inline bool openblas_use_best_kernels() {
    const openblas_report before = openblas_status();
    if (!before.better_available) return before.present && before.core == before.best_core;
#if LARQL_HAS_DLSYM
    using void_function = void();
    auto* const quit = detail::find_loaded<void_function>("gotoblas_dynamic_quit");
    auto* const init = detail::find_loaded<void_function>("gotoblas_dynamic_init");
    if (quit == nullptr || init == nullptr) return false;
    constexpr const char* variable = "OPENBLAS_CORETYPE";
    const char* const value = std::getenv(variable);
    const std::optional<std::string> kept = value != nullptr ? std::optional<std::string>(value) : std::nullopt;
    if (setenv(variable, before.best_core.c_str(), 1) != 0) return false;
    quit();
    init();
    if (kept)
        setenv(variable, kept->c_str(), 1);
    else
        unsetenv(variable);
#endif
    const openblas_report after = openblas_status();
    return after.present && !after.better_available;
}

}  // namespace larql

#undef LARQL_HAS_DLSYM

#endif
