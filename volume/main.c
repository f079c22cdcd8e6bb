/* SPDX-License-Identifier: Apache-2.0
 * kedge-vol: the volume engine's process. kedged tells it what is to be, or, in static mode, a file; it also looks into
 * a replica's folder. */
#include "volume/ask.h"
#include "volume/engine.h"
#include "volume/inspect.h"
#include "volume/nbd.h"
#include "volume/static.h"

#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define LARGE (4 << 20) /* bytes: memory of its own from the kernel */

enum { EXIT_SOUND = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_DAMAGE = 3 };

struct wish {
	const char *inspect; /* a replica's folder */
	const char *static_file;
	const char *propose;
	const char *dir;
	const char *status; /* an engine's folder */
	const char *verify; /* an engine's folder */
	const char *resync_rate, *scrub_rate, *scrub_every, *memory, *volume_memory, *link_bytes;
	bool threads, direct;
	bool json, primary_wins;
	bool help, version;
};

static int usage(int code)
{
	(void)fprintf(
		code ? stderr : stdout,
		"usage: kedge-vol --dir DIR [--static FILE] [--direct] [--threads]\n"
		"         serve the volumes of the node in DIR over NBD, at DIR/run/nbd.sock, until SIGTERM; which "
		"they are\n"
		"         kedged says at DIR/run/vol.sock, or FILE, which stands for a cluster's store;\n"
		"         around the page cache, and by threads where io_uring shall not be used\n"
		"         --resync-rate N: MiB/s of a resync while guests read or write (64; 0: no bound)\n"
		"         --scrub-every N: days between scrubs of a volume (30; 0: never), --scrub-rate N: MiB/s (16)\n"
		"         --memory N: MiB that the requests of all guests may take up (256, at least 33)\n"
		"         --volume-memory N: and those of one connection (64, at least 33); who wants more waits\n"
		"         --link-bytes N: MiB in a direction until a link has to be another one (262144, the most)\n"
		"       kedge-vol --status DIR              what the engine in DIR does, and how far it is, as JSON\n"
		"       kedge-vol --verify DIR VOLUME [--primary-wins] [--json]\n"
		"         compare all replicas block by block, ask the primary's engine; what is wrong is repaired; "
		"where\n"
		"         nobody can tell whose copy is right, only --primary-wins takes the primary's\n"
		"       kedge-vol --propose FILE CHANGE     change FILE, as a cluster's leader would\n"
		"       kedge-vol --inspect DIR [--json]    what is in the replica in DIR, read only\n"
		"       kedge-vol --help | --version\n"
		"changes:\n%s"
		"exit: 0 well, 1 it could not be done, 2 wrong options, 3 damage was found and named\n",
		static_propose_help);
	return code;
}

/* One thing is asked for, with as many words behind it as it takes. */
static bool makes_sense(const struct wish *w, int words)
{
	int things = !!w->inspect + !!w->dir + !!w->propose + !!w->status + !!w->verify;

	if (w->help || w->version)
		return words == 0;
	if (things != 1 || (w->static_file && !w->dir))
		return false;
	return w->propose ? words > 0 : words == !!w->verify;
}

static bool parse(int argc, char **argv, struct wish *ret)
{
	static const struct option options[] = {
		{"inspect", required_argument, NULL, 'i'},
		{"static", required_argument, NULL, 's'},
		{"propose", required_argument, NULL, 'p'},
		{"dir", required_argument, NULL, 'd'},
		{"threads", no_argument, NULL, 't'},
		{"direct", no_argument, NULL, 'o'},
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{"status", required_argument, NULL, 'S'},
		{"verify", required_argument, NULL, 'V'},
		{"resync-rate", required_argument, NULL, 'R'},
		{"scrub-rate", required_argument, NULL, 'r'},
		{"scrub-every", required_argument, NULL, 'e'},
		{"memory", required_argument, NULL, 'm'},
		{"volume-memory", required_argument, NULL, 'M'},
		{"link-bytes", required_argument, NULL, 'l'},
		{"primary-wins", no_argument, NULL, 'w'},
		{"version", no_argument, NULL, 'v'},
		{NULL, 0, NULL, 0},
	};
	const char **text[] = {['i'] = &ret->inspect,     ['s'] = &ret->static_file,   ['p'] = &ret->propose,
			       ['d'] = &ret->dir,         ['S'] = &ret->status,        ['V'] = &ret->verify,
			       ['R'] = &ret->resync_rate, ['r'] = &ret->scrub_rate,    ['e'] = &ret->scrub_every,
			       ['m'] = &ret->memory,      ['M'] = &ret->volume_memory, ['l'] = &ret->link_bytes};
	bool *flag[] = {['t'] = &ret->threads,      ['o'] = &ret->direct, ['j'] = &ret->json,
			['w'] = &ret->primary_wins, ['h'] = &ret->help,   ['v'] = &ret->version};
	/* A change may have a word like "-2"; elsewhere options may stand in any place. */
	const char *order = argc > 1 && strncmp(argv[1], "--propose", 9) == 0 ? "+" : "";
	int c;

	while ((c = getopt_long(argc, argv, order, options, NULL)) != -1) {
		if (c == '?')
			return false;
		if (text[c])
			*text[c] = optarg;
		else
			*flag[c] = true;
	}
	return makes_sense(ret, argc - optind);
}

static int inspect(const struct wish *w)
{
	struct err e = {0};
	int rc = volume_inspect(w->inspect, stdout, w->json, &e);

	if (rc < 0)
		(void)fprintf(stderr, "kedge-vol: %s\n", e.text);
	if (rc == -EBADMSG)
		return EXIT_DAMAGE;
	return rc < 0 ? EXIT_FAILED : EXIT_SOUND;
}

