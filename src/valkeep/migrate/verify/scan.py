"""Every key of a server, by SCAN and DUMP: in place of a snapshot where PSYNC is denied (managed services). Slower, and heavier on the server.

One connection walks over each database with SCAN; several others (*lanes*) read what it named: the expiry and DUMP of a page of keys in one pipeline, so
that a round trip is paid for hundreds of keys, and the server never waits for us. Pages are cut by what their values weigh (MEMORY USAGE): what is in
memory at once is bounded, also where values are large.

There is no one moment: each key is read at some moment between the beginning and the end. SCAN returns every key that is there from beginning to end,
some twice (when a table shrinks meanwhile), and may or may not return one that comes or goes. Whoever uses this has to know what was written meanwhile, or
look again: the package's head says how.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import ServerInfo, parse_info, server_info
from valkeep.errors import ConnectionLost, Refused, ServerError, ValkeepError
from valkeep.migrate.keyread import KeyRead, Seen, read_surely
from valkeep.migrate.verify.functions import libraries_of
from valkeep.migrate.verify.side import Progress, Snapshot, Spill
from valkeep.topology.slots import key_slot, slots_of

__all__ = ["KeyScan", "Page", "caveats", "read_by_scan"]

LANES = 3  # connections that read keys
COUNT = 500  # keys that one SCAN walks over
BUDGET = 4 << 20  # bytes of values that a lane reads at once, or one value
BLIND_BATCH = 16  # keys at once where MEMORY USAGE is denied
_ASK = b"*2\r\n$4\r\nDUMP\r\n$%d\r\n%b\r\n*2\r\n$11\r\nPEXPIRETIME\r\n$%d\r\n%b\r\n"
TIMEOUT = 60.0  # seconds: DUMP of a large value blocks the server for a while


@dataclass(frozen=True, slots=True)
class Page:
    """Some keys of one database as they were read; those that were gone by then are left out."""

    database: int
    keys: list[tuple[bytes, Seen]]


class KeyScan:
    """``async with await KeyScan.open(endpoint) as scan``, then ``pages`` as often as wanted, one at a time. ``info``: what the server is."""

    def __init__(self, walker: Connection, lanes: list[Connection], info: ServerInfo, slots: frozenset[int] = frozenset()) -> None:
        self.info = info
        self._slots = slots
        self._walker = walker
        self._lanes = lanes
        self._read = KeyRead.of(info.redis_version)
        self._weighs = True
        self._names: asyncio.Queue[tuple[int, list[bytes]] | None] = asyncio.Queue(2 * len(lanes))
        self._pages: asyncio.Queue[Page | BaseException | None] = asyncio.Queue(2 * len(lanes))

    @classmethod
    async def open(cls, endpoint: Endpoint, client_name: str, lanes: int = LANES, ranges: Iterable[tuple[int, int]] = ()) -> Self:
        """Connect. ``ranges``: of slots, where only their keys are wanted (of others a cluster's node shows nothing). Raises what `Connection.open` raises."""
        opened: list[Connection] = []
        try:
            while len(opened) <= lanes:
                opened.append(await Connection.open(endpoint.without_database(), client_name=client_name))
            return cls(opened[0], opened[1:], await server_info(opened[0]), frozenset(slots_of(ranges)))
        except BaseException:
            for connection in opened:
                await connection.close()
            raise

    async def close(self) -> None:
        for connection in (self._walker, *self._lanes):
            await connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def databases(self) -> dict[int, int]:
        """Those that hold keys now, and how many."""
        return (await server_info(self._walker)).keys

    async def said(self) -> dict[str, str]:
        """INFO now."""
        try:
            return parse_info(await self._walker.call("INFO"))
        except ServerError as error:
            raise self._denied(error) from None

    async def function_dump(self) -> bytes:
        """What FUNCTION DUMP gives; b"" on servers without functions (before 7.0)."""
        try:
            return bytes(await self._walker.call("FUNCTION", "DUMP"))
        except ServerError as error:
            if "unknown command" in error.text.lower():
                return b""
            raise self._denied(error) from None

    async def functions(self) -> dict[str, str]:
        """Library → digest of its code."""
        try:
            return await libraries_of(self._walker)
        except ServerError as error:
            raise self._denied(error) from None

    async def pages(self) -> AsyncGenerator[Page]:
        """All keys, database by database. Raises ``Refused`` where a command is not permitted, ``ConnectionLost`` where a connection breaks. Close the
        iterator (``contextlib.aclosing``) when it is given up on."""
        for database in sorted(await self.databases()):
            async with contextlib.aclosing(self._pages_of(database)) as pages:
                async for page in pages:
                    yield page

    async def read(self, database: int, names: list[bytes]) -> AsyncGenerator[list[tuple[bytes, Seen | None]]]:
        """These keys as they are now, in parts that fit into memory; None: there is no such key. Not while ``pages`` are read."""
        connection = self._lanes[0]
        try:
            await connection.call("SELECT", database)
            for at in range(0, len(names), COUNT):
                for part in await self._parts(connection, names[at : at + COUNT]):
                    yield await self._look(connection, part)
        except ServerError as error:
            raise self._denied(error) from None

    async def _pages_of(self, database: int) -> AsyncGenerator[Page]:
        tasks = [asyncio.create_task(self._guard(self._walk(database)))]
        tasks += [asyncio.create_task(self._guard(self._lane(connection, database))) for connection in self._lanes]
        ended = 0
        try:
            while ended < len(tasks):
                page = await self._pages.get()
                if page is None:
                    ended += 1
                elif isinstance(page, BaseException):
                    raise page
                else:
                    yield page
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for queue in (self._names, self._pages):
                while not queue.empty():
                    queue.get_nowait()

    async def _guard(self, work: Any) -> None:
        """Its end, or what ended it, is among the pages."""
        try:
            await work
        except ServerError as error:
            await self._pages.put(self._denied(error))
        except Exception as error:  # noqa: BLE001 - raised by who reads the pages
            await self._pages.put(error)
        else:
            await self._pages.put(None)

    async def _walk(self, database: int) -> None:
        walker = self._walker
        await walker.call("SELECT", database)
        cursor = b"0"
        while True:
            cursor, names = await walker.call("SCAN", cursor, "COUNT", COUNT, timeout=TIMEOUT)
            if self._slots:
                names = [name for name in names if key_slot(name) in self._slots]
            if names:
                await self._names.put((database, names))
            if cursor == b"0":
                break
        for _ in self._lanes:
            await self._names.put(None)

    async def _lane(self, connection: Connection, database: int) -> None:
        await connection.call("SELECT", database)
        while (work := await self._names.get()) is not None:
            _, names = work
            for part in await self._parts(connection, names):
                looked = await self._look(connection, part)
                await self._pages.put(Page(database, [(name, seen) for name, seen in looked if seen is not None]))

    async def _parts(self, connection: Connection, names: list[bytes]) -> Sequence[list[bytes]]:
        """The names in parts that can be read at once."""
        sizes: list[Any] = []
        if self._weighs:
            block = b"".join([b"*3\r\n$6\r\nMEMORY\r\n$5\r\nUSAGE\r\n$%d\r\n%b\r\n" % (len(name), name) for name in names])
            sizes = await connection.exchange(block, len(names), "MEMORY", TIMEOUT)
        if not sizes or any(isinstance(size, ServerError) for size in sizes):
            self._weighs = False
            return [names[at : at + BLIND_BATCH] for at in range(0, len(names), BLIND_BATCH)]
        if sum(size or 0 for size in sizes) <= BUDGET:
            return [names]
        parts: list[list[bytes]] = [[]]
        weight = 0
        for name, size in zip(names, sizes, strict=True):
            if parts[-1] and weight + (size or 0) > BUDGET:
                parts.append([])
                weight = 0
            parts[-1].append(name)
            weight += size or 0
        return parts

    async def _look(self, connection: Connection, names: list[bytes]) -> list[tuple[bytes, Seen | None]]:
        read, width = self._read, self._read.width

        async def seen(names: Sequence[bytes]) -> list[Seen | None]:
            if read.exact:
                block = b"".join([_ASK % (len(name), name, len(name), name) for name in names])
                replies = await connection.exchange(block, 2 * len(names), "DUMP", TIMEOUT)
            else:  # TIME and PTTL stand beside each other
                replies = await connection.execute([command for name in names for command in read.commands(name)], TIMEOUT)
            return [read.seen(replies[at : at + width]) for at in range(0, len(replies), width)]

        return list(zip(names, await read_surely(seen, names), strict=True))

    def _denied(self, error: ServerError) -> ValkeepError:
        where = self._walker.endpoint.address
        if error.kind in ("NOPERM", "NOAUTH") or "unknown command" in error.text:
            return Refused(
                f"{where} does not let its keys be read by SCAN: {error.message}",
                remedy="permit SELECT, SCAN, DUMP, PEXPIRETIME (before 7.0: PTTL, TIME, MULTI), MEMORY and FUNCTION LIST to this user",
                code="VK-SCAN-DENIED",
            )
        remedy = "verify again when the slots stand still (CLUSTER NODES)" if error.kind in ("MOVED", "ASK") else error.remedy
        return ConnectionLost(f"{where} does not show its keys now: {error.message}", remedy=remedy)


def caveats(*, followed: bool, target: str) -> list[str]:
    """What a comparison cannot claim: whether the source was ``followed``, and how the ``target`` was read ("psync" or "scan")."""
    texts = []
    if not followed:
        texts.append("the source is not followed: each key was compared at some moment, and what was written after it is not known")
    if target == "scan":
        texts.append(
            "the target was read by SCAN and DUMP: what somebody else writes there after a key was read is seen only where that key is looked at again"
        )
    return texts


async def read_by_scan(endpoint: Endpoint, spill: Spill, progress: Progress, ranges: Iterable[tuple[int, int]] = ()) -> Snapshot:
    """As `side.read_snapshot`. ``ranges``: see `KeyScan.open`. Raises ``Refused`` where SCAN or DUMP is not permitted either."""
    begun = told = time.monotonic()
    try:
        scanning = await KeyScan.open(endpoint, "valkeep-verify", ranges=ranges)
        async with scanning as scan, contextlib.aclosing(scan.pages()) as pages:
            async for page in pages:
                spill.page(page.database, page.keys)
                if time.monotonic() - told > 0.25:
                    told = time.monotonic()
                    progress(spill.spiller.keys, spill.bytes)
            functions = await scan.functions()
        spill.finish_pages()
    finally:
        spill.close()
    progress(spill.spiller.keys, spill.bytes)
    return Snapshot(spill.spiller.keys, spill.bytes, time.monotonic() - begun, functions, 0)
