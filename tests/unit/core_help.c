/* SPDX-License-Identifier: Apache-2.0
 * See core_help.h. */
#include "tests/unit/core_help.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void fx_state(void *ctx, const struct volume_state *s KEDGE_UNUSED, uint64_t seq)
{
	((struct fixture *)ctx)->state_seq = seq;
}

static void fx_intents(void *ctx, const uint8_t *bits KEDGE_UNUSED)
{
	((struct fixture *)ctx)->intents = true;
}

static void fx_map(void *ctx, uint32_t extent, const struct volume_ballot *stamps KEDGE_UNUSED)
{
	struct fixture *f = ctx;

	f->maps[f->n_maps++] = extent;
}

static void fx_io(void *ctx, struct volume_io *io)
{
	struct fixture *f = ctx;

	assert_true(f->n_ios < IOS_MAX);
	assert_true(io->kind == VOLUME_IO_SYNC || (io->length > 0 && io->offset + io->length <= SIZE));
	f->ios[f->n_ios++] = io;
}

static void fx_send(void *ctx, node_id_t node KEDGE_UNUSED, const struct volume_frame *frame)
{
	struct fixture *f = ctx;

	f->sent = *frame;
	f->n_sent++;
}

static void fx_unlink(void *ctx, node_id_t node KEDGE_UNUSED)
{
	((struct fixture *)ctx)->n_unlinked++;
}

static void fx_propose(void *ctx KEDGE_UNUSED, const struct volume_change *change KEDGE_UNUSED)
{
}

static void fx_none(void *ctx KEDGE_UNUSED)
{
}

static void fx_reply(void *ctx, struct volume_request *r KEDGE_UNUSED, int rc)
{
	((struct fixture *)ctx)->n_replies++;
	((struct fixture *)ctx)->rc = rc;
}

static void fx_drop(void *ctx, struct volume_request *r KEDGE_UNUSED)
{
	((struct fixture *)ctx)->n_dropped++;
}

static void fx_broken(void *ctx, int rc)
{
	((struct fixture *)ctx)->rc = rc;
}

static void *fx_buffer(void *ctx KEDGE_UNUSED, uint64_t length)
{
	return malloc(length);
}

static void fx_buffer_free(void *ctx KEDGE_UNUSED, void *p, uint64_t length KEDGE_UNUSED)
{
	free(p);
}

static void fx_free(void *ctx KEDGE_UNUSED, void *p)
{
	free(p);
}

static bool fx_is_zero(void *ctx KEDGE_UNUSED, const void *data KEDGE_UNUSED, uint64_t at KEDGE_UNUSED,
		       uint64_t length KEDGE_UNUSED)
{
	return false;
}

static void fx_found(void *ctx, const struct volume_finding *finding)
{
	struct fixture *f = ctx;

	f->finding = *finding;
	f->n_findings++;
}

static const struct volume_effects effects = {.state_write = fx_state,
					      .intents_write = fx_intents,
					      .map_write = fx_map,
					      .io = fx_io,
					      .send = fx_send,
					      .unlink = fx_unlink,
					      .propose = fx_propose,
					      .look = fx_none,
					      .reply = fx_reply,
					      .drop = fx_drop,
					      .drop_clients = fx_none,
					      .broken = fx_broken,
					      .buffer = fx_buffer,
					      .buffer_free = fx_buffer_free,
					      .data_free = fx_free,
					      .found = fx_found,
					      .is_zero = fx_is_zero};

void open_core(struct fixture *f, node_id_t self)
{
	struct volume_config config = {.self = self,
				       .size = SIZE,
				       .state = {.incarnation = 77},
				       .intents = f->bits,
				       .stamps = f->stamps,
				       .copies_max = 4,
				       .intents_cap = 16,
				       .flush_habit = 8,
				       .clear_after = USEC_PER_SEC};
	struct volume_effects fx = effects;

	fx.ctx = f;
	f->c = volume_core_new(&config, &fx, USEC_PER_SEC);
}

void row_in(struct fixture *f, node_id_t primary, uint32_t epoch)
{
	struct volume_row r = {.version = epoch,
			       .epoch = epoch,
			       .primary = primary,
			       .primary_since = 1,
			       .vm_epoch = 1,
			       .n_members = 1,
			       .members = {{.node = primary, .in_sync = true, .incarnation = 77, .reported = 77}}};

	volume_core_row(f->c, &r);
}

void row(struct fixture *f, node_id_t primary)
{
	row_in(f, primary, 1);
}

void settle(struct fixture *f)
{
	while (f->n_ios || f->intents || f->state_seq || f->n_maps) {
		uint64_t seq = f->state_seq;

		f->state_seq = 0;
		if (seq)
			volume_core_state_written(f->c, seq, 0);
		if (f->intents) {
			f->intents = false;
			volume_core_intents_written(f->c, 0);
		}
		if (f->n_maps)
			volume_core_map_written(f->c, f->maps[--f->n_maps], 0);
		if (f->n_ios)
			volume_core_io_done(f->c, f->ios[--f->n_ios], 0);
	}
}

int set_up(void **state)
{
	*state = xcalloc(1, sizeof(struct fixture));
	return 0;
}

int tear_down(void **state)
{
	struct fixture *f = *state;

	f->c = volume_core_free(f->c);
	free(f);
	return 0;
}
