#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Is what goes over a bulk link standard TLS 1.2? Unmodified OpenSSL is at the other end, as server and as client: the
programs s_server and s_client, and the library below Python's ssl, which can also choose ciphers and close in order.

net/bulk does the handshake, volume/record everything after it (bulk_pipe); between the two somebody may change bytes."""
import hashlib
import os
import random
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import warnings

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("KEDGE_BUILD", os.path.join(ROOT, "build", "dev"))
ALPN = "kedge-bulk/1"
SUITE_128, SUITE_256 = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"
OK, REFUSED, CUT, NO_HANDSHAKE = 0, 3, 4, 5
EACCES, EPROTO = 13, 71
pki = None


def setUpModule():
    global pki
    pki = tempfile.mkdtemp(prefix="kt-openssl-")
    for name in ("right", "wrong"):
        subprocess.run([BUILD + "/kedge-bulk-helper", "--make-pki", "%s/%s" % (pki, name), "--nodes", "1,2"], check=True)
    warnings.simplefilter("ignore", DeprecationWarning)


def tearDownModule():
    shutil.rmtree(pki)


def pem(name, ca="right"):
    return "%s/%s/%s" % (pki, ca, name)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def noise(n, seed):
    return random.Random(seed).randbytes(n)


class Reader(threading.Thread):
    """Reads a pipe to its end; `data` grows."""

    def __init__(self, pipe):
        super().__init__(daemon=True)
        self.pipe, self.data = pipe, bytearray()
        self.start()

    def run(self):
        while True:
            part = self.pipe.read1(1 << 16)
            if not part:
                return
            self.data += part

    def wait(self, n, seconds=60):
        return wait_for(lambda: len(self.data) >= n, seconds, "%d bytes, there are %d" % (n, len(self.data)))


def wait_for(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("not within %s s: %s" % (seconds, what))
        time.sleep(0.005)


class Program:
    """A process whose pipes are read all the time."""

    def __init__(self, *argv):
        self.p = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.out, self.err = Reader(self.p.stdout), Reader(self.p.stderr)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.p.poll() is None:
            self.p.kill()
        self.p.wait()
        for reader in (self.out, self.err):
            reader.join(10)
        for pipe in (self.p.stdin, self.p.stdout, self.p.stderr):
            try:
                pipe.close()
            except OSError:
                pass

    def said(self, text, seconds=20):
        wait_for(lambda: text.encode() in self.err.data or self.p.poll() is not None, seconds,
                 "%r of: %s" % (text, self.err.data.decode(errors="replace")))
        self.err.join(0 if self.p.poll() is None else 10)
        if text.encode() not in self.err.data:
            raise AssertionError("%r is not in: %s" % (text, self.err.data.decode(errors="replace")))

    def feed(self, data):
        """In the background: the other direction must move meanwhile."""
        def run():
            try:
                self.p.stdin.write(data)
                self.p.stdin.flush()
            except OSError:
                pass
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def end(self, seconds=30):
        code = self.p.wait(seconds)
        self.out.join(10)
        self.err.join(10)
        return code


def pipe(role, port, write_bytes=65536, node=1, ca="right"):
    p = Program(BUILD + "/bulk_pipe", role, "127.0.0.1:%d" % port, pem("ca.crt"), pem("n%d.crt" % node, ca),
                pem("n%d.key" % node, ca), str(write_bytes))
    if role == "server":
        p.said("listening")
    return p


def context(role, who="n2", ca="right", believes="right", suite=SUITE_128):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if role == "server" else ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname = False
    c.verify_mode = ssl.CERT_REQUIRED
    c.minimum_version = c.maximum_version = ssl.TLSVersion.TLSv1_2
    c.set_ciphers(suite)
    c.set_alpn_protocols([ALPN])
    c.load_verify_locations(pem("ca.crt", believes))
    if who:
        c.load_cert_chain(pem(who + ".crt", ca), pem(who + ".key", ca))
    return c


class Between(threading.Thread):
    """Passes bytes between the one that dials `port` and `to`; change(direction, record) may change what is passed.
    Direction "up" is from the one that dialled."""

    def __init__(self, to, change=lambda direction, record: record):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.to, self.change = to, change
        self.records = {"up": [], "down": []}
        self.start()

    def run(self):
        with self.listener, self.listener.accept()[0] as a, socket.create_connection(("127.0.0.1", self.to)) as b:
            for s in (a, b):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            down = threading.Thread(target=self.pump, args=("down", b, a), daemon=True)
            down.start()
            self.pump("up", a, b)
            down.join()

    def pump(self, direction, source, sink):
        held = b""
        try:
            while True:
                part = source.recv(1 << 16)
                if not part:
                    break
                held += part
                while len(held) >= 5 and len(held) >= 5 + int.from_bytes(held[3:5], "big"):
                    n = 5 + int.from_bytes(held[3:5], "big")
                    record, held = held[:n], held[n:]
                    self.records[direction].append(record[:16])
                    sink.sendall(self.change(direction, record))
        except OSError:
            pass
        for s in (source, sink):
            try:
                s.shutdown(socket.SHUT_RDWR if s is source else socket.SHUT_WR)
            except OSError:
                pass


def tls_server(port_ready, ctx, do):
    """Serve one connection with Python's ssl in a thread; returns the thread and a list for what it raised."""
    failed = []

    def run():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port_ready.append(listener.getsockname()[1])
            raw, _ = listener.accept()
            with raw:
                raw.settimeout(30)
                try:
                    with ctx.wrap_socket(raw, server_side=True) as s:
                        do(s)
                except (OSError, AssertionError) as e:
                    failed.append(e)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    wait_for(lambda: port_ready, 10, "a port")
    return thread, failed


