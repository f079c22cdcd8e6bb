/* SPDX-License-Identifier: Apache-2.0
 * What changes on the disk of an open replica, each step durable before the next. */
#include "volume/replica_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct volume_ballot never = {0, 0};

static int failed(const struct volume_replica *r, struct err *e, int rc, const char *what)
{
	return err_set(e, rc,
		       "replica '%s': %s: %s (open it anew with a fresh incarnation; if that fails, the disk does)",
		       r->label, what, strerror(-rc));
}

/* What failed may be half on the disk, and the page cache may hide it: nothing more is believed (V13). */
int replica_poison(struct volume_replica *r, struct err *e, int rc, const char *what)
{
	atomic_store(&r->poisoned, true);
	volume_replica_mark_failed(r);
	(void)failed(r, e, rc, what);
	return -EIO;
}

int replica_check_usable(struct volume_replica *r, struct err *e)
{
	return atomic_load(&r->poisoned) ? failed(r, e, -EIO, "an earlier write or fsync failed") : 0;
}

static int sync_file(struct volume_replica *r, int fd, const char *what, struct err *e)
{
	return r->sys->fdatasync(fd) < 0 ? replica_poison(r, e, -errno, what) : 0;
}

/* ---- pairs ---- */

void replica_pair_encode(const struct volume_replica *r, uint32_t pair, uint64_t seq, uint8_t *ret)
{
	if (pair == 0)
		volume_state_encode(&r->state, r->super.replica, seq, ret);
	else
		volume_intents_encode(r->intents + (size_t)(pair - 1) * VOLUME_INTENTS_BYTES, pair - 1,
				      r->super.replica, seq, ret);
}

/* The next content goes over the copy that is not known to be durable. */
static int pair_write(struct volume_replica *r, uint32_t pair, struct err *e)
{
	struct pair *p = &r->pairs[pair];
	uint8_t page[VOLUME_PAGE_BYTES];
	int rc;

	replica_pair_encode(r, pair, p->seq + 1, page);
	rc = sys_write_all(r->sys, r->meta, page, sizeof page,
			   VOLUME_META_OFFSET(pair) + (1 - p->durable) * VOLUME_PAGE_BYTES);
	return rc < 0 ? replica_poison(r, e, rc, "write meta") : 0;
}

/* It is durable now. The same goes over the other copy, unsynced: so a copy that rots later costs nothing, where it
 * would otherwise take the replica back to an older promise. */
static int pair_written(struct volume_replica *r, uint32_t pair, struct err *e)
{
	struct pair *p = &r->pairs[pair];
	uint8_t page[VOLUME_PAGE_BYTES];
	int rc;

	p->seq++;
	p->durable = 1 - p->durable;
	replica_pair_encode(r, pair, p->seq, page);
	rc = sys_write_all(r->sys, r->meta, page, sizeof page,
			   VOLUME_META_OFFSET(pair) + (1 - p->durable) * VOLUME_PAGE_BYTES);
	return rc < 0 ? replica_poison(r, e, rc, "write meta") : 0;
}

/* ---- state ---- */

int replica_put_state(struct volume_replica *r, const struct volume_state *s, struct err *e)
{
	int rc = replica_check_usable(r, e);

	if (rc < 0)
		return rc;
	r->state = *s;
	rc = pair_write(r, 0, e);
	if (rc == 0)
		rc = sync_file(r, r->meta, "sync meta", e);
	if (rc == 0)
		rc = pair_written(r, 0, e);
	return rc;
}

int volume_replica_write_state(struct volume_replica *r, const struct volume_state *s, struct err *e)
{
	struct volume_state next = *s;

	CHECK(s->incarnation == r->state.incarnation && s->lost == r->state.lost);
	CHECK(volume_ballot_compare(s->promised, r->state.promised) >= 0); /* V1 */
	next.origin = r->state.origin;
	next.size = r->state.size;
	next.growing = r->state.growing;
	return replica_put_state(r, &next, e);
}

/* ---- intents ---- */

static bool page_differs(const struct volume_replica *r, const uint8_t *bits, uint32_t page)
{
	size_t at = (size_t)page * VOLUME_INTENTS_BYTES;

	return memcmp(r->intents + at, bits + at, VOLUME_INTENTS_BYTES) != 0;
}

int volume_replica_write_intents(struct volume_replica *r, const uint8_t *bits, struct err *e)
{
	uint8_t changed[(VOLUME_PAGE_PAIRS_MAX + 7) / 8] = {0};
	uint32_t n = 0;
	int rc = replica_check_usable(r, e);

	for (uint32_t i = 0; rc == 0 && i < r->pages; i++) {
		size_t at = (size_t)i * VOLUME_INTENTS_BYTES;

		if (!page_differs(r, bits, i))
			continue;
		n++;
		volume_bit_set(changed, i, true);
		memcpy(r->intents + at, bits + at, VOLUME_INTENTS_BYTES);
		rc = pair_write(r, 1 + i, e);
	}
	if (rc < 0 || n == 0)
		return rc;
	rc = sync_file(r, r->meta, "sync meta", e);
	for (uint32_t i = 0; rc == 0 && i < r->pages; i++)
		if (volume_bit(changed, i))
			rc = pair_written(r, 1 + i, e);
	return rc;
}

