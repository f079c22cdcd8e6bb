/* SPDX-License-Identifier: Apache-2.0
 * A replica's folder on the disk: made, opened, kept and blanked with plain blocking calls.
 *
 * One call at a time per replica, from any one thread, unless a function says otherwise: the engine queues them on a
 * worker. Errors are a negative errno, and one line in @e (may be NULL) that names the file, the page and what to do.
 *
 * After a failed fsync, or a failed write to `meta`, the replica is poisoned: every call but close says -EIO. It must
 * be opened anew with @force, which takes a fresh incarnation (V13, V25). */
#ifndef KEDGE_VOLUME_REPLICA_H
#define KEDGE_VOLUME_REPLICA_H

#include "volume/format.h"

#include <sys/types.h>

struct volume_replica;

/* ---- what the kernel does for it: tests put their own in ---- */

struct volume_sys {
	/* As the system calls: -1 and errno. */
	ssize_t (*pread)(int fd, void *p, size_t n, off_t at);
	ssize_t (*pwrite)(int fd, const void *p, size_t n, off_t at);
	int (*fdatasync)(int fd);
	int (*fsync)(int fd);
	int (*ftruncate)(int fd, off_t bytes);
	/* -1 and the errno of a failed write-back of this file that nobody was told of yet. Writes nothing. */
	int (*late_error)(int fd);
	/* Where these files are now. 0 or a negative errno; the boot or the mount is never guessed. */
	int (*origin)(int data, int meta, int epochs, struct volume_origin *ret, struct err *e);
};

extern const struct volume_sys volume_sys_kernel;

/* ---- making one ---- */

/* [worker] Make the blank replica @dir of a volume: all zeroes, ballots (0,0), a random replica id and incarnation. Its
 * parent must be there. All or nothing, also across a power cut: it is built as DIR.new, synced and renamed; a DIR.new
 * that a crash left is removed. @sys: NULL for the kernel.
 * -EEXIST: @dir is there. -EINVAL: the size is 0, not whole sectors, or above VOLUME_SIZE_MAX. -ENAMETOOLONG. -ENOSPC:
 * no room for `meta` (`data` and `epochs` take room as they are written). -EFBIG: the file system has no files that
 * large. Else what the system call said. */
int volume_replica_create(const char *dir, const uint8_t volume[VOLUME_ID_BYTES], uint64_t size,
			  const struct volume_sys *sys, struct err *e) KEDGE_MUST_CHECK;

/* ---- opening and closing ---- */

/* Why cached writes may be gone: each is a fresh incarnation (V25). */
enum volume_loss {
	VOLUME_LOSS_BOOT = 1,   /* the machine was started since */
	VOLUME_LOSS_MOUNT = 2,  /* the file system was mounted since */
	VOLUME_LOSS_ERROR = 4,  /* the kernel could not write back something, and nobody had been told */
	VOLUME_LOSS_FORCED = 8, /* the caller says so: a write or fsync failed */
	VOLUME_LOSS_FILES = 16, /* other inodes: copied or restored. The replica is a lost one */
};

struct volume_replica_options {
	usec_t wait;                  /* for the lock of whoever has it open, and for that one's last I/O (V28) */
	bool force;                   /* VOLUME_LOSS_FORCED; also drops cached pages */
	const struct volume_sys *sys; /* NULL: the kernel */
};

/* [worker] Open @dir and take the lock: an exclusive flock on the descriptor of `data` that does the I/O (V28). Reads
 * and checks `meta`, mends copies that a crash left behind, and where something may be lost makes a fresh incarnation
 * durable, before it returns. Pages of `epochs` are checked when they are read.
 * -EWOULDBLOCK: another process has it open. -ENOENT: no such folder or file. -EBADMSG: damage; nothing was changed.
 * -ENOTSUP: a newer format. -ESTALE: the folder was replaced while waiting. -EXDEV: its files are on several file
 * systems. -ENOMEM. Else what the system call said. */
int volume_replica_open(const char *dir, const struct volume_replica_options *options, struct volume_replica **ret,
			struct err *e) KEDGE_MUST_CHECK;

/* [worker] Close the descriptors: the lock goes when the last request on `data` has ended. Makes nothing durable.
 * NULL is fine. Returns NULL. */
struct volume_replica *volume_replica_close(struct volume_replica *r);

/* [any] What was read or written last; valid until the next call that writes. Its size is the volume's by now. */
const struct volume_super *volume_replica_super(const struct volume_replica *r);
const struct volume_state *volume_replica_state(const struct volume_replica *r);
/* [any] A bit per extent, volume_bits_bytes() of them, as they are on the disk. */
const uint8_t *volume_replica_intents(const struct volume_replica *r);
/* [any] enum volume_loss, as found by open; 0: the incarnation was kept. */
unsigned volume_replica_losses(const struct volume_replica *r);
/* [any] Damaged or older copies in `meta` that open wrote anew. */
unsigned volume_replica_mended(const struct volume_replica *r);
/* [any] The descriptor of `data`, for all its I/O. Stays the replica's. */
int volume_replica_data(const struct volume_replica *r);

