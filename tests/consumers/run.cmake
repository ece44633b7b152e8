# SPDX-License-Identifier: Apache-2.0
# cmake -DWAY=... -P run.cmake: brings larql in one way, builds the program and runs it. Called by ctest.
cmake_minimum_required(VERSION 3.18)

function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    string(REPLACE ";" " " command "${ARGV}")
    message(FATAL_ERROR "${command}\nfailed (${result}):\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

# An empty folder for this way: what an earlier run left must not help this one.
set(folder "${WORK}/${WAY}")
file(REMOVE_RECURSE "${folder}")
file(MAKE_DIRECTORY "${folder}")

function(configure project)
  run("${CMAKE_COMMAND}" -S "${project}" -B "${folder}/build" -G "${GENERATOR}" "-DCMAKE_MAKE_PROGRAM=${MAKE_PROGRAM}"
    "-DCMAKE_CXX_COMPILER=${CXX}" ${ARGN})
endfunction()

function(build_and_run)
  run("${CMAKE_COMMAND}" --build "${folder}/build" --config Release --target consumer)
  find_program(program NAMES consumer PATHS "${folder}/build" "${folder}/build/Release" NO_DEFAULT_PATH REQUIRED)
  run("${program}" ${ARGN})
endfunction()

# Where find_package() looks besides the system, in the environment, which needs no quoting of lists.
function(look_in)
  set(prefixes ${ARGN} ${PREFIX_PATH})
  if(NOT WIN32)
    list(JOIN prefixes ":" prefixes)
  endif()
  set(ENV{CMAKE_PREFIX_PATH} "${prefixes}")
endfunction()

# Installs into one prefix that stays and into one that is moved afterwards.
if(WAY STREQUAL "install")
  look_in()
  configure("${SOURCE}" -DLARQL_BUILD_TESTS=OFF -DLARQL_BUILD_EXAMPLES=OFF -DLARQL_BUILD_BENCHMARKS=OFF)
  foreach(prefix IN ITEMS installed original)
    run("${CMAKE_COMMAND}" --install "${folder}/build" --config Release --prefix "${folder}/${prefix}")
  endforeach()
  file(RENAME "${folder}/original" "${folder}/moved")

elseif(WAY STREQUAL "find_package")
  look_in("${WORK}/install/installed")
  configure("${CONSUMERS}/find_package")
  build_and_run()

elseif(WAY STREQUAL "moved_prefix")
  look_in("${WORK}/install/moved")
  configure("${CONSUMERS}/find_package")
  build_and_run()

elseif(WAY STREQUAL "versions")
  look_in("${WORK}/install/installed")
  configure("${CONSUMERS}/versions" "-DLARQL_VERSION=${VERSION}")

# The README's command for installing, word for word in a fresh copy of the sources, and what it says follows.
elseif(WAY STREQUAL "readme_install")
  file(STRINGS "${SOURCE}/README.md" row REGEX "^\\| installed \\|")
  if(NOT row MATCHES "^\\| installed \\| `([^`]+)`[^`]*`(find_package[^`]+)`[^`]*`larql::larql`")
    message(FATAL_ERROR "README.md does not say how to install:\n${row}")
  endif()
  set(command "${CMAKE_MATCH_1}")
  file(READ "${CONSUMERS}/find_package/CMakeLists.txt" project)
  string(FIND "${project}" "${CMAKE_MATCH_2}" at)
  if(at EQUAL -1)
    message(FATAL_ERROR "the consumer does not say ${CMAKE_MATCH_2}")
  endif()
  file(COPY "${SOURCE}/CMakeLists.txt" "${SOURCE}/cmake" "${SOURCE}/include" "${SOURCE}/examples" "${SOURCE}/tests"
    DESTINATION "${folder}/larql" PATTERN "data" EXCLUDE)
  look_in()
  set(ENV{CMAKE_GENERATOR} "${GENERATOR}")
  set(ENV{CXX} "${CXX}")
  get_filename_component(tools "${MAKE_PROGRAM}" DIRECTORY)
  get_filename_component(cmake "${CMAKE_COMMAND}" DIRECTORY)
  set(ENV{PATH} "${cmake}:${tools}:$ENV{PATH}")
  set(ENV{DESTDIR} "${folder}/root")  # instead of the machine's own /usr/local
  run(sh -c "cd '${folder}/larql' && ${command}")
  unset(ENV{DESTDIR})
  # CMake's default prefix differs from system to system.
  file(STRINGS "${folder}/larql/build/CMakeCache.txt" prefix REGEX "^CMAKE_INSTALL_PREFIX:")
  string(REGEX REPLACE "^[^=]*=" "" prefix "${prefix}")
  look_in("${folder}/root${prefix}")
  configure("${CONSUMERS}/find_package")
  build_and_run()

# Another library exports a target that links larql, with larql in a directory of its own; and one uses that library.
elseif(WAY STREQUAL "export_set")
  look_in()
  configure("${CONSUMERS}/export_set" "-DLARQL_SOURCE=${SOURCE}" -DCMAKE_BUILD_TYPE=Release)
  run("${CMAKE_COMMAND}" --build "${folder}/build" --config Release)
  run("${CMAKE_COMMAND}" --install "${folder}/build" --config Release --prefix "${folder}/installed")
  file(REMOVE_RECURSE "${folder}/build")
  look_in("${folder}/installed")
  configure("${CONSUMERS}/export_set/user")
  build_and_run()

# The examples, as a project of their own: all are configured, the shortest is built.
elseif(WAY STREQUAL "examples")
  look_in("${WORK}/install/installed")
  configure("${SOURCE}/examples")
  run("${CMAKE_COMMAND}" --build "${folder}/build" --target absorb_tensors)

elseif(WAY STREQUAL "add_subdirectory" OR WAY STREQUAL "fetch_content")
  look_in()
  configure("${CONSUMERS}/${WAY}" "-DLARQL_SOURCE=${SOURCE}")
  build_and_run()

# Headers copied into another tree: no CMake, one include path and one library; and again where xtensor's default layout
# is the other one.
elseif(WAY STREQUAL "vendored")
  file(COPY "${SOURCE}/include" DESTINATION "${folder}")
  set(others)
  foreach(prefix IN LISTS PREFIX_PATH)
    list(APPEND others -isystem "${prefix}/include" "-L${prefix}/lib")
  endforeach()
  foreach(layout IN ITEMS row_major column_major)
    run("${CXX}" -std=c++20 -I "${folder}/include" ${others} -DXTENSOR_DEFAULT_LAYOUT=layout_type::${layout}
      "${CONSUMERS}/program/main.cpp" "${CONSUMERS}/program/attention.cpp" -o "${folder}/${layout}" -lopenblas)
    run("${folder}/${layout}")
  endforeach()

# All of larql without CMake: header-only, and with its bodies in one source file.
elseif(WAY STREQUAL "header_only" OR WAY STREQUAL "one_source")
  file(COPY "${CONSUMERS}/whole/main.cpp" "${CONSUMERS}/whole/copies.cpp" DESTINATION "${folder}")
  set(sources main.cpp copies.cpp)
  set(mode)
  if(WAY STREQUAL "one_source")
    file(COPY "${CONSUMERS}/whole/bodies.cpp" DESTINATION "${folder}")
    list(APPEND sources bodies.cpp)
    set(mode -DLARQL_SEPARATE)
  endif()
  set(others)
  foreach(prefix IN LISTS PREFIX_PATH)
    list(APPEND others -isystem "${prefix}/include" "-L${prefix}/lib")
  endforeach()
  list(TRANSFORM sources PREPEND "${folder}/")
  run("${CXX}" -std=c++20 -O0 -pthread ${mode} -I "${SOURCE}/include" ${others} ${sources} -o "${folder}/program" -lopenblas)
  run("${folder}/program" "${MODEL}" "${folder}/copy")

elseif(WAY STREQUAL "compiled")
  look_in("${WORK}/install/installed")
  configure("${CONSUMERS}/whole/compiled")
  build_and_run("${MODEL}" "${folder}/copy")

else()
  message(FATAL_ERROR "unknown way '${WAY}'")
endif()
