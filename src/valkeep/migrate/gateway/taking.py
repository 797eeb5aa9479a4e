"""A snapshot that is being taken: what the source sends of it is rendered for the target and goes to the channel's spool, as it comes.

It is over when the source's framing says so, and must be whole then: the reader has seen its end and its checksum, and nothing stands behind it. A channel
that goes on after a kill -9 has it already, and is told what there was of it (``Taken``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from valkeep.errors import RemoteProtocolError
from valkeep.migrate.gateway.checkpoint import Taken
from valkeep.migrate.spool import AsideFile, Spool
from valkeep.migrate.transform.snapshot import SnapshotTransform

if TYPE_CHECKING:
    from valkeep.migrate.gateway.ledger import Ledger
    from valkeep.migrate.transform.maybe import MaybeSet
    from valkeep.migrate.transform.target import FieldTtl, TargetFormat

__all__ = ["Taking"]


class Taking:
    """``spool``: where the rendering goes; None where none will come. ``aside``: a file for what does not fit into memory meanwhile.
    ``taken``: there is all of it."""

    def __init__(
        self,
        target: TargetFormat,
        policy: FieldTtl,
        ledger: Ledger,
        spool: Spool | None,
        aside: Path,
        *,
        source_offset: int,
        taken: Taken | None = None,
    ) -> None:
        self._spool = spool
        self._kept = taken
        self._buffer = bytearray()
        self._aside = AsideFile(aside)
        append = spool.append if spool is not None else _nothing
        self._reader = SnapshotTransform(target, policy, ledger.record, append, self._aside, source_offset=source_offset)

    @property
    def taken(self) -> Taken:
        """What there is of it so far."""
        if self._kept is not None:
            return self._kept
        length = self._spool.end if self._spool is not None else 0
        return Taken(length, self._reader.keys, self._reader.bytes_in, self._reader.rdb_version)

    @property
    def database(self) -> int:
        """That the source's stream begins in, as the snapshot says."""
        return max(self._reader.repl_stream_db, 0)

    @property
    def lost_fields(self) -> MaybeSet:
        """Keys that lost fields on the way."""
        return self._reader.lost_fields

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next piece. Raises ``RemoteProtocolError``, ``Refused`` or ``SpoolFull``."""
        self._buffer += data
        consumed = self._reader.feed(self._buffer)
        del self._buffer[:consumed]

    def end(self) -> None:
        """The source's framing says that it is over. Raises ``RemoteProtocolError`` where it is not whole."""
        reader = self._reader
        if not reader.done:
            raise RemoteProtocolError(
                f"the snapshot ended after {reader.bytes_in} bytes and {reader.keys} keys, in the middle of its data",
                remedy="start again; the source's log says why it stopped (memory, repl-timeout, output-buffer limit)",
                code="VK-SNAPSHOT-TRUNCATED",
            )
        if self._buffer:
            raise RemoteProtocolError(
                f"{len(self._buffer)} bytes follow the snapshot's end",
                remedy="start again; report this with the source's version",
                code="VK-SNAPSHOT-TRAILING",
            )
        if self._spool is not None:
            self._spool.seal()
        self.close()

    def close(self) -> None:
        """Remove the file aside. Idempotent."""
        self._aside.close()


def _nothing(data: bytes | bytearray | memoryview) -> None:
    """Nothing more comes of a snapshot that was taken."""
    del data
