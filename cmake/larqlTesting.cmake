# SPDX-License-Identifier: Apache-2.0
# Settings of larql's own programs and tests. A project that uses larql gets none of them.

# LARQL_SANITIZE: "address,undefined", "thread", or empty.
set(LARQL_SANITIZE "" CACHE STRING "Sanitizers for larql's own programs and tests")

function(larql_set_up target)
  target_link_libraries(${target} PRIVATE larql::larql)
  if(NOT MSVC)
    target_compile_options(${target} PRIVATE -Wall -Wextra -Wconversion -Wshadow)
    if(LARQL_WARNINGS_AS_ERRORS)
      target_compile_options(${target} PRIVATE -Werror)
    endif()
    if(LARQL_SANITIZE)
      target_compile_options(${target} PRIVATE -fsanitize=${LARQL_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
      target_link_options(${target} PRIVATE -fsanitize=${LARQL_SANITIZE})
    endif()
  endif()
endfunction()
