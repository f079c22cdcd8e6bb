# SPDX-License-Identifier: Apache-2.0
"""How often members sync while a guest writes, and per FLUSH: by strace where system calls are made, by the file system's
tracepoint where the kernel syncs for the engine."""
import os
import re
import shutil
import signal
import subprocess
import time

import engines
import measure
from syncs import Witness, set_intents

SIZE_MIB = 64
WRITES = 4000
TRACEPOINTS = {"ext4": "ext4:ext4_sync_file_enter", "xfs": "xfs:xfs_file_fsync", "btrfs": "btrfs:btrfs_sync_file"}


class Tracepoint:
    """Counts the syncs of the files of a folder, whoever makes them: AIO's are made by workers of the system."""

    def __init__(self, event, folder):
        inodes = [os.stat(os.path.join(folder, name)).st_ino for name in os.listdir(folder)]
        self.argv = ["perf", "stat", "-x,", "-a", "-e", event, "--filter", " || ".join("ino == %d" % n for n in inodes)]
        self.count = None

    def __enter__(self):
        self.p = subprocess.Popen(self.argv, stderr=subprocess.PIPE, text=True, start_new_session=True)
        time.sleep(0.5)  # it says nothing once it counts; the controls fail if this was too soon
        return self

    def __exit__(self, *_):
        self.p.send_signal(signal.SIGINT)
        _, words = self.p.communicate(timeout=20)
        m = re.search(r"^(\d+),", words, re.MULTILINE)
        self.count = int(m.group(1)) if m else None


def tracepoint(path):
    """The event of the file system of @path that tells of a sync; None: there is none, or perf may not look."""
    kind = subprocess.run(["findmnt", "-n", "-o", "FSTYPE", "-T", path], capture_output=True, text=True, check=False).stdout
    event = TRACEPOINTS.get(kind.strip())
    if not event or not shutil.which("perf"):
        return None
    probe = path + "/probe"
    os.mkdir(probe)
    try:
        with open(probe + "/file", "wb") as f, Tracepoint(event, probe) as t:
            os.fsync(f.fileno())
    finally:
        shutil.rmtree(probe)
    return event if t.count == 1 else None


def some_writes(c):
    for n in range(WRITES):
        c.write((n * 977 % (SIZE_MIB * 256)) * 4096, b"w" * 4096)


def by_strace():
    with engines.Engines(2, name="bench", options=["--threads"], linked=True) as e:
        yield from steps(e, lambda node: Witness(e, node), lambda w: sum(w.syncs.values()) + w.durable_writes)


def by_tracepoint(event):
    with engines.Engines(2, name="bench", linked=True) as e:
        yield from steps(e, lambda node: Tracepoint(event, e.replica(node, "disk")), lambda t: t.count)


def steps(e, witness, count):
    """What is done, then what primary and replica synced meanwhile."""
    e.create("disk", "%dMiB" % SIZE_MIB, 1, 2)
    e.start_all()
    e.wait_in_sync("disk", [1, 2])
    with e.client(1, "disk") as c:
        for what, wanted, act in (
                ("a first write in an extent (control)", None, lambda: c.write(0, b"c" * 4096)),
                ("%d writes, all intents set" % WRITES, 0, lambda: some_writes(c)),
                ("one FLUSH after them", 1, c.flush)):
            if wanted == 0:
                set_intents(c, SIZE_MIB * measure.MIB)
            with witness(1) as primary, witness(2) as replica:
                act()
            yield what, wanted, count(primary), count(replica)


def run(_args, folder, _tools):
    report = {}
    print("durable: syncs while a guest does this, at the primary and at the replica")
    event = tracepoint(folder.path)
    ways = {"strace, --threads": by_strace()}
    if event:
        ways["%s, io_uring" % event] = by_tracepoint(event)
    else:
        print("    (no perf, or no tracepoint of this file system: only --threads is looked at)")
    for way, rows in ways.items():
        for what, wanted, primary, replica in rows:
            is_met = primary == replica == wanted if wanted is not None else bool(primary and replica)
            print("    %-40s%-44s%8s%8s   goal %s %s" % (way, what, primary, replica, "> 0" if wanted is None else wanted,
                                                      measure.verdict(is_met)), flush=True)
            report["%s: %s" % (way, what)] = [primary, replica]
    return report
