/* SPDX-License-Identifier: Apache-2.0
 * Between kedged and kedge-vol, over `run/vol.sock` (SOCK_SEQPACKET; the engine listens, kedged connects): each
 * datagram is one message, or one struct bulk_handover with its socket (proto/bulk.h). docs/WIRE.md lists them.
 *
 * On every new connection kedged says HELLO and sends all it has; the engine tells all it has. All but HELLO may be
 * said again at any time: a row that is no newer than the newest seen is ignored (its version tells).
 */
#ifndef KEDGE_PROTO_ENGINE_H
#define KEDGE_PROTO_ENGINE_H

#include "proto/message.h"

#define ENGINE_BYTES_MAX    (48u << 10) /* one datagram; a hand-over is the largest */
#define VOLUME_NAME_ID      33          /* an id of 16 bytes as hexadecimal digits, with its zero */
#define ENGINE_REPLICAS_MAX 4           /* members of a volume, one on its way in or out included */

enum engine_id {
	/* kedged to engine */
	ENGINE_HELLO = 1,
	ENGINE_ROW,
	ENGINE_MEMBER, /* only inside ENGINE_ROW */
	ENGINE_DROP,
	ENGINE_PROPOSED,
	ENGINE_VERIFY,
	/* both ways: the engine sends it back from its I/O loop */
	ENGINE_ECHO,
	/* engine to kedged */
	ENGINE_OPENED,
	ENGINE_PROPOSE,
	ENGINE_LINK,
	ENGINE_STATUS,
	ENGINE_PEER, /* only inside ENGINE_STATUS */
	ENGINE_DROPPED,
	ENGINE_FINDING,
	ENGINE_ABOUT,
};

/* First of all, with the guard's page attached (base/guard_page.h), which the engine maps read-only. */
struct engine_hello {
	uint32_t node;
};

/* Who may use the volume here. */
enum engine_serve {
	ENGINE_SERVE_NOBODY,
	ENGINE_SERVE_VM,     /* its VM, which is placed here and frozen in time by the guard (V32) */
	ENGINE_SERVE_EXPORT, /* anybody, while the page has a slot of the volume with this @gen and @valid_until (L23)
			      */
};

/* A committed row (VOLUME-PROTOCOL, section 1) of a volume that has a replica on this node. */
struct engine_row {
	char id[VOLUME_NAME_ID];
	char name[NAME_BYTES_MAX];
	uint64_t size;    /* bytes */
	uint64_t version; /* grows with each change of the row */
	uint32_t epoch;
	uint32_t primary; /* node */
	uint32_t primary_since;
	uint32_t fork;
	uint32_t cold;
	uint32_t vm_epoch;
	uint32_t serve;             /* enum engine_serve: what holds on this node */
	uint64_t gen;               /* of the placement here, ENGINE_SERVE_EXPORT */
	struct message_bin members; /* struct engine_member, one after the other, at most ENGINE_REPLICAS_MAX */
	uint64_t grow_to;           /* bytes to make room for, then to say in `opened`; 0: none */
};

struct engine_member {
	uint32_t node;
	char replica[VOLUME_NAME_ID]; /* "": not known yet */
	bool in_sync;
	uint64_t incarnation; /* in which it is in sync; 0: none yet */
	uint64_t reported;    /* that its node told last; 0: none */
	uint64_t size;        /* for which its node told that it has room; 0: not told */
};

/* What the engine is, when it is greeted; and again with @leaving when it was told to end (SIGTERM). */
struct engine_about {
	char version[64];
	bool leaving;
};

/* The replica here was given up by commit: close it, erase its files, then say ENGINE_DROPPED. Also where there are
 * none (any more). */
struct engine_drop {
	char id[VOLUME_NAME_ID];
};

/* What came of ENGINE_PROPOSE @seq: 0, -EAGAIN (the epoch is another one by now), -EINVAL (the rules forbid it), or
 * -ETIMEDOUT: not known, the next rows will tell. */
struct engine_proposed {
	uint64_t seq;
	uint32_t error; /* a positive errno, 0: done */
};

/* Compare all replicas of a volume that is led here; findings and status follow. */
struct engine_verify {
	char id[VOLUME_NAME_ID];
	bool primary_wins;
};

struct engine_echo {
	uint64_t number;
};

/* REPORT: the replica was opened in this incarnation, or has more room. Repeated until the row says so. */
struct engine_opened {
	char id[VOLUME_NAME_ID];
	char replica[VOLUME_NAME_ID];
	uint64_t incarnation;
	uint64_t size; /* bytes for which its files have room */
};

/* A compare-and-set on @epoch. */
struct engine_propose {
	uint64_t seq; /* of this engine's process, comes back in ENGINE_PROPOSED */
	char id[VOLUME_NAME_ID];
	uint32_t kind; /* enum volume_change_kind: 0 REMOVE, 1 ADD, 2 BUMP */
	uint32_t epoch;
	uint32_t node;
	uint64_t incarnation;
};

/* The bulk link with @node stands, or ended. @worn: it stands, but its keys have almost served their time: make another
 * one beside it. The engine ends the older one when nothing uses it any more. */
struct engine_link_state {
	uint32_t node;
	bool up;
	bool worn;
};

/* A volume that is open here; once a second, and at once when @serves or @problem changes. */
struct engine_status {
	char id[VOLUME_NAME_ID];
	bool leads;
	bool serves;      /* a client that connects now is let in; for a VM: the epoch that it needs is led */
	uint32_t epoch;   /* led, else 0 */
	uint64_t need;    /* bytes to copy, over all peers */
	uint64_t waiting; /* requests of guests that have not begun */
	uint32_t clients; /* NBD connections */
	bool scrubbing;
	uint64_t scrub_at;  /* bytes */
	uint64_t scrub_bad; /* blocks found wrong, undecided or lost, in this pass or in the last one */
	uint64_t scrub_passes;
	char problem[REASON_BYTES_MAX]; /* why it cannot be used here; "" for none */
	struct message_bin peers;       /* struct engine_peer, one after the other: where it leads */
	uint64_t size;                  /* bytes in use here: it may grow later than the row */
};

struct engine_peer {
	uint32_t node;
	bool connected, known;
	uint64_t need;       /* bytes to copy */
	uint64_t need_total; /* of how many since @busy_us */
	uint64_t busy_us;    /* for how long */
};

/* A scrub's finding. */
struct engine_finding {
	char id[VOLUME_NAME_ID];
	uint32_t verdict; /* enum volume_verdict: 0 wrong, 1 undecided, 2 lost */
	uint32_t node;
	bool unreadable;
	uint64_t offset, length;
};

extern const struct message_type engine_hello_type, engine_row_type, engine_member_type, engine_drop_type,
	engine_proposed_type, engine_verify_type, engine_echo_type, engine_opened_type, engine_propose_type,
	engine_link_state_type, engine_status_type, engine_peer_type, engine_dropped_type, engine_finding_type,
	engine_about_type;

#endif
