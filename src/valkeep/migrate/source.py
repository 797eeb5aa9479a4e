"""The link to the source: we are its replica. Bytes come in, a receiver gets snapshot and stream apart; ACKs go out.

The source's output buffer is drained as fast as the receiver takes what comes: the receiver writes to a spool and never waits for a
target. The snapshot's end is found by the source's framing alone (``$<length>``, or 40 bytes of mark behind the data), as replicas do it; what
the bytes mean is the receiver's business.

A snapshot comes in pieces of 16 KB. Each of them handled by itself would cost a write to the spool, a wake-up and a send to the target; so they are gathered
in the buffer until there are 256 KB of them or 5 ms have passed, which spares a third of what the gateway takes of the processor, while
source and target need it. The stream is not gathered: there a millisecond counts.

ACKs say what was received (and spooled), once a second and when the source asks (GETACK). So the source sees a healthy replica however slow the
target is; who needs to know what the *target* has applied asks the gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from valkeep.client.transport import open_transport
from valkeep.errors import ConnectionLost, ValkeepError
from valkeep.wire import psync
from valkeep.wire.resp import encode

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint

__all__ = ["Receiver", "SourceLink"]

BUFFER = 1 << 20
GATHER_BYTES = 1 << 18
GATHER_SECONDS = 0.005
ACK_SECONDS = 1.0
FIRST_ACK_SECONDS = 0.1  # a source that has not yet noticed its child's end drops our ACK, and streams only after the next one
SILENCE_SECONDS = 60.0
RETRY_SECONDS = 0.5


class Receiver(Protocol):
    """Who takes what the source sends. An exception raised in ``snapshot``, ``snapshot_end`` or ``stream`` ends the link with that reason."""

    def full_resync(self, replid: str, offset: int) -> None: ...

    def snapshot(self, data: memoryview) -> None: ...

    def snapshot_end(self) -> None: ...

    def stream(self, data: memoryview) -> None: ...


class SourceLink(asyncio.BufferedProtocol):
    """One link to the source. ``received``: the source's offset up to which everything has come; ``lost``: ends with the reason when the link does.

    ``length``: bytes of the snapshot where the source says so beforehand, else 0.
    """

    def __init__(
        self, endpoint: Endpoint, receiver: Receiver, *, listening_port: int, present_as: str = "", silence: float = SILENCE_SECONDS
    ) -> None:
        self.endpoint = endpoint
        self.received = 0
        self.length = 0
        self.streaming = False
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.lost.add_done_callback(
            lambda done: done.cancelled() or done.exception()
        )  # nobody asks a link that was given up while it was opened
        self._clock: Callable[[], float] = loop.time
        self._receiver = receiver
        self._replica = psync.ReplicaSide(
            listening_port=listening_port,
            username=endpoint.username,
            password=endpoint.password.reveal() if endpoint.password is not None else None,
            version=present_as,
        )
        self._buffer = bytearray(BUFFER)
        self._kept = 0  # bytes at the buffer's head: not handled yet, or possibly the end mark's beginning
        self._gathering: asyncio.TimerHandle | None = None
        self._remaining = -1  # of a snapshot of known length
        self._mark = b""
        self._in_snapshot = False
        self._transport: asyncio.Transport | None = None
        self._silence = silence
        self._heard_at = 0.0
        self._stream_heard = False
        self._ticker: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, endpoint: Endpoint, receiver: Receiver, *, listening_port: int, present_as: str = "", timeout: float = 10.0
    ) -> SourceLink:
        """Connect and begin the handshake. Raises ``ConnectionLost``; what happens later ends ``lost``.

        ``present_as``: the version we say we are ("" for none): a Valkey 9 source writes its own dialect only for one that can read it.
        """
        async with asyncio.timeout(timeout):
            _, link = await open_transport(endpoint, lambda: cls(endpoint, receiver, listening_port=listening_port, present_as=present_as))
        return link

    def acknowledge(self) -> None:
        """Tell the source how far we are."""
        if self.streaming and self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(b"REPLCONF", b"ACK", self.received))

    def close(self) -> None:
        """Hang up; ``lost`` ends without an error."""
        self._end(None)

    # -- asyncio.BufferedProtocol -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._heard_at = self._clock()
        self._ticker = asyncio.get_running_loop().create_task(self._tick(), name="source link")
        transport.write(self._replica.data_to_send())

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return memoryview(self._buffer)[self._kept :]

    def buffer_updated(self, nbytes: int) -> None:
        self._heard_at = self._clock()
        if self.lost.done():
            return
        filled = self._kept + nbytes
        if self._in_snapshot and filled < GATHER_BYTES and not 0 <= self._remaining <= filled:
            self._kept = filled
            if self._gathering is None:
                self._gathering = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._gathered)
        else:
            self._take_or_end(filled)

    def _gathered(self) -> None:
        self._gathering = None
        if self._in_snapshot and self._kept and not self.lost.done():
            self._take_or_end(self._kept)

    def _take_or_end(self, filled: int) -> None:
        try:
            self._take(filled)
        except ValkeepError as error:
            self._end(error)
        except OSError as error:
            self._end(
                ValkeepError(
                    f"what the source sent cannot be stored: {error.strerror or error}",
                    remedy="check the disk and permissions of the spool folder (--spool DIR); the source was not touched",
                    code="VK-SPOOL-WRITE",
                )
            )
        except Exception as error:  # noqa: BLE001 - a bug of ours must be told as one, and not as the source's fault
            self._end(error)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        self._gathered()
        detail = f": {exc}" if exc is not None else ""
        where = "in the stream" if self.streaming else "in the snapshot" if self._in_snapshot else "in the handshake"
        self._end(
            ConnectionLost(
                f"the source {self.endpoint.address} closed the replication link {where}, at offset {self.received}{detail}",
                remedy="see the source's log: it was stopped or restarted, or dropped us (repl-timeout, client-output-buffer-limit replica)",
                code="VK-SOURCE-LOST",
            )
        )

    # -- what came ------------------------------------------------------------------------------------------------------------------

    def _take(self, filled: int) -> None:
        view = memoryview(self._buffer)
        if self.streaming:
            self._stream(view[:filled])
        elif self._in_snapshot:
            self._snapshot(view, filled)
        else:
            self._handshake(bytes(view[:filled]))

    def _handshake(self, data: bytes) -> None:
        for event in self._replica.receive(data):
            match event:
                case psync.FullResync(replid, offset):
                    self.received = offset
                    self._receiver.full_resync(replid, offset)
                case psync.PayloadStart(length, mark):
                    self._in_snapshot = True
                    self.length = length or 0
                    self._remaining = -1 if length is None else length
                    self._mark = mark or b""
                case psync.Retry(reason):
                    raise ConnectionLost(
                        f"the source {self.endpoint.address} cannot replicate now: {reason}",
                        remedy="wait until it has loaded its data or has its own primary back, then start again",
                        code="VK-SOURCE-BUSY",
                    )
                case psync.Failed(error):
                    raise error
                case psync.Continue():
                    raise ConnectionLost(
                        "the source continued a stream that was not asked for", remedy="start again", code="VK-SOURCE-PROTOCOL"
                    )
        if self._transport is not None and (reply := self._replica.data_to_send()):
            self._transport.write(reply)
        if self._in_snapshot:
            rest = self._replica.rest()
            self._buffer[: len(rest)] = rest
            self._take(len(rest))

    def _snapshot(self, view: memoryview, filled: int) -> None:
        if self._mark:
            self._marked(view, filled)
            return
        size = min(self._remaining, filled)
        self._remaining -= size
        self._kept = 0
        self._receiver.snapshot(view[:size])
        if self._remaining == 0:
            self._end_snapshot(view[size:filled])

    def _marked(self, view: memoryview, filled: int) -> None:
        """Snapshot bytes up to the mark; the last 39 bytes are kept back as long as they can be its beginning."""
        found = self._buffer.find(self._mark, 0, filled)
        if found >= 0:
            self._receiver.snapshot(view[:found])
            self._end_snapshot(view[found + len(self._mark) : filled])
            return
        keep = min(len(self._mark) - 1, filled)
        self._receiver.snapshot(view[: filled - keep])
        self._buffer[:keep] = bytes(view[filled - keep : filled])
        self._kept = keep

    def _end_snapshot(self, rest: memoryview) -> None:
        self._in_snapshot = False
        self._kept = 0
        self._receiver.snapshot_end()
        self.streaming = True
        self.acknowledge()  # with a mark, the source streams only after our first ACK
        if len(rest):
            self._stream(rest)

    def _stream(self, data: memoryview) -> None:
        self._stream_heard = True
        self.received += len(data)
        self._receiver.stream(data)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(ACK_SECONDS if self._stream_heard else FIRST_ACK_SECONDS)
            self.acknowledge()
            silent = self._clock() - self._heard_at
            if silent > self._silence:
                self._end(
                    ConnectionLost(
                        f"the source {self.endpoint.address} said nothing for {silent:.0f} s",
                        remedy="check the network and the source (is it stopped or swapping?); start again",
                        code="VK-SOURCE-SILENT",
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
