/* SPDX-License-Identifier: Apache-2.0
 * kedge-volume-sim: runs seeds, or replays the recorded seeds of planted bugs. */
#include "tests/volume_sim/sim.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *planted_bug;

#define SECONDS 15
#define HEAL    25

static const char *const bugs[] = {
	"ack_before_slowest",
	"blind_removal",
	"stale_takeover",
	"no_settle",
	"read_before_settle",
	"serve_before_hello",
	"forget_promise",
	"accept_old_ballot",
	"collect_without_fence",
	"no_drain_at_hello",
	"no_drain_at_stepdown",
	"no_drain_at_reopen",
	"lazy_intent",
	"copy_without_intent",
	"clear_unflushed",
	"clear_after_own_flush",
	"clear_by_replica",
	"clear_before_map",
	"keep_acks_over_epoch",
	"no_restamp",
	"restamp_some",
	"base_promised",
	"base_store_epoch",
	"skip_equal_stamps",
	"cut_as_reconnect",
	"cut_settle_in_place",
	"cut_primary_leads",
	"eager_cold",
	"cold_read_unflushed",
	"add_without_fsync",
	"fsync_before_joint",
	"add_without_joint",
	"write_marks_copied",
	"forget_missed_write",
	"late_add",
	"old_session_frame",
	"old_nbd_request",
	"read_through_write",
	"same_ballot_restart",
	"active_at_hello",
	"map_lost",
	"stamp_not_carried",
	"same_without_intent",
	"fork_by_map",
	"stale_vm_epoch",
	"backup_without_bump",
	"early_welcome",
	"early_lead",
	"run_through_write",
	"ride_any_flush",
	"old_flush_covers",
	"early_reballot",
	"grow_in_epoch",
	"grow_without_room",
};

static void end(struct vsim *s)
{
	for (unsigned n = 1; n <= NODES; n++)
		vs_node_crash(s, n);
	vs_end(s);
}

static bool run(uint64_t seed, bool verbose, struct vsim *s)
{
	vs_init(s, seed, &store_around);
	s->verbose = verbose;
	s->stories = seed % 4 == 3;
	s->disturbed = seed % 8 == 7;
	s->renews = seed % 16 == 14 || (!planted_bug && seed % 4 == 1); /* other histories are kept as they are */
	s->grows = seed % 16 == 10 && (!planted_bug || strncmp(planted_bug, "grow", 4) == 0);
	for (unsigned n = 1; n <= NODES; n++)
		vs_add_replica(s, n);
	faults_choose(s);
	store_create(s);
	for (unsigned n = 1; n <= NODES; n++)
		vs_node_start(s, n);
	vs_guest_start(s, 1, 1);
	vs_after(s, USEC_PER_MS, vs_guest_event, 0);
	vs_after(s, 50 * USEC_PER_MS, store_leader, 0);
	vs_after(s, 500 * USEC_PER_MS, faults_event, 0);
	if (!planted_bug && s->seed % 4 == 0) /* those histories are kept as they are */
		vs_after(s, 500 * USEC_PER_MS, scrub_event, 0);
	if (s->grows)
		vs_after(s, vs_random(s, 4 * USEC_PER_SEC), grow_event, 0);
	if (s->renews)
		vs_after(s, 500 * USEC_PER_MS, renew_event, 0);
	if (s->stories)
		stories_start(s);
	vs_run(s, SECONDS * USEC_PER_SEC);
	if (!s->violation) {
		faults_heal(s);
		vs_run(s, (SECONDS + HEAL) * USEC_PER_SEC);
	}
	if (!s->violation)
		vs_check_end(s);
	if (verbose)
		printf("acked %llu, read %llu, compared %llu, takeovers %llu, colds %llu, joins %llu, scrubs %llu, "
		       "renewals %llu, frames on the older link %llu, events %llu\n",
		       (unsigned long long)s->acked, (unsigned long long)s->reads, (unsigned long long)s->settles,
		       (unsigned long long)s->takeovers, (unsigned long long)s->colds, (unsigned long long)s->joins,
		       (unsigned long long)s->scrubs, (unsigned long long)s->renewals, (unsigned long long)s->overtaken,
		       (unsigned long long)s->events);
	end(s);
	return s->violation == NULL;
}

static void report(const struct vsim *s)
{
	printf("seed %llu: %s violated at %.3f s: %s\n", (unsigned long long)s->seed, s->violation,
	       (double)s->now / 1e6, s->detail);
	printf("  again: kedge-volume-sim --seed %llu%s%s --verbose\n", (unsigned long long)s->seed,
	       planted_bug ? " --bug " : "", planted_bug ? planted_bug : "");
}

