/* SPDX-License-Identifier: Apache-2.0
 * The inspector: reads every page of a replica's metadata, and says what it found and what is damaged. */
#include "volume/inspect.h"

#include "volume/replica_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define READ_TRIES    4 /* of a page that an engine may be writing */
#define READ_NAP_MS   5
#define TALLY_MAX     256
#define DAMAGES_SHOWN 1000

enum { DATA, META, EPOCHS, FILES };

static const char *const file_names[] = {"data", "meta", "epochs"};

struct tally {
	uint64_t stamp; /* packed */
	uint64_t blocks;
};

struct inspector {
	const char *dir;
	FILE *out;
	bool json;
	int fds[FILES];
	bool locked;
	struct stat stats[FILES];
	struct volume_super super;
	struct volume_state state;
	bool has_state;
	bool newer; /* than this program: no damage */
	uint8_t *bits;
	struct tally total[TALLY_MAX];
	size_t total_n;
	uint64_t others;                 /* blocks with stamps that did not fit in @total */
	uint8_t page[VOLUME_PAGE_BYTES]; /* the last that was read */
	struct buf damages, notes;
	unsigned damages_n, notes_n;
	struct err *e;
};

/* ---- what was found ---- */

static void json_text(const char *s, struct buf *ret)
{
	buf_append(ret, "\"", 1);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			buf_printf(ret, "\\%c", *s);
		else if ((unsigned char)*s < 0x20)
			buf_printf(ret, "\\u%04x", (unsigned char)*s);
		else
			buf_append(ret, s, 1);
	}
	buf_append(ret, "\"", 1);
}

static void finding(struct inspector *in, struct buf *list, unsigned n, const char *file, uint64_t offset,
		    const char *what)
{
	if (n >= DAMAGES_SHOWN)
		return;
	if (!in->json) {
		buf_printf(list, "  %s, offset %" PRIu64 ": %s\n", file, offset, what);
		return;
	}
	buf_printf(list, "%s{\"file\": \"%s\", \"offset\": %" PRIu64 ", \"what\": ", n ? ", " : "", file, offset);
	json_text(what, list);
	buf_printf(list, "}");
}

static void damage(struct inspector *in, const char *file, uint64_t offset, const char *what)
{
	finding(in, &in->damages, in->damages_n, file, offset, what);
	if (in->damages_n++ == 0)
		(void)err_set(in->e, -EBADMSG, "inspect '%s': %s, offset %" PRIu64 ": %s (docs/DISK.md: damage)",
			      in->dir, file, offset, what);
}

static void note(struct inspector *in, const char *file, uint64_t offset, const char *what)
{
	finding(in, &in->notes, in->notes_n++, file, offset, what);
}

/* ---- reading ---- */

static int open_files(struct inspector *in)
{
	char path[PATH_BYTES_MAX + 16];

	for (size_t i = 0; i < FILES; i++) {
		(void)snprintf(path, sizeof path, "%s/%s", in->dir, file_names[i]);
		in->fds[i] = open(path, O_RDONLY | O_CLOEXEC);
		if (in->fds[i] < 0 || fstat(in->fds[i], &in->stats[i]) < 0)
			return err_set(in->e, -errno, "inspect '%s': %s: %s (DIR is a volume's folder below volumes/)",
				       in->dir, file_names[i], strerror(errno));
	}
	in->locked = flock(in->fds[DATA], LOCK_SH | LOCK_NB) < 0;
	if (!in->locked)
		(void)flock(in->fds[DATA], LOCK_UN);
	return 0;
}

typedef enum volume_fault (*decoder)(struct inspector *in, const uint8_t *page, uint32_t number, void *ret,
				     uint64_t *ret_seq);

static enum volume_fault super_cb(struct inspector *in, const uint8_t *page, uint32_t number, void *ret,
				  uint64_t *ret_seq)
{
	(void)in;
	(void)number;
	(void)ret_seq;
	return volume_super_decode(page, ret);
}

