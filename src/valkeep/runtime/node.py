"""One server process: started, waited for, killed, paused, restarted, and surely gone at the end.

``Node.start(...)`` describes a start; entering it starts. ``async with`` gives a `Node`, whose verbs are awaited; ``with`` gives a
`Process`, the same with plain calls (for tests and scripts). Both wait until the server *answers*, not until some time has passed.

Nothing outlives its parent. On Linux each server asks the kernel to kill it when the parent dies (``PR_SET_PDEATHSIG``, set by a
launcher of three lines that then becomes the server), so also a ``kill -9`` leaves no process behind. Trap: that signal is tied to
the *thread* that started the child. A server started from a thread of a pool would be killed when the pool is; so all servers are
started by one daemon thread that lives as long as the process. Elsewhere the end of the ``with`` block has to do.

Traps of `Popen`, stepped around: the log goes to a file (a pipe that nobody reads stops the server at 64 KiB), stdin is
``/dev/null``, and the child gets its own session, so that Ctrl-C reaches Valkeep alone, which then stops its servers in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

from valkeep.errors import ValkeepError
from valkeep.runtime import ports
from valkeep.runtime.folder import temporary_folder
from valkeep.runtime.servers import ServerBinary

__all__ = ["Config", "Node", "NodeFailed", "Process", "Starting"]

Config = Mapping[str, str | int | Sequence[str]]
"""Settings of a server, one line each; a list of values gives the setting that many lines (``save``, ``user``, ``rename-command``)."""

HOST = "127.0.0.1"

# PR_SET_PDEATHSIG = 1. The parent may have died before the call: then getppid() is not who started us, and we do not start.
_LAUNCHER = """\
import ctypes, os, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() == int(sys.argv[1]): os.execv(sys.argv[2], sys.argv[2:])
"""


class NodeFailed(ValkeepError):
    """A server did not start, or did not end as asked. The message carries the last lines of its log."""


class _Starter:
    """The one thread that starts every server (see the essay); made again in a forked child."""

    def __init__(self) -> None:
        self._pid = -1
        self._jobs: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]] = queue.SimpleQueue()
        self._guard = threading.Lock()

    def __call__(self, job: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        with self._guard:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                self._jobs = queue.SimpleQueue()
                threading.Thread(target=self._work, args=(self._jobs,), name="valkeep-starter", daemon=True).start()
        result: Future[subprocess.Popen[bytes]] = Future()
        self._jobs.put((job, result))
        return result.result()

    @staticmethod
    def _work(jobs: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]]) -> None:
        while True:
            job, result = jobs.get()
            try:
                result.set_result(job())
            except BaseException as error:  # noqa: BLE001 - handed to the caller, who waits for it
                result.set_exception(error)


_start = _Starter()


def _lines(config: Config) -> str:
    out: list[str] = []
    for name, value in config.items():
        for one in [value] if isinstance(value, str | int) else value:
            text = str(one)
            if "\n" in text or "\r" in text:
                raise NodeFailed(f"the value of {name} spans lines", remedy="a setting of a server is one line")
            out.append(f"{name} {text or chr(34) * 2}\n")
    return "".join(out)


class Process:
    """A running server, driven by plain calls. ``directory`` holds ``node.conf``, ``node.log`` and the server's own files.

    ``address``: where it listens. ``release``: called at the end, when the port is free again. ``arguments``: after the configuration file
    (``--sentinel``). ``environment``: beside this process's own; times in logs are UTC unless it says otherwise.
    """

    def __init__(
        self,
        binary: ServerBinary,
        config: Config,
        directory: Path,
        address: tuple[str, int],
        *,
        release: Callable[[], None] = lambda: None,
        owns_directory: bool = False,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.binary = binary
        self.host, self.port = address
        self.config = {**_defaults(directory, self.host, self.port), **config}
        self.directory = directory
        self.environment = dict(environment or {})
        self._release = release
        self._owns_directory = owns_directory
        self._arguments = tuple(arguments)
        self._child: subprocess.Popen[bytes] | None = None
        self._paused = False
        self._disposed = False
        self._starting = threading.Lock()

    # ------------------------------------------------------------------------------------------------------------ looking

    @property
    def endpoint(self) -> str:
        """A URL without a password."""
        return f"redis://{self.host}:{self.port}"

    @property
    def address(self) -> tuple[str, int]:
        return (self.host, self.port)

    @property
    def pid(self) -> int:
        """Of the running server; raises when it does not run."""
        if self._child is None or self._child.poll() is not None:
            raise NodeFailed(f"{self.binary} on port {self.port} does not run", remedy="restart() it first")
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit status of the last run (negative: the signal), None while it runs."""
        return None if self._child is None else self._child.poll()

    def log(self) -> str:
        """All that the server has written, over every restart."""
        try:
            return (self.directory / "node.log").read_text(errors="replace")
        except OSError:
            return ""

    # ------------------------------------------------------------------------------------------------------------- verbs

    def launch(self, timeout: float = 20.0) -> None:
        """Start the server and wait until it answers, at most ``timeout`` seconds."""
        if self.alive:
            raise NodeFailed(f"{self.binary} on port {self.port} runs already (pid {self.pid})", remedy="stop() or kill() it first")
        file = self.directory / "node.conf"
        if not file.exists():  # kept over restarts: a sentinel, or CONFIG REWRITE, writes its state there
            file.write_text(_lines(self.config))
            file.chmod(0o600)
        command = [*self.binary.argv, str(file), *self._arguments]
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
        with self._starting, (self.directory / "node.log").open("ab") as log:
            if self._disposed:  # in another thread, while this one got here
                raise NodeFailed(f"{self.binary} on port {self.port} was put away", remedy="start another one")
            self._child = _start(
                lambda: subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.directory,
                    start_new_session=True,
                    close_fds=True,
                    env={**os.environ, "TZ": "UTC", **self.environment},
                )
            )
        self._paused = False
        self.wait_until_answering(timeout)

    def wait_until_answering(self, timeout: float = 20.0) -> None:
        """Until PING gets an answer that is not ``-LOADING``; an error such as NOAUTH is an answer too."""
        deadline = time.monotonic() + timeout
        while True:
            if not self.alive:
                raise NodeFailed(
                    f"{self.binary} on port {self.port} ended with status {self.returncode} while starting: {self._last_words()}",
                    remedy="read the log lines above; most often a setting that this version does not know",
                )
            if _answers(self.address, tls=self.config.get("tls-port") == self.port):
                return
            if time.monotonic() > deadline:
                words = self._last_words()
                self.kill()
                raise NodeFailed(
                    f"{self.binary} on port {self.port} did not answer within {timeout:.0f} s: {words}",
                    remedy="give it more time (a large data file loads first), or read its log",
                )
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL, as a crash would; no goodbye, nothing saved."""
        self._signal(signal.SIGKILL)
        if self._child is not None:
            self._child.wait()

    def stop(self, timeout: float = 10.0) -> None:
        """SIGTERM, as an orderly shutdown would; SIGKILL after ``timeout`` seconds."""
        if self._paused:
            self.resume()
        self._signal(signal.SIGTERM)
        if self._child is not None:
            try:
                self._child.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()

    def pause(self) -> None:
        """SIGSTOP: the process hangs, its sockets stay open."""
        self._signal(signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)
        self._paused = False

    def restart(self, timeout: float = 20.0) -> None:
        """Stop (when it still runs) and start again with the same port, folder and files."""
        self.stop()
        self.launch(timeout)

    def dispose(self) -> None:
        """End the server, give the port back, remove the folder when it is ours."""
        try:
            with self._starting:
                self._disposed = True
            if self.alive:
                self.kill()
        finally:
            self._release()
            if self._owns_directory:
                shutil.rmtree(self.directory, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        if self._child is not None:
            self._child.send_signal(number)  # polls first: never signals a pid that is no longer ours

    def _last_words(self) -> str:
        return " | ".join(line.strip() for line in self.log().splitlines()[-5:]) or "its log is empty"


def _defaults(directory: Path, host: str, port: int) -> dict[str, str | int | Sequence[str]]:
    """Loopback only, nothing saved, replicas served at once. The caller's settings win."""
    return {
        "bind": host,
        "port": port,
        "dir": str(directory),
        "save": "",
        "appendonly": "no",
        "daemonize": "no",
        "repl-diskless-sync-delay": 0,
    }


