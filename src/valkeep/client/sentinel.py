"""Where the primary is, by what sentinels say and the node itself confirms.

A sentinel's answer is an opinion, and it may be old: sentinels learn of a failover from each other. So nobody is believed alone: the address that a
sentinel names is asked for its ROLE before it is given to the caller (the procedure of "Guidelines for Redis clients with support for Sentinel").
What that can not find out: a primary on the lost side of a partition still says that it is one.

Sentinels that do not agree are told apart by the epoch of their configuration: ``newest`` asks all and takes the newest one.

``watch`` listens to all sentinels at once, because it pays: the sentinel that leads a failover publishes ``+switch-master`` last, when all replicas
follow the new primary; the others do as soon as they hear of the new configuration.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from valkeep.client.connection import Connection, Value
from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import text_of
from valkeep.client.subscription import Subscription
from valkeep.errors import ConnectionLost, RemoteProtocolError, ServerError, UsageError, ValkeepError

__all__ = ["Attempt", "NoPrimary", "SentinelDirectory", "Switch", "parse_address", "parse_attempt", "parse_replicas", "parse_switch"]

T = TypeVar("T")

_AGAIN_SECONDS: Final = 0.1  # between two attempts to listen to a sentinel that does not answer
_DOWN: Final = frozenset({"s_down", "o_down", "disconnected"})
_SWITCH: Final = "+switch-master"
_BEGUN: Final = "+try-failover"
_GIVEN_UP: Final = ("-failover-abort-not-elected", "-failover-abort-no-good-slave", "-failover-abort-slave-timeout")


class NoPrimary(ConnectionLost):
    """No sentinel answers, or whom they name is no primary at present."""


@dataclass(frozen=True, slots=True)
class Switch:
    """``sentinel`` says that the primary is ``new`` now. ``old``: whom it replaced; None for what a sentinel says when one begins to listen to it."""

    sentinel: Endpoint
    new: Endpoint
    old: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """``sentinel`` begins to fail over, or gives it up (``begun`` False). What comes of it is told by a `Switch`."""

    sentinel: Endpoint
    begun: bool


class SentinelDirectory:
    """``sentinels``: at least one, with the login that *they* want. ``name``: what they call the primary. ``login``: user, password, TLS and database for the
    data nodes (its host and port mean nothing); None: as for the first sentinel. ``source``: the address to connect from."""

    def __init__(self, sentinels: Sequence[Endpoint], name: str = "valkeep", source: str = "", *, login: Endpoint | None = None) -> None:
        if not sentinels:
            raise UsageError("no sentinel is given", remedy="give the address of at least one, better of all")
        self.sentinels = tuple(sentinel.without_database() for sentinel in sentinels)
        self.name = name
        self.source = source
        self.login = login or sentinels[0]
        self._first = 0  # which sentinel is asked first: the one that answered last

    async def primary(self, timeout: float = 5.0) -> Endpoint:
        """The primary now: named by a sentinel, confirmed by its own ROLE. ``timeout``: seconds for all of it. Raises ``NoPrimary``, definite."""
        return await self._ask(timeout, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name), self._confirmed)

    async def replicas(self, timeout: float = 5.0) -> tuple[Endpoint, ...]:
        """Replicas that a sentinel holds to be up and whose own ROLE says that they are linked to a primary; maybe none. (A sentinel asks for the state of
        that link every ten seconds only.) ``timeout``: seconds for all of it. Raises ``NoPrimary`` when no sentinel answers."""
        return await self._ask(timeout, ("SENTINEL", "REPLICAS", self.name), self._linked)

    async def is_primary(self, node: Endpoint, timeout: float = 1.0) -> bool:
        """Whether this node says of itself that it is a primary; False when it says nothing."""
        try:
            return bool((await self._role(node, timeout))[0] == b"master")
        except ValkeepError:
            return False

    async def newest(self, timeout: float = 5.0) -> Endpoint:
        """The primary now, by the newest configuration that any of the sentinels has, confirmed by its own ROLE. ``timeout``: seconds for all of it.
        Raises ``NoPrimary``, definite."""
        replies = await asyncio.gather(*[self._opinion(sentinel, timeout / 2) for sentinel in self.sentinels], return_exceptions=True)
        opinions = [reply for reply in replies if isinstance(reply, tuple)]
        if not opinions:
            reasons = "; ".join(reply.message for reply in replies if isinstance(reply, ValkeepError)) or "none answered in time"
            raise NoPrimary(
                f"no sentinel says who {self.name!r} is: {reasons}",
                remedy="check that sentinels run at these addresses and that they watch this name (SENTINEL MASTERS)",
            )
        epoch, primary = max(opinions, key=lambda opinion: opinion[0])
        try:
            async with asyncio.timeout(timeout / 2):
                role = await self._role(primary, timeout / 2)
        except (TimeoutError, ConnectionLost) as error:
            why = error.message if isinstance(error, ValkeepError) else f"which did not answer within {timeout / 2:g} s"
            raise NoPrimary(
                f"the sentinels' newest configuration ({epoch}) names {primary.address} for {self.name!r}: {why}",
                remedy="a failover may be under way: ask again",
            ) from None
        if role[0] != b"master":
            raise NoPrimary(
                f"the sentinels' newest configuration ({epoch}) names {primary.address} for {self.name!r}, which says that it is a {text_of(role[0])}",
                remedy="a failover is under way: ask again",
            )
        return primary

    async def watch(self) -> AsyncGenerator[Switch, None]:
        """Every change of the primary, as the first sentinel tells it; first of all, whom they hold for the primary now. Never ends by itself: a sentinel
        that can not be heard is tried again for ever. What is told is an opinion: ask `primary`, or the node's ROLE. Close it
        (``contextlib.aclosing``), or its connections stay until the event loop ends."""
        last: Endpoint | None = None
        async with contextlib.aclosing(self.news()) as news:
            async for one in news:
                if isinstance(one, Switch) and one.new != last:
                    last = one.new
                    yield one

    async def news(self) -> AsyncGenerator[Switch | Attempt, None]:
        """The same, of each sentinel by itself, and that they try to fail over. Close it, too."""
        told: asyncio.Queue[Switch | Attempt] = asyncio.Queue()
        listeners = [asyncio.create_task(self._listen(sentinel, told)) for sentinel in self.sentinels]
        try:
            while True:
                yield await told.get()
        finally:
            for listener in listeners:
                listener.cancel()
            await asyncio.gather(*listeners, return_exceptions=True)

    # ---------------------------------------------------------------------------------------------------------------- inside

    async def _ask(self, timeout: float, command: tuple[str, ...], accept: Callable[[Value, float], Awaitable[T]]) -> T:
        """The first answer that ``accept`` takes, of one sentinel after the other. Each gets an equal share of the time that is left."""
        deadline = time.monotonic() + timeout
        reasons: list[str] = []
        order = [(self._first + step) % len(self.sentinels) for step in range(len(self.sentinels))]
        for asked, index in enumerate(order):
            sentinel = self.sentinels[index]
            share = max(0.01, (deadline - time.monotonic()) / (len(order) - asked))
            try:
                async with asyncio.timeout(share):
                    async with await Connection.open(sentinel, share / 2, source_address=self.source) as connection:
                        reply = await connection.call(*command)
                    found = await accept(reply, share / 2)
            except TimeoutError:
                reasons.append(f"sentinel {sentinel.address} did not answer within {share:.2g} s")
            except ValkeepError as error:
                reasons.append(error.message if sentinel.address in error.message else f"sentinel {sentinel.address}: {error.message}")
            else:
                self._first = index
                return found
        raise NoPrimary(
            f"no sentinel leads to {self.name!r} now: {'; '.join(reasons)}",
            remedy="check that sentinels run at these addresses, that they watch this name (SENTINEL MASTERS), and that a primary is up",
        )

    async def _confirmed(self, reply: Value, timeout: float) -> Endpoint:
        if reply is None:
            raise NoPrimary(f"it does not know the name {self.name!r}", remedy="give the name that sentinel.conf monitors")
        primary = parse_address(reply, self.login)
        role = await self._role(primary, timeout)
        if role[0] != b"master":
            raise NoPrimary(
                f"it names {primary.address}, which says that it is a {text_of(role[0])}", remedy="a failover is under way: ask again"
            )
        return primary

    async def _linked(self, reply: Value, timeout: float) -> tuple[Endpoint, ...]:
        listed = parse_replicas(reply, self.login)
        roles = await asyncio.gather(*[self._role(replica, timeout) for replica in listed], return_exceptions=True)
        return tuple(
            replica
            for replica, role in zip(listed, roles, strict=True)
            if isinstance(role, list) and role[0] == b"slave" and role[3] == b"connected"
        )

    async def _role(self, node: Endpoint, timeout: float) -> list[Value]:
        async with await Connection.open(node, timeout, source_address=self.source) as connection:
            role: list[Value] = await connection.call("ROLE")
            return role

    async def _opinion(self, sentinel: Endpoint, timeout: float) -> tuple[int, Endpoint]:
        """(epoch of its configuration, who the primary is)."""
        async with asyncio.timeout(timeout), await Connection.open(sentinel, timeout, source_address=self.source) as connection:
            address, about = await connection.pipeline(
                [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name), ("SENTINEL", "MASTER", self.name)]
            )
        if isinstance(address, ServerError):
            raise address
        if address is None or isinstance(about, ServerError):
            raise NoPrimary(f"{sentinel.address} does not know the name {self.name!r}", remedy="give the name that sentinel.conf monitors")
        epoch = _fields(about).get("config-epoch", "")
        return int(epoch) if epoch.isdigit() else 0, parse_address(address, self.login)

    async def _listen(self, sentinel: Endpoint, told: asyncio.Queue[Switch | Attempt]) -> None:
        channels = [_SWITCH, _BEGUN, *_GIVEN_UP]
        while True:
            try:
                async with await Subscription.open(sentinel, channels, source_address=self.source) as messages:
                    async with await Connection.open(sentinel, source_address=self.source) as connection:
                        reply = await connection.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
                    if reply is not None:
                        told.put_nowait(Switch(sentinel, parse_address(reply, self.login)))
                    async for message in messages:
                        channel = text_of(message.channel)
                        if channel == _SWITCH:
                            name, old, new = parse_switch(message.payload, self.login)
                            if name == self.name:
                                told.put_nowait(Switch(sentinel, new, old))
                        elif parse_attempt(message.payload) == self.name:
                            told.put_nowait(Attempt(sentinel, channel == _BEGUN))
            except ValkeepError:
                await asyncio.sleep(_AGAIN_SECONDS)


def parse_address(reply: Value, login: Endpoint) -> Endpoint:
    """``[host, port]`` as sentinels and ROLE write it."""
    match reply:
        case [bytes(host), bytes(port)] if host and port.isdigit():
            return replace(login, host=text_of(host), port=int(port))
    raise RemoteProtocolError(f"{text_of(reply)[:80]!r} is no address", remedy="is the peer a sentinel?")


def parse_replicas(reply: Value, login: Endpoint) -> tuple[Endpoint, ...]:
    """The replicas of ``SENTINEL REPLICAS`` that this sentinel does not believe to be down."""
    if not isinstance(reply, list):
        raise RemoteProtocolError(f"{text_of(reply)[:80]!r} is no list of replicas", remedy="is the peer a sentinel?")
    listed = [_pairs(entry) for entry in reply]
    return tuple(
        replace(login, host=fields["ip"], port=int(fields["port"]))
        for fields in listed
        if not _DOWN & set(fields.get("flags", "").split(","))
    )


def parse_switch(payload: bytes, login: Endpoint) -> tuple[str, Endpoint, Endpoint]:
    """``name old-host old-port new-host new-port`` of a ``+switch-master``: (name, old, new)."""
    words = text_of(payload).split(" ")
    if len(words) != 5 or not (words[2].isdigit() and words[4].isdigit()):
        raise RemoteProtocolError(f"{text_of(payload)[:120]!r} is no +switch-master", remedy="is the peer a sentinel?")
    return words[0], replace(login, host=words[1], port=int(words[2])), replace(login, host=words[3], port=int(words[4]))


def parse_attempt(payload: bytes) -> str:
    """The primary's name in what sentinels say of a failover: ``master name host port``, or ``slave … @ name host port``; "" where there is none."""
    words = text_of(payload).split(" ")
    if words[0] == "master" and len(words) > 1:
        return words[1]
    return words[words.index("@") + 1] if "@" in words[:-1] else ""


def _fields(entry: Value) -> dict[str, str]:
    items = [text_of(item) for item in entry] if isinstance(entry, list) else []
    return dict(zip(items[::2], items[1::2], strict=False))


def _pairs(entry: Value) -> dict[str, str]:
    fields = _fields(entry)
    if not fields.get("ip") or not fields.get("port", "").isdigit():
        raise RemoteProtocolError(f"{text_of(entry)[:80]!r} is no replica of a sentinel's list", remedy="is the peer a sentinel?")
    return fields
