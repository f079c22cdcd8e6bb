set(core_help ${CMAKE_CURRENT_LIST_DIR}/core_help.c)
kedge_test(unit_volume_core SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_volume_core.c ${core_help} LINK kedge_volume)
kedge_test(unit_volume_flush SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_volume_flush.c ${core_help} LINK kedge_volume)