def _answers(address: tuple[str, int], *, tls: bool) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(address, timeout=1.0) as plain:
        with _unchecked().wrap_socket(plain) if tls else plain as connection:
            connection.sendall(b"PING\r\n")
            reply = connection.recv(64)
            return reply.startswith((b"+", b"-")) and not reply.startswith(b"-LOADING")
    return False


def _unchecked() -> ssl.SSLContext:
    """Only whether somebody answers is asked here; a server that wants a client's certificate hangs up, and its deployment waits longer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Node:
    """A running server for asynchronous callers: the attributes of `Process`, its verbs awaited."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.host, self.port, self.endpoint, self.address = process.host, process.port, process.endpoint, process.address
        self.binary, self.directory = process.binary, process.directory

    @staticmethod
    def start(
        binary: ServerBinary, config: Config | None = None, *, directory: Path | None = None, port: int | None = None, timeout: float = 20.0
    ) -> Starting:
        """Describe a start; ``async with`` or ``with`` performs it. Without ``directory`` the node gets one that is removed at the end."""
        return Starting(binary, dict(config or {}), directory, port, timeout)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.alive

    @property
    def returncode(self) -> int | None:
        return self.process.returncode

    def log(self) -> str:
        return self.process.log()

    async def kill(self) -> None:
        await asyncio.to_thread(self.process.kill)

    async def stop(self, timeout: float = 10.0) -> None:
        await asyncio.to_thread(self.process.stop, timeout)

    async def pause(self) -> None:
        self.process.pause()

    async def resume(self) -> None:
        self.process.resume()

    async def restart(self, timeout: float = 20.0) -> None:
        await asyncio.to_thread(self.process.restart, timeout)


class Starting:
    """What `Node.start` returns: a context manager, synchronous and asynchronous."""

    def __init__(
        self, binary: ServerBinary, config: dict[str, str | int | Sequence[str]], directory: Path | None, port: int | None, timeout: float
    ) -> None:
        self._binary, self._config, self._directory, self._port, self._timeout = binary, config, directory, port, timeout
        self._process: Process | None = None

    def __enter__(self) -> Process:
        reservation = ports.reserve(self._port)
        owned = self._directory is None
        directory = temporary_folder() if self._directory is None else self._directory
        directory.mkdir(parents=True, exist_ok=True)
        process = Process(
            self._binary, self._config, directory.absolute(), (HOST, reservation.port), release=reservation.release, owns_directory=owned
        )
        try:
            process.launch(self._timeout)
        except BaseException:
            process.dispose()
            raise
        self._process = process
        return process

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None:
            self._process.dispose()

    async def __aenter__(self) -> Node:
        entering = asyncio.ensure_future(asyncio.to_thread(self.__enter__))
        try:
            return Node(await asyncio.shield(entering))
        except asyncio.CancelledError:
            # the thread goes on; what it starts must not be left behind
            with contextlib.suppress(Exception):
                (await entering).dispose()
            raise

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)
