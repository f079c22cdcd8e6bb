/* SPDX-License-Identifier: Apache-2.0
 * kedge-sim: runs seeds of the cluster simulator, and proves that it would catch the planted bugs. */
#include "tests/sim/world.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECONDS 60
#define HEAL    75 /* longer than the longest back-off */
#define LOOK    10 /* for the guests to read their disks once more */

static const char *const bugs[] = {
	"WAIT1",
	"WAIT3",
	"nlnowait",
	"nomaj",
	"staleack",
	"fromreceipt",
	"thawnogen",
	"thawlocal",
	"idxrestart",
	"nobarrier",
	"libraft",
	"idxcommit",
	"startrace",
	"startnogen",
	"startlocal",
	"startnolease",
	"nocas",
	"reusegen",
	"volatile",
	"seqreuse",
	"rebootfast",
	"amnesia",
	"guardoff",
	"pongnoself",
	"pongrestart",
	"kill",
	"fwd",
	"splitmove",
	"movleader",
	"movnover",
	"movunguard",
	"eager_cold",
	"ack_before_slowest",
	"accept_old_ballot",
	"forget_promise",
	"no_settle",
	"cut_as_reconnect",
	"read_before_settle",
	"cut_primary_leads",
};

/* Clocks run wider apart than real ones, so that forgetting it shows within a run; in stories wider still. */
static void set_timing(struct world *w)
{
	struct timing *t = &w->timing;

	*t = timing_lan;
	t->drift_ppm = w->faults.stories ? 100000 : 20000;
	t->takeover = TIMING_TAKEOVER_MS(LAN_LEASE_MS, LAN_FREEZE_MAX_MS, t->drift_ppm) * USEC_PER_MS;
	t->hear = 0; /* no promise rests on these */
	t->hear_outage = 0;
	CHECK(timing_is_safe(t));
	if (PLANTED(WAIT1))
		t->takeover = t->lease;
	if (PLANTED(WAIT3))
		t->takeover = t->lease + t->freeze_max;
}

static void connect_all(struct world *w)
{
	for (unsigned a = 1; a <= SIM_NODES; a++)
		for (unsigned b = 1; b <= SIM_NODES; b++)
			w->link[a][b] = a != b;
}

static void end(struct world *w)
{
	for (unsigned n = 1; n <= SIM_NODES; n++)
		if (w->hosts[n].agent_up)
			sim_agent_crash(w, n);
	sim_disks_end(w);
	sim_drop_events(w);
	for (unsigned n = 1; n <= SIM_NODES; n++)
		sim_disk_wipe(&w->hosts[n].disk);
	for (size_t i = 0; i < w->n_ops; i++)
		buf_free(&w->ops[i].bodies);
}

/* One run. Returns true when nothing was violated. */
static bool run(uint64_t seed, bool verbose, struct world *w)
{
	memset(w, 0, sizeof *w);
	w->seed = seed;
	w->random = seed * 0x9e3779b97f4a7c15ULL + 1;
	w->verbose = verbose;
	w->faults.stories = seed % 11 == 10;
	w->faults.behind = seed % 5 == 0;
	w->disks = seed % 4 == 0;
	w->unsound = seed % 64 == 36;
	w->flaps = seed % 32 == 12;
	w->grows = seed % 32 == 24;
	w->dead = seed % 32 == 20 ? 1 + (unsigned)(seed / 32 % SIM_NODES) : 0;
	set_timing(w);
	for (int i = 0; i < 8; i++)
		(void)sim_random(w, 2);
	sim_faults_choose(w);
	sim_disks_new(w);
	for (unsigned n = 1; n <= SIM_NODES; n++) {
		struct host *h = &w->hosts[n];

		h->id = n;
		h->up = true;
		h->disk.start = 1;
		h->page.magic = GUARD_PAGE_MAGIC;
		h->page.version = GUARD_PAGE_VERSION;
		if (n == 1)
			sim_host_found(w, n);
		else
			sim_agent_start(w, n);
	}
	connect_all(w);
	sim_clients_start(w);
	sim_faults_start(w);
	sim_run(w, SECONDS * USEC_PER_SEC);
	if (!w->violation) {
		sim_heal(w);
		sim_run(w, (SECONDS + HEAL) * USEC_PER_SEC + (w->dead ? 2 * COLD_WAIT : 0));
	}
	if (!w->violation && w->disks) {
		sim_disks_look(w);
		sim_run(w, w->now + LOOK * USEC_PER_SEC);
	}
	if (!w->violation)
		sim_check_end(w);
	end(w);
	return w->violation == NULL;
}

