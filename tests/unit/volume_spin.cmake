kedge_test(unit_spin SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_spin.c LINK kedge_volume_engine)
