"""Targets that go the gateway's whole way: a channel that rewrites a snapshot, then the stream behind it.

What a target would get is checked by what it must never get: a record type, opcode or database that it does not have, a wrong checksum, a
command that it does not know.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import seeds
from tests.fuzz.bits import cut, sealed_payload
from tests.fuzz.oracle import Failure, Finding, Target, agree, attempt, installed, same
from tests.fuzz.snapshots import HEADER, after_policy, builds, told
from valkeep.migrate.gateway.channel import Channel
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.transform.copies import Copy
from valkeep.migrate.transform.stream import Wanted
from valkeep.migrate.transform.target import FieldTtl, TargetFormat, convert_mode
from valkeep.wire.checksum import crc64
from valkeep.wire.commands import VALKEY_COMMANDS
from valkeep.wire.rdb import opcodes
from valkeep.wire.rdb.convert import TO_HASH_2
from valkeep.wire.rdb.encode import SnapshotWriter
from valkeep.wire.rdb.scan import ATTENTION, END, Scanner
from valkeep.wire.resp import encode
from valkeep.wire.stream import CommandScanner

_TARGETS = tuple([TargetFormat(version, databases) for version in ((7, 2), (8, 0), (8, 1), (9, 0), (9, 1)) for databases in (16, 4)])
_SOURCES = ((6, 2), (7, 0), (7, 4), (8, 0), (8, 2), (8, 4))
_DATABASES = 4096
"""What the snapshot's own tests may select: other numbers are refused."""

_folder: list[Path] = []


def work_in(folder: Path) -> None:
    """Channels put their files there; whoever gave the folder removes it."""
    folder.mkdir(exist_ok=True)
    _folder[:] = [folder]


def _directory() -> Path:
    if not _folder:
        made = tempfile.mkdtemp(prefix="valkeep-fuzz-")
        atexit.register(shutil.rmtree, made, ignore_errors=True)
        _folder.append(Path(made))
    return _folder[0]


@contextlib.contextmanager
def channel(target: TargetFormat, policy: FieldTtl, source: tuple[int, ...], wanted: list[Wanted]) -> Iterator[Channel]:
    directory = _directory()
    made = Channel(
        target,
        policy,
        Ledger(None),
        directory,
        "f" * 40,
        source_version=source,
        source_offset=1000,
        on_wanted=lambda _channel, wish: wanted.append(wish),
    )
    try:
        yield made
    finally:
        made.close()
        left = list(directory.iterdir())
        for path in left:
            path.unlink()
        if left:
            raise Finding(f"a closed channel leaves {[path.name for path in left]}")


def rewritten(target: TargetFormat, policy: FieldTtl, pieces: list[bytes]) -> bytes:
    with channel(target, policy, (8, 0), []) as made:
        for piece in pieces:
            made.feed_snapshot(piece)
        made.end_snapshot()
        assert made.snapshot is not None
        check_commands(made.stream.read(made.begins, 1 << 30), target, b"")
        return made.snapshot.read(0, 1 << 30)


def forbidden(target: TargetFormat) -> bytes:
    """Flags of everything that this target's loader does not take, written down from its rdb.h."""
    flags = bytearray(256)
    for number in range(256):
        known = number <= (22 if target.version >= (9, 0) else 21) and number not in (6, 7, 8)
        flags[number] = not known and number not in (245, 248, 249, 250, 251, 252, 253, 254, 255)
    return bytes(flags)


def check_written(out: bytes, target: TargetFormat) -> None:
    """What a target's loader would say to it."""
    header = opcodes.parse_header(out)
    wanted = (opcodes.DIALECT_VALKEY, 80) if target.version >= (9, 0) else (opcodes.DIALECT_REDIS, 11)
    if header is None or (header.dialect, header.version) != wanted:
        raise Finding(f"header {out[:9]!r} for {target}")
    if crc64(out[:-8]) != int.from_bytes(out[-8:], "little"):
        raise Finding("the checksum written is wrong")
    flags = bytearray(forbidden(target))
    flags[opcodes.OP_SELECTDB] = 1
    scanner = Scanner(bytes(flags), header.dialect, header.version)
    pos = HEADER
    while True:
        pos = scanner.scan(out, pos, len(out))
        if scanner.stop == END:
            break
        if scanner.stop != ATTENTION or scanner.type != opcodes.OP_SELECTDB:
            raise Finding(f"stop {scanner.stop} at type {scanner.type}, byte {pos} of {len(out)}, for {target}")
        number, pos = installed("rdb.scan").read_length(out, pos + 1, len(out))
        if number >= target.databases:
            raise Finding(f"database {number} was let through to {target}")
        scanner.resume_after()
    if pos != len(out) - 9:
        raise Finding(f"the end is at {pos} of {len(out)}")


_NOT_CARRIED = ("begin", "aux", "module_aux", "slot_info", "slot_import", "resize", "end", "finished")


def carried(calls: list[Any]) -> list[Any]:
    kept: list[Any] = []
    in_aux = False
    for call in calls:
        if call[0] == "module_part" and in_aux:
            continue
        in_aux = call[0] == "module_aux"
        if call[0] not in _NOT_CARRIED:
            kept.append(call)
    return kept


