/* SPDX-License-Identifier: Apache-2.0
 * What the parts of the NBD server share: the server, its connections, and their requests ("operations").
 *
 * Everything is [loop], and runs from the server's step (nbd.c), which is entered once before and once after the loop
 * waits. Events from outside (readable sockets, requests that come back, orders to drop) only put something into one of
 * the server's lists. A connection that ends is only marked by nbd_conn_end(); nbd_conn_bury(), which nobody but the
 * step and the opening of an export calls, tells the engine and frees what the engine does not have. So no function
 * here has to fear that a callback into the engine frees what it holds.
 */
#ifndef KEDGE_VOLUME_NBD_INTERNAL_H
#define KEDGE_VOLUME_NBD_INTERNAL_H

#include "volume/nbd.h"
#include "volume/nbd_list.h"
#include "volume/nbd_wire.h"

#include <uv.h>

#define NBD_TURN_BYTES      (1u << 20)  /* received from one connection, or sent to it, in one turn */
#define NBD_WINDOW_BYTES    512u        /* read ahead behind what is awaited: this much of a payload is copied */
#define NBD_TRASH_BYTES     (64u << 10) /* of what is skipped, at a time */
#define NBD_HANDSHAKE_QUEUE (64u << 10) /* of unread answers to options: no more options are read */
#define NBD_DESCRIPTORS_MAX 1024u       /* extents in one answer to BLOCK_STATUS */
#define NBD_POOL_CLASSES    10u         /* 4 KiB to 2 MiB; larger buffers are not kept */

/* ---- buffers (nbd_pool.c) ---- */

struct nbd_pool {
	void *free[NBD_POOL_CLASSES]; /* chained through their first bytes */
	uint64_t cached;
};

/* What a buffer for @bytes really takes: what is charged. 0 for 0. */
uint64_t nbd_pool_capacity(uint64_t bytes);
/* Page-aligned, of a capacity as above; NULL: no memory now. */
void *nbd_pool_get(struct nbd_pool *p, uint64_t capacity);
void nbd_pool_put(struct nbd_pool *p, void *buffer, uint64_t capacity);
void nbd_pool_free(struct nbd_pool *p);

/* ---- what connections to the same volume share (nbd_order.c) ---- */

struct nbd_volume {
	void *volume;
	struct nbd_link link;   /* in server.volumes */
	unsigned users;         /* connections, until they are freed */
	struct nbd_list writes; /* WRITE, ZERO and TRIM that are not over, in the order in which they were complete */
	unsigned unaligned;     /* of these */
	unsigned waiting;       /* of these, for one before them */
};

/* ---- operations (nbd_op.c): one request of a client ---- */

enum nbd_op_state {
	NBD_OP_RECEIVING, /* its payload is on its way */
	NBD_OP_WAITING,   /* for a write before it on the same sectors */
	NBD_OP_OUT,       /* the engine has it */
	NBD_OP_BACK,      /* it came back, and waits for the step */
	NBD_OP_REPLYING,  /* its answer waits for the socket */
};

/* Which of its requests to the engine an unaligned write is at. */
enum nbd_stage {
	NBD_STAGE_START,
	NBD_STAGE_READ_HEAD,  /* WRITE: its first sector, into the scratch sector */
	NBD_STAGE_READ_TAIL,  /* WRITE: its last sector, the same */
	NBD_STAGE_READ_EDGE,  /* ZERO, TRIM: a sector of which a part is kept */
	NBD_STAGE_WRITE_EDGE, /* the same sector back, with its part zeroed */
	NBD_STAGE_BODY,       /* whole sectors */
};

struct nbd_head { /* as it came */
	uint16_t flags, command;
	uint64_t cookie, offset;
	uint32_t length;
};