static void report(const struct world *w)
{
	printf("seed %llu: %s violated at %.3f s: %s\n", (unsigned long long)w->seed, w->violation,
	       (double)w->now / 1e6, w->detail);
	printf("  again: kedge-sim --seed %llu%s%s --verbose\n", (unsigned long long)w->seed,
	       planted_bug ? " --bug " : "", planted_bug ? planted_bug : "");
}

/* Seeds from @first on, each @step-th, until @count were run or @box seconds are over (0: no limit). Stops at a
 * violation. */
static uint64_t campaign(struct world *w, uint64_t first, uint64_t step, uint64_t count, unsigned box, bool verbose,
			 bool *ret_ok)
{
	usec_t end_at = clock_boottime() + box * USEC_PER_SEC;
	uint64_t n;

	*ret_ok = true;
	for (n = 0; *ret_ok && (count == 0 || n < count) && (box == 0 || clock_boottime() < end_at); n++)
		*ret_ok = run(first + n * step, verbose, w);
	return n;
}

static bool is_known(const char *bug)
{
	for (size_t i = 0; i < ARRAY_LEN(bugs); i++)
		if (strcmp(bugs[i], bug) == 0)
			return true;
	return false;
}

/* A line "none SEED": a history that once broke the real code, and must not again. */
static bool is_good(struct world *w, uint64_t seed)
{
	bool good = run(seed, false, w);

	printf("%-18s seed %-8llu %s\n", "none", (unsigned long long)seed, good ? "passes" : w->violation);
	return good;
}

static bool is_caught(struct world *w, const char *bug, uint64_t seed)
{
	bool caught;

	planted_bug = bug;
	caught = !run(seed, false, w);
	printf("%-18s seed %-8llu %s%s\n", bug, (unsigned long long)seed, caught ? "caught: " : "MISSED",
	       caught ? w->violation : "");
	planted_bug = NULL;
	return caught;
}

/* Replay "BUG SEED" lines: each must be caught by its recorded seed. "BUG -" says that no seed is known yet; it counts
 * neither way. Every bug must have its line. */
static int replay(struct world *w, const char *path)
{
	FILE *f = fopen(path, "r");
	char bug[32], seed[32];
	size_t lines = 0;
	int passed = 0, failed = 0;

	if (!f) {
		(void)fprintf(stderr, "kedge-sim: cannot read '%s'\n", path);
		return 2;
	}
	while (fscanf(f, "%31s %31s", bug, seed) == 2) {
		if (strcmp(bug, "none") == 0) {
			is_good(w, strtoull(seed, NULL, 10)) ? passed++ : failed++;
			continue;
		}
		lines++;
		if (!is_known(bug)) {
			printf("%-18s is no planted bug\n", bug);
			failed++;
		} else if (strcmp(seed, "-") == 0) {
			printf("%-18s no seed is known that catches it\n", bug);
		} else if (is_caught(w, bug, strtoull(seed, NULL, 10))) {
			passed++;
		} else {
			failed++;
		}
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
	(void)fprintf(
		to,
		"usage: kedge-sim [--seed N] [--step N] [--seeds COUNT] [--box SECONDS] [--bug NAME] [--verbose]\n"
		"       kedge-sim --planted FILE      replay the recorded seeds of all planted bugs\n"
		"Each seed is a cluster of three nodes for %d virtual seconds of faults, then %d of healing.\n"
		"planted bugs:",
		SECONDS, HEAL);
	for (size_t i = 0; i < ARRAY_LEN(bugs); i++)
		(void)fprintf(to, " %s", bugs[i]);
	(void)fprintf(to, "\n");
	return to == stderr ? 2 : 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"seed", 1, 0, 's'},    {"seeds", 1, 0, 'n'}, {"box", 1, 0, 'b'},
						{"bug", 1, 0, 'p'},     {"step", 1, 0, 't'},  {"planted", 1, 0, 'r'},
						{"verbose", 0, 0, 'v'}, {"help", 0, 0, 'h'},  {0}};
	struct world *w = xcalloc(1, sizeof *w);
	uint64_t first = 1, step = 1, count = 0, n;
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
		case 't':
			step = strtoull(optarg, NULL, 10);
			break;
		case 'b':
			box = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'p':
			planted_bug = optarg;
			break;
		case 'r':
			c = replay(w, optarg);
			free(w);
			return c;
		case 'v':
			verbose = true;
			break;
		default:
			return usage(c == 'h' ? stdout : stderr);
		}
	}
	if (count == 0 && box == 0)
		count = 1;
	n = campaign(w, first, step, count, box, verbose, &ok);
	if (!ok)
		report(w);
	printf("%llu seeds from %llu of %d virtual seconds\n", (unsigned long long)n, (unsigned long long)first,
	       SECONDS);
	printf("%llu passed, %d failed\n", (unsigned long long)(ok ? n : n - 1), ok ? 0 : 1);
	free(w);
	return ok ? 0 : 1;
}
