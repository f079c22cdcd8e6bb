/* SPDX-License-Identifier: Apache-2.0
 * The queue of events from the lanes to kedged's loop, and libvirt's errors as text. */
#include "hypervisor/internal.h"

#include <libvirt/virterror.h>
#include <stdio.h>
#include <stdlib.h>

struct event_entry {
	struct event_entry *next;
	struct hypervisor_event ev;
};

/* Notified under the lock: after close() has set `stopping` there, nobody is woken any more. */
void hypervisor_tell(struct hypervisor *h, const struct hypervisor_event *ev)
{
	struct event_entry *entry = xcalloc(1, sizeof *entry);

	entry->ev = *ev;
	hypervisor_lock(h);
	*h->events_end = entry;
	h->events_end = &entry->next;
	if (!h->stopping)
		h->notify(h->notify_ctx);
	hypervisor_unlock(h);
}

bool hypervisor_poll(struct hypervisor *h, struct hypervisor_event *ret)
{
	struct event_entry *entry;

	hypervisor_lock(h);
	entry = h->events;
	if (entry) {
		h->events = entry->next;
		if (!h->events)
			h->events_end = &h->events;
	}
	hypervisor_unlock(h);
	if (!entry)
		return false;
	*ret = entry->ev;
	free(entry);
	return true;
}

void hypervisor_error(char *ret, size_t size)
{
	const char *text = virGetLastErrorMessage();
	size_t end;

	(void)snprintf(ret, size, "%s", text ? text : "unknown error of libvirt");
	for (end = 0; ret[end]; end++)
		if ((unsigned char)ret[end] < ' ')
			ret[end] = ' ';
	while (end > 0 && ret[end - 1] == ' ')
		ret[--end] = '\0';
}
