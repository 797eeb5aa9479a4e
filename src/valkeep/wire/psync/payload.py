"""Where a snapshot ends inside the bytes of a replication connection. The one place that knows the framing."""

from __future__ import annotations

from .events import MARK_SIZE, PayloadStart


class Payload:
    """Where the snapshot ends in what follows ``PayloadStart``. Nothing is copied and nothing is kept: the bytes stay in the caller's buffer.

    ``split(buffer, filled)`` → ``(size, used)``::

        buffer   snapshot … snapshot | mark | stream …          the end is here:      done, stream from ``used`` on
                 0               size   used       filled
        buffer   snapshot … snapshot | the mark's beginning?    it is not yet:        ``size == used``; what lies behind is
                 0               size                 filled                          at most 39 bytes, given again with more

    ``done``: the end was seen; ``received``: snapshot bytes so far; ``left``: bytes that are still to come, None where only the mark can tell.
    """

    def __init__(self, start: PayloadStart) -> None:
        self.received = 0
        self.left = start.length
        self.done = start.length == 0
        self._mark = start.mark or b""

    def split(self, buffer: bytes | bytearray, filled: int) -> tuple[int, int]:
        """Look at the first ``filled`` bytes of ``buffer``; not to be called again once ``done``."""
        if self.left is not None:
            size = used = min(self.left, filled)
            self.left -= size
            self.done = self.left == 0
        elif (found := buffer.find(self._mark, 0, filled)) >= 0:
            size, used = found, found + MARK_SIZE
            self.done = True
        else:
            size = used = filled - _overlap(buffer, filled, self._mark)
        self.received += size
        return size, used


def _overlap(buffer: bytes | bytearray, filled: int, mark: bytes) -> int:
    """How many bytes before ``filled`` may be the beginning of ``mark``."""
    first = mark[:1]
    at = buffer.find(first, max(0, filled - MARK_SIZE + 1), filled)
    while at >= 0:
        if mark.startswith(buffer[at:filled]):
            return filled - at
        at = buffer.find(first, at + 1, filled)
    return 0
