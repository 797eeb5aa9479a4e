"""A client that outlives failovers: behind sentinels, of a cluster, or of one primary.

    async with ResilientClient.sentinel([Endpoint.parse("valkey://10.0.0.1:26379")], "valkeep") as client:
        await client.call("SET", "k", "v")

What it does for its caller, and no more: it finds the node that takes the request, follows ``+switch-master`` when it is published and MOVED and ASK as they
come, and makes a request again until the deadline when that can do no harm (`retry` says when). What it never does by itself is to repeat a write that may
have been done and must not be done twice: that ends with `InDoubt`, and only the caller can know what to do.

It keeps no promise that the servers do not keep: a write that was acknowledged by a primary which then died may be gone. ``wait=1`` asks for a replica's
confirmation of each write, which makes that rare; nothing here makes it impossible.

All callers share one connection to each node, so requests made at once leave at once, in the order they were made. A blocking command (BLPOP, XREAD BLOCK)
holds up everybody behind it: give it a client of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeVar

from valkeep.client.cluster import ClusterDirectory, parse_redirect
from valkeep.client.commands import BLOCKING, may_be_repeated, name_of, only_reads, slot_of
from valkeep.client.connection import Argument, Connection, Value
from valkeep.client.endpoint import Endpoint
from valkeep.client.links import Links
from valkeep.client.retry import Counts, InDoubt, OutOfTime, Patience, passes
from valkeep.client.routes import ClusterRoute, PrimaryRoute, Route, SentinelRoute
from valkeep.client.sentinel import SentinelDirectory
from valkeep.errors import ConnectionLost, LocalProtocolError, ServerError, ValkeepError
from valkeep.topology.slots import key_slot

__all__ = ["ResilientClient"]

T = TypeVar("T")

_LOOKS: Final = 2.0  # times the patience with one node: what is given to asking sentinels, or nodes of a cluster, where to go
_REDIRECTS: Final = 4  # followed in a row without a pause; two nodes could send a client to each other for ever


@dataclass(frozen=True, slots=True)
class _Request:
    """What an attempt needs. ``send``: over this connection, after ASKING if true, waiting this long (seconds) for the reply."""

    name: str
    slot: int | None
    send: Callable[[Connection, bool, float], Awaitable[Value]]
    repeatable: bool
    harmless: bool = False  # it changes nothing: whether it was done is no question
    blocking: bool = False
    replica: bool = False


@dataclass(slots=True)
class _Course:
    """How far a request has come. ``node``: of this attempt. ``leads_to``: where a redirection leads, and whether after ASKING. ``failure``: the last."""

    seconds: float
    end: float
    node: Endpoint | None = None
    leads_to: tuple[Endpoint, bool] | None = None
    failure: ValkeepError | None = None
    failures: int = 0
    redirects: int = 0
    in_doubt: bool = False


class ResilientClient:
    """Make one with `sentinel`, `cluster` or `primary`; ``async with`` closes it. ``counts``: what it did so far.

    ``last``: the node that was asked last; the one that answered, for who has one call at a time.
    ``rng``: where the jitter of the pauses, and the choice among replicas, come from. ``source``: the address of this machine to connect from.
    """

    def __init__(self, route: Route, patience: Patience, rng: random.Random, source: str = "") -> None:
        self.counts = Counts()
        self.last: Endpoint | None = None
        self._patience, self._rng = patience, rng
        self._route = route
        self._links = Links(patience.node, source, self.counts)
        self._watching: asyncio.Task[None] | None = None
        self._news = asyncio.Event()  # set, and replaced, when there is a new primary: who pauses before another attempt need not
        self._closed = False

    @classmethod
    def sentinel(
        cls,
        sentinels: Sequence[Endpoint],
        name: str = "valkeep",
        *,
        login: Endpoint | None = None,
        patience: Patience = Patience(),  # noqa: B008 - frozen
        rng: random.Random | None = None,
        source: str = "",
    ) -> Self:
        """The primary that these sentinels call ``name``. ``login``: user, password, TLS and database of the data nodes; None: as the first sentinel's."""
        rng = rng or random.Random()
        route = SentinelRoute(SentinelDirectory(sentinels, name, source, login=login), rng, _LOOKS * patience.node)
        return cls(route, patience, rng, source)

    @classmethod
    def cluster(
        cls,
        seeds: Sequence[Endpoint],
        *,
        patience: Patience = Patience(),  # noqa: B008 - frozen
        rng: random.Random | None = None,
        source: str = "",
    ) -> Self:
        """The cluster that these nodes belong to."""
        rng = rng or random.Random()
        return cls(ClusterRoute(ClusterDirectory(seeds, source), rng, _LOOKS * patience.node), patience, rng, source)

    @classmethod
    def primary(
        cls,
        endpoint: Endpoint,
        *,
        patience: Patience = Patience(),  # noqa: B008 - frozen
        rng: random.Random | None = None,
        source: str = "",
    ) -> Self:
        """One server, which is come back to when it does."""
        return cls(PrimaryRoute(endpoint), patience, rng or random.Random(), source)

    async def call(
        self,
        *args: Argument,
        deadline: float | None = None,
        idempotent: bool | None = None,
        replica: bool = False,
        wait: int = 0,
        wait_ms: int = 100,
    ) -> Value:
        """One command and its reply.

        ``deadline``: seconds for all attempts (None: the client's). ``idempotent``: whether it may be done twice (None: what `commands` knows of it).
        ``replica``: a replica may answer, with data that may be old; for commands that only read, ``LocalProtocolError`` for others.
        ``wait``: replicas that have to confirm the write within ``wait_ms``; when fewer do, the write is in doubt.

        Raises ``ServerError`` for an error reply that trying again does not change, `InDoubt`, `OutOfTime`, and what opening a connection raises
        when it is not worth to try again (``Refused``: the password, a permission).
        """
        if replica and not only_reads(args):
            raise LocalProtocolError(f"{_shown(args)} is not known to only read", remedy="ask the primary: leave replica=True out")

        async def send(connection: Connection, asking: bool, timeout: float) -> Value:
            if not asking and not wait:
                return await connection.call(*args, timeout=timeout)
            block: list[Sequence[Argument]] = [("ASKING",), args] if asking else [args]
            if wait:
                block.append(("WAIT", wait, wait_ms))
            replies = await connection.pipeline(block, timeout + wait_ms / 1000)
            reply = replies[1 if asking else 0]
            if isinstance(reply, ServerError):
                raise reply
            if wait and (isinstance(replies[-1], ServerError) or replies[-1] < wait):
                raise _too_few(args, wait, wait_ms, replies[-1])
            return reply

        repeatable = may_be_repeated(args) if idempotent is None else idempotent
        slot = slot_of(args) if self._route.slotted else None
        blocking = name_of(args) in BLOCKING
        request = _Request(_shown(args), slot, send, repeatable, only_reads(args), blocking, replica)
        return await self._until(request, deadline)

    async def pipeline(
        self,
        commands: Iterable[Sequence[Argument]],
        *,
        deadline: float | None = None,
        idempotent: bool | None = None,
        replica: bool = False,
    ) -> list[Value]:
        """Many calls at once: those for one node leave in one write, in order. The replies in order; what failed is in its place as the error, not raised.

        Each command is tried again by itself, so after a failure they may be done in another order. Where the order matters, use `transaction`.
        """

        async def one(command: Sequence[Argument]) -> Value:
            try:
                return await self.call(*command, deadline=deadline, idempotent=idempotent, replica=replica)
            except ValkeepError as error:
                return error

        return await asyncio.gather(*[one(tuple(command)) for command in commands])

    async def transaction(
        self, commands: Iterable[Sequence[Argument]], *, deadline: float | None = None, idempotent: bool | None = None
    ) -> list[Value]:
        """MULTI, the commands, EXEC: all or nothing, on one node; what EXEC answers. In a cluster all keys have to be of one slot ({tags})."""
        listed = [tuple(command) for command in commands]

        async def send(connection: Connection, asking: bool, timeout: float) -> Value:
            return await connection.execute(listed, timeout, asking=asking)

        slots = [slot for slot in map(slot_of, listed) if slot is not None] if self._route.slotted else []
        repeatable = all(map(may_be_repeated, listed)) if idempotent is None else idempotent
        request = _Request("a transaction", slots[0] if slots else None, send, repeatable, all(map(only_reads, listed)))
        reply: list[Value] = await self._until(request, deadline)
        return reply

    async def each_primary(self, *args: Argument, deadline: float | None = None) -> dict[Endpoint, Value]:
        """A command without keys (DBSIZE, SCRIPT LOAD) on every primary: their replies."""

        async def send(connection: Connection, _: bool, timeout: float) -> tuple[Endpoint, Value]:
            return connection.endpoint, await connection.call(*args, timeout=timeout)

        slots = await self._found(self._route.slots)
        requests = [_Request(_shown(args), slot, send, may_be_repeated(args), only_reads(args)) for slot in slots]
        return dict(await asyncio.gather(*[self._until(request, deadline) for request in requests]))

    async def primaries(self) -> tuple[Endpoint, ...]:
        """The primaries by what is known now: one, or a cluster's. Looks for them, where nothing is known, until the client's deadline."""
        return await self._found(self._route.primaries)

    async def owner(self, key: str | bytes) -> Endpoint:
        """The primary that has this key, by what is known now; looks for it as `primaries` does."""
        slot = key_slot(key.encode() if isinstance(key, str) else key)
        return await self._found(lambda: self._route.node(slot))

    async def close(self) -> None:
        """Hang up everywhere; what is in flight ends with an error. Closing twice is fine."""
        self._closed = True
        self._tell_news()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._route.close()
        await self._links.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ---------------------------------------------------------------------------------------------------------------- inside

    async def _until(self, request: _Request, deadline: float | None) -> Value:
        """Attempts, until one succeeds or none may follow."""
        if self._watching is None and not self._closed:
            self._watching = asyncio.create_task(self._watch())
        self.counts.calls += 1
        seconds = self._patience.call if deadline is None else deadline
        course = _Course(seconds, asyncio.get_running_loop().time() + seconds)
        while True:
            try:
                return await self._attempt(request, course)
            except ValkeepError as error:
                failure = course.failure = error
            if self._redirected(course, failure):
                continue
            self._judge(request, course, failure)
            left = course.end - asyncio.get_running_loop().time()
            if left <= 0:
                raise _out_of_time(request, course)
            await self._pause(min(left, self._patience.pause(course.failures, self._rng)))
            self.counts.retries += 1

    async def _found(self, look: Callable[[], Awaitable[T]]) -> T:
        end = asyncio.get_running_loop().time() + self._patience.call
        failures = 0
        while True:
            try:
                return await look()
            except ValkeepError as error:
                if passes(error) is None or asyncio.get_running_loop().time() >= end:
                    raise
            failures += 1
            await self._pause(self._patience.pause(failures, self._rng))

    async def _attempt(self, request: _Request, course: _Course) -> Value:
        if self._closed:
            raise LocalProtocolError("the client is closed", remedy="make a new one")
        course.node = None
        sending = False
        try:
            async with asyncio.timeout_at(course.end):
                replica = request.replica and course.failures % 2 == 0  # the primary may be alive when the replica is not, and the reverse
                course.node, asking = course.leads_to or (await self._route.node(request.slot, replica=replica), False)
                connection = await self._links.to(course.node, replica=replica)
                sending = True
                self.last = course.node
                return await request.send(connection, asking, course.seconds if request.blocking else self._patience.node)
        except TimeoutError:
            if not sending:
                raise _out_of_time(request, course) from None
            assert course.node is not None
            raise ConnectionLost(
                f"{course.node.address} did not answer in what was left of {course.seconds:g} s",
                remedy="give it more time, or find out what is slow",
                definite=False,
            ) from None

    def _redirected(self, course: _Course, failure: ValkeepError) -> bool:
        """Whether the failure says where to go; then that is where the next attempt goes, and True when it goes at once."""
        course.leads_to = None
        redirect = parse_redirect(failure, course.node) if isinstance(failure, ServerError) and course.node is not None else None
        if redirect is None:
            return False
        self.counts.redirects += 1
        course.redirects += 1
        course.leads_to = (redirect.owner, redirect.kind == "ask")
        if redirect.kind == "moved":
            self._route.moved(redirect.slot, redirect.owner)
        return course.redirects % _REDIRECTS != 0

    def _judge(self, request: _Request, course: _Course, failure: ValkeepError) -> None:
        """Raises the failure when no attempt may follow; otherwise tells the route whom not to name again."""
        course.failures += 1
        if course.leads_to is not None:
            return
        look_again = passes(failure)
        if not failure.definite and not request.harmless:
            course.in_doubt = True
            if not request.repeatable:
                self.counts.in_doubt += 1
                raise failure if isinstance(failure, InDoubt) else _in_doubt(request, failure)
        elif failure.definite and look_again is None:
            raise failure.saying(definite=False) if course.in_doubt else failure
        if course.node is not None and look_again is not False:
            self._route.doubt(course.node, request.slot)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    async def _watch(self) -> None:
        async with contextlib.aclosing(self._route.switches()) as switches:
            async for old in switches:
                self.counts.switches += 1
                self._links.leave(old)
                self._tell_news()

    def _tell_news(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def _shown(args: Sequence[Argument]) -> str:
    return name_of(args).decode("ascii", "backslashreplace")


def _in_doubt(request: _Request, failure: ValkeepError) -> InDoubt:
    return InDoubt(
        f"{request.name} may have been done, or not: {failure.message}",
        remedy="find out whether it was done before doing it again; a command that may be done twice can be called with idempotent=True",
        definite=False,
    )


def _too_few(args: Sequence[Argument], wait: int, wait_ms: int, reply: Value) -> InDoubt:
    return InDoubt(
        f"{_shown(args)} was done, but of {wait} replicas {reply} confirmed it within {wait_ms} ms: a failover now may lose it",
        remedy="see whether the replicas are up and follow (INFO replication), wait longer (wait_ms), or ask for fewer (wait)",
        definite=False,
    )


def _out_of_time(request: _Request, course: _Course) -> OutOfTime:
    why, remedy = "nobody said where the primary is", "see whether sentinels or nodes answer, and whether the deadline is long enough"
    if course.failure is not None:
        why, remedy = course.failure.message, course.failure.remedy
    return OutOfTime(
        f"{request.name} did not succeed within {course.seconds:g} s (failures: {course.failures}); at last: {why}",
        remedy=remedy,
        definite=not course.in_doubt,
    )
