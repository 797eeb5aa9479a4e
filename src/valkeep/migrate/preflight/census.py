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
from collections.abc import Mapping
from typing import Any, Final

from valkeep.client.connection import Connection
from valkeep.errors import ServerError
from valkeep.migrate.preflight.facts import Census
from valkeep.migrate.preflight.formats import has_field_ttl

__all__ = ["CORE_TYPES", "sample"]

CORE_TYPES: Final = ("string", "list", "set", "zset", "hash", "stream")
_STEP: Final = 500  # keys asked for by one SCAN: well below a millisecond of the server's time
_HASHES: Final = 500  # hashes whose fields are asked for their TTLs
_FIELDS: Final = 20


async def sample(
    connection: Connection,
    keyspace: Mapping[int, Mapping[str, int]],
    kind: str,
    version: tuple[int, ...],
    limit: int,
    refused: dict[str, str],
) -> Census | None:
    """At most about ``limit`` keys, shared among the databases by their size. None where SCAN or TYPE is denied (``refused`` says so)."""
    started = time.monotonic()
    total = sum(counts.get("keys", 0) for counts in keyspace.values())
    counts: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    encodings: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    seen = with_ttl = 0
    hashes_left = _HASHES if has_field_ttl(kind, version) else 0
    complete = True
    for database in sorted(keyspace):
        size = keyspace[database].get("keys", 0)
        budget = max(_STEP, limit * size // max(total, 1))
        (selected,) = await connection.pipeline([("SELECT", database)])
        if isinstance(selected, ServerError):
            refused["SELECT"] = selected.message
            complete = False
            continue
        cursor: Any = b"0"
        looked = steps = 0
        while True:
            (page,) = await connection.pipeline([("SCAN", cursor, "COUNT", _STEP)])
            if isinstance(page, ServerError):
                refused["SCAN"] = page.message
                return None
            cursor, keys = page
            steps += 1
            types = await connection.pipeline([("TYPE", key) for key in keys])
            codings = await connection.pipeline([("OBJECT", "ENCODING", key) for key in keys])
            hashes = []
            for key, name, coding in zip(keys, types, codings, strict=True):
                if isinstance(name, ServerError):
                    refused["TYPE"] = name.message
                    complete = False
                    continue
                word = _text(name)
                if word == "none":  # expired in between
                    continue
                looked += 1
                if word not in CORE_TYPES:
                    modules[word] += 1
                    _remember(examples, f"module:{word}", database, key)
                    word = "module"
                counts[word] += 1
                if isinstance(coding, bytes):
                    encodings[f"{word}:{_text(coding)}"] += 1
                if word == "hash" and coding == b"listpackex":
                    hashes.append(key)
                elif word == "hash" and hashes_left > 0:
                    hashes_left -= 1
                    hashes.append(key)
            for key in await _with_field_ttl(connection, hashes, refused):
                with_ttl += 1
                _remember(examples, "field-ttl", database, key)
            if cursor == b"0":
                break
            if looked >= budget or steps > 10 + 4 * budget // _STEP:
                complete = False
                break
        seen += looked
    await connection.pipeline([("SELECT", 0)])
    return Census(
        mode="sample",
        complete=complete and "TYPE" not in refused,
        total=total,
        seen=seen,
        kinds=dict(counts),
        modules=dict(modules),
        encodings=dict(encodings),
        field_ttl_hashes=with_ttl,
        examples={what: tuple(names) for what, names in examples.items()},
        seconds=time.monotonic() - started,
    )


async def _with_field_ttl(connection: Connection, hashes: list[bytes], refused: dict[str, str]) -> list[bytes]:
    """Those of ``hashes`` of whose fields (some of them) one has a TTL."""
    if not hashes:
        return []
    found = []
    chosen = await connection.pipeline([("HRANDFIELD", key, _FIELDS) for key in hashes])
    asking = [(key, fields) for key, fields in zip(hashes, chosen, strict=True) if isinstance(fields, list) and fields]
    replies = await connection.pipeline([("HPEXPIRETIME", key, "FIELDS", len(fields), *fields) for key, fields in asking])
    for (key, _), reply in zip(asking, replies, strict=True):
        if isinstance(reply, ServerError):
            refused["HPEXPIRETIME"] = reply.message
        elif isinstance(reply, list) and any(isinstance(value, int) and value > 0 for value in reply):
            found.append(key)
    return found


def _remember(examples: dict[str, list[str]], what: str, database: int, key: bytes) -> None:
    names = examples.setdefault(what, [])
    if len(names) < 3:
        names.append(f"db{database} {key.decode('utf-8', 'backslashreplace')[:80]!r}")


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
