# What a node decides, without a cluster around it.
kedge_test(unit_started SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_started.c ${CMAKE_CURRENT_LIST_DIR}/store_help.c LINK kedge_agent_core)
