/* SPDX-License-Identifier: Apache-2.0
 * A real NBD server on a socket in a temporary folder, an engine in memory that answers late and in any order, and a
 * small client; all in one thread, so that every run of a seed is the same. */
#ifndef KEDGE_TESTS_UNIT_TEST_VOLUME_NBD_HELP_H
#define KEDGE_TESTS_UNIT_TEST_VOLUME_NBD_HELP_H

#include "volume/nbd.h"
#include "volume/nbd_wire.h"

#include <uv.h>

#define DISK_BYTES  (256u << 10)
#define EXPORTS     3
#define PENDING_MAX 4096

enum engine_mode {
	ENGINE_AT_ONCE, /* from inside submit() */
	ENGINE_RANDOM,  /* some of those that are out, in any order, also of those that overlap */
	ENGINE_HOLD,    /* the test answers, by engine_answer() */
};

enum engine_call { ENGINE_OPEN, ENGINE_LIST, ENGINE_SUBMIT, ENGINE_GONE };

struct fixture;

struct disk {
	char name[NAME_BYTES_MAX];
	uint8_t *data;
	uint64_t size;
	bool read_only;
	int refuse; /* what open() answers */
};

struct engine {
	struct disk disks[EXPORTS]; /* "a", "b", and "ro", which is read-only */
	enum engine_mode mode;
	struct nbd_request *pending[PENDING_MAX];
	bool is_extent[PENDING_MAX];
	size_t n_pending;
	uint32_t seed;
	unsigned errors;                   /* of a thousand requests so many fail with EIO */
	void (*inside)(struct fixture *f); /* called once from the next callback of this kind, and forgotten: */
	enum engine_call inside_of;
	uint64_t hole; /* extents() says that sectors alternate in runs of so many bytes */
	/* what was seen */
	uint64_t submitted, flushes, fua, zeroes, trims, gone, extents;
	uint64_t last_gone, last_client;
	uint64_t gone_before; /* how many were gone when the last request came */
	uint32_t last_epoch;
	size_t pending_max;
};

struct fixture {
	uv_loop_t loop;
	struct nbd_server *server;
	struct engine engine;
	char folder[64], path[96];
	bool is_closing, is_closed;
	size_t fds; /* open before */
};

uint32_t next_random(uint32_t *seed);

/* ---- the server's side ---- */

void fixture_begin(struct fixture *f, enum engine_mode mode, const struct nbd_limits *limits);
/* Close the server, and see that nothing is left: no request, no handle, no descriptor. */
void fixture_end(struct fixture *f);
/* Begin to close the server, which fixture_end() then waits for. */
void fixture_close(struct fixture *f);
/* One turn of the loop, and the engine's answers. */
void turn(struct fixture *f);
void turns(struct fixture *f, unsigned n);
/* Answer pending request number @i, oldest 0; engine_drop() gives it back without an answer. */
void engine_answer(struct fixture *f, size_t i, int rc);
void engine_drop(struct fixture *f, size_t i);
/* Another size, and all zeroes. */
void disk_resize(struct disk *d, uint64_t size);
/* Turn until @n requests are out with the engine. */
void wait_pending(struct fixture *f, size_t n);

/* ---- a client ---- */

int client_connect(struct fixture *f);
void client_close(int fd);
/* Both turn the loop meanwhile. client_recv() returns false if the connection ends first. */
void client_send(struct fixture *f, int fd, const void *p, size_t n);
bool client_recv(struct fixture *f, int fd, void *p, size_t n);
/* Is it over, without another byte? */
void expect_end(struct fixture *f, int fd);

struct option_reply {
	uint32_t option, type, length;
	uint8_t data[512];
};

/* Greeting and flags. */
int client_greeted(struct fixture *f, uint32_t flags);
void client_option(struct fixture *f, int fd, uint32_t option, const void *data, uint32_t n);
void client_option_reply(struct fixture *f, int fd, struct option_reply *ret);
/* The data of INFO, GO (no information asked for) or of the two options of contexts (one query). */
size_t option_data(uint8_t *p, const char *name, const char *query);

enum { WITH_STRUCTURED = 1, WITH_CONTEXT = 2 };
/* Up to transmission. */
int client_open(struct fixture *f, const char *name, unsigned with);

void client_request(struct fixture *f, int fd, uint16_t flags, uint16_t command, uint64_t cookie, uint64_t offset,
		    uint32_t length, const void *payload);

struct answer {
	bool is_structured;
	uint16_t type;
	uint32_t error;
	uint64_t cookie;
	uint64_t offset; /* of data */
	size_t n;
};

/* The next answer, whose data, at most @max bytes, go to @data. A simple one has @simple_bytes of data if it has no
 * error. */
void client_answer(struct fixture *f, int fd, size_t simple_bytes, struct answer *ret, void *data, size_t max);
/* A request and its answer: the error number. */
uint32_t client_do(struct fixture *f, int fd, uint16_t flags, uint16_t command, uint64_t offset, uint32_t length,
		   const void *payload, void *ret_data);

#endif
