kedge_test(unit_volume_record SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_volume_record.c LINK kedge_volume_record)
