"""Copying differing keys again: DUMP on the source, the payload re-encoded for the target, RESTORE there; DEL what should not be.

Where the target hangs off a gateway it is a replica and takes no writes; then ``recopy`` asks the gateway for each key.

A copy proves nothing: each key is looked at again afterwards, and what was not repaired differs still.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from valkeep.client.connection import Argument, Connection
from valkeep.client.endpoint import Endpoint
from valkeep.errors import Refused, ServerError, ValkeepError
from valkeep.migrate.keyread import Seen
from valkeep.migrate.transform.target import TargetFormat
from valkeep.migrate.verify.eyes import Eyes
from valkeep.migrate.verify.follow import Follower
from valkeep.migrate.verify.found import Found
from valkeep.migrate.verify.look import Eye, cannot_select
from valkeep.migrate.verify.mode import Mode
from valkeep.migrate.verify.settle import Settler
from valkeep.migrate.verify.shards import Shards
from valkeep.migrate.verify.source_side import Unfollowed
from valkeep.migrate.verify.written import Key
from valkeep.wire.rdb.convert import DROP_FIELD, KEEP_FIELD, TO_HASH_2, reencode_payload

__all__ = ["Recopy", "Repair"]

BATCH = 200  # keys that are copied, then looked at

Recopy = Callable[[int, bytes], Awaitable[None]]
"""``await recopy(database, key)``: the gateway copies that key again; returns when the target has it, or the barrier covers it."""

_MODES = {Mode.EXACT: TO_HASH_2, Mode.KEEP_FIELD: KEEP_FIELD, Mode.DROP_FIELD: DROP_FIELD}


class Repair:
    """``copy(keys)`` makes the target's keys those of the source, as they are now; ``mend`` does so with keys that were found to differ. ``close`` it.
    ``mended``: keys that did not differ any more when they were looked at again."""

    def __init__(self, source: Eye | Eyes, target: Shards, mode: Mode, recopy: Recopy | None) -> None:
        target_info = target.oldest
        self._source = source
        self._target = target
        self._recopy = recopy
        self._mode = _MODES[mode]
        self._replica = target_info.role == "replica"
        self._format = TargetFormat(target_info.version) if target_info.kind == "valkey" else None
        self._connections: dict[Endpoint, Connection] = {}  # of our own: they go from database to database
        self._changed = False
        self.mended = 0

    async def close(self) -> None:
        for connection in self._connections.values():
            await connection.close()

    async def mend(self, found: Found, follower: Follower | Unfollowed, settler: Settler, wanted: set[Key] | None) -> None:
        """Copy what was found to differ (``wanted``: of it only these keys) and look at it again. What it does not come to when it fails is debt."""
        names = found.take()
        batch: list[Key] = []
        try:
            for kind, database, key in names:
                if wanted is not None and (database, key) not in wanted:
                    found.add(kind, database, key)
                    continue
                batch.append((database, key))
                if len(batch) >= BATCH:
                    keys, batch = batch, []
                    await self._again(found, follower, settler, keys)
            keys, batch = batch, []
            await self._again(found, follower, settler, keys)
        except BaseException:  # what was not repaired differs still
            settler.owe(batch)
            settler.owe((database, key) for _, database, key in names)
            raise

    async def _again(self, found: Found, follower: Follower | Unfollowed, settler: Settler, keys: list[Key]) -> None:
        before = len(found)
        try:
            await self.copy(keys)
            # the look must not wait for less than the copies, which stand behind everything that was written before they were read
            await follower.tracked(await self._source.offset())
        except BaseException:
            settler.owe(keys)
            raise
        await settler.look(keys)
        self.mended += sum(key not in settler.debt for key in keys) - (len(found) - before)

    async def copy(self, keys: Sequence[Key]) -> None:
        """Raises ``Refused`` when the target takes no writes and nobody copies for us; definite when it has not taken any."""
        if self._recopy is not None:
            for database, key in keys:
                await self._recopy(database, key)
            return
        if self._replica:
            raise Refused(
                f"{self._target.first.endpoint.address} is a replica: repairs have to come through its primary",
                remedy="repair through the gateway (valkeep migrate run), or after the cut-over",
            )
        for part in await self._source.parts(keys):
            seen = dict(zip(part, (await self._source.look(part)).seen, strict=True))
            places = {(database, self._target.owner(key)) for database, key in part}
            for database, owner in sorted(places, key=lambda place: (place[0], place[1].address)):
                chosen = {key: one for (place, key), one in seen.items() if (place, self._target.owner(key)) == (database, owner)}
                await self._write(owner, database, chosen)

    async def _write(self, owner: Endpoint, database: int, seen: dict[bytes, Seen | None]) -> None:
        if (connection := self._connections.get(owner)) is None:
            connection = self._connections[owner] = await Connection.open(owner, client_name="valkeep-repair")
        try:
            await connection.call("SELECT", database)  # by itself: what follows must not land in the database before
        except ServerError as error:
            raise self._failed(cannot_select(connection, database, error)) from None
        commands: list[tuple[Argument, ...]] = []
        for key, one in seen.items():
            payload = b"" if one is None else self._payload(one.payload)
            if one is None or not payload:
                commands.append(("DEL", key))
            else:
                commands.append(("RESTORE", key, max(one.expire_ms, 0), payload, "REPLACE", "ABSTTL"))
        replies = await connection.pipeline(commands, 60.0)
        self._changed |= not all(isinstance(reply, ServerError) for reply in replies)
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, ServerError):
                text = f"{owner.address} refused {command[0]!s} during the repair: {reply.message}"
                raise self._failed(Refused(text, remedy=reply.remedy))

    def _failed(self, error: ValkeepError) -> ValkeepError:
        return error.saying(definite=not self._changed)

    def _payload(self, payload: bytes) -> bytes:
        if self._format is None:
            return payload
        return reencode_payload(payload, self._format.dialect, self._format.rdb_version, self._mode).payload
