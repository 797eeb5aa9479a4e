"""A snapshot, rewritten for one target while it arrives: bytes in, bytes out, any chunking.

Nearly everything is passed on as it is. The compiled scanner steps over records and stops only at what is flagged here (``_attention``):

    header              replaced by the target's (REDIS0011 or VALKEY080)
    SELECTDB            checked: a database number beyond the target's `databases` makes a Valkey exit while it loads
    AUX                 passed on; `repl-stream-db` and the source's version are remembered
    MODULE_AUX          stripped and noted: it may be written by a module that holds no key, and an unknown one makes a Valkey exit
    SLOT_INFO, KEY_META stripped: a hint, and metadata of modules (noted)
    hashes with TTLs    rewritten: HASH_2 for Valkey 9, plain hashes for Valkey 8 under the field-TTL policy
    module values, unknown types   refused, by name, before anything of them is sent
    EOF, CRC            the source's is checked, the target's own is written

Memory: values stream through. Only a hash that loses fields has to wait until its last field is known, because its count stands before
its entries; small ones are done in memory, larger ones go ``aside`` to disk.

What this does not do: it neither reads nor writes anything itself (``write`` and ``aside`` are given), and it does not decide when the target
may have the bytes.
"""

from __future__ import annotations

from collections.abc import Callable

from valkeep.errors import RemoteProtocolError
from valkeep.migrate.transform.maybe import MaybeSet
from valkeep.migrate.transform.notes import LedgerNote, TakeNote
from valkeep.migrate.transform.output import Bytes, Output
from valkeep.migrate.transform.records import Aside, Records
from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.wire.checksum import crc64
from valkeep.wire.rdb import opcodes

__all__ = ["Aside", "Bytes", "SnapshotTransform"]

_WHY_CONVERTED = "hashes with field TTLs, written in the target's own encoding; nothing lost"


class SnapshotTransform:
    """Rewrites one snapshot for ``target`` under ``policy``; what is to be sent goes to ``write``, in order, and what the ledger has to say to ``note``.

    ``done``: the whole snapshot was read and its checksum was right. ``lost_fields``: keys that lost fields so far.
    """

    def __init__(
        self,
        target: TargetFormat,
        policy: FieldTtl,
        note: TakeNote,
        write: Callable[[Bytes], object],
        aside: Aside,
        *,
        source_offset: int = 0,
    ) -> None:
        self.target = target
        self.policy = policy
        self.bytes_in = 0
        self.done = False
        self.lost_fields = MaybeSet()
        self._note = note
        self._out = Output(write)
        self._aside = aside
        self._offset = source_offset
        self._records: Records | None = None  # until the header is there
        self._crc = 0

    @property
    def rdb_version(self) -> int:
        """The version in the source's header; 0 before it came."""
        return self._records.header.version if self._records is not None else 0

    @property
    def keys(self) -> int:
        """Records passed or rewritten so far."""
        return self._records.keys if self._records is not None else 0

    @property
    def repl_stream_db(self) -> int:
        """The database that the source's stream begins in, or -1."""
        return self._records.repl_stream_db if self._records is not None else -1

    def feed(self, buffer: bytearray) -> int:
        """Rewrite what is complete in ``buffer``; returns how many bytes were consumed. The rest has to be presented again with more behind it.

        Nothing is consumed past the snapshot's end (``done``). Raises ``RemoteProtocolError`` (damaged) or ``Refused`` (cannot cross); what was
        written before is then of no use, because a target takes a snapshot whole.
        """
        if self.done:
            return 0
        position = 0
        with memoryview(buffer) as view:
            records = self._records
            if records is None:
                header = opcodes.parse_header(view)
                if header is None:
                    return 0
                records = self._records = self._begin(header)
                position = opcodes.HEADER_SIZE
            position = records.feed(view, position, len(buffer))
            self._crc = crc64(view[:position], self._crc)
            if records.ended:
                position = self._end(records, view, position)
        self._out.flush()
        self.bytes_in += position
        return position

    def _begin(self, header: opcodes.Header) -> Records:
        opcodes.check_version(header)
        self._out.send(self.target.header)
        return Records(header, self.target, self.policy, self._note, self._out, self._aside, self.lost_fields, self._offset)

    def _end(self, records: Records, view: memoryview, position: int) -> int:
        size = 1 + (opcodes.FOOTER_SIZE if records.header.has_footer else 0)
        if len(view) - position < size:
            return position
        found = crc64(view[position : position + 1], self._crc)
        claimed = int.from_bytes(view[position + 1 : position + size], "little")
        if claimed and claimed != found:
            raise RemoteProtocolError(
                f"the snapshot is damaged: its checksum is {claimed:016x}, its bytes give {found:016x} (after {self.keys} keys)",
                remedy="start again; if it happens twice, check the source's memory and the network between (nothing was sent to be loaded)",
                code="VK-SNAPSHOT-CRC",
            )
        self._out.send(view[position : position + 1])
        self._out.seal()
        if records.converted and self.target.field_ttl:
            self._note(LedgerNote("converted", "hash-encoding", _WHY_CONVERTED, source_offset=self._offset, things=records.converted))
        self.done = True
        return position + size
