kedge_test(unit_disk_io SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_disk_io.c LINK kedge_volume_engine)
