#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Does kedge-bulk-helper keep the links of engines? The engines are sockets here: they see what is handed over."""
import os
import random
import select
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("KEDGE_BUILD", os.path.join(ROOT, "build", "dev"))
HEAD = struct.Struct("<IIIIIIQQ32s32s4s4s")  # struct bulk_handover of proto/bulk.h, without its early bytes
EARLY_BYTES_MAX = 32768
MAGIC = 0x4b45424c
PATIENCE_S = 20


class Link:
    """What an engine was given."""

    def __init__(self, message, fd):
        (self.magic, self.version, self.peer, self.cipher, self.is_client, self.n_early, self.write_seq, self.read_seq,
         self.write_key, self.read_key, self.write_iv, self.read_iv) = HEAD.unpack(message[:HEAD.size])
        self.early = message[HEAD.size:]
        self.blocking = os.get_blocking(fd)
        self.socket = socket.socket(fileno=fd)
        self.socket.settimeout(PATIENCE_S)

    def end(self):
        """As the engine ends a link."""
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class Engine:
    def __init__(self, path):
        self.path = path
        if os.path.exists(path):
            os.unlink(path)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        self.listener.listen(4)
        self.makers, self.links = [], []

    def take(self, seconds=PATIENCE_S):
        """The next link that is handed over, None after some time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self.listener] + self.makers, [], [], max(0, deadline - time.monotonic()))
            for s in ready:
                if s is self.listener:
                    self.makers.append(s.accept()[0])
                    continue
                message, fds, flags, _ = socket.recv_fds(s, HEAD.size + EARLY_BYTES_MAX + 1, 2)
                if not message:
                    self.makers.remove(s)
                    s.close()
                    continue
                assert len(message) == HEAD.size + EARLY_BYTES_MAX and len(fds) == 1, (len(message), fds, flags)
                self.links.append(Link(message, fds[0]))
                return self.links[-1]
        return None

    def die(self):
        """As by SIGKILL: every descriptor goes, none is shut down."""
        for s in [self.listener] + self.makers + [link.socket for link in self.links]:
            s.close()
        os.unlink(self.path)


class Helpers(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="kt-helper-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.processes = {}
        self.port = random.randrange(20000, 32000)
        subprocess.run([BUILD + "/kedge-bulk-helper", "--make-pki", self.dir + "/pki", "--nodes", "1,2,3"], check=True)
        self.addCleanup(self.stop_all)

    def stop_all(self):
        for node in list(self.processes):
            self.kill(node)

    def sock(self, node):
        return "%s/vol%d.sock" % (self.dir, node)

    def start(self, node, peers):
        argv = [BUILD + "/kedge-bulk-helper", "--node", str(node), "--listen", "127.0.0.%d:%d" % (node, self.port),
                "--ca", self.dir + "/pki/ca.crt", "--cert", "%s/pki/n%d.crt" % (self.dir, node),
                "--key", "%s/pki/n%d.key" % (self.dir, node), "--engine", self.sock(node)]
        for peer in peers:
            argv += ["--peer", "%d=127.0.0.%d:%d" % (peer, peer, self.port)]
        with open("%s/h%d.log" % (self.dir, node), "ab") as log:
            self.processes[node] = subprocess.Popen(argv, stderr=log)

    def kill(self, node):
        p = self.processes.pop(node)
        self.assertIsNone(p.poll(), "helper %d has ended by itself" % node)
        p.kill()
        p.wait()

    def engine(self, node):
        e = Engine(self.sock(node))
        self.addCleanup(lambda: os.path.exists(e.path) and e.die())
        return e

    def linked(self, *engines):
        """One link of each engine, which belong together."""
        a, b = (e.take() for e in engines)
        self.assertIsNotNone(a)
        self.assertIsNotNone(b)
        self.assertEqual((a.write_key, a.write_iv), (b.read_key, b.read_iv))
        self.assertEqual((a.read_key, a.read_iv), (b.write_key, b.write_iv))
        return a, b

    def pair(self):
        engines = self.engine(1), self.engine(2)
        self.start(1, [2])
        self.start(2, [1])
        return engines

    def test_hand_over(self):
        a, b = self.linked(*self.pair())
        for link, peer, is_client in ((a, 2, 1), (b, 1, 0)):
            self.assertEqual((link.magic, link.version, link.peer, link.is_client), (MAGIC, 1, peer, is_client))
            self.assertEqual((link.cipher, link.write_seq, link.read_seq, link.n_early), (1, 1, 1, 0))
            self.assertEqual(link.write_key[16:], bytes(16))
            self.assertEqual(link.early, bytes(EARLY_BYTES_MAX))
            self.assertFalse(link.blocking)
            self.assertNotEqual(link.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), 0)
        self.assertEqual(a.socket.getsockname()[0], "127.0.0.1")  # also the one that dialled has its node's address
        a.socket.sendall(b"ping")
        self.assertEqual(b.socket.recv(9), b"ping")

    def test_a_link_that_ends_is_made_again(self):
        e1, e2 = self.pair()
        seen = set()
        for ender in (0, 1, 0):
            links = self.linked(e1, e2)
            seen.add(links[0].write_key)
            links[ender].end()
            self.assertEqual(links[1 - ender].socket.recv(1), b"")  # the helpers' duplicates do not keep it open
            links[1 - ender].end()
        self.linked(e1, e2)
        self.assertEqual(len(seen), 3)

    def test_an_engine_that_dies_and_comes_back(self):
        e = {1: self.engine(1), 2: self.engine(2)}
        self.start(1, [2])
        self.start(2, [1])
        for node in (1, 2, 2, 1):
            links = dict(zip((1, 2), self.linked(e[1], e[2])))
            e[node].die()
            self.assertEqual(links[3 - node].socket.recv(1), b"")  # nobody has that end any more
            links[3 - node].end()
            time.sleep(random.random() / 10)
            e[node] = self.engine(node)
        self.linked(e[1], e[2])

    def test_an_engine_that_comes_late(self):
        e1 = self.engine(1)
        self.start(1, [2])
        self.start(2, [1])
        self.assertIsNone(e1.take(0.7))
        self.linked(e1, self.engine(2))

    def test_helpers_that_die(self):
        e1, e2 = self.pair()
        a, b = self.linked(e1, e2)
        self.kill(1)
        self.kill(2)
        a.socket.sendall(b"still")
        self.assertEqual(b.socket.recv(9), b"still")
        self.start(2, [1])
        self.assertIsNone(e2.take(0.3))
        self.start(1, [2])
        c, d = self.linked(e1, e2)
        c.socket.sendall(b"new")
        self.assertEqual(d.socket.recv(9), b"new")

    def test_three(self):
        engines = {n: self.engine(n) for n in (1, 2, 3)}
        for n in engines:
            self.start(n, [m for m in engines if m != n])
        got = {n: {e.take().peer: e.links[-1] for _ in range(2)} for n, e in engines.items()}
        for n in engines:
            self.assertEqual(set(got[n]), set(engines) - {n})
            for m in got[n]:
                self.assertEqual(got[n][m].write_key, got[m][n].read_key)
                self.assertEqual(got[n][m].is_client, int(n < m))

    # --- who may not dial ---

    def shake(self, who, to=2):
        """Dial as `who`; the handshake may succeed, the hand-over must not."""
        c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        c.check_hostname = False
        c.maximum_version = ssl.TLSVersion.TLSv1_2
        c.set_alpn_protocols(["kedge-bulk/1"])
        c.load_verify_locations(self.dir + "/pki/ca.crt")
        c.load_cert_chain("%s/pki/%s.crt" % (self.dir, who), "%s/pki/%s.key" % (self.dir, who))
        with socket.create_connection(("127.0.0.%d" % to, self.port), PATIENCE_S) as raw:
            try:
                with c.wrap_socket(raw) as s:
                    return s.recv(1)
            except OSError:
                return b""

    def test_strangers(self):
        e2 = self.engine(2)
        self.start(2, [1])
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                socket.create_connection(("127.0.0.2", self.port), 1).close()
                break
            except OSError:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)
        for who in ("admin", "n3", "n2"):
            self.assertEqual(self.shake(who), b"")
        self.assertIsNone(e2.take(0.2))
        with socket.create_connection(("127.0.0.2", self.port)):  # one that is silent holds nobody up
            self.engine(1)
            self.start(1, [2])
            self.assertEqual(e2.take().peer, 1)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v"] + sys.argv[1:])
