"""One target's link: the conversation that a Valkey replica expects of its primary, answered from a channel.

A link goes through these states, in order; a lost connection ends it, and the target comes back on a new link, where PSYNC with our own
replication id goes on from the stream spool:

    handshake   PING, AUTH, REPLCONF …, until PSYNC
    waiting     a bare newline each second while the snapshot is not ready to be sent
    snapshot    ``$<length>`` when it is complete on disk, else ``$EOF:<mark>`` and its bytes as they come
    loading     (EOF form only) until the target's first ACK: bytes sent before it would be lost
    online      the stream, from the spool, at the target's own pace

Reading (ACKs) goes on while we write. What is read from the spool is at most one piece beyond what the socket takes, so memory stays
bounded however slow the target is.

Who comes from an address that is not allowed is hung up on before a word of it was read. What else a visitor asks is answered by its `face.Guest`, a
little at a time, and not while it leaves answers unread: nobody who looks holds up who moves data. Who asks by SYNC gets
snapshot and stream, and is nobody's target: it acknowledges nothing, is waited for by nobody, and is cut off when it falls out of the backlog.

Where targets attach by themselves, none of them is answered before the snapshot is whole (``ready``): bare newlines until then, as from a primary whose child
has not started yet. The target waits, and has given up nothing of its own.

What it does not do: it decides nothing about who may attach (the gateway does), and it never resends or skips.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

from valkeep.errors import ConnectionLost, Refused, RemoteProtocolError, ValkeepError
from valkeep.wire import psync

if TYPE_CHECKING:
    from valkeep.migrate.face import Guest
    from valkeep.migrate.gateway.channel import Channel

__all__ = ["LinkState", "TargetLink"]

PIECE = 1 << 20
HIGH_WATER = 1 << 20
NEWLINE_SECONDS = 1.0
READY_SECONDS = 0.2
SLICE = 256  # bytes of a visitor's requests that are answered at once
LATER = "NOMASTERLINK"  # a replica that gets this tries again, and keeps what it would go on with
BROKE_OFF = "the source's snapshot broke off"
GIVEN_UP = "the snapshot is not kept any more"


class LinkState(StrEnum):
    """See the module's head."""

    HANDSHAKE = "handshake"
    WAITING = "waiting"
    SNAPSHOT = "snapshot"
    LOADING = "loading"
    ONLINE = "online"
    CLOSED = "closed"


