# SPDX-License-Identifier: Apache-2.0
# cmake -DCXX=... -DCASE=file.cpp -P check.cmake: the file compiles, and with LARQL_FORBIDDEN it fails as it says.
cmake_minimum_required(VERSION 3.18)

# The value of a line "// key: value" of the case.
function(stated key variable)
  file(STRINGS "${CASE}" lines REGEX "^// ${key}: ")
  string(REGEX REPLACE "^// ${key}: " "" value "${lines}")
  set(${variable} "${value}" PARENT_SCOPE)
endfunction()
stated("expect" expected)
stated("errors" error_limit)
stated("forbidden flags" forbidden_flags)
if(NOT expected)
  message(FATAL_ERROR "${CASE} does not state what to expect")
endif()

list(REMOVE_DUPLICATES INCLUDES)
if(SYSTEM_INCLUDES)
  list(REMOVE_ITEM INCLUDES ${SYSTEM_INCLUDES})  # named again, they would come in the wrong order
endif()
list(TRANSFORM INCLUDES PREPEND "-I")

# Deleted functions stand in declarations. Where errors are counted, bodies could add to them.
set(mode -DLARQL_SEPARATE)
if(error_limit)
  set(mode)
endif()

function(compile)
  execute_process(COMMAND "${CXX}" -std=c++20 ${mode} ${INCLUDES} -fsyntax-only ${ARGN} "${CASE}"
    RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  string(SUBSTRING "${output}" 0 4000 beginning)
  set(beginning "${beginning}" PARENT_SCOPE)
  set(result "${result}" PARENT_SCOPE)
  set(output "${output}" PARENT_SCOPE)
endfunction()

compile()
if(NOT result EQUAL 0)
  message(FATAL_ERROR "the allowed form does not compile:\n${beginning}")
endif()
compile(-DLARQL_FORBIDDEN ${forbidden_flags})
if(result EQUAL 0)
  message(FATAL_ERROR "the forbidden form compiles")
endif()
if(NOT output MATCHES "${expected}")
  message(FATAL_ERROR "the forbidden form fails without saying '${expected}':\n${beginning}")
endif()
if(error_limit)
  string(REGEX MATCHALL "error: " errors "${output}")
  list(LENGTH errors count)
  if(count GREATER error_limit)
    message(FATAL_ERROR "the forbidden form fails with ${count} errors, at most ${error_limit} were expected:\n${beginning}")
  endif()
endif()
