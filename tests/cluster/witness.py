# SPDX-License-Identifier: Apache-2.0
"""The witness for P1 (a VM never executes on two nodes at once): /proc and the guests' own serial lines."""
import os
import threading
import time

import processes

INTERVAL_S = 0.02
YOUNG_S = 2.0       # a process this young may still exec() into something else
CONFIRM_S = 0.005   # between SIGKILL's receipt and the kernel's note of it a process can be preempted
SAME_TIME_S = 0.15  # a guest writes each 0.2 s: two that run at once write within half of that


class Witness:
    """Samples in a thread of its own. @dirs: node name -> its DIR. `history` tells how the QEMUs changed."""

    def __init__(self, dirs):
        self.dirs = dict(dirs)
        self.samples = 0
        self.violations = []
        self.excused = set() # VMs on a machine that is suspended whole, guard and all: P1's stated exception
        self.history = []   # (time, vm, node, pid, "running" | "stopped" | "gone")
        self._seen = {}     # pid -> (first seen, Process or None)
        self._last = {}     # (vm, node, pid) -> state in the history
        self._sizes = {}    # console file -> size
        self._grew = {}     # (vm, node) -> time of the last growth
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()
        return self

    def stop(self):
        self._ends.set()
        if self._thread.is_alive():
            self._thread.join()

    def check(self):
        """Raises when a VM was seen to execute twice, or when nobody looked."""
        if not self._thread.is_alive() and not self._ends.is_set():
            raise AssertionError("the witness is dead")
        if self.samples == 0:
            raise AssertionError("the witness saw nothing at all")
        if self.violations:
            raise AssertionError("P1 is broken:\n  " + "\n  ".join(self.violations[:10]))

    def events(self, vm, since=0.0):
        return [e for e in list(self.history) if e[1] == vm and e[0] >= since]

    def stopped_for(self, vm, node, since):
        """Seconds for which @vm's QEMU on @node stood still, in all, from @since until now."""
        total, began = 0.0, None
        for at, _, where, _, state in self.events(vm):
            if where != node:
                continue
            if state == "stopped":
                began = at
            elif began is not None:
                total, began = total + max(0.0, at - max(began, since)), None
        return total + (time.monotonic() - max(began, since) if began is not None else 0.0)

    def _run(self):
        while not self._ends.is_set():
            began = time.monotonic()
            self.sample(began)
            self._ends.wait(max(0.0, INTERVAL_S - (time.monotonic() - began)))

    def sample(self, now):
        guests = self._guests(now)
        self._compare(now, guests)
        self._note(now, guests)
        self._read_consoles(now)
        self.samples += 1

    def _guests(self, now):
        """vm -> [(node, pid, state)] of every QEMU there is."""
        there = set(processes.pids())
        for pid in set(self._seen) - there:
            del self._seen[pid]
        guests = {}
        for pid in there:
            first, p = self._seen.get(pid, (now, None))
            if now - first < YOUNG_S:
                p = processes.look_at(pid)
                self._seen[pid] = (first, p)
            if p is None or p.guest is None:
                continue
            node = next((n for n, d in self.dirs.items() if p.is_below(d)), None)
            if node is not None:
                guests.setdefault(p.guest, []).append((node, pid, processes.state(pid)))
        return guests

    def _compare(self, now, guests):
        for vm, found in guests.items():
            if vm in self.excused:
                continue
            running = [(node, pid) for node, pid, state in found if state not in processes.STOPPED + processes.GONE]
            # The first was read before the last: it counts only if it still runs now.
            running = [(node, pid) for node, pid in running
                       if processes.state(pid) not in processes.STOPPED + processes.GONE]
            if len({node for node, _ in running}) < 2:
                continue
            time.sleep(CONFIRM_S)
            running = [(node, pid, processes.state(pid)) for node, pid in running]
            if len({node for node, _, state in running if state not in processes.GONE}) > 1:
                self._violation(now, "%s runs as %s; before: %s" % (
                    vm, ", ".join("%s/%d:%s" % r for r in running), self.events(vm)[-6:]))

    def _note(self, now, guests):
        current = {}
        for vm, found in guests.items():
            for node, pid, state in found:
                if state not in processes.GONE:
                    current[(vm, node, pid)] = "stopped" if state in processes.STOPPED else "running"
        for key in set(self._last) | set(current):
            state = current.get(key, "gone")
            if self._last.get(key) != state:
                self.history.append((now, *key, state))
        self._last = current

    def _read_consoles(self, now):
        for node, path in self.dirs.items():
            try:
                entries = list(os.scandir(os.path.join(path, "console")))
            except OSError:
                continue
            for entry in entries:
                if entry.name.endswith(".log"):
                    self._read_size(now, node, entry)

    def _read_size(self, now, node, entry):
        try:
            size = entry.stat().st_size
        except OSError:
            return
        before = self._sizes.get(entry.path)
        self._sizes[entry.path] = size
        if before is None or size <= before:
            return
        vm = entry.name[:-len(".log")]
        self._grew[(vm, node)] = now
        for (other_vm, other), at in self._grew.items():
            if other_vm == vm and vm not in self.excused and other != node and now - at < SAME_TIME_S:
                self._violation(now, "the consoles of %s on %s and %s grow together" % (vm, node, other))

    def _violation(self, now, what):
        self.violations.append("%.2f: %s" % (now, what))
