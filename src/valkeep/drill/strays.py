"""Primaries that came back too late: they were deposed, their process was started again, and it believes that it is the primary.

    n1   ── reigns ──✕ killed                ┌─ started again, under a new id ──┐ told that it is a replica
    n2                    └─ promoted ── reigns ─────────────────────────────────────

Nothing but its own disk says who it is, and a primary's disk says "primary". Until a sentinel or the other nodes tell it, up to 18 s with
Sentinel, it takes the writes of every client that stays with it or comes back to it: on no data when it keeps none, else on what it had.
All of that is lost when it is told. It is a stream that no successor goes on with, so it stands apart from the succession; but who
wrote there was acked, and is told why it is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from valkeep.drill.checkers.promise import Settings, promise
from valkeep.drill.checkers.reigns import Cause, Deposition, Reign
from valkeep.drill.serverlog import Said, starts
from valkeep.drill.watch import Sample

__all__ = ["strays"]


def strays(
    settings: Settings,
    shard: int,
    kept: AbstractSet[tuple[str, int]],
    ids: AbstractSet[str],
    samples: Mapping[str, Sequence[Sample]],
    lines: list[Said],
    begin: int,
) -> Iterator[Reign]:
    """Reigns of one shard that stand apart. ``kept``: (node, since) of its succession, and ``ids`` their replication ids. ``begin``: when the
    load began, in ns."""
    for name, listed in samples.items():
        known = set(ids)
        begins = [at for at in starts(lines, name) if at > begin]
        for sample in listed:
            if sample.role != "primary" or sample.at <= begin or not sample.replid or sample.replid in known:
                continue
            known.add(sample.replid)
            since = max((at for at in begins if at <= sample.answered), default=0)
            if not since or (name, since) in kept:
                continue  # its process did not start again: what it acked stays unexplained. Or its id changed once more
            told = next((one.answered for one in listed if one.at > sample.at and one.role == "replica"), None)
            bound = promise(settings, Cause.FAILOVER, at=since, promoted=since)
            why = f"it was started again while another one reigned, and its stream ends where it was told; {bound.why}"
            yield Reign(
                name, since, shard, Deposition(Cause.FAILOVER, since, replace(bound, why=why), until=told, promoted=since), apart=True
            )
