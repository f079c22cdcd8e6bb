# SPDX-License-Identifier: Apache-2.0
"""What the demo guest says that it wrote to its disk, and what is there: two witnesses that are not Kedge's."""
import glob
import hashlib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../deploy"))
import guest_log  # noqa: E402


def told(cluster, vm, i):
    """What the guest told on node @i, in order."""
    return guest_log.told("%s/console/%s.log" % (cluster.node(i).dir, vm))


def last_written(cluster, vm, i):
    return max((t.n for t in told(cluster, vm, i) if t.what == "wrote"), default=0)


def check_log(cluster, vm, path):
    """What guest_log.check() says of the raw content at @path."""
    before = [t for node in cluster.nodes for t in told(cluster, vm, node.number)] # first: it goes on writing
    return guest_log.check(guest_log.log_on(path), before)


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
