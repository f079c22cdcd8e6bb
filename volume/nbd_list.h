/* SPDX-License-Identifier: Apache-2.0
 * Lists whose links are embedded in their members: in and out at any place without a search. */
#ifndef KEDGE_VOLUME_NBD_LIST_H
#define KEDGE_VOLUME_NBD_LIST_H

#include "base/base.h"

/* A member that is in no list has next == NULL, as it is after zeroing. */
struct nbd_link {
	struct nbd_link *next, *prev;
};

struct nbd_list {
	struct nbd_link head;
};

static inline void nbd_list_init(struct nbd_list *l)
{
	l->head.next = l->head.prev = &l->head;
}

static inline bool nbd_is_linked(const struct nbd_link *m)
{
	return m->next != NULL;
}

/* Does nothing if @m is in a list (then: in this one) already. */
static inline void nbd_list_add(struct nbd_list *l, struct nbd_link *m)
{
	if (nbd_is_linked(m))
		return;
	m->next = &l->head;
	m->prev = l->head.prev;
	l->head.prev->next = m;
	l->head.prev = m;
}

/* Does nothing if @m is in no list. */
static inline void nbd_list_remove(struct nbd_link *m)
{
	if (!nbd_is_linked(m))
		return;
	m->prev->next = m->next;
	m->next->prev = m->prev;
	m->next = m->prev = NULL;
}

/* The first member, or NULL. */
static inline struct nbd_link *nbd_list_first(const struct nbd_list *l)
{
	return l->head.next == &l->head ? NULL : l->head.next;
}

/* The one behind @m, or NULL. */
static inline struct nbd_link *nbd_list_next(const struct nbd_list *l, const struct nbd_link *m)
{
	return m->next == &l->head ? NULL : m->next;
}

/* Take the first member out, or NULL. */
static inline struct nbd_link *nbd_list_take(struct nbd_list *l)
{
	struct nbd_link *m = nbd_list_first(l);

	if (m)
		nbd_list_remove(m);
	return m;
}

/* Move all of @from, which is empty then, to @to, which is initialised by it. */
static inline void nbd_list_move(struct nbd_list *to, struct nbd_list *from)
{
	nbd_list_init(to);
	if (!nbd_list_first(from))
		return;
	to->head = from->head;
	to->head.next->prev = &to->head;
	to->head.prev->next = &to->head;
	nbd_list_init(from);
}

#endif
