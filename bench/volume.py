#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One replica of a volume beside other NBD servers on the same disk: the same rows, taken in turn, as ratios.

usage: bench/volume.py [--rounds N] [--seconds S] [--size MIB] [--only WORD] [--build DIR] [--qemu DIR] [--json FILE]

Through the page cache: kedge-vol beside `nbdkit file`. Around it: kedge-vol --direct beside `qemu-nbd --cache=none`, with
the faster of its two ways of I/O. Each row is a fio job over a Unix socket; the physical limit beside it is fio on the
file itself. A ratio above 1 is in our favour: the median of the ratios of each round. Files are written full and read
once before anything is measured."""
import os
import statistics
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import measure  # noqa: E402
import servers  # noqa: E402


def table(args, sides, rivals):
    """@sides: name -> server, ours first, the limit last; @rivals: those between. Returns what was seen, by row."""
    rows = {}
    print("%-44s" % "requests per second, min/median/max", *("%21s" % side for side in sides), "   ours/best rival")
    for name, row in measure.ROWS:
        if args.only not in name:
            continue
        seen = measure.in_turn(args.rounds, sides, lambda s, row=row: measure.fio(s.where(), row, args.size, args.seconds))
        rows[name] = seen
        iops = {side: [speed.iops for speed in speeds] for side, speeds in seen.items()}
        best = max(rivals, key=lambda r: statistics.median(iops[r]))
        print("%-44s" % name, *("%21s" % measure.spread(v) for v in iops.values()),
              "   %.2f" % measure.ratio(iops[next(iter(sides))], iops[best]), flush=True)
    return rows


def main():
    p = measure.parser(__doc__)
    p.add_argument("--size", type=int, default=256, metavar="MIB", help="of each file (default 256)")
    args = measure.parse(p)
    tools = servers.Tools(args.qemu)
    print("the rival is", tools.words)
    report = {}
    for direct in (0, 1):
        opened = {}
        with measure.Folder() as folder:
            try:
                opened["kedge-vol"] = servers.Kedge(args.size, options=["--direct"] if direct else [])
                if direct:
                    opened["qemu-nbd native"] = servers.QemuNbd(folder, tools, args.size, "native")
                    opened["qemu-nbd io_uring"] = servers.QemuNbd(folder, tools, args.size, "io_uring")
                else:
                    opened["nbdkit file"] = servers.Nbdkit(folder, args.size)
                rivals = list(opened)[1:]
                opened["the file itself"] = servers.File(folder, args.size, direct)
                what = "around the page cache" if direct else "through the page cache"
                print(what + ":")
                report[what] = table(args, opened, rivals)
            finally:
                for s in opened.values():
                    s.close()
    return measure.keep(args, report)


if __name__ == "__main__":
    measure.run(main)
