# SPDX-License-Identifier: Apache-2.0
# cmake -C cmake/asan.cmake -S . -B build-asan: address and undefined-behaviour sanitizers, optimised enough to be quick.
# Warnings as in dev.cmake.
set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "")
set(LARQL_SANITIZE "address,undefined" CACHE STRING "")
set(LARQL_BUILD_BENCHMARKS OFF CACHE BOOL "")
if("$ENV{CI}" STREQUAL "true")
  set(LARQL_WARNINGS_AS_ERRORS ON CACHE BOOL "")
endif()
