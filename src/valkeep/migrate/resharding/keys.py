"""Which keys a server has in a slot. ``CLUSTER GETKEYSINSLOT`` has no cursor: it gives as many names as it is asked for, and blocks the server that long (a
million names: some 0.2 s). So it is asked how many there are first, and again where more have come since.

Memory: the names of the slots that are asked for together (`portions`), or of one slot where that alone has more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from valkeep.errors import ConnectionLost, Refused, ServerError

if TYPE_CHECKING:
    from valkeep.client.connection import Connection

__all__ = ["counted", "heavy", "listed", "portions"]

AT_ONCE: Final = 50_000  # keys
SPARE: Final = 100  # names more than there were
SECONDS: Final = 60.0
_SLOTS: Final = 500  # in one pipeline

One = TypeVar("One")


async def counted(server: Connection, slots: Sequence[int]) -> dict[int, int]:
    """Slot → keys there. Raises ``Refused`` where this user may not ask, and ``ConnectionLost``."""
    found: dict[int, int] = {}
    for at in range(0, len(slots), _SLOTS):
        some = slots[at : at + _SLOTS]
        replies = await server.pipeline([("CLUSTER", "COUNTKEYSINSLOT", slot) for slot in some], SECONDS)
        found.update((slot, int(_said(server, "COUNTKEYSINSLOT", reply))) for slot, reply in zip(some, replies, strict=True))
    return found


async def listed(server: Connection, slots: Sequence[int]) -> dict[int, set[bytes]]:
    """Slot → names of its keys, of the slots that have some. Raises as `counted` does."""
    left = {slot: count for slot, count in (await counted(server, slots)).items() if count}
    found: dict[int, set[bytes]] = {}
    while left:
        some = list(left.items())[:_SLOTS]
        replies = await server.pipeline([("CLUSTER", "GETKEYSINSLOT", slot, count + SPARE) for slot, count in some], SECONDS)
        for (slot, count), reply in zip(some, replies, strict=True):
            names = _said(server, "GETKEYSINSLOT", reply)
            if len(names) < count + SPARE:
                found[slot] = set(names)
                del left[slot]
            else:
                left[slot] = 2 * count + SPARE
    return found


def portions(weights: Iterable[tuple[One, int]], most: int) -> Iterator[list[One]]:
    """Groups of at most ``most`` together, or of one that is heavier."""
    some: list[One] = []
    total = 0
    for one, weight in weights:
        if some and total + weight > most:
            yield some
            some, total = [], 0
        some.append(one)
        total += weight
    if some:
        yield some


async def heavy(server: Connection, keys: Iterable[bytes]) -> list[int]:
    """About how many bytes each takes there; 0 where that is not said."""
    replies = await server.pipeline([("MEMORY", "USAGE", key) for key in keys], SECONDS)
    return [reply if isinstance(reply, int) else 0 for reply in replies]


def _said(server: Connection, word: str, reply: Any) -> Any:
    if isinstance(reply, ServerError):
        if reply.kind != "NOPERM":
            raise ConnectionLost(
                f"{server.endpoint.address} does not say which keys a slot has: {reply.message}", remedy="it is asked again"
            )
        raise Refused(
            f"{server.endpoint.address} does not say which keys a slot has: {reply.message}",
            remedy=f"permit CLUSTER {word} to this user (ACL SETUSER … +cluster|{word.lower()})",
        )
    return reply
