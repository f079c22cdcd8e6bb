# SPDX-License-Identifier: Apache-2.0
"""Two replicas, synchronous over TLS, beside QEMU's synchronous mirror."""
import statistics

import measure
import servers

THROUGHPUT_GOAL, LATENCY_GOAL = 1.5, 2 / 3
OURS = ("kedge-vol --direct", "kedge-vol")
LIMIT = "the file itself"


def open_all(args, folder, tools, opened):
    opened[OURS[0]] = servers.Kedge(args.size, 2, ["--direct"])
    opened[OURS[1]] = servers.Kedge(args.size, 2)
    for cache in ("none", "directsync"):
        for aio in ("native", "io_uring"):
            opened["mirror, target %s, %s" % (cache, aio)] = servers.Mirror(folder, tools, args.size, cache, aio)
    opened[LIMIT] = servers.File(folder, args.size, 1)


def median(speeds, field):
    return statistics.median(getattr(s, field) for s in speeds)


def beside(ours, theirs):
    """How many times their throughput, and of their mean latency."""
    return (measure.ratio([s.iops for s in ours], [s.iops for s in theirs]),
            measure.ratio([s.mean_us for s in ours], [s.mean_us for s in theirs]))


def show_row(name, seen):
    """Every side, and ours beside the better rival for each kind of target. Returns the ratios."""
    ratios = {}
    unit = "MiB/s" if name.startswith("1m") else "per s"
    print("%-44s%22s%10s%10s" % (name, unit + ", min/med/max", "mean us", "p99 us"))
    for side, speeds in seen.items():
        print("    %-40s%22s%10.0f%10.0f" % (side, measure.spread([s.iops for s in speeds]), median(speeds, "mean_us"),
                                             median(speeds, "p99_us")))
    for cache in ("none", "directsync"):
        best = max((side for side in seen if "target %s," % cache in side), key=lambda s: median(seen[s], "iops"))
        for ours in OURS:
            more, later = ratios[ours + ", target " + cache] = beside(seen[ours], seen[best])
            print("    %-40s%22s%10s   goal %s" % (
                "%s / target %s" % (ours, cache), "x %.2f" % more, "x %.2f" % later,
                measure.verdict(more >= THROUGHPUT_GOAL and later <= LATENCY_GOAL)), flush=True)
    return ratios


def run(args, folder, tools):
    print("mirror: two replicas over TLS beside QEMU's write-blocking mirror to %s" % tools.words)
    print("    goal: >= %.1f times its throughput and <= %.2f of its mean latency (its own flush stays at home: with an fsync"
          "\n    after each write only the target `directsync` promises what ours does)" % (THROUGHPUT_GOAL, LATENCY_GOAL))
    opened, report = {}, {}
    try:
        open_all(args, folder, tools, opened)
        for name, row in measure.ROWS:
            if args.only not in name:
                continue
            seen = measure.in_turn(args.rounds, opened, lambda s, row=row: measure.fio(s.where(), row, args.size, args.seconds))
            for s in opened.values():
                if isinstance(s, servers.Mirror):
                    s.check()
            report[name] = {"seen": {k: [s._asdict() for s in v] for k, v in seen.items()}, "ratios": show_row(name, seen)}
    finally:
        for s in opened.values():
            s.close()
    return report
