"""Looking at keys by commands: DUMP and the expiry of a batch, on one server.

A batch is cut by what its values weigh (MEMORY USAGE), so that the payloads of one read stay within ``BUDGET`` – or are one large
value, which has to be read whole. Where MEMORY is forbidden, batches are small instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from valkeep.client.connection import Argument, Connection
from valkeep.client.server_info import ServerInfo, parse_info
from valkeep.errors import ConnectionLost, Refused, ServerError, ValkeepError
from valkeep.migrate.keyread import KeyRead, Seen, read_surely
from valkeep.migrate.verify.written import Key

__all__ = ["Eye", "Looked", "cannot_select"]

BUDGET = 16 << 20  # bytes of values in one read
BATCH = 500  # keys in one read
BLIND_BATCH = 16  # where their sizes can't be asked
TIMEOUT = 60.0  # seconds: DUMP of a large value blocks the server for a while
UNKNOWN = -1  # database: whatever the connection is in


@dataclass(frozen=True, slots=True)
class Looked:
    """What a server showed: in the order of the keys. ``now``: its clock afterwards, unix ms (0: forbidden)."""

    seen: list[Seen | None]
    now: int


class Eye:
    """Looks at one server. Nobody else may SELECT on its connection: it remembers the database that the connection is in."""

    def __init__(self, connection: Connection, info: ServerInfo) -> None:
        self._connection = connection
        self.read = KeyRead.of(info.redis_version)
        self._sizes = True
        self._database = UNKNOWN

    async def parts(self, keys: Sequence[Key]) -> list[list[Key]]:
        """The keys in parts that can be read at once."""
        sizes = await self._weights(keys)
        if sizes is None:
            return [list(keys[at : at + BLIND_BATCH]) for at in range(0, len(keys), BLIND_BATCH)]
        parts: list[list[Key]] = [[]]
        weight = 0
        for key, size in zip(keys, sizes, strict=True):
            if parts[-1] and (weight + size > BUDGET or len(parts[-1]) >= BATCH):
                parts.append([])
                weight = 0
            parts[-1].append(key)
            weight += size
        return parts if parts[-1] else []

    async def light(self, keys: Sequence[Key], limit: int) -> list[Key]:
        """Those of the keys whose values weigh at most so many bytes (all, where that can't be asked)."""
        sizes = await self._weights(keys)
        return list(keys) if sizes is None else [key for key, size in zip(keys, sizes, strict=True) if size <= limit]

    async def look(self, keys: Sequence[Key]) -> Looked:
        """Read all ``keys`` in one go. Raises ``Refused`` where that is not permitted, ``ValkeepError`` where the server can't now."""
        try:
            seen = await read_surely(self._read, keys)
        except ServerError as error:
            raise self._unseen(error) from None
        return Looked(seen, await self.clock())

    async def _read(self, keys: Sequence[Key]) -> list[Seen | None]:
        return [self.read.seen(replies) for replies in await self._by_database(keys, self._ask)]

    async def select(self, database: int) -> None:
        """For the owner of the connection, who shares it with this eye."""
        await self._by_database([(database, b"")], lambda _key: [("PING",)])

    async def clock(self) -> int:
        try:
            seconds, micros = await self._connection.call("TIME")
        except ServerError:
            return 0
        return int(seconds) * 1000 + int(micros) // 1000

    async def offset(self) -> int:
        """Its replication offset now."""
        return int(parse_info(await self._connection.call("INFO", "replication")).get("master_repl_offset", "0"))

    def _unseen(self, error: ServerError) -> ValkeepError:
        where = self._connection.endpoint.address
        if error.kind in ("NOPERM", "NOAUTH") or "unknown command" in error.text:
            return Refused(
                f"{where} does not let us look at keys again: {error.message}",
                remedy="permit DUMP and PEXPIRETIME (before 7.0: PTTL, TIME, MULTI) to this user",
            )
        if error.kind in ("MOVED", "ASK"):
            return ConnectionLost(
                f"the slots of the cluster move: {where} says {error.message}",
                remedy="verify again when they stand still (CLUSTER NODES)",
                code="VK-VERIFY-SLOTS",
            )
        return ValkeepError(f"{where} does not show its keys now: {error.message}", remedy=error.remedy)

    def _ask(self, key: bytes) -> list[tuple[Argument, ...]]:
        commands = self.read.commands(key)
        return commands if self.read.exact else [("MULTI",), *commands, ("EXEC",)]

    async def _weights(self, keys: Sequence[Key]) -> list[int] | None:
        """Bytes of the keys' values, by MEMORY USAGE; None where it is forbidden or unknown."""
        sizes: list[int] = []
        for at in range(0, len(keys), 2000):
            if not self._sizes:
                break
            for (reply,) in await self._by_database(keys[at : at + 2000], _weigh):
                if isinstance(reply, ServerError):
                    self._sizes = False
                    break
                sizes.append(reply or 0)
        return sizes if self._sizes else None

    async def _by_database(self, keys: Sequence[Key], ask: Callable[[bytes], list[tuple[Argument, ...]]]) -> list[list[Any]]:
        """The replies to ``ask(key)``, a list for each key, in their order, whatever databases they are in; of a MULTI those that EXEC gives."""
        commands: list[tuple[Argument, ...]] = []
        spans: list[tuple[int, int]] = []
        places = sorted(range(len(keys)), key=lambda place: keys[place][0])
        database, self._database = self._database, UNKNOWN  # until we know that every SELECT went well
        for place in places:
            wanted, key = keys[place]
            if wanted != database:
                commands.append(("SELECT", wanted))
                database = wanted
            asked = ask(key)
            spans.append((len(commands), len(commands) + len(asked)))
            commands.extend(asked)
        replies = await self._connection.pipeline(commands, TIMEOUT)
        for command, reply in zip(commands, replies, strict=True):
            if command[0] == "SELECT" and isinstance(reply, ServerError):
                raise cannot_select(self._connection, command[1], reply)
        self._database = database
        out: list[list[Any]] = [[]] * len(keys)
        for place, (start, end) in zip(places, spans, strict=True):
            out[place] = _executed(replies[start:end]) if commands[start][0] == "MULTI" else replies[start:end]
        return out


def cannot_select(connection: Connection, database: Argument, reply: ServerError) -> ValkeepError:
    """The error for a SELECT that the server refused."""
    where = connection.endpoint.address
    if reply.kind == "ERR" and "out of range" in reply.text:
        return Refused(
            f"{where} has no database {database!r}: {reply.message}",
            remedy="give the target as many databases as the source has (databases)",
        )
    if reply.kind == "NOPERM":
        return Refused(f"{where} does not let us SELECT database {database!r}: {reply.message}", remedy="permit SELECT to this user")
    return ValkeepError(f"{where} does not SELECT database {database!r} now: {reply.message}", remedy=reply.remedy)


def _executed(replies: list[Any]) -> list[Any]:
    """What EXEC answered; else (it was refused) the replies before it, one of which says why."""
    return replies[-1] if isinstance(replies[-1], list) else replies


def _weigh(key: bytes) -> list[tuple[Argument, ...]]:
    return [("MEMORY", "USAGE", key, "SAMPLES", 5)]
