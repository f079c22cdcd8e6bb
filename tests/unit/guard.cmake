kedge_test(unit_fdpass SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_fdpass.c LINK kedge_base)
