/* SPDX-License-Identifier: Apache-2.0
 * The handshake: options, one after the other, until an export is chosen. */
#include "volume/nbd_internal.h"

#include <errno.h>

#define BLOCK_MIN       1u
#define BLOCK_PREFERRED 4096u

/* ---- sending ---- */

static void ready(struct nbd_conn *c)
{
	if (c->out.plain.len == 0)
		c->out.progress_ms = uv_now(c->server->loop);
	nbd_list_add(&c->server->output, &c->output);
}

static void reply(struct nbd_conn *c, uint32_t type, const void *data, uint32_t length)
{
	uint8_t head[NBD_OPTION_REPLY_BYTES], *p = head;

	p = nbd_put64(p, NBD_MAGIC_REPLY);
	p = nbd_put32(p, c->hs.option);
	p = nbd_put32(p, type);
	p = nbd_put32(p, length);
	ready(c);
	buf_append(&c->out.plain, head, (size_t)(p - head));
	buf_append(&c->out.plain, data, length);
}

/* A final answer: the next option may come. */
static void answer(struct nbd_conn *c, uint32_t type)
{
	reply(c, type, NULL, 0);
	buf_consume(&c->hs.data, c->hs.data.len);
	nbd_conn_expect(c, NBD_CONN_OPTION, c->in.head, NBD_OPTION_HEAD_BYTES);
}

