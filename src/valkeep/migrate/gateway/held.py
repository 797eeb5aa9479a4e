"""What the source goes on saying while its channel does not translate, because a key has to be copied again or a person has to act.

It waits as it came, on a spool of its own that is addressed by the source's offsets; the source's output buffer stays drained. When the wait is over it is
read again, piece by piece, behind whatever the channel still has in memory.

So that another process can read it too, after a kill -9, the spool begins where the checkpoint is, and not where the translation stopped: what was
translated and does not stand before a boundary yet is put there first. That is remembered all the time, up to a limit::

    source   ──────────────● boundary ─────────────● translation stops ──────────●
                           ├─ remembered ──────────┼─ in the buffer ─┼─ appended ─┤
                           └────────────────────── the spool ───────────────────┘

What it does not do: it knows nothing of why the channel waits, nor of what the bytes mean.
"""

from __future__ import annotations

from pathlib import Path

from valkeep.migrate.spool import Spool

__all__ = ["HeldStream"]

PIECE = 1 << 18
REMEMBERED = 16 << 20
"""Bytes behind the newest boundary that are remembered: a longer command or transaction has to come from the source again after a kill."""


class HeldStream:
    """``name``: of the spool in ``directory``. ``open``: something waits, or may: whatever comes has to be appended here."""

    def __init__(self, directory: Path, name: str, *, limit: int) -> None:
        self.open = False
        self._directory = directory
        self._name = name
        self._limit = limit
        self._spool: Spool | None = None
        self._read = 0  # source offset
        self._behind: bytearray | None = bytearray()  # what was translated behind the newest boundary; None: too much

    def reopen(self, source: int) -> None:
        """Go on with what another process left, from the offset ``source`` on. Raises ``SpoolDamaged``."""
        if not any(self._directory.glob(f"{self._name}-*")):
            return
        spool = Spool.reopen(self._directory, self._name, limit=self._limit)
        if spool.start <= source < spool.end:
            self._take(spool, source)
        else:  # it begins behind what was too long to be remembered, or ends before what was translated since
            spool.close()

    def remember(self, buffer: bytearray, boundary: int | None, end: int) -> None:
        """Of the buffer the bytes up to ``end`` were translated. ``boundary``: where in it the newest boundary stands; None: they have none."""
        begin = 0
        if boundary is not None:
            begin = boundary
            self._behind = bytearray()
        if self._behind is not None and end > begin:
            if len(self._behind) + end - begin > REMEMBERED:
                self._behind = None
            else:
                self._behind += memoryview(buffer)[begin:end]

    def begin(self, source: int, untranslated: bytearray) -> None:
        """From now on things wait here. ``source``: how far the stream was translated; ``untranslated``: what is behind that and in the channel's memory."""
        behind = self._behind if self._behind is not None else bytearray()
        spool = Spool(self._directory, self._name, start=source - len(behind), limit=self._limit)
        self._take(spool, spool.start)
        spool.append(behind)
        spool.append(untranslated)
        self._read = spool.end

    def append(self, data: bytes | memoryview) -> None:
        assert self._spool is not None
        self._spool.append(data)

    def next(self, checkpoint: int) -> bytes:
        """The next piece; nothing is left when it is empty, and this is closed. What stands before the source's offset ``checkpoint`` is given back."""
        assert self._spool is not None
        piece = self._spool.read(self._read, PIECE)
        if piece:
            self._read += len(piece)
            self._spool.trim(checkpoint)
        else:
            self.close()
        return piece

    @property
    def left(self) -> int:
        """Bytes that were not read again yet."""
        return 0 if self._spool is None else self._spool.end - self._read

    def reaches(self, source: int) -> int:
        """Up to which offset of the source everything behind ``source`` is here, on the disk; ``source`` where that is nothing."""
        if self._spool is None or self._spool.start > source:
            return source
        return self._spool.end

    def close(self, *, leave: bool = False) -> None:
        """Remove it; or ``leave`` it for another process."""
        spool, self._spool, self.open = self._spool, None, False
        if spool is not None:
            if leave:
                spool.leave()
            else:
                spool.close()

    def _take(self, spool: Spool, read: int) -> None:
        self._spool, self._read, self.open = spool, read, True
