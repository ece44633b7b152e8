# SPDX-License-Identifier: Apache-2.0
# larql::compiled: larql's bodies in a static library, so that files that link it compile declarations only. Read by the
# build and by the installed larqlConfig.cmake: the library is always compiled within the project that links it, by its
# compiler and flags, and only if something links it.
if(NOT TARGET larql_compiled)
  # Three files, to be compiled side by side.
  set(_larql_layers attention_layer linear)
  set(_larql_models attention_plan checkpoint gguf model_config quantization_config safetensors sharded_tensors
    weight_reader)
  set(_larql_tools convert verify)
  set(_larql_sources)
  foreach(_larql_part IN ITEMS layers models tools)
    set(_larql_text)
    foreach(_larql_header IN LISTS _larql_${_larql_part})
      string(APPEND _larql_text "#include <larql/detail/bodies/${_larql_header}.hpp>\n")
    endforeach()
    set(_larql_file "${CMAKE_BINARY_DIR}/larql_compiled/${_larql_part}.cpp")
    file(CONFIGURE OUTPUT "${_larql_file}" CONTENT "${_larql_text}" @ONLY)
    list(APPEND _larql_sources "${_larql_file}")
  endforeach()

  add_library(larql_compiled STATIC EXCLUDE_FROM_ALL ${_larql_sources})
  add_library(larql::compiled ALIAS larql_compiled)
  target_link_libraries(larql_compiled PUBLIC larql::larql)
  target_compile_definitions(larql_compiled PUBLIC LARQL_SEPARATE)
  set_target_properties(larql_compiled PROPERTIES POSITION_INDEPENDENT_CODE ON)
endif()
