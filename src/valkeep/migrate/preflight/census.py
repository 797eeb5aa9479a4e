"""Which kinds of values a source has, by looking at some of them.

``sample`` walks each database with SCAN, a bounded number of keys and of steps. A walk that came back to cursor 0 has seen every key that was
there all the time, and only such a census may say "none"; one that was cut short says what it found and never what is absent. What is written
meanwhile or later is nobody's claim: the gateway looks at every record anyway.

Field TTLs need no sampling where INFO counts them; for hashes of servers that have them the sample asks HPEXPIRETIME for some fields all the
same, because a 7.4 release candidate does not count.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Final

from valkeep.client.connection import Connection, Value
from valkeep.client.server_info import text_of
from valkeep.errors import ServerError
from valkeep.migrate.preflight.facts import Census, ServerFacts, remember
from valkeep.migrate.preflight.formats import has_field_ttl

__all__ = ["CORE_TYPES", "sample"]

CORE_TYPES: Final = ("string", "list", "set", "zset", "hash", "stream")
_STEP: Final = 500  # keys asked for by one SCAN: well below a millisecond of the server's time
_HASHES: Final = 500  # hashes whose fields are asked for their TTLs
_FIELDS: Final = 20


async def sample(connection: Connection, facts: ServerFacts, limit: int, refused: dict[str, str]) -> Census | None:
    """At most about ``limit`` keys, shared among the databases by their size. None where SCAN is denied.

    ``refused``: gets each command that was denied, and with what error.
    """
    started = time.monotonic()
    walk = _Walk(connection, refused, hashes=_HASHES if has_field_ttl(facts.kind, facts.version) else 0)
    for database, counts in sorted(facts.keyspace.items()):
        if not await walk.through(database, max(_STEP, limit * counts.get("keys", 0) // max(facts.keys, 1))):
            return None
    await connection.pipeline([("SELECT", 0)])
    return walk.census(facts.keys, time.monotonic() - started)


class _Walk:
    """What was seen so far, in all databases. ``hashes``: so many are asked for their fields' TTLs, where their encoding does not say it."""

    def __init__(self, connection: Connection, refused: dict[str, str], *, hashes: int) -> None:
        self._connection = connection
        self._refused = refused
        self._hashes_left = hashes
        self._complete = True
        self._seen = 0
        self._with_ttl = 0
        self._kinds: Counter[str] = Counter()
        self._modules: Counter[str] = Counter()
        self._encodings: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def census(self, total: int, seconds: float) -> Census:
        """``total``: keys that INFO counts."""
        return Census(
            mode="sample",
            complete=self._complete,
            total=total,
            seen=self._seen,
            kinds=dict(self._kinds),
            modules=dict(self._modules),
            encodings=dict(self._encodings),
            field_ttl_hashes=self._with_ttl,
            examples={what: tuple(names) for what, names in self._examples.items()},
            seconds=seconds,
        )

    async def through(self, database: int, budget: int) -> bool:
        """Look at about ``budget`` keys of a database, or at all. False where SCAN is denied."""
        (selected,) = await self._connection.pipeline([("SELECT", database)])
        if isinstance(selected, ServerError):
            self._refused["SELECT"] = selected.message
            self._complete = False
            return True
        enough = self._seen + budget
        cursor: Value = b"0"
        for steps in count(1):
            (page,) = await self._connection.pipeline([("SCAN", cursor, "COUNT", _STEP)])
            if isinstance(page, ServerError):
                self._refused["SCAN"] = page.message
                return False
            cursor, keys = page
            await self._look(database, keys)
            if cursor == b"0":
                break
            if self._seen >= enough or steps > 10 + 4 * budget // _STEP:
                self._complete = False
                break
        return True

    async def _look(self, database: int, keys: Sequence[bytes]) -> None:
        types = await self._connection.pipeline([("TYPE", key) for key in keys])
        encodings = await self._connection.pipeline([("OBJECT", "ENCODING", key) for key in keys])
        hashes = []
        for key, kind, encoding in zip(keys, types, encodings, strict=True):
            if isinstance(kind, ServerError) and kind.kind in (
                "MOVED",
                "ASK",
            ):  # another shard's: this one's is left over, or went just now
                continue
            if isinstance(kind, ServerError):
                self._refused["TYPE"] = kind.message
                self._complete = False
                continue
            word = text_of(kind)
            if word == "none":  # expired in between
                continue
            self._seen += 1
            if word not in CORE_TYPES:
                self._modules[word] += 1
                remember(self._examples, f"module:{word}", database, key)
                word = "module"
            self._kinds[word] += 1
            if isinstance(encoding, bytes):
                self._encodings[f"{word}:{text_of(encoding)}"] += 1
            if word == "hash" and encoding == b"listpackex":
                hashes.append(key)
            elif word == "hash" and self._hashes_left > 0:
                self._hashes_left -= 1
                hashes.append(key)
        for key in await self._with_field_ttl(hashes):
            self._with_ttl += 1
            remember(self._examples, "field-ttl", database, key)

    async def _with_field_ttl(self, hashes: Sequence[bytes]) -> list[bytes]:
        """Those of ``hashes`` of whose fields (some of them) one has a TTL."""
        if not hashes:
            return []
        found = []
        chosen = await self._connection.pipeline([("HRANDFIELD", key, _FIELDS) for key in hashes])
        asking = [(key, fields) for key, fields in zip(hashes, chosen, strict=True) if isinstance(fields, list) and fields]
        replies = await self._connection.pipeline([("HPEXPIRETIME", key, "FIELDS", len(fields), *fields) for key, fields in asking])
        for (key, _), reply in zip(asking, replies, strict=True):
            if isinstance(reply, ServerError):
                self._refused["HPEXPIRETIME"] = reply.message
            elif isinstance(reply, list) and any(isinstance(value, int) and value > 0 for value in reply):
                found.append(key)
        return found
