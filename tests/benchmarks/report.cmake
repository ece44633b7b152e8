# SPDX-License-Identifier: Apache-2.0
# The target benchmark-report: larql-bench beside the peers that LARQL_REPORT_PYTHON has; see README.md here.
set(LARQL_REPORT_PYTHON python3 CACHE STRING "Python of benchmark-report; peers that it can import are compared with")
set(LARQL_REPORT_DIR "${PROJECT_BINARY_DIR}/benchmark-report" CACHE PATH "Where benchmark-report writes")
set(LARQL_REPORT_OPTIONS "" CACHE STRING "Further options of report.py, as a list: --rounds=1;--filter=^decode")

set(_larql_report_version "${PROJECT_VERSION}")
find_package(Git QUIET)
if(Git_FOUND)
  execute_process(COMMAND "${GIT_EXECUTABLE}" describe --always --dirty --tags WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}"
    OUTPUT_VARIABLE _larql_revision OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(_larql_revision)
    string(APPEND _larql_report_version " (${_larql_revision})")
  endif()
endif()

string(TOUPPER "${CMAKE_BUILD_TYPE}" _larql_build_type)
add_custom_target(benchmark-report
  COMMAND "${LARQL_REPORT_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/report.py"
    "--bench=$<TARGET_FILE:larql-bench>" "--out=${LARQL_REPORT_DIR}" "--version=${_larql_report_version}"
    "--compiler=${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}" "--build-type=$<CONFIG>"
    "--flags=${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${_larql_build_type}}" "--blas=${BLAS_LIBRARIES}"
    ${LARQL_REPORT_OPTIONS}
  DEPENDS larql-bench
  USES_TERMINAL VERBATIM)
