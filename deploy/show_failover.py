#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Kills every process of the node that runs a VM, and shows what happens with times, until the guest counts elsewhere.

usage: deploy/show_failover.py --dir DIR --kedge PROGRAM --vm NAME [--patience SECONDS]

DIR holds one directory for each node. What is shown comes from /proc, from the guest's serial line and from `kedge
status` of a surviving node; the two times at the end from the first two only.
"""
import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

COUNTER = re.compile(rb"^(kedge-guest boot=[0-9a-f]+ count=\d+ uptime=[0-9.]+)\r?\n", re.MULTILINE)
PROGRAMS = ("kedged", "kedge-guard", "kedge-vol", "qemu-system")


def command_line(pid):
    try:
        with open("/proc/%s/cmdline" % pid, "rb") as f:
            return [arg.decode(errors="replace") for arg in f.read().split(b"\0")[:-1]]
    except OSError:
        return []


def processes(path):
    """(pid, argv) of our programs with something below the directory @path on their command line."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        argv = command_line(pid)
        if argv and os.path.basename(argv[0]).startswith(PROGRAMS) and any(path + "/" in arg + "/" for arg in argv):
            yield int(pid), argv


def guest_of(argv):
    for flag, value in zip(argv, argv[1:]):
        if flag == "-name":
            return value.split(",")[0].replace("guest=", "")
    return None


def state(pid):
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as f:
            return f.read().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


class Show:
    def __init__(self, args):
        self.args = args
        self.nodes = sorted(n for n in os.listdir(args.dir) if os.path.isfile("%s/%s/kedge.conf" % (args.dir, n)))
        self.killed = None
        self.zero = 0.0
        self.done = threading.Event()

    def say(self, text):
        print("  +%6.3f s  %s" % (time.monotonic() - self.zero, text), flush=True)

    def qemus(self, nodes):
        for node in nodes:
            for pid, argv in processes("%s/%s" % (self.args.dir, node)):
                if guest_of(argv) == self.args.vm:
                    yield node, pid, state(pid)

    def console_size(self, node):
        try:
            return os.stat(self.console(node)).st_size
        except OSError:
            return 0

    def console(self, node):
        return "%s/%s/console/%s.log" % (self.args.dir, node, self.args.vm)

    def new_line(self, node, offset):
        """The first whole counter line after @offset; a file that became shorter was begun anew."""
        try:
            with open(self.console(node), "rb") as f:
                f.seek(offset if self.console_size(node) >= offset else 0)
                m = COUNTER.search(f.read())
        except OSError:
            return None
        return m.group(1).decode() if m else None

    def kill_node(self):
        """SIGKILL until nothing of it is left: a process that was about to be forked counts too."""
        path = "%s/%s" % (self.args.dir, self.killed)
        found = list(processes(path))
        self.zero = time.monotonic()
        while found:
            for pid, _ in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            found = list(processes(path))

    def status(self, node):
        done = subprocess.run([self.args.kedge, "status", "--json"], capture_output=True, text=True, timeout=5,
                              env={**os.environ, "KEDGE_DIR": "%s/%s" % (self.args.dir, node)}, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def watch_status(self, node):
        """In a thread: say what changes in the words of @node."""
        before = None
        while not self.done.is_set():
            try:
                s = self.status(node)
                now = self.words(s) if s else None
            except (subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
                now = None
            if now and now != before and not self.done.is_set():
                self.say("%s says: %s" % (node, now))
                before = now
            self.done.wait(0.1)

    def words(self, status):
        nodes = ", ".join("%s %s" % (n["name"], n["state"]) for n in status["nodes"])
        vm = next((v for v in status["vms"] if v["name"] == self.args.vm), None)
        where = "%s %s on %s" % (self.args.vm, vm["state"], vm["node"] or "no node") if vm else "no " + self.args.vm
        return "%s; leader %s; %s" % (nodes, status["leader"] or "unknown", where)

    def run(self):
        running = [(node, pid) for node, pid, letter in self.qemus(self.nodes) if letter not in "TtZX"]
        if len(running) != 1:
            sys.exit("show_failover: '%s' runs %d times, not once" % (self.args.vm, len(running)))
        self.killed = running[0][0]
        others = [n for n in self.nodes if n != self.killed]
        offsets = {n: self.console_size(n) for n in others}
        self.kill_node()
        self.say("all processes of %s are killed" % self.killed)
        watcher = threading.Thread(target=self.watch_status, args=(others[0],), daemon=True)
        watcher.start()
        try:
            self.follow(others, offsets)
        finally:
            self.done.set()
        watcher.join(6)

    def follow(self, others, offsets):
        letters, runs_at = {}, None
        words = {"T": "is held (not yet allowed to run)", "t": "is held (not yet allowed to run)"}
        while time.monotonic() - self.zero < self.args.patience:
            for node, pid, letter in self.qemus(others):
                word = words.get(letter, "runs")
                if letter not in "ZX" and letters.get(pid) != word:
                    letters[pid] = word
                    self.say("QEMU %d on %s %s" % (pid, node, word))
                    runs_at = time.monotonic() if word == "runs" else runs_at
            for node in others:
                line = self.new_line(node, offsets[node])
                if line:
                    self.finish(node, line, runs_at)
                    return
            time.sleep(0.02)
        sys.exit("show_failover: '%s' did not run elsewhere within %d s" % (self.args.vm, self.args.patience))

    def finish(self, node, line, runs_at):
        counted = time.monotonic()
        self.say("the guest on %s says: %s" % (node, line))
        self.done.set()
        print("\n  failover from %s to %s: QEMU ran after %.2f s, the guest counted after %.2f s\n"
              % (self.killed, node, (runs_at or counted) - self.zero, counted - self.zero), flush=True)


def main():
    parser = argparse.ArgumentParser(description="Kill a VM's node and show what happens.")
    parser.add_argument("--dir", required=True)
    parser.add_argument("--kedge", required=True)
    parser.add_argument("--vm", required=True)
    parser.add_argument("--patience", type=int, default=60, help="seconds until the guest must count elsewhere")
    Show(parser.parse_args()).run()


if __name__ == "__main__":
    main()
