"""The data that a rehearsal moves: keys of every type and every encoding, in several databases.

What matters to a migration is not the size of the data but its shapes, so each encoding that a snapshot can hold is here: integers
of each width, short, long and compressible strings; lists of one and of many nodes; sets as intset, listpack and hashtable; hashes
and sorted sets small and large; hash fields with TTLs where the source knows them, in both of their encodings; streams with groups,
consumers and pending entries; keys that expire far ahead; HyperLogLogs, bitmaps, geo indexes; a function library.

Two thirds are plain strings, as in real caches; each other shape has at least a few dozen keys at any scale. Deterministic for a
seed (``rng`` is the caller's); commands are yielded in blocks of one database, ready for a pipeline.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

__all__ = ["FAR_AHEAD_MS", "LIBRARY", "Abilities", "Block", "dataset", "shares"]

Command = tuple[bytes, ...]

FAR_AHEAD_MS: Final = 400 * 24 * 3600 * 1000  # TTLs lie between one and two times this after ``now_ms``: none ends during a rehearsal
LIBRARY: Final = b"#!lua name=rehearsal\nredis.register_function('rehearsal_add', function(keys, args) return args[1] + args[2] end)\n"
WORDS: Final = b"the quick brown fox jumps over the lazy dog and keeps everything it carries "


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the source knows. ``field_ttl``: HPEXPIRE (Redis 7.4, Valkey 9.0); ``functions``: FUNCTION LOAD (7.0)."""

    field_ttl: bool
    functions: bool


@dataclass(frozen=True, slots=True)
class Block:
    """Commands for one database, and how many keys they make."""

    database: int
    keys: int
    commands: list[Command]


# kind -> keys of a thousand
_SHARES: Final = {
    "text": 430, "integer": 100, "long": 40, "compressible": 40, "expiring": 60, "list": 60, "intset": 50, "set": 40, "hash": 70,
    "field-ttl": 30, "zset": 50, "stream": 10, "hyperloglog": 5, "bitmap": 5, "geo": 5, "counter-like": 5,
}  # fmt: skip
_LARGE: Final = ("big-list", "big-set", "big-hash", "big-field-ttl", "big-zset", "big-stream")  # a few of each in every database


def shares(keys: int, databases: int) -> list[dict[str, int]]:
    """How many keys of each kind each database gets; together at least ``keys``. The first database has about 60%."""
    weights = [6] + [3] * (databases > 1) + [1] * max(0, databases - 2)
    out = []
    for weight in weights:
        part = keys * weight / sum(weights)
        counts = {kind: max(4, round(part * share / 1000)) for kind, share in _SHARES.items()}
        counts |= dict.fromkeys(_LARGE, 3)
        counts["text"] += max(0, int(part) + 1 - sum(counts.values()))
        out.append(counts)
    return out


def dataset(rng: Random, keys: int, abilities: Abilities, *, now_ms: int, databases: tuple[int, ...] = (0, 1, 2)) -> Iterator[Block]:
    """At least ``keys`` keys over ``databases``. ``now_ms``: wall clock, for absolute TTLs."""
    noise = rng.randbytes(1 << 16)
    for database, counts in zip(databases, shares(keys, len(databases)), strict=True):
        maker = _Maker(rng, noise, abilities, now_ms)
        for kind, count in counts.items():
            for start in range(0, count, 2000):
                batch = range(start, min(count, start + 2000))
                yield Block(database, len(batch), maker.make(kind, batch))
    if abilities.functions:
        yield Block(databases[0], 0, [(b"FUNCTION", b"LOAD", b"REPLACE", LIBRARY)])


