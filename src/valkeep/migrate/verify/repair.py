"""Copying differing keys again: DUMP on the source, the payload re-encoded for the target, RESTORE there; DEL what should not be.

Where the target hangs off a gateway it is a replica and takes no writes; then ``recopy`` asks the gateway for each key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from valkeep.client.connection import Argument, Connection
from valkeep.client.server_info import ServerInfo
from valkeep.errors import Refused, ServerError
from valkeep.migrate.transform.target import TargetFormat
from valkeep.migrate.verify.look import Eye
from valkeep.migrate.verify.written import Key
from valkeep.wire.rdb.convert import DROP_FIELD, KEEP_FIELD, TO_HASH_2, reencode_payload

__all__ = ["Repair"]

_MODES = {"keep-field": KEEP_FIELD, "drop-field": DROP_FIELD}


class Repair:
    """``copy(keys)`` makes the target's keys those of the source, as they are now."""

    def __init__(
        self,
        source: Connection,
        target: Connection,
        target_info: ServerInfo,
        mode: str,
        recopy: Callable[[int, bytes], Awaitable[None]] | None,
    ) -> None:
        self._source = source
        self._target = target
        self._recopy = recopy
        self._mode = _MODES.get(mode, TO_HASH_2)
        self._info = target_info
        self._format = TargetFormat(target_info.version) if target_info.kind == "valkey" else None

    async def copy(self, keys: list[Key]) -> None:
        """Raises ``Refused`` when the target takes no writes and nobody copies for us."""
        if self._recopy is not None:
            for database, key in keys:
                await self._recopy(database, key)
            return
        if self._info.role == "replica":
            raise Refused(
                f"{self._target.endpoint.address} is a replica: repairs have to come through its primary",
                remedy="repair through the gateway (valkeep migrate run), or after the cut-over",
            )
        eye = await Eye.open(self._source)
        for part in await eye.parts(keys):
            await self._restore(part, (await eye.look(part)).seen)

    async def _restore(self, keys: list[Key], seen: list[Any]) -> None:
        commands: list[tuple[Argument, ...]] = []
        for (database, key), one in zip(keys, seen, strict=True):
            commands.append(("SELECT", database))
            payload = b"" if one is None else self._payload(one.payload)
            if not payload:
                commands.append(("DEL", key))
            else:
                commands.append(("RESTORE", key, max(one.expire_ms, 0), payload, "REPLACE", "ABSTTL"))
        for command, reply in zip(commands, await self._target.pipeline(commands, 60.0), strict=True):
            if isinstance(reply, ServerError):
                raise Refused(
                    f"{self._target.endpoint.address} refused {command[0]!s} during the repair: {reply.message}", remedy=reply.remedy
                )

    def _payload(self, payload: bytes) -> bytes:
        if self._format is None:
            return payload
        return reencode_payload(payload, self._format.dialect, self._format.rdb_version, self._mode).payload
