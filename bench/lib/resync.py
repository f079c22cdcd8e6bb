# SPDX-License-Identifier: Apache-2.0
"""How fast a replica gets what it lacks, over TLS: all of it, or a random part, beside nbdcopy over TLS. Through the page
cache both read what is in memory; around it both read one disk and write it at the same time."""
import json
import multiprocessing
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import time

import engines
import measure
import servers
from measure import MIB

GOAL, LIMIT_GOAL = 1.5, 0.6
PART = 8  # one block of so many is changed before a resync
BLOCK = 65536
THROUGH, AROUND = "through the page cache", "around it"


# ---- ours ----

class Pair:
    """A full volume whose second replica comes and goes."""

    def __init__(self, size, options):
        self.size = size
        self.e = engines.Engines(2, name="bench", options=options, linked=True)
        self.e.create("disk", "%dMiB" % size, 1)
        self.e.start_all()
        measure.fill_volume(self.e, 1, "disk", size)
        self.random = random.Random(1)

    def links(self):
        return len(re.findall(r"link with node 1\b(?! ended)", self.e.log(2)))

    def restart(self):
        """The second engine runs anew and its link stands: when that was."""
        before = self.links()
        self.e.start(2)
        engines.wait_for(lambda: self.links() > before, 20, "the link stands")
        return time.monotonic()

    def in_sync_since(self, began):
        self.e.wait_in_sync("disk", [1, 2], 600)
        return time.monotonic() - began

    def first_sync(self):
        """MB/s of the whole volume into a replica that has nothing, from the change of the store until it counts."""
        self.e.stop(2)
        if os.path.exists(self.e.replica(2, "disk")):
            engines.wait_for(lambda: self.e.in_sync("disk") == [1], 30, "it is out")
            self.e.propose("member", "disk", "-2")
            shutil.rmtree(self.e.replica(2, "disk"))
        self.restart()
        began = time.monotonic()
        self.e.propose("member", "disk", "+2")
        return self.size * MIB / 1e6 / self.in_sync_since(began)

    def part(self):
        """The same of the blocks that changed while it was away, from the link on. It had been idle: what was written just
        before it left would be compared too."""
        for i in (1, 2):
            engines.wait_for(lambda i=i: self.e.inspect(i, "disk")["intents_set"] == 0, 60, "%d lets its intents go" % i)
        self.e.stop(2)
        engines.wait_for(lambda: self.e.in_sync("disk") == [1], 30, "it is out")
        blocks = self.random.sample(range(self.size * MIB // BLOCK), self.size * MIB // BLOCK // PART)
        with self.e.client(1, "disk") as c:
            for block in blocks:
                c.write(block * BLOCK, os.urandom(BLOCK))
            c.flush()
        return len(blocks) * BLOCK / 1e6 / self.in_sync_since(self.restart())

    def close(self):
        self.e.close()


# ---- nbdcopy ----

class Copy:
    """nbdcopy of a full file over TLS into a new file of the same file system, flushed in the end."""

    def __init__(self, folder, tools, size, way, connections, requests):
        self.folder, self.tools, self.size, self.way = folder, tools, size, way
        self.flags = ["--flush", "--connections=%d" % connections, "--requests=%d" % requests]
        self.source, self.copy = folder.path + "/copied.data", folder.path + "/copy.data"
        if not os.path.exists(self.source):
            measure.fill(self.source, size)

    def server(self):
        if self.way == "from nbdkit":
            return servers.TlsNbdkit(self.folder, self.source)
        if self.way == "to nbdkit":
            return servers.TlsNbdkit(self.folder, self.copy)
        return servers.TlsTarget(self.folder, self.tools, self.copy, self.way.split()[-1],
                                 "native" if "none" in self.way else "io_uring")

    def speed(self):
        with open(self.copy, "wb") as f:
            f.truncate(self.size * MIB)
        s = self.server()
        try:
            uri = s.psk.uri(s.port).replace("/disk?", "/?") if isinstance(s, servers.TlsNbdkit) else s.psk.uri(s.port)
            ends = [uri, self.copy] if self.way.startswith("from") else ["--destination-is-zero", self.source, uri]
            began = time.monotonic()
            subprocess.run(["nbdcopy", *self.flags, *ends], check=True, capture_output=True, text=True, timeout=300)
            took = time.monotonic() - began
        finally:
            s.close()
            os.unlink(self.copy)
        return self.size * MIB / 1e6 / took

    def __str__(self):
        return "nbdcopy %s %s" % (self.way, " ".join(self.flags[1:]))


class CopyAround(Copy):
    """The same around the page cache at both ends: from a qemu-nbd over TLS to another on a Unix socket."""

    def speed(self):
        with open(self.copy, "wb") as f:
            f.truncate(self.size * MIB)
        opened = []
        try:
            opened.append(servers.TlsTarget(self.folder, self.tools, self.source, "none", self.way))
            opened.append(servers.QemuNbd(self.folder, self.tools, self.size, self.way, self.copy))
            source, target = opened
            began = time.monotonic()
            subprocess.run(["nbdcopy", *self.flags, "--destination-is-zero", source.psk.uri(source.port),
                            "nbd+unix:///?socket=" + target.sock], check=True, capture_output=True, text=True, timeout=300)
            took = time.monotonic() - began
        finally:
            for server in opened:
                server.close()
            os.unlink(self.copy)
        return self.size * MIB / 1e6 / took


def fastest(folder, tools, size, kind, ways):
    """Of @ways, each taken once."""
    seen = {}
    for way in ways:
        for connections, requests in ((1, 64), (4, 64), (4, 16)):
            copy = kind(folder, tools, size, way, connections, requests)
            seen[copy] = copy.speed()
    best = max(seen, key=seen.get)
    print("    the fastest of %d ways %s: %s" % (len(seen), AROUND if kind is CopyAround else THROUGH, best), flush=True)
    return best


# ---- the physical limits ----

def sealing():
    """AES-GCM of one core, the slower way, in MB/s."""
    done = subprocess.run([engines.BUILD + "/bench_record"], capture_output=True, text=True, check=True, timeout=60)
    speeds = re.search(r"AES-128-GCM\s+65536 bytes: seal\s+(\d+) MB/s, open\s+(\d+) MB/s", done.stdout)
    return min(int(n) for n in speeds.groups())


def send_all(port, total):
    data = bytes(MIB)
    with socket.create_connection(("127.0.0.1", port)) as s:
        for _ in range(total // MIB):
            s.sendall(data)


def loopback(size):
    """One TCP stream on loopback, in MB/s."""
    total = 4 * size * MIB
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = multiprocessing.Process(target=send_all, args=(listener.getsockname()[1], total), daemon=True)
        sender.start()
        got, room = 0, bytearray(MIB)
        with listener.accept()[0] as s:
            began = time.monotonic()
            while got < total:
                n = s.recv_into(room)
                if n == 0:
                    raise measure.Failed("the stream ended early")
                got += n
            took = time.monotonic() - began
        sender.join()
    return total / 1e6 / took


def disk(folder, size):
    """A new file written and synced by 1 MiB, around the page cache, in MB/s."""
    path = folder.path + "/limit.data"
    done = measure.fio(["--ioengine=io_uring", "--filename=" + path, "--direct=1", "--end_fsync=1"],
                       ["--rw=write", "--bs=1m", "--iodepth=4"], size, 3)
    os.unlink(path)
    return done.iops * MIB / 1e6


def disk_both_ways(folder, source, size):
    """A full file read while a new one is written and synced, by 1 MiB, around the page cache: MB/s of either."""
    path = folder.path + "/limit.data"
    done = subprocess.run(["fio", "--output-format=json", "--ioengine=io_uring", "--direct=1", "--bs=1m", "--iodepth=4",
                           "--size=%dm" % size, "--name=r", "--rw=read", "--filename=" + source, "--name=w", "--rw=write",
                           "--end_fsync=1", "--filename=" + path], capture_output=True, text=True, check=True, timeout=120)
    os.unlink(path)
    jobs = json.loads(done.stdout[done.stdout.index("{"):])["jobs"]
    return size * MIB / 1e3 / max(job["job_runtime"] for job in jobs)


# ---- the table ----

def show(name, speeds, seen, rival, limits):
    bound = min(limits, key=lambda limit: statistics.median(seen[limit]))
    more, of_limit = measure.ratio(speeds, seen[rival]), measure.ratio(speeds, seen[bound])
    print("    %-44s%20s   x %.2f of nbdcopy, goal >= %.1f %s; %.0f %% of %s, goal >= %.0f %% %s" % (
        name, measure.spread(speeds), more, GOAL, measure.verdict(more >= GOAL), 100 * of_limit, bound, 100 * LIMIT_GOAL,
        measure.verdict(of_limit >= LIMIT_GOAL)), flush=True)


def run(args, folder, tools):
    size = args.resync_size
    print("resync: %d MiB over TLS, MB/s" % size)
    rivals = {"nbdcopy " + THROUGH: fastest(folder, tools, size, Copy, ("from nbdkit", "to nbdkit", "to qemu-nbd cache writeback",
                                                                        "to qemu-nbd cache none")),
              "nbdcopy " + AROUND: fastest(folder, tools, size, CopyAround, ("native", "io_uring"))}
    source = rivals["nbdcopy " + AROUND].source
    limits = {"AES-GCM on one core": sealing, "loopback alone": lambda: loopback(size), "disk alone": lambda: disk(folder, size),
              "disk both ways": lambda: disk_both_ways(folder, source, size)}
    ours, pairs = {}, []
    try:
        for name, options in (("kedge-vol", []), ("kedge-vol --direct", ["--direct"])):
            pairs.append(Pair(size, options))
            ours[name + ", first sync"] = pairs[-1].first_sync
            ours[name + ", a part of 1/%d" % PART] = pairs[-1].part
        sides = {**ours, **{name: copy.speed for name, copy in rivals.items()}, **limits}
        seen = measure.in_turn(args.rounds, sides, lambda way: way())
    finally:
        for p in pairs:
            p.close()
    for name in list(rivals) + list(limits):
        print("    %-44s%20s" % (name, measure.spread(seen[name])))
    for name in ours:
        around = "--direct" in name
        show(name, seen[name], seen, "nbdcopy " + (AROUND if around else THROUGH),
             [limit for limit in limits if limit != ("disk alone" if around else "disk both ways")])
    return {"rivals": {name: str(copy) for name, copy in rivals.items()}, "seen": seen}
