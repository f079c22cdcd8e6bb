# With real engines beside them.
set(engine_help ${CMAKE_CURRENT_LIST_DIR}/engine_fixture.c ${CMAKE_CURRENT_LIST_DIR}/engine_guest.c ${CMAKE_CURRENT_LIST_DIR}/pki_help.c
  ${CMAKE_SOURCE_DIR}/agent/engine_link.c ${CMAKE_SOURCE_DIR}/agent/engine_health.c ${CMAKE_SOURCE_DIR}/agent/bulk_maker.c ${CMAKE_SOURCE_DIR}/agent/spawn.c)
foreach(part link export pair)
  kedge_test(unit_engine_${part} SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_engine_${part}.c ${engine_help}
    LINK kedge_net kedge_proto)
  add_dependencies(unit_engine_${part} kedge-vol)
  target_compile_definitions(unit_engine_${part} PRIVATE KEDGE_VOL="$<TARGET_FILE:kedge-vol>")
endforeach()