static enum volume_fault state_cb(struct inspector *in, const uint8_t *page, uint32_t number, void *ret,
				  uint64_t *ret_seq)
{
	(void)number;
	return volume_state_decode(page, in->super.replica, ret, ret_seq);
}

static enum volume_fault intents_cb(struct inspector *in, const uint8_t *page, uint32_t number, void *ret,
				    uint64_t *ret_seq)
{
	return volume_intents_decode(page, number, volume_extents(in->super.size), in->super.replica, ret, ret_seq);
}

static enum volume_fault map_cb(struct inspector *in, const uint8_t *page, uint32_t number, void *ret,
				uint64_t *ret_seq)
{
	(void)ret_seq;
	return volume_map_decode(page, number, in->super.replica, ret);
}

static enum volume_fault read_page(struct inspector *in, int file, uint64_t at, decoder decode, uint32_t number,
				   void *ret, uint64_t *ret_seq)
{
	const struct timespec nap = {.tv_nsec = READ_NAP_MS * 1000 * 1000};
	enum volume_fault fault = VOLUME_FAULT_NONE;

	for (int i = 0; i < READ_TRIES; i++) {
		if (sys_read_all(&volume_sys_kernel, in->fds[file], in->page, sizeof in->page, at) < 0)
			return VOLUME_FAULT_READ;
		fault = decode(in, in->page, number, ret, ret_seq);
		if (!fault || !in->locked)
			return fault;
		(void)nanosleep(&nap, NULL);
	}
	return fault;
}

/* The newest whole copy into @ret, which has room for two of @bytes. False: both are damaged. */
static bool read_pair(struct inspector *in, uint32_t pair, decoder decode, uint8_t *ret, size_t bytes)
{
	uint64_t at = VOLUME_META_OFFSET(pair), seq[2] = {0, 0};
	uint8_t first[VOLUME_PAGE_BYTES];
	enum volume_fault fault[2];
	char what[160];
	unsigned newest;

	for (unsigned i = 0; i < 2; i++) {
		memcpy(first, in->page, sizeof first); /* in the second turn: copy 0 */
		fault[i] = read_page(in, META, at + i * VOLUME_PAGE_BYTES, decode, pair - 1, ret + i * bytes, &seq[i]);
	}
	for (unsigned i = 0; i < 2; i++) {
		if (!fault[i])
			continue;
		(void)snprintf(what, sizeof what, "copy %u of %s %s", i, pair ? "an intent page" : "the state",
			       volume_fault_text(fault[i]));
		(fault[1 - i] ? damage : note)(in, "meta", at + i * VOLUME_PAGE_BYTES, what);
	}
	if (fault[0] && fault[1])
		return false;
	newest = fault[0] || (!fault[1] && seq[1] > seq[0]);
	if (!fault[0] && !fault[1] && seq[0] == seq[1] && memcmp(first, in->page, sizeof first) != 0)
		damage(in, "meta", at, volume_fault_text(VOLUME_FAULT_SPLIT));
	if (newest)
		memcpy(ret, ret + bytes, bytes);
	return true;
}

/* A growth that was cut short leaves files of a size up to @most. */
static void check_size(struct inspector *in, int file, uint64_t want, uint64_t most)
{
	bool cut_short = (uint64_t)in->stats[file].st_size > want && (uint64_t)in->stats[file].st_size <= most;
	char what[120];

	if ((uint64_t)in->stats[file].st_size == want)
		return;
	(void)snprintf(what, sizeof what, "the file has %lld bytes where it must have %" PRIu64,
		       (long long)in->stats[file].st_size, want);
	if (cut_short || (in->has_state && in->state.lost && file != META))
		note(in, file_names[file], 0, what);
	else
		damage(in, file_names[file], 0, what);
}

