"""``make soak``: a cluster becomes another one while slots move, shards fail over, links break and Valkeep is killed, in a seeded order.

    python tests/soak/clusters.py [--rounds 3] [--events 12] [--seed 1] [--source redis-8.0] [--target valkey-9.1] [--shards 3] [--into 5]

Each round is a migration of its own, under two kinds of writers: some append and set, whose acknowledged writes must all arrive, others change the same few
keys in every way (`Churn`). Meanwhile things happen: slots move key by key, or by the servers themselves where they can; a shard's replica takes over; the
links to a source's or a target's shard are cut; Valkeep gets a kill -9 and is started again. Then it is cut over. Everything must be there: each
acknowledged write, every key with its value, no marker; and after the first snapshot no shard was asked for another one. Exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from valkey.exceptions import ValkeyError

from tests.support.cluster_pair import Clusters, Roamers, clusters, fill
from tests.support.moving import Churn, cut_over, move_by_server, move_slot, nodes_of, replicas_of
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until
from tests.support.writers import lost
from valkeep.topology.slots import SLOTS

CHURNED = range(0, SLOTS, 400)


class Round:
    """One migration; ``wrong``: what does not hold, in sentences."""

    def __init__(self, pair: Clusters, chance: random.Random, shards: int, *, by_server: bool) -> None:
        self.wrong: list[str] = []
        self.happened: dict[str, int] = {}
        self._pair = pair
        self._chance = chance
        self._shards = shards
        self._by_server = by_server
        self._runs = 0
        self._run: Valkeep | None = None

    @property
    def run(self) -> Valkeep:
        assert self._run is not None
        return self._run

    def perform(self, events: int) -> None:
        pair, chance = self._pair, self._chance
        fill(pair.here, 3000)
        with Roamers(pair.source, 4, pace=0.01) as writers, Churn(pair.source, CHURNED) as churn:
            self._start()
            for _ in range(events):
                time.sleep(chance.uniform(0.1, 1.5))
                kinds: list[Callable[[], None]] = [
                    self._slots,
                    self._slots,
                    self._slots,
                    self._fail_over,
                    self._cut_source,
                    self._cut_target,
                    self._kill,
                ]
                kind = chance.choice(kinds)
                name = kind.__name__.strip("_")
                self.happened[name] = self.happened.get(name, 0) + 1
                print(f"  {name}", flush=True)
                kind()
                if not self.run.running:
                    self.wrong.append(f"it ended after {name}: {self.run.stderr[-2000:]}")
                    return
                churn.goes_on(5)
            self.run.wait_for("waiting", 120)
            cut_over(pair, self.run)
            writers.stop()
        self.wrong += lost(writers.acknowledged(), pair.there)
        if markers := pair.markers():
            self.wrong.append(f"markers are left: {markers}")
        try:
            pair.assert_same()
        except AssertionError as error:
            self.wrong.append(f"the clusters differ: {str(error)[:500]}")
        print(f"  {writers.acked} numbers acknowledged, {churn.done} other writes; {self.happened}")

    def _start(self) -> None:
        self._runs += 1
        self._run = self._pair.run("--cutover", "manual", name=f"run{self._runs}").__enter__()
        if self._runs == 1:
            self.run.wait_for("online", 120)
            return
        until(lambda: "without a full sync" in self.run.stderr or not self.run.running, lambda: self.run.stderr, 120)
        self.run.wait_for("online", 120)
        if "starts a full sync" in self.run.stderr:
            self.wrong.append(f"run {self._runs} began with a full sync")

    def _kill(self) -> None:
        self.run.kill()
        time.sleep(self._chance.uniform(0, 0.5))
        self._start()

    def _slots(self) -> None:
        """Some of them, to a random shard."""
        first = self._chance.randrange(SLOTS - 50)
        taker = self._chance.randrange(self._shards)
        nodes = nodes_of(self._pair.source)
        owner = next(n for n in range(len(nodes)) if _owns(nodes[n], first))
        if owner == taker or nodes[taker].info("replication")["role"] != "master":
            return
        if self._by_server and self._chance.random() < 0.5:
            last = first
            while last + 1 < SLOTS and last < first + 49 and _owns(nodes[owner], last + 1):
                last += 1
            move_by_server(self._pair.source, owner, taker, (first, last))
            return
        for slot in range(first, first + self._chance.randrange(1, 6)):
            if _owns(nodes[owner], slot):
                move_slot(self._pair.source, slot, taker)

    def _fail_over(self) -> None:
        replicas = replicas_of(self._pair.source)
        if not replicas:
            return
        replica = self._chance.choice(replicas)
        until(lambda: replica.info("replication")["master_link_status"] == "up", "a replica follows", 30)
        replica.execute_command("CLUSTER FAILOVER")
        until(lambda: replica.info("replication")["role"] == "master", "it is promoted", 30)

    def _cut_source(self) -> None:
        self._cut(self._chance.choice(nodes_of(self._pair.source)), "TYPE", "replica")

    def _cut_target(self) -> None:
        node = self._chance.choice(nodes_of(self._pair.target))
        for client in node.client_list():
            if client["name"] == "valkeep-push":
                self._cut(node, "ID", client["id"])

    @staticmethod
    def _cut(node: object, *what: str) -> None:
        try:
            node.execute_command("CLIENT", "KILL", *what)  # type: ignore[attr-defined]
        except ValkeyError:  # it is gone already
            return

    def end(self) -> None:
        if self._run is not None:
            self._run.kill()


def _owns(node: object, slot: int) -> bool:
    me = node.execute_command("CLUSTER MYID").decode()  # type: ignore[attr-defined]
    table = node.execute_command("CLUSTER SLOTS")  # type: ignore[attr-defined]
    return any(first <= slot <= last and primary[2].decode() == me for first, last, primary, *_ in table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--source", default="redis-8.0")
    parser.add_argument("--target", default="valkey-9.1")
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--into", type=int, default=5)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    began = time.monotonic()
    wrong: list[str] = []
    for number in range(1, options.rounds + 1):
        print(f"round {number}: {options.source} of {options.shards} shards into {options.target} of {options.into}", flush=True)
        with tempfile.TemporaryDirectory(prefix="valkeep-soak-") as folder:
            shards = options.shards, options.into
            with clusters(options.source, options.target, Path(folder), shards, replicas=1) as pair:
                one = Round(pair, chance, options.shards, by_server=options.source.startswith("valkey-9"))
                try:
                    one.perform(options.events)
                finally:
                    one.end()
        for line in one.wrong:
            print(f"VIOLATED  {line}")
        wrong += one.wrong
    print(
        f"{options.rounds} rounds of {options.events} events in {time.monotonic() - began:.0f} s (seed {options.seed}): {len(wrong)} violations"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
