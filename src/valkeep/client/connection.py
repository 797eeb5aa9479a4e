"""One connection to one server, for any number of callers at once.

What is said here: how a connection is opened and logged in, and what callers may ask of it. How replies find their requests, and what becomes of
requests whose connection breaks, is in `reply_queue`.

A reply that does not come in time makes the whole connection unusable: the queue's order is all that ties replies to requests, and a server
that stalls one caller stalls all. The connection is not opened again behind the caller's back; who needs that decides what to do about the
requests in doubt first.

RESP2 is what we speak (every server since 1.2 does), so MONITOR and CLIENT REPLY are not for this class; for pub/sub a connection is given up to
`subscription.Subscription`, which alone uses ``listen`` and ``say``.

Secrets: passwords leave through ``_login`` only. Text of a server's error is searched for them, because servers quote arguments
("unknown command 'AUTH', with args beginning with: …"). ``Secret`` values may be arguments of a call and are treated the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Self, TypeVar

from valkeep.client.endpoint import Endpoint, Secret
from valkeep.client.refusals import REMEDIES, harmless, login_refused
from valkeep.client.reply_queue import ReplyQueue
from valkeep.client.transport import open_transport, unanswered
from valkeep.errors import ConnectionLost, LocalProtocolError, Refused, RemoteProtocolError, ServerError
from valkeep.wire import resp

__all__ = ["Argument", "Connection", "Value"]

Argument = resp.Argument | Secret
Value = resp.Value
T = TypeVar("T")


class Connection:
    """An open, logged-in connection. Make one with ``await Connection.open(endpoint)``; ``async with`` closes it."""

    def __init__(self, endpoint: Endpoint, queue: ReplyQueue, timeout: float) -> None:
        self.endpoint = endpoint
        self.timeout = timeout
        self._queue = queue
        self._hide = [endpoint.password] if endpoint.password else []

    def __repr__(self) -> str:
        return f"<Connection {self.endpoint.display}{' closed' if self.closed else ''}>"

    @classmethod
    async def open(cls, endpoint: Endpoint, timeout: float = 5.0, client_name: str = "valkeep", source_address: str = "") -> Connection:
        """Connect, log in, select the database and make sure that the peer is a Redis or Valkey server.

        ``timeout``: seconds for all of that, and the default of every later operation. ``source_address``: see `open_transport`. Raises
        ``ConnectionLost`` (nobody there, TLS), ``Refused`` (password, permission, database) or ``RemoteProtocolError`` (the peer is something
        else); all definite.
        """
        connection: Connection | None = None
        try:
            async with asyncio.timeout(timeout):
                _, queue = await open_transport(endpoint, lambda: ReplyQueue(endpoint.address), source_address)
                connection = cls(endpoint, queue, timeout)
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
        futures = self._queue.send(b"".join([self._encode(command) for command in commands]), len(commands))
        try:
            for (name, *_), future in zip(commands, futures, strict=True):
                value = await future
                if isinstance(value, ServerError) and not harmless(str(name), value):
                    raise login_refused(endpoint, str(name), self._hidden(value, ()))
        except ConnectionLost as error:
            if self._queue.spoke:
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
        return self._queue.lost is not None

    @property
    def in_flight(self) -> int:
        """Requests whose replies have not come."""
        return self._queue.in_flight

    async def call(self, *args: Argument, timeout: float | None = None) -> Value:
        """Send one command and wait for its reply; an error reply is raised as ``ServerError``.

        ``timeout``: seconds (None: the connection's own; 0 or less: for ever, for blocking commands). On time-out the connection is closed.
        """
        block = self._encode(args)
        if not self._queue.writable.is_set():
            await self._room(timeout)
        (future,) = self._queue.send(block, 1)
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
        None of them may hold a secret. No request is answered by no reply, at once."""
        if not replies:
            return []
        if not self._queue.writable.is_set():
            await self._room(timeout)
        future = self._queue.send_together(block, replies)
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
        self._queue.hear = hear

    def say(self, *args: Argument) -> None:
        """Send a command whose answers, however many, go to who listens. Raises ``ConnectionLost`` when the connection has broken."""
        self._queue.send(self._encode(args), 0)

    def hand_over(self, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Give the transport to another protocol, to which every byte goes from now on; nothing may be in flight. Nothing may be called here any more."""
        transport = self._queue.transport
        if self._queue.lost is not None or transport is None:
            raise (self._queue.lost or LocalProtocolError("a connection that was never open", remedy="report this bug")).saying()
        self._queue.lost = ConnectionLost(f"the connection to {self.endpoint.address} was handed over", remedy="open a new one")
        self._queue.closed.set_result(None)
        transport.set_protocol(protocol)
        return transport

    async def close(self) -> None:
        """Hang up; what is in flight ends with ``ConnectionLost(definite=False)``. Closing twice is fine."""
        queue = self._queue
        if queue.lost is None:
            queue.flush()
            queue.fail(
                ConnectionLost(f"the connection to {self.endpoint.address} was closed here", remedy="open a new one", definite=False)
            )
        await asyncio.shield(queue.closed)

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
                await self._queue.writable.wait()
        except TimeoutError:
            raise ConnectionLost(
                f"{self.endpoint.address} has read nothing for {seconds:g} s, so the request was not sent",
                remedy="is the server stopped or overloaded?",
            ) from None

    async def _reply(self, future: asyncio.Future[T], name: Argument, seconds: float) -> T:
        if seconds <= 0:
            return await future
        handle = self._queue.loop.call_later(seconds, self._too_late, future, name, seconds)
        try:
            return await future
        finally:
            handle.cancel()

    def _too_late(self, future: asyncio.Future[T], name: Argument, seconds: float) -> None:
        if not future.done():
            self._queue.fail(_timed_out(self.endpoint.address, name, seconds))

    def _hidden(self, error: ServerError, args: Sequence[Argument]) -> ServerError:
        """The same error with a remedy where we know one, and surely without secrets."""
        text = error.text
        for secret in (*self._hide, *[arg for arg in args if isinstance(arg, Secret)]):
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
