"""One connection to one server, for any number of callers at once.

Redis answers in order, so a request needs no number: ``call`` appends a future to a queue and its bytes to a block, and the n-th
reply completes the n-th future. All calls made in one turn of the event loop leave in one write (``flush`` runs at the loop's next
turn), which is what makes 50 concurrent callers cheap; a ``pipeline`` or an ``execute`` is one block anyway.

A reply that does not come in time makes the whole connection unusable: the queue's order is all that ties replies to requests, and a server
that stalls one caller stalls all. Everything in flight then ends with ``ConnectionLost(definite=False)`` – it may have happened – and what
was never written with ``definite=True``. The connection is not opened again behind the caller's back; who needs that decides what to
do about the requests in doubt first.

RESP2 is what we speak (every server since 1.2 does), so MONITOR and CLIENT REPLY are not for this class; for pub/sub a connection is given up to
`subscription.Subscription`, which alone uses ``listen`` and ``say``.

Secrets: passwords leave through ``_login`` only. Text of a server's error is searched for them, because servers quote arguments
("unknown command 'AUTH', with args beginning with: …"). ``Secret`` values may be arguments of a call and are treated the same.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Self, TypeVar

from valkeep.client.endpoint import Endpoint, Secret
from valkeep.client.refusals import REMEDIES, harmless, hung_up, login_refused
from valkeep.client.transport import open_transport, tls_failed, unanswered
from valkeep.errors import ConnectionLost, LocalProtocolError, Refused, RemoteProtocolError, ServerError, ValkeepError
from valkeep.wire import resp

__all__ = ["Argument", "Connection", "Value"]

Argument = resp.Argument | Secret
Value = resp.Value
T = TypeVar("T")

_HIGH_WATER: Final = 1 << 20  # bytes in the transport's buffer above which calls wait for the peer


class _Together:
    """The replies to a block of requests, completed at once: a future for each would be most of a pipeline's cost."""

    __slots__ = ("count", "future", "values")

    def __init__(self, future: asyncio.Future[list[Value]], count: int) -> None:
        self.future = future
        self.values: list[Value] = []
        self.count = count

    def take(self, value: Value) -> bool:
        """The next reply; whether it was the last one."""
        self.values.append(value)
        if len(self.values) < self.count:
            return False
        if not self.future.done():  # its caller may have been cancelled
            self.future.set_result(self.values)
        return True

    def done(self) -> bool:
        return self.future.done()

    def set_exception(self, error: ValkeepError) -> None:
        self.future.set_exception(error)


