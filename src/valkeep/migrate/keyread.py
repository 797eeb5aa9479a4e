"""One key as a server shows it to commands: DUMP, and the moment at which it expires.

PEXPIRETIME came with 7.0. Before, the moment is TIME + PTTL, asked one behind the other: within MULTI no other command comes between them, and it is right to
within `TOLERANCE`. A server that stood still just then shows it: TIME is asked once more behind PTTL. What is so unsure is read again (`TRIES`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from valkeep.client.connection import Argument
from valkeep.errors import ServerError

__all__ = ["TOLERANCE", "TRIES", "KeyRead", "Seen", "read_surely"]

Key = TypeVar("Key")

TOLERANCE = 2  # ms, of an expiry that is TIME + PTTL
TRIES = 5  # times that a key is read before an unsure expiry is taken


class Seen(NamedTuple):
    """What a server answered: DUMP's payload, expiry in unix ms (-1 none), and by how many ms the expiry may be wrong."""

    payload: bytes
    expire_ms: int
    tolerance: int = 0

    @property
    def unsure(self) -> bool:
        return self.tolerance > TOLERANCE


@dataclass(frozen=True, slots=True)
class KeyRead:
    """How to ask for a key, and what the answer says. ``exact``: the server has PEXPIRETIME."""

    exact: bool

    @classmethod
    def of(cls, redis_version: tuple[int, ...]) -> KeyRead:
        """By the Redis version that the server claims."""
        return cls(redis_version >= (7, 0))

    @property
    def width(self) -> int:
        """How many commands, and replies."""
        return 2 if self.exact else 4

    def commands(self, key: bytes) -> list[tuple[Argument, ...]]:
        """To be sent one behind the other; where not ``exact``, within MULTI."""
        if self.exact:
            return [("DUMP", key), ("PEXPIRETIME", key)]
        return [("DUMP", key), ("TIME",), ("PTTL", key), ("TIME",)]

    def seen(self, replies: Sequence[Any]) -> Seen | None:
        """None: the server has no such key. Raises the first ``ServerError`` among the replies."""
        for reply in replies:
            if isinstance(reply, ServerError):
                raise reply
        payload, expiry = replies[0], int(replies[1 if self.exact else 2])
        if payload is None or expiry == -2:  # it may have expired between the two
            return None
        if expiry < 0:
            return Seen(payload, -1)
        if self.exact:
            return Seen(payload, expiry)
        before, after = (int(seconds) * 1000 + int(micros) // 1000 for seconds, micros in (replies[1], replies[3]))
        between = abs(after - before)
        return Seen(payload, before + expiry, TOLERANCE if between < TOLERANCE else TOLERANCE + between)


async def read_surely(read: Callable[[Sequence[Key]], Awaitable[list[Seen | None]]], keys: Sequence[Key]) -> list[Seen | None]:
    """What ``read`` says of these keys; those that are unsure are read again."""
    seen = await read(keys)
    for _ in range(TRIES - 1):
        unsure = [place for place, one in enumerate(seen) if one is not None and one.unsure]
        if not unsure:
            break
        for place, one in zip(unsure, await read([keys[place] for place in unsure]), strict=True):
            seen[place] = one
    return seen
