"""Which of our offsets covers one of the source's.

Because rewriting changes byte counts, a channel has offsets of its own::

    source   812 ──────────── 1900 ───────────── 2400      bytes of the source's stream, processed up to here
    channel  812 ──────────── 1862 ───────────── 2301      bytes of our stream that have their effect

The map is a list of marks, one for each piece that was translated. Older marks are thinned out, which only makes an answer later than needed, never too early.
"""

from __future__ import annotations

from bisect import bisect_left

__all__ = ["Marks"]

MARKS = 1 << 15


class Marks:
    """Begins with one: what stands before ``source`` has its effect at ``own``; where that is not ``known``, with none."""

    def __init__(self, source: int, own: int, *, known: bool = True) -> None:
        self._source = [source] if known else []
        self._own = [own] if known else []

    def covering(self, source: int) -> int | None:
        """Our offset at which everything up to ``source`` has had its effect; None where nobody knows yet."""
        index = bisect_left(self._source, source)
        return self._own[index] if index < len(self._own) else None

    def add(self, source: int, own: int) -> None:
        """Everything up to ``source`` has its effect at ``own``. Neither ever falls."""
        if self._source and self._source[-1] == source:
            self._own[-1] = own
            return
        if len(self._source) >= MARKS:
            half = MARKS // 2
            self._source[:half] = self._source[1:half:2]
            self._own[:half] = self._own[1:half:2]
        self._source.append(source)
        self._own.append(own)

    def put_in(self, at: int, length: int) -> None:
        """``length`` bytes that the source did not send were put into our stream at ``at``: what stood behind has moved."""
        own = self._own
        index = len(own) - 1
        while index >= 0 and own[index] > at:
            own[index] += length
            index -= 1
