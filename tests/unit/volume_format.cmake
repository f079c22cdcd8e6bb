set(replica_help ${CMAKE_CURRENT_LIST_DIR}/volume_help.c)
kedge_test(unit_volume_format SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_volume_format.c LINK kedge_volume)
kedge_test(unit_volume_replica SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_volume_replica.c ${replica_help}
  LINK kedge_volume)
kedge_test(unit_volume_grow SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_volume_grow.c ${replica_help} LINK kedge_volume)
kedge_test(unit_volume_incarnation SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_volume_incarnation.c ${replica_help}
  LINK kedge_volume)
kedge_test(unit_volume_crash SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_volume_crash.c ${replica_help} LINK kedge_volume)
