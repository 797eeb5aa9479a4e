"""Tells a handler the entries of a stream's nodes, each a listpack that is whole in memory.

A node has a master id (16 bytes, big-endian: ms, seq) and::

    count deleted N field1 … fieldN 0                                              the master entry
    flags ms-diff seq-diff [n field1] value1 … [fieldn] valuen pieces              one entry; the diffs are from the master id

flags 1: deleted. flags 2: its fields are those of the master entry, so that only values stand here. pieces: the number of listpack
entries that this entry is, without this one.

Source: t_stream.c streamAppendItem and streamValidateListpackIntegrity, Redis 5.0 to 8.4.
"""

from __future__ import annotations

from valkeep.errors import RemoteProtocolError

from ..listpack import AT_END, AT_INTEGER, Reader
from .handler import Handler

__all__ = ["Nodes"]

_DELETED = 1
_SAME_FIELDS = 2


class Nodes:
    """Reads node after node. After `begin`, `has_first`, `first_ms` and `first_seq` say which entry of the stream came first."""

    __slots__ = ("first_ms", "first_seq", "has_first", "reader")

    def __init__(self) -> None:
        self.reader = Reader()
        self.has_first = False
        self.first_ms = 0
        self.first_seq = 0

    def begin(self) -> None:
        """A stream begins."""
        self.has_first = False
        self.first_ms = 0
        self.first_seq = 0

    def tell(self, handler: Handler, master: bytes, blob: bytes) -> None:
        """Call `handler` for each entry that is not deleted."""
        if len(master) != 16:
            raise RemoteProtocolError(
                f"a stream node has a master id of {len(master)} bytes, not 16", remedy="the snapshot is damaged: take it again"
            )
        base_ms = int.from_bytes(master[:8], "big")
        base_seq = int.from_bytes(master[8:], "big")
        reader = self.reader
        reader.open(blob)
        valid = reader.integer()
        deleted = reader.integer()
        shared = self.names(reader)
        while reader.advance() != AT_END:
            if reader.state != AT_INTEGER:
                raise reader.broken("has no flags where an entry of a stream begins")
            flags = reader.number
            ms_diff = reader.integer()
            seq_diff = reader.integer()
            fields: list[bytes] = []
            if flags & _SAME_FIELDS:
                for name in shared:
                    fields.append(name)
                    fields.append(self.text(reader))
                pieces = 3 + len(shared)
            else:
                names = reader.integer()
                if names < 0:
                    raise reader.broken("has an entry of a stream with a negative number of fields")
                while names > 0:
                    fields.append(self.text(reader))
                    fields.append(self.text(reader))
                    names -= 1
                pieces = 4 + len(fields)
            if reader.integer() != pieces:
                raise reader.broken(f"has an entry of a stream of {pieces} pieces, and another number stands behind it")
            if flags & _DELETED:
                deleted -= 1
                continue
            valid -= 1
            ms = (base_ms + ms_diff) & 0xFFFFFFFFFFFFFFFF
            seq = (base_seq + seq_diff) & 0xFFFFFFFFFFFFFFFF
            if not self.has_first:
                self.has_first = True
                self.first_ms = ms
                self.first_seq = seq
            handler.stream_entry(ms, seq, fields)
        if valid != 0 or deleted != 0:
            raise reader.broken("counts other entries, or other deleted ones, than it has")

    def names(self, reader: Reader) -> list[bytes]:
        """The fields of the master entry, and the 0 behind them."""
        names = reader.integer()
        if names < 0:
            raise reader.broken("has a master entry with a negative number of fields")
        shared: list[bytes] = []
        while names > 0:
            shared.append(self.text(reader))
            names -= 1
        if reader.integer() != 0:
            raise reader.broken("has a master entry that does not end with 0")
        return shared

    def text(self, reader: Reader) -> bytes:
        value = reader.next()
        if value is None:
            raise reader.broken("ends inside an entry of a stream")
        return value