struct nbd_op {
	struct nbd_request r; /* what the engine sees: first, so that it can be found from there */
	struct nbd_conn *conn;
	struct nbd_head head;
	enum nbd_op_state state;
	struct nbd_link link;  /* in conn.ops */
	struct nbd_link queue; /* in server.back or conn.out.replies */
	/* the way through the engine */
	struct nbd_link write; /* in volume.writes */
	bool unaligned;        /* a write that touches a part of a sector */
	enum nbd_stage stage;
	uint64_t at, piece; /* ZERO, TRIM: this far done, and what is out; BLOCK_STATUS: this far known */
	uint8_t *buffer;    /* begins with the first sector that is touched */
	uint64_t capacity;
	unsigned n_descriptors;
	/* how it came back */
	int rc;
	bool is_dropped, is_hole;
	uint64_t extent;
	/* the answer */
	uint8_t reply[NBD_STRUCTURED_BYTES + 8];
	size_t reply_bytes;
	const uint8_t *body;
	size_t body_bytes;
};

/* The bytes of buffer that a request needs. */
uint64_t nbd_op_bytes(const struct nbd_head *h);
/* Into the connection's account, with @buffer of @capacity. */
struct nbd_op *nbd_op_new(struct nbd_conn *c, const struct nbd_head *h, void *buffer, uint64_t capacity);
/* Where the payload of a WRITE goes. */
uint8_t *nbd_op_payload(struct nbd_op *op);
/* All of it is here and it is valid: do it. */
void nbd_op_begin(struct nbd_op *op);
/* Its turn has come (nbd_order.c). */
void nbd_op_run(struct nbd_op *op);
/* It came back. */
void nbd_op_advance(struct nbd_op *op);
/* Out of every list, and its buffer back. Not while the engine has it. May free an ended connection with it. */
void nbd_op_free(struct nbd_op *op);

static inline uint64_t nbd_sector_down(uint64_t x)
{
	return x / VOLUME_SECTOR_BYTES * VOLUME_SECTOR_BYTES;
}

static inline uint64_t nbd_sector_up(uint64_t x)
{
	return nbd_sector_down(x + VOLUME_SECTOR_BYTES - 1);
}

static inline uint64_t nbd_op_end(const struct nbd_op *op)
{
	return op->head.offset + op->head.length;
}

/* The next one in line may begin at once, else it is begun later by nbd_op_run(). */
bool nbd_order_enter(struct nbd_op *op);
/* It is over. Does nothing if it never entered. */
void nbd_order_leave(struct nbd_op *op);

/* ---- connections (nbd_conn.c) ---- */

enum nbd_conn_state {
	NBD_CONN_FLAGS,       /* the client's flags are awaited */
	NBD_CONN_OPTION,      /* an option's head */
	NBD_CONN_OPTION_DATA, /* what belongs to it */
	NBD_CONN_COMMAND,     /* a request's head */
	NBD_CONN_PAYLOAD,     /* what is to be written */
	NBD_CONN_DRAINING,    /* nothing is read any more; what was begun ends */
	NBD_CONN_ENDED,       /* the socket is closed */
};

struct nbd_input {
	uint64_t skip; /* bytes to throw away first */
	uint8_t *to;   /* then @want bytes go there */
	size_t want;
	uint8_t head[NBD_REQUEST_BYTES];
	uint8_t window[NBD_WINDOW_BYTES];
	size_t at, end; /* in window: received, not yet taken */
};

struct nbd_output {
	struct buf plain;        /* of the handshake: goes before the replies */
	struct nbd_list replies; /* operations */
	size_t sent;             /* of the first reply */
	uint64_t progress_ms;    /* when something was sent, or began to wait */
	bool is_blocked;         /* until the socket is writable */
	bool is_mute;            /* the client is gone after DISC: throw answers away */
};

struct nbd_handshake {
	bool no_zeroes;
	bool structured;
	bool has_context;             /* base:allocation was chosen */
	char context[NAME_BYTES_MAX]; /* for this export */
	uint32_t option, length;      /* whose data is awaited */
	struct buf data;
};

