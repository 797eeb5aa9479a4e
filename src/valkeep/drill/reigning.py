"""Who reigned when, put together from the servers' logs, the watcher's samples and the faults: what the loss checker starts from.

The logs say each succession exactly: "Setting secondary replication ID to OLD, valid up to offset N": this node has OLD's stream up to
N - 1 and nothing behind it. The samples of OLD's primary say what had been acked before: with the last sample at or below that offset,
everything acked before it was *asked* is in the successor.

Which fault deposed a primary is the newest one that struck it before its successor began. A succession that no fault explains counts
as a failover at its own moment: it is what Sentinel or the cluster did by itself.

A node that came back as a primary under a new id succeeds itself; the watcher sees that where no log line tells it.

A reign can come to nothing. A primary that was deposed and not told of it yet (Sentinel takes 8 s) may be promoted again: it never was
anything else, so it goes on under the same id, and no line tells of it. What its successor took meanwhile is gone as soon as that one is
told to follow::

    n2   ── reigns under b ─────────── deposed; promoted again ── goes on under b ──
    n3            └ promoted ── reigns under c ──────┘ … told: follows b

So the last who was promoted reigns only if it still says so at the end. If it says that it is a replica, and one before it is a primary under its
id as ever, its own reign stands apart (see `strays`). It can not have lasted for longer than Sentinel takes to tell two primaries.

On a topology that is not ours there are no logs, and nobody says what was done to it. INFO then tells of the succession, with the same
two values as the log (master_replid2, second_repl_offset), but its moment lies somewhere between two samples: the earlier is taken.
What was done, and when, is not known either, so only what the samples prove bounds a loss: no min-replicas-to-write, whose window is
counted from the fault; no time by which Sentinel has demoted a primary that was cut off, because nobody knows until when it was; and
whoever came back may have lost its machine, not just its process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from valkeep.drill.checkers.promise import Settings, promise
from valkeep.drill.checkers.reigns import ALWAYS, NEVER, Bound, Cause, Deposition, Reign
from valkeep.drill.script import Step
from valkeep.drill.serverlog import Said, starts, successions
from valkeep.drill.strays import strays
from valkeep.drill.watch import Sample
from valkeep.topology.spec import Kind, TopologySpec

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
    """A reign without its end: ``offset``: how far it has the stream ``old``; -1 where unknown. ``seen``: no log tells of it, only samples."""

    node: str
    begins: int
    replid: str
    old: str = ""
    offset: int = -1
    seen: bool = False


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
        turns, void = _succession(turns), list[tuple[_Turn, int]]()
        if spec.kind is Kind.SENTINEL:  # a cluster's nodes promote replicas only, and these get an id of their own
            turns, void = _fulfilled(turns, samples)
        for place, turn in enumerate(turns):
            after = None if turn is turns[-1] else _reaching(turns[place + 1 :])
            deposed = None if after is None else _deposition(settings, turn, after, samples[turn.node], struck)
            found.append(Reign(turn.node, turn.begins, shard, deposed))
        found += (_void(settings, shard, turn, told, struck) for turn, told in void)
        if turns:
            known = [*turns, *(turn for turn, _ in void)]
            kept, ids = {(turn.node, turn.begins) for turn in known}, {turn.replid for turn in known}
            found += strays(settings, shard, kept, ids, {name: samples[name] for name in names}, lines, begin)
    return tuple(found)


def _succession(turns: Sequence[_Turn]) -> list[_Turn]:
    """Without those who came back as themselves while their replica's promotion was under way: the successor goes on with the stream before."""
    kept: list[_Turn] = []
    for turn in turns:
        while len(kept) > 1 and turn.node != kept[-1].node == kept[-2].node and turn.old in {one.replid for one in kept[:-1]}:
            kept.pop()
        if kept and (turn.node, turn.begins) == (kept[-1].node, kept[-1].begins):
            kept.pop()  # one process: its id changes once more when its first replica comes (replication.c, changeReplicationId)
        kept.append(turn)
    return kept


def _fulfilled(turns: Sequence[_Turn], samples: Mapping[str, Sequence[Sample]]) -> tuple[list[_Turn], list[tuple[_Turn, int]]]:
    """Without those at the end whose reigns came to nothing; and these, each with when its node first said that it follows."""
    kept, void = list(turns), list[tuple[_Turn, int]]()
    while (
        len(kept) > 1
        and (told := _told(samples[kept[-1].node], kept[-1]))
        and any(_reigns_on(samples[one.node], one, told) for one in kept[:-1])
    ):
        void.append((kept.pop(), told))
    return kept, void


def _told(samples: Sequence[Sample], turn: _Turn) -> int:
    """When it first said that it is a replica, after it had said that it reigns, if that is its last word; else 0."""
    said = [one for one in samples if one.at > turn.begins]
    last = max((one.at for one in said if one.role == "primary"), default=None)
    return 0 if last is None else next((one.answered for one in said if one.at > last and one.role == "replica"), 0)


