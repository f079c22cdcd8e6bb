kedge_test(unit_timing SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_timing.c LINK kedge_base)
kedge_test(unit_proto SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_proto.c LINK kedge_store)
kedge_test(unit_store SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_store.c LINK kedge_store)
kedge_test(unit_scheduler SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_scheduler.c LINK kedge_scheduler)
