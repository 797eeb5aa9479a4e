"""A replication link: we are a server's replica. A receiver gets its snapshot and its stream apart; ACKs go out.

The one driver of `psync.ReplicaSide` over a socket. Who wants bytes as they come, and must not wait for anything, is a `Receiver` itself (the gateway);
who reads at its own pace uses the receiver of `replication_reader`.

The snapshot's end is found by the server's framing alone (`psync.Payload`), as replicas do it; what the bytes mean is the receiver's business.

A snapshot comes in pieces of 16 KB. Each of them handled by itself would cost a gateway a write to its spool, a wake-up and a send to the target; so
they are gathered in the buffer until there are 256 KB of them or 5 ms have passed, which spares a third of what the gateway takes of the processor, while
source and target need it. The stream is not gathered: there a millisecond counts.

ACKs say what the receiver was given, once a second and when somebody asks for it (`ReplicationLink.acknowledge`). So the server sees a healthy
replica. Until the first byte of its stream they go out ten times a second: a server that has not yet noticed its child's end drops an ACK, and
streams only after the next one.

A link that follows another one asks the server to go on (``since``): then the stream comes at once. A server that answers with a full sync all the same
ends the link before anything of its snapshot is passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

from valkeep.client.endpoint import Endpoint
from valkeep.client.transport import open_transport, unanswered
from valkeep.errors import ConnectionLost
from valkeep.wire import psync

__all__ = ["HungUp", "NotContinued", "NotNow", "Receiver", "ReplicationLink", "Silent"]

BUFFER = 1 << 20
GATHER_BYTES = 1 << 18
GATHER_SECONDS = 0.005
ACK_SECONDS = 1.0
FIRST_ACK_SECONDS = 0.1
SILENCE_SECONDS = 60.0  # repl-timeout's default; a server that prepares its snapshot says something now and then


class HungUp(ConnectionLost):
    """The server closed the link."""


class Silent(ConnectionLost):
    """Nothing came for too long."""


class NotNow(ConnectionLost):
    """The server can't replicate at present: it loads its data, its link to its primary is down, its fork failed. Later it may."""


class NotContinued(ConnectionLost):
    """The server was asked to go on with its stream and began a full sync, of which nothing was taken."""


class Receiver(Protocol):
    """Who takes what the server sends, in this order. An exception raised in one of these ends the link with that reason.

    ``offset``: of the snapshot; the stream's first byte is the next one. What is given as a ``memoryview`` is gone when the call returns.
    """

    def full_resync(self, replid: str, offset: int) -> None: ...

    def continued(self, replid: str, offset: int) -> None:
        """Instead of the snapshot: the server goes on behind ``offset``, maybe under a new replication id, which names the same history up to there."""
        ...

    def snapshot(self, data: memoryview) -> None: ...

    def snapshot_end(self) -> None: ...

    def stream(self, data: memoryview) -> None: ...


