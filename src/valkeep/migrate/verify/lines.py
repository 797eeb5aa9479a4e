"""The words between the processes of a verification: one JSON object per line, over standard input and output.

The one who starts a worker asks (``{"do": …, "id": n}``) and the worker says (``{"say": …, "about": n}``); `Worker` is the asking end, `Mouth` the
saying one. Every answer names the request that it is about: a request can be given up on, and its answer, when it comes, is nobody else's.
Endpoints cross with their passwords, which is why they never stand in arguments or the environment: both are public on a machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

from valkeep.errors import ConnectionLost
from valkeep.migrate.verify.crossing import Line, error_from, error_to

__all__ = ["Mouth", "Worker"]

LIMIT = 64 << 20  # bytes of a line


class Mouth:
    """A worker's end: ``say`` writes a line to standard output, ``asked`` gives the lines of standard input."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    @classmethod
    async def open(cls) -> Mouth:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=LIMIT)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        return cls(reader)

    def say(self, word: str, about: int = 0, **more: Any) -> None:
        """``about``: the request's id; 0 for what answers none. Lines are short and the other end always reads: a blocking write is fine."""
        data = json.dumps({"say": word, "about": about, **more}).encode() + b"\n"
        while data:
            data = data[os.write(1, data) :]

    def fail(self, error: BaseException, about: int) -> None:
        self.say("error", about, error=error_to(error))

    async def asked(self) -> AsyncIterator[Line]:
        """Until the other end is gone; then the worker has no reason to live."""
        while line := await self._reader.readline():
            yield json.loads(line)

    async def asked_or_gone(self) -> AsyncIterator[Line]:
        """As ``asked``; when the other end goes while a request is being worked on, the process ends at once."""
        lines: asyncio.Queue[Line] = asyncio.Queue()

        async def listen() -> None:
            async for line in self.asked():
                lines.put_nowait(line)
            os._exit(0)

        listener = asyncio.create_task(listen())
        try:
            while True:
                yield await lines.get()
        finally:
            listener.cancel()


class Worker:
    """The asking end: a process of `worker.py`. Its standard error is ours; it ends when ``close`` is called or this process dies."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self.process = process
        self.name = name
        self._asked = 0

    @classmethod
    async def start(cls, name: str) -> Worker:
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # no file in the current folder takes the place of a module
            "-m",
            "valkeep.migrate.verify.worker",
            name,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LIMIT,
            env=environment,
            start_new_session=True,
        )
        return cls(process, name)

    def ask(self, word: str, **more: Any) -> int:
        """Returns the request's id, which its answers are ``about``."""
        assert self.process.stdin is not None
        self._asked += 1
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.process.stdin.write(json.dumps({"do": word, "id": self._asked, **more}).encode() + b"\n")
        return self._asked

    async def line(self) -> Line:
        """The next line, whatever it is about. ``ConnectionLost`` when the process is gone."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line.endswith(b"\n"):  # nothing, or the half of what it said when it was killed
            status = await self.process.wait()
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            raise ConnectionLost(
                f"the verification's {self.name} process {how}",
                remedy="verify again; when it was killed, see whether the machine ran out of memory",
            )
        heard: Line = json.loads(line)
        return heard

    async def hear(self, about: int) -> Line:
        """The next answer to this request; those to others, which nobody waits for any more, are passed over. An error is raised."""
        while True:
            heard = await self.line()
            if heard["about"] == about:
                if heard["say"] == "error":
                    raise error_from(heard["error"])
                return heard

    async def close(self) -> None:
        """Ask it to end by closing its input; kill it when it does not."""
        if self.process.returncode is None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if self.process.stdin is not None:
                    self.process.stdin.close()
            try:
                async with asyncio.timeout(2.0):
                    await self.process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self.process.kill()
                await self.process.wait()
        transport = getattr(self.process, "_transport", None)
        if transport is not None:
            transport.close()
