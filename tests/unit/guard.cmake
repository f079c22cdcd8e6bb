kedge_test(unit_fdpass SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_fdpass.c LINK kedge_base)

# With the real guard beside them.
kedge_test(unit_guard_process SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_guard_process.c
  ${CMAKE_CURRENT_LIST_DIR}/guard_fixture.c LINK kedge_base)
kedge_test(unit_guard_link SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_guard_link.c
  ${CMAKE_CURRENT_LIST_DIR}/guard_fixture.c ${CMAKE_SOURCE_DIR}/agent/guard_link.c ${CMAKE_SOURCE_DIR}/agent/spawn.c
  LINK kedge_base)
foreach(test unit_guard_process unit_guard_link)
  add_dependencies(${test} kedge-guard)
  target_compile_definitions(${test} PRIVATE KEDGE_GUARD="$<TARGET_FILE:kedge-guard>")
  if(KEDGE_SANITIZE)
    target_compile_definitions(${test} PRIVATE KEDGE_SANITIZED) # its size is not the guard's
  endif()
endforeach()