def receive(s, n):
    data = bytearray()
    while len(data) < n:
        part = s.recv(1 << 16)
        if not part:
            raise AssertionError("%d of %d bytes" % (len(data), n))
        data += part
    return bytes(data)


def digest(data):
    return hashlib.sha256(data).hexdigest()


class OpenSslPrograms(unittest.TestCase):
    """s_server and s_client as they are, 4 MiB each way."""

    N = 4 << 20
    COMMON = ["-tls1_2", "-alpn", ALPN, "-quiet", "-verify_return_error"]

    def both_ways(self, ours, theirs):
        a, b = noise(self.N, 1), noise(self.N + 12345, 2)
        ours.said("linked peer=2 cipher=1")
        ours.feed(a)
        theirs.feed(b)
        theirs.out.wait(len(a))
        ours.out.wait(len(b))
        self.assertEqual(digest(theirs.out.data), digest(a))
        self.assertEqual(digest(ours.out.data), digest(b))
        ours.p.stdin.close()  # close_notify: OpenSSL answers it and ends
        self.assertEqual(ours.end(), OK)

    def test_s_server(self):
        port = free_port()
        with Program("openssl", "s_server", "-accept", "127.0.0.1:%d" % port, "-cert", pem("n2.crt"), "-key", pem("n2.key"),
                     "-CAfile", pem("ca.crt"), "-Verify", "2", "-cipher", SUITE_128, "-naccept", "1",
                     *self.COMMON) as theirs:
            wait_for(lambda: listens(port), 20, "s_server listens")
            with pipe("client", port) as ours:
                self.both_ways(ours, theirs)

    def test_s_client(self):
        port = free_port()
        with pipe("server", port) as ours, \
             Program("openssl", "s_client", "-connect", "127.0.0.1:%d" % port, "-cert", pem("n2.crt"), "-key",
                     pem("n2.key"), "-CAfile", pem("ca.crt"), "-verify", "2", "-cipher", SUITE_128,
                     *self.COMMON) as theirs:
            self.both_ways(ours, theirs)

    def test_s_client_without_certificate(self):
        port = free_port()
        with pipe("server", port) as ours, \
             Program("openssl", "s_client", "-connect", "127.0.0.1:%d" % port, "-CAfile", pem("ca.crt"), *self.COMMON):
            ours.said("refused %d" % EPROTO)
            self.assertEqual(ours.end(), NO_HANDSHAKE)

    def test_s_client_of_another_ca(self):
        port = free_port()
        with pipe("server", port) as ours, \
             Program("openssl", "s_client", "-connect", "127.0.0.1:%d" % port, "-cert", pem("n2.crt", "wrong"), "-key",
                     pem("n2.key", "wrong"), "-CAfile", pem("ca.crt"), *self.COMMON):
            ours.said("refused %d" % EPROTO)
            self.assertEqual(ours.end(), NO_HANDSHAKE)


