"""One gateway between a scripted source and a real target, driven by plain calls: the gateway runs in an event loop of its own thread.

End states are read with valkey-py's bare connection: what a server answers is compared as it came, nothing is decoded by Valkeep.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

from valkey.connection import Connection

from tests.support.scripted_primary import ScriptedPrimary, until
from valkeep.client.endpoint import Endpoint
from valkeep.migrate.feed.psync import PsyncFeed
from valkeep.migrate.gateway.gateway import Gateway, GatewayOptions
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.transform.notes import LedgerNote
from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.report.events import Event
from valkeep.runtime.node import Process

__all__ = ["ScriptedSession", "Reads", "read", "version_of"]

Reads = Sequence[tuple[str | tuple[str | bytes | int, ...], object]]
"""What is asked, and the literal answer. An expected ``set`` stands for a reply in any order, a ``dict`` for pairs in any order, ``None`` for nil."""

Result = TypeVar("Result")

PATIENCE = 20.0  # s until a call has failed


def version_of(spec: str) -> tuple[int, ...]:
    return tuple(int(part) for part in spec.partition("-")[2].split("."))


def read(connection: Connection, request: str | tuple[str | bytes | int, ...], like: object) -> object:
    """The reply, in the form of what is expected: see ``Reads``."""
    connection.send_command(*(request.split() if isinstance(request, str) else request))
    try:
        reply = connection.read_response()
    except Exception as error:  # noqa: BLE001 - an error reply is an answer too, to be compared
        return f"{type(error).__name__}: {error}"
    if isinstance(like, set | frozenset) and isinstance(reply, list):
        assert len(set(reply)) == len(reply), reply
        return set(reply)
    if isinstance(like, dict) and isinstance(reply, list):
        return dict(zip(reply[::2], reply[1::2], strict=True))
    return reply


class ScriptedSession:
    """``with ScriptedSession(node, "valkey-8.1", policy, snapshot) as session``: the target has loaded the snapshot and follows the stream.

    ``early``: the target is attached in the middle of the snapshot. Leaving detaches the target and leaves its data.
    """

    def __init__(
        self, target: Process, spec: str, policy: str, primary: ScriptedPrimary, *, early: bool = False, databases: int = 16
    ) -> None:
        self.target = target
        self.policy = FieldTtl(policy)
        self.format = TargetFormat(version_of(spec), databases)
        self.primary = primary
        self.recorded: list[tuple[str, str, bytes | None, int, int]] = []
        self.events: list[Event] = []
        self.ledger: Ledger
        self.gateway: Gateway
        self.chunk = 0  # of what a test sends
        self._early = early
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted session", daemon=True)
        self._stack = AsyncExitStack()
        self._connection = Connection(host="127.0.0.1", port=target.port)
        self._database = 0

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.run(self._open())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.target.alive:
                self.ask("REPLICAOF NO ONE")
            self.run(self._stack.aclose())
        finally:
            self._connection.disconnect()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def run(self, work: Coroutine[Any, Any, Result], timeout: float = PATIENCE) -> Result:
        """Run a coroutine in the session's loop."""
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout), self._loop).result(timeout + 5)

    async def _open(self) -> None:
        stack, loop = self._stack, asyncio.get_running_loop()
        await stack.enter_async_context(self.primary)
        spool = stack.enter_context(tempfile.TemporaryDirectory(prefix="valkeep-scripted-"))
        source = Endpoint.parse(f"redis://127.0.0.1:{self.primary.port}")
        options = GatewayOptions((self.format,), self.policy, ("127.0.0.1", 0), frozenset({"127.0.0.1"}), Path(spool))
        self.ledger = Ledger(None, self.events.append, loop.time)
        self._watch_ledger()
        self.gateway = await stack.enter_async_context(Gateway(PsyncFeed(source), options, self.ledger, self.events.append, loop.time))
        if self._early:
            self.primary.second_half.clear()
            await self.gateway.resynced()
            await loop.run_in_executor(None, self.attach)
            await until(lambda: self.gateway.links and self.gateway.links[0].snapshot_sent)
            self.primary.second_half.set()
            await self.gateway.snapshot_taken()
        else:
            await self.gateway.snapshot_taken()
            await loop.run_in_executor(None, self.attach)
        await self.gateway.online(self.gateway.channels[0])

    def _watch_ledger(self) -> None:
        record = self.ledger.record

        def remember(note: LedgerNote) -> None:
            assert note.why
            self.recorded.append((note.action, note.what, note.key, note.database, note.things))
            record(note)

        self.ledger.record = remember  # type: ignore[method-assign]

    def attach(self) -> None:
        assert self.ask(f"REPLICAOF {self.gateway.address[0]} {self.gateway.address[1]}") == b"OK"

    # -- what a test does ---------------------------------------------------------------------------------------------------------------

    def send(self, data: bytes, *, chunk: int | None = None) -> int:
        """Go on with the source's stream; returns the offset after it."""
        return self.run(self.primary.send(data, chunk=chunk))

    def play(self, data: bytes, *, chunk: int | None = None) -> None:
        """Send it, and return when the target has applied it."""
        self.drain(self.send(data, chunk=chunk))

    def wait(self, condition: Callable[[], object]) -> None:
        """Return when it holds."""
        self.run(until(condition))

    def in_loop(self, call: Callable[[], object]) -> None:
        """Run a plain call in the session's loop."""

        async def run() -> None:
            call()

        self.run(run())

    @property
    def acknowledged(self) -> int:
        """Our offset that the target said it has applied."""
        return max((link.acknowledged for link in self.gateway.links), default=-1)

    def drain(self, offset: int) -> None:
        self.run(self.gateway.drained(offset))

    def ask(self, request: str | tuple[str | bytes | int, ...], like: object = None, *, database: int = 0) -> object:
        """What the target answers to one ordinary command."""
        if database != self._database:
            assert read(self._connection, f"SELECT {database}", None) == b"OK"
            self._database = database
        return read(self._connection, request, like)

    def check(self, reads: Reads) -> None:
        """Every answer is the literal one, and the target is well. ``("SELECT 3", b"OK")`` changes the database for the reads behind it."""
        self._database = 0
        read(self._connection, "SELECT 0", None)
        found = [(request, read(self._connection, request, expected)) for request, expected in reads]
        read(self._connection, "SELECT 0", None)
        wrong = [
            (request, answer, f"expected {expected}")
            for (request, answer), (_, expected) in zip(found, reads, strict=True)
            if answer != expected
        ]
        assert not wrong, wrong
        self.check_target()

    def info(self, section: str) -> dict[str, str]:
        text = self.ask(f"INFO {section}")
        assert isinstance(text, bytes)
        pairs = (line.partition(":") for line in text.decode().splitlines())
        return {name: value for name, _, value in pairs}

    def check_target(self) -> None:
        """It runs, dropped nothing, and its link is up."""
        assert self.target.alive, self.target.log()[-3000:]
        assert self.info("stats")["unexpected_error_replies"] == "0", self.target.log()[-3000:]
        assert self.info("replication")["master_link_status"] == "up"
        assert self.primary.unknown == []
