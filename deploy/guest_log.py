#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares what the demo guest told on its serial line with what is on its disk (deploy/guest/init writes both).

usage: deploy/guest_log.py --dir DIR --kedge PROGRAM --vm NAME [--disk root] [--in-a-file]

DIR holds one directory for each node. Every line of the log that the guest was told is synced, by whichever node it ran
on, must be in the replica of the node that leads the disk now; lines of two boots must not take turns there. With --in-a-file
the log lies in a file system (deploy/guest/user-data): what the guest itself found there when it booted is compared. Exit:
0 all is there, 1 something is missing, with what.
"""
import argparse
import glob
import hashlib
import json
import os
import re
import subprocess
import sys

BLOCK = 4096
RING = 1024 # blocks of the log
TOLD = re.compile(r"^kedge-guest boot=([0-9a-f]{8}) (wrote|found|failed|size|end|grown)=(\d+)\r?\n", re.MULTILINE)


class LogError(AssertionError):
    """The disk does not hold what the guest was told."""


class Told:
    """A line of a guest's console: it wrote line @n of its log and synced it, or found that when it booted."""

    def __init__(self, boot, what, n):
        self.boot, self.what, self.n = boot, what, int(n)

    def __repr__(self):
        return "%s %s=%d" % (self.boot, self.what, self.n)


def told(path):
    """What the guest told in the console file @path, in order."""
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as f:
            return [Told(*m.groups()) for m in TOLD.finditer(f.read())]
    except FileNotFoundError:
        return []


def log_on(path):
    """The lines of the ring in the raw content at @path, by number."""
    lines = {}
    with open(path, "rb") as f:
        for block in range(RING):
            text = f.read(BLOCK).rstrip(b"\0")
            if not text:
                continue
            n, boot, digest = text.decode().split()
            if hashlib.md5(("%s %s\n" % (n, boot)).encode()).hexdigest() != digest or int(n) % RING != block:
                raise LogError("block %d of %s holds '%s'" % (block, path, text))
            lines[int(n)] = boot
    return lines


def check(lines, before):
    """Every line in @before that was told to be written is in @lines, by whoever told it, unless the ring came round.
    Boots follow each other: no two guests wrote at the same time. Returns the number of lines that were looked at."""
    newest = max(lines, default=0)
    looked = 0
    for t in before:
        if t.what == "failed":
            raise LogError("the guest saw an error: %s" % t)
        if t.what != "wrote" or t.n <= newest - RING:
            continue
        looked += 1
        if lines.get(t.n) != t.boot:
            raise LogError("told %s, but the disk has boot=%s there" % (t, lines.get(t.n)))
    boots = [lines[n] for n in sorted(lines)]
    turns = [b for i, b in enumerate(boots) if i == 0 or boots[i - 1] != b]
    if len(turns) != len(set(turns)):
        raise LogError("two guests wrote in turns: %s" % turns)
    return looked


def check_found(before):
    """The same by what the guest found when it booted: a line that is lost is missing there, or is told again by a later
    boot. Returns the number of lines that were looked at."""
    found = {t.boot: t.n for t in before if t.what == "found"}
    tellers = {}
    for t in before:
        if t.what == "failed":
            raise LogError("the guest saw an error: %s" % t)
        if t.what != "wrote":
            continue
        if tellers.setdefault(t.n, t.boot) != t.boot:
            raise LogError("told %s, and line %d was told by boot=%s too" % (t, t.n, tellers[t.n]))
        for boot, n in found.items():
            if boot != t.boot and found.get(t.boot, 0) < n < t.n:
                raise LogError("told %s, but boot=%s found only %d" % (t, boot, n))
    return len(tellers)


def volume(kedge, folder, name):
    done = subprocess.run([kedge, "volume", "show", name, "--json"], capture_output=True, text=True, timeout=20,
                          env={**os.environ, "KEDGE_DIR": folder}, check=False)
    if done.returncode != 0:
        sys.exit("guest_log: %s" % done.stderr.strip())
    return json.loads(done.stdout)["volume"]


def data_of(folder, row):
    return "%s/%s/volumes/%s/data" % (folder, row["primary"], row["id"])


def some_node(folders):
    """A node whose agent answers."""
    return next(f for f in folders if os.path.exists(f + "/run/ctl.sock"))


def main():
    p = argparse.ArgumentParser(description="Is every line that the guest was told is written on its disk?")
    p.add_argument("--dir", required=True)
    p.add_argument("--kedge", required=True)
    p.add_argument("--vm", required=True)
    p.add_argument("--disk", default="root")
    p.add_argument("--in-a-file", action="store_true", help="compare what the guest itself found")
    p.add_argument("--node", help="whom to ask; default: the first one")
    args = p.parse_args()
    folders = sorted(os.path.dirname(f) for f in glob.glob(args.dir + "/*/kedge.conf"))
    ask = "%s/%s" % (args.dir, args.node) if args.node else some_node(folders)
    row = volume(args.kedge, ask, "%s.%s" % (args.vm, args.disk))
    before = [t for f in folders for t in told("%s/console/%s.log" % (f, args.vm))] # first: it goes on writing
    try:
        looked = check_found(before) if args.in_a_file else check(log_on(data_of(args.dir, row)), before)
    except LogError as e:
        sys.exit("guest_log: %s" % e)
    boots = len(set(t.boot for t in before))
    print("  all %d lines that the guest was told are written, in %d boots, are on its disk (led by %s)"
          % (looked, boots, row["primary"]))


if __name__ == "__main__":
    main()
