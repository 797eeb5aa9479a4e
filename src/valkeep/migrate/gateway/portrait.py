"""The gateway as a server would look: what `face` shows is gathered here, from channels, links and what the source said, whenever somebody asks."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from valkeep.migrate.face import Aspect, Guest, Keyspace, Seen, reply
from valkeep.migrate.gateway.sink import LinkState, TargetLink

if TYPE_CHECKING:
    from valkeep.migrate.feed import Origin
    from valkeep.migrate.gateway.channel import Channel
    from valkeep.migrate.gateway.link import Link

__all__ = ["Portrait"]

STATES = {
    LinkState.WAITING: "wait_bgsave",
    LinkState.SNAPSHOT: "send_bulk",
    LinkState.LOADING: "send_bulk",
    LinkState.ONLINE: "online",
}
UNSAFE = re.compile(r"[^0-9A-Za-z.:_-]")
DATABASE = re.compile(r"keys=([0-9]+),expires=([0-9]+)(?:,avg_ttl=([0-9]+))?")


class Portrait:
    """``channels``, ``links``: the gateway's own, as they come and go. ``version``: what it presents itself as. ``address``, ``origin``: as soon as they are
    known. ``wall``: seconds since 1970."""

    def __init__(
        self,
        channels: Sequence[Channel],
        links: Sequence[Link],
        origin: Callable[[], Origin | None],
        *,
        version: str,
        databases: int,
        password: bool,
        tls: bool,
        wall: Callable[[], float] = lambda: time.time_ns() / 1e9,
    ) -> None:
        self.address = ("", 0)
        self.full_syncs = 0
        self.partial_syncs = 0
        self._channels = channels
        self._links = links
        self._origin = origin
        self._version = version
        self._databases = databases
        self._password = password
        self._tls = tls
        self._wall = wall
        self._started = wall()
        self._run_id = secrets.token_hex(20)
        self._no_replid = secrets.token_hex(20)  # before the source has begun its snapshot there is no stream
        self._guests = 0

    def guest(self) -> Guest:
        """Somebody connected."""
        self._guests += 1
        return Guest(self._guests, lambda guest, args: reply(guest, args, self.aspect()), self._wall())

    def aspect(self) -> Aspect:
        """Now. Several channels are several streams; who asks without having said its version sees the first one's offsets."""
        channel = self._channels[0] if self._channels else None
        origin = self._origin()
        said = origin.info if origin is not None else {}
        links = [link for link in self._links if isinstance(link, TargetLink)]
        guests = [link.guest for link in links if link.channel is None]
        return Aspect(
            version=self._version,
            run_id=self._run_id,
            address=self.address[0],
            port=self.address[1],
            now=self._wall(),
            started=self._started,
            databases=self._databases,
            replid=channel.replid if channel is not None else self._no_replid,
            offset=channel.ends if channel is not None else 0,
            backlog_first=channel.stream.start + 1 if channel is not None else 0,
            backlog=channel.ends - channel.stream.start if channel is not None else 0,
            loading=channel is None or not all(one.complete for one in self._channels),
            keyspaces=_keyspaces(said),
            memory=int(said.get("used_memory_dataset", "0")) if said.get("used_memory_dataset", "0").isdigit() else 0,
            replicas=tuple(_seen(link) for link in links if link.state in STATES),
            guests=guests,
            connections=self._guests,
            commands=sum(guest.commands for guest in guests),
            full_syncs=self.full_syncs,
            partial_syncs=self.partial_syncs,
            password=self._password,
            tls=self._tls,
        )


def _keyspaces(said: Mapping[str, str]) -> tuple[Keyspace, ...]:
    found = []
    for name, value in said.items():
        if name.startswith("db") and name[2:].isdigit() and (match := DATABASE.match(value)):
            keys, expires, ttl = (int(number or 0) for number in match.groups())
            found.append(Keyspace(int(name[2:]), keys, expires, ttl))
    return tuple(sorted(found, key=lambda one: one.database))


def _seen(link: TargetLink) -> Seen:
    host, _, port = link.peer.rpartition(":")
    host = UNSAFE.sub("?", host)  # it is what the replica says of itself, and stands in a line of INFO
    return Seen(host, int(port) if port.isdigit() else 0, STATES[link.state], max(link.acknowledged, 0), link.silence)
