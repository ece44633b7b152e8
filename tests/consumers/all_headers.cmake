# SPDX-License-Identifier: Apache-2.0
# cmake -DINCLUDE=... -P all_headers.cmake: larql.hpp includes every public header, as it says.
cmake_minimum_required(VERSION 3.18)
file(GLOB headers RELATIVE "${INCLUDE}" "${INCLUDE}/larql/*.hpp")
list(REMOVE_ITEM headers larql/larql.hpp larql/src.hpp)  # of the latter are bodies
file(STRINGS "${INCLUDE}/larql/larql.hpp" lines REGEX "^#include <larql/")
set(missing)
foreach(header IN LISTS headers)
  if(NOT "#include <${header}>" IN_LIST lines)
    string(APPEND missing " ${header}")
  endif()
endforeach()
if(missing)
  message(FATAL_ERROR "larql.hpp lacks${missing}")
endif()
