kedge_test(unit_config SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_config.c ${CMAKE_SOURCE_DIR}/agent/config.c
  LINK kedge_net PkgConfig::INIH)
kedge_test(unit_yaml SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_yaml.c LINK kedge_cli_yaml)
