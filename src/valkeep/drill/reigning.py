"""Who reigned when, put together from the servers' logs, the watcher's samples and the faults: what the loss checker starts from.

The logs say each succession exactly: "Setting secondary replication ID to OLD, valid up to offset N": this node has OLD's stream up to
N - 1 and nothing behind it. The samples of OLD's primary say what had been acked before: with the last sample at or below that offset,
everything acked before it was *asked* is in the successor.

Which fault deposed a primary is the newest one that struck it before its successor began. A succession that no fault explains counts
as a failover at its own moment: it is what Sentinel or the cluster did by itself.

A node that came back as a primary under a new id succeeds itself; the watcher sees that where no log line tells it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from valkeep.drill.checkers.promise import Settings, promise
from valkeep.drill.checkers.reigns import Cause, Deposition, Reign
from valkeep.drill.script import Step
from valkeep.drill.serverlog import Said, starts, successions
from valkeep.drill.watch import Sample
from valkeep.topology.spec import TopologySpec

__all__ = ["Struck", "reigns_of"]


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault as it was done. ``nodes``: whom it met. ``at``: just before; ``done``: just after. ``healed``: when it was undone (a pause resumed, a
    partition healed, a process started again), None when never."""

    step: Step
    nodes: tuple[str, ...]
    at: int
    done: int
    healed: int | None = None


_CAUSES: dict[str, Cause] = {
    "kill": Cause.KILL,
    "quorum-loss": Cause.KILL,
    "term": Cause.TERM,
    "restart": Cause.TERM,
    "restart-empty": Cause.TERM,
    "crash": Cause.KILL,
    "pause": Cause.PAUSE,
    "partition": Cause.PARTITION,
    "isolate": Cause.PARTITION,
    "promote": Cause.FAILOVER,
}
_BACK: dict[str, Cause] = {"crash": Cause.CRASH}
"""Causes of a node that succeeds itself; every other is a restart."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """A reign without its end: ``offset``: how far it has the stream ``old``; -1 where unknown."""

    node: str
    begins: int
    replid: str
    old: str = ""
    offset: int = -1


def reigns_of(
    spec: TopologySpec,
    settings: Settings,
    samples: Mapping[str, Sequence[Sample]],
    lines: list[Said],
    struck: Sequence[Struck],
    begin: int,
) -> tuple[Reign, ...]:
    """For each shard in order of succession. ``begin``: when the load began; what was before (the creation) is left out."""
    shards = {node.name: node.shard for node in spec.nodes() if node.role != "sentinel"}
    found: list[Reign] = []
    for shard in range(spec.shards):
        names = [name for name, its in shards.items() if its == shard]
        turns = _turns({name: samples[name] for name in names}, [line for line in lines if line.node in names], begin)
        for turn, after in pairwise([*turns, None]):
            assert turn is not None
            deposed = None if after is None else _deposition(settings, turn, after, samples[turn.node], struck)
            found.append(Reign(turn.node, turn.begins, shard, deposed))
    return tuple(found)


def _turns(samples: Mapping[str, Sequence[Sample]], lines: list[Said], begin: int) -> list[_Turn]:
    """The primaries of one shard in order of succession."""
    told = list(successions(lines))
    first = min(
        (
            (sample.at, name, sample)
            for name, listed in samples.items()
            for sample in listed
            if sample.role == "primary" and sample.at >= begin
        ),
        default=None,
    )
    if first is None:
        return []
    turns = [_Turn(first[1], 0, first[2].replid)]
    later = [_Turn(one.node, one.at, one.new, one.old, one.offset) for one in told if one.at > begin]
    # whoever came back as a primary: a new id that no succession tells of, on the node that reigned last
    news: list[_Turn] = []
    for name, listed in samples.items():
        known = {turns[0].replid, *(one.new for one in told)}
        begins = [at for at in starts(lines, name) if at > begin]
        for sample in listed:
            if sample.role == "primary" and sample.at > begin and sample.replid not in known and sample.replid:
                known.add(sample.replid)
                # it took writes before it was first seen: from when its process began to; the one before was dead long since
                news.append(_Turn(name, max((at for at in begins if at <= sample.answered), default=sample.at), sample.replid))
    for turn in sorted([*later, *news], key=lambda one: one.begins):
        if turn.offset >= 0 or turn.node == turns[-1].node:
            turns.append(turn)
    return turns


def _deposition(settings: Settings, turn: _Turn, after: _Turn, samples: Sequence[Sample], struck: Sequence[Struck]) -> Deposition:
    fault = next(
        (one for one in reversed(struck) if turn.begins <= one.at <= after.begins + 1_000_000 and _deposes(one, turn.node, after.node)),
        None,
    )
    same = after.node == turn.node
    if fault is None:
        cause, at, healed = (Cause.RESTART if same else Cause.FAILOVER), after.begins, None
    else:
        cause, at, healed = _cause(fault, same=same), fault.at, fault.healed
    until = _until(turn, cause, at, samples, fault, after)
    bound = promise(
        settings, cause, at=at, healed=healed, promoted=after.begins, promised_until=None if same else _promised_until(samples, turn, after)
    )
    return Deposition(cause, at, bound, until=until, promoted=after.begins, healed=healed)


def _deposes(fault: Struck, node: str, successor: str) -> bool:
    """Whether it struck this primary; a partition strikes both of its halves, whichever the step names."""
    return node in fault.nodes or (fault.step.fault == "partition" and successor in fault.nodes)


def _cause(fault: Struck, *, same: bool) -> Cause:
    if same:
        return _BACK.get(fault.step.fault, Cause.RESTART)
    if fault.step.fault == "promote" and fault.step.option("mode", "plain") in ("coordinated", "cluster"):
        return Cause.COORDINATED
    return _CAUSES.get(fault.step.fault, Cause.FAILOVER)


def _promised_until(samples: Sequence[Sample], turn: _Turn, after: _Turn) -> int | None:
    """The last moment by which everything acked is known to be in the successor; None without a sample at or below its offset."""
    if after.offset < 0 or after.old != turn.replid:
        return None
    return max(
        (one.at for one in samples if one.role == "primary" and one.replid == turn.replid and one.offset <= after.offset), default=None
    )


def _until(turn: _Turn, cause: Cause, at: int, samples: Sequence[Sample], fault: Struck | None, after: _Turn) -> int | None:
    """From when on it surely acked nothing as this reign's primary: its process was dead, or it said that it is a replica."""
    if after.node == turn.node:
        return after.begins
    if fault is not None and cause in (Cause.KILL, Cause.TERM):
        return fault.done
    return next((one.answered for one in samples if one.at > at and one.role == "replica"), None)
