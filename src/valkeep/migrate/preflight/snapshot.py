"""The full census: read one snapshot of the source to its end, and count what is in it. Nothing is decoded and nothing is kept.

We ask as a replica (PSYNC), step over the records (`wire.rdb.scan`), and hang up at the end of the snapshot, before any of the stream. The source
forks once for it, which `counted` says first.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from valkeep.client.endpoint import Endpoint
from valkeep.client.replication_reader import ReplicationReader
from valkeep.errors import RemoteProtocolError, ValkeepError
from valkeep.migrate.preflight.facts import Census, Permission, ServerFacts, human, remember
from valkeep.report.events import Emit, Note, Progress
from valkeep.wire.rdb.handler import module_name
from valkeep.wire.rdb.opcodes import (
    DIALECT_REDIS,
    FIRST_VERSION_WITH_FOOTER,
    FOOTER_SIZE,
    HEADER_SIZE,
    KIND_NAMES,
    OP_UPDATE,
    REDIS_TYPE_HASH_LISTPACK_EX_PRE_GA,
    REDIS_TYPE_HASH_METADATA_PRE_GA,
    TYPE_HASH_LISTPACK_EX,
    TYPE_HASH_METADATA,
    TYPE_MODULE_2,
    TYPE_MODULE_PRE_GA,
    VALKEY_TYPE_HASH_2,
    kinds,
    name_of,
)
from valkeep.wire.rdb.scan import ATTENTION, END, Scanner, parse_header, parse_record_prefix, read_length

__all__ = ["SnapshotCounter", "counted", "read_census"]

_FIELD_TTL: Final = {
    True: {REDIS_TYPE_HASH_METADATA_PRE_GA, REDIS_TYPE_HASH_LISTPACK_EX_PRE_GA, TYPE_HASH_METADATA, TYPE_HASH_LISTPACK_EX},
    False: {VALKEY_TYPE_HASH_2},
}


class SnapshotCounter:
    """Takes a snapshot in any pieces and counts its records. Pure: ``feed`` until ``done``; ``size`` then is its length with its footer. Raises
    ``RemoteProtocolError`` on what can't be stepped over. ``databases``: keys by database."""

    def __init__(self) -> None:
        self.version: int | None = None
        self.done = False
        self.bytes = 0
        self.size = 0
        self.types: Counter[int] = Counter()
        self.databases: Counter[int] = Counter()
        self.modules: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self._scanner: Scanner | None = None
        self._redis = True
        self._kept = b""

    @property
    def keys(self) -> int:
        return sum(self.types.values())

    def feed(self, data: bytes) -> None:
        self.bytes += len(data)
        if self.done:
            return
        data = self._kept + data
        start = 0
        if self._scanner is None:
            header = parse_header(data)
            if header is None:
                self._kept = data
                return
            self.version, self._redis = header.version, header.dialect == DIALECT_REDIS
            records = bytes(1 if number < OP_UPDATE else 0 for number in range(256))
            self._scanner = Scanner(records, header.dialect, header.version)
            self._dialect = header.dialect
            start = HEADER_SIZE
        pos = self._run(self._scanner, memoryview(data), start, len(data))
        self._kept = data[pos:]

    def _run(self, scanner: Scanner, data: memoryview, pos: int, end: int) -> int:
        while True:
            pos = scanner.scan(data, pos, end)
            if scanner.stop == END:
                self.done = True
                footer = FOOTER_SIZE if self.version is not None and self.version >= FIRST_VERSION_WITH_FOOTER else 0
                self.size = self.bytes - (end - pos) + 1 + footer
                return pos
            if scanner.stop == ATTENTION:
                number = scanner.type
                interesting = number in (TYPE_MODULE_2, TYPE_MODULE_PRE_GA) or number in _FIELD_TTL[self._redis]
                if interesting and not self._look(scanner, data, pos, end):
                    return pos  # its head has not come in full
                self.types[number] += 1
                self.databases[scanner.database] += 1
                scanner.take()
            elif pos >= end or scanner.stop == 0:
                return pos

    def _look(self, scanner: Scanner, data: memoryview, pos: int, end: int) -> bool:
        """Remember the module, or the key, of the record at ``pos``; False: more bytes are needed."""
        head = parse_record_prefix(data, pos, end, self._dialect)
        if head is None:
            return False
        what = "field-ttl"
        if scanner.type == TYPE_MODULE_2:
            identity, after = read_length(data, head.value_pos, end)
            if after < 0:
                return False
            name = module_name(identity)[0]
            self.modules[name] += 1
            what = f"module:{name}"
        elif scanner.type == TYPE_MODULE_PRE_GA:
            self.modules["(before 4.0)"] += 1
            what = "module:(before 4.0)"
        remember(self.examples, what, scanner.database, head.key)
        return True

    def census(self, seconds: float) -> Census:
        table = kinds(self._dialect)
        by_kind: Counter[str] = Counter()
        for number, count in self.types.items():
            by_kind[KIND_NAMES[table[number]] if table[number] < len(KIND_NAMES) else "unknown"] += count
        return Census(
            mode="full",
            complete=True,
            total=self.keys,
            seen=self.keys,
            kinds=dict(by_kind),
            modules=dict(self.modules),
            encodings={name_of(self._dialect, number).lower(): count for number, count in self.types.items()},
            field_ttl_hashes=sum(count for number, count in self.types.items() if number in _FIELD_TTL[self._redis]),
            examples={what: tuple(names) for what, names in self.examples.items()},
            snapshot_version=self.version,
            snapshot_bytes=self.bytes,
            seconds=seconds,
        )


