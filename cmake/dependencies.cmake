# SPDX-License-Identifier: Apache-2.0
# Libraries from the distribution, found by pkg-config, linked dynamically. Versions are what Debian 12 (with
# backports) and Debian 13 have.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

pkg_check_modules(RAFT IMPORTED_TARGET raft)
if(NOT RAFT_FOUND OR RAFT_VERSION VERSION_LESS 0.22)
  message(FATAL_ERROR "libraft >= 0.22 is needed, found '${RAFT_VERSION}': older releases commit entries of old "
                      "terms by counting, so state machines can diverge. On Debian 12 it is in bookworm-backports: "
                      "run deploy/install-deps.sh")
endif()
pkg_check_modules(UV REQUIRED IMPORTED_TARGET libuv>=1.44)
pkg_check_modules(SQLITE REQUIRED IMPORTED_TARGET sqlite3>=3.40)
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1>=0.2.5)
pkg_check_modules(INIH REQUIRED IMPORTED_TARGET inih>=55)
pkg_check_modules(XML REQUIRED IMPORTED_TARGET libxml-2.0>=2.9)
pkg_check_modules(VIRT REQUIRED IMPORTED_TARGET libvirt>=9.0)
pkg_check_modules(URING REQUIRED IMPORTED_TARGET liburing>=2.3)
pkg_check_modules(GNUTLS REQUIRED IMPORTED_TARGET gnutls>=3.7)
pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka>=1.1.5)
pkg_check_modules(MSGPACK IMPORTED_TARGET msgpack-c) # Debian 13's name
if(MSGPACK_FOUND) # Debian 13's file names a folder relative to nothing; the headers are where all are
  set_property(TARGET PkgConfig::MSGPACK PROPERTY INTERFACE_INCLUDE_DIRECTORIES)
else()
  pkg_check_modules(MSGPACK REQUIRED IMPORTED_TARGET msgpack>=4.0)
endif()

# mbedTLS 2.28 has no pkg-config file.
find_path(MBEDTLS_INCLUDE_DIR mbedtls/ssl.h REQUIRED)
foreach(lib mbedtls mbedx509 mbedcrypto)
  find_library(${lib}_LIBRARY ${lib} REQUIRED)
  list(APPEND MBEDTLS_LIBRARIES ${${lib}_LIBRARY})
endforeach()
add_library(mbedtls_all INTERFACE)
target_include_directories(mbedtls_all SYSTEM INTERFACE ${MBEDTLS_INCLUDE_DIR})
target_link_libraries(mbedtls_all INTERFACE ${MBEDTLS_LIBRARIES})
