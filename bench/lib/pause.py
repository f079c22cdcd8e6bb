# SPDX-License-Identifier: Apache-2.0
"""The longest gap between two answers to a guest that writes, when a replica dies or hangs."""
import os
import signal
import threading
import time

import engines
import measure

GOAL_S = 1.0
AROUND_S = 2.0  # is watched before and after
DEPTH = 4


class Guest(threading.Thread):
    """Writes 4 KiB, DEPTH at a time, and keeps when each was answered."""

    def __init__(self, e, size):
        super().__init__(daemon=True)
        self.client = e.client(1, "disk")
        self.size = size
        self.times, self.ends, self.error = [], threading.Event(), None

    def run(self):
        c, at, data = self.client, 0, os.urandom(4096)
        try:
            under_way = 0
            while not self.ends.is_set() or under_way:
                while under_way < DEPTH and not self.ends.is_set():
                    c.begin(c.WRITE, at, data=data)
                    at = (at + 4096 * 97) % (self.size * measure.MIB)
                    under_way += 1
                if under_way:
                    _, error, _ = c.end()
                    under_way -= 1
                    self.times.append(time.monotonic())
                    if error:
                        raise measure.Failed("the guest saw the error %d" % error)
        except (OSError, engines.Disconnected, measure.Failed) as e:
            self.error = e

    def stop(self):
        """The longest gap and the middle one, in seconds."""
        self.ends.set()
        self.join(60)
        self.client.close()
        if self.error or self.is_alive():
            raise measure.Failed("the guest was not served: %s" % (self.error or "it hangs"))
        gaps = sorted(b - a for a, b in zip(self.times, self.times[1:]))
        return gaps[-1], gaps[len(gaps) // 2]


def gap(e, size, number):
    """One replica is hit by signal @number, or nothing happens; afterwards all is as before."""
    e.wait_in_sync("disk", [1, 2], 60)
    g = Guest(e, size)
    g.start()
    time.sleep(AROUND_S)
    if number == signal.SIGKILL:
        e.kill(2)
    elif number:
        os.kill(e.procs[2].pid, number)
    if number:
        e.wait_in_sync("disk", [1], 30)
    time.sleep(AROUND_S)
    longest, _ = g.stop()
    if number == signal.SIGKILL:
        e.start(2)
    elif number:
        os.kill(e.procs[2].pid, signal.SIGCONT)
    return longest


def run(args, _folder, _tools):
    size = min(args.size, 256)
    kinds = {"nothing happens": 0, "a replica is killed": signal.SIGKILL, "a replica hangs": signal.SIGSTOP}
    print("pause: the longest gap between two answers, 4 KiB writes %d at a time, min/median/max in ms" % DEPTH)
    with engines.Engines(2, name="bench", linked=True) as e:
        e.create("disk", "%dMiB" % size, 1, 2)
        e.start_all()
        e.wait_in_sync("disk", [1, 2], 60)
        measure.fill_volume(e, 1, "disk", size)
        seen = measure.in_turn(args.rounds, kinds, lambda number: gap(e, size, number))
    for name, gaps in seen.items():
        goal = "   goal < %.0f ms %s" % (GOAL_S * 1000, measure.verdict(max(gaps) < GOAL_S)) if kinds[name] else ""
        print("    %-40s%22s%s" % (name, measure.spread([1000 * g for g in gaps]), goal), flush=True)
    return seen
