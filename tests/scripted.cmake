# Tests that are scripts.
#
#   tests/cli/*.sh             run by bash; DS_BIN, DS_ROOT and DS_BUILD are set
#   tests/python/test_*.py     run by pytest, label python; DS_BIN, DS_ROOT and DS_TESTDATA are set
#   tests/python/*.py          others: run as `python FILE BIN_DIR`, label python
#   tests/onnx/*.sh            as tests/cli, with DS_PYTHON set, label python
#
# A line `# ctest: slow` in a script gives it the label slow (left out by `ctest -LE slow`), a line
# `# ctest: timeout SECONDS` another limit than 300 s, `# ctest: alone` the machine to itself.
# Exit status 77 means skipped; the script prints why.

set(DS_PYTHON "$ENV{DS_PYTHON}" CACHE FILEPATH "Python with the packages of tests/requirements.txt")
set(python ${DS_PYTHON})
if(NOT python)
  set(python ${PROJECT_SOURCE_DIR}/build/venv/bin/python)
endif()

function(ds_script_test name script)
  cmake_parse_arguments(arg "" "" "COMMAND;LABELS" ${ARGN})
  add_test(NAME ${name} COMMAND ${arg_COMMAND} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  file(STRINGS ${script} notes REGEX "^# ctest: ")
  set(timeout 300)
  foreach(note IN LISTS notes)
    if(note MATCHES "^# ctest: slow$")
      list(APPEND arg_LABELS slow)
    elseif(note MATCHES "^# ctest: timeout ([0-9]+)$")
      set(timeout ${CMAKE_MATCH_1})
    elseif(note MATCHES "^# ctest: alone$")
      set_tests_properties(${name} PROPERTIES RUN_SERIAL ON)
    else()
      message(FATAL_ERROR "${script}: cannot read '${note}'")
    endif()
  endforeach()
  set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT ${timeout} LABELS "${arg_LABELS}" ENVIRONMENT
    "DS_BIN=${CMAKE_BINARY_DIR}/bin;DS_ROOT=${PROJECT_SOURCE_DIR};DS_BUILD=${CMAKE_BINARY_DIR};DS_TESTDATA=${PROJECT_SOURCE_DIR}/testdata")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${script})
endfunction()

add_test(NAME check_layers COMMAND ${PROJECT_SOURCE_DIR}/scripts/check_layers)
add_test(NAME check_layers_self_test COMMAND ${PROJECT_SOURCE_DIR}/scripts/check_layers --self-test)

file(GLOB scripts CONFIGURE_DEPENDS cli/*.sh)
foreach(script IN LISTS scripts)
  get_filename_component(name ${script} NAME_WE)
  ds_script_test(cli/${name} ${script} COMMAND bash ${script})
endforeach()

file(GLOB scripts CONFIGURE_DEPENDS python/*.py)
if(NOT EXISTS ${python})
  message(STATUS "Python tests are left out: ${python} does not exist (scripts/dev venv makes it)")
  set(scripts)
endif()
foreach(script IN LISTS scripts)
  get_filename_component(name ${script} NAME_WE)
  if(name MATCHES "^test_")
    ds_script_test(python/${name} ${script} LABELS python
      COMMAND ${python} -m pytest -q -p no:cacheprovider ${script})
  elseif(NOT name MATCHES "^(conftest|onnx_cases)$")
    ds_script_test(python/${name} ${script} LABELS python COMMAND ${python} ${script} ${CMAKE_BINARY_DIR}/bin)
  endif()
endforeach()

file(GLOB scripts CONFIGURE_DEPENDS onnx/*.sh)
if(NOT EXISTS ${python})
  set(scripts)
endif()
foreach(script IN LISTS scripts)
  get_filename_component(name ${script} NAME_WE)
  ds_script_test(onnx/${name} ${script} LABELS python COMMAND ${CMAKE_COMMAND} -E env DS_PYTHON=${python} bash ${script})
endforeach()
