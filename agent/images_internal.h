/* SPDX-License-Identifier: Apache-2.0
 * What the files about images share. */
#ifndef KEDGE_AGENT_IMAGES_INTERNAL_H
#define KEDGE_AGENT_IMAGES_INTERNAL_H

#include "agent/agent.h"
#include "agent/image_file.h"

/* A file that has its name, on this node. */
struct image {
	char digest[DIGEST_BYTES_MAX];
	usec_t used;    /* something referred to it then, or it came */
	bool right;     /* found right since the start: when it came, or when it was read */
	usec_t checked; /* read from the disk and found right then; 0: not since the start */
	bool verifying;
	bool asking; /* that it is here, or shall go, is being logged */
};

/* A file that could not be had: with whom to go on, and when. */
struct image_trouble {
	char digest[DIGEST_BYTES_MAX];
	unsigned tries;
	usec_t not_before;
};

/* Something for a worker: @run there, @done here afterwards. First in the caller's struct. */
struct image_job {
	uv_work_t work;
	struct images *im;
	void (*run)(struct image_job *j);
	void (*done)(struct image_job *j); /* frees it */
};

struct image_upload;
struct image_fetch;
struct image_fill;

struct images {
	struct agent *agent;
	char folder[PATH_BYTES_MAX];
	struct image *files;
	size_t n_files;
	struct image_trouble *troubles;
	size_t n_troubles;
	struct image_upload *uploads;
	size_t n_uploads;
	struct image_fetch *fetch;        /* one at a time */
	struct image_fill *fill;          /* likewise */
	char filled_last[VOLUME_NAME_ID]; /* so that one that cannot be filled does not keep others from it */
	size_t serving;                   /* pieces that are being read for others */
	usec_t next_look;
	usec_t progress;       /* a piece of any file came then, or the agent began */
	uint64_t session, num; /* of this node's own requests */
	_Atomic bool closing;
};

/* images.c */
void image_job_begin(struct images *im, struct image_job *j);
struct image *image_find(struct images *im, const char *digest);
/* It is here, and right. */
struct image *image_arrived(struct images *im, const char *digest);
/* Read it again; what is damaged is dropped, and had anew where it is wanted. */
void image_check(struct images *im, struct image *i);
/* A change of this node's: begun, to be filled and ended by pack_end(). */
void image_params(struct images *im, struct pack *p, struct buf *params);

/* image_upload.c: those that wait for an answer that does not come any more. */
void image_uploads_free(struct images *im);

/* image_fill.c */
void image_fill_step(struct images *im);
void image_fill_close(struct images *im);
/* What each volume waits for that is to be filled here: struct peer_wait. */
void image_fill_describe(struct images *im, struct buf *ret);

/* image_fetch.c */
void image_fetch_step(struct images *im);
/* Get it from another node, unless one is being got. */
void image_fetch_begin(struct images *im, const char *digest);
void image_fetch_close(struct images *im);
/* "fetched from n2: 12 %", or why it is not. */
void image_fetch_describe(const struct images *im, const char *digest, char ret[REASON_BYTES_MAX]);

#endif
