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
from valkeep.client.replication_reader import ReplicationReader
from valkeep.client.server_info import ServerInfo, server_info
from valkeep.errors import ConnectionLost, ValkeepError
from valkeep.migrate.verify.compare import compare_partitions
from valkeep.migrate.verify.explain import explain
from valkeep.migrate.verify.follow import Follower, Spoiled
from valkeep.migrate.verify.found import Found, read_names
from valkeep.migrate.verify.functions import libraries_of
from valkeep.migrate.verify.lines import Worker, endpoint_to, error_from, pack
from valkeep.migrate.verify.look import TOLERANCE, Eye
from valkeep.migrate.verify.memory import peak_memory
from valkeep.migrate.verify.result import Comparison, Difference
from valkeep.migrate.verify.settle import Settler
from valkeep.migrate.verify.side import PRESENT_AS, partitions_for, read_snapshot, written_path
from valkeep.migrate.verify.written import Key, Written
from valkeep.wire.digest import Digester

__all__ = ["Session", "Settings"]

ATTEMPTS = 3  # full verifications, when FLUSHALL and the like spoil one
DEBT = 2_000_000  # keys that can be looked at again; more are no job for commands
FINAL_BATCH = 1000

Say = Callable[..., None]
Wait = Callable[[int], Awaitable[None]]


class Settings:
    """What a session is told. ``mode``: refuse (or exact) | keep-field | drop-field. ``exact``: the barrier proves what it says."""

    def __init__(self, source: Endpoint, target: Endpoint, mode: str, exact: bool, directory: Path) -> None:
        self.source, self.target, self.mode, self.exact, self.directory = source, target, mode, exact, directory