async def counted(source: Endpoint, here: ServerFacts, emit: Emit, at: Callable[[], float]) -> ServerFacts:
    """The same facts with a full census; says first what that costs the source. Where no snapshot can be had, that is a fact, too."""
    if not here.info or here.kind == "other" or here.mode == "sentinel":
        return here
    used = human(here.number("used_memory") or 0)
    fork = (here.number("latest_fork_usec") or 0) / 1000
    cow = human(here.number("rdb_last_cow_size") or 0)
    emit(
        Note(
            at(),
            "warning",
            f"the full census makes {here.address} fork once and sends all its data here: used memory {used}, "
            f"its latest fork took {fork:.1f} ms, its last save copied {cow} of pages",
            {"used_memory": here.number("used_memory"), "latest_fork_usec": here.number("latest_fork_usec")},
        )
    )
    try:
        census = await read_census(source, ".".join(map(str, here.version)), here.keys, emit, at)
        asked = {name: why for name, why in here.unasked.items() if name != "PSYNC"}  # it was run just now
        return replace(here, census=census, unasked=asked, commands={**here.commands, "PSYNC": Permission.OK})
    except ValkeepError as error:
        name, why = explain(error)
        return replace(here, unasked={**here.unasked, name: why})


async def read_census(endpoint: Endpoint, version: str, keys: int, emit: Emit, at: Callable[[], float]) -> Census:
    """Read a snapshot of ``endpoint``. ``version``: the server's own, so that it writes its own format; ``keys``: how many are expected, for the
    progress. Raises ``Refused`` or ``ConnectionLost`` where there is no snapshot, ``RemoteProtocolError`` where it can't be stepped over."""
    started = told = time.monotonic()
    reader = await ReplicationReader.open(endpoint, present_as=version, patience=0)
    try:
        counter = SnapshotCounter()
        async for data in reader.snapshot():
            counter.feed(data)
            if time.monotonic() - told > 0.5:
                told = time.monotonic()
                emit(Progress(at(), "census", keys=counter.keys, bytes=counter.bytes, total_keys=keys))
    finally:
        await reader.close()
    if not counter.done:
        raise RemoteProtocolError(
            f"the snapshot of {endpoint.address} ended after {counter.bytes} bytes, in the middle of its data",
            remedy="see the server's log: did its fork or its disk fail?",
        )
    return counter.census(time.monotonic() - started)


def explain(error: Exception) -> tuple[str, str]:
    """Where in ``ServerFacts.unasked`` an error of `read_census` belongs: what is wrong with the snapshot, or that there was none."""
    name = "SNAPSHOT" if isinstance(error, RemoteProtocolError) else "PSYNC FOR CENSUS"
    return name, str(error)
