/* SPDX-License-Identifier: Apache-2.0
 * Certificates for tests: a CA and identities signed by it, as PEM files in a folder. Failures end the process. */
#ifndef KEDGE_TESTS_UNIT_PKI_HELP_H
#define KEDGE_TESTS_UNIT_PKI_HELP_H

#include "base/base.h"

#define PKI_CLUSTER "11111111-1111-1111-1111-111111111111"

/* Write @dir/@name.crt and @name.key: the CA of @cluster. */
void pki_ca(const char *dir, const char *name, const char *cluster);

/* Write @dir/@name.crt and @name.key: who calls himself @common_name, signed by the CA @ca. */
void pki_identity(const char *dir, const char *ca, const char *common_name, const char *cluster, const char *name);

#endif
