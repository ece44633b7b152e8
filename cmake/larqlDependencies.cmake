# SPDX-License-Identifier: Apache-2.0
# The one list of what larql needs, read by the build and by the installed larqlConfig.cmake.

# Finds a package unless its target is there already: a project that uses larql may bring its own.
macro(_larql_need target package)
  if(NOT TARGET ${target})
    if(DEFINED CMAKE_FIND_PACKAGE_NAME)
      find_dependency(${package} ${ARGN})
    else()
      find_package(${package} ${ARGN} REQUIRED)
    endif()
  endif()
endmacro()

_larql_need(xtensor xtensor)
_larql_need(xtensor-blas xtensor-blas)
_larql_need(nlohmann_json::nlohmann_json nlohmann_json)
_larql_need(Threads::Threads Threads)
_larql_need(BLAS::BLAS BLAS)
