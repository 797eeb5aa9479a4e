"""The caller's end of a verification: starts the worker process, hands it requests, answers its questions."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from valkeep.client.endpoint import Endpoint
from valkeep.errors import ConnectionLost, LocalProtocolError, Refused, ValkeepError
from valkeep.migrate.transform.target import FieldTtl
from valkeep.migrate.verify.barrier import Barrier
from valkeep.migrate.verify.crossing import Line, VerifierBug, endpoint_to, error_from, error_to, unpack
from valkeep.migrate.verify.lines import Worker
from valkeep.migrate.verify.repair import Recopy
from valkeep.migrate.verify.result import Comparison, Difference
from valkeep.report.events import Emit, Note, Phase, Progress, VerdictEvent

__all__ = ["Verifier"]

PATIENCE = 30.0


class Verifier:
    """``async with Verifier(source, target, policy, barrier, emit, workdir) as v``; then ``await v.full()`` and so on, one at a time.

    ``policy``: what the migration did with fields that expire, where the target has none. ``barrier``: see `barrier.Barrier`; None: find out
    alone (`barrier.StandaloneBarrier`). ``workdir``: where temporary files go (None: the system's place). ``recopy``: who repairs when the
    target takes no writes from us. ``patience``: seconds that looking at written keys may take, on top of what their number takes.
    ``source_read``, ``target_read``: "auto" (a snapshot by PSYNC, or by SCAN where that is denied) or "scan".
    ``source``, ``target``: a server, or any node of a cluster, which is compared as a whole; ``slots``: (first, last), both inclusive: only keys of these
    count, and the source is this one server, even where it is a shard of a cluster, which then has to own all of them. Of a target that is a cluster the shards
    that own some of them are read; the others are asked whether they have keys of theirs.

    Entering raises (wrong password, nobody there: definite), and so does ``full`` when a server does not let us look (``Refused``: no PSYNC, no
    DUMP). After that a link that breaks, or a worker that dies, is no exception but a
    ``Comparison`` with verdict "unknown" and the reason: nobody may take it for valid. So is a bug of the verifier; its traceback is in a `Note`.
    """

    def __init__(
        self,
        source: Endpoint,
        target: Endpoint,
        policy: FieldTtl = FieldTtl.REFUSE,
        barrier: Barrier | None = None,
        emit: Emit | None = None,
        workdir: Path | None = None,
        recopy: Recopy | None = None,
        patience: float = PATIENCE,
        source_read: str = "auto",
        target_read: str = "auto",
        slots: Sequence[tuple[int, int]] = (),
    ) -> None:
        self._source, self._target, self._policy = source, target, policy
        self._barrier, self._recopy = barrier, recopy
        self._emit: Emit = emit or (lambda _event: None)
        self._workdir = workdir
        self._patience = patience
        self._read = source_read, target_read
        self._slots = tuple(slots)
        self.shards = 1, 1
        """So many servers make the source and the target up, once it was entered."""
        self._worker: Worker | None = None
        self._folder = ""
        self._listener: asyncio.Task[None] | None = None
        self._answers: set[asyncio.Task[None]] = set()
        self._pending: dict[int, asyncio.Future[Line]] = {}  # by request
        self._origin = time.monotonic()
        self._progress: dict[str, tuple[int, int]] = {}
        self.how = ""
        """How the barrier works, for people."""
        self.broken = False
        """Whether a link of it has broken: what it looked at tells nothing any more, and another one has to begin."""
        self.moved = False
        """Whether that was because slots moved: another one tells nothing either before they stand still."""

    async def __aenter__(self) -> Self:
        if self._workdir is not None:
            self._workdir.mkdir(parents=True, exist_ok=True)
        # ours, so that it goes also when the worker was killed; the worker removes it too, when we are
        self._folder = tempfile.mkdtemp(prefix="valkeep-verify-", dir=self._workdir)
        try:
            self._worker = await Worker.start("main")
            self._worker.ask("begin", folder=self._folder)
            self._listener = asyncio.create_task(self._listen(self._worker))
            opened = await self._request(
                "open",
                source=endpoint_to(self._source),
                target=endpoint_to(self._target),
                policy=str(self._policy),
                barrier=self._barrier is not None,
                patience=self._patience,
                read=self._read,
                slots=self._slots,
            )
        except BaseException:
            await self._close()
            raise
        self.how = opened["barrier"]
        source, target = opened["shards"]
        self.shards = source, target
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._close()

    async def _close(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener
        for task in list(self._answers):
            task.cancel()
            await asyncio.wait({task})
        if self._worker is not None:
            await self._worker.close()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """Of the worker's process."""
        assert self._worker is not None
        return self._worker.process.pid

    async def full(self) -> Comparison:
        """Compare everything, by snapshots; then what was written meanwhile."""
        return await self._compare("full")

    async def round(self) -> Comparison:
        """Look at what was written since it was last found equal. For the time between ``full`` and the pause."""
        return await self._compare("round")

    async def final(self, source_offset: int) -> Comparison:
        """The source's writers are held, and its offset is ``source_offset``: what was written since must be equal now."""
        return await self._compare("final", offset=source_offset)

    async def repair(self, differences: Sequence[Difference] | None = None) -> Comparison:
        """Copy differing keys again (None: all that were found, also beyond the examples) and look at them again."""
        chosen = None if differences is None else [one.to_json() for one in differences]
        return await self._compare("repair", chosen=chosen, recopy=self._recopy is not None)

    async def _compare(self, word: str, **more: Any) -> Comparison:
        self._emit(Phase(self._now(), f"verify-{word}"))
        try:
            result = Comparison.from_json(await self._request(word, **more))
        except ValkeepError as error:
            if word in ("full", "repair") and isinstance(error, Refused):
                raise
            self.broken = isinstance(error, ConnectionLost) and self._listener is not None and not self._listener.done()
            self.moved = error.code == "VK-VERIFY-SLOTS"
            result = Comparison.unknown(f"{error.message}; {error.remedy}")
        self._emit(Phase(self._now(), f"verify-{word}", done=True, detail=result.verdict))
        self._emit(VerdictEvent(self._now(), result.verdict, {"of": f"verify-{word}"}))
        return result

    # ------------------------------------------------------------------------------------------------------------ inside

    def _now(self) -> float:
        return time.monotonic() - self._origin

    async def _request(self, word: str, **more: Any) -> Line:
        if self._worker is None:
            raise LocalProtocolError("the verifier was not entered", remedy="async with Verifier(...) as verifier")
        if self._listener is not None and self._listener.done():
            raise ConnectionLost("the verification's process has ended", remedy="verify again")
        number = self._worker.ask(word, **more)
        future: asyncio.Future[Line] = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        try:
            return await future
        except asyncio.CancelledError:
            self._worker.ask("cancel", about=number)  # the next request is worked on when this one has ended
            raise
        except VerifierBug as bug:
            self._emit(Note(self._now(), "error", f"{bug.message}; {bug.remedy}", {"traceback": bug.trace}))
            raise
        finally:
            del self._pending[number]

    async def _listen(self, worker: Worker) -> None:
        try:
            while True:
                self._heard(worker, await worker.line())
        except ValkeepError as error:
            lost = error
        except Exception as error:  # noqa: BLE001 - whoever waits has to know
            lost = error_from(error_to(error))
        for future in self._pending.values():
            if not future.done():
                future.set_exception(lost.saying())

    def _heard(self, worker: Worker, line: Line) -> None:
        match line["say"]:
            case "result" | "error":
                future = self._pending.get(line["about"])
                if future is None or future.done():  # its caller was cancelled
                    return
                if line["say"] == "result":
                    future.set_result(line["result"])
                else:
                    future.set_exception(error_from(line["error"]))
            case "barrier" | "recopy":
                task = asyncio.create_task(self._answer(worker, line))
                self._answers.add(task)
                task.add_done_callback(self._answers.discard)
            case "progress":
                self._progress[line["side"]] = (line["keys"], line["bytes"])
                keys, size = (sum(one) for one in zip(*self._progress.values(), strict=True))
                self._emit(Progress(self._now(), "verify", keys=keys, bytes=size))
            case "phase":
                self._emit(Phase(self._now(), line["name"], done=line["done"]))
            case "note":
                self._emit(Note(self._now(), line["level"], line["text"]))

    async def _answer(self, worker: Worker, line: Line) -> None:
        answer: Line | None = None
        try:
            if line["say"] == "barrier":
                assert self._barrier is not None
                await self._barrier(line["offset"])
            else:
                assert self._recopy is not None
                await self._recopy(line["database"], unpack(line["key"]))
        except Exception as error:  # noqa: BLE001 - the caller's function; the worker must not wait for ever
            answer = error_to(error)
        worker.ask("answer", about=line["id"], error=answer)