/* ---- maps ---- */

int volume_replica_write_maps(struct volume_replica *r, const struct volume_map_write *maps, size_t n, bool durable,
			      struct err *e)
{
	uint8_t page[VOLUME_PAGE_BYTES];
	int rc = replica_check_usable(r, e);

	for (size_t i = 0; rc == 0 && i < n; i++) {
		uint32_t extent = maps[i].extent;

		CHECK(extent < r->extents && volume_bit(r->intents, extent)); /* V30 covers a torn page only then */
		volume_map_encode(maps[i].stamps, extent, r->super.replica, page);
		rc = sys_write_all(r->sys, r->epochs, page, sizeof page, (uint64_t)extent * VOLUME_PAGE_BYTES);
		if (rc < 0)
			return err_set(e, rc, "replica '%s': write epochs (page %u): %s (%s)", r->label, extent,
				       strerror(-rc),
				       rc == -ENOSPC ? "free some space on its file system" : "look after the disk");
	}
	if (rc == 0 && durable && n > 0)
		rc = sync_file(r, r->epochs, "sync epochs", e);
	return rc;
}

int volume_replica_clear(struct volume_replica *r, const struct volume_map_write *maps, size_t n, struct err *e)
{
	size_t bytes = volume_bits_bytes(r->super.size);
	uint8_t *bits;
	int rc = volume_replica_write_maps(r, maps, n, true, e); /* V16: the map first */

	if (rc < 0)
		return rc;
	bits = malloc(bytes);
	if (!bits)
		return failed(r, e, -ENOMEM, "clear intents");
	memcpy(bits, r->intents, bytes);
	for (size_t i = 0; i < n; i++)
		volume_bit_set(bits, maps[i].extent, false);
	rc = volume_replica_write_intents(r, bits, e);
	free(bits);
	return rc;
}

int volume_replica_read_map(struct volume_replica *r, uint32_t extent, struct volume_ballot *ret, struct err *e)
{
	uint64_t at = (uint64_t)extent * VOLUME_PAGE_BYTES;
	uint8_t page[VOLUME_PAGE_BYTES];
	enum volume_fault fault;
	int rc = replica_check_usable(r, e);

	CHECK(extent < r->extents);
	if (rc < 0)
		return rc;
	rc = sys_read_all(r->sys, r->epochs, page, sizeof page, at);
	fault = rc < 0 ? VOLUME_FAULT_READ : volume_map_decode(page, extent, r->super.replica, ret);
	if (!fault)
		return 0;
	return err_set(e, -EBADMSG,
		       "replica '%s': epochs: the page of extent %u (offset %llu) %s (its blocks must be compared with "
		       "the other replicas: set its intent and stamp it anew)",
		       r->label, extent, (unsigned long long)at, volume_fault_text(fault));
}

uint32_t volume_replica_next_map(struct volume_replica *r, uint32_t from)
{
	off_t at = from < r->extents ? lseek(r->epochs, (off_t)from * VOLUME_PAGE_BYTES, SEEK_DATA) : -1;

	if (from >= r->extents || (at < 0 && errno == ENXIO))
		return r->extents;
	return at < 0 ? from : (uint32_t)(at / VOLUME_PAGE_BYTES); /* where it cannot tell: no hole */
}

/* ---- data ---- */

int volume_replica_sync(struct volume_replica *r, struct err *e)
{
	int rc = replica_check_usable(r, e);

	return rc < 0 ? rc : sync_file(r, r->data, "sync data", e);
}

void volume_replica_poison(struct volume_replica *r)
{
	atomic_store(&r->poisoned, true);
}

static int truncate_to_zeroes(struct volume_replica *r, int fd, uint64_t bytes, const char *what, struct err *e)
{
	if (r->sys->ftruncate(fd, 0) < 0 || r->sys->ftruncate(fd, (off_t)bytes) < 0 || r->sys->fsync(fd) < 0)
		return replica_poison(r, e, -errno, what);
	return 0;
}

int volume_replica_blank(struct volume_replica *r, struct err *e)
{
	struct volume_state s = r->state;
	uint8_t *no_bits = calloc(1, volume_bits_bytes(r->super.size));
	int rc;

	if (!no_bits)
		return failed(r, e, -ENOMEM, "blank it");
	s.lost = true; /* until all is gone: a crash must not leave old blocks without stamps */
	s.active = never;
	s.incarnation = replica_fresh_incarnation(s.incarnation);
	rc = replica_put_state(r, &s, e);
	if (rc == 0)
		rc = truncate_to_zeroes(r, r->data, r->super.size, "blank data", e);
	if (rc == 0)
		rc = truncate_to_zeroes(r, r->epochs, (uint64_t)r->extents * VOLUME_PAGE_BYTES, "blank epochs", e);
	if (rc == 0)
		rc = volume_replica_write_intents(r, no_bits, e);
	s.lost = false;
	if (rc == 0)
		rc = replica_put_state(r, &s, e);
	free(no_bits);
	return rc;
}
