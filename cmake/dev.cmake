# SPDX-License-Identifier: Apache-2.0
# cmake -C cmake/dev.cmake -S . -B build: everything. Warnings are errors in CI only (CI=true in the environment), since
# other compilers have other warnings; -DLARQL_WARNINGS_AS_ERRORS=ON makes them errors elsewhere.
set(CMAKE_BUILD_TYPE Release CACHE STRING "")
if("$ENV{CI}" STREQUAL "true")
  set(LARQL_WARNINGS_AS_ERRORS ON CACHE BOOL "")
endif()
