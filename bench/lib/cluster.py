# SPDX-License-Identifier: Apache-2.0
"""What the cluster takes from the engine: the same two replicas by themselves, and as an exported volume of three agents
with consensus, leases and links made by them."""
import measure
import servers

import disks
import engines
import harness

GOAL = 0.9
ALONE, WHOLE = "by itself", "through the cluster"


class Exported:
    """A volume with two replicas in a cluster of three nodes, served on the node that leads it."""

    def __init__(self, size):
        harness.BUILD = engines.BUILD
        self.c = harness.Cluster(3, name="bench")
        leader = self.c.leader()
        self.c.wait_for(lambda: all(n["engine"] for n in self.c.status(leader)["nodes"]), 20, "all have engines")
        self.c.apply(leader, "kind: volume\nname: disk\nsize: %dMiB\nreplicas: 2\n" % size)
        self.c.wait_for(lambda: disks.is_whole(self.c, leader, "disk"), 60, "both replicas are in sync")
        name = disks.volume(self.c, leader, "disk")["primary"]
        self.node = self.c.node(name)
        self.c.command(leader, "volume", "export", "disk", "--node", name)
        self.c.wait_for(lambda: disks.volume(self.c, leader, "disk")["served"], 30, "it is served")
        measure.fill_volume(self, 1, "disk", size)
        for i in [n.number for n in self.c.nodes if n.name in disks.in_sync(self.c, leader, "disk")]:
            servers.read_once(disks.data(self.c, i, "disk"))

    def client(self, _, name):
        return engines.Client(self.node.dir + "/run/nbd.sock", name)

    def where(self):
        return servers.nbd("nbd+unix:///disk?socket=%s/run/nbd.sock" % self.node.dir)

    def close(self):
        self.c.close()


def run(args, _folder, _tools):
    print("cluster: two replicas in a cluster of three agents beside the same without agents; goal: >= %.1f of its throughput"
          % GOAL)
    report, opened = {}, {}
    try:
        opened[ALONE] = servers.Kedge(args.size, 2)
        opened[WHOLE] = Exported(args.size)
        for name, row in measure.ROWS:
            if args.only not in name:
                continue
            seen = measure.in_turn(args.rounds, opened, lambda s, row=row: measure.fio(s.where(), row, args.size, args.seconds))
            speeds = {side: [s.iops for s in found] for side, found in seen.items()}
            more = measure.ratio(speeds[WHOLE], speeds[ALONE])
            print("    %-28s%26s%26s   x %.2f %s" % (name, measure.spread(speeds[ALONE]), measure.spread(speeds[WHOLE]), more,
                                                   measure.verdict(more >= GOAL)), flush=True)
            report[name] = {"seen": {k: [s._asdict() for s in v] for k, v in seen.items()}, "ratio": more}
    finally:
        for s in opened.values():
            s.close()
    return report
