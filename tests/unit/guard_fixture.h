/* SPDX-License-Identifier: Apache-2.0
 * A real kedge-guard in a folder of its own, a client of it, and children of the test for guests. */
#ifndef KEDGE_TESTS_UNIT_GUARD_FIXTURE_H
#define KEDGE_TESTS_UNIT_GUARD_FIXTURE_H

#include "base/base.h"

#include <sys/types.h>

#define FAR                  (3600 * USEC_PER_SEC)
#define FIXTURE_CHILDREN_MAX 4

struct fixture {
	char dir[64];
	pid_t guard; /* 0: none */
	int sock;    /* of the test as the guard's client; -1: none */
	int memfd;
	struct guard_page *page; /* the test's, given to the guard by set_up() only */
	pid_t children[FIXTURE_CHILDREN_MAX];
	int pidfds[FIXTURE_CHILDREN_MAX];
	size_t n_children;
};

/* ---- cmocka's ends. All processes die with the test, however it ends ---- */

int set_up(void **state); /* the guard has the page */
int set_up_without_page(void **state);
int tear_down(void **state);

/* ---- waiting: look at a condition, and call wait_more() until it is met ---- */

struct wait {
	usec_t end;
	const char *what;
};

struct wait wait_until(const char *what);
void wait_more(const struct wait *w); /* fails the test when it takes too long */

/* ---- processes ---- */

pid_t run_guard(const char *dir);
void end_process(pid_t pid);
/* The letter of proc(5): T is stopped, S sleeps, which is how a child of the test runs. */
char state_of(pid_t pid);
void wait_for_state(pid_t pid, char state);
size_t open_descriptors(pid_t pid);

/* ---- talking to it ---- */

void hang_up(struct fixture *f);
/* As a new client: the one before is closed. */
void connect_again(struct fixture *f);
void say(struct fixture *f, uint32_t op, uint32_t slot, int fd);

struct answer {
	int memfd;             /* -1: it has no page */
	int pidfds[SLOTS_MAX]; /* -1: not watched */
	size_t n_pidfds;
};

/* Say HELLO on the connection that is there. */
void ask(struct fixture *f, struct answer *ret);
void answer_free(struct answer *a);
/* A new client is answered, that it has a page or none and watches @n. */
void assert_watches(struct fixture *f, bool has_page, size_t n);

/* ---- the page and the guests ---- */

struct guard_page *make_page(int *ret_memfd);
struct guard_slot *slot_at(struct fixture *f, size_t slot);
void wait_for_slot(struct fixture *f, size_t slot, uint64_t state);
void wait_for_beat(struct fixture *f, usec_t after);
void name_slot(struct fixture *f, size_t slot, pid_t pid);
/* A guest that runs, unwatched: its number in the arrays of @f. */
size_t new_child(struct fixture *f);
/* The same, watched and so stopped. */
size_t watch_new_child(struct fixture *f, uint32_t slot);
/* Deadline and order to @until. */
void thaw(struct fixture *f, size_t slot, usec_t until);
/* A guest that is watched and runs. */
pid_t run_new_child(struct fixture *f, uint32_t slot);

#endif
