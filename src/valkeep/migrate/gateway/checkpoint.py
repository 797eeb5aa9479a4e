"""The checkpoint of a channel: from where it goes on after a kill -9, in a small file that is written at every turn.

A rewritten stream is only ours: if what a target has acknowledged and what we know of it disagreed by one byte, everything after it would be wrong. So
nothing is given to a target before the place behind it is recorded here::

    ledger handed to the kernel → stream appended → **checkpoint** → committed: links may read up to there

At a recovery everything behind the newest checkpoint is cut off, the source is asked to go on there, and what it says is translated again. That may come
out differently (a key copied again has a newer value): no target has seen the first version.

The file has two slots, written in turn, each with a number that grows and a checksum. A write that was torn by the kill leaves the other slot, and what
that one does not cover was never sent::

    ┌ slot 0, 64 KiB ───────────────────────────────────────────────┐┌ slot 1 ─
    │ length, CRC-32 │ number, offsets, ids │ JSON: copies, ledger  ││ …

Nothing is fsynced: what a system call has written outlives the process that wrote it, and a fsync a turn would cost more than the gateway does. It does not
outlive the machine, which is why the state names its boot (`gateway_state`).

What it does not do: it doesn't decide when one may be taken (``StreamTransform.boundary`` does).
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from valkeep.errors import ValkeepError
from valkeep.migrate.gateway.ledger import LedgerMark
from valkeep.wire.commands import Place

__all__ = ["Checkpoint", "CheckpointFile", "Kept", "Taken"]

SLOT = 1 << 16
FRAME = struct.Struct("<II")  # length of what follows, its CRC-32
NOTHING = LedgerMark()
BODY = struct.Struct("<QQQIQQ?40s")  # number, source, own, database, ledger's size, lost fields' size, snapshot, source's replication id


class Checkpoint(NamedTuple):
    """One is made for each piece of the stream, hence the kind of value that costs least.

    ``replid``, ``source``: the source's replication id, and the offset of the last byte of it that was translated; ``own``: our offset there; ``database``:
    that is selected there. ``copying``: keys whose copies were under way: they have to be copied again. ``ledger``: how far it was written.
    ``lost``: bytes of the file of lost fields. ``snapshot``: it is still kept for further targets.
    """

    replid: str
    source: int
    own: int
    database: int
    copying: tuple[Place, ...] = ()
    ledger: LedgerMark = NOTHING
    lost: int = 0
    snapshot: bool = True


@dataclass(frozen=True, slots=True)
class Taken:
    """What there is of a snapshot. ``length``: bytes of our rendering of it; ``keys``, ``source_bytes``,
    ``rdb_version``: of the source's."""

    length: int
    keys: int
    source_bytes: int
    rdb_version: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What is on the disk of a channel that was killed: ``begins``, ``taken`` never change, ``checkpoint`` was the newest."""

    begins: int
    taken: Taken
    checkpoint: Checkpoint


class CheckpointFile:
    """``write`` when there is a newer one; ``read`` gives the newest whole one. One process writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._number = 0
        self._rest: tuple[tuple[Place, ...], LedgerMark] | None = None  # what the JSON in ``_encoded`` says
        self._encoded = b""

    def write(self, checkpoint: Checkpoint) -> bool:
        """False when it is too large to be recorded just now (thousands of copies under way): the one before goes on to hold."""
        rest = checkpoint.copying, checkpoint.ledger
        if self._rest is None or rest[0] or self._rest[0] or rest[1] is not self._rest[1]:
            copying = [[database, key.hex()] for database, key in checkpoint.copying]
            self._encoded = json.dumps(
                {"copying": copying, "ledger": [[*kind, count] for kind, count in checkpoint.ledger.counts]}
            ).encode()
            self._rest = rest
        body = (
            BODY.pack(
                self._number + 1,
                checkpoint.source,
                checkpoint.own,
                checkpoint.database,
                checkpoint.ledger.size,
                checkpoint.lost,
                checkpoint.snapshot,
                checkpoint.replid.encode(),
            )
            + self._encoded
        )
        if FRAME.size + len(body) > SLOT:
            return False
        self._number += 1
        record = FRAME.pack(len(body), zlib.crc32(body)) + body
        try:
            if self._fd < 0:
                self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                os.truncate(self._fd, 2 * SLOT)
            if os.pwrite(self._fd, record, self._number % 2 * SLOT) != len(record):
                raise OSError(28, "no space left")
        except OSError as error:
            raise ValkeepError(
                f"the gateway's state cannot be written to {self.path}: {error.strerror}",
                remedy="free space there or choose another folder with --spool DIR; the source was not touched and goes on serving",
                code="VK-STATE-WRITE",
            ) from error
        return True

    def read(self) -> Checkpoint:
        """Raises ``ValkeepError`` when neither slot holds one."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise self._damaged(error.strerror or str(error)) from error
        found = [slot for slot in (_slot(data[at : at + SLOT]) for at in (0, SLOT)) if slot is not None]
        if not found:
            raise self._damaged("no part of it has the right checksum")
        self._number, newest = max(found, key=lambda slot: slot[0])
        return newest

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)

    def _damaged(self, why: str) -> ValkeepError:
        return ValkeepError(
            f"{self.path} does not say where the gateway was: {why}",
            remedy="what it kept cannot be continued: start anew with a full sync, --fresh",
            code="VK-STATE-DAMAGED",
        )


def _slot(data: bytes) -> tuple[int, Checkpoint] | None:
    """The slot's number and checkpoint; None when it holds none."""
    if len(data) < FRAME.size:
        return None
    length, checksum = FRAME.unpack_from(data)
    body = data[FRAME.size : FRAME.size + length]
    if length < BODY.size or len(body) != length or zlib.crc32(body) != checksum:
        return None
    number, source, own, database, ledger, lost, snapshot, replid = BODY.unpack_from(body)
    rest = json.loads(body[BODY.size :])
    counts = tuple(((action, what, policy), count) for action, what, policy, count in rest["ledger"])
    copying = tuple((at, bytes.fromhex(key)) for at, key in rest["copying"])
    return number, Checkpoint(replid.decode(), source, own, database, copying, LedgerMark(ledger, counts), lost, snapshot)