void nbd_option_greet(struct nbd_conn *c)
{
	uint8_t greeting[NBD_GREETING_BYTES], *p = greeting;

	p = nbd_put64(p, NBD_MAGIC_INIT);
	p = nbd_put64(p, NBD_MAGIC_OPTION);
	p = nbd_put16(p, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	ready(c);
	buf_append(&c->out.plain, greeting, (size_t)(p - greeting));
}

/* ---- data of options ---- */

struct cursor {
	const uint8_t *p;
	size_t left;
};

static bool take(struct cursor *d, size_t n, const uint8_t **ret)
{
	if (d->left < n)
		return false;
	*ret = d->p;
	d->p += n;
	d->left -= n;
	return true;
}

static bool take32(struct cursor *d, uint32_t *ret)
{
	const uint8_t *p;

	if (!take(d, 4, &p))
		return false;
	*ret = nbd_get32(p);
	return true;
}

struct text {
	const uint8_t *p;
	uint32_t n;
};

/* Its length, then its bytes. */
static bool take_text(struct cursor *d, struct text *ret)
{
	return take32(d, &ret->n) && take(d, ret->n, &ret->p);
}

static bool text_is(const struct text *t, const char *s)
{
	return t->n == strlen(s) && memcmp(t->p, s, t->n) == 0;
}

/* ---- exports ---- */

/* 0: it is here. -ENOENT: answer so. Else the connection has ended. */
static int open_export(struct nbd_conn *c, const struct text *name, char ret_name[NAME_BYTES_MAX],
		       struct nbd_export *ret)
{
	struct nbd_server *s = c->server;
	int rc;

	if (name->n >= NAME_BYTES_MAX || memchr(name->p, '\0', name->n))
		return -ENOENT;
	memcpy(ret_name, name->p, name->n);
	ret_name[name->n] = '\0';
	rc = s->cb.open(s->cb.ctx, ret_name, ret);
	if (c->state == NBD_CONN_ENDED) /* the server was closed from inside */
		return -ECANCELED;
	if (rc < 0 && rc != -ENOENT)
		nbd_conn_end(c);
	return rc;
}

/* Connections to the same volume whose client is gone already, although we have not read so far: what they ask for
 * must die before this one can send it again (V32). */
static void bury_the_dead(struct nbd_server *s, const void *volume)
{
	struct nbd_link *l;

	for (l = nbd_list_first(&s->conns); l; l = nbd_list_next(&s->conns, l)) {
		struct nbd_conn *c = CONTAINER_OF(l, struct nbd_conn, all);

		if (c->state < NBD_CONN_DRAINING && c->volume && c->volume->volume == volume && nbd_conn_is_hung_up(c))
			nbd_conn_end(c);
	}
	for (l = nbd_list_first(&s->ended); l;) {
		struct nbd_conn *c = CONTAINER_OF(l, struct nbd_conn, ended);
		bool is_one = c->volume && c->volume->volume == volume;

		l = nbd_list_next(&s->ended, l);
		if (is_one) {
			nbd_conn_bury(c);
			l = nbd_list_first(&s->ended); /* gone() may have ended others */
		}
	}
}

static uint16_t transmission_flags(const struct nbd_conn *c, const struct nbd_export *x)
{
	return (uint16_t)(NBD_FLAG_HAS_FLAGS | (x->read_only ? NBD_FLAG_READ_ONLY : 0) | NBD_FLAG_SEND_FLUSH |
			  NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES |
			  (c->hs.structured ? NBD_FLAG_SEND_DF : 0) | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE |
			  NBD_FLAG_SEND_FAST_ZERO);
}

static void enter_transmission(struct nbd_conn *c, const char *name, const struct nbd_export *x)
{
	if (!c->hs.structured || strcmp(c->hs.context, name) != 0)
		c->hs.has_context = false;
	bury_the_dead(c->server, x->volume);
	if (c->state != NBD_CONN_ENDED)
		nbd_conn_attach(c, x);
}

static void option_export_name(struct nbd_conn *c)
{
	struct text name = {c->hs.data.data, (uint32_t)c->hs.data.len};
	uint8_t head[10 + NBD_EXPORT_NAME_ZEROES] = {0};
	char text[NAME_BYTES_MAX];
	struct nbd_export x = {0};

	if (open_export(c, &name, text, &x) < 0) {
		nbd_conn_end(c); /* there is no way to say why */
		return;
	}
	(void)nbd_put16(nbd_put64(head, x.size), transmission_flags(c, &x));
	ready(c);
	buf_append(&c->out.plain, head, c->hs.no_zeroes ? 10 : sizeof head);
	enter_transmission(c, text, &x);
}

/* ---- INFO and GO ---- */

struct wishes {
	bool name, block_size;
};

static bool take_wishes(struct cursor *d, struct wishes *ret)
{
	const uint8_t *p;
	unsigned n;

	if (!take(d, 2, &p))
		return false;
	n = nbd_get16(p);
	if (d->left != 2 * (size_t)n)
		return false;
	while (n-- > 0 && take(d, 2, &p)) {
		ret->name |= nbd_get16(p) == NBD_INFO_NAME;
		ret->block_size |= nbd_get16(p) == NBD_INFO_BLOCK_SIZE;
	}
	return true;
}

static void send_infos(struct nbd_conn *c, const struct wishes *w, const char *name, const struct nbd_export *x)
{
	uint8_t info[2 + NAME_BYTES_MAX], *p;

	p = nbd_put16(info, NBD_INFO_EXPORT);
	p = nbd_put64(p, x->size);
	p = nbd_put16(p, transmission_flags(c, x));
	reply(c, NBD_REP_INFO, info, (uint32_t)(p - info));
	if (w->name) {
		p = nbd_put16(info, NBD_INFO_NAME);
		memcpy(p, name, strlen(name));
		reply(c, NBD_REP_INFO, info, (uint32_t)(2 + strlen(name)));
	}
	if (w->block_size) {
		p = nbd_put16(info, NBD_INFO_BLOCK_SIZE);
		p = nbd_put32(p, BLOCK_MIN);
		p = nbd_put32(p, BLOCK_PREFERRED);
		p = nbd_put32(p, NBD_PAYLOAD_MAX);
		reply(c, NBD_REP_INFO, info, (uint32_t)(p - info));
	}
}

static void option_info(struct nbd_conn *c)
{
	struct cursor d = {c->hs.data.data, c->hs.data.len};
	struct wishes w = {0};
	struct nbd_export x = {0};
	struct text name;
	char text[NAME_BYTES_MAX];
	int rc;

	if (!take_text(&d, &name) || !take_wishes(&d, &w)) {
		answer(c, NBD_REP_ERR_INVALID);
		return;
	}
	rc = open_export(c, &name, text, &x);
	if (rc == -ENOENT)
		answer(c, NBD_REP_ERR_UNKNOWN);
	if (rc < 0)
		return;
	send_infos(c, &w, text, &x);
	if (c->hs.option == NBD_OPT_INFO) {
		answer(c, NBD_REP_ACK);
	} else {
		reply(c, NBD_REP_ACK, NULL, 0);
		enter_transmission(c, text, &x);
	}
}

/* ---- metadata contexts: there is only base:allocation ---- */

static void send_context(struct nbd_conn *c, uint32_t id)
{
	uint8_t data[4 + sizeof NBD_CONTEXT_ALLOCATION];

	memcpy(nbd_put32(data, id), NBD_CONTEXT_ALLOCATION, strlen(NBD_CONTEXT_ALLOCATION));
	reply(c, NBD_REP_META_CONTEXT, data, (uint32_t)(4 + strlen(NBD_CONTEXT_ALLOCATION)));
}

/* Do the queries ask for it? False: they are malformed. What we do not know is ignored. */
static bool take_queries(struct cursor *d, bool is_list, bool *ret)
{
	struct text query;
	uint32_t n;
	bool found;

	if (!take32(d, &n))
		return false;
	found = is_list && n == 0; /* all there are */
	for (uint32_t i = 0; i < n; i++) {
		if (!take_text(d, &query))
			return false;
		found |= text_is(&query, NBD_CONTEXT_ALLOCATION) || (is_list && text_is(&query, "base:"));
	}
	*ret = found;
	return d->left == 0;
}

static void option_context(struct nbd_conn *c)
{
	struct cursor d = {c->hs.data.data, c->hs.data.len};
	bool is_list = c->hs.option == NBD_OPT_LIST_META_CONTEXT, found;
	struct nbd_export x = {0};
	struct text name;
	char text[NAME_BYTES_MAX];
	int rc;

	if (!is_list)
		c->hs.has_context = false; /* whatever comes of it */
	if (!c->hs.structured || !take_text(&d, &name) || !take_queries(&d, is_list, &found)) {
		answer(c, NBD_REP_ERR_INVALID);
		return;
	}
	rc = open_export(c, &name, text, &x);
	if (rc == -ENOENT)
		answer(c, NBD_REP_ERR_UNKNOWN);
	if (rc < 0)
		return;
	if (found)
		send_context(c, is_list ? 0 : NBD_CONTEXT_ALLOCATION_ID);
	if (!is_list) {
		c->hs.has_context = found;
		memcpy(c->hs.context, text, sizeof text);
	}
	answer(c, NBD_REP_ACK);
}

/* ---- the others ---- */

static void option_list(struct nbd_conn *c)
{
	struct nbd_server *s = c->server;
	uint8_t data[4 + NAME_BYTES_MAX];
	char name[NAME_BYTES_MAX];

	if (c->hs.data.len > 0) {
		answer(c, NBD_REP_ERR_INVALID);
		return;
	}
	for (size_t i = 0; s->cb.list(s->cb.ctx, i, name); i++) {
		size_t n = strnlen(name, sizeof name);

		memcpy(nbd_put32(data, (uint32_t)n), name, n);
		reply(c, NBD_REP_SERVER, data, (uint32_t)(4 + n));
	}
	if (c->state != NBD_CONN_ENDED)
		answer(c, NBD_REP_ACK);
}

static void option_structured(struct nbd_conn *c)
{
	if (c->hs.data.len > 0) {
		answer(c, NBD_REP_ERR_INVALID);
		return;
	}
	c->hs.structured = true;
	answer(c, NBD_REP_ACK);
}

static void option_abort(struct nbd_conn *c)
{
	reply(c, NBD_REP_ACK, NULL, 0);
	nbd_conn_drain(c);
}

void nbd_option_data(struct nbd_conn *c)
{
	CHECK(c->state == NBD_CONN_OPTION_DATA);
	c->hs.data.len = c->hs.length;
	switch (c->hs.option) {
	case NBD_OPT_EXPORT_NAME:
		option_export_name(c);
		break;
	case NBD_OPT_ABORT:
		option_abort(c);
		break;
	case NBD_OPT_LIST:
		option_list(c);
		break;
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		option_info(c);
		break;
	case NBD_OPT_STRUCTURED_REPLY:
		option_structured(c);
		break;
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		option_context(c);
		break;
	default:
		answer(c, NBD_REP_ERR_UNSUP);
		break;
	}
}

void nbd_option_head(struct nbd_conn *c)
{
	CHECK(c->state == NBD_CONN_OPTION && c->hs.data.len == 0);
	c->hs.option = nbd_get32(c->in.head + 8);
	c->hs.length = nbd_get32(c->in.head + 12);
	if (nbd_get64(c->in.head) != NBD_MAGIC_OPTION) {
		nbd_conn_end(c);
	} else if (c->hs.length > NBD_OPTION_BYTES_MAX) {
		answer(c, NBD_REP_ERR_TOO_BIG);
		c->in.skip = c->hs.length;
	} else {
		nbd_conn_expect(c, NBD_CONN_OPTION_DATA, buf_reserve(&c->hs.data, c->hs.length + 1u), c->hs.length);
	}
}

void nbd_option_flags(struct nbd_conn *c)
{
	uint32_t flags = nbd_get32(c->in.head);

	CHECK(c->state == NBD_CONN_FLAGS);
	if (flags & ~(uint32_t)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)) {
		nbd_conn_end(c);
		return;
	}
	c->hs.no_zeroes = flags & NBD_FLAG_NO_ZEROES;
	nbd_conn_expect(c, NBD_CONN_OPTION, c->in.head, NBD_OPTION_HEAD_BYTES);
}
