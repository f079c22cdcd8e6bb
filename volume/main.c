/* SPDX-License-Identifier: Apache-2.0
 * kedge-vol: the volume engine's process. For now it can look into a replica's folder. */
#include "volume/inspect.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>

enum { EXIT_SOUND = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_DAMAGE = 3 };

struct wish {
	const char *inspect; /* a replica's folder */
	bool json;
	bool help, version;
};

static int usage(int code)
{
	(void)fprintf(code ? stderr : stdout,
		      "usage: kedge-vol --inspect DIR [--json]   what is in the replica in DIR, read only\n"
		      "       kedge-vol --help | --version\n"
		      "exit: 0 sound, 1 it could not be read, 2 wrong options, 3 damage was found and named\n");
	return code;
}

static bool parse(int argc, char **argv, struct wish *ret)
{
	static const struct option options[] = {
		{"inspect", required_argument, NULL, 'i'},
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (c) {
		case 'i':
			ret->inspect = optarg;
			break;
		case 'j':
			ret->json = true;
			break;
		case 'h':
			ret->help = true;
			break;
		case 'v':
			ret->version = true;
			break;
		default:
			return false;
		}
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
	return inspect(&w);
}
