"""The pipe between a run and the process that writes for it: both ends of a conversation in JSON lines.

Who writes has a process of its own for two reasons: what it measures is then the servers' pause, not a stall of an event loop that has
other work; and it outlives nothing: when the pipe from its parent closes (also when the parent was killed) it removes the run's folder
and ends. Everything that the process has to know goes through the pipe, passwords too: an argument or a variable could be read by others.

    parent → {"workdir": …}            the process makes the folder: from then on it is sure to go
    process → {"event": "ready"}
    parent → settings, in one line
    parent → {"do": "start" | "pause" | "stop"}          see `obey`
    process → {"event": …}                               as both agreed

An ordinary end is the parent's: it has been told all it asked for, kills the process and removes the folder itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TextIO

from valkeep.errors import LocalProtocolError, ValkeepError

__all__ = ["Child", "converse", "obey", "say"]

TICK: Final = 0.1  # seconds between two words on how it stands
_LINE: Final = 1 << 22  # bytes of one line: settings, and the keys of a pause

Heard = Callable[[dict[str, Any]], bool]
"""Called for each message; True when it was news for somebody and nobody waits for it."""


class Child:
    """The parent's end. ``module``: its ``__main__`` calls `converse`; ``who``: what errors call it; ``heard``: looks at each message first.

    ``begin`` and ``end`` go around everything else; after ``end`` nothing is left of the process, whatever happened.
    """

    def __init__(self, module: str, who: str, heard: Heard = lambda _: False) -> None:
        self._module, self._who, self._heard = module, who, heard
        self._process: asyncio.subprocess.Process | None = None
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._listener: asyncio.Task[None] | None = None

    async def begin(self, workdir: Path) -> None:
        """Start it and let it make ``workdir``, which must not exist yet and is removed should this process be killed."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", self._module,  # -P: no file in the current folder takes the place of a module
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True, limit=_LINE,
        )  # fmt: skip
        self._listener = asyncio.create_task(self._listen())
        try:
            self.tell({"workdir": str(workdir)})
            await self.hear("ready", 20)
        except BaseException:
            await self.end()
            raise

    def tell(self, message: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def hear(self, event: str, timeout: float) -> dict[str, Any]:
        """Wait for this event, at most ``timeout`` s; others are dropped. Raises ``ValkeepError`` when the process ended or says nothing."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    said = await self._said.get()
                    if said["event"] == event:
                        return said
                    if said["event"] == "failed":
                        raise ValkeepError(f"{self._who} could not go on: {said['why']}", remedy=said["remedy"])
                    if said["event"] == "ended":
                        self._said.put_nowait(said)
                        raise ValkeepError(f"{self._who} ended by itself", remedy="see its traceback above: this is a bug of Valkeep")
        except TimeoutError:
            raise ValkeepError(
                f"{self._who} did not answer within {timeout:.0f} s", remedy="is the machine overloaded? Try again with a lower rate"
            ) from None

    async def end(self) -> None:
        """Kill it and wait until it is gone."""
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

    async def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            if not self._heard(said):
                self._said.put_nowait(said)
        self._said.put_nowait({"event": "ended"})


# ------------------------------------------------------------------------------------------------------------- the process

Work = Callable[[Path, dict[str, Any], AsyncIterator[dict[str, Any]]], Coroutine[Any, Any, bool]]
"""Given the folder, the settings and what the parent says from then on; False when the parent vanished before the work was over."""


_to_parent: TextIO = sys.stdout


def say(**message: Any) -> None:
    """To the parent."""
    _to_parent.write(json.dumps(message) + "\n")
    _to_parent.flush()


async def obey(
    messages: AsyncIterator[dict[str, Any]],
    work: Coroutine[Any, Any, None],
    *,
    start: Callable[[], None],
    pause: Callable[[], Awaitable[None]],
    stop: Callable[[], None],
    tick: Callable[[], None],
) -> bool:
    """Run ``work`` to its end and do meanwhile what the parent says; ``tick`` is called every `TICK`. ``pause`` returns when nothing is in flight.

    False, and ``work`` is cancelled, when the parent vanished without a ``stop``. What ``work`` raises is raised, also before it was told to stop.
    """
    working = asyncio.create_task(work)
    ticking = asyncio.create_task(_every_tick(tick))
    hearing = asyncio.create_task(_told_to_stop(messages, start, pause, stop))
    await asyncio.wait({working, hearing}, return_when=asyncio.FIRST_COMPLETED)
    ticking.cancel()
    if not hearing.done():  # nobody told it to stop
        hearing.cancel()
    elif not hearing.result():
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await working
        return False
    await working
    return True


async def _every_tick(tick: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(TICK)
        tick()


async def _told_to_stop(
    messages: AsyncIterator[dict[str, Any]], start: Callable[[], None], pause: Callable[[], Awaitable[None]], stop: Callable[[], None]
) -> bool:
    async for message in messages:
        match message["do"]:
            case "start":
                start()
            case "pause":
                await pause()
            case "stop":
                stop()
                return True
            case other:
                raise LocalProtocolError(f"the parent said {other!r}", remedy="start, pause and stop are all there is")
    return False


def converse(work: Work) -> int:
    """The process's whole life; its exit status is returned. The folder goes when the parent did."""
    gc.freeze()
    gc.disable()  # nothing here makes cycles; a collection would look like a pause of the server
    _keep_the_pipe()
    folders: list[Path] = []
    with contextlib.suppress(BrokenPipeError):
        if asyncio.run(_converse(work, folders)):
            return 0
    for _ in range(20):  # the servers die at the same time and may still write
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.1)
        if not any(folder.exists() for folder in folders):
            break
    return 1


def _keep_the_pipe() -> None:
    """What a library under test prints goes to the standard error output: the pipe is for the conversation."""
    global _to_parent
    _to_parent = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)


async def _converse(work: Work, folders: list[Path]) -> bool:
    reader = asyncio.StreamReader(limit=_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    workdir = Path(json.loads(await reader.readline())["workdir"])
    folders.append(workdir)
    await asyncio.to_thread(workdir.mkdir, mode=0o700)
    say(event="ready")
    messages = _messages(reader)
    async for settings in messages:
        return await work(workdir, settings, messages)
    return False


async def _messages(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    while line := await reader.readline():
        yield json.loads(line)
