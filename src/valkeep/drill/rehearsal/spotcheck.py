"""A second opinion on the moved data, by ordinary commands: a sample of keys of every kind, read from both servers and compared.

The pipeline's own verification decodes both snapshots and compares every key. This one shares no code with it: it asks both servers
with commands that any client has (the source is fenced by then, but it still answers reads) and compares the replies. Fields with
TTLs follow the policy: under keep-field their TTLs are not compared on a target that has none, under drop-field they must be absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from valkeep.client.connection import Connection, Value
from valkeep.client.endpoint import Endpoint
from valkeep.errors import ServerError

if TYPE_CHECKING:
    from random import Random

__all__ = ["SpotCheck", "sample_keys", "spot_check"]

Command = tuple[Any, ...]

_CHUNK: Final = 250


@dataclass(frozen=True, slots=True)
class SpotCheck:
    """``differences``: "database|key: what" for each sampled key that is not equal; ``kinds``: sampled keys by type."""

    keys: int
    kinds: dict[str, int]
    differences: tuple[str, ...]


async def sample_keys(source: Endpoint, rng: Random, databases: Sequence[int], per_database: int = 800) -> dict[int, list[bytes]]:
    """Names of keys that no writer touches: every large one, and a sample of the rest by RANDOMKEY."""
    found: dict[int, list[bytes]] = {}
    for database in databases:
        async with await Connection.open(replace(source, db=database), timeout=20.0) as connection:
            replies = await connection.pipeline([(b"RANDOMKEY",)] * (per_database * 2))
            names = {name for name in replies if isinstance(name, bytes)}
            large = [b"%s:%d" % (kind, number) for kind in _LARGE for number in range(3)]
            kept = sorted(name for name in names.difference(large) if not name.startswith((b"w:", b"counter:", b"valkeep")))
            found[database] = large + rng.sample(kept, min(per_database, len(kept)))
    return found


_LARGE: Final = (
    b"big-list", b"big-set", b"big-hash", b"big-field-ttl", b"big-zset", b"big-stream", b"field-ttl", b"geo", b"bitmap", b"hyperloglog", b"stream",
)  # fmt: skip


async def spot_check(
    source: Endpoint, target: Endpoint, keys: dict[int, list[bytes]], *, field_ttl: str, target_has_field_ttl: bool
) -> SpotCheck:
    """Compare these keys. ``field_ttl``: the policy's name."""
    kinds: dict[str, int] = {}
    differences: list[str] = []
    total = 0
    for database, names in keys.items():
        async with (
            await Connection.open(replace(source, db=database), timeout=20.0) as left,
            await Connection.open(replace(target, db=database), timeout=20.0) as right,
        ):
            if total == 0:
                ours, theirs = [(await c.pipeline([(b"FUNCTION", b"LIST", b"WITHCODE")]))[0] for c in (left, right)]
                if not isinstance(ours, ServerError) and _functions(ours) != _functions(theirs):
                    differences.append("the function libraries differ")
            for at in range(0, len(names), _CHUNK):
                chunk = names[at : at + _CHUNK]
                total += len(chunk)
                strict = target_has_field_ttl or field_ttl == "refuse"
                mine = await _read(left, chunk, drop=field_ttl == "drop-field" and not target_has_field_ttl, ttls=strict)
                other = await _read(right, chunk, drop=False, ttls=strict)
                for name, one, two in zip(chunk, mine, other, strict=True):
                    kind = one[0].decode()
                    kinds[kind] = kinds.get(kind, 0) + 1
                    if one != two and not (kind == "hash" and one[2] == {} and two[0] == b"none"):
                        differences.append(f"{database}|{name.decode('utf-8', 'backslashreplace')}: {_what(one, two)}")
    return SpotCheck(total, kinds, tuple(differences))


Reading = tuple[bytes, int, Any]  # type, absolute expiry in ms, value


