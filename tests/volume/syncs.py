# SPDX-License-Identifier: Apache-2.0
"""Counts what an engine makes durable, as strace sees it: nothing here is the engine's own word.

An engine that uses io_uring syncs inside the kernel, where strace is blind: count engines that were started with
--threads."""
import collections
import os
import re
import signal
import subprocess

from engines import wait_for

MIB = 1 << 20
SYNCS = ("fdatasync", "fsync", "sync_file_range", "syncfs", "sync", "msync")
WRITES = ("pwrite64", "pwritev", "pwritev2", "write", "writev")


class Witness:
    """Looks at the engine of node @i while the block runs; then `syncs` and `writes` are counts by file name."""

    def __init__(self, e, i):
        self.e, self.i = e, i
        self.pid = e.procs[i].pid
        self.log = "%s/syncs%d.log" % (e.root, i)
        self.syncs, self.writes = collections.Counter(), collections.Counter()
        self.durable_writes = 0

    def __enter__(self):
        self.p = subprocess.Popen(["strace", "-f", "-qq", "-y", "-s", "0", "-o", self.log, "-e",
                                   "trace=" + ",".join(SYNCS + WRITES), "-p", str(self.pid)], start_new_session=True)
        try:
            wait_for(self.sees_all, 10, "strace is attached")
        except AssertionError:
            self.end()
            raise
        return self

    def sees_all(self):
        """Every thread of the engine is traced."""
        for thread in os.listdir("/proc/%d/task" % self.pid):
            with open("/proc/%d/task/%s/status" % (self.pid, thread), encoding="utf-8") as f:
                if "TracerPid:\t0\n" in f.read():
                    return False
        return True

    def end(self):
        self.p.send_signal(signal.SIGINT)  # it lets go of the engine
        self.p.wait(10)

    def __exit__(self, *_):
        self.end()
        with open(self.log, encoding="utf-8", errors="replace") as f:
            for line in f:
                self.count(line)

    def count(self, line):
        """A call that was begun; the second half of one that was interrupted is `<... resumed>`."""
        m = re.match(r"\d+\s+(\w+)\((?:\d+<([^>]*)>)?", line)
        if not m:
            return
        name = os.path.basename(m.group(2) or "")
        if m.group(1) in SYNCS:
            self.syncs[name] += 1
        elif name in ("data", "meta", "epochs"):
            self.writes[name] += 1
            self.durable_writes += "RWF_DSYNC" in line or "RWF_SYNC" in line


def set_intents(client, size):
    """Write into every extent, so that all its intents are set: the first write in an extent is a durable one."""
    for at in range(0, size, 16 * MIB):
        client.write(at, b"i" * 4096)
    client.flush()
