"""The gateway: a replica to the source, a primary to the targets.

It composes what the other modules do: a feed gives the source's data, which go into channels (`intake`); targets that connect are served from there; keys
that the stream cannot express are read again; and what happens is told as events. One event loop, no threads; the only thing that may block it is the
spool's disk.

Who may attach: connections from the addresses of the targets that were named (``allow``), nobody else; a target whose ``primaryauth`` is set has to
give that password (``password``). The listening socket is bound to one address, by default the one that faces the target.

A broken source link is the feed's business: it goes on where it was, or ends the gateway with the reason. Targets that come back are continued from the
spool.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from valkeep.errors import ConnectionLost, Refused, ValkeepError
from valkeep.migrate.feed import ReplicationGap
from valkeep.migrate.gateway.channel import GETACK, Channel, Joined
from valkeep.migrate.gateway.copier import Copier
from valkeep.migrate.gateway.intake import Intake
from valkeep.migrate.gateway.link import Link
from valkeep.migrate.gateway.portrait import Portrait
from valkeep.migrate.gateway.sink import TargetLink
from valkeep.migrate.gateway.upkeep import Upkeep
from valkeep.migrate.transform.outcomes import Hold
from valkeep.migrate.transform.stream import REPAIR
from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.report.events import Emit, Note, Phase
from valkeep.wire import psync
from valkeep.wire.commands import Place

if TYPE_CHECKING:
    from valkeep.client.endpoint import Secret
    from valkeep.migrate.feed import Feed, Origin
    from valkeep.migrate.gateway.ledger import Ledger
    from valkeep.migrate.gateway.resumption import Resumption
    from valkeep.migrate.transform.territory import Territory

__all__ = ["PRESENT_AS", "Gateway", "GatewayOptions"]

BACKLOG_BYTES = 64 << 20
PRESENT_AS = "7.2.4"  # the newest that every managed service takes for a source


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """``formats``: one channel each. ``listen``: (host, port), port 0: any free one. ``allow``: addresses that may attach
    (empty: nobody). ``spool``: a folder of this migration's own. ``spool_limit``: bytes of each spool (0: what the disk holds).
    ``keep``: bytes of stream for which the snapshot is kept, so that further targets can attach (0: its owner releases it).
    ``join``: asked when the source goes on without a snapshot: where the target stands that has everything up to there.
    ``hold_seconds``: how long a person has to remove the cause of a hold until the gateway ends with it (None: for ever).
    ``present_as``: the version that it shows to who looks. ``late``: targets are not answered before the snapshot is whole.
    ``territory``: of a source that is a shard of a cluster: which slots cross."""

    formats: tuple[TargetFormat, ...]
    field_ttl: FieldTtl
    listen: tuple[str, int]
    allow: frozenset[str]
    spool: Path
    spool_limit: int = 0
    backlog: int = BACKLOG_BYTES
    hold_seconds: float | None = None
    join: Callable[[], Joined] | None = None
    keep: int = 0
    password: Secret | None = None
    username: str = "default"
    tls: ssl.SSLContext | None = field(default=None, compare=False)
    present_as: str = PRESENT_AS
    late: bool = False
    territory: Territory | None = field(default=None, compare=False)


class Gateway:
    """See the module's head. ``async with Gateway(…) as gateway`` binds, connects and starts; leaving it closes everything and removes the spool.
    ``resumption``: it goes on with what that holds, or leaves there what the next one can go on with; the spool then is its owner's to remove.

    What ends its work is raised in whoever waits (``beside``, and the waits below). ``failed_syncs``: full syncs in a row that a target began and did not
    finish. ``departure``: why the last link ended. ``departing``: targets leave, and that is as it should be. ``stranded``:
    a target came back, and nothing that is kept helps it.
    """

    def __init__(
        self,
        feed: Feed,
        options: GatewayOptions,
        ledger: Ledger,
        emit: Emit,
        clock: Callable[[], float],
        resumption: Resumption | None = None,
    ) -> None:
        self.options = options
        self._resumption = resumption
        self.ledger = ledger
        self.links: list[Link] = []
        self.origin: Origin | None = None
        self.address: tuple[str, int] = options.listen
        self.failed_syncs = 0
        self.departure = ""
        self.departing = False
        self.stranded: ValkeepError | None = None
        self._emit = emit
        self._clock = clock
        self._progress = asyncio.Event()
        self._feed = feed
        self._copier = Copier(feed, options.field_ttl, ledger, emit, clock, self._progress.set, options.hold_seconds)
        self._intake = Intake(
            ledger,
            emit,
            clock,
            copy=lambda channel, wanted: self._spawn(self._copier.satisfy(channel, wanted), "copy"),
            go_on=lambda channel: self._spawn(self._copier.work_off(channel), "held"),
            acknowledge=feed.acknowledge,
            moved=self._progress.set,
            formats=options.formats,
            policy=options.field_ttl,
            spool=options.spool,
            spool_limit=options.spool_limit,
            join=options.join,
            resumption=resumption,
            territory=options.territory,
        )
        self.channels = self._intake.channels
        self._upkeep = Upkeep(
            self.channels,
            self.links,
            self._expected,
            emit,
            clock,
            backlog=options.backlog,
            keep=options.keep,
            spool_limit=options.spool_limit,
        )
        self._portrait = Portrait(
            self.channels,
            self.links,
            lambda: self.origin,
            version=options.present_as,
            databases=min(one.databases for one in options.formats),
            password=options.password is not None,
            tls=options.tls is not None,
        )
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] | None = None
        self.started = 0.0
        self._closing = False

    # -- life ----------------------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._failed = asyncio.get_running_loop().create_future()
        self._failed.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _start(self) -> None:
        options = self.options
        self.started = self._clock()
        origin = self.origin = self._intake.origin = await self._feed.look()
        since = None
        if self._resumption is not None and self._resumption.channels:
            self._resumption.check_source(origin)
            since = self._intake.reopen(self._resumption, origin)
        loop = asyncio.get_running_loop()
        host, port = options.listen
        try:
            self._server = await loop.create_server(self._accept, host, port, ssl=options.tls)
        except OSError as error:
            raise ValkeepError(
                f"the gateway cannot listen on {host}:{port}: {error.strerror or error}",
                remedy="choose an address of this machine that the target reaches, and a free port: --listen HOST:PORT",
                code="VK-LISTEN",
            ) from error
        bound: socket.socket = self._server.sockets[0]
        self.address = self._portrait.address = self._intake.address = bound.getsockname()[:2]
        if since is None:
            self._emit(Phase(self._clock(), "snapshot"))
        try:
            await self._feed.start(self._intake, self.address[1], since)
        except ReplicationGap as error:
            raise error.saying(remedy=f"{error.remedy}. A full sync has to be asked for: --fresh") from None
        self._spawn(self._feed.run(), "feed")
        self._spawn(self._upkeep.run(), "upkeep")

    async def close(self) -> None:
        """End every link and task, close the port, remove the spool. Idempotent."""
        self._closing = True
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._feed.close()
        for link in list(self.links):
            link.close("the gateway ends")
        if self._server is not None:
            self._server.close()
            self._server = None
        for channel in self.channels:
            channel.close(leave=self._resumption is not None)
        self.ledger.flush()

    async def watch(self) -> None:
        """Never returns; raises what ended the gateway's work."""
        assert self._failed is not None
        await asyncio.shield(self._failed)

    # -- what others wait for --------------------------------------------------------------------------------------------------------

    async def resynced(self) -> None:
        """Return when the source has begun a full resync: there are channels."""
        await self.beside(self._intake.resynced.wait())

    async def snapshot_taken(self) -> None:
        """Return when the whole snapshot of the source is on the spool, checked and translated. Raises what went wrong instead."""
        await self.beside(self._intake.snapshot_taken.wait())

    async def online(self, channel: Channel) -> Link:
        """Return the first link of this channel that has loaded the snapshot and takes the stream."""
        while True:
            for link in self.links:
                if link.channel is channel and link.online and link.acknowledged >= channel.begins:
                    return link
            self._progress.clear()
            await self.beside(self._progress.wait())

    async def drained(self, source_offset: int) -> None:
        """Return when every online target has applied everything up to this source offset."""
        for channel in self.channels:
            while (offset := channel.covering(source_offset)) is None:
                self._progress.clear()
                await self.beside(self._progress.wait())
            links = [link for link in self.links if link.channel is channel and link.online]
            if not links:
                raise ConnectionLost("no target is attached", remedy="see the target's log; it may connect again", code="VK-TARGET-LOST")
            while any(link.acknowledged < offset for link in links):
                channel.insert(GETACK)
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        for link in links:
                            await self.beside(link.acknowledged_up_to(offset))

    async def beside(self, work: Awaitable[object]) -> None:
        """Wait for ``work``, which is cancelled when the gateway fails first: that error is raised then."""
        assert self._failed is not None
        task: asyncio.Future[Any] = asyncio.ensure_future(work)
        ended: asyncio.Future[Any] = self._failed
        try:
            await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                self._failed.result()
            await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    # -- what can be asked -----------------------------------------------------------------------------------------------------------

    @property
    def history(self) -> str:
        """The id of the source's stream now; "" before it said so."""
        return self._intake.history

    @property
    def source_offset(self) -> int:
        """The source's offset up to which everything has been received."""
        return self._feed.received

    @property
    def held(self) -> tuple[tuple[int, Hold], ...]:
        """From which source offset on channels do not go on, and why, where a person has to do something."""
        waiting = (channel.wanted for channel in self.channels)
        return tuple((wanted.offset, wanted.hold) for wanted in waiting if wanted is not None and wanted.hold is not None)

    async def recopy(self, places: tuple[Place, ...], asked: Callable[[], None] = lambda: None, *, why: str = REPAIR) -> None:
        """Have these keys copied again from the source, in the stream, at a known offset; returns when the copies are in the stream. ``asked``: called when
        they are asked for, before anything behind that place of the stream is translated. ``why``: for the ledger; "": that is nothing for it."""
        for channel in self.channels:
            while not channel.demand(places, why):
                self._progress.clear()
                await self.beside(self._progress.wait())
            asked()
            while channel.wanted is not None or channel.held_bytes or channel.copying:
                self._progress.clear()
                await self.beside(self._progress.wait())

    def expect_departure(self) -> None:
        """Targets will leave from now on, and that is as it should be."""
        self.departing = True

    def release_snapshots(self) -> None:
        """No further target will attach: give the snapshots' disk space back."""
        for channel in self.channels:
            channel.release_snapshot()

    def _expected(self) -> tuple[int, int]:
        """Keys and bytes of the source's snapshot, as far as the source said so."""
        return self.origin.keys if self.origin is not None else 0, self._feed.length

    # -- targets -----------------------------------------------------------------------------------------------------------------------

    def _accept(self) -> TargetLink:
        password = self.options.password
        conversation = psync.PrimarySide(password=password.reveal() if password is not None else None, username=self.options.username)
        guest = self._portrait.guest()
        link = TargetLink(conversation, self._attach, self.left, self.heard, self.options.allow, guest=guest, ready=self._may_attach)
        self.links.append(link)
        return link

    def _may_attach(self) -> bool:
        return not self.options.late or self._intake.snapshot_taken.is_set()

    def _attach(self, link: TargetLink, version: tuple[int, ...]) -> Channel:
        if not self.channels:
            raise Refused("the source has not begun its snapshot yet", remedy="the target tries again by itself", code="VK-NOT-READY")
        spoken, said = version[:2] or (7, 2), ".".join(map(str, version)) or "unsaid"
        fitting = [channel for channel in self.channels if channel.joined is not None or channel.target.version[:2] <= spoken]
        if not fitting:
            known = ", ".join(channel.target.display for channel in self.channels)
            raise Refused(
                f"the target says it is version {said}; this gateway serves {known}",
                remedy="start the gateway for this target's version",
                code="VK-TARGET-VERSION",
            )
        channel = max(fitting, key=lambda one: one.target.version)
        self._emit(Note(self._clock(), "info", f"target {link.peer} (version {said}) attaches to {channel.replid}"))
        return channel

    def adopt(self, link: Link) -> None:
        """A link that was not accepted here: somebody of ours brings the channel's bytes to a target. Tell its progress by ``heard``, its end by ``left``."""
        self.links.append(link)
        self._progress.set()

    def left(self, link: Link, reason: str) -> None:
        """The link has ended."""
        if link in self.links:
            self.links.remove(link)
        if isinstance(link, TargetLink) and link.stranded is not None:
            self.stranded = link.stranded
        self._upkeep.left(link)
        if link.channel is not None:
            self.failed_syncs = 0 if link.sent >= 0 else self.failed_syncs + 1
            self.departure = reason
        elif link.refused:
            self.departure = link.refused
        if link.channel is not None and not self._closing:
            level = "info" if self.departing else "warning"
            self._emit(Note(self._clock(), level, f"target {link.peer} left at offset {link.acknowledged}: {reason}"))
        elif link.refused and not self._closing:
            self._emit(Note(self._clock(), "warning", link.refused))
        self._progress.set()

    def heard(self, link: Link) -> None:
        """It is online, or has acknowledged more."""
        if link.online and link.acknowledged < 0 and link.channel is not None:
            link.channel.insert(GETACK)  # loaded from a known length, it would say so at its next full second only
        self._upkeep.acknowledged(link)
        self._progress.set()

    # -- background --------------------------------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"gateway {name}")
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End the gateway's work with this reason: whoever waits ``beside`` it gets it."""
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)
        for channel in self.channels:
            if channel.snapshot is not None:
                channel.snapshot.seal()
        for link in list(self.links):
            if not link.online:
                link.close("the source's snapshot broke off")