async def _read(connection: Connection, names: list[bytes], *, drop: bool, ttls: bool) -> list[Reading]:
    heads = await connection.pipeline([command for name in names for command in ((b"TYPE", name), (b"PEXPIRETIME", name))])
    types = [bytes(head) if isinstance(head, bytes) else b"?" for head in heads[::2]]
    commands = [_command(kind, name) for kind, name in zip(types, names, strict=True)]
    values = await connection.pipeline(commands)
    out: list[Reading] = []
    for name, kind, expiry, value in zip(names, types, heads[1::2], values, strict=True):
        expiry = expiry if isinstance(expiry, int) else 0  # before 7.0: not compared here, the verification does
        if kind == b"hash":
            value = await _hash(connection, name, value, drop=drop, ttls=ttls)
        elif kind == b"stream":
            value = await _stream(connection, name, value)
        elif kind == b"set" and isinstance(value, list):
            value = sorted(value)
        elif kind == b"zset" and isinstance(value, list):
            value = [
                (member, float(score)) for member, score in zip(value[::2], value[1::2], strict=True)
            ]  # releases print doubles differently
        out.append((kind, expiry, _plain(value)))
    return out


def _command(kind: bytes, name: bytes) -> Command:
    match kind:
        case b"string":
            return (b"GET", name)
        case b"list":
            return (b"LRANGE", name, 0, -1)
        case b"set":
            return (b"SMEMBERS", name)
        case b"hash":
            return (b"HGETALL", name)
        case b"zset":
            return (b"ZRANGE", name, 0, -1, b"WITHSCORES")
        case b"stream":
            return (b"XRANGE", name, b"-", b"+")
    return (b"EXISTS", name)


async def _hash(connection: Connection, name: bytes, value: Value, *, drop: bool, ttls: bool) -> dict[Any, Any]:
    fields = dict(zip(value[::2], value[1::2], strict=True))
    if not (drop or ttls) or not name.startswith((b"field-ttl", b"big-field-ttl")) or not fields:
        return fields
    (expiries,) = await connection.pipeline([(b"HPEXPIRETIME", name, b"FIELDS", len(fields), *fields)])
    if isinstance(expiries, ServerError):
        expiries = [-1] * len(fields)  # a server without field TTLs
    if drop:
        return {field: content for (field, content), ms in zip(fields.items(), expiries, strict=True) if ms < 0}
    return {field: (content, ms) for (field, content), ms in zip(fields.items(), expiries, strict=True)}


async def _stream(connection: Connection, name: bytes, entries: Value) -> Any:
    groups, info = await connection.pipeline([(b"XINFO", b"GROUPS", name), (b"XINFO", b"STREAM", name)])
    if isinstance(groups, ServerError) or isinstance(info, ServerError):
        return entries
    about = dict(zip(info[::2], info[1::2], strict=True))
    described = [dict(zip(group[::2], group[1::2], strict=True)) for group in groups]
    pending = await connection.pipeline([(b"XPENDING", name, group[b"name"], b"-", b"+", 1000) for group in described])
    return (
        entries,
        [about.get(field) for field in (b"length", b"last-generated-id", b"max-deleted-entry-id", b"entries-added")],
        [[group.get(field) for field in (b"name", b"pending", b"last-delivered-id", b"entries-read", b"lag")] for group in described],
        [[(entry[0], entry[1], entry[3]) for entry in listed] if isinstance(listed, list) else listed for listed in pending],
    )


def _plain(value: Any) -> Any:
    """Errors compare by their text."""
    return value.message if isinstance(value, ServerError) else value


def _functions(reply: Any) -> list[bytes]:
    if not isinstance(reply, list):
        return []
    return sorted(library[at + 1] for library in reply for at, item in enumerate(library) if item == b"library_code")


def _what(one: Reading, two: Reading) -> str:
    if one[0] != two[0]:
        return f"a {one[0].decode()} at the source, {two[0].decode()} at the target"
    if one[1] != two[1]:
        return f"expires at {one[1]} at the source, {two[1]} at the target"
    return f"its {one[0].decode()} value differs"
