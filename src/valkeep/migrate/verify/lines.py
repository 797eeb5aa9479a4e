"""The words between the processes of a verification: one JSON object per line, over standard input and output.

The one who starts a worker asks (``{"do": …}``) and the worker says (``{"say": …}``); `Worker` is the asking end, `Mouth` the saying one.
Endpoints cross with their passwords, which is why they never stand in arguments or the environment: both are public on a machine.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from valkeep.client.endpoint import TLS, Endpoint, Secret
from valkeep.errors import ConnectionLost, ExitCode, Refused, RemoteProtocolError, ServerError, UsageError, ValkeepError

__all__ = ["Line", "Mouth", "Worker", "endpoint_from", "endpoint_to", "error_from", "error_to", "pack", "unpack"]

Line = dict[str, Any]
LIMIT = 64 << 20  # bytes of a line


def pack(data: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(data).decode()


def unpack(text: str) -> bytes:
    return base64.b64decode(text)


def endpoint_to(endpoint: Endpoint) -> Line:
    return {
        "host": endpoint.host,
        "port": endpoint.port,
        "username": endpoint.username,
        "password": endpoint.password.reveal() if endpoint.password else None,
        "tls": asdict(endpoint.tls) if endpoint.tls else None,
    }


def endpoint_from(line: Line) -> Endpoint:
    return Endpoint(
        host=line["host"],
        port=line["port"],
        username=line["username"],
        password=Secret(line["password"]) if line["password"] else None,
        tls=TLS(**line["tls"]) if line["tls"] else None,
    )


_KINDS: dict[str, type[ValkeepError]] = {
    kind.__name__: kind for kind in (ValkeepError, UsageError, Refused, ConnectionLost, RemoteProtocolError)
}


def error_to(error: BaseException) -> Line:
    """An error as a line; one that is not ours is a bug, and says so."""
    if isinstance(error, ServerError):
        return {
            "say": "error",
            "kind": "Refused",
            "message": error.message,
            "remedy": error.remedy,
            "definite": True,
            "exit": 4,
            "code": "",
        }
    if isinstance(error, ValkeepError):
        kind = next(one.__name__ for one in type(error).__mro__ if one.__name__ in _KINDS)
        return {
            "say": "error",
            "kind": kind,
            "message": error.message,
            "remedy": error.remedy,
            "definite": error.definite,
            "exit": int(error.exit_code),
            "code": error.code,
        }
    message = f"{type(error).__name__}: {error}"
    return {"say": "error", "kind": "ValkeepError", "message": message, "remedy": "this is a bug of Valkeep: please report it",
            "definite": True, "exit": int(ExitCode.UNKNOWN), "code": ""}  # fmt: skip


def error_from(line: Line) -> ValkeepError:
    error = _KINDS.get(line["kind"], ValkeepError)(line["message"], remedy=line["remedy"], definite=line["definite"], code=line["code"])
    error.exit_code = ExitCode(line["exit"])
    return error


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

    def say(self, word: str, **more: Any) -> None:
        """Lines are short and the other end always reads, so that a blocking write is fine."""
        data = json.dumps({"say": word, **more}).encode() + b"\n"
        while data:
            data = data[os.write(1, data) :]

    def fail(self, error: BaseException) -> None:
        line = error_to(error)
        self.say(line.pop("say"), **line)

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

    @classmethod
    async def start(cls, name: str) -> Worker:
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
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

    def ask(self, word: str, **more: Any) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.process.stdin.write(json.dumps({"do": word, **more}).encode() + b"\n")

    async def hear(self) -> Line:
        """The next line. ``ConnectionLost`` when the process is gone; what it reported as an error is returned like any line."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            status = await self.process.wait()
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            raise ConnectionLost(
                f"the verification's {self.name} process {how}",
                remedy="verify again; when it was killed, see whether the machine ran out of memory",
            )
        heard: Line = json.loads(line)
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
