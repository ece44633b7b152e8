# SPDX-License-Identifier: Apache-2.0
# cmake -C cmake/tsan.cmake -S . -B build-tsan: thread sanitizer. Warnings as in dev.cmake.
set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "")
set(LARQL_SANITIZE "thread" CACHE STRING "")
set(LARQL_BUILD_BENCHMARKS OFF CACHE BOOL "")
if("$ENV{CI}" STREQUAL "true")
  set(LARQL_WARNINGS_AS_ERRORS ON CACHE BOOL "")
endif()
