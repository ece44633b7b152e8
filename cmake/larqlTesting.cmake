# SPDX-License-Identifier: Apache-2.0
# Settings of larql's own programs and tests. A project that uses larql gets none of them.

option(LARQL_WARNINGS_AS_ERRORS "Compile larql's own programs and tests with -Werror" OFF)
# "address,undefined", "thread", or empty.
set(LARQL_SANITIZE "" CACHE STRING "Sanitizers for larql's own programs and tests")

# Links larql to a program and turns warnings (and sanitizers, if asked for) on.
function(larql_set_up target)
  target_link_libraries(${target} PRIVATE larql::larql)
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
    target_link_options(${target} PRIVATE -fsanitize=${LARQL_SANITIZE})
  endif()
endfunction()
