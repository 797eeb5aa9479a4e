"""A channel: one rendering of the source's data for one (target format, policy), with its own replication id and offsets.

Because rewriting changes byte counts, a target can't be told the source's offsets. Each channel therefore is a primary of its own: it has a
replication id, an offset space that begins where the snapshot was taken, and a backlog (the stream spool). ``covering`` maps a source offset to
the channel's (`marks`).

**Waiting.** When the translation needs a key copied again, or must not go on at all (hold), the channel stops translating, and what the source goes on
sending waits on the disk (`held`). ``resume`` works that off.

**Boundaries.** Of our stream links see what stands before the newest boundary (``StreamTransform.boundary``): where a translation could be begun again. A
channel that is ``kept`` records it there, with all that belongs to it, before it commits it (`checkpoint`); after a kill -9 `Kept` says what is on
the disk, and the channel made from it goes on as if nothing had been.

**Without a snapshot.** A target that has all of the source's data already (the old server, after a cut-over) is told the rest only: the channel begins where
that target stands, in its own history (`Joined`), and knows it by that.

What it does not do: talk to anybody. The gateway feeds it and hands out what it holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from valkeep.errors import ValkeepError
from valkeep.migrate.gateway.checkpoint import Checkpoint, CheckpointFile, Kept, Taken
from valkeep.migrate.gateway.held import HeldStream
from valkeep.migrate.gateway.lost_fields import LostFields
from valkeep.migrate.gateway.marks import Marks
from valkeep.migrate.gateway.taking import Taking
from valkeep.migrate.spool import Spool
from valkeep.migrate.transform.copies import Copy
from valkeep.migrate.transform.stream import REPAIR, StreamTransform, Wanted
from valkeep.wire.commands import Place
from valkeep.wire.resp import encode

if TYPE_CHECKING:
    from valkeep.migrate.gateway.ledger import Ledger, LedgerMark
    from valkeep.migrate.transform.target import FieldTtl, TargetFormat
    from valkeep.migrate.transform.territory import Territory

__all__ = ["Channel", "Joined"]

PING = encode(b"PING")
GETACK = encode(b"REPLCONF", b"GETACK", b"*")
MOVED = 16 << 20
"""Bytes behind the newest boundary that are moved to say something of our own before them."""


class _Beside(NamedTuple):
    """What else belongs to a boundary, see `Checkpoint`."""

    ledger: LedgerMark
    lost: int


@dataclass(frozen=True, slots=True)
class Joined:
    """Where a target stands that has the source's data already: at ``offset`` of the history ``replid``. It asks us to go on from there."""

    replid: str
    offset: int