class ReplicationLink(asyncio.BufferedProtocol):
    """One link to one server. ``lost``: ends with the reason when the link does, without one after ``close``.

    ``replid``: the history that comes, "" until the server has said so, which ends ``begun``. ``received``: its offset up to which everything has come.
    ``length``: bytes of the snapshot where the server says so beforehand, else 0.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        receiver: Receiver,
        *,
        listening_port: int,
        present_as: str,
        role: str,
        since: tuple[str, int] | None,
    ) -> None:
        self.name = f"{role} {endpoint.address}".strip()
        self.replid = ""
        self.received = since[1] if since is not None else 0
        self.length = 0
        self.streaming = False
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = loop.create_future()
        # nobody asks a link that was given up while it was opened
        self.lost.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.begun: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()  # the socket is
        self._clock: Callable[[], float] = loop.time
        self._receiver = receiver
        self._replica = psync.ReplicaSide(
            listening_port=listening_port,
            name=self.name,
            username=endpoint.username,
            password=endpoint.password.reveal() if endpoint.password is not None else None,
            psync=(since[0], since[1] + 1) if since is not None else None,
            version=present_as,
        )
        self._since = since
        self._accepted = False
        self._payload: psync.Payload | None = None  # while the snapshot comes
        self._buffer = bytearray(BUFFER)
        self._taken = 0  # bytes of the snapshot
        self._kept = 0  # bytes at the buffer's head: not handled yet, or possibly the end mark's beginning
        self._gathering: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._heard_at = 0.0
        self._stream_heard = False
        self._ticker: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        endpoint: Endpoint,
        receiver: Receiver,
        *,
        listening_port: int = 0,
        present_as: str = "",
        role: str = "",
        since: tuple[str, int] | None = None,
        timeout: float = 10.0,
    ) -> ReplicationLink:
        """Connect and begin the handshake. Raises ``ConnectionLost``, definite; what happens later ends ``lost``.

        ``present_as``: the version we say we are ("" for none): a Valkey 9 writes its own dialect only for one that can read it. ``role``: what messages call
        the server, before its address. ``since``: go on, (replication id, offset of the last byte that we have); no snapshot comes then.
        """
        try:
            async with asyncio.timeout(timeout):
                _, link = await open_transport(
                    endpoint, lambda: cls(endpoint, receiver, listening_port=listening_port, present_as=present_as, role=role, since=since)
                )
        except TimeoutError:
            raise unanswered(endpoint, timeout) from None
        return link

    def acknowledge(self) -> None:
        """Tell the server how far we are."""
        if self.streaming and self._transport is not None and not self._transport.is_closing():
            self._transport.write(psync.ack(self.received))

    def pause(self) -> None:
        """Read nothing until ``resume``: what is not read waits in the server. Time in which we do not listen is no silence."""
        if self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._heard_at = self._clock()
            self._transport.resume_reading()

    def close(self) -> None:
        """Hang up; ``lost`` ends without an error."""
        self._end(None)

    def leave(self, reason: Exception) -> None:
        """Hang up; ``lost`` ends with this reason."""
        self._end(reason)

    # -- asyncio.BufferedProtocol -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._heard_at = self._clock()
        self._ticker = asyncio.get_running_loop().create_task(self._tick(), name=f"replication link to {self.name}")
        transport.write(self._replica.data_to_send())

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return memoryview(self._buffer)[self._kept :]

    def buffer_updated(self, nbytes: int) -> None:
        self._heard_at = self._clock()
        if self.lost.done():
            return
        filled = self._kept + nbytes
        if self._payload is not None and filled < GATHER_BYTES and (self._payload.left is None or filled < self._payload.left):
            self._kept = filled
            if self._gathering is None:
                self._gathering = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._gathered)
        else:
            self._take_or_end(filled)

    def _gathered(self) -> None:
        self._gathering = None
        if self._payload is not None and self._kept and not self.lost.done():
            self._take_or_end(self._kept)

    def _take_or_end(self, filled: int) -> None:
        try:
            self._take(filled)
        except Exception as error:  # noqa: BLE001 - whatever it is, the receiver did not take what came; a bug of ours is told as one
            self._end(error)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        self._gathered()
        self._end(self._hung_up(exc))
        if not self.closed.done():
            self.closed.set_result(None)

    def _hung_up(self, exc: BaseException | None) -> Exception:
        where = "in the stream" if self.streaming else f"in the snapshot, after {self._progress}" if self._payload is not None else ""
        if not where and isinstance(event := self._replica.lost(), psync.Failed):
            return event.error
        where = where or f"while we waited for {self._replica.state.value}"
        detail = f": {exc}" if exc is not None else ""
        remedy = (
            "see its log: it was stopped or restarted, its fork failed, or it dropped us (repl-timeout, client-output-buffer-limit replica)"
        )
        if self._accepted and not self.streaming:
            remedy = (
                "see its log for the reason: more was written meanwhile than `client-output-buffer-limit replica` allows (raise it), we were slower than "
                "`repl-timeout` (raise it; look at disk and network here), or its fork failed or was killed (memory, vm.overcommit_memory); then start again"
            )
        return HungUp(f"{self.name} closed the replication link {where}, at offset {self.received}{detail}", remedy=remedy)

    @property
    def _progress(self) -> str:
        """Of the snapshot, for people."""
        return f"{self._taken} of {self.length} bytes" if self.length else f"{self._taken} bytes"

    # -- what came ------------------------------------------------------------------------------------------------------------------

    def _take(self, filled: int) -> None:
        if self.streaming:
            self._stream(memoryview(self._buffer)[:filled])
        elif self._payload is not None:
            self._snapshot(self._payload, filled)
        else:
            self._handshake(bytes(memoryview(self._buffer)[:filled]))

    def _handshake(self, data: bytes) -> None:
        for event in self._replica.receive(data):
            match event:
                case psync.FullResync(replid, offset):
                    if self._since is not None:
                        raise self._not_continued(replid, offset)
                    self._accepted = True
                    self.received = offset
                    self._receiver.full_resync(replid, offset)
                    self._begin(replid)
                case psync.Continue(replid):
                    assert self._since is not None  # or it would have been refused
                    self.streaming = True
                    self._receiver.continued(replid or self._since[0], self.received)
                    self._begin(replid or self._since[0])
                case psync.PayloadStart(length):
                    self._payload = psync.Payload(event)
                    self.length = length or 0
                case psync.Retry(reason):
                    raise self._not_now(reason)
                case psync.Failed(error):
                    raise error
        if self._transport is not None and (reply := self._replica.data_to_send()):
            self._transport.write(reply)
        if self._payload is not None:
            rest = self._replica.rest()
            self._buffer[: len(rest)] = rest
            self._snapshot(self._payload, len(rest))
        elif self.streaming:
            self.acknowledge()
            if rest := self._replica.rest():
                self._stream(memoryview(rest))

    def _begin(self, replid: str) -> None:
        self.replid = replid
        if not self.begun.done():
            self.begun.set_result(None)

    def _not_continued(self, replid: str, offset: int) -> NotContinued:
        assert self._since is not None
        return NotContinued(
            f"{self.name} was asked to go on behind offset {self._since[1]} of {self._since[0]}, and began a full sync at offset {offset} of {replid}, "
            "of which nothing was taken",
            remedy="its backlog does not reach that far back, or it has another history: raise repl-backlog-size, or allow a full sync by starting again",
        )

    def _not_now(self, reason: str) -> NotNow:
        if self._accepted:
            return NotNow(
                f"{self.name} could not make a snapshot: {reason}", remedy="see its log (did its fork or its disk fail?); then start again"
            )
        return NotNow(
            f"{self.name} cannot replicate now: {reason}",
            remedy="wait until it has loaded its data or has its own primary back, then start again",
        )

    def _snapshot(self, payload: psync.Payload, filled: int) -> None:
        size, used = payload.split(self._buffer, filled)
        view = memoryview(self._buffer)
        if size:
            self._taken += size
            self._receiver.snapshot(view[:size])
        if not payload.done:
            self._kept = filled - used
            view[: self._kept] = view[used:filled]
            return
        self._kept = 0
        self._payload = None
        self._receiver.snapshot_end()
        self.streaming = True
        self.acknowledge()  # with a mark, the server streams only after our first ACK
        if used < filled:
            self._stream(view[used:filled])

    def _stream(self, data: memoryview) -> None:
        self._stream_heard = True
        self.received += len(data)
        self._receiver.stream(data)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(ACK_SECONDS if self._stream_heard else FIRST_ACK_SECONDS)
            self.acknowledge()
            silent = self._clock() - self._heard_at
            if silent > SILENCE_SECONDS and not self._paused:
                self._end(
                    Silent(
                        f"{self.name} said nothing for {silent:.0f} s",
                        remedy="check the network and the server (is it stopped or swapping?); start again",
                    )
                )

    def _end(self, error: Exception | None) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        if self._gathering is not None:
            self._gathering.cancel()
        if self._transport is not None:
            with contextlib.suppress(OSError):
                self._transport.abort()
        if not self.lost.done():
            if error is None:
                self.lost.set_result(None)
            else:
                self.lost.set_exception(error)
