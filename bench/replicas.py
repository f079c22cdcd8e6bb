#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two replicas of a volume, synchronous over TLS on loopback, beside what others do: QEMU's mirror, nbdcopy.

usage: bench/replicas.py [PART...] [options]

parts (all of them unless some are named):
  mirror   4 KiB and 1 MiB reads and writes, their throughput and latency, beside QEMU's write-blocking mirror to a TLS
           target, once opened with cache=none and once with cache=directsync
  resync   a first sync and a resync of a part, beside nbdcopy over TLS, AES-GCM, loopback and the disk
  pause    the longest gap between two answers when a replica is killed or hangs
  idle     private memory of an idle volume, at its primary and at its replica
  durable  how often an engine syncs in steady state, as strace and the kernel's tracepoints count it
  cluster  the rows of `mirror` for a volume that a cluster of three agents keeps, beside the engines by themselves

The sides take turns, A B A B; a figure is min/median/max of the rounds, a ratio the median of the rounds' ratios. Files
are written full and read once before anything is measured. Compare figures of one run only: machines change by the hour.

examples:
  bench/replicas.py mirror --only "random write" --seconds 5
  bench/replicas.py pause --rounds 20
  bench/replicas.py --build build/release --json replicas.json"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import measure  # noqa: E402
import cluster  # noqa: E402
import durable  # noqa: E402
import idle  # noqa: E402
import mirror  # noqa: E402
import pause  # noqa: E402
import resync  # noqa: E402
import servers  # noqa: E402

PARTS = {"mirror": mirror, "resync": resync, "pause": pause, "idle": idle, "durable": durable, "cluster": cluster}


def main():
    p = measure.parser(__doc__)
    p.add_argument("parts", nargs="*", metavar="PART", help="one or more of: " + ", ".join(PARTS))
    p.add_argument("--size", type=int, default=256, metavar="MIB", help="of each disk (default 256)")
    p.add_argument("--resync-size", type=int, default=1024, metavar="MIB", help="of the disk that is copied (default 1024)")
    args = measure.parse(p)
    for part in args.parts:
        if part not in PARTS:
            p.error("no part '%s': choose from %s" % (part, ", ".join(PARTS)))
    tools = servers.Tools(args.qemu)
    report = {}
    for part in args.parts or PARTS:
        with measure.Folder() as folder:
            report[part] = PARTS[part].run(args, folder, tools)
    return measure.keep(args, report)


if __name__ == "__main__":
    measure.run(main)
