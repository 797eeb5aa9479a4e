"""What was left after the load: read from the primaries by ordinary commands, whoever wrote it.

Lists, sets and streams are read in pieces, so that no reply is larger than a server or this process likes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from valkeep.client.connection import Connection
from valkeep.drill.checkers.evidence import FinalState, FinalStream
from valkeep.drill.checkers.sequences import pack_id
from valkeep.drill.workloads import keys
from valkeep.drill.workloads.targets import Targets
from valkeep.errors import ServerError, ValkeepError
from valkeep.topology.slots import key_slot
from valkeep.topology.spec import Kind, TopologySpec

__all__ = ["read_final"]

PIECE: Final = 20_000  # elements in one reply


async def read_final(connections: Mapping[int, Connection], spec: TopologySpec, targets: Targets) -> FinalState:
    """``connections``: shard → its primary. A slot that moved is read where it is now, if that is one of these. Raises ``ValkeepError``
    when a primary does not answer, or refuses."""
    final = FinalState({}, {}, {}, {}, {}, {})
    for tag in targets.tags:
        connection = await _owner(connections, spec, tag)
        await _read_tag(connection, tag, final)
    return final


async def _owner(connections: Mapping[int, Connection], spec: TopologySpec, tag: bytes) -> Connection:
    if spec.kind is not Kind.CLUSTER:
        return next(iter(connections.values()))
    slot = key_slot(tag)
    shard = spec.shard_of_slot(slot)
    try:
        await connections[shard].call("EXISTS", keys.journal(tag))
    except ServerError as error:
        if error.kind != "MOVED":
            raise
        address = error.text.partition(" ")[2]
        for connection in connections.values():
            if connection.endpoint.address == address:
                return connection
        raise ValkeepError(
            f"slot {slot} is at {address}, which is no primary that was named", remedy="has the topology settled?"
        ) from error
    return connections[shard]


async def _read_tag(connection: Connection, tag: bytes, final: FinalState) -> None:
    pair = keys.pair(tag)
    single = [keys.counter(tag), pair + b":a", pair + b":b", *(keys.register(tag, number) for number in range(keys.REGISTERS))]
    values = [None if value is None else int(value) for value in await _all(connection, [(b"GET", key) for key in single])]
    counter, left, right = values[:3]
    _put(final.counters, keys.counter(tag), counter)
    _put(final.pairs, pair, (left, right) if left is not None or right is not None else None)
    for key, value in zip(single[3:], values[3:], strict=True):
        _put(final.registers, key, value)
    _put(final.journals, keys.journal(tag), await _list(connection, keys.journal(tag)))
    _put(final.sets, keys.uniques(tag), await _set(connection, keys.uniques(tag)))
    _put(final.streams, keys.stream(tag), await _stream(connection, keys.stream(tag)))


def _put(found: Any, key: bytes, value: object) -> None:
    """The mappings of a `FinalState` are read-only for its readers; here they are made."""
    if value is not None and value != [] and value != set():
        found[key] = value


async def _all(connection: Connection, commands: Sequence[tuple[bytes | int, ...]]) -> list[Any]:
    replies = await connection.pipeline(commands)
    for reply in replies:
        if isinstance(reply, ServerError):
            raise reply
    return replies


async def _list(connection: Connection, key: bytes) -> list[int]:
    found: list[int] = []
    while piece := await connection.call(b"LRANGE", key, len(found), len(found) + PIECE - 1):
        found += map(int, piece)
        if len(piece) < PIECE:
            break
    return found


async def _set(connection: Connection, key: bytes) -> set[int]:
    found: set[int] = set()
    cursor = b"0"
    while True:
        cursor, piece = await connection.call(b"SSCAN", key, cursor, b"COUNT", PIECE)
        found.update(map(int, piece))
        if cursor == b"0":
            return found


async def _stream(connection: Connection, key: bytes) -> FinalStream | None:
    """None when there is no stream. Entries have one field, whose value is the element."""
    elements: dict[bytes, int] = {}
    start = b"-"
    while piece := await connection.call(b"XRANGE", key, start, b"+", b"COUNT", PIECE):
        elements |= {identifier: int(fields[1]) for identifier, fields in piece}
        start = b"(" + piece[-1][0]
    groups = [dict(zip(group[::2], group[1::2], strict=True)) for group in await _groups(connection, key)]
    mine = next((group for group in groups if group[b"name"] == keys.GROUP), None)
    if mine is None:
        return FinalStream(list(elements.values()), frozenset(), frozenset(elements.values())) if elements else None
    pending: set[int] = set()
    start = b"-"
    while piece := await connection.call(b"XPENDING", key, keys.GROUP, start, b"+", PIECE):
        pending |= {elements[identifier] for identifier, *_ in piece if identifier in elements}
        start = b"(" + piece[-1][0]
    last = pack_id(mine[b"last-delivered-id"])
    undelivered = frozenset(element for identifier, element in elements.items() if pack_id(identifier) > last)
    return FinalStream(list(elements.values()), frozenset(pending), undelivered)


async def _groups(connection: Connection, key: bytes) -> Sequence[Any]:
    try:
        found: Sequence[Any] = await connection.call(b"XINFO", b"GROUPS", key)
    except ServerError as error:
        if "no such key" in error.text:
            return ()
        raise
    return found