class Channel:
    """See the module's head. ``replid``: 40 hex digits of our own; ``begins``: our offset at the snapshot; ``ends``: our offset now.
    ``source_replid``: the source's replication id, as it is now. ``source_offset``: how far its stream was translated; ``received``: how far it is here
    for good, also after a kill. ``wanted``: what it waits for, or None. ``keep``: for another process, after a kill. ``kept``: go on with that.
    ``territory``: which slots cross; None: whatever there is."""

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
        source_replid: str = "",
        keep: bool = False,
        kept: Kept | None = None,
        territory: Territory | None = None,
    ) -> None:
        self.joined = joined
        self.target = target
        self.policy = policy
        self.ledger = ledger
        self.replid = replid
        self.begins = kept.begins if kept is not None else joined.offset if joined is not None else source_offset
        self.source_replid = source_replid
        self.source_offset = source_offset
        self.complete = joined is not None
        self.wanted: Wanted | None = None
        self.snapshot: Spool | None = None
        self._directory = directory
        self._spool_limit = spool_limit
        self._on_wanted = on_wanted
        self._buffer = bytearray()
        self._held = HeldStream(directory, f"held-{replid[:8]}", limit=spool_limit)
        self._own_tail = 0
        self._torn: ValkeepError | None = None
        self._to_copy = kept.checkpoint.copying if kept is not None else ()
        self._checkpoints = CheckpointFile(directory / f"checkpoint-{replid[:8]}") if keep else None
        self._lost = LostFields(directory / f"lost-{replid[:8]}") if keep else None
        self.checkpoint = Checkpoint(source_replid, source_offset, self.begins, 0, ledger=ledger.mark())
        if kept is None:
            self.snapshot = Spool(directory, f"snapshot-{replid[:8]}", limit=spool_limit) if joined is None else None
            self.stream = Spool(directory, f"stream-{replid[:8]}", start=self.begins, limit=spool_limit, staged=True)
        else:
            self._reopen(kept)
        self._taking = Taking(
            target,
            policy,
            ledger,
            self.snapshot,
            directory / f"aside-{replid[:8]}",
            source_offset=source_offset,
            taken=kept.taken if kept is not None else None,
        )
        lost = self._lost.reopen(kept.checkpoint.lost) if kept is not None and self._lost is not None else self._taking.lost_fields
        self._translator = StreamTransform(
            source_version,
            target,
            policy,
            ledger.record,
            database=self.checkpoint.database,
            lost_fields=lost,
            valkey=valkey,
            witness=self._beside,
            territory=territory,
        )
        self._marks = Marks(source_offset, self.stream.end, known=not self._to_copy)

    def _reopen(self, kept: Kept) -> None:
        """What is on the disk, up to the checkpoint. Raises ``SpoolDamaged``."""
        point = self.checkpoint = kept.checkpoint
        if self._checkpoints is not None:
            self._checkpoints.read()  # to go on with its number
        limit, begins = self._spool_limit, None
        if point.snapshot:
            self.snapshot = Spool.reopen(self._directory, f"snapshot-{self.replid[:8]}", start=0, end=kept.taken.length, limit=limit)
            self.snapshot.seal()
            begins = kept.begins  # who gets the snapshot gets all of the stream
        self.stream = Spool.reopen(self._directory, f"stream-{self.replid[:8]}", start=begins, end=point.own, limit=limit, staged=True)
        self.complete = True
        self._held.reopen(point.source)

    def go_on(self) -> bool:
        """To be called when the source goes on: the first time, what was under way when the channel was killed is taken up. Whether to ``resume`` it now."""
        copying, self._to_copy = self._to_copy, ()
        if copying:
            self._wait(self._translator.demand(copying, self.source_offset))
        return self._held.open and self.wanted is None

    @property
    def taken(self) -> Taken:
        """What there is of the snapshot so far."""
        return self._taking.taken

    @property
    def received(self) -> int:
        return self._held.reaches(self.checkpoint.source)

    @property
    def given(self) -> int:
        """Up to which offset of the source it was given everything; of that it may have less after a kill."""
        return self.source_offset + self.untranslated_bytes

    @property
    def ends(self) -> int:
        return self.stream.committed

    @property
    def said(self) -> int:
        """Our offset behind the last thing that the source said: what follows is our own (GETACK, PING)."""
        return self.stream.committed - self._own_tail

    @property
    def writes(self) -> int:
        """Commands of the source's stream so far that may have written something."""
        return self._translator.writes

    @property
    def held_bytes(self) -> int:
        """Bytes of the source's stream that wait for ``resume``."""
        return self._held.left

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
        self._taking.feed(data)

    def end_snapshot(self) -> None:
        """The source's framing says that the snapshot is over: it must be whole. From here on the stream may come."""
        self._taking.end()
        self.complete = True
        database = self._translator.database = self._taking.database
        if self._lost is not None:
            self._lost.begin(self._translator.lost_fields)
        # A replica's stream carries no SELECT; the database stands in the snapshot only. Said explicitly, it holds for every target.
        self.stream.append(encode(b"SELECT", database))
        self._record(self.source_offset, self.stream.end, database, (), self._beside())
        self._mark()

    def knows(self, replid: str | None, offset: int) -> bool:
        """Whether a target that has everything up to ``offset`` of that history can go on from our stream."""
        if not self.complete or not self.stream.start <= offset <= self.ends:
            return False
        return replid == self.replid or (self.joined is not None and (replid, offset) == (self.joined.replid, self.begins))

    def release_snapshot(self) -> None:
        """No target will ask for the snapshot any more: give its space back."""
        snapshot, self.snapshot = self.snapshot, None
        if snapshot is not None:
            self._again()
            snapshot.close()

    # -- stream --------------------------------------------------------------------------------------------------------------------

    def feed_stream(self, data: bytes | memoryview) -> None:
        """Take the next piece of the source's stream. Never blocks for longer than the translation of what is given."""
        if self._held.open:
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
        if not self._held.open or self._waiting():
            return False
        piece = self._held.next(self.checkpoint.source)
        if not piece:
            return False
        self._buffer += piece
        self._translate()
        return not self._waiting()

    def demand(self, places: tuple[tuple[int, bytes], ...], why: str = REPAIR) -> bool:
        """Have these keys copied again. False while the channel already waits for something. ``why``: for the ledger; "": that is nothing for it."""
        if self.wanted is not None or not self.complete:
            return False
        self._wait(self._translator.demand(places, self.source_offset, why))
        return True

    def insert(self, command: bytes) -> bool:
        """Put a command of our own (GETACK, PING) into the stream, before what is not committed yet; False when that is too much just now.

        ``covering`` does not count it: what the source sent had its effect before.
        """
        stream = self.stream
        behind = stream.end - stream.committed
        if not self.complete or behind > MOVED:
            return False
        if behind:
            stream.insert(command)
            self._marks.put_in(stream.committed, len(command))
        else:
            stream.append(command)
        self._own_tail += len(command)
        self._again(len(command))
        return True

    def keep_alive(self) -> None:
        """Say something, so that no target believes us dead."""
        self.insert(PING)

    def follow(self, source_replid: str) -> None:
        """The source's history goes on under this id."""
        self.source_replid = source_replid
        self._again()

    def take_acknowledge(self) -> bool:
        """Whether the source asked for an ACK since the last call."""
        asked, self._translator.acknowledge = self._translator.acknowledge, False
        return asked

    def covering(self, source_offset: int) -> int | None:
        """Our offset at which everything up to ``source_offset`` has had its effect; None while it was not translated that far, or has it with
        copies that are still under way."""
        if source_offset > self.source_offset:
            return None
        return self._marks.covering(source_offset)

    def close(self, *, leave: bool = False) -> None:
        """Remove what is on disk; or ``leave`` it for another process."""
        for spool in (self.snapshot, self.stream):
            if spool is not None and leave:
                spool.leave()
            elif spool is not None:
                spool.close()
        self.snapshot = None
        self._held.close(leave=leave)
        self._taking.close()
        for file in (self._checkpoints, self._lost):
            if file is not None:
                file.close()
                if not leave:
                    file.remove()

    def _translate(self) -> None:
        if self._torn is not None:
            raise self._torn
        try:
            self._take_buffer()
        except ValkeepError as error:
            self._torn = error  # the translation has gone on, and what came of it is not whole
            raise

    def _take_buffer(self) -> None:
        translator = self._translator
        # Copies that were asked for while the source said nothing are due at once, and not with its next word.
        while (self._buffer or translator.copying) and translator.wants is None:
            copying = translator.copying
            before = self.stream.end
            consumed, out = translator.feed(self._buffer, self.source_offset)
            if len(out):
                self.stream.append(out)
            if isinstance(out, memoryview):
                out.release()
            boundary = translator.boundary
            self._held.remember(self._buffer, None if boundary is None else max(boundary.source - self.source_offset, 0), consumed)
            if consumed:
                del self._buffer[:consumed]
                self.source_offset += consumed
            if boundary is not None:
                if before + boundary.out > self.stream.committed:
                    self._own_tail = 0
                self._record(boundary.source, before + boundary.out, boundary.database, boundary.copying, boundary.beside)
            if consumed:
                self._mark()
            elif translator.wants is None:
                if copying and not translator.copying:
                    self._mark()
                break
        if translator.wants is not None:
            self._wait(translator.wants)

    def _record(self, source: int, own: int, database: int, copying: tuple[Place, ...], beside: object) -> None:
        """The newest boundary is here: what stands before it may be read, once that is recorded."""
        assert isinstance(beside, _Beside)  # it is our own witness that said so
        point = Checkpoint(self.source_replid, source, own, database, copying, beside.ledger, beside.lost, self.snapshot is not None)
        if self._checkpoints is not None:
            if point == self.checkpoint:
                return
            self.ledger.flush()
            if not self._checkpoints.write(point):
                return
        self.checkpoint = point
        self.stream.commit(own)

    def _again(self, more: int = 0) -> None:
        """Record what has changed at the newest boundary itself. ``more``: bytes of our own behind it."""
        point = self.checkpoint
        if self.complete:
            self._record(point.source, point.own + more, point.database, point.copying, _Beside(point.ledger, point.lost))

    def _beside(self) -> _Beside:
        return _Beside(self.ledger.mark(), self._lost.size if self._lost is not None else 0)

    def _waiting(self) -> bool:
        return self.wanted is not None

    def _wait(self, wanted: Wanted) -> None:
        self.wanted = wanted
        if not self._held.open:
            self._held.begin(self.source_offset, self._buffer)
        self._on_wanted(self, wanted)

    def _mark(self) -> None:
        if self._translator.copying:
            return  # what was absorbed has its effect when the copies are sent, at the next mark
        self._marks.add(self.source_offset, self.stream.end)
