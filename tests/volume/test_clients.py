#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Others' NBD clients at an engine's export, and the wire between two engines in the hands of somebody else."""
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading

try:
    import nbd
except ImportError:  # it belongs to the system's own interpreter
    if sys.executable == "/usr/bin/python3":
        raise
    os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])

from engines import wait_for
from load import MIB, LoadedCase, long_case

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cluster"))
import harness  # noqa: E402

IMAGE = 64 * MIB


class Libnbd(LoadedCase):
    """libnbd's own client, at a volume of two replicas."""

    nodes = 2

    def handle(self, *contexts):
        h = nbd.NBD()
        for name in contexts:
            h.add_meta_context(name)
        h.connect_uri(self.e.uri(1, "disk"))
        return h

    def map_of(self, h, length, offset):
        found = []

        def extent(context, at, entries, _error):
            if context == nbd.CONTEXT_BASE_ALLOCATION:
                for n, flags in zip(entries[::2], entries[1::2]):
                    found.append((at, n, flags))
                    at += n

        h.block_status(length, offset, extent)
        return found

    def test_block_status(self):
        h = self.handle(nbd.CONTEXT_BASE_ALLOCATION)
        self.assertTrue(h.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION))
        h.pwrite(os.urandom(MIB), 8 * MIB)
        h.flush()
        hole = nbd.STATE_HOLE | nbd.STATE_ZERO
        kinds = {flags for _, _, flags in self.map_of(h, 8 * MIB, 0)}
        self.assertEqual(kinds, {hole})
        self.assertEqual({flags for _, _, flags in self.map_of(h, MIB, 8 * MIB)}, {0})
        h.trim(MIB, 8 * MIB)
        self.assertEqual({flags for _, _, flags in self.map_of(h, MIB, 8 * MIB)}, {hole})
        self.assert_equal()

    def test_structured_reads(self):
        h = self.handle()
        self.assertTrue(h.get_structured_replies_negotiated())
        data = os.urandom(MIB)
        h.pwrite(data, 4 * MIB)
        kinds, got = set(), bytearray(b"\xee" * (3 * MIB))

        def chunk(part, offset, status, _error):
            kinds.add(status)
            got[offset - 3 * MIB:offset - 3 * MIB + len(part)] = part if status == nbd.READ_DATA else bytes(len(part))

        back = h.pread_structured(3 * MIB, 3 * MIB, chunk)
        self.assertEqual(bytes(back), bytes(MIB) + data + bytes(MIB))
        self.assertTrue(kinds <= {nbd.READ_DATA, nbd.READ_HOLE}, kinds)
        self.assertIn(nbd.READ_DATA, kinds)
        whole = []
        h.pread_structured(3 * MIB, 3 * MIB, lambda part, *_: whole.append(len(part)), nbd.CMD_FLAG_DF)
        self.assertEqual(len(whole), 1)

    def test_flags_of_writing(self):
        h = self.handle(nbd.CONTEXT_BASE_ALLOCATION)
        data = os.urandom(2 * MIB)
        h.pwrite(data, 0, nbd.CMD_FLAG_FUA)
        h.zero(MIB, 0, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE)
        self.assertEqual(bytes(h.pread(2 * MIB, 0)), bytes(MIB) + data[MIB:])
        self.assertFalse(any(flags & nbd.STATE_HOLE for _, _, flags in self.map_of(h, MIB, 0)))
        h.zero(MIB, MIB)
        self.assertEqual(bytes(h.pread(2 * MIB, 0)), bytes(2 * MIB))
        h.pwrite(data, 0)
        try:
            h.zero(MIB, 0, nbd.CMD_FLAG_FAST_ZERO)
            self.assertEqual(bytes(h.pread(MIB, 0)), bytes(MIB))
        except nbd.Error as e:  # it may say that it would not be fast, and then must not have done it
            self.assertEqual(e.errno, "ENOTSUP")
            self.assertEqual(bytes(h.pread(MIB, 0)), data[:MIB])
        h.trim(MIB, MIB, nbd.CMD_FLAG_FUA)
        self.assertEqual(bytes(h.pread(MIB, MIB)), bytes(MIB))
        h.cache(MIB, 0)
        self.assert_equal()

    def test_flush_on_one_connection_covers_the_others(self):
        """What multi-conn promises, as far as it is seen from outside: each reads at once what any of them wrote."""
        handles = [self.handle() for _ in range(4)]
        self.assertTrue(all(h.can_multi_conn() for h in handles))
        for turn in range(20):
            writer, reader = handles[turn % 4], handles[(turn + 1) % 4]
            data = os.urandom(65536)
            writer.pwrite(data, turn * 65536)
            self.assertEqual(bytes(reader.pread(65536, turn * 65536)), data)
            reader.flush()
        self.assert_equal()

    def test_many_in_flight_from_several(self):
        """Each connection has its own quarter; 64 requests at a time of each, and an own model of what must be there."""
        errors = []
        threads = [threading.Thread(target=self.quarter, args=(i, errors)) for i in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(120)
        self.assertEqual(errors, [])
        self.assertFalse(any(t.is_alive() for t in threads))
        self.assert_equal()

    def quarter(self, i, errors):
        try:
            r, h, base, model = random.Random(i), self.handle(), i * 16 * MIB, bytearray(16 * MIB)
            for _ in range(6):
                slots = r.sample(range(16 * MIB // 65536), 64)
                for slot in slots:
                    at, n = slot * 65536 + r.randrange(0, 30000), r.randrange(1, 30000)
                    data = r.randbytes(n)
                    model[at:at + n] = data
                    h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), base + at)
                while h.aio_in_flight() > 0:
                    h.poll(20000)
                    while h.aio_in_flight() > 0 and (cookie := h.aio_peek_command_completed()) > 0:
                        h.aio_command_completed(cookie)
            for at in range(0, len(model), MIB):
                if bytes(h.pread(MIB, base + at)) != bytes(model[at:at + MIB]):
                    errors.append("connection %d: another content at %d" % (i, at))
        except Exception as e:  # told to the test
            errors.append("connection %d: %r" % (i, e))

    def test_refused(self):
        """Errors are answers, and the connection lives on."""
        h = self.handle()
        h.set_strict_mode(0)
        size = h.get_size()
        for call in (lambda: h.pread(4096, size), lambda: h.pwrite(bytes(4096), size - 2048),
                     lambda: h.trim(4096, size), lambda: h.zero(4096, size)):
            self.assertRaises(nbd.Error, call)
        h.pwrite(b"z" * 4096, size - 4096)
        self.assertEqual(bytes(h.pread(4096, size - 4096)), b"z" * 4096)


class QemuNbd(LoadedCase):
    """nbdcopy between an engine and qemu-nbd, both ways, and what the two say of the same bytes."""

    nodes = 2

    def serve(self, image):
        path = image + ".sock"
        p = subprocess.Popen(["qemu-nbd", "--persistent", "--shared=8", "-f", "raw", "-x", "disk", "-k", path, image])
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        wait_for(lambda: os.path.exists(path), 20, "qemu-nbd listens")
        return "nbd+unix:///disk?socket=" + path

    def image(self, name, fill):
        path = self.e.root + "/" + name
        with open(path, "wb") as f:
            f.truncate(IMAGE)
            for at in (0, 5 * MIB + 4096, 17 * MIB, IMAGE - 65536) if fill else ():
                f.seek(at)
                f.write(os.urandom(65536))
        return path

    def test_there_and_back(self):
        there, back = self.image("there", True), self.image("back", False)
        self.e.run("nbdcopy", "--flush", self.serve(there), self.e.uri(1, "disk"))
        self.e.run("nbdcopy", "--flush", self.e.uri(1, "disk"), self.serve(back))
        self.e.run("cmp", there, back)
        self.e.run("cmp", there, self.e.data(1, "disk"))
        self.assertEqual(self.data_of(self.e.uri(1, "disk")), self.data_of(self.serve(self.sparse(there))))
        self.assert_equal()

    def sparse(self, path):
        self.e.run("cp", "--sparse=always", path, path + ".sparse")
        return path + ".sparse"

    def data_of(self, uri):
        """The ranges that are no holes, joined."""
        ranges = []
        for x in json.loads(self.e.run("nbdinfo", "--map", "--json", uri).stdout):
            if x["type"] & 1:
                continue
            if ranges and sum(ranges[-1]) == x["offset"]:
                ranges[-1] = (ranges[-1][0], ranges[-1][1] + x["length"])
            else:
                ranges.append((x["offset"], x["length"]))
        return ranges


class Relay(threading.Thread):
    """Between two engines, one connection after the other: it passes TLS records on, and does one bad thing with one of
    them when it is told to."""

    BAD = ("flip", "repeat", "drop", "swap", "truncate", "forge")

    def __init__(self, address, target):
        super().__init__(daemon=True)
        self.target = target
        self.listener = socket.create_server(address)
        self.lock = threading.Lock()
        self.wish = None  # (what, to the one that was dialled?)
        self.did = []
        self.start()

    def run(self):
        while True:
            try:
                a, _ = self.listener.accept()
                b = socket.create_connection(self.target, 5)
            except OSError:
                if self.listener.fileno() < 0:
                    return
                continue
            for source, sink, onward in ((a, b, True), (b, a, False)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self.carry, args=(source, sink, onward), daemon=True).start()

    def do(self, what, onward):
        with self.lock:
            self.wish = (what, onward)

    def take(self, onward):
        with self.lock:
            if not self.wish or self.wish[1] != onward:
                return None
            what, self.wish = self.wish[0], None
            return what

    def carry(self, source, sink, onward):
        try:
            while True:
                record = self.record(source)
                what = self.take(onward) if record[0] == 23 else None
                if not what:
                    sink.sendall(record)
                    continue
                sink.sendall(self.spoilt(what, record, source))
                self.did.append(what)
                if what == "truncate":
                    break
        except OSError:
            pass
        for s in (source, sink):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def spoilt(self, what, record, source):
        if what == "flip":
            at = 5 + (len(record) - 5) // 2
            return record[:at] + bytes([record[at] ^ 4]) + record[at + 1:]
        if what == "repeat":
            return record + record
        if what == "drop":
            return self.record(source)
        if what == "swap":
            return self.record(source) + record
        if what == "truncate":
            return record[:len(record) // 2]
        return bytes([21, 3, 3, 0, 2, 1, 0]) + record  # a goodbye in the clear

    @staticmethod
    def record(s):
        head = Relay.exactly(s, 5)
        return head + Relay.exactly(s, struct.unpack(">H", head[3:])[0])

    @staticmethod
    def exactly(s, n):
        data = b""
        while len(data) < n:
            part = s.recv(n - len(data))
            if not part:
                raise ConnectionError
            data += part
        return data

    def close(self):
        self.listener.close()


class Tampering(LoadedCase):
    nodes = 2

    def begin(self):
        at = ("127.0.0.3", self.e.port)
        host, port = self.e.address(2).split(":")
        self.relay = Relay(at, (host, int(port)))
        self.addCleanup(self.relay.close)
        self.e.relays[(1, 2)] = "%s:%d" % at
        super().begin()

    def test_records(self):
        self.spoil_all((("flip", True), ("repeat", False), ("truncate", True)))

    @long_case
    def test_all_that_can_be_done(self):
        self.spoil_all([(what, onward) for what in Relay.BAD for onward in (True, False)])

    def spoil_all(self, deeds):
        """Whatever is done to a record: the link is closed by whom it reached, and made anew."""
        g = self.guest()
        for what, onward in deeds:
            self.spoil(g, what, 2 if onward else 1, onward)
        self.finish(g)

    def spoil(self, g, what, victim, onward):
        before, count = len(self.e.log(victim)), len(self.relay.did)
        self.relay.do(what, onward)
        wait_for(lambda: len(self.relay.did) > count, 20, "a record is spoilt")
        wait_for(lambda: "ended: " in self.e.log(victim)[before:], 20, "the link is closed")
        why = what + ": " + self.e.log(victim)[before:]
        expected = ("the peer closed it", "reset") if what == "truncate" else ("tampered with",)
        self.assertTrue(any(word in why for word in expected), why)
        self.settle()
        g.goes_on()


if __name__ == "__main__":
    harness.main()
