/* SPDX-License-Identifier: Apache-2.0
 * What the tests of a replica's folder share: a fresh folder for each, and a kernel that fails when it is told to. */
#ifndef KEDGE_TESTS_UNIT_VOLUME_HELP_H
#define KEDGE_TESTS_UNIT_VOLUME_HELP_H

#include "volume/replica.h"

#define EXTENTS 40u
#define SIZE    ((uint64_t)EXTENTS * VOLUME_EXTENT_BYTES)
#define SKIPPED 77

static const uint8_t volume[VOLUME_ID_BYTES] = "volume-of-test";

extern char top[32], dir[64];      /* a fresh folder, and the replica in it */
extern struct volume_sys fake;     /* the kernel's, but for what fails and for the origin */
extern struct volume_origin where; /* what it says of boot and mount */
extern long calls_left;            /* of those that may fail; below 0: all succeed */
extern int calls_error;

int setup(void **arg);
int teardown(void **arg);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

void create(void);
struct volume_replica *open_with(bool force);

/* The refusal is one line and names all of the words. */
void refuse_open(int code, const char *words[], size_t n);
#define REFUSE_OPEN(code, ...) \
	refuse_open(code, (const char *[]){__VA_ARGS__}, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *))

void poke(const char *file, off_t at, const void *p, size_t n);
bool is_there(const char *path);
void set_intents(struct volume_replica *r, const uint32_t *extents, size_t n);
void promise(struct volume_replica *r, uint32_t epoch, uint32_t minor);
void fill(struct volume_ballot *stamps, uint32_t epoch);

/* Run in a child with a mount namespace of its own. Returns its exit code, SKIPPED if that takes root. */
int in_namespace(int (*run)(void));

#endif
