"""The caller's end of a verification: starts the worker process, hands it requests, answers its questions."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from valkeep.client.endpoint import Endpoint
from valkeep.errors import ConnectionLost, LocalProtocolError, Refused, ValkeepError
from valkeep.migrate.transform.target import FieldTtl
from valkeep.migrate.verify.barrier import Barrier
from valkeep.migrate.verify.lines import Line, Worker, endpoint_to, error_from, unpack
from valkeep.migrate.verify.result import Comparison, Difference
from valkeep.report.events import Emit, Note, Phase, Progress, VerdictEvent

__all__ = ["Barrier", "Recopy", "Verifier"]

Recopy = Callable[[int, bytes], Awaitable[None]]
"""``await recopy(database, key)``: the gateway copies that key again; returns when the target has it, or the barrier covers it."""


class Verifier:
    """``async with Verifier(source, target, policy, barrier, emit, workdir) as v``; then ``await v.full()`` and so on, one at a time.

    ``policy``: what the migration did with fields that expire, where the target has none. ``barrier``: see `barrier.Barrier`; None: find out
    alone (`barrier.StandaloneBarrier`). ``workdir``: where temporary files go (None: the system's place). ``recopy``: who repairs when the
    target takes no writes from us.

    Entering raises (wrong password, nobody there: definite), and so does ``full`` when a server does not let us look (``Refused``: no PSYNC, no
    DUMP). After that a link that breaks, or a worker that dies, is no exception but a
    ``Comparison`` with verdict "unknown" and the reason: nobody may take it for valid.
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
    ) -> None:
        self._source, self._target, self._policy = source, target, policy
        self._barrier, self._recopy = barrier, recopy
        self._emit: Emit = emit or (lambda _event: None)
        self._workdir = workdir
        self._worker: Worker | None = None
        self._folder = ""
        self._listener: asyncio.Task[None] | None = None
        self._answers: set[asyncio.Task[None]] = set()
        self._results: asyncio.Queue[Line | ValkeepError] = asyncio.Queue()
        self._origin = time.monotonic()
        self._progress: dict[str, tuple[int, int]] = {}
        self.how = ""
        """How the barrier works, for people."""

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
                mode=str(self._policy),
                barrier=self._barrier is not None,
            )
        except BaseException:
            await self._close()
            raise
        self.how = opened["barrier"]
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
            result = Comparison.unknown(error.message)
        self._emit(Phase(self._now(), f"verify-{word}", done=True, detail=result.verdict))
        self._emit(VerdictEvent(self._now(), result.verdict, {"of": f"verify-{word}"}))
        return result

    # ------------------------------------------------------------------------------------------------------------ inside

    def _now(self) -> float:
        return time.monotonic() - self._origin

    async def _request(self, word: str, **more: Any) -> Line:
        if self._worker is None:
            raise LocalProtocolError("the verifier was not entered", remedy="async with Verifier(...) as verifier")
        while not self._results.empty():  # of a request whose caller was cancelled
            self._results.get_nowait()
        if self._listener is not None and self._listener.done():
            raise ConnectionLost("the verification's process has ended", remedy="verify again")
        self._worker.ask(word, **more)
        result = await self._results.get()
        if isinstance(result, ValkeepError):
            raise result
        answer: Line = result["comparison"]
        return answer

    async def _listen(self, worker: Worker) -> None:
        try:
            while True:
                line = await worker.hear()
                said = line["say"]
                if said == "result":
                    self._results.put_nowait(line)
                elif said == "error":
                    self._results.put_nowait(error_from(line))
                elif said in ("barrier", "recopy"):
                    task = asyncio.create_task(self._answer(worker, line))
                    self._answers.add(task)
                    task.add_done_callback(self._answers.discard)
                elif said == "progress":
                    self._progress[line["side"]] = (line["keys"], line["bytes"])
                    keys, size = (sum(one) for one in zip(*self._progress.values(), strict=True))
                    self._emit(Progress(self._now(), "verify", keys=keys, bytes=size))
                elif said == "phase":
                    self._emit(Phase(self._now(), line["name"], done=line["done"]))
                elif said == "note":
                    self._emit(Note(self._now(), line["level"], line["text"]))
        except ValkeepError as error:
            self._results.put_nowait(error)

    async def _answer(self, worker: Worker, line: Line) -> None:
        try:
            if line["say"] == "barrier":
                assert self._barrier is not None
                await self._barrier(line["offset"])
            else:
                assert self._recopy is not None
                await self._recopy(line["database"], unpack(line["key"]))
        except ValkeepError as error:
            worker.ask("answer", id=line["id"], ok=False, message=error.message, remedy=error.remedy)
        except Exception as error:  # noqa: BLE001 - the caller's function; the worker must not wait for ever
            worker.ask("answer", id=line["id"], ok=False, message=f"{type(error).__name__}: {error}", remedy="see the barrier's own log")
        else:
            worker.ask("answer", id=line["id"], ok=True)