/* False: nothing else can be told. */
static bool read_meta(struct inspector *in)
{
	enum volume_fault fault = read_page(in, META, 0, super_cb, 0, &in->super, NULL);
	uint8_t room[2 * VOLUME_INTENTS_BYTES];
	struct volume_state states[2];
	uint64_t most;
	char what[160];

	if (fault) {
		(void)snprintf(what, sizeof what, "the superblock %s", volume_fault_text(fault));
		damage(in, "meta", 0, what);
		in->newer = fault == VOLUME_FAULT_VERSION || fault == VOLUME_FAULT_FEATURE;
		return false;
	}
	in->has_state = read_pair(in, 0, state_cb, (uint8_t *)states, sizeof states[0]);
	if (in->has_state)
		in->state = states[0];
	if (in->has_state && in->state.size > in->super.size)
		in->super.size = in->state.size; /* it has grown */
	most = in->has_state ? in->state.growing : 0;
	in->bits = xcalloc(1, volume_bits_bytes(in->super.size));
	for (uint32_t i = 0; i < volume_intent_pages(in->super.size); i++)
		if (read_pair(in, 1 + i, intents_cb, room, VOLUME_INTENTS_BYTES))
			memcpy(in->bits + (size_t)i * VOLUME_INTENTS_BYTES, room, VOLUME_INTENTS_BYTES);
	check_size(in, META, volume_meta_bytes(in->super.size), most ? volume_meta_bytes(most) : 0);
	check_size(in, DATA, in->super.size, most);
	check_size(in, EPOCHS, (uint64_t)volume_extents(in->super.size) * VOLUME_PAGE_BYTES,
		   (uint64_t)volume_extents(most) * VOLUME_PAGE_BYTES);
	return true;
}

/* ---- printing ---- */

