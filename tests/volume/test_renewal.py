#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Links whose keys have served their time are made anew under load: the newer one first, then the streams of all volumes
move, of either direction, then the older one ends. Nothing is lost, and no write waits longer than without that; how
long they wait at most is printed beside what it is with no renewal, with and without a bound."""
import os
import re
import sys
import time

from engines import Engines, wait_for
from load import LoadedCase

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cluster"))
import harness  # noqa: E402

LINK_MIB = 96  # in a direction; a newer one is asked for at three quarters
TIMES = 4
UNBOUND_S = 3
BESIDE = "beside an older one"
MOVED = {"all has moved to the newer one", "the peer closed it", "two newer ones came"}
WORN_OUT = "its keys have served their time"


class Renewal(LoadedCase):
    nodes = 2

    def setUp(self):
        super().setUp()
        self.e.create("other", "%d" % self.size, 2, 1)
        self.e.wait_in_sync("other", [1, 2], 60)

    def said(self, what):
        """How often an engine of the two did at most."""
        return max(len(re.findall(what, self.e.log(i))) for i in self.all)

    def ends(self):
        """Why links ended, as both say."""
        return set(re.findall(r"link with node \d+ ended: ([^;]*)", self.e.log(1) + self.e.log(2)))

    def again(self, options, helper_options=()):
        """All processes anew, and what they say from here on."""
        for i in self.all:
            self.e.stop(i)
            p = self.e.helpers.pop(i)
            p.kill()
            p.wait()
        for i in self.all:
            open("%s/n%d.log" % (self.e.root, i), "w", encoding="utf-8").close()
        self.e.options, self.e.helper_options = list(options), list(helper_options)
        self.begin()
        self.e.wait_in_sync("other", self.all, 60)

    def load(self, ends):
        """Both volumes, one led by each, until @ends; returns the longest wait of their guests, and the epochs."""
        guests = [self.guest(), self.guest(seed=2, name="other")]
        for g in guests:
            g.longest = 0.0
        epochs = [self.e.row(g.volume)["epoch"] for g in guests]
        wait_for(lambda: ends() or any(g.error for g in guests), 120, "the links come and go: " + self.e.tails())
        longest = max(g.longest for g in guests)
        for g in guests:
            self.finish(g)
            self.wipe(g)
        return longest, [self.e.row(g.volume)["epoch"] for g in guests] == epochs

    def wipe(self, guest):
        """The next guest knows of nothing that was there before."""
        with self.e.client(int(self.e.row(guest.volume)["primary"]), guest.volume) as c:
            c.zero(0, guest.limit)
            c.flush()

    def test_renewed(self):
        began = time.monotonic()
        unbound, _ = self.load(lambda: time.monotonic() > began + UNBOUND_S)
        self.assertEqual(self.said(BESIDE), 0)
        self.again(["--link-bytes", str(LINK_MIB)])
        renewed, is_calm = self.load(lambda: self.said(BESIDE) >= TIMES)
        self.assertTrue(is_calm, "nobody was removed")
        wait_for(lambda: self.said(" ended: ") >= self.said(BESIDE), 30, "the older ones end: " + self.e.tails())
        self.assertLessEqual(self.ends(), MOVED)
        n = self.said(BESIDE)
        self.again(["--link-bytes", str(LINK_MIB)], ["--no-renewal"])  # the control
        ended, _ = self.load(lambda: self.said(WORN_OUT) >= TIMES)
        self.assertEqual(self.said(BESIDE), 0)
        print("    the longest wait of two guests: %.3f s without a bound, %.3f s with %d renewals, %.3f s where links "
              "end at the bound" % (unbound, renewed, n, ended))

    def test_peer_ends_the_older_one_at_once(self):
        """As an engine of before does."""
        self.again(["--link-bytes", str(LINK_MIB)], ["--replace"])
        longest, is_calm = self.load(lambda: self.said(" ended: ") >= TIMES)
        self.assertTrue(is_calm, "nobody was removed")
        self.assertNotIn(WORN_OUT, self.ends())
        print("    the longest wait beside %d of them: %.3f s" % (self.said(" ended: "), longest))


if __name__ == "__main__":
    harness.main()
