"""How a migration splits: what each shard of the source has to give, to whom, what it costs both sides, and what one machine has to bear.

Two looks (`survey`), then arithmetic (`plan`, pure): facts of preflight in, figures out. Preflight's blockers are in it, so that nobody plans what can't
start. Measured are keys, bytes, slots and rates, over a second; everything about time, memory and disk is an estimate, from the figures of
docs/reference/benchmarks.md (all of them of one machine of two cores, without a network) and from what each part opens, forks and keeps.

**What one process does.** ``valkeep migrate run`` has a lane for each shard of the source: a link that replicates from it, a spool, links to the target. All
lanes are cut over together: they are fenced at one time by one process, and nobody may promote a part. So the lanes of one cluster can't be spread over
machines. What can be: sources that have nothing to do with each other, which are migrations of their own.

**What is not in it**: the network's latency, TLS, a source that swaps while it forks, keys that are copied again, links that break and full syncs anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from valkeep.migrate.preflight.checks import Case, judge
from valkeep.migrate.preflight.facts import Permission, ServerFacts, human
from valkeep.migrate.preflight.finding import Finding, Severity
from valkeep.migrate.preflight.options import PreflightOptions
from valkeep.migrate.preflight.shards import gather_source, gather_target
from valkeep.topology.slots import SLOTS, Ranges, slots_of

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.report.events import Emit

__all__ = ["Cost", "Gives", "LanePlan", "Plan", "plan", "survey"]

GATEWAY_BYTES: Final = 40_000_000  # at its peak, whatever the data: benchmarks.md, "memory"
VERIFIER_BYTES: Final = 160_000_000  # the processes of one comparison: "verify, memory"
VERIFIED_PER_SECOND: Final = 803_000  # keys of both sides: "verify"
COPIED_PER_SECOND: Final = {
    "native": (417_000, 830_000),
    "push": (118_000, 400_000),
}  # keys, of busy and of idle cores: "full-sync", "push"
SYNCED_BYTES_PER_SECOND: Final = 50e6  # what a full sync makes at least, where values are large
MEASURED_WRITES: Final = 20_000  # a second, under which the lag was measured: "lag"
TRANSLATED_PER_SECOND: Final = 900_000  # commands, that one process took in: "drain"
VERIFY_FILE_BYTES: Final = 56 + 32  # of a key and side: its row, and a name of so many bytes
GIGABIT: Final = 125e6  # bytes a second

_ON_SOURCE: Final = {  # of a lane
    "psync": 8,  # the copy's link, the comparison's two, keys that are copied again, the cut-over and three that look what it may do
    "scan": 15,  # four that scan, two that copy keys again, five of the comparison, the cut-over's four
}
_WATCHED: Final = 2  # each node of a cluster: by whoever watches its slots, and by who takes some over
_ON_TARGET: Final = 3  # who attaches and promotes it, the comparison's two
_LANES_OF_PUSH: Final = 4  # connections of one lane to one server, while the snapshot is copied
_OF_ALL: Final = 2  # to each server: of the delivery, and of who promotes it

_ALL: Final[Ranges] = ((0, SLOTS - 1),)
_NO_PSYNC: Final = (Permission.DENIED, Permission.NO_KEYS, Permission.MISSING)


@dataclass(frozen=True, slots=True)
class Gives:
    """What a lane writes to a server of the target. ``slots``: so many of the lane's; None where the target has none."""

    target: str
    slots: int | None


@dataclass(frozen=True, slots=True)
class LanePlan:
    """One server of the source. ``ranges``: its slots, () of a cluster's primary that has none yet, None where there are no slots. ``data_bytes``:
    ``used_memory_dataset``; ``changes_per_second``, ``stream_bytes_per_second``: measured. None: not known. ``exact``: whether the stream's rate was counted,
    and not estimated."""

    name: str
    source: str
    ranges: Ranges | None
    keys: int
    data_bytes: int | None
    changes_per_second: float | None
    stream_bytes_per_second: float | None
    exact: bool
    gives: tuple[Gives, ...]

    @property
    def slots(self) -> int | None:
        return None if self.ranges is None else sum(last - first + 1 for first, last in self.ranges)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "source": self.source,
            "slots": self.slots,
            "ranges": [list(one) for one in self.ranges or ()],
            "keys": self.keys,
            "data_bytes": self.data_bytes,
            "changes_per_second": None if self.changes_per_second is None else round(self.changes_per_second),
            "stream_bytes_per_second": None if self.stream_bytes_per_second is None else round(self.stream_bytes_per_second),
            "stream_rate_is_exact": self.exact,
            "gives": [{"target": one.target, "slots": one.slots} for one in self.gives],
        }


