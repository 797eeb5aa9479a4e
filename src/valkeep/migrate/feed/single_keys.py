"""Single keys of the source, each as it was at a known offset.

What makes the offset exact: ``MULTI; DUMP k; PEXPIRETIME k; INFO replication; EXEC`` runs as one on the source, so the value is that of offset O, whatever is
written before and after.

A **shard of a cluster** takes keys of one slot in a transaction, so there is one for each slot. What has gone to another shard (``MOVED``, ``ASK``, or
``TRYAGAIN`` where some of several have) is not there any more: no value, at an offset that was read between two such answers. That only a primary may
say: one that has become a replica sends everybody away, and its keys are where they were.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from valkeep.client.server_info import parse_info
from valkeep.errors import ConnectionLost, Refused, ServerError
from valkeep.migrate.keyread import TRIES
from valkeep.migrate.transform.copies import Copy
from valkeep.topology.slots import key_slot
from valkeep.wire.commands import Place

if TYPE_CHECKING:
    from valkeep.client.connection import Connection
    from valkeep.migrate.keyread import KeyRead

__all__ = ["ReadAt", "single_keys"]

COPY_TIMEOUT: Final = 60.0
_ELSEWHERE: Final = frozenset({"MOVED", "ASK"})
_LATER: Final = frozenset({"CLUSTERDOWN", "TRYAGAIN", "LOADING", "MASTERDOWN"})


class ReadAt(NamedTuple):
    """Copies of one offset, of the history ``replid`` ("" where the server does not say)."""

    replid: str
    offset: int
    copies: tuple[Copy, ...]


async def single_keys(connection: Connection, read: KeyRead, places: Sequence[Place], *, shard: bool) -> list[ReadAt]:
    """Read them; in their order but for databases and slots. ``shard``: the server is one of a cluster. Raises ``Refused`` where it does not let us, and
    ``ConnectionLost`` where it may later."""
    found: list[ReadAt] = []
    for database in sorted({place[0] for place in places}):
        keys = [key for at, key in places if at == database]
        try:
            await connection.call("SELECT", database)
        except ServerError as error:
            raise _denied(error) from None
        groups = _by_slot(keys) if shard else [keys]
        answers = await asyncio.gather(*[_together(connection, read, database, some, shard) for some in groups], return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            found += answer
    return found


def _by_slot(keys: Sequence[bytes]) -> list[list[bytes]]:
    groups: dict[int, list[bytes]] = {}
    for key in keys:
        groups.setdefault(key_slot(key), []).append(key)
    return list(groups.values())


async def _together(connection: Connection, read: KeyRead, database: int, keys: Sequence[bytes], shard: bool) -> list[ReadAt]:
    """All of them at one offset; of a shard that has not all of them any more, each at its own."""
    commands = [command for key in keys for command in read.commands(key)]
    try:
        for _ in range(TRIES):
            *replies, said = await connection.execute([*commands, ("INFO", "replication")], timeout=COPY_TIMEOUT)
            seen = [read.seen(replies[at : at + read.width]) for at in range(0, len(replies), read.width)]
            if isinstance(said, ServerError):
                raise said
            if not any(one is not None and one.unsure for one in seen):
                break
    except ServerError as error:
        if shard and len(keys) > 1 and error.kind in _ELSEWHERE | _LATER:
            return [one for key in keys for one in await _together(connection, read, database, [key], shard)]
        if shard and error.kind in _ELSEWHERE:
            return [await _gone(connection, database, keys[0])]
        if shard and error.kind in _LATER:
            raise ConnectionLost(f"the source does not give a key now: {error.message}", remedy="it is read again by itself") from None
        raise _denied(error) from None
    info = parse_info(said)
    offset = int(info.get("master_repl_offset", "0"))
    copies = [
        Copy(database, key, offset, one.payload, one.expire_ms) if one else Copy(database, key, offset, None)
        for key, one in zip(keys, seen, strict=True)
    ]
    return [ReadAt(info.get("master_replid", ""), offset, tuple(copies))]


async def _gone(connection: Connection, database: int, key: bytes) -> ReadAt:
    """A key that is another shard's now."""
    before, said, after = await connection.pipeline([("DUMP", key), ("INFO", "replication"), ("DUMP", key)], COPY_TIMEOUT)
    info = parse_info(said) if isinstance(said, bytes) else {}
    elsewhere = all(isinstance(reply, ServerError) and reply.kind in _ELSEWHERE for reply in (before, after))
    if not elsewhere or info.get("role") != "master":
        raise ConnectionLost(
            f"the shard is just losing or getting key {key[:60]!r}, or has become a replica", remedy="the key is read again by itself"
        )
    offset = int(info.get("master_repl_offset", "0"))
    return ReadAt(info.get("master_replid", ""), offset, (Copy(database, key, offset, None),))


def _denied(error: ServerError) -> Refused:
    return Refused(
        f"the source does not let us copy a key again: {error.message}",
        remedy="permit SELECT, DUMP, PEXPIRETIME, PTTL, TIME, INFO and MULTI to this user",
        code="VK-COPY-DENIED",
    )
