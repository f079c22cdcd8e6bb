# What a node decides, without a cluster around it.
kedge_test(unit_started SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_started.c ${CMAKE_CURRENT_LIST_DIR}/store_help.c LINK kedge_agent_core)
kedge_test(unit_engine_health SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_engine_health.c ${CMAKE_SOURCE_DIR}/agent/engine_health.c LINK kedge_base)
kedge_test(unit_store_remove SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_store_remove.c ${CMAKE_CURRENT_LIST_DIR}/store_help.c LINK kedge_store)
kedge_test(unit_give_back SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_give_back.c ${CMAKE_CURRENT_LIST_DIR}/store_help.c LINK kedge_agent_core)
# What surrounds it is the test's own.
kedge_test(unit_volumes SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_volumes.c ${CMAKE_CURRENT_LIST_DIR}/store_help.c
  ${CMAKE_SOURCE_DIR}/agent/volumes.c LINK kedge_store)
