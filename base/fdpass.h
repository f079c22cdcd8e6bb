/* SPDX-License-Identifier: Apache-2.0
 * Datagrams between two processes of one node, each with at most one file descriptor. */
#ifndef KEDGE_BASE_FDPASS_H
#define KEDGE_BASE_FDPASS_H

#include "base/types.h"

/* [any] Send @n bytes of @p as one datagram on the SOCK_SEQPACKET socket @sock, with a duplicate of @fd unless that is
 * -1; @fd stays the caller's. Neither blocks nor raises SIGPIPE. -EAGAIN: the other end does not read fast enough, the
 * datagram is lost. -EPIPE, -ECONNRESET: it is gone. Or another negative errno. */
int fdpass_send(int sock, const void *p, size_t n, int fd) KEDGE_MUST_CHECK;

/* [any] Receive one datagram of at most @max bytes into @ret, without blocking: its length is @ret_n. What came with it
 * is the caller's @ret_fd, close-on-exec; -1 for none. -EAGAIN: nothing is there yet. -ECONNRESET: the other end is
 * gone, or sent an empty datagram. -EPROTO: longer, or with more than one descriptor. Or another negative errno. After
 * a failure @ret may hold part of a datagram, the other two are untouched, and every descriptor that came is closed. */
int fdpass_recv_any(int sock, void *ret, size_t max, size_t *ret_n, int *ret_fd) KEDGE_MUST_CHECK;

/* [any] The same for one of exactly @n bytes; a shorter one is -EPROTO too. */
int fdpass_recv(int sock, void *ret, size_t n, int *ret_fd) KEDGE_MUST_CHECK;

#endif
