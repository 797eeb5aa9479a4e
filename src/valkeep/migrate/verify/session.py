"""A verification from the inside: what the worker process does, step by step. The package's head says why in this order."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import ServerInfo, server_info
from valkeep.errors import ConnectionLost, ValkeepError
from valkeep.migrate.verify.compare import compare_partitions
from valkeep.migrate.verify.explain import explain
from valkeep.migrate.verify.found import Found, read_names
from valkeep.migrate.verify.functions import libraries_of
from valkeep.migrate.verify.judge import Seen, is_hash, judge
from valkeep.migrate.verify.lines import Worker, endpoint_to, error_from, pack
from valkeep.migrate.verify.link import Link
from valkeep.migrate.verify.look import TOLERANCE, Eye
from valkeep.migrate.verify.memory import peak_memory
from valkeep.migrate.verify.result import Comparison, Difference
from valkeep.migrate.verify.side import Snapshot, partitions_for, read_snapshot, written_path
from valkeep.migrate.verify.written import Key, Written
from valkeep.wire.digest import Digester

__all__ = ["Session", "Settings"]

ATTEMPTS = 3  # full verifications, when FLUSHALL and the like spoil one
ROUNDS = 60  # of looking again at keys that are written all the time
STREAM_WAIT = 30.0  # seconds that the stream may lag behind the source's own offset
DOUBTS = 4  # looks at a difference, where the barrier proves nothing …
DOUBT_SECONDS = 2.0  # … over at least so long, until it counts
FINAL_BATCH = 1000

Say = Callable[..., None]
Wait = Callable[[int], Awaitable[None]]


class Settings:
    """What a session is told. ``mode``: refuse (or exact) | keep-field | drop-field. ``exact``: the barrier proves what it says."""

    def __init__(self, source: Endpoint, target: Endpoint, mode: str, exact: bool, directory: Path) -> None:
        self.source, self.target, self.mode, self.exact, self.directory = source, target, mode, exact, directory


class _Spoiled(Exception):
    """Something happened on the source that this pass can't judge."""


