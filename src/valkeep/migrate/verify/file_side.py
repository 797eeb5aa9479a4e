"""Files against the target that was made from them: the same rows and the same comparison as between two servers, and simpler, because nobody writes.

The snapshot in the file is one side, the target's own snapshot is the other. What a log wrote after the snapshot is known by its keys only: their
values nobody knows without applying it, which is what servers are for. Those keys are not judged, and the verdict is unknown as long as there are
any; all others are judged, and a key on the target that neither the snapshot nor the log names is one too many.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valkeep.errors import ValkeepError
from valkeep.migrate.verify.crossing import Line, pack, unpack
from valkeep.migrate.verify.found import Found, read_names
from valkeep.migrate.verify.functions import functions_differ
from valkeep.migrate.verify.lines import Worker
from valkeep.migrate.verify.memory import peak_memory
from valkeep.migrate.verify.mode import Mode
from valkeep.migrate.verify.result import Comparison
from valkeep.migrate.verify.shards import Shards
from valkeep.migrate.verify.side import Snapshot, Spill, digest_written, partitions_for, read_snapshot
from valkeep.migrate.verify.target_side import TargetSide
from valkeep.migrate.verify.written import Written
from valkeep.report.events import Emit, Phase, Progress, VerdictEvent

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.migrate.transform.target import FieldTtl

__all__ = ["FileSide", "compare_with_file", "read_file"]

PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class FileSide:
    """``path``: of the file that begins with a snapshot, and ``size``: that snapshot's bytes (0: there is none). ``keys``: in it. ``log``: begins to give the
    commands behind it, in pieces; ``logged``: bytes of them."""

    path: Path
    size: int
    keys: int
    log: Callable[[], AsyncIterator[bytes]]
    logged: int


async def compare_with_file(
    files: FileSide, target: Endpoint, policy: FieldTtl, emit: Emit, clock: Callable[[], float], workdir: Path
) -> Comparison:
    """Compare everything. Raises ``ValkeepError`` where the target can't be looked at, the file can't be read, or there is no room in ``workdir``."""
    begun = clock()
    emit(Phase(begun, "verify-full"))
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="valkeep-verify-", dir=workdir))
    mine: Worker | None = None
    theirs: TargetSide | None = None
    try:
        mine = await Worker.start("side")
        theirs = await TargetSide.start(folder)
        result = await _Comparing(files, target, policy, emit, clock, folder, mine, theirs).run(begun)
    finally:
        if mine is not None:
            await mine.close()
        if theirs is not None:
            await theirs.close()
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    emit(Phase(clock(), "verify-full", done=True, detail=result.verdict))
    emit(VerdictEvent(clock(), result.verdict, {"of": "verify-full"}))
    return result


async def read_file(line: Line, progress: Callable[[int, int], None]) -> Snapshot:
    """The snapshot at the beginning of a file, in the process that was asked by ``line`` (`_Comparing._compare`)."""
    spill = Spill(Path(line["directory"]), "source", unpack(line["key"]), line["partitions"], Mode(line["mode"]))
    if line["size"]:
        return await read_snapshot(_chunks(Path(line["path"]), line["size"]), spill, progress)
    spill.close()
    return Snapshot(0, 0, 0.0, {}, 0)


async def _chunks(path: Path, size: int) -> AsyncIterator[bytes]:
    try:
        with path.open("rb") as file:
            while size and (data := file.read(min(size, PIECE))):
                size -= len(data)
                yield data
                await asyncio.sleep(0)
    except OSError as error:
        raise ValkeepError(
            f"{path} cannot be read: {error.strerror}", remedy="permit it to this user, check its disk", code="VK-FILE-READ"
        ) from error


async def _forked() -> None:
    """Nobody writes: no matter when."""


class _Comparing:
    def __init__(
        self,
        files: FileSide,
        target: Endpoint,
        policy: FieldTtl,
        emit: Emit,
        clock: Callable[[], float],
        folder: Path,
        mine: Worker,
        theirs: TargetSide,
    ) -> None:
        self._files = files
        self._target = target
        self._policy = policy
        self._emit = emit
        self._clock = clock
        self._folder = folder
        self._mine = mine
        self._theirs = theirs
        self._progress: dict[str, tuple[int, int]] = {}

    async def run(self, begun: float) -> Comparison:
        written = Written(0, 0, self._folder)
        async for piece in self._files.log():
            written.feed(piece)
        target = await Shards.open(self._target)
        try:
            if written.everything:
                reason = f"the log cannot be told apart by keys: {written.everything.replace('the source', 'it')}"
                there = await target.keys()
                return replace(Comparison.unknown(reason), source_read="file", keys_source=self._files.keys, keys_target=there)
            return await self._compare(target, written, begun)
        finally:
            await target.close()

    async def _compare(self, target: Shards, written: Written, begun: float) -> Comparison:
        files, folder = self._files, self._folder
        await target.steady(begin=True)
        key = secrets.token_bytes(16)
        partitions = partitions_for(max(files.keys, await target.keys()))
        reading = time.monotonic()
        about = self._mine.ask(
            "file",
            path=str(files.path),
            size=files.size,
            key=pack(key),
            partitions=partitions,
            directory=str(folder),
            mode=str(Mode.of(self._policy, target.oldest)),
        )
        there, here = await asyncio.gather(
            self._theirs.read(target, key, partitions, _forked, self._tell("target")), self._read_file(about, self._tell("source"))
        )
        await digest_written(written.names(), folder, key, partitions)
        deadline = await target.eye.clock()
        final = not written.scripts  # also of a target that is read by SCAN: nobody writes
        other = self._theirs.compare(list(range(1, partitions, 2)), deadline, final=final, out="differences-theirs")
        compared = self._mine.ask(
            "compare",
            directory=str(folder),
            partitions=list(range(0, partitions, 2)),
            deadline=deadline,
            final=final,
            out="differences-mine",
        )
        counts: dict[str, Any] = (await self._mine.hear(compared))["counts"]
        others = await self._theirs.compared(other)
        seconds = time.monotonic() - reading
        found = Found(folder)
        again = 0
        try:
            for name in ("differences-mine", "differences-theirs"):
                for kind, database, one in read_names(folder / name):
                    if kind == "again":
                        again += 1
                    else:
                        found.add(kind, database, one)
            if not written.functions:
                found.judge_functions(functions_differ(here["functions"], there.functions))
            found.judge_places(*await target.strays())
            await target.steady()
        finally:
            found.close()
        reasons = _reasons(written, again)
        return Comparison(
            keys_source=here["keys"],
            keys_target=there.keys,
            missing=found.counts["missing"],
            extra=found.counts["extra"],
            different=found.counts["different"] + found.counts["expiry"] + found.functions + found.misplaced,
            unsettled=len(written) + again,
            examples=tuple(found.examples),
            seconds=self._clock() - begun,
            keys_per_second=(here["keys"] + there.keys) / seconds if seconds > 0 else 0.0,
            source_offset=files.logged,
            target_offset=there.offset,
            verdict="invalid" if len(found) else "unknown" if reasons else "valid",
            expired=counts.get("expired", 0) + others.get("expired", 0),
            functions=len(here["functions"]),
            source_read="file",
            target_read="scan" if there.scanned else "psync",
            target_shards=len(target),
            reasons=tuple(reasons),
            memory_bytes=peak_memory() + there.memory + here["memory"],
        )

    async def _read_file(self, about: int, progress: Callable[[int, int], None]) -> dict[str, Any]:
        while (heard := await self._mine.hear(about))["say"] == "progress":
            progress(heard["keys"], heard["bytes"])
        return heard

    def _tell(self, side: str) -> Callable[[int, int], None]:
        def progress(keys: int, size: int) -> None:
            self._progress[side] = keys, size
            keys, size = (sum(one) for one in zip(*self._progress.values(), strict=True))
            self._emit(Progress(self._clock(), "verify", keys=keys, bytes=size))

        return progress


def _reasons(written: Written, again: int) -> list[str]:
    reasons = []
    if len(written):
        reasons.append(
            f"the log wrote {len(written)} keys after its snapshot: what their values should be only a server knows that applies it, so they were not compared"
        )
    if written.scripts:
        reasons.append(f"the log holds {written.scripts} scripts, which may write keys that they do not declare")
    if again:
        reasons.append(f"{again} keys could not be judged")
    if written.functions:
        reasons.append("the log changes libraries of functions")
    return reasons
