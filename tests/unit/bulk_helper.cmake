# What stands in for kedged where volume engines run without it.
kedge_program(kedge-bulk-helper SOURCES ${CMAKE_SOURCE_DIR}/tests/volume/bulk_helper.c
  ${CMAKE_CURRENT_LIST_DIR}/pki_help.c LINK kedge_net kedge_proto)