class TargetLink(asyncio.Protocol):
    """One accepted connection. ``attach(link, version)`` gives the channel for the target's version, or raises ``ValkeepError`` (the target is told and
    the connection closed); ``closed(link, reason)`` is called once, ``acknowledged(link)`` at each ACK. ``address``: where it comes from; ``peer``: what it
    says its address is.

    ``acknowledged``: the target has applied our stream up to this offset (-1: nothing acknowledged yet). ``sent``: written to the socket.
    """

    def __init__(
        self,
        conversation: psync.PrimarySide,
        attach: Callable[[TargetLink, tuple[int, ...]], Channel],
        closed: Callable[[TargetLink, str], None],
        acknowledged: Callable[[TargetLink], None],
        allow: frozenset[str],
        *,
        guest: Guest,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self.state = LinkState.HANDSHAKE
        self.guest = guest
        self.peer = "?"
        self.address = ""
        self.refused = ""
        self.stranded: Refused | None = None  # nothing that is kept here helps it
        self.version: tuple[int, ...] = ()
        self.channel: Channel | None = None
        self.acknowledged = -1
        self.sent = -1
        self.snapshot_sent = 0
        self._conversation = conversation
        self._attach = attach
        self._ready = ready
        self._heard_at = 0.0
        self._unread = bytearray()
        self._paused = False
        self._closed = closed
        self._on_acknowledged = acknowledged
        self._allow = allow
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._heard = asyncio.Event()  # an ACK came
        self._sender: asyncio.Task[None] | None = None

    @property
    def lag(self) -> int:
        """Bytes of our stream that the target has not acknowledged, without what we asked it ourselves."""
        if self.channel is None:
            return 0
        return max(0, self.channel.said - max(self.acknowledged, self.channel.begins))

    @property
    def online(self) -> bool:
        return self.state is LinkState.ONLINE

    @property
    def silence(self) -> int:
        """Seconds since it acknowledged something; 0 where it never did."""
        return int(asyncio.get_running_loop().time() - self._heard_at) if self._heard_at else 0

    async def acknowledged_up_to(self, offset: int) -> None:
        """Return when the target has applied our stream up to ``offset``. Raises ``ConnectionLost`` when the link is closed first."""
        while self.acknowledged < offset:
            if self.state is LinkState.CLOSED:
                text = f"the target {self.peer} closed its link at offset {self.acknowledged} of {offset}"
                raise ConnectionLost(text, remedy="see the target's log, then start again", code="VK-TARGET-LOST")
            self._heard.clear()
            await self._heard.wait()

    def close(self, reason: str = "") -> None:
        """Hang up."""
        if self.state is not LinkState.CLOSED:
            self._end(reason or "closed by us")

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        peer, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if peer:
            self.address = peer[0]
            self.peer = self.guest.peer = f"{peer[0]}:{peer[1]}"
        if local:
            self.guest.local = f"{local[0]}:{local[1]}"
        if self.address not in self._allow:
            self.refused = f"{self.address} tried to attach and is not one of the targets ({', '.join(sorted(self._allow))}); allow it: --allow ADDRESS"
            transport.write(b"-DENIED this gateway serves its own targets only\r\n")
            self._end(self.refused)

    def data_received(self, data: bytes) -> None:
        self._unread += data
        self._take()

    def _take(self) -> None:
        """Work off what was received: all of a target's, a slice of a visitor's."""
        while self._unread and self.state is not LinkState.CLOSED:
            if self.state is LinkState.HANDSHAKE and not self._writable.is_set():
                self._pause()  # until it has read its answers
                return
            size = SLICE if self.state is LinkState.HANDSHAKE else len(self._unread)
            piece = bytes(self._unread[:size])
            del self._unread[:size]
            self._hear(piece)
            if self._unread and self.state is LinkState.HANDSHAKE:
                self._pause()
                asyncio.get_running_loop().call_soon(self._take)
                return
        if self._paused and self._transport is not None and self.state is not LinkState.CLOSED:
            self._paused = False
            self._transport.resume_reading()

    def _hear(self, data: bytes) -> None:
        try:
            while events := self._conversation.receive(data):
                for event in events:
                    if self.state is LinkState.CLOSED:
                        return
                    self._on_event(event)
                data = b""
        except ValkeepError as error:
            self._end(error.message)
        self._flush()

    def _pause(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._end(str(exc) if exc is not None else "the target hung up")

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()
        self._take()

    # -- the conversation ------------------------------------------------------------------------------------------------------------

    def _on_event(self, event: psync.PrimaryEvent) -> None:
        match event:
            case psync.PsyncRequest():
                self._serve(event)
            case psync.Ack(offset):
                self._take_ack(offset)
            case psync.Command(args):
                answer = self.guest.answer(args)
                if self.guest.unwelcome:
                    self._end(self.guest.unwelcome)
                else:
                    self._conversation.reply(answer)
            case psync.Quit():
                self._flush()
                self._end("it said QUIT")
            case psync.LoginFailed(username):
                self.refused = f"{self.peer} gave a wrong password for {username}"
            case psync.Failed(error):
                self._flush()
                self._end(error.message)

    def _take_ack(self, offset: int) -> None:
        """Raises ``RemoteProtocolError`` for one of more than was sent: whoever waits for the target would believe it."""
        if self.channel is None:
            return  # it has not asked for anything yet, so it speaks of another stream
        most = max(self.sent, self.channel.begins)  # the snapshot is acknowledged with its own offset, before any of the stream
        if offset > most:
            raise RemoteProtocolError(
                f"the target {self.peer} acknowledged offset {offset}, and it was sent no more than {most}",
                remedy="let it connect again; is it a Valkey server, and does it replicate from this gateway only?",
            )
        self.acknowledged = max(self.acknowledged, offset)
        self._heard_at = asyncio.get_running_loop().time()
        self._heard.set()
        self._on_acknowledged(self)

    def _serve(self, request: psync.PsyncRequest) -> None:
        replica = request.replica
        if replica.listening_port:
            self.peer = f"{replica.ip_address or self.peer.rpartition(':')[0]}:{replica.listening_port}"
        self.version = replica.version
        if not self._ready():
            self._sender = asyncio.get_running_loop().create_task(self._serve_when_ready(request), name=f"target {self.peer}")
            return
        try:
            channel = self._attach(self, self.version)
            self.channel = None if request.plain else channel
        except ValkeepError as error:
            self._refuse(f"{LATER if error.code == 'VK-NOT-READY' else 'ERR'} {error.message}")
            return
        known = channel.knows(request.replid, request.offset - 1)
        if not known and channel.joined is not None:  # "later": whoever is told no would give up what it knows of its own history
            self._refuse(f"{LATER} {request.replid} at {request.offset - 1} is not where {channel.joined} goes on")
            return
        if not known and channel.complete and channel.snapshot is None:
            self.stranded = Refused(
                f"the target {self.peer} asks to go on behind offset {request.offset - 1} of {request.replid}; of {channel.replid}, {channel.stream.start} to "
                f"{channel.ends} is kept, and {GIVEN_UP}",
                remedy="it was away for too long, or has other data: start anew, with --fresh (and --wipe-target)",
                code="VK-TARGET-BEHIND",
            )
            self._refuse(f"ERR {self.stranded.message}")
            return
        send = self._send(channel, request.offset - 1 if known else None, eof="eof" in replica.capabilities and not request.plain)
        self._sender = asyncio.get_running_loop().create_task(send, name=f"target {self.peer}")

    async def _serve_when_ready(self, request: psync.PsyncRequest) -> None:
        self.state = LinkState.WAITING
        while not self._ready():
            self._conversation.keep_alive()
            self._flush()
            await asyncio.sleep(READY_SECONDS)
        self._serve(request)

    def _refuse(self, text: str) -> None:
        self._conversation.refuse(text)
        self._flush()
        self._end(text.partition(" ")[2])

    async def _send(self, channel: Channel, offset: int | None, *, eof: bool) -> None:
        """``offset``: where the target goes on; None: from the snapshot on."""
        try:
            if offset is None:
                await self._full_sync(channel, eof=eof)
            else:
                await self._continue(channel, offset)
        except (OSError, ValkeepError) as error:  # also a spool that can't be read: a link that stalls in silence would look alive
            self._end(str(error))

    async def _full_sync(self, channel: Channel, *, eof: bool) -> None:
        self.state = LinkState.WAITING
        self._conversation.full_resync(channel.replid, channel.begins)
        self._flush()
        snapshot = channel.snapshot
        if snapshot is None:
            raise ConnectionError(GIVEN_UP)
        # A target that did not say `capa eof` only takes a snapshot whose length is known.
        while not channel.complete and not (eof and snapshot.end):
            if snapshot.sealed:  # nothing more will come; ``grown`` would return at once, for ever
                raise ConnectionError(BROKE_OFF)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(NEWLINE_SECONDS):
                    await snapshot.grown(snapshot.end)
                    continue
            self._conversation.keep_alive()
            self._flush()
        mark = None if channel.complete else channel.replid.encode()
        self._conversation.begin_payload(length=snapshot.end if mark is None else None, mark=mark)
        self._flush()
        self.state = LinkState.SNAPSHOT
        while True:
            piece = snapshot.read(self.snapshot_sent, PIECE)
            if piece:
                self.snapshot_sent += len(piece)
                self._write(piece)
                await self._room()
            elif snapshot.sealed:
                break
            else:
                await snapshot.grown(self.snapshot_sent)
        if not channel.complete:
            raise ConnectionError(BROKE_OFF)
        if self.snapshot_sent < snapshot.end:
            raise ConnectionError(GIVEN_UP)
        self._conversation.end_payload()
        self._flush()
        self.state = LinkState.LOADING
        while not self._conversation.may_stream:
            self._heard.clear()
            await self._heard.wait()
        await self._stream(channel, channel.begins)

    async def _continue(self, channel: Channel, offset: int) -> None:
        self._conversation.continue_with(channel.replid)
        self._flush()
        self.acknowledged = offset
        await self._stream(channel, offset)

    async def _stream(self, channel: Channel, offset: int) -> None:
        self.state = LinkState.ONLINE
        self.sent = offset
        self._heard.set()
        self._on_acknowledged(self)
        spool = channel.stream
        while True:
            if self.channel is None and self.sent < spool.start:
                raise ConnectionError("it asked by SYNC, and fell out of the backlog")
            piece = spool.read(self.sent, PIECE)
            if piece:
                self.sent += len(piece)
                self._write(piece)
                await self._room()
            elif spool.sealed:
                raise ConnectionError("the gateway ends")
            else:
                await spool.grown(self.sent)

    # -- small ---------------------------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._write(self._conversation.data_to_send())

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def _room(self) -> None:
        if not self._writable.is_set():
            await self._writable.wait()
        if self.state is LinkState.CLOSED:
            raise ConnectionError("the link is closed")

    def _end(self, reason: str) -> None:
        if self.state is LinkState.CLOSED:
            return
        self.state = LinkState.CLOSED
        self._writable.set()
        self._heard.set()
        if self._sender is not None and self._sender is not asyncio.current_task():
            self._sender.cancel()
        if self._transport is not None:
            self._transport.close()
        self._closed(self, reason)
