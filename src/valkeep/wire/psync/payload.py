"""Where a snapshot ends inside the bytes of a replication connection."""

from __future__ import annotations

from .events import MARK_SIZE, PayloadStart


class Payload:
    """Where the snapshot ends in what follows ``PayloadStart``.

    ``split(data)`` → (snapshot bytes, bytes behind it). With a mark the last 39 bytes are held back until they are surely not its
    beginning. ``done``: the end was seen; ``received``: snapshot bytes so far.
    """

    def __init__(self, start: PayloadStart) -> None:
        self.done = start.length == 0
        self.received = 0
        self._left = start.length or 0
        self._mark = start.mark
        self._held = b""

    def split(self, data: bytes) -> tuple[bytes, bytes]:
        if self.done:
            return b"", data
        if self._mark is None:
            part, rest = data[: self._left], data[self._left :]
            self._left -= len(part)
            self.done = self._left == 0
        else:
            joined = self._held + data if self._held else data
            at = joined.find(self._mark)
            if at >= 0:
                part, rest, self._held = joined[:at], joined[at + MARK_SIZE :], b""
                self.done = True
            else:
                keep = _overlap(joined, self._mark)
                part, rest, self._held = joined[: len(joined) - keep], b"", joined[len(joined) - keep :]
        self.received += len(part)
        return part, rest


def _overlap(data: bytes, mark: bytes) -> int:
    """How many bytes at the end of ``data`` may be the beginning of ``mark``."""
    first = mark[:1]
    at = data.find(first, max(0, len(data) - MARK_SIZE + 1))
    while at >= 0:
        if mark.startswith(data[at:]):
            return len(data) - at
        at = data.find(first, at + 1)
    return 0