@dataclass(frozen=True, slots=True)
class Cost:
    """What the migration needs at its peak. ``source_connections``, ``target_connections``, ``source_forks``, ``target_forks``: by address. ``spool_bytes``,
    ``verify_bytes``: on the disk; ``memory_bytes``, ``processes``: of the machine that runs it. ``network_in_bytes``, ``network_out_bytes``: for copy and
    comparison, without the stream; ``network_bytes_per_second``: of the stream, in and out. ``copy_seconds``: from idle to busy cores; ``gigabit_seconds``:
    what the copy takes on 1 Gbit/s at least; ``verify_seconds``: of the comparison."""

    source_connections: dict[str, int]
    target_connections: dict[str, int]
    source_forks: dict[str, int]
    target_forks: dict[str, int]
    processes: int
    memory_bytes: int
    spool_bytes: int
    verify_bytes: int
    network_in_bytes: int
    network_out_bytes: int
    network_bytes_per_second: int
    copy_seconds: tuple[float, float]
    gigabit_seconds: float
    verify_seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "source_connections": self.source_connections,
            "target_connections": self.target_connections,
            "source_forks": self.source_forks,
            "target_forks": self.target_forks,
            "processes": self.processes,
            "memory_bytes": self.memory_bytes,
            "spool_bytes": self.spool_bytes,
            "verify_bytes": self.verify_bytes,
            "network_in_bytes": self.network_in_bytes,
            "network_out_bytes": self.network_out_bytes,
            "network_bytes_per_second": self.network_bytes_per_second,
            "copy_seconds": [round(one, 1) for one in self.copy_seconds],
            "gigabit_seconds": round(self.gigabit_seconds, 1),
            "verify_seconds": round(self.verify_seconds, 1),
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """``read``, ``deliver``: what to say to ``valkeep migrate run``; ``why``: that delivery. ``blockers``: why it can't start like this. ``advice``: what one
    machine may not bear, and what is known about it."""

    source: ServerFacts
    target: ServerFacts
    read: str
    deliver: str
    why: str
    lanes: tuple[LanePlan, ...]
    cost: Cost
    blockers: tuple[Finding, ...] = ()
    advice: tuple[str, ...] = field(default=())

    @property
    def command(self) -> str:
        options = (" --read scan" if self.read == "scan" else "") + (" --deliver push" if self.deliver == "push" else "")
        return f"valkeep migrate run --source {self.source.display} --target {self.target.display}{options}"

    def to_json(self) -> dict[str, Any]:
        """``schema`` 1. Stable: every name below."""
        return {
            "schema": 1,
            "source": self.source.display,
            "target": self.target.display,
            "read": self.read,
            "deliver": self.deliver,
            "why": self.why,
            "command": self.command,
            "may_start": not self.blockers,
            "blockers": [finding.to_json() for finding in self.blockers],
            "lanes": [lane.to_json() for lane in self.lanes],
            "cost": self.cost.to_json(),
            "advice": list(self.advice),
        }


async def survey(source: Endpoint, target: Endpoint, emit: Emit, *, rate_seconds: float = 1.0, timeout: float = 5.0) -> Plan:
    """Look at both sides, and plan. Reads only; looks at no key. Raises what `preflight` raises."""
    options = PreflightOptions(sample_keys=0, rate_seconds=rate_seconds, timeout=timeout)
    started = time.monotonic()
    tasks = (
        asyncio.ensure_future(gather_source(source, options, emit, lambda: time.monotonic() - started)),
        asyncio.ensure_future(gather_target(target, timeout)),
    )
    try:
        here, there = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return plan(here, there)


def plan(source: ServerFacts, target: ServerFacts) -> Plan:
    """Pure. ``source``: of a cluster as `gather_source` gives it."""
    read, deliver, why = _way(source, target)
    lanes = tuple(_lanes(source, target))
    options = PreflightOptions(
        deliver=deliver, read=read, wipe_target=True
    )  # whether the target may be emptied is no question of how the work splits
    blockers = tuple(one for one in judge(Case(source, target, options)) if one.severity is Severity.BLOCKER)
    cost = _cost(lanes, target, read, deliver)
    return Plan(source, target, read, deliver, why, lanes, cost, blockers, tuple(_advice(lanes, cost, source, target)))


def _way(source: ServerFacts, target: ServerFacts) -> tuple[str, str, str]:
    """How the source is read, how the target gets it, and why so."""
    if source.mode == "cluster" or target.mode == "cluster":
        who = (
            "both sides are clusters"
            if source.mode == target.mode
            else f"the {'source' if source.mode == 'cluster' else 'target'} is a cluster"
        )
        return (
            "psync",
            "push",
            f"{who}: a cluster's node replicates from no server outside of it, so each of the target's shards is written to as by a client",
        )
    read = "scan" if source.may("PSYNC") in _NO_PSYNC else "psync"
    if target.may("REPLICAOF") in _NO_PSYNC:
        return (
            read,
            "push",
            f"the target does not let user {target.user or 'default'} make it a replica (REPLICAOF {target.may('REPLICAOF')})",
        )
    if read == "scan":
        return (
            read,
            "native",
            f"the source does not let user {source.user or 'default'} replicate (PSYNC {source.may('PSYNC')}), so it is read by SCAN",
        )
    return read, "native", "one server moves to one server: the target replicates from the gateway, and is a primary after the cut-over"


