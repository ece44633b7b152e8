// SPDX-License-Identifier: Apache-2.0
//
// Included first by the headers that everything else includes: says once what is wrong with how they are compiled,
// instead of some hundred errors in their midst.
#ifndef LARQL_DETAIL_LANGUAGE_HPP
#define LARQL_DETAIL_LANGUAGE_HPP

// MSVC reports the language in _MSVC_LANG, and leaves __cplusplus at C++98 unless asked.
#if !defined(__cplusplus) || (__cplusplus < 202002L && !(defined(_MSVC_LANG) && _MSVC_LANG >= 202002L))
#error "larql needs C++20: compile with -std=c++20 or later"
#include <larql/needs/cxx20>  // there is no such file: compilers go on after #error, but not after this
#endif

// As <windows.h> defines them. xtensor cannot bear these macros either, nor can most standard libraries.
#if defined(min) || defined(max)
#error "larql and xtensor need std::min and std::max: define NOMINMAX before <windows.h>, or undefine min and max"
#include <larql/needs/no_min_max_macros>
#endif

#endif