class _Maker:
    def __init__(self, rng: Random, noise: bytes, abilities: Abilities, now_ms: int) -> None:
        self.rng, self.noise, self.abilities, self.now_ms = rng, noise, abilities, now_ms

    def make(self, kind: str, numbers: range) -> list[Command]:
        names = [b"%s:%d" % (kind.encode(), number) for number in numbers]
        if kind in ("text", "integer", "long", "compressible", "counter-like"):
            return [self._mset(kind, names[at : at + 50]) for at in range(0, len(names), 50)]
        commands: list[Command] = []
        for name in names:
            commands += self._one(kind, name)
        return commands

    def _mset(self, kind: str, names: list[bytes]) -> Command:
        rng, parts = self.rng, [b"MSET"]
        for name in names:
            if kind == "text":
                at = rng.randrange(60_000)
                value = self.noise[at : at + 8 + at % 33]
            elif kind == "integer":
                value = b"%d" % rng.choice(
                    (rng.randrange(-100, 128), rng.randrange(1 << 15), rng.randrange(-(1 << 31), 1 << 31), rng.getrandbits(62))
                )
            elif kind == "long":
                at = rng.randrange(50_000)
                value = self.noise[at : at + rng.randrange(200, 1500)]
            elif kind == "compressible":
                value = WORDS * rng.randrange(3, 30)
            else:
                value = b"%.17g" % rng.uniform(-1e6, 1e6)
            parts += (name, value)
        return tuple(parts)

    def _ahead(self) -> bytes:
        return b"%d" % (self.now_ms + FAR_AHEAD_MS + self.rng.randrange(FAR_AHEAD_MS))

    def _some(self, low: int, high: int, form: bytes = b"item-%d") -> list[bytes]:
        first = self.rng.randrange(1 << 20)
        return [form % (first + step) for step in range(self.rng.randrange(low, high))]

    def _one(self, kind: str, name: bytes) -> list[Command]:
        rng = self.rng
        match kind:
            case "expiring":
                return [(b"SET", name, b"%d" % rng.getrandbits(40), b"PXAT", self._ahead())]
            case "list":
                commands: list[Command] = [(b"RPUSH", name, *self._some(2, 12))]
                if rng.random() < 0.1:
                    commands.append((b"PEXPIREAT", name, self._ahead()))
                return commands
            case "intset":
                return [(b"SADD", name, *self._some(3, 10, b"%d"))]
            case "set":
                return [(b"SADD", name, *self._some(3, 10, b"member:%d"))]
            case "hash":
                return [(b"HSET", name, *_paired(self._some(2, 8, b"field:%d"), self._some(8, 9)))]
            case "field-ttl" | "big-field-ttl":
                fields = self._some(3, 6, b"f%d") if kind == "field-ttl" else self._some(700, 900, b"f%d")
                commands = [(b"HSET", name, *_paired(fields, fields))]
                if self.abilities.field_ttl:
                    chosen = fields[: max(1, len(fields) // 3)]
                    commands.append((b"HPEXPIREAT", name, self._ahead(), b"FIELDS", b"%d" % len(chosen), *chosen))
                return commands
            case "zset":
                return [(b"ZADD", name, *_paired([b"%.6g" % rng.uniform(-1e3, 1e9) for _ in range(6)], self._some(6, 7)))]
            case "stream":
                commands = [
                    (b"XADD", name, b"%d-%d" % (1000 + at, at), b"n", b"%d" % at, b"who", b"w%d" % rng.randrange(9)) for at in range(3)
                ]
                commands.append((b"XGROUP", b"CREATE", name, b"readers", b"0"))
                commands.append((b"XREADGROUP", b"GROUP", b"readers", b"c%d" % rng.randrange(3), b"COUNT", b"2", b"STREAMS", name, b">"))
                return commands
            case "hyperloglog":
                return [(b"PFADD", name, *self._some(5, 60))]
            case "bitmap":
                return [(b"SETBIT", name, b"%d" % rng.randrange(4000), b"1"), (b"SETBIT", name, b"%d" % rng.randrange(4000), b"1")]
            case "geo":
                return [(b"GEOADD", name, b"%.5f" % rng.uniform(-179, 179), b"%.5f" % rng.uniform(-84, 84), b"place")]
            case "big-list":
                return [
                    (b"RPUSH", name, *self._some(900, 1100, b"a longer element that fills the nodes of a quicklist %d")) for _ in range(3)
                ]
            case "big-set":
                return [(b"SADD", name, *self._some(1500, 2500, b"m:%d")), (b"PEXPIREAT", name, self._ahead())]
            case "big-hash":
                return [(b"HSET", name, *_paired(self._some(1200, 1201, b"field:%d"), self._some(1200, 1201, b"value %d")))]
            case "big-zset":
                members = self._some(1200, 1400, b"z%d")
                return [(b"ZADD", name, *_paired([b"%.9g" % rng.uniform(-1e9, 1e9) for _ in members], members))]
            case "big-stream":
                commands = [(b"XADD", name, b"%d-0" % (5000 + at), b"n", b"%d" % at, b"text", b"entry") for at in range(400)]
                commands.append((b"XGROUP", b"CREATE", name, b"billing", b"0"))
                commands.append((b"XGROUP", b"CREATE", name, b"idle", b"$"))
                commands += [
                    (b"XREADGROUP", b"GROUP", b"billing", b"worker-%d" % at, b"COUNT", b"40", b"STREAMS", name, b">") for at in range(3)
                ]
                commands.append((b"XACK", name, b"billing", *[b"%d-0" % (5000 + at) for at in range(0, 60, 2)]))
                commands.append((b"XDEL", name, b"5100-0", b"5101-0"))
                return commands
        raise AssertionError(kind)


def _paired(left: list[bytes], right: list[bytes]) -> list[bytes]:
    out: list[bytes] = []
    for at, item in enumerate(left):
        out += (item, right[at % len(right)])
    return out