static void print_id(struct inspector *in, const char *label, const uint8_t *id)
{
	char hex[2 * VOLUME_ID_BYTES + 1];

	for (size_t i = 0; i < VOLUME_ID_BYTES; i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", id[i]);
	(void)fprintf(in->out, in->json ? "\"%s\": \"%s\", " : "%-14s %s\n", label, hex);
}

static void print_number(struct inspector *in, const char *label, uint64_t n)
{
	(void)fprintf(in->out, in->json ? "\"%s\": %" PRIu64 ", " : "%-14s %" PRIu64 "\n", label, n);
}

static void print_ballot(struct inspector *in, const char *label, struct volume_ballot b)
{
	(void)fprintf(in->out, in->json ? "\"%s\": [%u, %u], " : "%-14s (%u,%u)\n", label, b.epoch, b.minor);
}

static void print_head(struct inspector *in)
{
	struct buf dir = {0};

	json_text(in->dir, &dir);
	if (in->json)
		(void)fprintf(in->out, "{\"dir\": %.*s, \"open\": %s, ", (int)dir.len, (char *)dir.data,
			      in->locked ? "true" : "false");
	else
		(void)fprintf(in->out, "replica        %s (%s)\n", in->dir,
			      in->locked ? "an engine has it open: this is a moment's view" : "no engine has it open");
	buf_free(&dir);
}

static void print_super(struct inspector *in)
{
	print_id(in, "volume", in->super.volume);
	print_id(in, "replica_id", in->super.replica);
	print_number(in, "size", in->super.size);
	print_number(in, "allocated", (uint64_t)in->stats[DATA].st_blocks * 512);
	print_number(in, "version", VOLUME_FORMAT_VERSION);
	print_number(in, "compatible", in->super.compatible);
	print_number(in, "incompatible", in->super.incompatible);
}

static void print_state(struct inspector *in)
{
	const struct volume_state *s = &in->state;

	if (!in->has_state)
		return;
	print_ballot(in, "promised", s->promised);
	print_ballot(in, "active", s->active);
	(void)fprintf(in->out, in->json ? "\"incarnation\": \"%016" PRIx64 "\", " : "incarnation    %016" PRIx64 "\n",
		      s->incarnation);
	print_number(in, "addmark", s->addmark);
	print_number(in, "cold_done", s->cold_done);
	print_number(in, "growing", s->growing);
	(void)fprintf(in->out, in->json ? "\"lost\": %s, " : "lost           %s\n", s->lost ? "true" : "false");
	print_id(in, "boot", s->origin.boot);
	print_number(in, "mount_kind", s->origin.mount_kind);
	print_number(in, "mount", s->origin.mount);
	print_number(in, "device", s->origin.device);
}

/* As ranges, first and last. */
static void print_intents(struct inspector *in)
{
	uint32_t extents = volume_extents(in->super.size), n = 0, set = 0;

	(void)fprintf(in->out, in->json ? "\"intents\": [" : "intents       ");
	for (uint32_t first = 0, last; first < extents; first = last + 1) {
		last = first;
		if (!volume_bit(in->bits, first))
			continue;
		while (last + 1 < extents && volume_bit(in->bits, last + 1))
			last++;
		set += last - first + 1;
		(void)fprintf(in->out, in->json ? "%s[%u, %u]" : "%s %u-%u", n++ ? (in->json ? ", " : ",") : "", first,
			      last);
	}
	if (in->json)
		(void)fprintf(in->out, "], \"intents_set\": %u, ", set);
	else
		(void)fprintf(in->out, "%s (%u of %u extents)\n", n ? "" : " none", set, extents);
}

/* ---- the map ---- */

static int compare_u64(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void count_total(struct inspector *in, uint64_t stamp, uint64_t blocks)
{
	size_t i = 0;

	while (i < in->total_n && in->total[i].stamp != stamp)
		i++;
	if (i == TALLY_MAX) {
		in->others += blocks;
		return;
	}
	if (i == in->total_n)
		in->total[in->total_n++] = (struct tally){stamp, 0};
	in->total[i].blocks += blocks;
}

static void print_tally(struct inspector *in, size_t i, uint64_t stamp, uint64_t blocks)
{
	struct volume_ballot b = volume_ballot_unpack(stamp);

	(void)fprintf(in->out, in->json ? "%s[%u, %u, %" PRIu64 "]" : "%s (%u,%u) x %" PRIu64,
		      i ? (in->json ? ", " : ",") : "", b.epoch, b.minor, blocks);
}

/* False: all of them are (0,0), nothing was printed. */
static bool print_extent(struct inspector *in, uint32_t extent, const struct volume_ballot *stamps, bool first)
{
	uint32_t blocks = VOLUME_EXTENT_BLOCKS;
	uint64_t sorted[VOLUME_EXTENT_BLOCKS];
	bool intent = volume_bit(in->bits, extent);

	if ((uint64_t)(extent + 1) * VOLUME_EXTENT_BLOCKS > volume_blocks(in->super.size))
		blocks = volume_blocks(in->super.size) % VOLUME_EXTENT_BLOCKS;
	for (uint32_t i = 0; i < blocks; i++)
		sorted[i] = volume_ballot_pack(stamps[i]);
	qsort(sorted, blocks, sizeof *sorted, compare_u64);
	if (sorted[blocks - 1] == 0)
		return false;
	(void)fprintf(in->out, in->json ? "%s{\"extent\": %u, \"intent\": %s, \"stamps\": [" : "%s  extent %u%s:",
		      in->json && !first ? ", " : "", extent,
		      in->json ? (intent ? "true" : "false") : (intent ? " (intent: does not count)" : ""));
	for (uint32_t i = 0, n = 0, from = 0; i < blocks; i++)
		if (i + 1 == blocks || sorted[i + 1] != sorted[i]) {
			print_tally(in, n++, sorted[i], i + 1 - from);
			count_total(in, sorted[i], i + 1 - from);
			from = i + 1;
		}
	(void)fprintf(in->out, in->json ? "]}" : "\n");
	return true;
}

static void map_fault(struct inspector *in, uint32_t extent, enum volume_fault fault)
{
	char what[160];

	(void)snprintf(what, sizeof what, "the page of extent %u %s%s", extent, volume_fault_text(fault),
		       volume_bit(in->bits, extent) ? "; its intent is set, so it does no harm" : "");
	(volume_bit(in->bits, extent) ? note : damage)(in, "epochs", (uint64_t)extent * VOLUME_PAGE_BYTES, what);
}

static uint32_t next_extent(const struct inspector *in, uint32_t from, uint32_t extents)
{
	off_t at = from < extents ? lseek(in->fds[EPOCHS], (off_t)from * VOLUME_PAGE_BYTES, SEEK_DATA) : -1;

	if (at >= 0 && at / VOLUME_PAGE_BYTES < extents)
		return (uint32_t)(at / VOLUME_PAGE_BYTES);
	return from < extents && at < 0 && errno != ENXIO ? from : extents;
}

static void print_map(struct inspector *in)
{
	uint32_t extents = volume_extents(in->super.size), n = 0;
	struct volume_ballot stamps[VOLUME_EXTENT_BLOCKS];

	(void)fprintf(in->out, in->json ? "\"map\": [" : "map\n");
	for (uint32_t i = next_extent(in, 0, extents); i < extents; i = next_extent(in, i + 1, extents)) {
		enum volume_fault fault =
			read_page(in, EPOCHS, (uint64_t)i * VOLUME_PAGE_BYTES, map_cb, i, stamps, NULL);

		if (fault)
			map_fault(in, i, fault);
		else
			n += print_extent(in, i, stamps, n == 0);
	}
	(void)fprintf(in->out, in->json ? "], \"map_total\": [" : "map, total    ");
	for (size_t i = 0; i < in->total_n; i++)
		print_tally(in, i, in->total[i].stamp, in->total[i].blocks);
	(void)fprintf(in->out,
		      in->json ? "], \"map_others\": %" PRIu64 ", " : " (and %" PRIu64 " blocks with other stamps)\n",
		      in->others);
}

static void print_findings(struct inspector *in)
{
	if (in->json) {
		(void)fprintf(in->out, "\"notes\": [%.*s], \"damaged\": %u, \"damage\": [%.*s]}\n", (int)in->notes.len,
			      (char *)in->notes.data, in->damages_n, (int)in->damages.len, (char *)in->damages.data);
		return;
	}
	if (in->notes_n)
		(void)fprintf(in->out, "notes: harmless, mended when it is opened or written\n%.*s", (int)in->notes.len,
			      (char *)in->notes.data);
	if (in->damages_n)
		(void)fprintf(in->out, "DAMAGE (%u)\n%.*s", in->damages_n, (int)in->damages.len,
			      (char *)in->damages.data);
	else
		(void)fprintf(in->out, "no damage\n");
}

int volume_inspect(const char *dir, FILE *out, bool json, struct err *e)
{
	struct inspector *in = xcalloc(1, sizeof *in);
	int rc;

	in->dir = dir;
	in->out = out;
	in->json = json;
	in->e = e;
	for (size_t i = 0; i < FILES; i++)
		in->fds[i] = -1;
	rc = strlen(dir) < PATH_BYTES_MAX
		     ? open_files(in)
		     : err_set(e, -ENAMETOOLONG, "inspect: the path is too long (use a shorter one)");
	if (rc == 0) {
		print_head(in);
		if (read_meta(in)) {
			print_super(in);
			print_state(in);
			print_intents(in);
			print_map(in);
		}
		print_findings(in);
		if (in->damages_n)
			rc = in->newer ? -ENOTSUP : -EBADMSG;
		if (fflush(out) != 0)
			rc = err_set(e, -errno, "inspect '%s': print: %s", dir, strerror(errno));
	}
	for (size_t i = 0; i < FILES; i++)
		if (in->fds[i] >= 0)
			(void)close(in->fds[i]);
	buf_free(&in->damages);
	buf_free(&in->notes);
	free(in->bits);
	free(in);
	return rc;
}
