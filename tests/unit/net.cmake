kedge_test(unit_net SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_net.c LINK kedge_net)