class _Protocol(asyncio.Protocol):
    """The queue of replies waited for, and the block of bytes not yet written."""

    def __init__(self, where: str, hide: list[Secret]) -> None:
        self.loop = asyncio.get_running_loop()
        self.where = where
        self.hide = hide
        self.parser = resp.Parser()
        self.spoke = False  # whether the peer ever sent a byte
        self.waiting: deque[asyncio.Future[Value] | _Together] = deque()
        self.block: list[bytes] = []
        self.flushing = False
        self.transport: asyncio.Transport | None = None
        self.lost: ValkeepError | None = None
        self.hear: Callable[[Value], None] | None = (
            None  # takes what answers nothing, once the peer was asked to send such (`Connection.listen`)
        )
        self.greeting: ServerError | None = None  # an error that nobody asked for: why the server is about to hang up
        self.closed: asyncio.Future[None] = self.loop.create_future()
        self.writable = asyncio.Event()
        self.writable.set()

    # --- asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=_HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        parser = self.parser
        waiting = self.waiting
        self.spoke = True
        parser.feed(data)
        try:
            while True:
                value = parser.next()
                if value is resp.NEED_MORE:
                    return
                if type(value) is resp.Push and self.hear is None:
                    continue
                if waiting:
                    first = waiting[0]
                    if isinstance(first, _Together):
                        if not first.take(value):
                            continue
                    elif not first.done():  # its caller may have been cancelled
                        first.set_result(value)
                    waiting.popleft()
                elif self.hear is not None:
                    self.hear(value)
                elif isinstance(value, ServerError):
                    self.greeting = value
                else:
                    raise RemoteProtocolError(
                        f"{self.where} sent a reply that nobody waits for: {str(value)[:60]}",
                        remedy="no proxy may stand in between that adds replies",
                    )
        except RemoteProtocolError as error:
            self.fail(error.saying(f"{self.where}: {error.message}", definite=False))

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.greeting is not None:
            self.fail(hung_up(self.where, self.greeting))
        elif isinstance(exc, ssl.SSLError):
            self.fail(tls_failed(self.where, exc))
        else:
            why = f": {exc.strerror or exc}" if isinstance(exc, OSError) else ""
            self.fail(
                ConnectionLost(
                    f"{self.where} closed the connection{why}",
                    remedy="see the server's log: it stopped, restarted or dropped this client (timeout, CLIENT KILL, output-buffer limit)",
                    definite=False,
                )
            )
        if not self.closed.done():
            self.closed.set_result(None)
        self.writable.set()
        if self.hear is not None:
            self.hear(self.lost)

    # --- the connection calls these

    def fail(self, error: ValkeepError) -> None:
        """End everything in flight with ``error``; the first reason stays the reason."""
        if self.lost is None:
            self.lost = error
        waiting, self.waiting = self.waiting, deque()
        self.block.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(self.lost.saying(definite=False))
        if self.transport is not None and not self.transport.is_closing():
            self.transport.abort()

    def send(self, block: bytes, replies: int) -> list[asyncio.Future[Value]]:
        if self.lost is not None:
            raise self.lost.saying(definite=True)
        futures: list[asyncio.Future[Value]] = [self.loop.create_future() for _ in range(replies)]
        self.waiting.extend(futures)
        self.write(block)
        return futures

    def send_together(self, block: bytes, replies: int) -> asyncio.Future[list[Value]]:
        """As ``send``, with one future for all replies (at least one)."""
        if self.lost is not None:
            raise self.lost.saying(definite=True)
        future: asyncio.Future[list[Value]] = self.loop.create_future()
        self.waiting.append(_Together(future, replies))
        self.write(block)
        return future

    def write(self, block: bytes) -> None:
        self.block.append(block)
        if not self.flushing:
            self.flushing = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        self.flushing = False
        if self.block and self.transport is not None and self.lost is None:
            block = self.block[0] if len(self.block) == 1 else b"".join(self.block)
            self.block.clear()
            self.transport.write(block)


