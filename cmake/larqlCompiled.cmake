# SPDX-License-Identifier: Apache-2.0
# larql::compiled: larql's bodies in a static library, so that files that link it compile declarations only. Read by the
# build and by the installed larqlConfig.cmake: the library is always compiled within the project that links it, by its
# compiler and flags, and only if something links it.
function(_larql_add_compiled)
  # Three files, to be compiled side by side.
  set(layers amx attention_layer attention_layer_parts linear)
  set(models attention_plan checkpoint gguf model_config quantization_config safetensors sharded_tensors weight_reader)
  set(tools convert verify)
  file(GLOB there RELATIVE "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../include/larql/detail/bodies"
    "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../include/larql/detail/bodies/*.hpp")
  foreach(header IN LISTS there)  # none where larql is installed, which was checked before
    string(REPLACE ".hpp" "" header "${header}")
    if(NOT header IN_LIST layers AND NOT header IN_LIST models AND NOT header IN_LIST tools)
      message(FATAL_ERROR "larql: detail/bodies/${header}.hpp is not listed in larqlCompiled.cmake")
    endif()
  endforeach()
  set(sources)
  foreach(part IN ITEMS layers models tools)
    set(text)
    foreach(header IN LISTS ${part})
      string(APPEND text "#include <larql/detail/bodies/${header}.hpp>\n")
    endforeach()
    set(source "${CMAKE_BINARY_DIR}/larql_compiled/${part}.cpp")
    file(CONFIGURE OUTPUT "${source}" CONTENT "${text}" @ONLY)
    list(APPEND sources "${source}")
  endforeach()

  add_library(larql_compiled STATIC EXCLUDE_FROM_ALL ${sources})
  add_library(larql::compiled ALIAS larql_compiled)
  target_link_libraries(larql_compiled PUBLIC larql::larql)
  target_compile_definitions(larql_compiled PUBLIC LARQL_SEPARATE)
  set_target_properties(larql_compiled PROPERTIES POSITION_INDEPENDENT_CODE ON)
endfunction()

if(NOT TARGET larql_compiled)
  _larql_add_compiled()
endif()
