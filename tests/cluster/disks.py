# SPDX-License-Identifier: Apache-2.0
"""What the demo guest says that it wrote to its disk, and what is there: two witnesses that are not Kedge's."""
import glob
import hashlib
import os
import re

BLOCK = 4096
RING = 1024 # blocks of the guest's log, see deploy/guest/init
TOLD = re.compile(r"^kedge-guest boot=([0-9a-f]{8}) (wrote|found|failed)=(\d+)\r?\n", re.MULTILINE)


class Told:
    """A line of a guest's console: it wrote line @n of its log and synced it, or found that when it booted."""

    def __init__(self, boot, what, n):
        self.boot, self.what, self.n = boot, what, int(n)

    def __repr__(self):
        return "%s %s=%d" % (self.boot, self.what, self.n)


def told(cluster, vm, i):
    """What the guest told on node @i, in order."""
    path = "%s/console/%s.log" % (cluster.node(i).dir, vm)
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as f:
            return [Told(*m.groups()) for m in TOLD.finditer(f.read())]
    except FileNotFoundError:
        return []


def all_told(cluster, vm):
    return [t for node in cluster.nodes for t in told(cluster, vm, node.number)]


def last_written(cluster, vm, i):
    return max((t.n for t in told(cluster, vm, i) if t.what == "wrote"), default=0)


def log_on(path):
    """The lines of the ring in the raw content at @path, by number. A line whose checksum is wrong is an error."""
    lines = {}
    with open(path, "rb") as f:
        for block in range(RING):
            text = f.read(BLOCK).rstrip(b"\0")
            if not text:
                continue
            n, boot, digest = text.decode().split()
            if hashlib.md5(("%s %s\n" % (n, boot)).encode()).hexdigest() != digest or int(n) % RING != block:
                raise AssertionError("block %d of %s holds '%s'" % (block, path, text))
            lines[int(n)] = boot
    return lines


def check_log(cluster, vm, path):
    """Every line that was told to be written is at @path, by whoever told it, unless the ring came round. Boots follow
    each other: no two guests wrote at the same time. Returns the number of lines that were looked at."""
    before = all_told(cluster, vm) # first: a guest that runs goes on writing
    lines = log_on(path)
    newest = max(lines, default=0)
    looked = 0
    for t in before:
        if t.what == "failed":
            raise AssertionError("the guest saw an error: %s" % t)
        if t.what != "wrote" or t.n <= newest - RING:
            continue
        looked += 1
        if lines.get(t.n) != t.boot:
            raise AssertionError("told %s, but the disk has boot=%s there" % (t, lines.get(t.n)))
    boots = [lines[n] for n in sorted(lines)]
    turns = [b for i, b in enumerate(boots) if i == 0 or boots[i - 1] != b]
    if len(turns) != len(set(turns)):
        raise AssertionError("two guests wrote in turns: %s" % turns)
    return looked


def volume(cluster, i, name):
    """The row of `volume ls`, or None."""
    rows = cluster.kedge(i, "volume", "ls")["volumes"]
    return next((row for row in rows if row["name"] == name), None)


def in_sync(cluster, i, name):
    row = volume(cluster, i, name)
    return row and [r["node"] for r in row["replicas"] if r["state"] == "in-sync"]


def is_whole(cluster, i, name):
    row = volume(cluster, i, name)
    return row and len(in_sync(cluster, i, name)) == row["replicas_wanted"] and row["problem"] is None


def data(cluster, i, name, number=None):
    """The path of the replica's raw content on node @i."""
    row = volume(cluster, number or i, name)
    return "%s/volumes/%s/data" % (cluster.node(i).dir, row["id"])


def same(paths):
    """Are the files the same, byte by byte?"""
    return len({hashlib.sha256(open(p, "rb").read()).digest() for p in paths}) == 1


def folders(cluster, i):
    return [os.path.basename(p) for p in glob.glob(cluster.node(i).dir + "/volumes/*")]
