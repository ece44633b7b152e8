# SPDX-License-Identifier: Apache-2.0
# cmake -DCXX=... -DINCLUDE=... -DARCHITECTURE=... -DWORK=... -P: everything compiles where a size has 32 bits, if this
# machine has a standard library for that.
cmake_minimum_required(VERSION 3.18)
function(compile header)
  file(WRITE "${WORK}/compile_32bit.cpp" "#include <${header}>\n")
  execute_process(COMMAND "${CXX}" -std=c++20 -m32 -fsyntax-only -I "${INCLUDE}" -idirafter
      "/usr/include/${ARCHITECTURE}" "${WORK}/compile_32bit.cpp"
    RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  set(result "${result}" PARENT_SCOPE)
  set(output "${output}" PARENT_SCOPE)
endfunction()
compile(vector)
if(NOT result EQUAL 0)
  message(STATUS "skipped: nothing compiles with -m32 here (Debian: g++-multilib)")
  return()
endif()
compile(larql/larql.hpp)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "larql does not compile with -m32:\n${output}")
endif()
