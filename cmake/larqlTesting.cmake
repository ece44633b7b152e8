# SPDX-License-Identifier: Apache-2.0
# Settings of larql's own programs and tests. A project that uses larql gets none of them.

option(LARQL_WARNINGS_AS_ERRORS "Compile larql's own programs and tests with -Werror" OFF)
# "address,undefined", "thread", or empty.
set(LARQL_SANITIZE "" CACHE STRING "Sanitizers for larql's own programs and tests")

# Turns warnings (and sanitizers, if asked for) on.
function(_larql_add_flags target)
  if(MSVC)
    target_compile_options(${target} PRIVATE /W4 /permissive- $<$<BOOL:${LARQL_WARNINGS_AS_ERRORS}>:/WX>)
    return()
  endif()
  target_compile_options(${target} PRIVATE
    -Wall -Wextra -Wconversion -Wshadow $<$<BOOL:${LARQL_WARNINGS_AS_ERRORS}>:-Werror>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    target_compile_options(${target} PRIVATE -Wno-restrict)  # wrong about std::string's operator+ (GCC bug 105329)
  endif()
  if(LARQL_SANITIZE)
    # Beyond -O1 and -g1, instrumented code takes minutes a file and finds no more.
    target_compile_options(${target} PRIVATE
      -fsanitize=${LARQL_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 -g1)
    target_compile_definitions(${target} PRIVATE _GLIBCXX_ASSERTIONS)  # indices and preconditions of the standard library
    target_link_options(${target} PRIVATE -fsanitize=${LARQL_SANITIZE})
  endif()
endfunction()

# The compiled library, which is then as the programs are.
_larql_add_flags(larql_compiled)
if(NOT MSVC)
  # Half the compile time of -O3, and the kernels are no slower.
  target_compile_options(larql_compiled PRIVATE "$<$<CONFIG:Release>:-O2>")
endif()

# Links larql to a program, header-only or compiled once for all programs that are so, and turns warnings on.
function(larql_set_up target way)
  if(way STREQUAL "COMPILED")
    target_link_libraries(${target} PRIVATE larql::compiled)
  else()
    target_link_libraries(${target} PRIVATE larql::larql)
  endif()
  _larql_add_flags(${target})
endfunction()
