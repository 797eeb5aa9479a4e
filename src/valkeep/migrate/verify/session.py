"""A verification from the inside: what the worker process does, step by step. The package's head says why in this order."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from valkeep.client.server_info import server_info
from valkeep.errors import ConnectionLost, ValkeepError
from valkeep.migrate.keyread import TOLERANCE
from valkeep.migrate.transform.target import FieldTtl
from valkeep.migrate.verify.barrier import Barrier, Relation
from valkeep.migrate.verify.compare import OURS, compare_partitions
from valkeep.migrate.verify.explain import LARGE, explain
from valkeep.migrate.verify.follow import Follower, Spoiled
from valkeep.migrate.verify.found import Found, read_names
from valkeep.migrate.verify.libraries import Libraries
from valkeep.migrate.verify.memory import peak_memory
from valkeep.migrate.verify.mode import Mode
from valkeep.migrate.verify.repair import Recopy, Repair
from valkeep.migrate.verify.result import Comparison, Difference
from valkeep.migrate.verify.scan import caveats
from valkeep.migrate.verify.settle import Settler
from valkeep.migrate.verify.shards import Shards
from valkeep.migrate.verify.side import Spill, digest_written, partitions_for
from valkeep.migrate.verify.source_side import Unfollowed, follow
from valkeep.migrate.verify.target_side import TargetSide
from valkeep.migrate.verify.written import Key
from valkeep.topology.slots import Ranges, key_slot, slots_of

__all__ = ["Session", "VerifySettings"]

ATTEMPTS = 3  # full verifications, when FLUSHALL and the like spoil one
FINAL_BATCH = 1000
SKEW = 1000  # ms that the servers' clocks may differ before it is said

Say = Callable[..., None]


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """What a session is told. ``source``, ``target``: are closed with it. ``policy``: what the migration did with fields that expire.
    ``patience``: seconds that looking at written keys may take, on top of what their number takes (`settle.SLOW`). ``source_read``, ``target_read``: "auto" or
    "scan". ``slots``: only keys of these count, (): all do."""

    source: Shards
    target: Shards
    policy: FieldTtl
    relation: Relation
    directory: Path
    patience: float
    source_read: str = "auto"
    target_read: str = "auto"
    slots: Ranges = ()


class Session:
    """``full``, ``round``, ``final`` and ``repair``, one at a time. ``close`` removes the files and ends the target's process."""

    def __init__(self, settings: VerifySettings, barrier: Barrier, say: Say) -> None:
        self._settings = settings
        self._barrier = barrier
        self._say = say
        self._directory = settings.directory
        self._follower: Follower | Unfollowed | None = None
        self._settler: Settler | None = None  # once there is something to go on from: both snapshots were compared
        self._side: TargetSide | None = None
        slots = frozenset(slots_of(settings.slots))
        self._counted: Callable[[bytes], bool] = (lambda key: key_slot(key) in slots) if slots else lambda _key: True
        self._found = Found(self._directory, self._counted)
        self._counts: dict[str, Any] = {}
        self._notes: list[str] = []
        self._read = "psync", "psync"
        self._source, self._target = settings.source, settings.target

    # ------------------------------------------------------------------------------------------------------------ set-up

    async def open(self) -> None:
        """Get ready to compare."""
        self.mode = Mode.of(self._settings.policy, self._target.oldest)
        # Valkey leaves expired fields out of DUMP and snapshots before it says HDEL; a target that keeps fields for ever still has them then
        self._hides_fields = self.mode is Mode.KEEP_FIELD and self._source.first.info.kind == "valkey"
        self._see_source, self._see_target = self._source.eye, self._target.eye
        if not self._see_source.read.exact:
            self._notes.append(
                f"the source has no PEXPIRETIME: expiries of keys that were looked at again are compared to within {TOLERANCE} ms"
            )
        servers = self._source, self._target
        self._libraries = Libraries(servers, self._see_source.offset, self._barrier, exact=self._settings.relation.exact)
        self._side = await TargetSide.start(self._directory, self._settings.target_read)

    async def close(self) -> None:
        await self._unlink()
        if self._side is not None:
            await self._side.close()
        await self._source.close()
        await self._target.close()
        self._found.close()

    async def _unlink(self) -> None:
        if self._follower is not None:
            await self._follower.close()
        self._follower = self._settler = None

    def _following(self) -> tuple[Follower | Unfollowed, Settler]:
        if self._follower is None or self._settler is None:
            raise ConnectionLost("the source's stream is not followed", remedy="begin with a full verification")
        return self._follower, self._settler

    async def _steady(self) -> None:
        """All that was read and looked at rests on it."""
        await self._source.steady()
        await self._target.steady()

    # -------------------------------------------------------------------------------------------------------------- full

    async def full(self) -> Comparison:
        """Compare everything. Starts over when the source flushes under it; after ``ATTEMPTS`` the verdict is unknown."""
        reason = ""
        for attempt in range(ATTEMPTS):
            begun = time.monotonic()
            try:
                await self._compare_snapshots()
                follower, settler = self._following()
                await settler.settle(self._settings.patience)
                await self._steady()
                self._found.judge_functions(await self._libraries.differing(follower))
                return self._comparison(begun)
            except Spoiled as spoiled:
                reason = str(spoiled)
                if self._settler is not None and self._settler.overwhelmed:  # and would be, again
                    return Comparison.unknown(reason)
                self._say("note", level="warning", text=f"{reason}: attempt {attempt + 1} of {ATTEMPTS} is void")
        return Comparison.unknown(f"{reason}, in each of {ATTEMPTS} attempts")

    async def _compare_snapshots(self) -> None:
        """Steps 1 to 4 of the package's head. Only when all of it went well there is something that ``round`` can go on from."""
        await self._unlink()
        self._found.close()
        for path in self._directory.iterdir():
            path.unlink() if path.is_file() else shutil.rmtree(path)
        self._found = Found(self._directory, self._counted)
        self._counts = {"repaired": 0, "before": 0}
        begun = time.monotonic()
        if {self._settings.source_read, self._settings.target_read} != {"scan"}:
            self._say("note", level="info", text="a server that is read by PSYNC forks once for its snapshot")
        self._say("phase", name="verify-snapshots", done=False)
        try:
            self._settler = await self._read_and_compare()
        except BaseException:
            assert self._side is not None
            await self._side.renew()  # it is in the middle of something that nobody waits for any more
            follower = self._follower
            await self._unlink()
            if follower is not None:
                follower.raise_broken()
            raise
        self._say("phase", name="verify-snapshots", done=True)
        seconds = time.monotonic() - begun
        self._counts["rate"] = (self._counts["keys_source"] + self._counts["keys_target"]) / seconds if seconds > 0 else 0.0
        await self._explain_examples()

    async def _read_and_compare(self) -> Settler:
        side = self._side
        assert side is not None
        key = secrets.token_bytes(16)
        await self._source.steady(begin=True)
        await self._target.steady(begin=True)
        info = await server_info(self._source.first.connection)
        partitions = partitions_for(max(await self._source.keys(), await self._target.keys()))
        follower = self._follower = await follow(
            self._source,
            self._settings.source_read,
            await self._see_source.offset(),
            lambda member: Spill(
                self._directory, "source", key, partitions, self.mode, more=member is not self._source.first, ranges=member.ranges
            ),
            self._progress("source"),
            self._directory,
        )
        if (await server_info(self._source.first.connection)).replid not in (follower.replid or info.replid, "?"):
            raise ConnectionLost(
                f"{self._source.first.endpoint.address} leads to one server now and to another then",
                remedy="give the address of one server, not of a load balancer; after a failover verify again",
            )
        await self._barrier(follower.offset)
        follower.begin()
        mark = follower.offset

        async def forked() -> None:
            nonlocal mark
            mark = await self._see_source.offset()

        theirs = await side.read(self._target, key, partitions, forked, self._progress("target"))
        mine = await follower.snapshot
        self._read = follower.how if isinstance(follower, Unfollowed) else "psync", "scan" if theirs.scanned else "psync"
        for text in caveats(followed=follower.followed, target=self._read[1]):
            if text not in self._notes:
                self._notes.append(text)
                self._say("note", level="warning", text=text)
        if not follower.followed or theirs.scanned:
            mark = await self._see_source.offset()
        misplaced = await self._look_for_strays()
        deadline = await self._deadline()
        await follower.tracked(mark)
        written = follower.written
        await digest_written(written.names(), self._directory, key, partitions)
        exact = self._settings.relation.exact
        final = exact and not written.scripts and not self._hides_fields and follower.followed and not theirs.scanned
        # each process compares half of the partitions
        about = side.compare(list(range(1, partitions, 2)), deadline, final=final, out="differences-theirs")
        halves = range(0, partitions, 2)
        counts = await compare_partitions(self._directory, halves, deadline, final=final, out=self._directory / "differences-mine")
        others = await side.compared(about)
        self._counts |= {
            "expired": counts.get("expired", 0) + others.get("expired", 0),
            "keys_source": mine.keys,
            "keys_target": theirs.keys - counts.get(OURS, 0) - others.get(OURS, 0),
            "target_offset": theirs.offset,
            "memory": theirs.memory,
        }
        self._libraries.read(mine.functions, theirs.functions)
        eyes = self._see_source, self._see_target
        settler = Settler(
            follower, eyes, self._barrier, self._found, self.mode, exact=exact, hides_fields=self._hides_fields, counts=self._counted
        )
        settler.owe(misplaced)
        for name in ("differences-mine", "differences-theirs"):
            for kind, database, one in read_names(self._directory / name):
                if kind == "again":
                    settler.owe([(database, one)])
                else:
                    self._found.add(kind, database, one)
        return settler

    async def _look_for_strays(self) -> list[Key]:
        """Judge the keys that lie on a shard which does not own their slot; those known by name have to be looked at where they belong."""
        count, strays = await self._target.strays()
        self._found.judge_places(count, strays)
        return [(0, one.key) for one in strays]

    def _progress(self, side: str) -> Callable[[int, int], None]:
        return lambda keys, size: self._say("progress", side=side, keys=keys, bytes=size)

    async def _deadline(self) -> int:
        """Unix ms by which a key has to have expired to count as ``expired``; 0: nobody knows."""
        mine, theirs = await self._see_source.clock(), await self._see_target.clock()
        if not mine and not theirs:
            self._notes.append("neither server tells its clock (TIME): expired keys that only one side has removed count as differences")
        elif mine and theirs and abs(mine - theirs) > SKEW:
            self._notes.append(
                f"the servers' clocks differ by {abs(mine - theirs) / 1000:.1f} s: keys expired by the later one count as expired"
            )
        return max(mine, theirs)

    # ----------------------------------------------------------------------------------------------- after the snapshots

    async def round(self) -> Comparison:
        """Look at everything that was written, up to now, since it was last found equal."""
        return await self._go_on(lambda settler: settler.settle(self._settings.patience))

    async def final(self, offset: int) -> Comparison:
        """The source holds its writers at ``offset``: everything must be equal now."""
        return await self._go_on(lambda settler: settler.settle_in_pause(self._settings.patience, FINAL_BATCH), held_at=offset)

    async def _go_on(self, look: Callable[[Settler], Awaitable[None]], *, held_at: int | None = None) -> Comparison:
        """``held_at``: the writers are held at this offset of the source, so that whatever is written now is unsettled, too."""
        begun = time.monotonic()
        try:
            follower, settler = self._following()
            if held_at is not None and not follower.followed:  # nobody knows what was written: everything is looked at again
                looked = self._counts["before"] + settler.looked
                await self._compare_snapshots()
                follower, settler = self._following()
                self._counts["before"] = looked + self._counts["keys_source"]
            await follower.tracked(await self._see_source.offset() if held_at is None else held_at)
            await look(settler)
            await self._steady()
            self._found.judge_functions(await self._libraries.differing(follower))
            return self._comparison(begun, pending=held_at is not None)
        except Spoiled as spoiled:
            if self._settler is not None and self._settler.overwhelmed:  # and would be, again
                return Comparison.unknown(str(spoiled))
            raise ConnectionLost(f"{spoiled}: everything has to be compared again", remedy="verify again") from None

    # ------------------------------------------------------------------------------------------------------------ repair

    async def repair(self, chosen: list[Difference] | None, recopy: Recopy | None) -> Comparison:
        """Copy differing keys again and look at them again. ``chosen``: these; None: all that were found."""
        wanted = None if chosen is None else {(one.database, one.key) for one in chosen}
        tool = Repair(self._see_source, self._target, self.mode, recopy)

        async def mend(settler: Settler) -> None:
            try:
                await tool.mend(self._found, self._following()[0], settler, wanted)
            finally:
                self._counts["repaired"] += tool.mended
            await settler.bounded(self._settings.patience, settler.pay())
            await self._look_for_strays()

        try:
            return await self._go_on(mend)
        finally:
            await tool.close()

    # ------------------------------------------------------------------------------------------------------------ result

    async def _explain_examples(self) -> None:
        """A second look at the examples, for their details only: what they say was true a moment later than the verdict."""
        keys = [(one.database, one.key) for one in self._found.examples if one.what not in ("function", "misplaced") and not one.detail]
        if not keys:
            return
        with contextlib.suppress(ValkeepError):
            keys = await self._see_target.light(await self._see_source.light(keys, LARGE), LARGE)
            here, there = await self._see_source.look(keys), await self._see_target.look(keys)
            details = {key: explain(one, other, self.mode) for key, one, other in zip(keys, here.seen, there.seen, strict=True)}
            self._found.examples = [
                one if one.detail else replace(one, detail=details.get((one.database, one.key), "")) for one in self._found.examples
            ]

    def _comparison(self, begun: float, *, pending: bool = False) -> Comparison:
        counts, found = self._counts, self._found
        follower, settler = self._following()
        follower.sound()
        written = follower.written
        unsettled = len(settler.debt) + (len(written) if pending else 0)
        verdict = "invalid" if len(found) else "unknown" if unsettled or written.functions else "valid"
        reasons: list[str] = []
        notes = list(self._notes)
        if unsettled:
            late = f" (time was up after {settler.late:.0f} s)" if settler.late else ""
            reasons.append(f"{unsettled} keys are written faster than they can be compared{late}: they settle when writers pause")
        if written.functions:
            reasons.append("the source's libraries of functions change faster than they can be compared")
        if verdict != "valid" and self._settings.relation is Relation.APART and settler.written:
            reasons.append(
                f"the target is not linked to the source, on which {settler.written} keys were written meanwhile: whatever is repaired, such a "
                "target falls behind; stop the writers or link it (valkeep migrate run), then verify again"
            )
        if written.scripts:
            notes.append(
                f"{written.scripts} scripts were replicated as scripts: keys that they write without declaring them are not followed"
            )
        if found.functions:
            notes.append("libraries of functions are not repaired: copy them by FUNCTION LOAD")
        if found.misplaced:
            notes.append(
                "keys on the wrong shard are not repaired: CLUSTER GETKEYSINSLOT on that shard names them, and it has to own the slot to DEL them"
            )
        return Comparison(
            keys_source=counts["keys_source"],
            keys_target=counts["keys_target"],
            missing=found.counts["missing"],
            extra=found.counts["extra"],
            different=found.counts["different"] + found.counts["expiry"] + found.functions + found.misplaced,
            unsettled=unsettled,
            examples=tuple(found.examples),
            seconds=time.monotonic() - begun,
            keys_per_second=counts["rate"],
            source_offset=written.position,
            target_offset=counts["target_offset"],
            verdict=verdict,
            expired=counts["expired"] + settler.expired,
            functions=len(self._libraries),
            looked_again=settler.looked + counts["before"],
            rounds=settler.rounds,
            repaired=counts["repaired"],
            reasons=tuple(reasons),
            notes=tuple(dict.fromkeys(notes)),
            memory_bytes=peak_memory() + counts["memory"],
            source_read=self._read[0],
            target_read=self._read[1],
            source_shards=len(self._source),
            target_shards=len(self._target),
        )
