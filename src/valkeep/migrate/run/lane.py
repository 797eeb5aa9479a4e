"""One server of the source on its way to the target. A single server is one lane; of a cluster each shard is one.

What belongs to a lane is what its server has of its own: how it is read, the gateway that follows it, its fence, what a kill -9 leaves of it, and the proof
that its keys arrived. The target, its delivery and the decision to cut over belong to all lanes together.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from valkeep.client.cluster_nodes import ClusterNodes
from valkeep.client.connection import Connection
from valkeep.client.server_info import server_info
from valkeep.client.shard_primary import NoShardPrimary, ShardPrimary
from valkeep.migrate.control import is_locked
from valkeep.migrate.gateway.resumption import Resumption
from valkeep.migrate.run.whereabouts import Whereabouts
from valkeep.migrate.state import SHARDS, StateFile
from valkeep.migrate.transform.territory import Territory
from valkeep.topology.slots import ranges_of, slots_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from valkeep.client.endpoint import Endpoint
    from valkeep.client.named_primary import Source
    from valkeep.migrate.cutover.cutover import Successor
    from valkeep.migrate.gateway.gateway import Gateway
    from valkeep.migrate.journal import Journal
    from valkeep.migrate.outcome import RunOptions
    from valkeep.migrate.proof import Proof
    from valkeep.migrate.run.reading import Reading
    from valkeep.topology.slots import Ranges

__all__ = ["Lane", "Shard", "Start", "forget_others", "named", "standings", "starts"]


@dataclass(frozen=True, slots=True)
class Shard:
    """Of a source that is a cluster. ``name``: "1", "2", …; ``territory``: its slots, as they cross in its lane."""

    name: str
    primary: ShardPrimary
    territory: Territory


@dataclass(frozen=True, slots=True)
class Start:
    """A lane before anything was read. ``shard``: None of a single server."""

    source: Source
    where: Whereabouts
    state: StateFile
    resumption: Resumption
    shard: Shard | None = None

    @property
    def name(self) -> str:
        """ "" of a single server."""
        return self.shard.name if self.shard is not None else ""

    @property
    def territory(self) -> Territory | None:
        """What of it crosses; None: all."""
        return self.shard.territory if self.shard is not None else None

    @property
    def display(self) -> str:
        """For messages."""
        return f"shard {self.name}" if self.name else "the source"


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane that runs. ``successor``: who takes over from this server."""

    start: Start
    gateway: Gateway
    reading: Reading
    successor: Successor
    proof: Proof

    @property
    def name(self) -> str:
        return self.start.name

    @property
    def where(self) -> Whereabouts:
        return self.start.where

    @property
    def state(self) -> StateFile:
        return self.start.state


def named(path: Path | None, lane: str) -> Path | None:
    """A file of this lane beside those of the others: ``ledger.jsonl`` is ``ledger-2.jsonl`` of shard 2."""
    return path if path is None or not lane else path.with_stem(f"{path.stem}-{lane}")


async def starts(options: RunOptions, here: Endpoint, state: StateFile, journal: Journal) -> tuple[Start, ...]:
    """The lanes of this source: one, or one for each primary of a cluster, also those without slots yet. Where a killed run left off, those of that run."""
    left = state.read()
    shards: Mapping[str, Mapping[str, str]] = {}
    if left is not None and left.step in ("attaching", "attached") and not options.fresh:
        shards = left.source_shards
    if not shards:
        shards = await _shards(here)
    if not shards:
        ledger = options.report / "ledger.jsonl" if options.report is not None else None
        resumption = Resumption(options.state_directory, options.spool or options.state_directory, ledger)
        return (Start(options.source, Whereabouts(options.source, options.source_primary, journal), state, resumption),)
    found = []
    for name, shard in shards.items():
        node, *others = shard["nodes"].split()
        source = ShardPrimary((here,), node, others)
        directory = options.state_directory / SHARDS / name
        ledger = named(options.report / "ledger.jsonl", name) if options.report is not None else None
        resumption = Resumption(directory, options.spool or options.state_directory, ledger)
        if await _over(source, shard, shards.values()):
            resumption.remove()  # all its slots are copied again from whoever has them now
            continue
        where = Whereabouts(source, None, journal)
        found.append(Start(source, where, StateFile(directory), resumption, Shard(name, source, Territory(_slots(shard["slots"])))))
    return tuple(found)


def forget_others(options: RunOptions, lanes: Iterable[Start]) -> None:
    """Of a run that begins anew: remove what runs before it left of shards that are none of these, their spools above all. Only what Valkeep writes itself,
    and through no symbolic link; what else is in such a folder stays, with it. Whoever works there just now is left alone."""
    shards, ours = options.state_directory / SHARDS, {lane.name for lane in lanes}
    if shards.is_symlink() or not shards.is_dir():
        return
    for folder in sorted(shards.iterdir()):
        if folder.name in ours or not folder.name.isdecimal() or folder.is_symlink() or not folder.is_dir() or is_locked(folder):
            continue
        resumption, state = Resumption(folder, options.spool or options.state_directory, None), StateFile(folder)
        if resumption.path.is_symlink():  # it would say where the spool is
            continue
        with contextlib.suppress(OSError):
            resumption.remove()
            for path in (state.path, resumption.path):
                for left in (path, path.with_suffix(".new")):  # a kill left that
                    left.unlink(missing_ok=True)
            folder.rmdir()
    with contextlib.suppress(OSError):
        shards.rmdir()


async def _over(source: ShardPrimary, shard: Mapping[str, str], shards: Iterable[Mapping[str, str]]) -> bool:
    """Whether a shard is none any more (`resharding`): it had given all its slots away, or does not exist but as a replica of another of these."""
    try:
        await source.resolve()
    except NoShardPrimary as error:
        return (error.over and not shard["slots"]) or any(error.strayed in other["nodes"].split() for other in shards if other is not shard)
    return False


async def _shards(here: Endpoint) -> dict[str, dict[str, str]]:
    """Of the cluster of this node, as they stand in the state file; none where it is no cluster's."""
    async with await Connection.open(here, client_name="valkeep-migrate") as connection:
        if (await server_info(connection)).mode != "cluster":
            return {}
    async with ClusterNodes((here,)) as nodes:
        words = await nodes.look(everybody=True)
    primaries = [word for word in words.values() if word.me.primary]
    claimants = Counter(slot for word in primaries for slot in slots_of(word.me.ranges))
    found = {}
    for number, word in enumerate(sorted(primaries, key=lambda one: (not one.me.ranges, one.me.ranges, one.me.id)), 1):
        others = [one.me.id for one in words.values() if one.me.primary_id == word.me.id]
        surely = ranges_of(slot for slot in slots_of(word.me.ranges) if claimants[slot] == 1)  # the others are nobody's yet
        found[str(number)] = _standing((word.me.id, *others), surely)
    return found


def standings(lanes: Iterable[Start], brought: Mapping[str, Ranges]) -> dict[str, dict[str, str]]:
    """Of a source that is a cluster: its shards in the state file. ``brought``: the slots that are in the target, where these are not all that cross."""
    return {
        shard.name: _standing(shard.primary.members, brought.get(shard.name, shard.territory.ranges))
        for lane in lanes
        if (shard := lane.shard) is not None
    }


def _standing(nodes: tuple[str, ...], ranges: Ranges) -> dict[str, str]:
    return {"nodes": " ".join(nodes), "slots": " ".join(f"{first}-{last}" for first, last in ranges)}


def _slots(text: str) -> list[int]:
    ranges = [one.partition("-") for one in text.split()]
    return list(slots_of((int(first), int(last)) for first, _, last in ranges))