class Session:
    """``full``, ``round``, ``final`` and ``repair``, one at a time. ``close`` removes the files and ends the target's process."""

    def __init__(self, settings: Settings, barrier: Wait, say: Say) -> None:
        self._settings = settings
        self._barrier = barrier
        self._say = say
        self.mode = settings.mode
        self._directory = settings.directory
        self._link: Link | None = None
        self._follower: asyncio.Task[None] | None = None
        self._written: Written | None = None
        self._moved = asyncio.Event()
        self._broken: BaseException | None = None
        self._side: Worker | None = None
        self._found = Found(self._directory)
        self._debt: dict[Key, None] = {}
        self._doubts: dict[Key, tuple[int, float]] = {}
        self._counts: dict[str, Any] = {}
        self._notes: list[str] = []
        self._connections: list[Connection] = []

    # ------------------------------------------------------------------------------------------------------------ set-up

    async def open(self) -> None:
        """Connect to both sides. Raises what `Connection.open` raises."""
        source = await Connection.open(self._settings.source.without_database(), client_name="valkeep-verify")
        self._connections.append(source)
        target = await Connection.open(self._settings.target.without_database(), client_name="valkeep-verify")
        self._connections.append(target)
        self._source, self._target = source, target
        self.source_info: ServerInfo = await server_info(source)
        self.target_info: ServerInfo = await server_info(target)
        if self.target_info.kind == "valkey" and self.target_info.version >= (9, 0):
            self.mode = "exact"  # whatever the policy: this target has fields that expire
        # Valkey leaves expired fields out of DUMP and snapshots before it says HDEL; a target that keeps fields for ever still has them then
        self._hides_fields = self.mode == "keep-field" and self.source_info.kind == "valkey"
        self._see_source, self._see_target = await Eye.open(source), await Eye.open(target)
        if not self._see_source.exact_expiry:
            self._notes.append(
                f"the source has no PEXPIRETIME: expiries of keys that were looked at again are compared to within {TOLERANCE} ms"
            )
        self._side = await Worker.start("side")

    async def _new_side(self) -> None:
        """The target's process is in the middle of something that nobody waits for any more."""
        if self._side is not None:
            self._side.process.kill()
            await self._side.close()
        self._side = await Worker.start("side")

    async def close(self) -> None:
        await self._unlink()
        if self._side is not None:
            await self._side.close()
        for connection in self._connections:
            await connection.close()
        self._found.close()

    async def _unlink(self) -> None:
        if self._follower is not None:
            self._follower.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._follower
            self._follower = None
        if self._link is not None:
            await self._link.close()
            self._link = None
        self._written = None

    # -------------------------------------------------------------------------------------------------------------- full

    async def full(self) -> Comparison:
        """Compare everything. Starts over when the source flushes under it; after ``ATTEMPTS`` the verdict is unknown."""
        reason = ""
        for attempt in range(ATTEMPTS):
            begun = time.monotonic()
            try:
                await self._compare_snapshots()
                await self._settle_debt(take_all=True)
                await self._judge_functions()
                return await self._comparison(begun)
            except _Spoiled as spoiled:
                reason = str(spoiled)
                self._say("note", level="warning", text=f"{reason}: attempt {attempt + 1} of {ATTEMPTS} is void")
        return Comparison.unknown(f"{reason}, in each of {ATTEMPTS} attempts")

    async def _compare_snapshots(self) -> None:
        """Steps 1 to 4 of the package's head."""
        await self._unlink()
        self._found.close()
        for path in self._directory.iterdir():
            path.unlink() if path.is_file() else shutil.rmtree(path)
        self._found = Found(self._directory)
        self._debt, self._doubts, self._broken = {}, {}, None
        self._counts = {"looked": 0, "rounds": 0, "expired": 0, "repaired": 0}
        key = secrets.token_bytes(16)
        info, other = await server_info(self._source), await server_info(self._target)
        partitions = partitions_for(max(sum(info.keys.values()), sum(other.keys.values())))
        begun = time.monotonic()
        self._say("note", level="info", text="both servers fork once for a snapshot")
        self._say("phase", name="verify-snapshots", done=False)
        link = self._link = await Link.open(self._settings.source)
        self._counts["source_offset"] = link.offset
        ready: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()
        self._follower = asyncio.create_task(self._follow(link, key, partitions, ready))
        try:
            await self._barrier(link.offset)
            theirs, fork = await self._target_snapshot(key, partitions)
            mark = await self._see_source.offset()
            mine = await ready
            done = await theirs
        except BaseException:
            await self._new_side()
            self._raise_broken()
            raise
        deadline = max(await self._see_source.clock(), await self._see_target.clock(), 0)
        if deadline == 0:
            self._notes.append("neither server tells its clock (TIME): expired keys that only one side has removed count as differences")
        await self._tracked(mark)
        written = self._following
        self._sound()
        self._write_digests(written, key, partitions)
        final = self._settings.exact and not written.scripts and not self._hides_fields
        counts = await self._compare(partitions, deadline, final)
        self._counts["expired"] += counts.get("expired", 0)
        self._counts |= {
            "keys_source": mine.keys,
            "keys_target": done["keys"],
            "target_offset": fork,
            "functions_source": mine.functions,
            "functions_target": done["functions"],
            "snapshot_seconds": time.monotonic() - begun,
            "memory": done["memory"],
        }
        for name in ("differences-mine", "differences-theirs"):
            for kind, database, one in read_names(self._directory / name):
                if kind == "again":
                    self._debt[database, one] = None
                    if len(self._debt) > 2_000_000:
                        raise ValkeepError(
                            "more than two million keys would have to be looked at again",
                            remedy="verify while fewer writes run, or through the gateway, which knows the target's offset",
                        )
                else:
                    self._found.add(kind, database, one)
        self._say("phase", name="verify-snapshots", done=True)
        seconds = self._counts["snapshot_seconds"]
        self._counts["rate"] = (mine.keys + done["keys"]) / seconds if seconds > 0 else 0.0
        await self._explain_examples(deadline)

    async def _follow(self, link: Link, key: bytes, partitions: int, ready: asyncio.Future[Snapshot]) -> None:
        """The source's side: its snapshot, then its stream for as long as the session lasts."""
        try:
            snapshot = await read_snapshot(link.snapshot(), self._directory, "source", key, partitions, self.mode, self._progress("source"))
            written = Written(link.offset, snapshot.stream_database, self._directory)
            self._written = written
            ready.set_result(snapshot)
            async for data in link.stream():
                written.feed(data)
                link.processed = written.position
                self._moved.set()
        except BaseException as error:
            self._broken = error
            if not ready.done():
                ready.set_exception(error if isinstance(error, Exception) else ConnectionLost("stopped", remedy="verify again"))
                ready.exception()
            self._moved.set()
            if isinstance(error, asyncio.CancelledError):
                raise

    def _progress(self, side: str) -> Callable[[int, int], None]:
        return lambda keys, size: self._say("progress", side=side, keys=keys, bytes=size)

    async def _target_snapshot(self, key: bytes, partitions: int) -> tuple[asyncio.Task[dict[str, Any]], int]:
        """Ask for the target's snapshot until it is one that was begun after now; returns its task, and its offset."""
        side = self._side
        assert side is not None
        least = await self._see_target.offset()
        for _ in range(5):
            side.ask(
                "snapshot",
                endpoint=endpoint_to(self._settings.target),
                key=pack(key),
                partitions=partitions,
                mode="exact",
                directory=str(self._directory),
            )
            heard = await side.hear()
            if heard["say"] == "error":
                raise error_from(heard)
            offset: int = heard["offset"]
            if offset >= least or heard["replid"] != (await server_info(self._target)).replid:
                side.ask("go")
                return asyncio.create_task(self._target_done(side)), offset
            side.ask("drop")
        raise ConnectionLost(
            f"the target hands out snapshots of offset {offset}, older than its data at {least}",
            remedy="wait until its current BGSAVE has ended, then verify again",
        )

    async def _target_done(self, side: Worker) -> dict[str, Any]:
        while True:
            heard = await side.hear()
            if heard["say"] == "error":
                raise error_from(heard)
            if heard["say"] == "progress":
                self._say("progress", side="target", keys=heard["keys"], bytes=heard["bytes"])
                continue
            return heard

    def _write_digests(self, written: Written, key: bytes, partitions: int) -> None:
        digester = Digester(key)
        buffers = [bytearray() for _ in range(partitions)]
        for database, name in written.names():
            digest = digester.key_digest(database, name)
            buffers[digest[0] & (partitions - 1)] += digest
        for number, buffer in enumerate(buffers):
            written_path(self._directory, number).write_bytes(buffer)

    async def _compare(self, partitions: int, deadline: int, final: bool) -> dict[str, int]:
        """Each process compares half of the partitions."""
        side = self._side
        assert side is not None
        mine, theirs = list(range(0, partitions, 2)), list(range(1, partitions, 2))
        side.ask("compare", directory=str(self._directory), partitions=theirs, deadline=deadline, final=final, out="differences-theirs")
        counts = compare_partitions(self._directory, mine, deadline, final=final, out=self._directory / "differences-mine")
        heard = await side.hear()
        if heard["say"] == "error":
            raise error_from(heard)
        for name, count in heard["counts"].items():
            counts[name] = counts.get(name, 0) + count
        return counts

    # ------------------------------------------------------------------------------------------------------ looking again

    @property
    def _following(self) -> Written:
        if self._written is None:
            raise ConnectionLost("the source's stream is not followed", remedy="begin with a full verification")
        return self._written

    def _raise_broken(self) -> None:
        """The first reason, when the source's link is what failed."""
        if self._broken is not None and not isinstance(self._broken, asyncio.CancelledError):
            raise self._broken from None

    def _sound(self) -> None:
        """Raises when something has happened since that no key can tell."""
        if self._broken is not None:
            raise self._broken
        if self._following.everything:
            raise _Spoiled(self._following.everything)

    async def _tracked(self, offset: int) -> None:
        """Until the stream has been read up to ``offset``."""
        written = self._following
        try:
            async with asyncio.timeout(STREAM_WAIT):
                while written.position < offset and self._broken is None:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            raise ConnectionLost(
                f"the source's stream has come to offset {written.position} and not to {offset} within {STREAM_WAIT:.0f} s",
                remedy="see whether the network between Valkeep and the source keeps up with the writes",
            ) from None
        self._sound()

    async def _settle(self, keys: list[Key]) -> None:
        """Look at a batch on both sides; what can't be judged goes to the debt."""
        written = self._following
        before = written.position
        here, there = await asyncio.gather(self._see_source.look(keys), self._look_at_target(before, keys))
        after = await self._see_source.offset()
        await self._tracked(after)
        deadline = max(here.now, there.now)
        self._counts["looked"] += len(keys)
        for key, one, other in zip(keys, here.seen, there.seen, strict=True):
            if written.last(*key) > before:
                self._debt[key] = None
                continue
            what = judge(one, other, self.mode, deadline)
            if what in ("equal", "expired"):
                self._counts["expired"] += what == "expired"
                self._doubts.pop(key, None)
            elif self._certain(key, other):
                self._found.add(what, *key, explain(one, other, self.mode))
            else:
                self._debt[key] = None
                continue
            self._debt.pop(key, None)
            written.forget(*key)

    async def _look_at_target(self, offset: int, keys: list[Key]) -> Any:
        await self._barrier(offset)
        return await self._see_target.look(keys)

    def _certain(self, key: Key, there: Seen | None) -> bool:
        """Does this difference count at once, or has it been seen often and long enough?"""
        if self._settings.exact and not (self._hides_fields and there is not None and is_hash(there.payload)):
            return True
        times, since = self._doubts.get(key, (0, time.monotonic()))
        self._doubts[key] = (times + 1, since)
        return times + 1 >= DOUBTS and time.monotonic() - since >= DOUBT_SECONDS

    async def _settle_debt(self, *, take_all: bool, batch: int = 20_000) -> None:
        """First everything that is known to be written (``take_all``), then what is left of it, until nothing is or nothing moves."""
        if take_all:
            self._counts["rounds"] += 1
            for keys in self._following.take(batch):
                await self._settle_parts(keys)
        idle = 0
        for _ in range(ROUNDS):
            if not self._debt:
                return
            debt, self._debt = list(self._debt), {}
            self._counts["rounds"] += 1
            if len(debt) <= 64 and idle > 2:  # hot keys: one at a time, so that the window is as short as it can be
                for key in debt:
                    await self._settle([key])
            else:
                for at in range(0, len(debt), batch):
                    await self._settle_parts(debt[at : at + batch])
            idle = idle + 1 if len(self._debt) >= len(debt) else 0
            if idle > 12:
                return
            if self._doubts:
                await asyncio.sleep(DOUBT_SECONDS / DOUBTS)

    async def _settle_parts(self, keys: list[Key]) -> None:
        for part in await self._see_source.parts(keys):
            await self._settle(part)

    async def round(self) -> Comparison:
        """Look at everything that was written since it was last found equal."""
        begun = time.monotonic()
        try:
            self._sound()
            await self._settle_debt(take_all=True)
            if self._following.functions:
                await self._judge_functions()
            return await self._comparison(begun)
        except _Spoiled as spoiled:
            return Comparison.unknown(f"{spoiled}: a full verification is needed")

    async def final(self, offset: int) -> Comparison:
        """The source holds its writers at ``offset``: everything must be equal now."""
        begun = time.monotonic()
        try:
            await self._tracked(offset)
            debt, self._debt = dict(self._debt), {}
            for keys in self._following.take(FINAL_BATCH):
                for key in keys:
                    debt.pop(key, None)
                await self._settle_parts(keys)
            for at in range(0, len(debt), FINAL_BATCH):
                await self._settle_parts(list(debt)[at : at + FINAL_BATCH])
            if self._debt and not self._doubts:
                await self._settle_debt(take_all=False)
            if self._following.functions:
                await self._judge_functions()
            return await self._comparison(begun, pending=True)
        except _Spoiled as spoiled:
            return Comparison.unknown(f"{spoiled}: a full verification is needed")

    # --------------------------------------------------------------------------------------------------------- functions

    async def _judge_functions(self) -> None:
        """Libraries of functions: the snapshots', or (when they changed since, or differ) what the servers say now."""
        mine, theirs = self._counts["functions_source"], self._counts["functions_target"]
        written = self._following
        for _ in range(5):
            if mine == theirs and not written.functions:
                break
            written.functions = False
            mine = await libraries_of(self._source)
            await self._barrier(await self._see_source.offset())
            theirs = await libraries_of(self._target)
            await self._tracked(await self._see_source.offset())
        self._counts["functions_source"] = self._counts["functions_target"] = mine
        self._counts["functions"] = len(mine)
        for name in sorted(mine.keys() | theirs.keys()):
            if mine.get(name) != theirs.get(name):
                detail = "not on the target" if name not in theirs else "not on the source" if name not in mine else "its code differs"
                self._found.function(name, f"library of functions {name!r}: {detail}")

    # ------------------------------------------------------------------------------------------------------------ repair

    async def repair(self, chosen: list[Difference] | None, recopy: Callable[[int, bytes], Awaitable[None]] | None) -> Comparison:
        """Copy differing keys again and look at them again. ``chosen``: these; None: all that were found."""
        from valkeep.migrate.verify.repair import Repair

        begun = time.monotonic()
        wanted = None if chosen is None else {(one.database, one.key) for one in chosen}
        tool = Repair(self._source, self._target, self.target_info, self.mode, recopy)
        fixed: list[Key] = []
        try:
            self._sound()
            left: list[tuple[str, int, bytes]] = []
            for kind, database, key in self._found.take():
                if wanted is not None and (database, key) not in wanted:
                    left.append((kind, database, key))
                    continue
                fixed.append((database, key))
                if len(fixed) >= 200:
                    await self._repaired(tool, fixed)
                    fixed = []
            if fixed:
                await self._repaired(tool, fixed)
            for kind, database, key in left:
                self._found.add(kind, database, key)
            await self._settle_debt(take_all=False)
            return await self._comparison(begun)
        except _Spoiled as spoiled:
            return Comparison.unknown(f"{spoiled}: a full verification is needed")

    async def _repaired(self, tool: Any, keys: list[Key]) -> None:
        before = len(self._found)
        await tool.copy(keys)
        await self._settle_parts(keys)
        self._counts["repaired"] += len(keys) - (len(self._found) - before)

    # ------------------------------------------------------------------------------------------------------------ result

    async def _explain_examples(self, deadline: int) -> None:
        """A second look at the examples, for their details only: what they say was true a moment later than the verdict."""
        keys = [(one.database, one.key) for one in self._found.examples if one.what != "function" and not one.detail]
        if not keys or not deadline:
            return
        with contextlib.suppress(ValkeepError):
            here, there = await self._see_source.look(keys), await self._see_target.look(keys)
            details = {key: explain(one, other, self.mode) for key, one, other in zip(keys, here.seen, there.seen, strict=True)}
            self._found.examples = [
                Difference(one.database, one.key, one.what, details.get((one.database, one.key), one.detail))
                for one in self._found.examples
            ]

    async def _comparison(self, begun: float, *, pending: bool = False) -> Comparison:
        counts, found = self._counts, self._found
        unsettled = len(self._debt) + (len(self._following) if pending else 0)
        verdict = "invalid" if len(found) else "unknown" if unsettled else "valid"
        notes = list(self._notes)
        if unsettled:
            notes.append(f"{unsettled} keys are written faster than they can be compared: they settle when writers pause")
        if self._following.scripts:
            notes.append(
                f"{self._following.scripts} scripts were replicated as scripts: keys that they write without declaring them are not followed"
            )
        return Comparison(
            keys_source=counts.get("keys_source", 0),
            keys_target=counts.get("keys_target", 0),
            missing=found.counts["missing"],
            extra=found.counts["extra"],
            different=found.counts["different"] + found.counts["expiry"] + found.functions,
            unsettled=unsettled,
            examples=tuple(found.examples),
            seconds=time.monotonic() - begun,
            keys_per_second=counts.get("rate", 0.0),
            source_offset=self._following.position,
            target_offset=counts.get("target_offset", 0),
            verdict=verdict,
            expired=counts["expired"],
            functions=counts.get("functions", 0),
            looked_again=counts["looked"],
            rounds=counts["rounds"],
            repaired=counts["repaired"],
            notes=tuple(notes),
            memory_bytes=peak_memory() + counts.get("memory", 0),
        )