class Session:
    """``full``, ``round``, ``final`` and ``repair``, one at a time. ``close`` removes the files and ends the target's process."""

    def __init__(self, settings: Settings, barrier: Wait, say: Say) -> None:
        self._settings = settings
        self._barrier = barrier
        self._say = say
        self.mode = settings.mode
        self._directory = settings.directory
        self._follower: Follower | None = None
        self._settler: Settler | None = None
        self._side: Worker | None = None
        self._found = Found(self._directory)
        self._counts: dict[str, Any] = {}
        self._notes: list[str] = []
        self._scanned = False  # the target was read by SCAN
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
            await self._follower.close()
        self._follower = self._settler = None

    def _following(self) -> tuple[Follower, Settler]:
        if self._follower is None or self._settler is None:
            raise ConnectionLost("the source's stream is not followed", remedy="begin with a full verification")
        return self._follower, self._settler

    # -------------------------------------------------------------------------------------------------------------- full

    async def full(self) -> Comparison:
        """Compare everything. Starts over when the source flushes under it; after ``ATTEMPTS`` the verdict is unknown."""
        reason = ""
        for attempt in range(ATTEMPTS):
            begun = time.monotonic()
            try:
                await self._compare_snapshots()
                await self._settle()
                await self._judge_functions()
                return await self._comparison(begun)
            except Spoiled as spoiled:
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
        self._counts = {"expired": 0, "repaired": 0}
        key = secrets.token_bytes(16)
        info, other = await server_info(self._source), await server_info(self._target)
        partitions = partitions_for(max(sum(info.keys.values()), sum(other.keys.values())))
        begun = time.monotonic()
        self._say("note", level="info", text="both servers fork once for a snapshot")
        self._say("phase", name="verify-snapshots", done=False)
        link = await ReplicationReader.open(self._settings.source, present_as=PRESENT_AS)
        follower = self._follower = Follower(
            link,
            lambda chunks: read_snapshot(chunks, self._directory, "source", key, partitions, self.mode, self._progress("source")),
            self._directory,
        )
        eyes = self._see_source, self._see_target
        exact, hides = self._settings.exact, self._hides_fields
        settler = self._settler = Settler(follower, eyes, self._barrier, self._found, self.mode, exact=exact, hides_fields=hides)
        try:
            await self._barrier(link.offset)
            theirs, fork = await self._target_snapshot(key, partitions)
            mark = await self._see_source.offset()
            mine = await follower.snapshot
            done = await theirs
            if self._scanned:
                mark = await self._see_source.offset()
        except BaseException:
            await self._new_side()
            follower.raise_broken()
            raise
        deadline = max(await self._see_source.clock(), await self._see_target.clock(), 0)
        if deadline == 0:
            self._notes.append("neither server tells its clock (TIME): expired keys that only one side has removed count as differences")
        await follower.tracked(mark)
        written = follower.written
        self._write_digests(written, key, partitions)
        final = exact and not written.scripts and not hides and not self._scanned
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
                    settler.debt[database, one] = None
                    if len(settler.debt) > DEBT:
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

    def _progress(self, side: str) -> Callable[[int, int], None]:
        return lambda keys, size: self._say("progress", side=side, keys=keys, bytes=size)

    async def _target_snapshot(self, key: bytes, partitions: int) -> tuple[asyncio.Task[dict[str, Any]], int]:
        """Ask for the target's snapshot until it is one that was begun after now; returns its task, and its offset."""
        side = self._side
        assert side is not None
        for _ in range(5):
            info = await server_info(self._target)
            least = await self._see_target.offset()
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
            if heard["say"] == "denied":
                self._scanned = True
                self._notes.append("the target denies PSYNC: it was read by SCAN and DUMP, key by key, which is slower")
                self._say("note", level="warning", text=self._notes[-1])
                side.ask("scan")
                return asyncio.create_task(self._target_done(side)), least
            offset: int = heard["offset"]
            # a primary without a backlog takes a new id for its first replica, which is us: that snapshot is surely a new one
            fresh = heard["replid"] == info.replid and offset >= least
            if fresh or (info.role == "primary" and heard["replid"] != info.replid):
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

    # ----------------------------------------------------------------------------------------------- after the snapshots

    async def _settle(self) -> None:
        """Everything that is known to be written, then what is left of it."""
        _, settler = self._following()
        await settler.take_all()
        await settler.pay()

    async def round(self) -> Comparison:
        """Look at everything that was written since it was last found equal."""
        begun = time.monotonic()
        try:
            follower, _ = self._following()
            follower.sound()
            await self._settle()
            if follower.written.functions:
                await self._judge_functions()
            return await self._comparison(begun)
        except Spoiled as spoiled:
            return Comparison.unknown(f"{spoiled}: a full verification is needed")

    async def final(self, offset: int) -> Comparison:
        """The source holds its writers at ``offset``: everything must be equal now."""
        begun = time.monotonic()
        try:
            follower, settler = self._following()
            await follower.tracked(offset)
            debt = list(settler.debt)
            await settler.take_all(FINAL_BATCH)
            debt = [key for key in debt if key in settler.debt]
            for key in debt:
                del settler.debt[key]
            await settler.look_at_all(debt)
            if not settler.doubts:  # what is in doubt needs seconds, and writers are waiting
                await settler.pay()
            if follower.written.functions:
                await self._judge_functions()
            return await self._comparison(begun, pending=True)
        except Spoiled as spoiled:
            return Comparison.unknown(f"{spoiled}: a full verification is needed")

    # --------------------------------------------------------------------------------------------------------- functions

    async def _judge_functions(self) -> None:
        """Libraries of functions: the snapshots', or (when they changed since, or differ) what the servers say now."""
        follower, _ = self._following()
        mine, theirs = self._counts["functions_source"], self._counts["functions_target"]
        written = follower.written
        for _ in range(5):
            if mine == theirs and not written.functions:
                break
            written.functions = False
            mine = await libraries_of(self._source)
            await self._barrier(await self._see_source.offset())
            theirs = await libraries_of(self._target)
            await follower.tracked(await self._see_source.offset())
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
            follower, settler = self._following()
            follower.sound()
            left: list[tuple[str, int, bytes]] = []
            names = self._found.take()
            try:
                for kind, database, key in names:
                    if wanted is not None and (database, key) not in wanted:
                        left.append((kind, database, key))
                        continue
                    fixed.append((database, key))
                    if len(fixed) >= 200:
                        await self._repaired(tool, fixed)
                        fixed = []
                if fixed:
                    await self._repaired(tool, fixed)
            except BaseException:  # what was not repaired differs still
                settler.debt |= dict.fromkeys([*fixed, *((database, key) for _, database, key in (*left, *names))])
                raise
            for kind, database, key in left:
                self._found.add(kind, database, key)
            await settler.pay()
            return await self._comparison(begun)
        except Spoiled as spoiled:
            return Comparison.unknown(f"{spoiled}: a full verification is needed")

    async def _repaired(self, tool: Any, keys: list[Key]) -> None:
        before = len(self._found)
        await tool.copy(keys)
        await self._following()[1].look(keys)
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
        follower, settler = self._following()
        written = follower.written
        unsettled = len(settler.debt) + (len(written) if pending else 0)
        verdict = "invalid" if len(found) else "unknown" if unsettled else "valid"
        notes = list(self._notes)
        if unsettled:
            notes.append(f"{unsettled} keys are written faster than they can be compared: they settle when writers pause")
        if written.scripts:
            notes.append(
                f"{written.scripts} scripts were replicated as scripts: keys that they write without declaring them are not followed"
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
            source_offset=written.position,
            target_offset=counts.get("target_offset", 0),
            verdict=verdict,
            expired=counts["expired"] + settler.expired,
            functions=counts.get("functions", 0),
            looked_again=settler.looked,
            rounds=settler.rounds,
            repaired=counts["repaired"],
            notes=tuple(dict.fromkeys(notes)),
            memory_bytes=peak_memory() + counts.get("memory", 0),
        )
