kedge_test(unit_net_bulk SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_net_bulk.c ${CMAKE_CURRENT_LIST_DIR}/pki_help.c
  LINK kedge_net kedge_volume_record)
