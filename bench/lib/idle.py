# SPDX-License-Identifier: Apache-2.0
"""What an idle volume costs in memory that no other process shares, at its primary and at a replica."""
import re
import time

import engines
import measure

GOAL_MIB = 1.0
COUNTS = (1, 10, 50)
SIZES = {"1GiB": 1, "64GiB": 64}
MAP_MIB = 0.125  # of each GiB, if all of its map is resident: 8 bytes for 64 KiB
SETTLE_S = 1.0


def private_kib(pid):
    with open("/proc/%d/smaps_rollup" % pid, encoding="ascii") as f:
        return sum(int(kib) for kib in re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+) kB", f.read(), re.MULTILINE))


def memory(count, size):
    """KiB of primary and replica with @count volumes, all in sync and idle."""
    with engines.Engines(2, name="bench", linked=True) as e:
        for i in range(count):
            e.create("v%d" % i, size, 1, 2)
        e.start_all()
        for i in range(count):
            e.wait_in_sync("v%d" % i, [1, 2], 120)
        time.sleep(SETTLE_S)
        return [private_kib(e.procs[node].pid) for node in (1, 2)]


def slope(points):
    """Of the line that fits best."""
    n = len(points)
    mx, my = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    return sum((x - mx) * (y - my) for x, y in points) / sum((x - mx) ** 2 for x, _ in points)


def run(args, _folder, _tools):
    report = {}
    print("idle: private memory of an engine, min/median/max in KiB")
    sides = {(size, count): None for size in SIZES for count in COUNTS}
    seen = measure.in_turn(args.rounds, {key: key for key in sides}, lambda key: memory(key[1], key[0]))
    for size in SIZES:
        for node, role in enumerate(("primary", "replica")):
            points = [(count, kib[node]) for count in COUNTS for kib in seen[size, count]]
            each = slope(points) / 1024
            goal = GOAL_MIB + SIZES[size] * MAP_MIB
            print("    %-40s%s   each %.3f MiB, goal < %.3f with its whole map %s, < %.0f without any %s" % (
                "%s volumes of %s, %s" % (",".join(str(c) for c in COUNTS), size, role),
                "  ".join("%20s" % measure.spread([kib[node] for kib in seen[size, count]]) for count in COUNTS), each, goal,
                measure.verdict(each < goal), GOAL_MIB, measure.verdict(each < GOAL_MIB)), flush=True)
            report["%s %s" % (size, role)] = {"points": points, "mib_each": each}
    return report
