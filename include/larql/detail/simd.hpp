// SPDX-License-Identifier: Apache-2.0
//
// Vectors of float and the steps that kernels are made of, in a namespace for every level of vector code:
// simd_portable, simd_avx2 and simd_avx512. Kernels are bodies that are compiled once for each (simd_levels.hpp).
#ifndef LARQL_DETAIL_SIMD_HPP
#define LARQL_DETAIL_SIMD_HPP

#include <larql/detail/cpu.hpp>
#include <larql/dtype.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

#define LARQL_SIMD_BODY <larql/detail/simd_body.hpp>
#include <larql/detail/simd_levels.hpp>

#endif
