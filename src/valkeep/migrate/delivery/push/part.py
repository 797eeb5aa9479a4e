"""One server of the target that is written to, the target itself or one shard of a cluster, and what of a stream it gets.

A `Part` is the server: its door and its setting. A `Strand` is what one source gives it: a link, and a marker that says how far it is. Where the source is a
cluster, each of its shards has a strand to each part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from valkeep.client.connection import Connection
from valkeep.client.server_info import parse_info, server_info, text_of
from valkeep.errors import ConnectionLost, Refused, ServerError
from valkeep.migrate import marker
from valkeep.migrate.delivery.push import expiry
from valkeep.migrate.delivery.push.batches import Cut, Whole
from valkeep.migrate.delivery.push.door import NAME, PAUSE_SECONDS, Door
from valkeep.migrate.delivery.push.refusals import DOWN_SECONDS, is_down, lost, refused
from valkeep.migrate.delivery.push.sharded import Share
from valkeep.migrate.delivery.push.stream import PushLink

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.migrate.delivery.target import TargetFound
    from valkeep.migrate.gateway.channel import Channel
    from valkeep.migrate.gateway.gateway import Gateway

__all__ = ["Part", "Strand", "parts_of"]

Done = TypeVar("Done")


class Part:
    """``ranges``: of the slots of a shard; empty: this is the whole target. ``first``: of several. ``before``: settings that were going to be changed.
    ``keeps``: nothing expires there meanwhile."""

    def __init__(self, endpoint: Endpoint, run_id: str, ranges: tuple[tuple[int, int], ...] = (), *, first: bool = True) -> None:
        self.door = Door(endpoint, run_id)
        self.before: dict[str, str] = {}
        self.keeps = False
        self.ranges = ranges
        self.first = first
        self._connection: Connection | None = None

    @property
    def address(self) -> str:
        return self.door.target.address

    async def at(self, work: Callable[[Connection], Awaitable[Done]]) -> Done:
        """What may be asked twice; again when the connection breaks, or while another node of the cluster is away."""
        loop = asyncio.get_running_loop()
        until = loop.time() + DOWN_SECONDS
        while True:
            if self._connection is None or self._connection.closed:
                self._connection = await self.door.reopen()
            try:
                return await work(self._connection)
            except ConnectionLost as error:
                if not error.passing:
                    raise
            except ServerError as error:
                if not is_down(error) or loop.time() > until:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)

    async def run_id(self) -> str:
        return (await self.at(server_info)).run_id

    async def look(self) -> None:
        import_mode = await self.at(expiry.found)
        self.before = {expiry.SETTING: import_mode} if import_mode else {}

    async def forbid_expiry(self) -> None:
        """Nothing is to expire there; where it does not let us, ``before`` is empty again."""
        if self.before:
            self.keeps = self.door.import_source = await self.at(lambda target: expiry.forbid(target, self.before))
            if not self.keeps:
                self.before = {}

    async def wipe(self) -> None:
        try:
            await self.at(lambda target: target.call("FLUSHALL", timeout=0))
            await self.at(lambda target: target.call("FUNCTION", "FLUSH", timeout=0))
        except ServerError as error:
            raise refused(self.address, [b"FLUSHALL"], error, "--wipe-target") from error

    async def end_others(self) -> None:
        """End the connections of a delivery that was killed: what it had sent may still be executed."""

        async def end(target: Connection) -> None:
            for one in text_of(await target.call("CLIENT", "LIST")).splitlines():
                fields = dict(field.partition("=")[::2] for field in one.split())
                if fields.get("name") == NAME and fields["id"] != str(await target.call("CLIENT", "ID")):
                    try:
                        await target.call("CLIENT", "KILL", "ID", fields["id"])
                    except ServerError:  # it is gone already
                        continue

        await self.at(end)

    async def expect_primary(self) -> None:
        info = parse_info(await self.at(lambda target: target.call("INFO", "replication")))
        if info.get("role") != "master":
            raise lost(self.address, f"is a replica of {info.get('master_host')}:{info.get('master_port')} now")

    async def finish(self, markers: Sequence[bytes]) -> str:
        """The markers away and the setting put back; what could not be put back, or "". Twice is as good as once."""
        commands: list[tuple[str | bytes | int, ...]] = [("SELECT", marker.DATABASE), *(("DEL", key) for key in markers)]
        commands += [("CONFIG", "SET", name, value) for name, value in self.before.items()]
        _, *answers = await self.at(lambda target: target.execute(commands))
        for key, gone in zip(markers, answers, strict=False):
            if isinstance(gone, ServerError):
                raise refused(self.address, [b"DEL", key], gone, "the promotion")
        return next((answer.message for answer in answers[len(markers) :] if isinstance(answer, ServerError)), "")

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()


class Strand:
    """``lane``: which of several sources it is of, "" for the only one. ``key``: of its marker. ``link``: carries the stream, once it is made."""

    def __init__(self, part: Part, lane: str = "") -> None:
        self.part = part
        self.key = marker.key_in(part.ranges[0][0], lane) if part.ranges else marker.KEY
        self.link: PushLink | None = None

    def owned(self, territory: bytes = b"") -> bytes:
        """See `SnapshotLoad`. ``territory``: the slots of the source's shard, in the same form; empty: all."""
        if not self.part.ranges:
            return b""
        ours = self._share("").owned
        return bytes(map(min, ours, territory)) if territory else ours

    def linked(self, gateway: Gateway, channel: Channel) -> PushLink:
        cut: Cut = self._share(channel.replid) if self.part.ranges else Whole(channel.replid)
        self.link = PushLink(gateway, channel, self.part.door, renewals=not self.part.keeps, cut=cut)
        return self.link

    def _share(self, replid: str) -> Share:
        return Share(replid, self.part.ranges, self.key, first=self.part.first)

    async def marker(self) -> bytes | None:
        try:
            return await self.part.at(lambda target: marker.read(target, self.key))
        except ServerError as error:
            raise refused(self.part.address, [b"GET", self.key], error, "the marker") from error

    async def confirm(self) -> None:
        """Make sure that this very server has what the link says, by its marker. Raises ``Refused`` or ``ConnectionLost``."""
        assert self.link is not None
        await self.part.expect_primary()
        expected = self.link.marked  # before the look: the stream goes on meanwhile
        value = await self.marker()
        if value != expected.value:
            found = None if value is None else marker.Marker.parse(value)
            if found is None or found.replid != expected.replid or found.offset < expected.offset:
                raise Refused(
                    f"the target {self.part.address} has {value!r} as {self.key.decode()}, and {expected.value!r} was written",
                    remedy="somebody else writes to the target: find who (CLIENT LIST), stop them, then start again with --wipe-target",
                    code="VK-PUSH-MARKER",
                )


def parts_of(target: Endpoint, found: TargetFound) -> tuple[Part, ...]:
    if not found.shards:
        return (Part(target, found.info.run_id),)
    return tuple(Part(one.endpoint, one.run_id, one.ranges, first=number == 0) for number, one in enumerate(found.shards))
