/* SPDX-License-Identifier: Apache-2.0
 * The handshake of a bulk link on a thread that may wait, and the key block of RFC 5246, section 6.3, cut up. */
#include "net/bulk.h"

#include "net/blocking.h"
#include "net/internal.h"
#include "proto/proto.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PIECE_BYTES  16384
#define SALT_BYTES   4
#define KEY_MAX      32
#define ALERT_MAX    (100 * USEC_PER_MS) /* a peer that was refused need not hear of it */
#define AFTER_FINISH 1 /* RFC 5246, 6.1: numbers start at 0 with the new keys, whose first record is Finished */

_Static_assert(NET_BULK_FIRST_BYTES_MAX <= BULK_EARLY_BYTES_MAX && PIECE_BYTES <= BULK_EARLY_BYTES_MAX,
	       "what was read and not used fits into the hand-over");

struct net_bulk_identity {
	pthread_mutex_t lock; /* mbedTLS caches inside keys */
	struct tls_identity tls;
	struct net_identity self;
};

/* ---- identities ---- */

int net_bulk_identity_load(const char *ca, const char *cert, const char *key, struct net_bulk_identity **ret,
			   struct err *e)
{
	struct net_bulk_identity *id = xcalloc(1, sizeof *id);
	int rc;

	tls_global_init();
	CHECK(pthread_mutex_init(&id->lock, NULL) == 0);
	rc = tls_identity_load(&id->tls, ca, cert, key, e);
	if (rc == 0 && (tls_identity_self(&id->tls, &id->self) < 0 || id->self.role != NET_ROLE_NODE))
		rc = err_set(e, -EACCES, "read the certificate '%s': it is not a node's", cert);
	if (rc < 0) {
		id = net_bulk_identity_free(id);
		return rc;
	}
	*ret = id;
	return 0;
}

struct net_bulk_identity *net_bulk_identity_free(struct net_bulk_identity *id)
{
	if (!id)
		return NULL;
	tls_identity_free(&id->tls);
	CHECK(pthread_mutex_destroy(&id->lock) == 0);
	free(id);
	return NULL;
}

node_id_t net_bulk_identity_node(const struct net_bulk_identity *id)
{
	return id->self.node;
}

/* ---- dialling ---- */

