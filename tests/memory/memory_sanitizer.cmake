# SPDX-License-Identifier: Apache-2.0
# cmake -DCXX=... -DINCLUDE=... -DSOURCE=... -DWORK=... -DFILES=... -P: the readers under MemorySanitizer, where there is a
# clang with a libc++. In that library, what is no template of a header is not instrumented: SOURCE/instrumented_strings.cpp
# stands in for it, and file names, which have no such stand-in, are left out.
cmake_minimum_required(VERSION 3.18)
set(_flags -std=c++20 -stdlib=libc++ -fsanitize=memory -fno-omit-frame-pointer -O1 -g1)
file(MAKE_DIRECTORY "${WORK}")
execute_process(COMMAND "${CXX}" ${_flags} "${SOURCE}/instrumented_strings.cpp" -c -o "${WORK}/strings.o"
  RESULT_VARIABLE _result OUTPUT_QUIET ERROR_QUIET)
if(NOT _result EQUAL 0)
  message(STATUS "skipped: no clang with libc++ (Debian: clang, libc++-dev and libc++abi-dev) builds with -fsanitize=memory")
  return()
endif()
execute_process(COMMAND "${CXX}" ${_flags} "-I${INCLUDE}" "${SOURCE}/readers.cpp" "${WORK}/strings.o" -o "${WORK}/readers"
  RESULT_VARIABLE _result OUTPUT_VARIABLE _output ERROR_VARIABLE _output)
if(NOT _result EQUAL 0)
  message(FATAL_ERROR "the readers do not compile with ${CXX} and libc++:\n${_output}")
endif()
execute_process(COMMAND "${WORK}/readers" MemorySanitizer 7 ${FILES} RESULT_VARIABLE _result OUTPUT_VARIABLE _output ERROR_VARIABLE _output)
message(STATUS "${_output}")
if(NOT _result EQUAL 0)
  message(FATAL_ERROR "MemorySanitizer: ${_result}")
endif()
