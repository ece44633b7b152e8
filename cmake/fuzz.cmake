# SPDX-License-Identifier: Apache-2.0
# cmake -C cmake/fuzz.cmake -S . -B build-fuzz: fuzz targets for libFuzzer, and the library instrumented as they are.
# clang's "undefined" leaves out conversions of floats to integers that do not hold them. Warnings as in dev.cmake.
foreach(_name IN ITEMS clang++ clang++-16)  # the later one found counts
  find_program(LARQL_FUZZ_COMPILER_${_name} ${_name})
  if(LARQL_FUZZ_COMPILER_${_name})
    set(CMAKE_CXX_COMPILER "${LARQL_FUZZ_COMPILER_${_name}}" CACHE FILEPATH "")
  endif()
endforeach()
set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "")
set(LARQL_SANITIZE "fuzzer-no-link,address,undefined,float-cast-overflow" CACHE STRING "")
set(LARQL_BUILD_BENCHMARKS OFF CACHE BOOL "")
if("$ENV{CI}" STREQUAL "true")
  set(LARQL_WARNINGS_AS_ERRORS ON CACHE BOOL "")
endif()
