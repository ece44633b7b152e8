// SPDX-License-Identifier: Apache-2.0
//
// Included first by the headers that everything else includes: says once what is wrong with how they are compiled,
// instead of some hundred errors in their midst.
#ifndef LARQL_DETAIL_LANGUAGE_HPP
#define LARQL_DETAIL_LANGUAGE_HPP

// Compilers like MSVC report the language in _MSVC_LANG, and leave __cplusplus at C++98 unless asked.
#if !defined(__cplusplus) || (__cplusplus < 202002L && !(defined(_MSVC_LANG) && _MSVC_LANG >= 202002L))
#error "larql needs C++20: compile with -std=c++20 or later"
#include <larql/needs/cxx20>  // there is no such file: compilers go on after #error, but not after this
#endif

// Vector code is written in the extensions of these two.
#if !defined(__GNUC__) && !defined(__clang__)
#error "larql needs GCC or Clang, whose vector extensions it is written in"
#include <larql/needs/gcc_or_clang>
#endif

// Files are little-endian, and their bytes are numbers as they stand: the one place that says so.
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "larql reads little-endian files on little-endian machines: it cannot be compiled for a big-endian one"
#include <larql/needs/little_endian>
#endif

// As <windows.h> defines them. xtensor cannot bear these macros either, nor can most standard libraries.
#if defined(min) || defined(max)
#error "larql and xtensor need std::min and std::max: define NOMINMAX before <windows.h>, or undefine min and max"
#include <larql/needs/no_min_max_macros>
#endif

#endif
