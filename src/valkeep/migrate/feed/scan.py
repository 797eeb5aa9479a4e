"""The feed of a source that denies PSYNC: everything by SCAN and DUMP, then again and again, and what changed as commands.

    round 0    every key goes into a snapshot, put together of DUMP payloads
    round n    every key is read again; what has another value or expiry than we gave before is read once more and given as RESTORE … REPLACE ABSTTL,
               what is gone as DEL; functions, when they changed, as FUNCTION RESTORE … FLUSH

**What was given is known by its digest** (`given.Given`): a row of 48 bytes and the name for each key, on the disk, so that memory does not grow with the
data. A round's rows are compared with those of the round before, partition by partition. A key that differs is read once more, and *that* value is given,
which may be newer than the row that showed the change. So its row is made anew, of what was given, and stands before the others (the first row of a key
counts): else a key that goes back to the value that the scan saw would look unchanged, while the target has what it was in between.

**A snapshot holds no key twice**: a server that loads one exits. SCAN names some keys twice. So names pass a filter of a fixed size (two bits for each name in
a table): who finds both bits set may have been there, and waits for round 1. Some do without need; none is twice.

**Offsets are ours**: bytes given since the snapshot. ``reach`` says which of them has everything that the source had written when it was asked: the end of a
round that began later. Where INFO proves that nothing was written since the last round began (`_mark`), that round will do.

What this can't promise, and the report says so (`scanned`): no moment before the fence is one of the source's; keys of one transaction may come in
different rounds; a key that was written twice between two rounds is given once; what is no part of the digest is not followed. Behind the fence one last round
makes both sides equal, and takes as long as any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from valkeep.client.connection import Connection
from valkeep.client.server_info import server_info
from valkeep.errors import ConnectionLost, Refused, ValkeepError
from valkeep.migrate.feed import Origin, Position, ReplicationGap
from valkeep.migrate.feed.given import Given
from valkeep.migrate.verify.assembled import Assembled
from valkeep.migrate.verify.scan import KeyScan
from valkeep.migrate.verify.side import partitions_for
from valkeep.report.events import Emit, Note
from valkeep.wire.resp import encode

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.client.replication import Receiver
    from valkeep.client.server_info import ServerInfo
    from valkeep.migrate.keyread import Seen
    from valkeep.migrate.transform.copies import Copy
    from valkeep.wire.commands import Place

__all__ = ["Round", "ScanFeed"]

FEW = 1000  # changed keys in a round, below which another one makes the last one no shorter
SHRINKS = 0.8  # … or a round's share of the changes of the one before, above which
PAUSE = 1.0  # seconds between two rounds at least, while nobody waits for one …
IDLE = 3.0  # … and so many times as long as a round takes: all that they are good for is that the next one has less to give
PATIENCE = 60.0  # seconds for which the source may be away
RETRY = 1.0
LOOK = 0.01  # seconds between two looks at a replica that has not come along
BITS = 27, 30  # of the table that a snapshot's names pass: at least, at most (16 and 128 MB); ten for each key between
_MARK = ("run_id", "rdb_changes_since_last_save", "rdb_last_save_time", "rdb_saves", "evicted_keys")
_MARK_OF_A_REPLICA = ("role", "master_replid", "slave_repl_offset")  # which counts no change when it loads another snapshot


@dataclass(frozen=True, slots=True)
class Round:
    """What a round came to. ``changed``: keys given; ``seconds``: how long it took, ``keys``: how many were read."""

    number: int
    keys: int
    changed: int
    seconds: float

    @property
    def display(self) -> str:
        rate = self.keys / self.seconds if self.seconds else 0.0
        what = "snapshot" if self.number == 0 else f"round {self.number}"
        return f"{what} by SCAN: {self.keys:,} keys in {self.seconds:.1f} s ({rate:,.0f} keys/s), {self.changed:,} changed"


class ScanFeed:
    """A `Feed`. ``folder``: for the rows; made here, and removed by its owner. ``rounds``: the newest two. The id of its history is the source's run_id."""

    def __init__(self, source: Endpoint, folder: Path, emit: Emit, clock: Callable[[], float]) -> None:
        self.received = 0
        self.rounds: list[Round] = []
        self._source = source
        self._folder = folder
        self._emit = emit
        self._clock = clock
        self._receiver: Receiver | None = None
        self._scan: KeyScan | None = None
        self._run_id = ""
        self._replid = ""
        self._given = Given(folder, secrets.token_bytes(16), 4)
        self._functions = b""
        self._database = -1  # that the stream is in
        self._known: tuple[str, ...] = ()  # the source's mark before the newest round that is complete
        self._copied: dict[Place, tuple[bytes, bytes]] = {}  # rows of what was given otherwise than by a round
        self._asked = 0
        self._answered = 0
        self._news = asyncio.Condition()
        self._closed = False

    @property
    def length(self) -> int:
        return 0

    async def look(self) -> Origin:
        async with await Connection.open(self._source.without_database(), client_name="valkeep-gateway") as connection:
            info = await server_info(connection)
        if info.mode == "cluster":
            raise Refused(
                f"{self._source.address} is a node of a cluster, which holds a part of the keys",
                remedy="give a server with cluster-enabled no: a cluster as the source is not supported yet",
                code="VK-CLUSTER",
            )
        valkey, keys = info.kind == "valkey", sum(info.keys.values())
        self._run_id = info.run_id
        self._replid = info.replid
        self._given = Given(self._folder, secrets.token_bytes(16), partitions_for(keys))
        return Origin(info.name, info.version, info.version if valkey else info.redis_version, valkey, keys, info.fields)

    async def start(self, receiver: Receiver, listening_port: int, since: Position | None = None) -> None:
        """Raises ``Refused`` where the source does not let its keys be read."""
        del listening_port
        if since is not None:
            raise ReplicationGap("what is read by SCAN begins anew each time", remedy="start again, with an empty state folder")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._scan = await self._connect()
        self._receiver = receiver
        receiver.full_resync(self._run_id, self.received)

    async def run(self) -> None:
        lost = 0.0
        work = self._snapshot
        while not self._closed:
            try:
                if self._scan is None:
                    self._scan = await self._connect()
                await work()
                lost, work = 0.0, self._follow
            except ConnectionLost as error:
                await self._hang_up()
                lost = lost or self._clock()
                if work == self._snapshot or self._clock() - lost > PATIENCE:
                    raise error.saying(code="VK-SOURCE-LOST") from None
                self._say("warning", f"{error.message}: the round begins again")
                await asyncio.sleep(RETRY)
            except OSError as error:
                raise ValkeepError(
                    f"what was given can't be kept in {self._folder}: {error.strerror or error}",
                    remedy="give a folder with more room (--spool DIR): twice 56 bytes and the name for each key",
                    code="VK-SPOOL-WRITE",
                ) from None

    def acknowledge(self) -> None:
        """Nobody asks."""

    def reads(self, server: ServerInfo) -> bool:
        """Whether what this server acknowledges is what we read: it is ours, or ours follows it (or is followed by it)."""
        return server.run_id == self._run_id or server.replid in (self._replid, "?")

    async def reach(self, offset: int) -> int:
        """Our offset that covers what the source had written when this was called, ``offset`` among it: a round that begins now is waited for.

        A source that is a replica, or became one, is waited for first: ``offset`` is its primary's.
        """
        async with await Connection.open(self._source.without_database(), client_name="valkeep-gateway") as connection:
            while (info := await server_info(connection)).role == "replica" and info.offset < offset:  # noqa: ASYNC110 - a server says nothing by itself
                await asyncio.sleep(LOOK)
        self._asked += 1
        mine = self._asked
        async with self._news:
            self._news.notify_all()
            await self._news.wait_for(lambda: self._answered >= mine)
        return self.received

    async def settled(self) -> Round:
        """Rounds, until little changes between two of them, or not less any more. Returns the last one: the one behind the fence takes about as long."""
        while True:
            before = self.rounds[-1] if self.rounds else None
            await self.reach(0)
            newest = self.rounds[-1]
            if newest is before or (newest.number > 0 and newest.changed <= FEW):  # nothing was written, or little
                return newest
            if before is not None and before.number > 0 and newest.changed > before.changed * SHRINKS:
                return newest

    async def read(self, places: Sequence[Place]) -> list[Copy]:
        """As they are now, which is behind all that was given so far."""
        from valkeep.migrate.transform.copies import Copy

        async with await KeyScan.open(self._source, "valkeep-copy", lanes=1) as scan:
            found: dict[Place, Seen | None] = {}
            for database in sorted({place[0] for place in places}):
                names = [key for at, key in places if at == database]
                async with contextlib.aclosing(scan.read(database, names)) as parts:
                    async for part in parts:
                        found |= {(database, name): seen for name, seen in part}
        for place, one in found.items():
            self._copied[place] = self._given.rows(self._given.partition(place), place[0], [(place[1], one)])
        return [
            Copy(*place, self.received, seen.payload, seen.expire_ms) if (seen := found[place]) else Copy(*place, self.received, None)
            for place in places
        ]

    async def close(self) -> None:
        self._closed = True
        await self._hang_up()

    # -- inside ----------------------------------------------------------------------------------------------------------------------

    async def _connect(self) -> KeyScan:
        """Raises ``Refused`` when another server than the one that was looked at answers."""
        scan = await KeyScan.open(self._source, "valkeep-gateway")
        if scan.info.run_id != self._run_id:
            await scan.close()
            raise Refused(
                f"{self._source.address} was restarted, or another server answers there (run_id {self._run_id}, now {scan.info.run_id})",
                remedy="see whether it has its data, then start the migration again",
                code="VK-SOURCE-OTHER",
            )
        return scan

    async def _hang_up(self) -> None:
        scan, self._scan = self._scan, None
        if scan is not None:
            await scan.close()

    async def _mark(self, scan: KeyScan) -> tuple[str, ...]:
        """What INFO says of all that was ever written; () where that is not enough to know. Equal marks: nothing was written between them, though keys may have
        expired, which they do on the target as well."""
        said = await scan.said()
        self._replid = said.get("master_replid", "")
        if not said.get("rdb_changes_since_last_save") or not said.get("run_id"):
            return ()
        marks = _MARK if said.get("role") == "master" else _MARK + _MARK_OF_A_REPLICA
        return tuple(said.get(name, "") for name in marks)

    async def _snapshot(self) -> None:
        scan, receiver = self._scan, self._receiver
        assert scan is not None
        assert receiver is not None  # it was started
        began = self._clock()
        mark = await self._mark(scan)
        names = _Names(sum((await scan.databases()).values()))
        assembled = Assembled()
        spill = self._given.first()
        late = False  # whether keys wait for round 1

        def give(data: bytes) -> None:
            receiver.snapshot(memoryview(data))

        try:
            self._functions = await scan.function_dump()
            if self._functions:
                give(assembled.begin(self._functions))
                give(assembled.functions(self._functions))
            async with contextlib.aclosing(scan.pages()) as pages:
                async for page in pages:
                    keys = [(key, seen) for key, seen in page.keys if names.new(page.database, key)]
                    if not keys:
                        continue
                    if not assembled.version:
                        give(assembled.begin(keys[0][1].payload))
                    give(assembled.page(page.database, keys))
                    odd = {key for _, key, _ in assembled.odd}
                    assembled.odd.clear()
                    late = late or bool(odd)
                    spill.page(page.database, [one for one in keys if one[0] not in odd] if odd else keys)
            if not assembled.version:
                give(assembled.begin(b""))
            give(assembled.end())
            spill.finish_pages()
        finally:
            spill.close()
        receiver.snapshot_end()
        await self._complete(Round(0, names.count, 0, self._clock() - began), () if late or names.again else mark, 0)

    async def _follow(self) -> None:
        """One round, when it is due: when somebody waits, or something was written."""
        scan = self._scan
        assert scan is not None
        newest = self.rounds[-1]
        async with self._news:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(PAUSE, IDLE * newest.seconds)):
                    await self._news.wait_for(lambda: self._asked > self._answered)
        asked = self._asked
        mark = await self._mark(scan)
        if mark and mark == self._known:
            await self._answer(asked)
            return
        await self._round(scan, newest.number + 1, mark, asked)

    async def _round(self, scan: KeyScan, number: int, mark: tuple[str, ...], asked: int) -> None:
        began = self._clock()
        given, changed = self._given, 0
        spill = given.now()
        try:
            async with contextlib.aclosing(scan.pages()) as pages:
                async for page in pages:
                    spill.page(page.database, page.keys)
            spill.finish_pages()
        finally:
            spill.close()
        functions = await scan.function_dump()
        if functions != self._functions:
            self._give(encode(b"FUNCTION", b"RESTORE", functions, b"FLUSH"))
            self._functions = functions
        for partition in range(given.partitions):
            given.correct(partition, [self._copied.pop(place) for place in list(self._copied) if given.partition(place) == partition])
            whole = False
            try:
                for batch in given.changed(partition):
                    changed += await self._give_again(scan, partition, batch)
                whole = True
            finally:
                given.advance(partition, whole=whole)
        await self._complete(Round(number, spill.spiller.keys, changed, self._clock() - began), mark, asked)

    async def _give_again(self, scan: KeyScan, partition: int, batch: Sequence[Place]) -> int:
        """Read these keys and give what they are now. Returns how many."""
        for database in sorted({database for database, _ in batch}):
            names = list(dict.fromkeys(key for at, key in batch if at == database))
            async with contextlib.aclosing(scan.read(database, names)) as parts:
                async for part in parts:
                    commands = [] if database == self._database else [encode(b"SELECT", database)]
                    self._database = database
                    for key, seen in part:
                        self._copied.pop((database, key), None)
                        if seen is None:
                            commands.append(encode(b"DEL", key))
                        else:
                            expiry = b"%d" % max(seen.expire_ms, 0)
                            commands.append(encode(b"RESTORE", key, expiry, seen.payload, b"REPLACE", b"ABSTTL"))
                    given = b"".join(commands)
                    self._given.give(partition, database, part)  # before it is: what was given and is not known would be believed unchanged
                    self._give(given)
        return len(batch)

    def _give(self, data: bytes) -> None:
        assert self._receiver is not None  # it was started
        self.received += len(data)
        self._receiver.stream(memoryview(data))

    async def _complete(self, made: Round, mark: tuple[str, ...], asked: int) -> None:
        self.rounds = [*self.rounds[-1:], made]
        self._known = mark
        if made.changed or made.number == 0:
            self._say("info", made.display)
        await self._answer(asked)

    async def _answer(self, asked: int) -> None:
        self._answered = max(self._answered, asked)
        async with self._news:
            self._news.notify_all()

    def _say(self, level: str, text: str) -> None:
        self._emit(Note(self._clock(), level, text))


class _Names:
    """Names that surely have not passed before, of about ``expected``. ``count``: those that were new; ``again``: those of which nobody knows."""

    def __init__(self, expected: int) -> None:
        bits = min(max((10 * expected).bit_length(), BITS[0]), BITS[1])
        self.count = 0
        self.again = 0
        self._table = bytearray(1 << bits - 3)
        self._mask = (1 << bits) - 1

    def new(self, database: int, name: bytes) -> bool:
        table, digest = self._table, hash((database, name))
        one, other = digest & self._mask, digest >> 32 & self._mask
        first, second = 1 << (one & 7), 1 << (other & 7)
        if table[one >> 3] & first and table[other >> 3] & second:
            self.again += 1
            return False
        table[one >> 3] |= first
        table[other >> 3] |= second
        self.count += 1
        return True
