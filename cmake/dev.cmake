# SPDX-License-Identifier: Apache-2.0
# cmake -C cmake/dev.cmake -S . -B build: everything, with warnings as errors.
set(CMAKE_BUILD_TYPE Release CACHE STRING "")
set(LARQL_WARNINGS_AS_ERRORS ON CACHE BOOL "")
