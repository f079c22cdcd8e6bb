#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long nobody serves: a node dies until its guest's QEMU runs elsewhere; a leader dies until the next change is
committed. Real agents, real guests, every process of the node killed; times from /proc and from a client's answer.

usage: bench/failover.py [--runs N] [--only disks|many|nodes|leaders]     N of each kind, 20 unless told

Beside each stands what the same machine needs without a failure: starting the same guest, committing a change. `disks`
kills in turn the nodes of two guests, one with a replicated disk and one without: what the volume takes is the difference. `many` has 200
volumes, and shows how long leader and engines work until all of them are led and served again, beyond the takeover wait.
"""
import argparse
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "cluster"))
import disks  # noqa: E402
import harness  # noqa: E402

FINE_S = 0.004  # /proc is looked at this often
GIVE_UP_S = 30


def wait_fine(condition, what):
    deadline = time.monotonic() + GIVE_UP_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("not within %d s: %s" % (GIVE_UP_S, what))
        time.sleep(FINE_S)


def runs_elsewhere(cluster, vm, dead):
    return any(q.node != dead and not q.stopped for q in cluster.qemus(vm))


def start_time(cluster, vm):
    """From the command to a QEMU that runs, without any failure."""
    began = time.monotonic()
    cluster.apply(cluster.leader(), cluster.vm_yaml(vm))
    wait_fine(lambda: any(not q.stopped for q in cluster.qemus(vm)), "%s runs" % vm)
    took = time.monotonic() - began
    cluster.wait_for(lambda: cluster.runs_on(vm), 60, "%s counts" % vm)
    return took


def node_failure(cluster, vm, with_leader):
    """Kill the node of @vm, moved to where it is wanted by naming another leader or another owner."""
    owner = cluster.wait_for(lambda: cluster.runs_on(vm), 60, "%s counts" % vm)
    if (cluster.leader() == owner) != with_leader:
        return None
    dead = cluster.node(owner).name
    began = time.monotonic()
    cluster.kill_node(owner)
    wait_fine(lambda: runs_elsewhere(cluster, vm, dead), "it runs elsewhere")
    took = time.monotonic() - began
    bring_back(cluster, owner)
    return took


def bring_back(cluster, i):
    cluster.start(i)
    cluster.wait_formed()
    cluster.wait_for(lambda: all(n["accel"] for n in cluster.status(1)["nodes"]), 30, "every node can run guests")


def commit(cluster, through, number):
    began = time.monotonic()
    cluster.apply(through, cluster.vm_yaml("row-%d" % number, run=False))
    return time.monotonic() - began


def leader_failure(cluster, number):
    leader = cluster.wait_for(cluster.leader, 30, "there is a leader")
    through = next(n.number for n in cluster.nodes if n.number != leader)
    usual = commit(cluster, through, 2 * number)
    cluster.kill_node(leader)
    took = commit(cluster, through, 2 * number + 1)
    bring_back(cluster, leader)
    return usual, took


def show(what, times, beside=None):
    line = "%-58s n=%-3d min %.2f  median %.2f  max %.2f s" % (
        what, len(times), min(times), statistics.median(times), max(times))
    if beside:
        line += "   x%.1f of the same without a failure" % (statistics.median(times) / statistics.median(beside))
    print(line, flush=True)


def node_failures(cluster, vm, runs):
    """The guest lands where it lands: both kinds are collected until each has @runs."""
    times = {True: [], False: []}
    while min(len(t) for t in times.values()) < runs:
        owner = cluster.wait_for(lambda: cluster.runs_on(vm), 60, "%s counts" % vm)
        is_leader = cluster.leader() == owner
        if len(times[is_leader]) >= runs:
            make_other_kind(cluster, owner, is_leader)
            continue
        took = node_failure(cluster, vm, is_leader)
        if took is not None:
            times[is_leader].append(took)
    return times


def one_death(cluster, vm):
    """Kill @vm's node. Seconds until its QEMU runs elsewhere, and, with a disk, until the guest's first write there."""
    owner = cluster.wait_for(lambda: cluster.runs_on(vm), 60, "%s counts" % vm)
    dead = cluster.node(owner).name
    has_disk = disks.volume(cluster, owner, vm + ".root") is not None
    others = [n.number for n in cluster.nodes if n.number != owner]
    before = {i: len(disks.told(cluster, vm, i)) for i in others}
    began = time.monotonic()
    cluster.kill_node(owner)
    wait_fine(lambda: runs_elsewhere(cluster, vm, dead), "%s runs elsewhere" % vm)
    took = time.monotonic() - began
    if has_disk:
        wait_fine(lambda: any(t.what == "wrote" for i in others for t in disks.told(cluster, vm, i)[before[i]:]), "writes")
    wrote = time.monotonic() - began
    bring_back(cluster, owner)
    if has_disk:
        cluster.wait_for(lambda: disks.is_whole(cluster, cluster.leader(), vm + ".root"), 60, "both replicas are in sync")
    return took, wrote


def disk_failures(cluster, runs):
    """One guest at a time, so that both kinds of death are of a node with one guest."""
    plain, with_disk = [], []
    cluster.wait_for(lambda: all(n["engine"] for n in cluster.status(1)["nodes"]), 30, "all engines are there")
    cluster.create("plain")
    cluster.create("disk", extra="disks: [{name: root, size: 256MiB, replicas: 2}]\n")
    cluster.wait_for(lambda: disks.is_whole(cluster, cluster.leader(), "disk.root"), 60, "both replicas are in sync")
    for _ in range(runs):
        plain.append(one_death(cluster, "plain"))
        with_disk.append(one_death(cluster, "disk"))
    show("node dies, until QEMU runs elsewhere, no disk", [took for took, _ in plain])
    show("node dies, until QEMU runs elsewhere, with its disk", [took for took, _ in with_disk])
    show("node dies, until the guest writes to its disk again", [wrote for _, wrote in with_disk])
    print("the volume's part: %.0f ms (difference of the medians)"
          % (1000 * (statistics.median(t for t, _ in with_disk) - statistics.median(t for t, _ in plain))), flush=True)
    cluster.delete("plain")
    cluster.delete("disk")


MANY = 200
TAKEOVER_S = 2.41


def led_without(rows, dead):
    return sum(r["primary"] != dead and r["led"] for r in rows)


def many_volumes(cluster, runs):
    """Nobody uses them: what is measured is the leader's and the engines' part alone."""
    def rows(i):
        return cluster.kedge(i, "volume", "ls")["volumes"]

    text = "".join("---\nkind: volume\nname: v%d\nsize: 8MiB\nreplicas: 2\n" % i for i in range(MANY))
    began = time.monotonic()
    cluster.apply(cluster.leader(), text)
    cluster.wait_for(lambda: all(r["problem"] is None for r in rows(cluster.leader())), 120, "all are in sync")
    print("%d volumes of two replicas are made and in sync after %.1f s" % (MANY, time.monotonic() - began), flush=True)
    times, moved = [], []
    for _ in range(runs):
        leader = cluster.leader()
        led = {n: sum(r["primary"] == n.name for r in rows(leader)) for n in cluster.nodes if n.number != leader}
        dead = max(led, key=led.get)
        moved.append(led[dead])
        began = time.monotonic()
        cluster.kill_node(dead.number)
        cluster.wait_for(lambda: led_without(rows(leader), dead.name) == MANY, 60, "all are led elsewhere", poll=0.02)
        times.append(time.monotonic() - began - TAKEOVER_S)
        cluster.start(dead.number)
        cluster.wait_formed()
        cluster.wait_for(lambda: all(r["problem"] is None for r in rows(leader)), 120, "all are in sync")
    show("%d volumes, %s led by the dead node: beyond the wait" % (MANY, moved), times)
    for i in range(MANY):
        cluster.command(cluster.leader(), "delete", "volume", "v%d" % i)


def make_other_kind(cluster, owner, is_leader):
    """Another leader: by the death of the present one, or of a leader that is not yet the owner."""
    if is_leader:
        cluster.stop(owner)  # hung for a moment: shorter than its lease, longer than an election
        time.sleep(1.2)
        cluster.cont(owner)
    else:
        leader = cluster.leader()
        cluster.stop(leader)
        time.sleep(1.2)
        cluster.cont(leader)
    cluster.wait_formed()


def guest_failures(cluster, runs):
    starts = [start_time(cluster, "start-%d" % i) for i in range(2)]
    for i in range(2):
        cluster.delete("start-%d" % i)
    cluster.create("till")
    times = node_failures(cluster, "till", runs)
    show("starting a guest", starts)
    show("node dies, not the leader, until QEMU runs elsewhere", times[False], starts)
    show("node dies, the leader too, until QEMU runs elsewhere", times[True], starts)
    cluster.delete("till")


def leader_failures(cluster, runs):
    pairs = [leader_failure(cluster, i) for i in range(runs)]
    show("a change is committed", [usual for usual, _ in pairs])
    show("leader dies, until a change is committed", [took for _, took in pairs], [usual for usual, _ in pairs])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--only", choices=("disks", "many", "nodes", "leaders"))
    args = parser.parse_args()
    with harness.Cluster(name="bench") as cluster:
        cluster.wait_for(lambda: all(n["accel"] for n in cluster.status(1)["nodes"]), 60, "every node can run guests")
        if args.only in (None, "disks"):
            disk_failures(cluster, args.runs)
        if args.only in (None, "many"):
            many_volumes(cluster, max(1, args.runs // 5))
        if args.only in (None, "nodes"):
            guest_failures(cluster, args.runs)
        if args.only in (None, "leaders"):
            leader_failures(cluster, args.runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