struct nbd_conn {
	struct nbd_server *server;
	uv_poll_t poll;
	int fd;     /* -1 once ended */
	int events; /* that are polled for */
	uint64_t id;
	enum nbd_conn_state state;
	uint64_t since_ms; /* of the accept */
	bool has_left;     /* the other end closed, at least its sending half: look which */
	bool half_closed;  /* it was only that */
	bool is_buried, poll_closed;
	struct nbd_link all, ready, output, stalled, ended; /* in the server's lists of these names */
	bool is_hungry;                                     /* stalled for shared bytes */
	struct nbd_input in;
	struct nbd_output out;
	struct nbd_handshake hs;
	struct nbd_volume *volume; /* NULL before transmission */
	struct nbd_export export;
	struct nbd_list ops;
	unsigned n_ops;
	uint64_t bytes; /* in their buffers */
	struct nbd_op *receiving;
};

/* Takes over @fd, in any case. */
void nbd_conn_new(struct nbd_server *s, int fd);
/* The next @want bytes go to @to; then comes @state's handler. */
void nbd_conn_expect(struct nbd_conn *c, enum nbd_conn_state state, void *to, size_t want);
/* Receive and handle what is there. */
void nbd_conn_read(struct nbd_conn *c);
/* Read no more; end once nothing is under way and all answers are sent. */
void nbd_conn_drain(struct nbd_conn *c);
/* Close the socket at once, without a word. Nothing is freed. */
void nbd_conn_end(struct nbd_conn *c);
/* Tell the engine, free what it does not have. */
void nbd_conn_bury(struct nbd_conn *c);
/* Serve @export: the handshake is over. */
void nbd_conn_attach(struct nbd_conn *c, const struct nbd_export *export);
/* Free it, if it is ended, buried and empty. */
void nbd_conn_try_free(struct nbd_conn *c);
/* Poll for what is of interest now. */
void nbd_conn_poll(struct nbd_conn *c);
/* Did the other end close its socket altogether? */
bool nbd_conn_is_hung_up(const struct nbd_conn *c);

/* ---- the handshake (nbd_option.c) ---- */

void nbd_option_greet(struct nbd_conn *c);
void nbd_option_flags(struct nbd_conn *c);
void nbd_option_head(struct nbd_conn *c);
void nbd_option_data(struct nbd_conn *c);

/* ---- requests from the wire (nbd_command.c) ---- */

/* A head is in in.head. False: at a limit, to be tried again; the connection is among the stalled. */
bool nbd_command_head(struct nbd_conn *c);
/* The payload of c->receiving is complete. */
void nbd_command_payload(struct nbd_conn *c);

/* ---- answers (nbd_reply.c) ---- */

/* Queue the answer: 0 or a negative errno. */
void nbd_reply(struct nbd_op *op, int rc);
/* Send what is ready, in as few calls as possible. */
void nbd_reply_flush(struct nbd_conn *c);
/* The NBD error number of a negative errno. */
uint32_t nbd_reply_error(int rc);

/* ---- the server (nbd.c) ---- */

struct nbd_server {
	struct uv_loop_s *loop;
	char *path;
	struct nbd_callbacks cb;
	struct nbd_limits limits;
	int fd;
	bool is_listening;
	uv_poll_t listener;
	uv_prepare_t prepare;
	uv_check_t check;
	uv_idle_t idle; /* on while work is left that must not wait for an event */
	uv_timer_t timer;
	unsigned handles; /* not yet closed, of these five */
	bool is_closing, is_finishing;
	void (*close_cb)(void *ctx);
	void *close_ctx;
	struct nbd_list conns, volumes;
	struct nbd_list ready;   /* have something to read, or left */
	struct nbd_list output;  /* have something to send */
	struct nbd_list stalled; /* at a limit, the longest waiting first */
	struct nbd_list ended;   /* not yet buried */
	struct nbd_list back;    /* operations that came back */
	bool has_released;       /* something that a stalled one may be waiting for */
	struct nbd_pool pool;
	uint64_t next_client;
	struct nbd_status status;
	uint8_t trash[NBD_TRASH_BYTES];
};

/* What of the @bytes of one connection counts against the shared limit. */
static inline uint64_t nbd_shared_part(const struct nbd_server *s, uint64_t bytes)
{
	return bytes > s->limits.own_bytes ? bytes - s->limits.own_bytes : 0;
}

/* A connection was freed, or a handle closed: the last one ends the server that is closing. */
void nbd_server_try_finish(struct nbd_server *s);

#endif