/* ---- changing what is durable ---- */

/* [worker] Make @s durable (V1). Its incarnation and `lost` must be those of now, its promised no lower, and its origin
 * is ignored: all of that is the replica's own affair; a caller that breaks this ends the process. -EIO: poisoned. */
int volume_replica_write_state(struct volume_replica *r, const struct volume_state *s, struct err *e) KEDGE_MUST_CHECK;

/* [worker] Make the intents what @bits says, with one fdatasync for all of them (V14). To take bits off, the maps of
 * their extents must be durable: see volume_replica_clear(). -EIO: poisoned. */
int volume_replica_write_intents(struct volume_replica *r, const uint8_t *bits, struct err *e) KEDGE_MUST_CHECK;

/* The stamps of an extent, VOLUME_EXTENT_BLOCKS of them. */
struct volume_map_write {
	uint32_t extent;
	const struct volume_ballot *stamps;
};

/* [worker] Write the maps of @n extents, and wait until they are durable if @durable. The intent of each must be set
 * (else a torn page would be damage, V30): a caller that breaks this ends the process. -ENOSPC or another errno of a
 * write: nothing is lost, the intents stay. -EIO from fdatasync: poisoned. */
int volume_replica_write_maps(struct volume_replica *r, const struct volume_map_write *maps, size_t n, bool durable,
			      struct err *e) KEDGE_MUST_CHECK;

/* [worker] V16: the maps of @n extents durable, then their intents off, durable. Errors as of the two. */
int volume_replica_clear(struct volume_replica *r, const struct volume_map_write *maps, size_t n,
			 struct err *e) KEDGE_MUST_CHECK;

/* [worker] fdatasync of `data`. -EIO: poisoned; the true reason is in @e. */
int volume_replica_sync(struct volume_replica *r, struct err *e) KEDGE_MUST_CHECK;

/* [any] The engine's own I/O on `data` failed: from now on every call says -EIO (V13). */
void volume_replica_poison(struct volume_replica *r);

/* [any worker, beside other calls] Let the kernel write back `data`, by a descriptor of its own: each descriptor is
 * told of an error once, and whoever flushes by the other one must be told too. So that what follows need not wait for
 * it. -EIO: it failed. -EMFILE or the like. */
int volume_replica_write_back(const struct volume_replica *r, struct err *e) KEDGE_MUST_CHECK;

/* [worker] Let the volume have @size bytes, more than it has: zeroes, stamps of (0,0) and no intents where it grows,
 * all durable before the size is. A crash in between leaves the old size, and files that may be larger; the same call
 * mends that. -ENOSPC, -EDQUOT, -EFBIG or another errno of making files larger, -ENOMEM: the size is the old one,
 * nothing is lost. -EIO: poisoned. */
int volume_replica_grow(struct volume_replica *r, uint64_t size, struct err *e) KEDGE_MUST_CHECK;

#define VOLUME_FAILED_MARK "failed" /* a file in its folder: something failed, and no incarnation has begun since */

/* [worker] After a failed write or fsync: leave a mark in the folder, so that whoever opens it next begins a new
 * incarnation even if this process dies first; the kernel tells of such an error only once. The mark outlives the
 * process, and needs no more: over a power cut the boot id tells. */
void volume_replica_mark_failed(const struct volume_replica *r);

/* [worker] V25: throw away data, stamps and intents of a replica that is not in sync, before it joins: all zeroes,
 * active (0,0), a fresh incarnation; `promised` stays (V1). No I/O may run on `data`. A crash in between leaves it
 * `lost`, and it must be blanked again. -EIO: poisoned. */
int volume_replica_blank(struct volume_replica *r, struct err *e) KEDGE_MUST_CHECK;

/* ---- the map ---- */

/* [any worker, beside other calls] Read and check the stamps of @extent into @ret (VOLUME_EXTENT_BLOCKS), untouched on
 * failure. -EBADMSG: damage (where the intent was set at open, the page does not count and is not to be read, V30).
 * The way out without the other replicas: set the extent's intent, and its blocks count as written in `promised`: they
 * are then compared where they might have been skipped. */
int volume_replica_read_map(struct volume_replica *r, uint32_t extent, struct volume_ballot *ret,
			    struct err *e) KEDGE_MUST_CHECK;

/* [any worker, beside other calls] The first extent from @from on whose map on the disk is not a hole, or the number of
 * extents: all between have (0,0) there. */
uint32_t volume_replica_next_map(struct volume_replica *r, uint32_t from);

#endif
