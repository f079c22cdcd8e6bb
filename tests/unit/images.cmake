kedge_test(unit_store_image SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_store_image.c ${CMAKE_CURRENT_LIST_DIR}/store_help.c LINK kedge_store)
kedge_test(unit_image_file SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_image_file.c ${CMAKE_SOURCE_DIR}/agent/image_file.c
  ${CMAKE_SOURCE_DIR}/agent/image_inspect.c LINK kedge_net)
kedge_test(unit_seed SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_seed.c ${CMAKE_SOURCE_DIR}/agent/seed.c LINK kedge_base)
kedge_test(unit_yaml_images SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_yaml_images.c LINK kedge_cli_yaml)
