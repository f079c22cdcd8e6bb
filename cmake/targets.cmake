# SPDX-License-Identifier: Apache-2.0
# kedge_library(NAME SOURCES... LINK...) and kedge_test(NAME SOURCES... LINK...): every target gets the same flags.
add_library(kedge_flags INTERFACE)
target_include_directories(kedge_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_definitions(kedge_flags INTERFACE _GNU_SOURCE KEDGE_VERSION="${PROJECT_VERSION}")
target_compile_options(kedge_flags INTERFACE -Wall -Wextra -Werror -Wvla -Wshadow -Wstrict-prototypes
  -Wmissing-prototypes -Wpointer-arith -Wwrite-strings -Wformat=2 -Wno-format-nonliteral -fno-common
  -fstack-protector-strong -fPIC)
if(KEDGE_SANITIZE)
  target_compile_options(kedge_flags INTERFACE -fsanitize=${KEDGE_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(kedge_flags INTERFACE -fsanitize=${KEDGE_SANITIZE})
endif()
if(KEDGE_FUZZ) # what fuzzers call must say which way it went
  target_compile_options(kedge_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# One library per folder: kedge_library(net SOURCES a.c b.c LINK kedge_base PkgConfig::UV)
function(kedge_library name)
  cmake_parse_arguments(A "" "" "SOURCES;LINK" ${ARGN})
  add_library(kedge_${name} STATIC ${A_SOURCES})
  target_link_libraries(kedge_${name} PUBLIC kedge_flags ${A_LINK})
endfunction()

function(kedge_program name)
  cmake_parse_arguments(A "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE kedge_flags ${A_LINK})
endfunction()

# A cmocka program below tests/, run by ctest: kedge_test(unit_net SOURCES test_net.c LINK kedge_net)
function(kedge_test name)
  cmake_parse_arguments(A "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE kedge_flags ${A_LINK} PkgConfig::CMOCKA)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT 120)
endfunction()
