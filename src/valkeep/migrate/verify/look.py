"""Looking at keys by commands: DUMP and the expiry of a batch, on one server.

A batch is cut by what its values weigh (MEMORY USAGE), so that the payloads of one read stay within ``BUDGET`` – or are one large
value, which has to be read whole. Where MEMORY is forbidden, batches are small instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from valkeep.client.connection import Argument, Connection
from valkeep.client.server_info import parse_info, server_info
from valkeep.errors import Refused, ServerError
from valkeep.migrate.verify.judge import Seen
from valkeep.migrate.verify.written import Key

__all__ = ["Eye", "Looked", "seen_before_7"]

BUDGET = 16 << 20  # bytes of values in one read
BATCH = 500  # keys in one read
BLIND_BATCH = 16  # where their sizes can't be asked
TIMEOUT = 60.0  # seconds: DUMP of a large value blocks the server for a while
TOLERANCE = 2  # ms, of an expiry that is TIME + PTTL


@dataclass(frozen=True, slots=True)
class Looked:
    """What a server showed: in the order of the keys. ``now``: its clock afterwards, unix ms (0: forbidden)."""

    seen: list[Seen | None]
    now: int


class Eye:
    """Looks at one server. ``exact_expiry``: it has PEXPIRETIME."""

    def __init__(self, connection: Connection, exact_expiry: bool) -> None:
        self._connection = connection
        self.exact_expiry = exact_expiry
        self._sizes = True
        self._database = 0

    @classmethod
    async def open(cls, connection: Connection) -> Eye:
        info = await server_info(connection)
        return cls(connection, info.redis_version >= (7, 0))

    async def parts(self, keys: Sequence[Key]) -> list[list[Key]]:
        """The keys in parts that can be read at once."""
        if not self._sizes:
            return [list(keys[at : at + BLIND_BATCH]) for at in range(0, len(keys), BLIND_BATCH)]
        sizes: list[int] = []
        for at in range(0, len(keys), 2000):
            replies = await self._by_database(keys[at : at + 2000], _weigh)
            for (reply,) in replies:
                if isinstance(reply, ServerError):
                    self._sizes = False
                    return await self.parts(keys)
                sizes.append(reply or 0)
        parts: list[list[Key]] = [[]]
        weight = 0
        for key, size in zip(keys, sizes, strict=True):
            if parts[-1] and (weight + size > BUDGET or len(parts[-1]) >= BATCH):
                parts.append([])
                weight = 0
            parts[-1].append(key)
            weight += size
        return parts if parts[-1] else []

    async def look(self, keys: Sequence[Key]) -> Looked:
        """Read all ``keys`` in one go. Raises ``Refused`` where DUMP is not permitted."""
        if self.exact_expiry:
            replies = await self._by_database(keys, _ask)
            seen = [_seen(payload, expiry, 0) for payload, expiry in replies]
        else:
            replies = await self._by_database(keys, _ask_before_7)
            seen = [seen_before_7(payload, executed) for payload, _, _, _, executed in replies]
        return Looked(seen, await self.clock())

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

    async def _by_database(self, keys: Sequence[Key], ask: Callable[[bytes], list[tuple[Argument, ...]]]) -> list[list[Any]]:
        """The replies to ``ask(key)``, a list for each key, in their order, whatever databases they are in."""
        commands: list[tuple[Argument, ...]] = []
        starts: list[int] = []
        places = sorted(range(len(keys)), key=lambda place: keys[place][0])
        width = 0
        for place in places:
            database, key = keys[place]
            if database != self._database:
                commands.append(("SELECT", database))
                self._database = database
            starts.append(len(commands))
            asked = ask(key)
            width = len(asked)
            commands.extend(asked)
        try:
            replies = await self._connection.pipeline(commands, TIMEOUT)
        except BaseException:
            self._database = -1
            raise
        for command, reply in zip(commands, replies, strict=True):
            if command[0] == "SELECT" and isinstance(reply, ServerError):
                raise Refused(
                    f"{self._connection.endpoint.address} has no database {command[1]!r}: {reply.message}",
                    remedy="give the target as many databases as the source has (databases)",
                )
        out: list[list[Any]] = [[]] * len(keys)
        for place, start in zip(places, starts, strict=True):
            out[place] = replies[start : start + width]
        return out


def _weigh(key: bytes) -> list[tuple[Argument, ...]]:
    return [("MEMORY", "USAGE", key, "SAMPLES", 5)]


def _ask(key: bytes) -> list[tuple[Argument, ...]]:
    return [("DUMP", key), ("PEXPIRETIME", key)]


def _ask_before_7(key: bytes) -> list[tuple[Argument, ...]]:
    return [("DUMP", key), ("MULTI",), ("TIME",), ("PTTL", key), ("EXEC",)]


def _seen(payload: Any, expiry: Any, tolerance: int) -> Seen | None:
    for reply in (payload, expiry):
        if isinstance(reply, ServerError):
            raise Refused(
                f"keys can't be looked at again: {reply.message}",
                remedy="permit DUMP and PEXPIRETIME (before 7.0: PTTL, TIME) to this user",
            )
    if payload is None or expiry == -2:
        return None
    return Seen(payload, expiry, tolerance if expiry >= 0 else 0)


def seen_before_7(payload: Any, executed: Any) -> Seen | None:
    """From the replies to DUMP and to ``MULTI; TIME; PTTL; EXEC``."""
    if isinstance(executed, ServerError) or not isinstance(executed, list):
        return _seen(payload, executed, 0)
    (seconds, micros), left = executed
    expiry = left if left < 0 else int(seconds) * 1000 + int(micros) // 1000 + left
    return _seen(payload, expiry, TOLERANCE)
