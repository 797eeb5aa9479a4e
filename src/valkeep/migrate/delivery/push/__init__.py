"""We write to the target as an ordinary client does: for targets that cannot, or may not, replicate from us (managed services that deny REPLICAOF).

    snapshot    the channel's, in the target's own format: as RESTORE commands over several connections (`snapshot`, `lanes`, `pieces`)
    stream      the channel's, in transactions that also hold the offset they lead to (`batches`, `stream`, `migrate.marker`): exactly once
    expiry      nothing expires early meanwhile (`expiry`)
    promotion   the target was a primary all the time: the marker is removed, and its setting put back, in one transaction of each server. While one of
                several markers is there, it is nobody's successor (`pushed.promoted`)
    a cluster   each shard gets what lies in its slots, has a marker of its own, and goes on from there by itself (`part`, `sharded`). Where the source is a
                cluster, too, each of its shards gives each of the target's shards a strand of its own, with a marker of its own

Before anything is changed, the state file says so. When it ends before the promotion, the setting is put back and the marker removed; what was copied stays
there. The target's own data is removed (``wipe_target``) only when the whole snapshot was read and checked; an empty target gets the copy while it still
arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncIterator, Awaitable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from valkeep.client.connection import Connection
from valkeep.errors import ExitCode, Refused, ValkeepError
from valkeep.migrate import marker
from valkeep.migrate.abreast import beside, together
from valkeep.migrate.cutover import promotion
from valkeep.migrate.cutover.abort import restore_target
from valkeep.migrate.delivery.push import expiry
from valkeep.migrate.delivery.push.part import Strand, parts_of
from valkeep.migrate.delivery.push.refusals import lost
from valkeep.migrate.delivery.push.snapshot import SnapshotLoad
from valkeep.migrate.fence import Aborted
from valkeep.migrate.state import MigrationState
from valkeep.report.events import Phase

if TYPE_CHECKING:
    from valkeep.migrate.cutover.cutover import Successor
    from valkeep.migrate.delivery import Parts
    from valkeep.migrate.delivery.push.part import Part
    from valkeep.migrate.delivery.push.stream import PushLink
    from valkeep.migrate.gateway.gateway import Gateway

__all__ = ["Push"]

READY_SECONDS: Final = 5.0
"""So long the promotion may ask the target before it is called off: all writers are kept out meanwhile."""


class Push:
    """A `Delivery`. ``undone``: gets what was put back when it ended badly, in sentences."""

    def __init__(self, parts: Parts) -> None:
        self.full_sync_seconds = 0.0
        self._run = parts
        self._target = parts.target
        self._parts = parts_of(parts.errand.target, parts.found)
        self._strands = {lane: tuple(Strand(part, lane) for part in self._parts) for lane in parts.gateways}
        self._carrying: list[asyncio.Task[None]] = []
        self._over: dict[Part, tuple[bytes, ...]] = {}  # markers of lanes that were over before this run
        self._promotion: asyncio.Future[float] | None = None

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """The target has the snapshot and takes the stream inside."""
        touched = False
        try:
            await self._for_each(gateway.resynced() for gateway in self._gateways)
            begun = await self._begun()
            wipe = begun is None and bool(self._run.found.keys)
            if wipe or not self._run.found.early:
                await self._for_each(gateway.snapshot_taken() for gateway in self._gateways)
            if begun is None:
                for part in self._parts:
                    await part.look()
            self._run.state.write(self._first_state())
            touched = True
            self._run.journal.begin("attach")
            await self._prepare(wipe=wipe)
            await self._load(begun)
            self._run.state.step("attached")
            await self._online()
            yield
        except BaseException as error:
            promoted = self._run.state.current is not None and self._run.state.current.step == "promoted"
            await self._stop()
            if touched and not promoted:
                self._expect_departure()
                await asyncio.shield(self._put_back(error))
            raise
        finally:
            await self._stop()
            for part in self._parts:
                await part.close()

    # -- Successor -------------------------------------------------------------------------------------------------------------------

    def of(self, lane: str) -> Successor:
        """Who takes over from this source."""
        return _Heir(self, lane)

    async def identify(self) -> str:
        """Of all parts, see `pushed.identity`."""
        return "+".join(await asyncio.gather(*(part.run_id() for part in self._parts)))

    async def drained(self, source_offset: int) -> None:
        """Of the only source."""
        (lane,) = self._strands
        await self.drained_of(lane, source_offset)

    async def drained_of(self, lane: str, source_offset: int) -> None:
        """The same, for one of several sources."""
        await self._run.gateways[lane].drained(source_offset)
        await together(strand.confirm() for strand in self._strands[lane])

    async def promote(self, run_id: str) -> float:
        """The target becomes what it is already: nobody's copy. Once, whoever of several sources' cut-overs asks. Raises ``Aborted`` when it surely did not,
        ``ValkeepError`` with ``definite=False`` when nobody knows whether it did."""
        if self._promotion is None:
            self._promotion = asyncio.ensure_future(self._promote(run_id))
        return await asyncio.shield(self._promotion)

    async def _promote(self, run_id: str) -> float:
        self._expect_departure()
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._make_ready(run_id)
        except (ValkeepError, TimeoutError) as error:  # before the first marker goes it surely is nobody's successor
            why = error.message if isinstance(error, ValkeepError) else f"not all of it answered within {READY_SECONDS:g} s"
            code = error.code if isinstance(error, ValkeepError) else ""
            raise Aborted(
                f"the target could not be promoted, and was not: {why}", remedy="see its log; start again", code=code or "VK-TARGET-LOST"
            ) from error
        try:
            failed = [why for part in self._parts if (why := await part.finish(self._markers(part)))]
        except (ValkeepError, TimeoutError) as error:
            raise promotion.uncertain(str(error), run_id) from error
        if failed:
            self._run.journal.say("warning", f"the target is the primary, but its setting could not be put back: {'; '.join(failed)}")
        return promotion.recorded(self._run.state, self._run.journal.emit, self._run.journal.clock)

    async def _make_ready(self, run_id: str) -> None:
        """Nothing more is written to it, and all that was is there."""
        for strand in self._all:
            assert strand.link is not None
            await strand.link.stop()
        if await self.identify() != run_id:
            raise lost(self._run.errand.target.address, "was restarted")
        await together(self._confirm(part) for part in self._parts)  # quickly: since the last look at the source nobody looks

    async def _confirm(self, part: Part) -> None:
        for strand in self._all:
            if strand.part is part:
                await strand.confirm()

    def hurry(self) -> None:
        """It asks for some seconds at most (`READY_SECONDS`)."""

    async def errors(self) -> int:
        """None: an error reply ends the delivery."""
        return 0

    def summary(self) -> dict[str, object]:
        """How it was delivered, for the report."""
        recopied = sum(strand.link.recopied for strand in self._all if strand.link is not None)
        found: dict[str, object] = {"how": "push", "expiry": self._expiry, "recopied": recopied}
        return found | ({"shards": len(self._parts)} if self._run.found.shards else {})

    # -- steps -----------------------------------------------------------------------------------------------------------------------

    @property
    def _gateways(self) -> tuple[Gateway, ...]:
        return tuple(self._run.gateways.values())

    @property
    def _all(self) -> tuple[Strand, ...]:
        return tuple(strand for strands in self._strands.values() for strand in strands)

    async def _for_each(self, works: Iterable[Awaitable[object]]) -> None:
        await beside(self._gateways, together(works))

    def _expect_departure(self) -> None:
        for gateway in self._gateways:
            gateway.expect_departure()

    @property
    def _expiry(self) -> str:
        return expiry.IMPORT_MODE if all(part.keeps for part in self._parts) else expiry.RECOPY

    def _first_state(self) -> MigrationState:
        errand = self._run.errand
        state = MigrationState("attaching", errand.source.display, errand.target.display, os.getpid(), delivery="push")
        return replace(state, source_shards=self._run.source_shards, **self._before())

    def _before(self) -> dict[str, Any]:
        """What the state file says of the target's settings."""
        if self._run.found.shards:
            return {"shards": {part.address: self._standing(part) for part in self._parts}}
        return {"target_before": self._parts[0].before}

    def _standing(self, part: Part) -> dict[str, str]:
        """Of a shard, for the state file (`pushed`)."""
        return {"marker": b" ".join(self._markers(part)).decode(), "run_id": part.door.run_id, **part.before}

    def _markers(self, part: Part) -> tuple[bytes, ...]:
        return (*(strand.key for strand in self._all if strand.part is part), *self._over.get(part, ()))

    async def _prepare(self, *, wipe: bool) -> None:
        before = self._before()
        for part in self._parts:
            await part.forbid_expiry()
        if self._before() != before:
            self._run.state.step("attaching", **self._before())
        keeps = self._expiry == expiry.IMPORT_MODE
        how = "nothing expires there meanwhile (import-mode)" if keeps else "keys whose renewal comes too late are copied again"
        count = len(self._parts)
        what = (
            f"the target's {count} shards are" if count > 1 else "the target's only shard is" if self._run.found.shards else "the target is"
        )
        self._run.journal.say("info", f"{what} written to as by a client; {how}")
        if wipe:
            self._run.journal.say("info", f"the target's {self._run.found.keys} keys and its functions are removed (--wipe-target)")
            for part in self._parts:
                await part.wipe()

    async def _begun(self) -> dict[bytes, marker.Marker] | None:
        """Where a run that was killed left these very channels in each part of the target, by the markers' keys; None: it has none of it."""
        left = self._run.state.current
        whole = all(gateway.channels[0].complete for gateway in self._gateways)
        if left is None or left.delivery != "push" or left.step not in ("attaching", "attached") or not whole:
            return None
        self._expect_same_shards(left)
        for part in self._parts:
            await part.end_others()
        begun: dict[bytes, marker.Marker] = {}
        for lane, strands in self._strands.items():
            (channel,) = self._run.gateways[lane].channels
            for strand in strands:
                value = await strand.marker()
                found = None if value is None else marker.Marker.parse(value)
                if found is None or found.replid != channel.replid:
                    return None
                if not channel.stream.start <= found.offset <= channel.stream.committed:
                    raise Refused(
                        f"the target {strand.part.address} has our stream up to {found.offset}, and {channel.stream.start} to "
                        f"{channel.stream.committed} of it is here",
                        remedy="begin anew: --fresh --wipe-target",
                        code="VK-PUSH-MARKER",
                    )
                begun[strand.key] = found
        for part in self._parts:
            said = left.shards[part.address] if left.shards else left.target_before
            part.before = {name: value for name, value in said.items() if name == expiry.SETTING}
        return begun

    def _expect_same_shards(self, left: MigrationState) -> None:
        """Raises ``Refused`` where the slots of a target that is a cluster moved since."""
        if left.shards and set(left.shards) != {part.address for part in self._parts}:
            raise Refused(
                f"the target had the shards {', '.join(left.shards)}, and has {', '.join(part.address for part in self._parts)}",
                remedy="begin anew: --fresh --wipe-target",
                code="VK-PUSH-MOVED",
            )
        for part in self._parts if left.shards else ():
            had, ours = left.shards[part.address]["marker"].encode().split(), self._markers(part)
            self._over[part] = tuple(key for key in had if key not in ours)
            if not set(ours) <= set(had):
                raise Refused(
                    f"the slots of the target's shard {part.address} moved since",
                    remedy="begin anew: --fresh --wipe-target",
                    code="VK-PUSH-MOVED",
                )

    async def _load(self, begun: dict[bytes, marker.Marker] | None) -> None:
        """The snapshots into all parts, then the streams begin to be carried."""
        loads = []
        for lane, strands in self._strands.items():
            gateway = self._run.gateways[lane]
            (channel,) = gateway.channels
            territory = gateway.options.territory
            for strand in strands:
                link = strand.linked(gateway, channel)
                gateway.adopt(link)
                if begun is None:
                    assert channel.snapshot is not None  # nobody has released it yet
                    loads.append(
                        SnapshotLoad(
                            channel.snapshot,
                            strand.part.door,
                            link.loaded,
                            owned=strand.owned(territory.carried if territory is not None else b""),
                        ).run()
                    )
        await beside(self._gateways, together(loads))
        await self._for_each(gateway.snapshot_taken() for gateway in self._gateways)
        self._run.journal.begin("snapshot-taken")
        for strand in self._all:
            assert strand.link is not None
            carrying = asyncio.create_task(
                strand.link.run(begun[strand.key] if begun is not None else None), name=f"push {strand.link.peer}"
            )
            carrying.add_done_callback(functools.partial(self._ended, strand.link))
            self._carrying.append(carrying)

    async def _online(self) -> None:
        journal = self._run.journal
        await self._for_each(
            strand.link.acknowledged_up_to(self._run.gateways[lane].channels[0].begins)
            for lane, strands in self._strands.items()
            for strand in strands
            if strand.link is not None
        )
        self.full_sync_seconds = journal.clock() - min(gateway.started for gateway in self._gateways)
        journal.begin("online")
        peers = ", ".join(part.address for part in self._parts)
        journal.emit(Phase(journal.clock(), "follow", detail=f"target {peers}"))
        for gateway in self._gateways:
            gateway.release_snapshots()

    def _ended(self, link: PushLink, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            link.gateway.fail(error)

    async def _stop(self) -> None:
        for strand in self._all:
            if strand.link is not None:
                strand.link.close("the delivery ends")
        for carrying in self._carrying:
            carrying.cancel()
        if self._carrying:
            await asyncio.wait(self._carrying)
            self._carrying.clear()

    async def _put_back(self, error: BaseException) -> None:
        state = self._run.state.current
        if state is None or state.step == "cutting":
            return
        try:
            if self._target.closed:
                self._target = await Connection.open(self._run.errand.target, client_name="valkeep-migrate")
            self._run.undone.extend(await restore_target(self._target, state))
            self._run.state.step("aborted")
            if isinstance(error, ValkeepError):
                error.changed = f"nothing on the source; {'; '.join(self._run.undone)}"
            for line in self._run.undone:
                self._run.journal.say("info", line)
        except ValkeepError as failed:
            self._run.journal.say(
                "warning", f"the target could not be put in order: {failed.message}; when it answers again: valkeep migrate abort"
            )
            if isinstance(error, ValkeepError):
                error.definite = False
                error.exit_code = ExitCode.UNCERTAIN


class _Heir:
    """A `Successor`: of one source, of several whose data come together."""

    def __init__(self, push: Push, lane: str) -> None:
        self._push = push
        self._lane = lane

    async def identify(self) -> str:
        return await self._push.identify()

    async def drained(self, source_offset: int) -> None:
        await self._push.drained_of(self._lane, source_offset)

    async def promote(self, run_id: str) -> float:
        return await self._push.promote(run_id)
