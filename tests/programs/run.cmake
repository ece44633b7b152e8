# SPDX-License-Identifier: Apache-2.0
# Runs a program and holds its exit code and output against what is expected:
#   cmake -DPROGRAM=... "-DARGUMENTS=a;b" -DEXIT=1 [-DOUTPUT=regex] [-DERROR=regex] -P run.cmake
# Errors are one line on standard error; with exit code 0 nothing but warnings may stand there.
cmake_minimum_required(VERSION 3.18)
execute_process(COMMAND "${PROGRAM}" ${ARGUMENTS} RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE errors)
set(said "exit ${code}\n--- output\n${output}--- errors\n${errors}")
if(NOT code STREQUAL EXIT)
  message(FATAL_ERROR "expected exit ${EXIT}, got ${said}")
endif()
if(DEFINED OUTPUT AND NOT output MATCHES "${OUTPUT}")
  message(FATAL_ERROR "expected output with \"${OUTPUT}\", got ${said}")
endif()
if(DEFINED ERROR AND NOT errors MATCHES "${ERROR}")
  message(FATAL_ERROR "expected an error with \"${ERROR}\", got ${said}")
endif()
if(NOT EXIT EQUAL 0 AND NOT errors MATCHES "^[^\n]+\n$")
  message(FATAL_ERROR "expected one line of error, got ${said}")
endif()
string(REGEX REPLACE "warning: [^\n]*\n" "" rest "${errors}")
if(EXIT EQUAL 0 AND NOT rest STREQUAL "")
  message(FATAL_ERROR "expected no error, got ${said}")
endif()
