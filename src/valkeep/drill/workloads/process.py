"""The parent's end of the writers' process (see ``writers``)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from valkeep.drill.history import History
from valkeep.drill.workloads.writers import WriterSettings
from valkeep.errors import ValkeepError

__all__ = ["Acked", "WriterProcess"]

Acked = Callable[[int, int, str], None]
"""Called every 100 ms with (ns on the monotonic clock, acked so far, the node written to)."""


class WriterProcess:
    """``async with WriterProcess(workdir, acked) as writers``; ended with the block, whatever happens.

    ``workdir``: a folder that does not exist yet; the process makes it, and removes it should this one be killed. Then ``prepare``, ``start``.
    """

    def __init__(self, workdir: Path, acked: Acked | None = None) -> None:
        self.workdir = workdir
        self.acked = 0
        self._watch = acked
        self._process: asyncio.subprocess.Process | None = None
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(  # its lines are short, but for the keys of a pause
            sys.executable, "-m", "valkeep.drill.workloads.writers",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True, limit=1 << 22,
        )  # fmt: skip
        self._listener = asyncio.create_task(self._listen())
        try:
            self._tell({"workdir": str(self.workdir)})
            await self._hear("ready", 20)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._end()

    def prepare(self, settings: WriterSettings) -> None:
        """Where to write, and how much; once."""
        self._tell(settings.to_json())

    def start(self) -> None:
        """Begin, or go on after a pause."""
        self._tell({"do": "start"})

    async def pause(self) -> tuple[int, dict[str, list[bytes]]]:
        """Stop sending. Once nothing is in flight: operations recorded so far, and function → keys touched so far."""
        self._tell({"do": "pause"})
        said = await self._hear("paused", 30)
        keys = {str(function): [key.encode("latin-1") for key in listed] for function, listed in said["keys"].items()}
        return int(said["operations"]), keys

    async def finish(self) -> History:
        """End the writers; what they recorded."""
        self._tell({"do": "stop"})
        path = Path((await self._hear("history", 60))["path"])
        return History.unpacked(await asyncio.to_thread(path.read_bytes))

    def _tell(self, message: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _hear(self, event: str, timeout: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(timeout):
                while True:
                    said = await self._said.get()
                    if said["event"] == event:
                        return said
                    if said["event"] == "ended":
                        raise ValkeepError(
                            "the rehearsal's writers ended by themselves", remedy="see their traceback above: this is a bug of Valkeep"
                        )
        except TimeoutError:
            raise ValkeepError(
                f"the rehearsal's writers did not answer within {timeout:.0f} s",
                remedy="is the machine overloaded? Try again with --rate 2000",
            ) from None

    async def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            if said["event"] == "acked":
                self.acked = said["acked"]
                if self._watch is not None:
                    self._watch(said["at"], said["acked"], said["node"])
            else:
                self._said.put_nowait(said)
        self._said.put_nowait({"event": "ended"})

    async def _end(self) -> None:
        process, listener = self._process, self._listener
        if process is not None:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()  # not by closing its pipe: it would remove the folder, which is still ours
            await process.wait()
        if listener is not None:
            listener.cancel()
            with contextlib.suppress(asyncio.CancelledError, ValueError):
                await listener
