kedge_test(unit_hypervisor SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_hypervisor.c ${CMAKE_CURRENT_LIST_DIR}/guest_help.c
  ${CMAKE_SOURCE_DIR}/agent/process.c LINK kedge_hypervisor_parts)
target_compile_definitions(unit_hypervisor PRIVATE GUEST_FOLDER="${CMAKE_SOURCE_DIR}/build/guest")
