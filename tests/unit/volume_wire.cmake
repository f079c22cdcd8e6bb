kedge_test(unit_volume_wire SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_volume_wire.c LINK kedge_volume_engine)