def _lanes(source: ServerFacts, target: ServerFacts) -> Iterator[LanePlan]:
    shards: list[tuple[Ranges | None, ServerFacts]] = [(None, source)]
    if source.cluster is not None:
        shards = [(shard.ranges, shard.facts) for shard in source.cluster.shards if shard.facts is not None] or shards
    for number, (ranges, facts) in enumerate(shards, 1):
        rate = facts.rate
        yield LanePlan(
            str(number),
            facts.address,
            ranges,
            facts.keys,
            facts.number("used_memory_dataset") or facts.data_bytes,
            None if rate is None else rate.changes_per_second,
            None if rate is None else rate.bytes_per_second,
            rate is not None and rate.exact,
            tuple(_gives(_ALL if ranges is None else ranges, target)),
        )


def _gives(ranges: Ranges, target: ServerFacts) -> Iterator[Gives]:
    if target.cluster is None:
        yield Gives(target.address, None)
        return
    mine = frozenset(slots_of(ranges))
    for shard in target.cluster.shards:
        if common := len(mine.intersection(slots_of(shard.ranges))):
            yield Gives(shard.address, common)


def _cost(lanes: tuple[LanePlan, ...], target: ServerFacts, read: str, deliver: str) -> Cost:
    """Estimates: see the file's head. A lane that gives nobody anything is copied, and not compared."""
    theirs = [shard.address for shard in target.cluster.shards] if target.cluster is not None else [target.address]
    compared = {address: sum(address in {one.target for one in lane.gives} for lane in lanes) for address in theirs}
    each = _LANES_OF_PUSH * len(lanes) + _OF_ALL if deliver == "push" else _ON_TARGET
    comparisons = sum(bool(lane.gives) for lane in lanes)
    clustered = any(lane.ranges is not None for lane in lanes)
    data = sum(lane.data_bytes or 0 for lane in lanes)
    keys = sum(lane.keys for lane in lanes)
    stream = sum(lane.stream_bytes_per_second or 0.0 for lane in lanes)
    busy, idle = COPIED_PER_SECOND[deliver]
    slow = max(keys / busy, data / SYNCED_BYTES_PER_SECOND)
    return Cost(
        source_connections={lane.source: _ON_SOURCE[read] + (_WATCHED if clustered else 0) for lane in lanes},
        target_connections=dict.fromkeys(theirs, each),
        source_forks={lane.source: 0 if read == "scan" else 1 + bool(lane.gives) for lane in lanes},
        target_forks=compared,
        processes=1 + 2 * comparisons,
        memory_bytes=GATEWAY_BYTES * len(lanes) + VERIFIER_BYTES * comparisons,
        spool_bytes=int(data + stream * slow),
        verify_bytes=2 * keys * VERIFY_FILE_BYTES,
        network_in_bytes=3 * data,  # the copy, and both sides' snapshots for the comparison
        network_out_bytes=data,
        network_bytes_per_second=int(3 * stream),  # to the gateway, to the comparison, to the target
        copy_seconds=(keys / idle, slow),
        gigabit_seconds=data / GIGABIT,
        verify_seconds=2 * keys / VERIFIED_PER_SECOND,
    )


def _advice(lanes: tuple[LanePlan, ...], cost: Cost, source: ServerFacts, target: ServerFacts) -> Iterator[str]:
    stream = cost.network_bytes_per_second
    writes = sum(lane.changes_per_second or 0.0 for lane in lanes)
    if stream > GIGABIT / 2:
        yield (
            f"the stream alone is {human(stream)}/s at this machine (it comes twice and goes once): more than half of 1 Gbit/s. Give it 10 Gbit/s, or begin "
            "when less is written"
        )
    if writes > TRANSLATED_PER_SECOND / 2:
        yield (
            f"{writes:,.0f} changes a second are more than half of what one process has been seen to take in ({TRANSLATED_PER_SECOND:,} commands a second): it "
            "may never come near the source. Begin when less is written"
        )
    elif writes > MEASURED_WRITES:
        yield f"{writes:,.0f} changes a second are more than the {MEASURED_WRITES:,} under which the lag was measured: rehearse with as many"
    for lane in lanes:
        if lane.stream_bytes_per_second is None:
            yield f"the write rate of {lane.source} could not be measured: spool and network are counted without it"
    if len(lanes) > 1:
        yield (
            f"the {len(lanes)} lanes are one process on one machine, because they are cut over at one moment: they can't be spread over machines. A "
            "faster machine helps, or fewer writes while it runs"
        )
    yield (
        "sources that have nothing to do with each other (other servers, other clusters) are migrations of their own: each with a --state of its own, on as "
        "many machines as you like, cut over one by one"
    )
    if target.keys or any(shard.keys for shard in target.shards):
        yield "the target has keys: a run wants --wipe-target, and deletes them"
    if source.mode != "cluster" and target.mode == "cluster":
        yield "from one server into a cluster there is one lane: it feeds every shard"
