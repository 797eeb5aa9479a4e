"""The end state of the writers' keys, read by ordinary commands: what the checkers compare a history with.

No decoder of ours is in this path: GET, LRANGE, XRANGE, SMEMBERS and PEXPIRETIME as any client would send them, in one pipeline per
database, while no writer is at work. Which keys there are comes from the writers, so a key that should be there and is not is seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from valkeep.client.connection import Connection, Value
from valkeep.client.endpoint import Endpoint
from valkeep.drill.checkers.expiry import ABSENT, PERSISTENT
from valkeep.drill.checkers.sequences import pack_id
from valkeep.drill.checkers.transactions import Group
from valkeep.drill.history import Datum
from valkeep.drill.rehearsal.operations import split
from valkeep.errors import ServerError

__all__ = ["EndState", "read_end_state"]

Command = tuple[bytes | int, ...]


@dataclass(slots=True)
class EndState:
    """Keyed as the history keys them (``database|key``). ``expiries``: absolute ms, -1 without a TTL, -2 without the key."""

    registers: dict[bytes, Datum] = field(default_factory=dict)
    counters: dict[bytes, Datum] = field(default_factory=dict)
    lists: dict[bytes, list[Datum]] = field(default_factory=dict)
    streams: dict[bytes, list[tuple[int, Datum]]] = field(default_factory=dict)
    pools: dict[bytes, set[Datum]] = field(default_factory=dict)
    groups: dict[bytes, Group] = field(default_factory=dict)
    expiries: dict[bytes, int] = field(default_factory=dict)


def _number(value: Value) -> Datum:
    """Numbers as numbers; anything else as its bytes, so that a changed value is seen as one. Errors as their text."""
    if isinstance(value, ServerError):
        return value.message.encode()
    if isinstance(value, bytes):
        return int(value) if value.lstrip(b"-").isdigit() else value
    return None if value is None else repr(value).encode()


def _numbers(value: Value) -> list[Datum]:
    return [_number(item) for item in value] if isinstance(value, list) else []


def _commands(function: str, key: bytes, *, absolute: bool) -> list[Command]:
    match function:
        case "set" | "incr":
            return [(b"GET", key)]
        case "rpush":
            return [(b"LRANGE", key, 0, -1)]
        case "xadd":
            return [(b"XRANGE", key, b"-", b"+")]
        case "spop":
            return [(b"SMEMBERS", key)]
        case "multi":
            return [(b"GET", key + b":a"), (b"GET", key + b":b"), (b"LRANGE", key + b":l", 0, -1)]
        case _:
            return [(b"PEXPIRETIME" if absolute else b"PTTL", key)]


async def read_end_state(endpoint: Endpoint, keys: dict[str, list[bytes]], *, now_ms: int) -> EndState:
    """``keys``: function → the keys that it was ever called for. ``now_ms``: wall clock, for servers before 7.0, which have PTTL but not PEXPIRETIME."""
    state = EndState()
    databases = sorted({split(key)[0] for listed in keys.values() for key in listed})
    for database in databases:
        async with await Connection.open(replace(endpoint, db=database), timeout=20.0) as connection:
            absolute = not isinstance((await connection.pipeline([(b"PEXPIRETIME", b"no such key")]))[0], ServerError)
            wanted = [(function, key) for function, listed in keys.items() for key in listed if split(key)[0] == database]
            for at in range(0, len(wanted), 200):
                await _read(connection, wanted[at : at + 200], state, absolute=absolute, now_ms=now_ms)
    return state


async def _read(connection: Connection, wanted: Iterable[tuple[str, bytes]], state: EndState, *, absolute: bool, now_ms: int) -> None:
    listed = list(wanted)
    commands = [_commands(function, split(name)[1], absolute=absolute) for function, name in listed]
    replies = await connection.pipeline([command for block in commands for command in block])
    taken = 0
    for (function, name), block in zip(listed, commands, strict=True):
        answer = replies[taken : taken + len(block)]
        taken += len(block)
        match function:
            case "set":
                state.registers[name] = _number(answer[0])
            case "incr":
                state.counters[name] = _number(answer[0])
            case "rpush":
                state.lists[name] = _numbers(answer[0])
            case "xadd":
                entries = answer[0] if isinstance(answer[0], list) else []
                state.streams[name] = [(pack_id(identifier), _number(fields[1])) for identifier, fields in entries]
            case "spop":
                state.pools[name] = set(_numbers(answer[0]))
            case "multi":
                state.groups[name] = Group(_number(answer[0]), _number(answer[1]), _numbers(answer[2]))
            case "expire":
                ms = answer[0] if isinstance(answer[0], int) else ABSENT
                state.expiries[name] = ms if absolute or ms in (ABSENT, PERSISTENT) else ms + now_ms