class Connection:
    """An open, logged-in connection. Make one with ``await Connection.open(endpoint)``; ``async with`` closes it."""

    def __init__(self, endpoint: Endpoint, protocol: _Protocol, timeout: float) -> None:
        self.endpoint = endpoint
        self.timeout = timeout
        self._protocol = protocol

    def __repr__(self) -> str:
        return f"<Connection {self.endpoint.display}{' closed' if self.closed else ''}>"

    @classmethod
    async def open(cls, endpoint: Endpoint, timeout: float = 5.0, client_name: str = "valkeep", source_address: str = "") -> Connection:
        """Connect, log in, select the database and make sure that the peer is a Redis or Valkey server.

        ``timeout``: seconds for all of that, and the default of every later operation. ``source_address``: see `open_transport`. Raises
        ``ConnectionLost`` (nobody there, TLS), ``Refused`` (password, permission, database) or ``RemoteProtocolError`` (the peer is something
        else); all definite.
        """
        hide = [endpoint.password] if endpoint.password else []
        connection: Connection | None = None
        try:
            async with asyncio.timeout(timeout):
                _, protocol = await open_transport(endpoint, lambda: _Protocol(endpoint.address, hide), source_address)
                connection = cls(endpoint, protocol, timeout)
                await connection._login(client_name)
        except TimeoutError:
            error = unanswered(endpoint, timeout)
            if connection is not None:
                await connection.close()
                hint = "" if endpoint.tls else ", or does the port expect TLS (rediss://, valkeys://)"
                error = error.saying(remedy=f"it accepts connections but says nothing: is the server stopped{hint}?")
            raise error from None
        except BaseException:
            if connection is not None:
                await connection.close()
            raise
        return connection

    async def _login(self, client_name: str) -> None:
        """AUTH, PING, SELECT, CLIENT SETNAME in one block: one round trip."""
        endpoint = self.endpoint
        commands: list[tuple[Argument, ...]] = []
        if endpoint.password is not None:
            commands.append(("AUTH", endpoint.username, endpoint.password) if endpoint.username else ("AUTH", endpoint.password))
        commands.append(("PING",))
        if endpoint.db:
            commands.append(("SELECT", endpoint.db))
        if client_name:
            commands.append(("CLIENT", "SETNAME", client_name))
        futures = self._protocol.send(b"".join([self._encode(command) for command in commands]), len(commands))
        try:
            for (name, *_), future in zip(commands, futures, strict=True):
                value = await future
                if isinstance(value, ServerError) and not harmless(str(name), value):
                    raise login_refused(endpoint, str(name), self._hidden(value, ()))
        except ConnectionLost as error:
            if self._protocol.spoke:
                raise error.saying(definite=True) from None
            hint = "" if endpoint.tls else ", and does the port expect TLS (rediss://, valkeys://)"
            raise ConnectionLost(
                f"{endpoint.address} hung up without a word", remedy=f"is it Redis or Valkey at all{hint}? Its log may say why"
            ) from None
        except RemoteProtocolError as error:
            raise error.saying(definite=True) from None
        finally:
            _settle(futures)

    @property
    def closed(self) -> bool:
        return self._protocol.lost is not None

    @property
    def in_flight(self) -> int:
        """Requests whose replies have not come."""
        return sum(one.count - len(one.values) if isinstance(one, _Together) else 1 for one in self._protocol.waiting)

    async def call(self, *args: Argument, timeout: float | None = None) -> Value:
        """Send one command and wait for its reply; an error reply is raised as ``ServerError``.

        ``timeout``: seconds (None: the connection's own; 0 or less: for ever, for blocking commands). On time-out the connection is closed.
        """
        block = self._encode(args)
        if not self._protocol.writable.is_set():
            await self._room(timeout)
        (future,) = self._protocol.send(block, 1)
        value = await self._reply(future, args[0], self.timeout if timeout is None else timeout)
        if isinstance(value, ServerError):
            raise self._hidden(value, args)
        return value

    async def pipeline(self, commands: Iterable[Sequence[Argument]], timeout: float | None = None) -> list[Value]:
        """Send all commands in one write; the replies in order. Error replies are *values* of the list, not raised."""
        listed = [tuple(command) for command in commands]
        if not listed:
            return []
        values = await self.exchange(b"".join([self._encode(command) for command in listed]), len(listed), listed[0][0], timeout)
        return [
            self._hidden(value, command) if isinstance(value, ServerError) else value for command, value in zip(listed, values, strict=True)
        ]

    async def exchange(self, block: bytes, replies: int, name: Argument, timeout: float | None = None) -> list[Value]:
        """As ``pipeline``, for commands that were encoded already: the bytes of so many requests, of which a time-out names the first one by ``name``.
        None of them may hold a secret."""
        if not self._protocol.writable.is_set():
            await self._room(timeout)
        future = self._protocol.send_together(block, replies)
        try:
            return await self._reply(future, name, self.timeout if timeout is None else timeout)
        finally:
            if not future.cancel() and not future.cancelled():
                future.exception()  # nobody will wait for it any more

    async def execute(self, commands: Iterable[Sequence[Argument]], timeout: float | None = None, *, asking: bool = False) -> list[Value]:
        """``MULTI``, the commands, ``EXEC`` in one write; the list that EXEC answers (errors of single commands are values in it). ``asking``: of a
        node that a cluster's ASK led to.

        Raises ``ServerError`` when the transaction was refused as a whole: then surely nothing of it was run.
        """
        listed = [tuple(command) for command in commands]
        replies = await self.pipeline([*[("ASKING",)] * asking, ("MULTI",), *listed, ("EXEC",)], timeout)
        result = replies[-1]
        if isinstance(result, list):
            return result
        reason = next((reply for reply in replies if isinstance(reply, ServerError)), None)
        if reason is not None:
            raise reason
        raise Refused(f"{self.endpoint.address} did not run the transaction: a watched key changed", remedy="try again")

    def listen(self, hear: Callable[[Value], None]) -> None:
        """From now on this is a connection for pub/sub: every value that comes is given to ``hear``, last the ``ConnectionLost`` that ended it.
        Nothing but `say` and `close` may be called any more."""
        self._protocol.hear = hear

    def say(self, *args: Argument) -> None:
        """Send a command whose answers, however many, go to who listens. Raises ``ConnectionLost`` when the connection has broken."""
        self._protocol.send(self._encode(args), 0)

    def hand_over(self, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Give the transport to another protocol, to which every byte goes from now on; nothing may be in flight. Nothing may be called here any more."""
        transport = self._protocol.transport
        if self._protocol.lost is not None or transport is None:
            raise (self._protocol.lost or LocalProtocolError("a connection that was never open", remedy="report this bug")).saying()
        self._protocol.lost = ConnectionLost(f"the connection to {self.endpoint.address} was handed over", remedy="open a new one")
        self._protocol.closed.set_result(None)
        transport.set_protocol(protocol)
        return transport

    async def close(self) -> None:
        """Hang up; what is in flight ends with ``ConnectionLost(definite=False)``. Closing twice is fine."""
        protocol = self._protocol
        if protocol.lost is None:
            protocol.flush()
            protocol.fail(
                ConnectionLost(f"the connection to {self.endpoint.address} was closed here", remedy="open a new one", definite=False)
            )
        await asyncio.shield(protocol.closed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ---------------------------------------------------------------------------------------------------------------- inside

    def _encode(self, args: Sequence[Argument]) -> bytes:
        return resp.encode(*[arg.reveal() if isinstance(arg, Secret) else arg for arg in args])

    async def _room(self, timeout: float | None) -> None:
        seconds = self.timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(seconds if seconds > 0 else None):
                await self._protocol.writable.wait()
        except TimeoutError:
            raise ConnectionLost(
                f"{self.endpoint.address} has read nothing for {seconds:g} s, so the request was not sent",
                remedy="is the server stopped or overloaded?",
            ) from None

    async def _reply(self, future: asyncio.Future[T], name: Argument, seconds: float) -> T:
        if seconds <= 0:
            return await future
        handle = self._protocol.loop.call_later(seconds, self._too_late, future, name, seconds)
        try:
            return await future
        finally:
            handle.cancel()

    def _too_late(self, future: asyncio.Future[T], name: Argument, seconds: float) -> None:
        if not future.done():
            self._protocol.fail(_timed_out(self.endpoint.address, name, seconds))

    def _hidden(self, error: ServerError, args: Sequence[Argument]) -> ServerError:
        """The same error with a remedy where we know one, and surely without secrets."""
        text = error.text
        for secret in (*self._protocol.hide, *[arg for arg in args if isinstance(arg, Secret)]):
            text = secret.hide_in(text)
        return ServerError(error.kind, text, remedy=REMEDIES.get(error.kind, error.remedy))


def _timed_out(where: str, name: Argument, seconds: float) -> ConnectionLost:
    word = (
        name
        if isinstance(name, str)
        else bytes(name).decode("ascii", "backslashreplace")
        if isinstance(name, (bytes, bytearray))
        else "a request"
    )
    return ConnectionLost(
        f"{where} did not answer {word} within {seconds:g} s; whether it was done is not known",
        remedy="is the server stopped, overloaded or out of reach? Find out what was done before doing it again",
        definite=False,
    )


def _settle(futures: list[asyncio.Future[Value]]) -> None:
    """Nobody will wait for these any more: cancel what is open, and look at the rest ("exception was never retrieved" is no news)."""
    for future in futures:
        if not future.cancel() and not future.cancelled():
            future.exception()
