"""A channel: one rendering of the source's data for one (target format, policy), with its own replication id and offsets.

Because rewriting changes byte counts, a target can't be told the source's offsets. Each channel therefore is a primary of its own: it has a
replication id, an offset space that begins where the snapshot was taken, and a backlog (the stream spool). ``covering`` maps a source offset to
the channel's::

    source   812 ──────────── 1900 ───────────── 2400      bytes of the source's stream, processed up to here
    channel  812 ──────────── 1862 ───────────── 2301      bytes of our stream that have their effect

The map is a list of marks, one for each piece that was translated; older marks are thinned out, which only makes an answer later than needed,
never too early.

**Waiting.** When the translation needs a key copied again, or must not go on at all (hold), the channel stops translating and puts what the
source goes on sending on a spool of its own (``-held``); the source's output buffer stays drained. ``resume`` works that off.

**Without a snapshot.** A target that has all of the source's data already (the old server, after a cut-over) is told the rest only: the channel begins where
that target stands, in its own history (`Joined`), and knows it by that.

What it does not do: talk to anybody. The gateway feeds it and hands out what it holds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from valkeep.errors import RemoteProtocolError
from valkeep.migrate.spool import AsideFile, Spool
from valkeep.migrate.transform.snapshot import SnapshotTransform
from valkeep.migrate.transform.stream import Copy, StreamTransform, Wanted
from valkeep.wire.resp import encode

if TYPE_CHECKING:
    from valkeep.migrate.ledger import Ledger
    from valkeep.migrate.transform.target import FieldTtl, TargetFormat

__all__ = ["Channel", "Joined"]

PING = encode(b"PING")
GETACK = encode(b"REPLCONF", b"GETACK", b"*")
MARKS = 1 << 15
HELD_PIECE = 1 << 18


@dataclass(frozen=True, slots=True)
class Joined:
    """Where a target stands that has the source's data already: at ``offset`` of the history ``replid``. It asks us to go on from there."""

    replid: str
    offset: int


