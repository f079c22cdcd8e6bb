kedge_test(unit_net_bulk SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_net_bulk.c ${CMAKE_CURRENT_LIST_DIR}/pki_help.c
  LINK kedge_net kedge_volume_record)

# With OpenSSL at the other end.
kedge_program(bulk_pipe SOURCES ${CMAKE_CURRENT_LIST_DIR}/bulk_pipe.c LINK kedge_net kedge_volume_record)
add_test(NAME bulk_openssl COMMAND ${CMAKE_CURRENT_LIST_DIR}/test_bulk_openssl.py)
add_test(NAME bulk_helper COMMAND ${CMAKE_CURRENT_LIST_DIR}/test_bulk_helper.py)
set_tests_properties(bulk_openssl bulk_helper PROPERTIES TIMEOUT 120 ENVIRONMENT "KEDGE_BUILD=${CMAKE_BINARY_DIR}")
