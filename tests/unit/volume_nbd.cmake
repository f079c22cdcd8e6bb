set(nbd_help ${CMAKE_CURRENT_LIST_DIR}/test_volume_nbd_help.c)
foreach(part option command client limits order fuzz)
  kedge_test(unit_volume_nbd_${part} SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_volume_nbd_${part}.c ${nbd_help}
    LINK kedge_volume_nbd)
endforeach()
target_link_options(unit_volume_nbd_limits PRIVATE -Wl,--wrap=aligned_alloc)
target_link_options(unit_volume_nbd_order PRIVATE -Wl,--wrap=sendmsg,--wrap=recvmsg)
