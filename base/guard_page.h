/* SPDX-License-Identifier: Apache-2.0
 * The page that kedged and kedge-guard share (kedge-vol reads it), and the datagrams between them (LEASE-PROTOCOL,
 * section 1).
 *
 * The page is a memfd: gone at a reboot, alive as long as one of the two lives. Every field has one writer. A slot is
 * one instance of a VM. The guard learns a slot by GUARD_WATCH, which carries its pidfd.
 */
#ifndef KEDGE_BASE_GUARD_PAGE_H
#define KEDGE_BASE_GUARD_PAGE_H

#include "base/limits.h"
#include "base/types.h"

#include <stdatomic.h>

#define GUARD_PAGE_MAGIC   0x6b65646765677264ULL /* "kedgegrd" */
#define GUARD_PAGE_VERSION 2

enum guard_state {
	GUARD_FREE = 0,    /* the guard does not watch this slot */
	GUARD_HELD = 1,    /* SIGSTOP was sent and nothing since */
	GUARD_RUNNING = 2, /* SIGCONT was sent before the order's end */
	GUARD_GONE = 3,    /* the process is gone, or had to be killed because it could not be stopped */
};

struct guard_slot {
	/* written by kedged before GUARD_WATCH, then constant until GUARD_DROP */
	char vm[NAME_BYTES_MAX]; /* "" = the slot is unused */
	_Atomic uint64_t pid;
	_Atomic uint64_t start_time; /* field 22 of /proc/PID/stat: pid and start time name a process for good */
	_Atomic uint64_t gen;
	/* written by kedged at any time */
	_Atomic uint64_t guarded; /* 1: frozen when the deadline passes */
	_Atomic uint64_t gver;
	_Atomic uint64_t order; /* 0: hold. Else: thaw, valid until this time */
	/* written by the guard */
	_Atomic uint64_t state; /* enum guard_state */
};

/* A volume that is served here without a VM (L23). Written by kedged, read by kedge-vol, ignored by the guard. The name
 * is constant while @gen is not 0. */
struct export_slot {
	char volume[NAME_BYTES_MAX];
	_Atomic uint64_t gen;         /* 0: the slot is unused */
	_Atomic uint64_t valid_until; /* boottime; raised with a grant, only while L12 holds for the placement */
};

struct guard_page {
	uint64_t magic;
	uint64_t version;
	_Atomic uint64_t deadline; /* kedged; boottime; only ever raised */
	_Atomic uint64_t beat;     /* guard: boottime of its last turn */
	struct guard_slot slots[SLOTS_MAX];
	struct export_slot exports[EXPORTS_MAX];
};

/* Datagrams on run/guard.sock (SOCK_SEQPACKET), one struct each, at most one descriptor with it (SCM_RIGHTS). */
enum guard_op {
	GUARD_HELLO =
		1,   /* kedged -> guard: who are you? Answers: GUARD_PAGE_FD or GUARD_EMPTY, GUARD_PIDFDs, GUARD_END */
	GUARD_EMPTY, /* guard -> kedged: I was just started and have no page */
	GUARD_PAGE_FD, /* either way, with the memfd: here is the page */
	GUARD_PIDFD,   /* guard -> kedged, with the pidfd of @slot: I watch this */
	GUARD_END,     /* guard -> kedged: that was all */
	GUARD_WATCH,   /* kedged -> guard, with the pidfd of @slot: SIGSTOP it now (L13), then keep to the page */
	GUARD_DROP,    /* kedged -> guard: forget @slot */
	GUARD_KICK,    /* kedged -> guard: the page changed, look now */
	GUARD_ABOUT,   /* guard -> kedged, after HELLO: @slot is its version, a byte each of 0.major.minor.patch */
};

struct guard_msg {
	uint32_t op;
	uint32_t slot;
};

#endif