def _reigns_on(samples: Sequence[Sample], turn: _Turn, told: int) -> bool:
    """Whether it still says that it is a primary, and by the same id, when a later one has been told that it is none."""
    last = samples[-1] if samples else None
    return last is not None and last.at > told and (last.role, last.replid) == ("primary", turn.replid)


def _void(settings: Settings, shard: int, turn: _Turn, told: int, struck: Sequence[Struck]) -> Reign:
    """A reign that came to nothing may lose all that it took, but not for long: the one before it was promoted again before Sentinel told it, and then
    this one was told as late. What a fault that struck it may cost is no more than that costs elsewhere."""
    fault = next((one for one in reversed(struck) if turn.begins <= one.at <= told and turn.node in one.nodes), None)
    late = promise(replace(settings, min_replicas=0), Cause.FAILOVER, at=turn.begins, promoted=turn.begins).until - turn.begins
    last = min(told, turn.begins + 2 * late)
    why = "the one before it was promoted again before it was told, and went on with its own stream"
    if fault is None:
        cause, at, bound = Cause.FAILOVER, turn.begins, Bound(ALWAYS, last, why)
    else:
        cause, at = _cause(fault, same=False), fault.at
        bound = promise(settings, cause, at=at, healed=fault.healed, promoted=turn.begins)
        bound = replace(bound, until=min(bound.until, last), why=f"{why}; {bound.why}")
    return Reign(turn.node, turn.begins, shard, Deposition(cause, at, bound, told, turn.begins), apart=True)


def _reaching(later: Sequence[_Turn]) -> _Turn:
    """The first of these, with as much of the stream before as has come through to the last: offsets go on from reign to reign, and a
    successor of a successor may have had less. Who came back by itself counts anew."""
    offsets = list(takewhile(lambda offset: offset >= 0, (one.offset for one in later)))
    return replace(later[0], offset=min(offsets)) if offsets else later[0]


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
                start = max((at for at in begins if at <= sample.answered), default=None)
                seen = not any(line.node == name for line in lines)
                news.append(_Turn(name, sample.at if start is None else start, sample.replid, sample.old, sample.old_offset, seen))
    for turn in sorted([*later, *news], key=lambda one: one.begins):
        if turn.node == turns[-1].node or (_succeeds(turns, turn) if turn in news else turn.offset >= 0):
            turns.append(replace(turn, begins=_before(samples[turn.node], turn)) if turn.seen and turn.node != turns[-1].node else turn)
    return turns


def _succeeds(turns: Sequence[_Turn], turn: _Turn) -> bool:
    """Whether another node goes on with the stream of one of these. Who had that stream as its own does not: it came back too late."""
    return turn.seen and turn.offset >= 0 and any(one.replid == turn.old and one.node != turn.node for one in turns)


def _before(samples: Sequence[Sample], turn: _Turn) -> int:
    """When this node was last seen as something else."""
    first = next(one.at for one in samples if one.replid == turn.replid and one.role == "primary")
    return max((one.at for one in samples if one.at < first), default=first)


def _deposition(settings: Settings, turn: _Turn, after: _Turn, samples: Sequence[Sample], struck: Sequence[Struck]) -> Deposition:
    fault = next(
        (one for one in reversed(struck) if turn.begins <= one.at <= after.begins + 1_000_000 and _deposes(one, turn.node, after.node)),
        None,
    )
    same = after.node == turn.node
    if fault is None and after.seen:
        return _unexplained(settings, turn, after, samples)
    if fault is None:
        cause, at, healed = (Cause.RESTART if same else Cause.FAILOVER), after.begins, None
    else:
        cause, at, healed = _cause(fault, same=same), fault.at, fault.healed
    until = _until(turn, cause, at, samples, fault, after)
    bound = promise(
        settings, cause, at=at, healed=healed, promoted=after.begins, promised_until=None if same else _promised_until(samples, turn, after)
    )
    return Deposition(cause, at, bound, until=until, promoted=after.begins, healed=healed)


def _unexplained(settings: Settings, turn: _Turn, after: _Turn, samples: Sequence[Sample]) -> Deposition:
    """Nobody says what ended it, or when."""
    settings = replace(settings, min_replicas=0)
    if after.node == turn.node:
        at = max((one.answered for one in samples if one.replid == turn.replid and one.role == "primary"), default=after.begins)
        return Deposition(Cause.CRASH, at, promise(settings, Cause.CRASH, at=at), until=after.begins, promoted=after.begins)
    at = after.begins
    bound = promise(settings, Cause.FAILOVER, at=at, promoted=at, promised_until=_promised_until(samples, turn, after))
    if settings.kind is not Kind.CLUSTER:
        bound = replace(bound, until=NEVER, why="nobody says what was done to it" + ("" if bound.since == ALWAYS else f"; {bound.why}"))
    return Deposition(Cause.FAILOVER, at, bound, until=_until(turn, Cause.FAILOVER, at, samples, None, after), promoted=at)


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