class Channel:
    """See the module's head. ``replid``: 40 hex digits of our own; ``begins``: our offset at the snapshot; ``ends``: our offset now.

    ``source_offset``: how far the source's stream was translated. ``wanted``: what it waits for, or None.
    """

    def __init__(
        self,
        target: TargetFormat,
        policy: FieldTtl,
        ledger: Ledger,
        directory: Path,
        replid: str,
        *,
        source_version: tuple[int, ...],
        valkey: bool = False,
        source_offset: int,
        joined: Joined | None = None,
        spool_limit: int = 0,
        on_wanted: Callable[[Channel, Wanted], None],
    ) -> None:
        begins = source_offset if joined is None else joined.offset
        self.joined = joined
        self.target = target
        self.policy = policy
        self.ledger = ledger
        self.replid = replid
        self.begins = begins
        self.source_offset = source_offset
        self.complete = joined is not None
        self.wanted: Wanted | None = None
        snapshot = Spool(directory, f"snapshot-{replid[:8]}", limit=spool_limit)
        self.snapshot: Spool | None = snapshot if joined is None else None
        self.stream = Spool(directory, f"stream-{replid[:8]}", start=begins, limit=spool_limit)
        self._directory = directory
        self._spool_limit = spool_limit
        self._on_wanted = on_wanted
        self._aside = AsideFile(directory / f"aside-{replid[:8]}")
        self._reader = SnapshotTransform(target, policy, ledger.record, snapshot.append, self._aside, source_offset=source_offset)
        self._translator = StreamTransform(
            source_version, target, policy, ledger.record, lost_fields=self._reader.lost_fields, valkey=valkey
        )
        self._buffer = bytearray()
        self._held: Spool | None = None
        self._held_read = 0
        self._own_tail = 0
        self._marks_source = [source_offset]
        self._marks_own = [begins]

    @property
    def keys(self) -> int:
        """Records of the snapshot read so far."""
        return self._reader.keys

    @property
    def snapshot_bytes(self) -> int:
        """Bytes of the source's snapshot read so far."""
        return self._reader.bytes_in

    @property
    def source_rdb_version(self) -> int:
        """The version in the source's snapshot header; 0 before it came."""
        return self._reader.rdb_version

    @property
    def ends(self) -> int:
        return self.stream.end

    @property
    def said(self) -> int:
        """Our offset behind the last thing that the source said: what follows is our own (GETACK, PING)."""
        return self.stream.end - self._own_tail

    @property
    def writes(self) -> int:
        """Commands of the source's stream so far that may have written something."""
        return self._translator.writes

    @property
    def held_bytes(self) -> int:
        """Bytes of the source's stream that wait for ``resume``."""
        return 0 if self._held is None else self._held.end - self._held_read

    @property
    def untranslated_bytes(self) -> int:
        """Bytes of the source's stream that are here and not in ours yet: in memory, and held on disk."""
        return len(self._buffer) + self.held_bytes

    @property
    def copying(self) -> bool:
        """Whether copies are here that are not in our stream yet, because the source's has not come to their offset."""
        return self._translator.copying

    # -- snapshot ------------------------------------------------------------------------------------------------------------------

    def feed_snapshot(self, data: bytes | memoryview) -> None:
        """Take the next piece of the source's snapshot. Raises ``RemoteProtocolError``, ``Refused`` or ``SpoolFull``."""
        self._buffer += data
        consumed = self._reader.feed(self._buffer)
        del self._buffer[:consumed]

    def end_snapshot(self) -> None:
        """The source's framing says that the snapshot is over: it must be whole. From here on the stream may come."""
        if not self._reader.done:
            raise RemoteProtocolError(
                f"the snapshot ended after {self._reader.bytes_in} bytes and {self._reader.keys} keys, in the middle of its data",
                remedy="start again; the source's log says why it stopped (memory, repl-timeout, output-buffer limit)",
                code="VK-SNAPSHOT-TRUNCATED",
            )
        if self._buffer:
            raise RemoteProtocolError(
                f"{len(self._buffer)} bytes follow the snapshot's end",
                remedy="start again; report this with the source's version",
                code="VK-SNAPSHOT-TRAILING",
            )
        if self.snapshot is not None:
            self.snapshot.seal()
        self.complete = True
        database = self._translator.database = max(self._reader.repl_stream_db, 0)
        # A replica's stream carries no SELECT; the database stands in the snapshot only. Said explicitly, it holds for every target.
        self.stream.append(encode(b"SELECT", database))
        self._mark()
        self._aside.close()

    def knows(self, replid: str | None, offset: int) -> bool:
        """Whether a target that has everything up to ``offset`` of that history can go on from our stream."""
        if not self.complete or not self.stream.start <= offset <= self.ends:
            return False
        return replid == self.replid or (self.joined is not None and (replid, offset) == (self.joined.replid, self.joined.offset))

    def release_snapshot(self) -> None:
        """No target will ask for the snapshot any more: give its space back."""
        if self.snapshot is not None:
            self.snapshot.close()
            self.snapshot = None

    # -- stream --------------------------------------------------------------------------------------------------------------------

    def feed_stream(self, data: bytes | memoryview) -> None:
        """Take the next piece of the source's stream. Never blocks for longer than the translation of what is given."""
        if self._held is not None:
            self._held.append(data)
        else:
            self._buffer += data
            self._translate()

    def supply(self, copies: list[Copy]) -> None:
        """What was wanted is here. Raises ``Refused`` when a value cannot be sent; the channel then goes on waiting."""
        self._translator.supply(copies)
        self.wanted = None

    def resume(self) -> bool:
        """Work off a piece of what was held; True while there is more to do right now."""
        if self.wanted is not None:
            return False
        self._translate()
        if self._held is None or self._waiting():
            return False
        piece = self._held.read(self._held_read, HELD_PIECE)
        if not piece:
            self._held.close()
            self._held = None
            return False
        self._held_read += len(piece)
        self._held.trim(self._held_read)
        self._buffer += piece
        self._translate()
        return not self._waiting()

    def demand(self, places: tuple[tuple[int, bytes], ...]) -> bool:
        """Have these keys copied again (a repair). False while the channel already waits for something."""
        if self.wanted is not None or not self.complete:
            return False
        self._wait(self._translator.demand(places, self.source_offset))
        return True

    def insert(self, command: bytes) -> bool:
        """Put a command of our own (GETACK) into the stream; False when the stream is within a command or a transaction just now.

        ``covering`` does not count it: what the source sent had its effect before.
        """
        if not self.complete or not self._translator.at_boundary:
            return False
        self.stream.append(command)
        self._own_tail += len(command)
        return True

    def keep_alive(self) -> None:
        """Say something, so that no target believes us dead: a PING, or a bare newline within a transaction (which a Valkey counts and skips)."""
        if self.complete and self._translator.between_commands:
            command = PING if self._translator.at_boundary else b"\n"
            self.stream.append(command)
            self._own_tail += len(command)

    def take_acknowledge(self) -> bool:
        """Whether the source asked for an ACK since the last call."""
        asked, self._translator.acknowledge = self._translator.acknowledge, False
        return asked

    def covering(self, source_offset: int) -> int | None:
        """Our offset at which everything up to ``source_offset`` has had its effect; None while it was not translated that far, or has it with
        copies that are still under way."""
        if source_offset > self.source_offset:
            return None
        index = bisect_left(self._marks_source, source_offset)
        return self._marks_own[index] if index < len(self._marks_own) else None

    def close(self) -> None:
        """Remove what is on disk."""
        self.release_snapshot()
        self.stream.close()
        self._aside.close()
        if self._held is not None:
            self._held.close()
            self._held = None

    def _translate(self) -> None:
        translator = self._translator
        # Copies that were asked for while the source said nothing are due at once, and not with its next word.
        while (self._buffer or translator.copying) and translator.wants is None:
            copying = translator.copying
            consumed, out = translator.feed(self._buffer, self.source_offset)
            if len(out):
                self.stream.append(out)
                self._own_tail = 0
            if isinstance(out, memoryview):
                out.release()
            if consumed:
                del self._buffer[:consumed]
                self.source_offset += consumed
                self._mark()
            elif translator.wants is None:
                if copying and not translator.copying:
                    self._mark()
                break
        if translator.wants is not None:
            self._wait(translator.wants)

    def _waiting(self) -> bool:
        return self.wanted is not None

    def _wait(self, wanted: Wanted) -> None:
        self.wanted = wanted
        if self._held is None:
            self._held = Spool(self._directory, f"held-{self.replid[:8]}", limit=self._spool_limit)
            self._held_read = 0
        self._on_wanted(self, wanted)

    def _mark(self) -> None:
        if self._translator.copying:
            return  # what was absorbed has its effect when the copies are sent, at the next mark
        if self._marks_source[-1] == self.source_offset:
            self._marks_own[-1] = self.stream.end
            return
        if len(self._marks_source) >= MARKS:
            half = MARKS // 2
            self._marks_source[:half] = self._marks_source[1:half:2]
            self._marks_own[:half] = self._marks_own[1:half:2]
        self._marks_source.append(self.source_offset)
        self._marks_own.append(self.stream.end)
