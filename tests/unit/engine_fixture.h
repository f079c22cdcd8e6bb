/* SPDX-License-Identifier: Apache-2.0
 * Nodes with a real kedge-vol each, kept by real ends of kedged in the test's own process, and the test in the place of
 * the store: it commits what the engines ask for and tells the rows. */
#ifndef KEDGE_TESTS_UNIT_ENGINE_FIXTURE_H
#define KEDGE_TESTS_UNIT_ENGINE_FIXTURE_H

#include "agent/engine_link.h"
#include "net/net.h"

#include <sys/types.h>
#include <uv.h>

#define HOSTS_MAX  2
#define ID         "00112233445566778899aabbccddeeff"
#define DISK_BYTES (4u << 20)

struct lab;

/* A node. */
struct host {
	struct lab *lab;
	node_id_t node;
	char dir[96];
	char address[ADDRESS_BYTES_MAX];
	char ca[160], cert[160], key[160];
	int memfd;
	struct guard_page *page;
	struct engine_link *link; /* NULL: kedged is dead */
	struct net *net;
	/* what was seen since the start */
	unsigned connected, n_opened, n_statuses, n_dropped;
	struct engine_opened opened;
	struct engine_status status; /* without peers */
	unsigned n_findings;
	struct engine_finding finding;
};

struct lab {
	uv_loop_t loop;
	char root[64];
	struct host hosts[HOSTS_MAX];
	size_t n;
	/* the store */
	struct engine_row row;
	struct engine_member members[ENGINE_REPLICAS_MAX];
	size_t n_members;
	uint32_t serve[HOSTS_MAX];
	uint64_t gen;
	bool is_mute; /* answers no proposal, and commits none */
	bool knows_peers;
	bool is_patient;   /* as kedged is: an engine that is slow does not count as hung soon */
	unsigned asked[3]; /* by kind */
	struct engine_propose last;
	unsigned nets;
	const char *link_mib; /* engine_start() gives it this --link-bytes, and the file "log"; NULL: neither */
};

/* cmocka's ends: one host or two, with certificates, listening, no engine yet. */
int set_up_one(void **state);
int set_up_two(void **state);
int tear_down_lab(void **state);

/* ---- time: look at a condition, and turn until it is met ---- */

void lab_turn(struct lab *lab);

#define UNTIL(lab, condition)                                             \
	do {                                                              \
		usec_t until_end_ = clock_boottime() + 8 * USEC_PER_SEC;  \
		while (!(condition)) {                                    \
			if (clock_boottime() > until_end_)                \
				fail_msg("never came true: " #condition); \
			lab_turn(lab);                                    \
		}                                                         \
	} while (0)

void lab_run(struct lab *lab, usec_t time);

/* ---- processes ---- */

void kedged_begin(struct host *h);
void kedged_die(struct host *h);
pid_t engine_start(const struct host *h);                     /* a child of the test; another one may be there */
pid_t engine_pid(const struct host *h);                       /* 0: none listens */
void engine_kill(const struct host *h);                       /* and wait until nobody listens */
size_t files_below(const struct host *h, const char *folder); /* how many; 0 also if it is not there */

/* ---- the store ---- */

/* A volume "disk": on host 0, which leads it, and on the others, which join. Told to all. */
void store_create(struct lab *lab);
void store_commit(struct lab *lab, bool new_epoch); /* the row was changed: told to all */
void store_tell(struct host *h);
bool store_is_in_sync(const struct lab *lab, node_id_t node);

/* ---- guests ---- */

/* -1: not let in. */
int guest_open(struct host *h, const char *name);
/* Neither waits. */
void guest_begin_write(int fd, uint64_t offset, char byte);
void guest_begin_read(int fd, uint64_t offset);
void guest_begin_long_read(int fd, uint32_t length);
/* The answer to either: true, or false if the connection ended without one. */
bool guest_end_write(struct host *h, int fd);
bool guest_end_read(struct host *h, int fd, char *ret);
bool guest_writes(struct host *h, int fd, uint64_t offset, char byte);
bool guest_reads(struct host *h, int fd, uint64_t offset, char byte);
bool guest_is_ended(int fd); /* without another byte */
void guest_close(int fd);

#endif