def listens(port):
    """Without connecting, which would be the one connection that is taken."""
    with open("/proc/net/tcp", encoding="ascii") as f:
        return any(re.match(r"\s*\d+: 0100007F:%04X 00000000:0000 0A" % port, line) for line in f)


class OpenSslLibrary(unittest.TestCase):
    def run_server(self, ctx, do, code, change=None, **kwargs):
        """Our end is the client. Returns what it said, and what the other end raised."""
        def with_ours(s):
            wait_for(lambda: self.ours, 30, "our end, and not the one of before")
            return do(s)

        ports, self.ours = [], None
        thread, failed = tls_server(ports, ctx, with_ours)
        port = Between(ports[0], change).port if change else ports[0]
        with pipe("client", port, **kwargs) as ours:
            self.ours = ours
            self.assertEqual(ours.end(60), code, ours.err.data.decode())
            thread.join(30)
            return ours, failed

    def run_client(self, ctx, do, code, change=None, **kwargs):
        """Our end is the server."""
        port, failed = free_port(), []
        with pipe("server", port, **kwargs) as ours:
            self.relay = Between(port, change) if change else None
            self.ours = ours
            try:
                with socket.create_connection(("127.0.0.1", self.relay.port if change else port), 30) as raw, \
                     ctx.wrap_socket(raw) as s:
                    do(s)
            except (OSError, AssertionError) as e:
                failed.append(e)
            self.assertEqual(ours.end(60), code, ours.err.data.decode())
            return ours, failed

    def echo(self, sizes, write_bytes, close):
        """What s sends comes out of our end, and is sent back."""
        def do(s):
            total = bytearray()
            for i, n in enumerate(sizes):
                data = noise(n, i)
                s.sendall(data)
                self.ours.out.wait(len(total) + n)
                self.assertEqual(digest(self.ours.out.data[len(total):]), digest(data))
                total += data
                self.ours.feed(data)
                self.assertEqual(digest(receive(s, n)), digest(data))
            close(s)
        return do

    def close_first(self, s):
        s.unwrap()  # sends close_notify and waits for ours

    def close_second(self, s):
        self.ours.p.stdin.close()
        self.assertEqual(s.recv(1), b"")  # close_notify; a bare end would raise
        s.unwrap()

    SIZES = [1, 2, 100, 16383, 16384, 16385, 32768, 100000, 1 << 20]

    def test_sizes(self):
        for write_bytes in (1000, 16384, 16385, 1 << 20):
            for suite in (SUITE_128, SUITE_256):
                with self.subTest(write_bytes=write_bytes, suite=suite):
                    do = self.echo(self.SIZES, write_bytes, self.close_first)
                    _, failed = self.run_client(context("client", suite=suite), do, OK, write_bytes=write_bytes)
                    self.assertEqual(failed, [])
                    do = self.echo(self.SIZES, write_bytes, self.close_second)
                    ours, failed = self.run_server(context("server", suite=suite), do, OK, write_bytes=write_bytes)
                    self.assertEqual(failed, [])
                    ours.said("cipher=%d" % (1 if suite == SUITE_128 else 2))

    def test_end_without_close_notify(self):
        def do(s):
            s.sendall(b"abc")
            self.ours.out.wait(3)
        ours, failed = self.run_client(context("client"), lambda s: (do(s), s.shutdown(socket.SHUT_RDWR)), CUT)
        self.assertEqual((bytes(ours.out.data), failed), (b"abc", []))

    # --- who is refused ---

    def refused_client(self, ctx, errno):
        ours, failed = self.run_client(ctx, lambda s: s.recv(1), NO_HANDSHAKE)
        ours.said("refused %d" % errno)
        return failed

    def refused_server(self, ctx, errno):
        ours, failed = self.run_server(ctx, lambda s: s.recv(1), NO_HANDSHAKE)
        ours.said("refused %d" % errno)
        return failed

    def test_no_certificate(self):
        self.assertNotEqual(self.refused_client(context("client", who=None), EPROTO), [])

    def test_wrong_ca(self):
        self.assertNotEqual(self.refused_client(context("client", ca="wrong"), EPROTO), [])
        self.assertNotEqual(self.refused_server(context("server", ca="wrong"), EPROTO), [])

    def test_they_refuse_us(self):
        self.assertNotEqual(self.refused_client(context("client", believes="wrong"), EPROTO), [])
        self.assertNotEqual(self.refused_server(context("server", believes="wrong"), EPROTO), [])

    def test_no_node(self):
        self.refused_client(context("client", who="admin"), EACCES)
        self.refused_server(context("server", who="admin"), EACCES)

    def test_ourselves(self):
        self.refused_client(context("client", who="n1"), EACCES)
        self.refused_server(context("server", who="n1"), EACCES)

    def test_other_protocols(self):
        for alpn in (None, "kedge-peer/1", "h2"):
            for role, refused in (("client", self.refused_client), ("server", self.refused_server)):
                with self.subTest(alpn=alpn, role=role):
                    c = context(role)
                    c = ssl_without_alpn(role) if alpn is None else c
                    if alpn:
                        c.set_alpn_protocols([alpn])
                    refused(c, EPROTO)

    def test_other_ciphers(self):
        for suite in ("ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-SHA256"):
            with self.subTest(suite=suite):
                self.refused_client(context("client", suite=suite), EPROTO)
                self.refused_server(context("server", suite=suite), EPROTO)

    def test_other_versions(self):
        c = context("client")
        c.maximum_version = ssl.TLSVersion.TLSv1_3
        c.minimum_version = ssl.TLSVersion.TLSv1_3
        self.refused_client(c, EPROTO)

    # --- somebody between the two ---

    def between(self, number, change, code=REFUSED, text=b""):
        """Their records of application data are counted from 0: the one with `number` is changed."""
        seen = []

        def pass_on(direction, record):
            if direction == "up" and record[0] == 23:
                seen.append(record)
                if len(seen) - 1 == number:
                    return change(seen)
            return record

        def do(s):
            for part in (b"first.", b"second.", b"third."):
                s.sendall(part)
            s.recv(1)
        ours, _ = self.run_client(context("client"), do, code, change=pass_on)
        self.assertEqual(bytes(ours.out.data), text)

    def flip(self, at):
        def change(seen):
            record = bytearray(seen[-1])
            record[at] ^= 0x40
            return bytes(record)
        return change

    def test_tampering(self):
        for at in (5, 12, 13, 17, -16, -1):
            with self.subTest(at=at):
                self.between(0, self.flip(at))
        self.between(1, self.flip(15), text=b"first.")
        self.between(2, self.flip(1), text=b"first.second.")

    def test_replay(self):
        self.between(1, lambda seen: seen[-1] + seen[-1], text=b"first.second.")
        self.between(2, lambda seen: seen[0], text=b"first.second.")

    def test_loss(self):
        self.between(1, lambda seen: b"", text=b"first.")

    def test_truncation(self):
        def change(seen):
            cut = seen[-1][:-3]
            return cut[:3] + (len(cut) - 5).to_bytes(2, "big") + cut[5:]
        self.between(1, change, text=b"first.")

    def test_clear_text(self):
        self.between(1, lambda seen: b"\x17\x03\x03\x00\x05hello", text=b"first.")
        self.between(1, lambda seen: b"\x15\x03\x03\x00\x02\x01\x00", text=b"first.")  # close_notify of a stranger

    # --- what is on the wire ---

    def test_only_tls_1_2_records(self):
        """Types, versions and nonces of all that our end sends, the handshake included."""
        def do(s):
            self.ours.feed(b"x" * 50000)
            receive(s, 50000)
            s.unwrap()
        self.run_client(context("client"), do, OK, change=lambda direction, record: record)
        records = self.relay.records["down"]
        self.assertTrue(all(r[1:3] == b"\x03\x03" for r in records))
        types = [r[0] for r in records]
        start = types.index(20)
        self.assertEqual(set(types[:start]), {22})
        self.assertEqual(types[start:start + 2], [20, 22])
        self.assertEqual(set(types[start + 2:-1]), {23})
        self.assertEqual(types[-1], 21)
        nonces = [r[5:13] for r in records[start + 1:]]  # Finished is mbedTLS's, the rest is ours
        self.assertEqual(nonces, [i.to_bytes(8, "big") for i in range(len(nonces))])
        self.assertGreaterEqual(len(nonces), 5)


def ssl_without_alpn(role):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if role == "server" else ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname = False
    c.verify_mode = ssl.CERT_REQUIRED
    c.maximum_version = ssl.TLSVersion.TLSv1_2
    c.load_verify_locations(pem("ca.crt"))
    c.load_cert_chain(pem("n2.crt"), pem("n2.key"))
    return c


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v"] + sys.argv[1:])
