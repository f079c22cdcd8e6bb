/* SPDX-License-Identifier: Apache-2.0
 * kedge-vol: the volume engine's process. By itself it serves in static mode; it also looks into a replica's folder. */
#include "volume/engine.h"
#include "volume/inspect.h"
#include "volume/static.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <uv.h>

enum { EXIT_SOUND = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_DAMAGE = 3 };

struct wish {
	const char *inspect; /* a replica's folder */
	const char *static_file;
	const char *propose;
	const char *dir;
	bool threads, direct;
	bool json;
	bool help, version;
};

static int usage(int code)
{
	(void)fprintf(
		code ? stderr : stdout,
		"usage: kedge-vol --static FILE --dir DIR [--direct] [--threads]\n"
		"         serve the volumes that FILE places in DIR over NBD, at DIR/run/nbd.sock, until SIGTERM;\n"
		"         around the page cache, and by threads where io_uring shall not be used\n"
		"       kedge-vol --propose FILE CHANGE     change FILE, as a cluster's leader would\n"
		"       kedge-vol --inspect DIR [--json]    what is in the replica in DIR, read only\n"
		"       kedge-vol --help | --version\n"
		"changes:\n%s"
		"exit: 0 well, 1 it could not be done, 2 wrong options, 3 damage was found and named\n",
		static_propose_help);
	return code;
}

static bool parse(int argc, char **argv, struct wish *ret)
{
	static const struct option options[] = {
		{"inspect", required_argument, NULL, 'i'}, {"static", required_argument, NULL, 's'},
		{"propose", required_argument, NULL, 'p'}, {"dir", required_argument, NULL, 'd'},
		{"threads", no_argument, NULL, 't'},       {"direct", no_argument, NULL, 'o'},
		{"json", no_argument, NULL, 'j'},          {"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},       {NULL, 0, NULL, 0},
	};
	const char **text[] = {
		['i'] = &ret->inspect, ['s'] = &ret->static_file, ['p'] = &ret->propose, ['d'] = &ret->dir};
	bool *flag[] = {['t'] = &ret->threads,
			['o'] = &ret->direct,
			['j'] = &ret->json,
			['h'] = &ret->help,
			['v'] = &ret->version};
	int c;

	while ((c = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		if (c == '?')
			return false;
		if ((size_t)c < ARRAY_LEN(text) && text[c])
			*text[c] = optarg;
		else
			*flag[c] = true;
	}
	if (ret->propose)
		return optind < argc && !ret->inspect && !ret->static_file;
	if (ret->static_file)
		return ret->dir && optind == argc && !ret->inspect;
	return optind == argc && (ret->inspect || ret->help || ret->version);
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

static int serve(const struct wish *w)
{
	static const int numbers[] = {SIGTERM, SIGINT};
	static struct process p;
	struct engine_config config = {
		.dir = w->dir, .static_file = w->static_file, .threads = w->threads, .direct = w->direct};
	struct err e = {0};

	(void)signal(SIGPIPE, SIG_IGN);
	CHECK(uv_loop_init(&p.loop) == 0);
	if (engine_new(&p.loop, &config, &p.engine, &e) < 0) {
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
	return w.inspect ? inspect(&w) : serve(&w);
}
