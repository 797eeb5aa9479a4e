"""A replication link to one server, for reading: the handshake, the snapshot's bytes, then the stream's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from valkeep.client.endpoint import Endpoint
from valkeep.client.transport import open_streams
from valkeep.errors import ConnectionLost, ValkeepError
from valkeep.wire.psync import Failed, FullResync, Payload, PayloadStart, ReplicaSide, Retry, ack

__all__ = ["Link"]

CHUNK = 1 << 18  # bytes asked for at once: some milliseconds of decoding, so that the loop stays answerable
PATIENCE = 60.0  # seconds that a server may say "not now" (loading, link to its primary down)
SILENCE = 60.0  # seconds without a byte after which a link counts as broken (repl-timeout's default)
VERSION = "9.1.0"  # what we say we are: a Valkey 9 source then sends what it has, and not what an older replica could load


class Link:
    """``open`` gets as far as the server's answer to PSYNC, which is when it has forked or will; then ``snapshot``, then ``stream``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, side: ReplicaSide, where: str) -> None:
        self.where = where
        self.replid = ""
        self.offset = 0  # of the snapshot
        self._reader = reader
        self._writer = writer
        self._side = side
        self._start: PayloadStart | None = None
        self._rest = b""
        self._acks: asyncio.Task[None] | None = None
        self.processed = 0  # what is acknowledged once a second; the owner of the stream moves it

    @classmethod
    async def open(cls, endpoint: Endpoint, timeout: float = 5.0) -> Link:
        """Raises ``Refused`` (password, PSYNC not permitted), ``ConnectionLost``; all definite: nothing was changed anywhere."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        while True:
            reader, writer = await open_streams(endpoint, timeout)
            side = ReplicaSide(
                listening_port=0,
                username=endpoint.username,
                password=endpoint.password.reveal() if endpoint.password else None,
                version=VERSION,
            )
            link = cls(reader, writer, side, endpoint.address)
            try:
                reason = await link._shake_hands()
            except BaseException:
                await link.close()
                raise
            if reason is None:
                return link
            await link.close()
            if loop.time() > until:
                raise ConnectionLost(
                    f"{endpoint.address} has not served a snapshot for {PATIENCE:.0f} s: {reason}",
                    remedy="see its log; when it is a replica, see whether its link to its primary is up",
                )
            await asyncio.sleep(0.2)

    async def _shake_hands(self) -> str | None:
        """None once the server has accepted; else why not now."""
        while True:
            self._writer.write(self._side.data_to_send())
            data = await self._read()
            for event in self._side.receive(data) if data else [self._side.lost()]:
                if isinstance(event, FullResync):
                    self.replid, self.offset = event.replid, event.offset
                elif isinstance(event, PayloadStart):
                    self._start = event
                elif isinstance(event, Retry):
                    return event.reason
                elif isinstance(event, Failed):
                    raise _at(self.where, event.error)
            if self.replid:
                return None

    async def _read(self) -> bytes:
        try:
            async with asyncio.timeout(SILENCE):
                return await self._reader.read(CHUNK)
        except TimeoutError:
            raise ConnectionLost(
                f"{self.where} has sent nothing for {SILENCE:.0f} s",
                remedy="is the server stopped, or the network cut? Verify again when it answers",
            ) from None
        except OSError as error:
            raise ConnectionLost(f"the replication link to {self.where} broke: {error}", remedy="see the server's log") from None

    def _broken(self, what: str) -> ConnectionLost:
        return ConnectionLost(
            f"{self.where} cut the replication link {what}",
            remedy="see its log: it stopped, or its client-output-buffer-limit for replicas is too small, or its fork failed",
        )

    async def snapshot(self) -> AsyncIterator[bytes]:
        """The snapshot's bytes. Ends after the last one; anything else is an error."""
        while self._start is None:
            data = await self._read()
            for event in self._side.receive(data) if data else [self._side.lost()]:
                if isinstance(event, PayloadStart):
                    self._start = event
                elif isinstance(event, Retry):
                    raise ConnectionLost(f"{self.where} could not make a snapshot: {event.reason}", remedy="see the server's log")
                elif isinstance(event, Failed):
                    raise _at(self.where, event.error)
        payload = Payload(self._start)
        part, self._rest = payload.split(self._side.rest())
        if part:
            yield part
        while not payload.done:
            data = await self._read()
            if not data:
                raise self._broken(f"after {payload.received} bytes of the snapshot")
            part, self._rest = payload.split(data)
            if part:
                yield part
        self.processed = self.offset

    async def stream(self) -> AsyncIterator[bytes]:
        """The stream's bytes, for ever. Sends the first ACK (before it nothing comes), then one every second."""
        self._acks = asyncio.create_task(self._acknowledge())
        if self._rest:
            yield self._rest
        while data := await self._read():
            yield data
        raise self._broken("of the stream")

    async def _acknowledge(self) -> None:
        while True:
            with contextlib.suppress(ConnectionError):
                self._writer.write(ack(self.processed))
            # A server that has not yet noticed its child's end drops our ACK, and streams only after the next one.
            await asyncio.sleep(1.0 if self.processed > self.offset else 0.1)

    async def close(self) -> None:
        if self._acks is not None:
            self._acks.cancel()
        transport = self._writer.transport
        transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def _at(where: str, error: ValkeepError) -> ValkeepError:
    """The error with the server's address (the conversation knows none, and calls every server the source)."""
    message = error.message.replace("the source", where, 1)
    return type(error)(message, remedy=error.remedy, definite=error.definite, code=error.code)
