"""How other commands reach a running migration: a Unix socket in its state folder, one JSON line each way.

``valkeep migrate cutover`` and ``abort`` find the folder (by --state, or by source and target), connect, send ``{"command": …}`` and print the
answer. Only the user who runs the migration may (mode 0600). A migration that was killed leaves a socket that nobody answers: the caller
then works from the state file.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from valkeep.errors import ExitCode, Refused, ValkeepError

__all__ = ["Control", "Lock", "ask", "is_locked", "remove_socket"]

SOCKET = "control"
LOCK = "lock"
LOCK_TRIES = 3
LOCK_SECONDS = 0.01
LINE_LIMIT = 1 << 16
ADDRESS_LIMIT = 107
ANSWER_SECONDS = 2.0
NOT_NOW = "the migration that runs cannot do that at present"

Handler = Callable[[], Coroutine[Any, Any, dict[str, Any]]]


class Lock:
    """Only one Valkeep may work on a state folder. Released when the process ends, also by kill -9."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK
        self._file: IO[str] | None = None

    def __enter__(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "w", encoding="utf-8")
        except OSError as error:
            raise ValkeepError(
                f"the migration's state cannot be written to {self._path.parent}: {error.strerror}",
                remedy="choose another folder with --state DIR",
                code="VK-STATE-WRITE",
            ) from error
        for _ in range(LOCK_TRIES):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(LOCK_SECONDS)  # somebody may only be looking (``is_locked``)
            else:
                return
        self._file.close()
        raise Refused(
            f"another Valkeep works on this migration ({self._path.parent})",
            remedy="wait for it, or end it with `valkeep migrate abort`",
            code="VK-STATE-LOCKED",
        )

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def is_locked(directory: Path) -> bool:
    """Whether a Valkeep works on this folder just now. Takes nothing from anybody for longer than the look takes."""
    try:
        with (directory / LOCK).open("r", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
            return False
    except OSError:  # nobody ever worked here
        return False


class Control:
    """The running migration's side. ``handlers``: command -> what to do; their results are the answers, their ``ValkeepError`` too."""

    def __init__(self, directory: Path, handlers: Mapping[str, Handler]) -> None:
        self._path = directory / SOCKET
        self._handlers = handlers
        self._server: asyncio.Server | None = None
        self._answering: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> None:
        self._path.unlink(missing_ok=True)
        with _reachable(self._path) as address:
            self._server = await asyncio.start_unix_server(self._serve, address, limit=LINE_LIMIT, start_serving=False)
        self._path.chmod(0o600)
        try:
            await self._server.start_serving()
        except BaseException:  # cancelled just now: nobody will leave what was not entered
            await self.__aexit__()
            raise

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)
        if self._answering:
            await asyncio.wait(self._answering, timeout=ANSWER_SECONDS)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        with contextlib.suppress(ConnectionError, ValueError, asyncio.LimitOverrunError):
            request = json.loads(await reader.readline())
            handler = self._handlers.get(request.get("command", "")) if isinstance(request, dict) else None
            if handler is None:
                answer: dict[str, Any] = {
                    "ok": False,
                    "error": NOT_NOW,
                    "remedy": f"it takes {', '.join(sorted(self._handlers))} at present",
                }
            else:
                try:
                    answer = {"ok": True, **await _unless_gone(handler(), reader)}
                except ValkeepError as error:
                    answer = {"ok": False, "error": error.message, "remedy": error.remedy, "definite": error.definite, "code": error.code}
                    answer["exit"] = int(error.exit_code)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()


async def _unless_gone(work: Coroutine[Any, Any, dict[str, Any]], reader: asyncio.StreamReader) -> dict[str, Any]:
    """Its result; of whoever hangs up meanwhile, nothing is done any more that was not begun. Raises ``ConnectionError`` then."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ConnectionResetError
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


def remove_socket(directory: Path) -> None:
    """What a killed migration left; the caller holds the `Lock`."""
    (directory / SOCKET).unlink(missing_ok=True)


async def ask(directory: Path, command: str, timeout: float = 120.0) -> dict[str, Any] | None:
    """Send a command to the migration that runs in this folder; None when none runs. Raises what it answered as an error."""
    try:
        with _reachable(directory / SOCKET) as address:
            reader, writer = await asyncio.open_unix_connection(address, limit=LINE_LIMIT)
    except OSError:
        return None
    try:
        writer.write(json.dumps({"command": command}).encode() + b"\n")
        async with asyncio.timeout(timeout):
            line = await reader.readline()
    except (OSError, TimeoutError):
        line = b""
    finally:
        writer.close()
    if not line:
        raise ValkeepError(
            f"the running migration did not answer to `{command}`",
            remedy="`valkeep migrate status` says whether it runs still. If so: look at its own output, and try again. If not: `valkeep migrate abort` undoes "
            "what it left, or says that the target was promoted",
            definite=False,
            code="VK-CONTROL",
        )
    answer: dict[str, Any] = json.loads(line)
    if not answer.pop("ok"):
        error = ValkeepError(answer["error"], remedy=answer["remedy"], definite=answer.get("definite", True), code=answer.get("code", ""))
        error.exit_code = ExitCode(answer.get("exit", error.exit_code))
        raise error
    return answer


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """A name of the socket that fits into the 107 bytes of a Unix address: a longer one goes through its open folder."""
    text = str(path)
    if len(os.fsencode(text)) <= ADDRESS_LIMIT:
        yield text
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