static socklen_t size_of(const struct sockaddr_storage *a)
{
	return a->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

static int connect_from(struct sockaddr_storage *from, const struct sockaddr_storage *to)
{
	int fd = socket(to->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), rc;

	if (fd < 0)
		return -errno;
	if (from->ss_family == AF_INET)
		((struct sockaddr_in *)from)->sin_port = 0;
	else
		((struct sockaddr_in6 *)from)->sin6_port = 0;
	if (bind(fd, (struct sockaddr *)from, size_of(from)) == 0 &&
	    (connect(fd, (const struct sockaddr *)to, size_of(to)) == 0 || errno == EINPROGRESS))
		return fd;
	rc = -errno;
	(void)close(fd);
	return rc;
}

int net_bulk_dial(const char *address, const char *listen, int *ret_fd, struct err *e)
{
	struct sockaddr_storage from, to;
	int rc = net_parse_address(address, &to, e);

	if (rc == 0)
		rc = net_parse_address(listen, &from, e);
	if (rc < 0)
		return rc;
	rc = connect_from(&from, &to);
	if (rc < 0)
		return err_set(e, rc, "connect to %s: %s", address, strerror(-rc));
	*ret_fd = rc;
	return 0;
}

/* ---- the handshake ---- */

static int socket_failed(int rc, struct err *e)
{
	return err_set(e, rc, "TLS handshake: %s", strerror(-rc));
}

static int prepare_socket(int fd, struct err *e)
{
	int flags = fcntl(fd, F_GETFL), on = 1;

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return socket_failed(-errno, e);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* a socket pair has none */
	return 0;
}

/* Wait for bytes of the peer; mbedTLS has used up all that came before. */
static int receive(struct tls *t, const struct net_bulk_handshake *h, struct err *e)
{
	long n = blocking_recv(h->fd, buf_reserve(&t->in, PIECE_BYTES), PIECE_BYTES, h->deadline);

	if (n <= 0)
		return socket_failed(n < 0 ? (int)n : -ECONNRESET, e);
	t->in.len += (size_t)n;
	return 0;
}

/* Tell a peer that is refused; it need not hear of it. */
static void send_alert(const struct tls *t, const struct net_bulk_handshake *h, usec_t now)
{
	usec_t until = now + ALERT_MAX < h->deadline ? now + ALERT_MAX : h->deadline;
	int rc = blocking_send(h->fd, t->out.data, t->out.len, until);

	(void)rc;
}

/* One step of it, and what it has to say. */
static int step(struct net_bulk_identity *id, struct tls *t, const struct net_bulk_handshake *h, struct err *e)
{
	usec_t now = clock_boottime();
	int rc, sent;

	if (now >= h->deadline) /* also where the peer sends a byte now and then */
		return socket_failed(-ETIMEDOUT, e);
	CHECK(pthread_mutex_lock(&id->lock) == 0);
	rc = tls_handshake(t, e);
	CHECK(pthread_mutex_unlock(&id->lock) == 0);
	if (rc < 0 && rc != -EAGAIN) {
		send_alert(t, h, now);
		return rc;
	}
	sent = blocking_send(h->fd, t->out.data, t->out.len, h->deadline);
	t->out.len = 0;
	return sent < 0 ? socket_failed(sent, e) : rc;
}

static int shake(struct net_bulk_identity *id, struct tls *t, const struct net_bulk_handshake *h, struct err *e)
{
	int rc;

	while ((rc = step(id, t, h, e)) == -EAGAIN) {
		rc = receive(t, h, e);
		if (rc < 0)
			return rc;
	}
	if (rc == 0 && mbedtls_ssl_check_pending(&t->ssl))
		return err_set(e, -EPROTO, "TLS handshake: the peer goes on after its end");
	return rc;
}

static int check_peer(const struct net_bulk_identity *id, const struct tls *t, node_id_t expected, node_id_t *ret,
		      struct err *e)
{
	struct net_identity peer;

	if (tls_peer_identity(t, &peer) < 0 || peer.role != NET_ROLE_NODE)
		return err_set(e, -EACCES, "the peer's certificate is not a node's");
	if (strcmp(peer.cluster, id->self.cluster) != 0)
		return err_set(e, -EACCES, "the peer is a node of another cluster");
	if (peer.node == id->self.node)
		return err_set(e, -EACCES, "the peer says that it is this node");
	if (expected != 0 && peer.node != expected)
		return err_set(e, -EACCES, "the peer is node %u, not node %u", peer.node, expected);
	*ret = peer.node;
	return 0;
}

/* ---- the hand-over ---- */

static int cipher_of(const struct tls *t, enum bulk_cipher *ret, struct err *e)
{
	switch (mbedtls_ssl_get_ciphersuite_id(mbedtls_ssl_get_ciphersuite(&t->ssl))) {
	case MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:
		*ret = BULK_AES_128_GCM;
		return 0;
	case MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384:
		*ret = BULK_AES_256_GCM;
		return 0;
	default:
		return err_set(e, -EPROTO, "TLS handshake: not one of our ciphers");
	}
}

/* RFC 5246, 6.3, without MAC keys: the client's key, the server's, the client's salt, the server's. */
static void cut_up(const uint8_t *block, size_t n_key, struct bulk_handover *h)
{
	const uint8_t *salts = block + 2 * n_key;

	memcpy(h->is_client ? h->write_key : h->read_key, block, n_key);
	memcpy(h->is_client ? h->read_key : h->write_key, block + n_key, n_key);
	memcpy(h->is_client ? h->write_iv : h->read_iv, salts, SALT_BYTES);
	memcpy(h->is_client ? h->read_iv : h->write_iv, salts + SALT_BYTES, SALT_BYTES);
}

static int fill(const struct tls *t, bool is_client, node_id_t peer, struct bulk_handover *ret, struct err *e)
{
	uint8_t block[2 * (KEY_MAX + SALT_BYTES)];
	enum bulk_cipher cipher = 0;
	int rc = cipher_of(t, &cipher, e);
	size_t n_key = cipher == BULK_AES_128_GCM ? 16 : 32;

	if (rc < 0)
		return rc;
	if (tls_key_block(t, block, 2 * (n_key + SALT_BYTES)) < 0)
		return err_set(e, -EPROTO, "TLS handshake: the keys cannot be derived");
	CHECK(t->in.len <= sizeof ret->early);
	memset(ret, 0, sizeof *ret);
	ret->magic = BULK_MAGIC;
	ret->version = BULK_VERSION;
	ret->peer = peer;
	ret->cipher = cipher;
	ret->is_client = is_client;
	ret->write_seq = ret->read_seq = AFTER_FINISH;
	ret->n_early = (uint32_t)t->in.len;
	if (t->in.len > 0)
		memcpy(ret->early, t->in.data, t->in.len);
	cut_up(block, n_key, ret);
	explicit_bzero(block, sizeof block);
	return 0;
}

int net_bulk_handshake(struct net_bulk_identity *id, const struct net_bulk_handshake *h, struct bulk_handover *ret,
		       struct err *e)
{
	struct tls t = {0};
	node_id_t peer = 0;
	int rc;

	CHECK(h->n_first <= NET_BULK_FIRST_BYTES_MAX);
	rc = tls_init(&t, TLS_BULK, h->is_client, &id->tls, e);
	buf_append(&t.in, h->first, h->n_first);
	if (rc == 0)
		rc = prepare_socket(h->fd, e);
	if (rc == 0)
		rc = shake(id, &t, h, e);
	if (rc == 0)
		rc = check_peer(id, &t, h->expected, &peer, e);
	if (rc == 0)
		rc = fill(&t, h->is_client, peer, ret, e);
	tls_free(&t);
	return rc;
}