/* Seeds from @first on, until @count were run or @box seconds are over (0: no limit). Stops at a violation. */
static uint64_t campaign(struct vsim *s, uint64_t first, uint64_t count, unsigned box, bool verbose, bool *ret_ok)
{
	usec_t end_at = clock_boottime() + box * USEC_PER_SEC;
	uint64_t n;

	*ret_ok = true;
	for (n = 0; *ret_ok && (count == 0 || n < count) && (box == 0 || clock_boottime() < end_at); n++)
		*ret_ok = run(first + n, verbose, s);
	return n;
}

static bool is_known(const char *bug)
{
	for (size_t i = 0; i < ARRAY_LEN(bugs); i++)
		if (strcmp(bugs[i], bug) == 0)
			return true;
	return false;
}

/* One line of the file: each bug must be caught by its seed, "none SEED" must pass. */
static bool replay_line(struct vsim *s, const char *bug, uint64_t seed)
{
	bool ok, is_none = strcmp(bug, "none") == 0;

	if (!is_none && !is_known(bug)) {
		printf("%-22s is no planted bug\n", bug);
		return false;
	}
	planted_bug = is_none ? NULL : bug;
	ok = run(seed, false, s) == is_none;
	printf("%-22s seed %-8llu %s%s\n", bug, (unsigned long long)seed,
	       ok ? (is_none ? "passes" : "caught: ") : (is_none ? "VIOLATED: " : "MISSED"),
	       s->violation ? s->violation : "");
	planted_bug = NULL;
	return ok;
}

static int replay(struct vsim *s, const char *path)
{
	FILE *f = fopen(path, "r");
	char bug[64], seed[32];
	size_t lines = 0;
	int passed = 0, failed = 0;

	if (!f) {
		(void)fprintf(stderr, "kedge-volume-sim: cannot read '%s'\n", path);
		return 2;
	}
	while (fscanf(f, "%63s %31s", bug, seed) == 2) {
		lines += strcmp(bug, "none") != 0;
		if (strcmp(seed, "-") == 0)
			printf("%-22s no seed is known that catches it\n", bug);
		else
			replay_line(s, bug, strtoull(seed, NULL, 10)) ? passed++ : failed++;
	}
	(void)fclose(f);
	if (lines != ARRAY_LEN(bugs)) {
		printf("%zu bugs can be planted, %zu have a line in %s\n", ARRAY_LEN(bugs), lines, path);
		failed++;
	}
	printf("%d passed, %d failed\n", passed, failed);
	return failed ? 1 : 0;
}

static int usage(FILE *to)
{
	(void)fprintf(to,
		      "usage: kedge-volume-sim [--seed N] [--seeds COUNT] [--box SECONDS] [--bug NAME] [--verbose]\n"
		      "       kedge-volume-sim --planted FILE      replay the recorded seeds of all planted bugs\n"
		      "Each seed is one volume on three nodes for %d virtual seconds of faults, then %d of healing.\n"
		      "planted bugs:",
		      SECONDS, HEAL);
	for (size_t i = 0; i < ARRAY_LEN(bugs); i++)
		(void)fprintf(to, " %s", bugs[i]);
	(void)fprintf(to, "\n");
	return to == stderr ? 2 : 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"seed", 1, 0, 's'},    {"seeds", 1, 0, 'n'},   {"box", 1, 0, 'b'},  {"bug", 1, 0, 'p'},
		{"planted", 1, 0, 'r'}, {"verbose", 0, 0, 'v'}, {"help", 0, 0, 'h'}, {0}};
	struct vsim *s = xcalloc(1, sizeof *s);
	uint64_t first = 1, count = 0, n;
	unsigned box = 0;
	bool verbose = false, ok;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's':
			first = strtoull(optarg, NULL, 10);
			break;
		case 'n':
			count = strtoull(optarg, NULL, 10);
			break;
		case 'b':
			box = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'p':
			planted_bug = optarg;
			break;
		case 'r':
			return replay(s, optarg);
		case 'v':
			verbose = true;
			break;
		default:
			return usage(c == 'h' ? stdout : stderr);
		}
	}
	if (count == 0 && box == 0)
		count = 1;
	n = campaign(s, first, count, box, verbose, &ok);
	if (!ok)
		report(s);
	printf("%llu seeds from %llu of %d virtual seconds\n", (unsigned long long)n, (unsigned long long)first,
	       SECONDS);
	printf("%llu passed, %d failed\n", (unsigned long long)(ok ? n : n - 1), ok ? 0 : 1);
	free(s);
	return ok ? 0 : 1;
}
