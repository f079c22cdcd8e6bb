#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One replica of a volume beside other NBD servers on the same disk: the same rows, taken in turn, as ratios.

usage: bench/volume.py [--runs N] [--seconds S] [--size MIB] [--only WORD]

Through the page cache: kedge-vol beside `nbdkit file`. Around it: kedge-vol --direct beside `qemu-nbd --cache=none`, with
the faster of its two ways of I/O. Each row is a fio job over a Unix socket; the physical limit beside it is fio on the
file itself. A ratio above 1 is in our favour: the median of the ratios of each round. Files are written full and read
once before anything is measured."""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "volume"))
os.environ.setdefault("KEDGE_BUILD", os.path.join(ROOT, "build", "release"))
import engines  # noqa: E402

ROWS = [
    ("4k random write, depth 1", ["--rw=randwrite", "--bs=4k", "--iodepth=1"]),
    ("4k random write, depth 32", ["--rw=randwrite", "--bs=4k", "--iodepth=32"]),
    ("4k random write, depth 1, fsync after each", ["--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1"]),
    ("4k random write, depth 32, fsync after each", ["--rw=randwrite", "--bs=4k", "--iodepth=32", "--fsync=1"]),
    ("4k random read, depth 1", ["--rw=randread", "--bs=4k", "--iodepth=1"]),
    ("4k random read, depth 32", ["--rw=randread", "--bs=4k", "--iodepth=32"]),
    ("1m sequential write", ["--rw=write", "--bs=1m", "--iodepth=4"]),
    ("1m sequential read", ["--rw=read", "--bs=1m", "--iodepth=4"]),
]


def fio(args, where, row, size):
    """Requests per second."""
    done = subprocess.run(["fio", "--name=b", "--output-format=json", "--time_based", "--runtime=%d" % args.seconds,
                           "--size=%dm" % size, "--randrepeat=1", "--group_reporting", *where, *row],
                          capture_output=True, text=True, check=True)
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    return job["read"]["iops"] + job["write"]["iops"]


def fill(path, size):
    with open(path, "wb") as f:
        for _ in range(size):
            f.write(os.urandom(1 << 20))
        f.flush()
        os.fsync(f.fileno())
    with open(path, "rb") as f:
        while f.read(1 << 20):
            pass


class Nbdkit:
    def __init__(self, root, size):
        self.sock = root + "/nbdkit.sock"
        self.path = root + "/nbdkit.data"
        fill(self.path, size)
        self.p = subprocess.Popen(["nbdkit", "-f", "-U", self.sock, "file", self.path])
        engines.wait_for(lambda: os.path.exists(self.sock), 10, "nbdkit listens")

    def where(self):
        return ["--ioengine=nbd", "--uri=nbd+unix:///?socket=" + self.sock]

    def close(self):
        self.p.terminate()
        self.p.wait()


class QemuNbd:
    def __init__(self, root, size, aio):
        self.sock = "%s/qemu-%s.sock" % (root, aio)
        self.path = "%s/qemu-%s.data" % (root, aio)
        fill(self.path, size)
        self.p = subprocess.Popen(["qemu-nbd", "--persistent", "--shared=4", "--format=raw", "--cache=none",
                                   "--aio=" + aio, "--socket=" + self.sock, self.path])
        engines.wait_for(lambda: os.path.exists(self.sock), 10, "qemu-nbd listens")

    def where(self):
        return ["--ioengine=nbd", "--uri=nbd+unix:///?socket=" + self.sock]

    def close(self):
        self.p.terminate()
        self.p.wait()


class Kedge:
    def __init__(self, size, options=()):
        self.e = engines.Engines(1, name="bench", options=options)
        self.e.create("disk", "%dMiB" % size, 1)
        self.e.start(1)
        with self.e.client(1, "disk") as c:
            for at in range(size):
                c.write(at << 20, os.urandom(1 << 20))
            c.flush()
            for at in range(size):
                c.read(at << 20, 1 << 20)

    def where(self):
        return ["--ioengine=nbd", "--uri=" + self.e.uri(1, "disk")]

    def close(self):
        self.e.close()


class File:
    def __init__(self, root, size, direct):
        self.path = "%s/raw%d.data" % (root, direct)
        self.direct = direct
        fill(self.path, size)

    def where(self):
        return ["--ioengine=io_uring", "--filename=" + self.path, "--direct=%d" % self.direct]

    def close(self):
        os.unlink(self.path)


def table(args, sides, rivals):
    """@sides: name -> server, ours first, the limit last; @rivals: those between."""
    print("%-44s" % "requests per second, min/median/max", *("%21s" % side for side in sides), "   ours/best rival")
    for name, row in ROWS:
        if args.only not in name:
            continue
        seen = {side: [] for side in sides}
        for _ in range(max(args.runs, 3)):
            for side, s in sides.items():
                seen[side].append(fio(args, s.where(), row, args.size))
        ours = seen[next(iter(sides))]
        best = max(rivals, key=lambda r: statistics.median(seen[r]))
        ratio = statistics.median(a / b for a, b in zip(ours, seen[best]))
        print("%-44s" % name, *("%21s" % ("%d/%d/%d" % (min(v), statistics.median(v), max(v))) for v in seen.values()),
              "   %.2f" % ratio, flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--seconds", type=int, default=3)
    p.add_argument("--size", type=int, default=256)
    p.add_argument("--only", default="")
    args = p.parse_args()
    root = tempfile.mkdtemp(prefix="kt-%s-bench-" % engines.RUN, dir="/tmp")
    opened = {}
    try:
        for direct in (0, 1):
            opened = {"kedge-vol": Kedge(args.size, ["--direct"] if direct else [])}
            if direct:
                opened["qemu-nbd native"] = QemuNbd(root, args.size, "native")
                opened["qemu-nbd io_uring"] = QemuNbd(root, args.size, "io_uring")
            else:
                opened["nbdkit file"] = Nbdkit(root, args.size)
            rivals = list(opened)[1:]
            opened["the file itself"] = File(root, args.size, direct)
            print("around the page cache:" if direct else "through the page cache:")
            table(args, opened, rivals)
            for s in opened.values():
                s.close()
            opened = {}
    finally:
        for s in opened.values():
            s.close()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print("%.0f s" % (time.monotonic() - began))
