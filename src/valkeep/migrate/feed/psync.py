"""The feed of a replica: the source's own snapshot and stream, by PSYNC.

**A link that breaks** in the stream is opened again, for as long as its owner is patient, and the source is asked to go on behind the last byte that came:
a command may have been cut in the middle, so nothing is parsed here and the receiver goes on with the next byte. Whom we are about to ask says in its
INFO whether it can (``history``); who cannot would answer with a full sync, which is never wanted here: the target has the data. A link that breaks in the
snapshot is the end: what came of it is of no use, and another snapshot is the user's decision.

**A primary that sentinels know** may be another server by then, which goes on in the same stream under another id (PSYNC2). ``failover`` watches the
sentinels, because the old link may outlive the old primary's reign.

**A key is read again** on a connection of its own, at a known offset O (`single_keys`). It is handed over when the stream has come to O, from the same
server and under the same id: before that, a failover could still make the value one of a history that has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Final

from valkeep.client import retry
from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.named_primary import NamedPrimary, Source
from valkeep.client.replication import HungUp, NotContinued, NotNow, ReplicationLink, Silent
from valkeep.client.server_info import ServerInfo, server_info
from valkeep.client.shard_primary import ShardPrimary
from valkeep.errors import ConnectionLost, Refused, ValkeepError
from valkeep.migrate.feed import Origin, Position, ReplicationGap
from valkeep.migrate.feed.failover import FailoverWatch
from valkeep.migrate.feed.history import OtherSource, Outage, bytes_needed
from valkeep.migrate.feed.single_keys import COPY_TIMEOUT, single_keys
from valkeep.migrate.keyread import KeyRead
from valkeep.migrate.transform.copies import Copy
from valkeep.report.events import Emit, Event, Note
from valkeep.wire.commands import Place

if TYPE_CHECKING:
    from valkeep.client.replication import Receiver

__all__ = ["PsyncFeed"]

ASK_SECONDS = 5.0  # until a source that we come back to has connected and said what it is
RELAPSE = 5.0  # seconds within which a link that breaks again without a byte was never back
PAUSES: Final = retry.Patience(first=0.05, most=5.0)


def _nobody(event: Event) -> None:
    del event


@dataclass(frozen=True, slots=True)
class _Break:
    """``at``: when the link broke, on the job's clock; ``offset``: where. ``run_id``: of the process that it led to. ``why``: for people. ``times``: in a
    row, at this very offset; ``back``: when the link stood again, the last time."""

    at: float
    offset: int
    run_id: str
    why: str
    times: int = 1
    back: float = 0.0


class PsyncFeed:
    """A `Feed`. ``source``: whom to replicate. ``patience``: seconds for which a broken link is tried again (0: it is the end)."""

    def __init__(
        self,
        source: Source,
        *,
        patience: float = 0.0,
        emit: Emit = _nobody,
        clock: Callable[[], float] = time.monotonic,
        rng: Random | None = None,
    ) -> None:
        self._source = source
        self._patience = patience
        self._emit = emit
        self._clock = clock
        self._rng = rng or Random()
        self._info: ServerInfo | None = None
        self._receiver: Receiver | None = None
        self._port = 0
        self._at = source if isinstance(source, Endpoint) else source.login
        self._link: ReplicationLink | None = None
        self._connection: Connection | None = None
        self._reading = asyncio.Lock()
        self._closed = False
        self._reached = 0  # by some of those that we feed, see `Position`
        self._break: _Break | None = None  # the last one
        self._news = asyncio.Event()  # of whom to ask

    @property
    def received(self) -> int:
        return self._link.received if self._link is not None else 0

    @property
    def length(self) -> int:
        return self._link.length if self._link is not None else 0

    async def look(self) -> Origin:
        self._at = await self._source.resolve()
        async with await Connection.open(self._at, client_name="valkeep-gateway") as connection:
            info = self._info = await server_info(connection)
        if info.mode == "cluster" and not isinstance(self._source, ShardPrimary):
            raise Refused(
                f"{self._at.address} is a node of a cluster, which holds a part of the keys",
                remedy="move the whole cluster: valkeep migrate run; or give a server with cluster-enabled no",
                code="VK-CLUSTER",
            )
        valkey = info.kind == "valkey"
        return Origin(info.name, info.version, info.version if valkey else info.redis_version, valkey, sum(info.keys.values()), info.fields)

    async def start(self, receiver: Receiver, listening_port: int, since: Position | None = None) -> None:
        self._receiver, self._port = receiver, listening_port
        if since is None:
            self._link = await self._open(self._at, None)
        else:
            self._reached = since.reached
            await self._until_it_goes_on(since, None)

    async def run(self) -> None:
        if not isinstance(self._source, NamedPrimary) or not self._patience:
            await self._keep_going()
            return
        watching = asyncio.create_task(FailoverWatch(self._source.directory(), self).run(), name="sentinels of the source")
        try:
            await self._keep_going()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _keep_going(self) -> None:
        while True:
            link = self._link
            assert link is not None  # it was started
            try:
                await asyncio.shield(link.lost)
                return
            except ConnectionLost as error:
                if self._closed:
                    return
                if not link.streaming or not self._patience:
                    raise _coded(error) from None
                await self._come_back(link, error)

    def acknowledge(self) -> None:
        if self._link is not None:
            self._link.acknowledge()

    async def close(self) -> None:
        self._closed = True
        if self._link is not None:
            self._link.close()
        if self._connection is not None:
            await self._connection.close()

    # -- the link ------------------------------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return f"the source {self._at.address}"

    async def _open(self, at: Endpoint, since: Position | None) -> ReplicationLink:
        info, receiver = self._info, self._receiver
        assert info is not None  # it was looked at
        assert receiver is not None  # it is being started
        return await ReplicationLink.open(
            at,
            receiver,
            listening_port=self._port,
            present_as=".".join(map(str, info.version)) if info.kind == "valkey" else "",
            role="the source",
            since=(since.replid, since.offset) if since is not None else None,
        )

    async def _come_back(self, link: ReplicationLink, lost: ConnectionLost) -> None:
        """Return when the source goes on where this link ended."""
        break_ = self._break_of(link, lost)
        self._say("warning", f"{lost.message}. Trying to go on for {self._patience:g} s")
        if break_.times > 1:
            if self._clock() - break_.at >= self._patience:
                raise _coded(lost, f"{lost.message}, {break_.times} times in a row")
            await asyncio.sleep(PAUSES.pause(break_.times, self._rng))
        needed = await self._until_it_goes_on(Position(link.replid, link.received, self._reached), break_)
        self._break = replace(break_, back=self._clock())
        self._say("info", f"{self._name} goes on after {self._clock() - break_.at:.1f} s, with {needed} bytes of its backlog")

    def _break_of(self, link: ReplicationLink, lost: ConnectionLost) -> _Break:
        """A new one, or the one before: a source that takes us back and drops us before a byte has come is not back."""
        last = self._break
        if last is not None and last.offset == link.received and self._clock() - last.back < RELAPSE:
            return replace(last, times=last.times + 1, why=lost.message)
        return _Break(self._clock(), link.received, self._info.run_id if self._info is not None else "", lost.message)

    async def _until_it_goes_on(self, since: Position, break_: _Break | None) -> int:
        """Try until the patience ends. Returns how many bytes of the backlog were needed. Raises ``ReplicationGap``, and why the last try failed."""
        until = (self._clock() if break_ is None else break_.at) + self._patience
        told, failures = "", 0
        while True:
            try:
                return await self._go_on(since, break_)
            except ReplicationGap:
                raise
            except ValkeepError as error:
                if self._closed:
                    return 0
                failures += 1
                if not retry.passes(error):
                    raise error if error.code else _coded(error) from None
                if self._clock() >= until:
                    tried = f"{error.message} (tried {failures} times in {self._patience:g} s)"
                    raise _coded(error, tried if break_ is None else f"{break_.why}. It did not come back: {tried}") from None
                if error.message != told:
                    told = error.message
                    self._say("warning", f"not yet (try {failures}): {told}")
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(PAUSES.pause(failures, self._rng), max(until - self._clock(), 0))):
                    await self._news.wait()

    async def _go_on(self, since: Position, break_: _Break | None) -> int:
        at = await self._source.resolve()
        needed = await self._look_again(at, since, break_)
        link = self._link = await self._open(at, since)
        self._at = at
        if self._closed:  # meanwhile
            link.close()
        await asyncio.wait({link.begun, link.lost}, return_when=asyncio.FIRST_COMPLETED)
        if link.begun.done():  # if it has broken since, it may have come further: who asks again has to ask from there
            return needed
        try:
            await link.lost
        except NotContinued as error:
            await self._look_again(at, since, break_)  # it says more precisely why
            raise ReplicationGap(error.message, remedy=error.remedy) from None
        return needed

    async def _look_again(self, at: Endpoint, since: Position, break_: _Break | None) -> int:
        """Whether this server can go on where we are: how many bytes of its backlog we need. Raises where it cannot, and where it cannot yet."""
        before = self._info
        try:
            async with asyncio.timeout(ASK_SECONDS), await Connection.open(at, ASK_SECONDS, client_name="valkeep-gateway") as connection:
                info = await server_info(connection)
        except TimeoutError:
            raise ConnectionLost(
                f"the source {at.address} did not say within {ASK_SECONDS:g} s what it is", remedy="is it stopped or overloaded?"
            ) from None
        outage = Outage(f"the source {at.address}")
        if break_ is not None:
            outage = Outage(outage.server, self._clock() - break_.at, break_.run_id)
        needed = bytes_needed(info.fields, since, outage)
        if before is not None and (info.kind != before.kind or info.version[:2] > before.version[:2]):
            raise OtherSource(
                f"the source {at.address} is {info.name} now, and was {before.name} when the migration began: its stream may hold what was not prepared for",
                remedy="start the migration again: it begins with a full sync",
            )
        self._info = info
        return needed

    # -- failover.Follower ---------------------------------------------------------------------------------------------------------

    def hold_back(self) -> None:
        if self._link is not None and not self._link.lost.done():
            self._say("info", f"sentinels fail over: nothing more is read from {self._name} at offset {self.received}")
            self._link.pause()

    def read_on(self) -> None:
        if self._link is not None and not self._link.lost.done():
            self._link.resume()

    def follow(self, primary: Endpoint) -> None:
        self._news.set()
        if self._link is None or self._link.lost.done() or primary.address == self._at.address:
            return
        remedy = "it is followed by itself" if self._link.streaming else "start again: half of a snapshot is of no use"
        self._link.leave(HungUp(f"{self._name} is not the primary any more: {primary.address} is", remedy=remedy))

    def _say(self, level: str, text: str) -> None:
        self._emit(Note(self._clock(), level, text))

    # -- keys that are read again --------------------------------------------------------------------------------------------------

    async def read(self, places: Sequence[Place]) -> list[Copy]:
        async with self._reading:
            return await self._read(places)

    async def _read(self, places: Sequence[Place]) -> list[Copy]:
        assert self._info is not None  # it was looked at
        link = self._following()
        connection = self._connection
        if connection is None or connection.closed or connection.endpoint != self._at:
            if connection is not None:
                await connection.close()
            connection = self._connection = await Connection.open(self._at, client_name="valkeep-copy")
        copies: list[Copy] = []
        read = KeyRead.of(self._info.redis_version)
        for found in await single_keys(connection, read, places, shard=self._info.mode == "cluster"):
            await self._arrived(link, found.replid or link.replid, found.offset)
            copies += found.copies
        return copies

    def _following(self) -> ReplicationLink:
        """The link, while it stands. Raises ``ConnectionLost``: nobody knows then whose history a key would be of."""
        if self._link is None or self._link.lost.done() or not self._link.streaming:
            raise ConnectionLost(
                f"{self._name} has no replication link to us at present", remedy="single keys are read again when it is back"
            )
        return self._link

    async def _arrived(self, link: ReplicationLink, replid: str, offset: int) -> None:
        """Return when the stream has come to where a key was read: then the key belongs to what we follow."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COPY_TIMEOUT):
                while replid == link.replid and self._following() is link:
                    if link.received >= offset:
                        return
                    await asyncio.sleep(0.001)
        raise ConnectionLost(
            f"a key was read at offset {offset} of {replid}, and we follow {self.received} of {link.replid}",
            remedy="it is read again by itself",
        )


def _coded(error: ValkeepError, message: str | None = None) -> ValkeepError:
    if isinstance(error, NotNow):
        return error.saying(message, code="VK-SOURCE-NOT-READY")
    if isinstance(error, Silent):
        return error.saying(message, code="VK-SOURCE-SILENT")
    return error.saying(message, code="VK-SOURCE-LOST")