def check_snapshot(data: bytes, rng: Random) -> None:
    target = rng.choice(_TARGETS)
    policy = rng.choice(tuple(FieldTtl))
    whole = attempt(lambda: rewritten(target, policy, [data]))
    split = attempt(lambda: rewritten(target, policy, cut(rng, data)))
    if isinstance(whole, Failure) or isinstance(split, Failure):
        if not (isinstance(whole, Failure) and isinstance(split, Failure)):  # of two reasons either may be met first
            agree("snapshot whole and in pieces", whole, split)
        return
    check_written(whole, target)
    if split != whole:
        check_written(split, target)
    source = told(builds()[0], [data])
    if isinstance(source[-1], Failure):
        return
    mode = TO_HASH_2 if target.field_ttl else convert_mode(target, policy)
    for out in (whole, split):
        got = told(builds()[0], [out])
        if isinstance(got[-1], Failure):
            raise Finding(f"a good snapshot became a bad one: {got[-1].text}")
        same("records before and after", after_policy(carried(source), mode), after_policy(carried(got), TO_HASH_2))


_FEWEST = {b"HDEL": 3, b"HSET": 4, b"SELECT": 2, b"DEL": 2, b"RESTORE": 4, b"SET": 3}
"""Words of commands that Valkeep writes itself. What a source sent is not looked at: it has executed it."""


# --- stream ---------------------------------------------------------------------------------------------------------------------


def _small_snapshot() -> bytes:
    writer = SnapshotWriter(opcodes.DIALECT_REDIS, 12)
    writer.aux(b"repl-stream-db", b"1")
    return writer.finish()


_SNAPSHOT = _small_snapshot()


def streamed(
    target: TargetFormat, policy: FieldTtl, source: tuple[int, ...], pieces: list[bytes], seed: int
) -> tuple[bytes, list[tuple[int, bytes, bool]], int, bool]:
    """(what the target gets, what was waited for, how far the source's stream was taken, whether it is held)."""
    rng = Random(seed)
    wanted: list[Wanted] = []
    told: list[tuple[int, bytes, bool]] = []
    with channel(target, policy, source, wanted) as made:
        made.feed_snapshot(_SNAPSHOT)
        made.end_snapshot()
        for piece in pieces:
            made.feed_stream(piece)
            for _ in range(100):
                while not wanted and made.resume():
                    pass
                if not wanted:
                    break
                wish = wanted.pop()
                told.append((wish.offset, wish.command, wish.hold is not None))
                if not wish.places or wish.hold is not None:
                    break
                copies = []
                for database, key in wish.places:
                    record, options = seeds.fresh_record(rng, 0)
                    value = installed("rdb.encode").dump_payload(record, 0, 12, options)
                    copies.append(Copy(database, key, wish.offset + rng.randrange(400), None if rng.random() < 0.3 else value))
                if isinstance(refused := attempt(lambda c=copies: made.supply(c)), Failure):  # type: ignore[misc]
                    del refused
                    break
        if made.wanted is None and wanted:
            raise Finding("something was asked for that is not wanted")
        out = made.stream.read(made.begins, 1 << 30)
        if made.ends != made.begins + len(out):
            raise Finding(f"the stream ends at {made.ends}, with {len(out)} bytes from {made.begins}")
        return out, told, made.source_offset, made.wanted is not None


def check_commands(out: bytes, target: TargetFormat, source: bytes) -> None:
    """Every whole command must be one that the target knows, every SELECT of a database that it has, and whole if it is not the source's own."""
    scanner = CommandScanner(frozenset())
    known = VALKEY_COMMANDS[max(version for version in VALKEY_COMMANDS if version <= target.version[:2])]
    pos = 0
    while True:
        pos = scanner.scan(out, pos, len(out))
        found = scanner.command(out, pos, len(out)) if scanner.stop == ATTENTION else None
        if found is None:
            return
        args, pos = found
        name = args[0].upper()
        if name not in known and name not in (b"PING", b"SELECT", b"MULTI", b"EXEC"):
            raise Finding(f"{name!r} was sent to {target}")
        if len(args) < _FEWEST.get(name, 1) and encode(*args) not in source:
            raise Finding(f"{name!r} with {len(args) - 1} arguments was sent to {target}")
        if name == b"SELECT" and not (args[1].isdigit() and args[1] == b"%d" % int(args[1]) and int(args[1]) < target.databases):
            raise Finding(f"SELECT {args[1]!r} was sent to {target}")
        if name in (b"RESTORE", b"RESTORE-ASKING"):
            payload = args[3]
            if payload[-10:-8] != target.rdb_version.to_bytes(2, "little") or payload != sealed_payload(payload[:-10], target.rdb_version):
                raise Finding(f"RESTORE of a payload that {target} refuses")
        scanner.resume_after()


def check_stream(data: bytes, rng: Random) -> None:
    target = rng.choice(_TARGETS)
    policy = rng.choice(tuple(FieldTtl))
    source = rng.choice(_SOURCES)
    seed = rng.getrandbits(32)
    whole = attempt(lambda: streamed(target, policy, source, [data], seed))
    split = attempt(lambda: streamed(target, policy, source, cut(rng, data), seed))
    if isinstance(whole, Failure) or isinstance(split, Failure):
        agree("stream whole and in pieces", whole, split)
        return
    for found in (whole, split):
        check_commands(found[0], target, data)
    same("stream whole and in pieces", whole, split)


TARGETS = (Target("snapshot-transform", seeds.snapshots, check_snapshot), Target("stream-transform", seeds.command_streams, check_stream))
