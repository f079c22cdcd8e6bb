kedge_test(unit_volume_core SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_volume_core.c LINK kedge_volume)