static int propose(const struct wish *w, int argc, char **argv)
{
	struct err e = {0};

	if (static_propose(w->propose, argc, argv, &e) == 0)
		return EXIT_SOUND;
	(void)fprintf(stderr, "kedge-vol: %s\n", e.text);
	return EXIT_FAILED;
}

static int exit_of(int rc, const struct err *e)
{
	if (rc == -EBADMSG)
		return EXIT_DAMAGE;
	if (rc < 0)
		(void)fprintf(stderr, "kedge-vol: %s\n", e->text);
	return rc < 0 ? EXIT_FAILED : EXIT_SOUND;
}

static int status(const struct wish *w)
{
	struct err e = {0};

	return exit_of(volume_ask_status(w->status, stdout, &e), &e);
}

static int verify(const struct wish *w, const char *name)
{
	struct err e = {0};
	int rc = volume_ask_verify(w->verify, name, w->primary_wins, w->json, stdout,
				   isatty(STDERR_FILENO) ? stderr : NULL, &e);

	return exit_of(rc, &e);
}

/* ---- serving ---- */

struct process {
	uv_loop_t loop;
	uv_signal_t signals[2];
	struct engine *engine;
};

static void ended(void *ctx)
{
	(void)ctx;
}

static void signal_cb(uv_signal_t *handle, int number)
{
	struct process *p = handle->data;

	(void)number;
	if (!p->engine)
		return;
	for (size_t i = 0; i < ARRAY_LEN(p->signals); i++)
		uv_close((uv_handle_t *)&p->signals[i], NULL);
	engine_close(p->engine, ended, NULL);
	p->engine = NULL;
}

/* A whole number below a million; @text may be NULL. */
static bool number(const char *text, uint64_t otherwise, uint64_t *ret)
{
	char *end;

	*ret = otherwise;
	if (!text)
		return true;
	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*ret = strtoull(text, &end, 10);
	return *end == '\0' && errno == 0 && *ret < 1000000;
}

/* False: a number makes no sense. */
static bool configure(const struct wish *w, struct engine_config *ret)
{
	uint64_t days;

	*ret = (struct engine_config){
		.dir = w->dir, .static_file = w->static_file, .threads = w->threads, .direct = w->direct};
	if (!number(w->resync_rate, ENGINE_RESYNC_RATE >> 20, &ret->resync_rate) ||
	    !number(w->scrub_rate, ENGINE_SCRUB_RATE >> 20, &ret->scrub_rate) ||
	    !number(w->scrub_every, ENGINE_SCRUB_DAYS, &days) ||
	    !number(w->memory, nbd_limits_default.shared_bytes >> 20, &ret->memory) ||
	    !number(w->volume_memory, nbd_limits_default.connection_bytes >> 20, &ret->volume_memory) ||
	    !number(w->link_bytes, ENGINE_LINK_BYTES >> 20, &ret->link_bytes))
		return false;
	ret->resync_rate <<= 20;
	ret->scrub_rate <<= 20;
	ret->scrub_days = (unsigned)days;
	ret->memory <<= 20;
	ret->volume_memory <<= 20;
	ret->link_bytes <<= 20;
	return ret->memory >= ENGINE_MEMORY_MIN && ret->volume_memory >= ENGINE_MEMORY_MIN && ret->link_bytes > 0 &&
	       ret->link_bytes <= ENGINE_LINK_BYTES;
}

static int serve(const struct wish *w)
{
	static const int numbers[] = {SIGTERM, SIGINT};
	static struct process p;
	struct engine_config config;
	struct err e = {0};
	int rc;

	if (!configure(w, &config)) {
		(void)fprintf(stderr,
			      "kedge-vol: rates, days and memory are whole numbers below a million, memory at least "
			      "33, a link's bytes 1 to 262144 (kedge-vol --help)\n");
		return EXIT_USAGE;
	}
	(void)signal(SIGPIPE, SIG_IGN);
	(void)mallopt(M_MMAP_THRESHOLD, LARGE); /* left alone it grows, and what opening takes is never given back */
	CHECK(uv_loop_init(&p.loop) == 0);
	rc = engine_new(&p.loop, &config, &p.engine, &e);
	if (rc == -EWOULDBLOCK && !config.static_file)
		return EXIT_SOUND; /* kedged starts one whenever it sees none */
	if (rc < 0) {
		(void)fprintf(stderr, "kedge-vol: %s\n", e.text);
		return EXIT_FAILED;
	}
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
		CHECK(uv_signal_init(&p.loop, &p.signals[i]) == 0);
		p.signals[i].data = &p;
		CHECK(uv_signal_start(&p.signals[i], signal_cb, numbers[i]) == 0);
	}
	(void)uv_run(&p.loop, UV_RUN_DEFAULT);
	CHECK(uv_loop_close(&p.loop) == 0);
	return EXIT_SOUND;
}

int main(int argc, char **argv)
{
	struct wish w = {0};

	if (!parse(argc, argv, &w))
		return usage(EXIT_USAGE);
	if (w.help)
		return usage(EXIT_SOUND);
	if (w.version) {
		(void)printf("kedge-vol %s\n", KEDGE_VERSION);
		return EXIT_SOUND;
	}
	if (w.propose)
		return propose(&w, argc - optind, argv + optind);
	if (w.status)
		return status(&w);
	if (w.verify)
		return verify(&w, argv[optind]);
	return w.inspect ? inspect(&w) : serve(&w);
}
