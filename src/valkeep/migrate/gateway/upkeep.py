"""What the gateway does by the clock, twice a second: tell how far it is, measure each target's lag, keep links alive, give disk space back.

**Lag** is measured by asking: a GETACK goes into the stream, and the time until the target has acknowledged what stood before it is the lag in
milliseconds. A target that has not answered yet is told with the time it already took, so that a stalled one is seen while it stalls.

**Space.** Of the stream, what every attached target has acknowledged is trimmed, up to a backlog for those that come back. The snapshot is kept for
further targets until more than ``keep`` bytes were written behind it; or until the gateway's owner releases it (``keep`` 0).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from valkeep.migrate.gateway.channel import GETACK, Channel
from valkeep.report.events import Emit, Held, Lag, Note, Progress

if TYPE_CHECKING:
    from valkeep.migrate.gateway.link import Link

__all__ = ["Upkeep"]

TICK_SECONDS = 0.5
PING_SECONDS = 10.0


class Upkeep:
    """``channels``, ``links``: the gateway's own, as they come and go. ``expected``: (keys, bytes) of the source's snapshot as far as known, 0 where not.
    ``backlog``, ``keep``, ``spool_limit``: bytes, see ``GatewayOptions``."""

    def __init__(
        self,
        channels: Sequence[Channel],
        links: Sequence[Link],
        expected: Callable[[], tuple[int, int]],
        emit: Emit,
        clock: Callable[[], float],
        *,
        backlog: int,
        keep: int,
        spool_limit: int,
    ) -> None:
        self._channels = channels
        self._links = links
        self._expected = expected
        self._emit = emit
        self._clock = clock
        self._keep = min(keep, spool_limit // 2) if spool_limit else keep
        self._backlog = min(backlog, spool_limit // 4) if spool_limit else backlog
        self._last_growth: dict[str, tuple[int, float]] = {}  # replid -> (our offset, since when)
        self._asked: dict[Link, tuple[int, float]] = {}  # (our offset before the GETACK, when)
        self._told_held: set[str] = set()

    async def run(self) -> None:
        """Never returns."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = self._clock()
            for channel in self._channels:
                channel.ledger.tell()
                if channel.complete:
                    self._tend(channel, now)
                else:
                    taken = channel.taken
                    keys, size = self._expected()
                    self._emit(Progress(now, "snapshot", taken.keys, taken.source_bytes, keys, size))

    def acknowledged(self, link: Link) -> None:
        """The target has acknowledged more."""
        asked = self._asked.get(link)
        if asked is not None and link.acknowledged >= asked[0]:
            del self._asked[link]
            self._tell_lag(link, asked[1], self._clock())

    def left(self, link: Link) -> None:
        """The target is gone; it may come back on another link."""
        self._asked.pop(link, None)

    def _tend(self, channel: Channel, now: float) -> None:
        self._tell_held(channel, now)
        self._keep_alive(channel, now)
        links = [link for link in self._links if link.channel is channel]
        for link in links:
            if link.online:
                self._measure_lag(channel, link, now)
            else:
                snapshot = channel.snapshot.end if channel.snapshot is not None else 0
                self._emit(Progress(now, "load", bytes=link.snapshot_sent, total_bytes=snapshot, total_keys=channel.taken.keys))
        self._give_back(channel, links, now)

    def _keep_alive(self, channel: Channel, now: float) -> None:
        ends, since = self._last_growth.get(channel.replid, (-1, now))
        if channel.ends != ends:
            self._last_growth[channel.replid] = (channel.ends, now)
        elif now - since > PING_SECONDS:
            channel.keep_alive()

    def _measure_lag(self, channel: Channel, link: Link, now: float) -> None:
        asked = self._asked.get(link)
        if asked is not None:
            self._tell_lag(link, asked[1], now)
            return
        ends = channel.ends  # the answer to GETACK does not count GETACK itself
        if channel.insert(GETACK):
            self._asked[link] = (ends, now)

    def _tell_lag(self, link: Link, asked: float, now: float) -> None:
        self._emit(Lag(now, link.peer, link.lag, (now - asked) * 1000))

    def _tell_held(self, channel: Channel, now: float) -> None:
        wanted = channel.wanted
        if wanted is not None and wanted.hold is not None:
            self._told_held.add(channel.replid)
            self._emit(Held(now, wanted.offset, channel.untranslated_bytes, wanted.hold.why, wanted.hold.remedy))
        elif channel.replid in self._told_held:
            self._told_held.remove(channel.replid)
            self._emit(Held(now, channel.source_offset, 0, "", ""))

    def _give_back(self, channel: Channel, links: list[Link], now: float) -> None:
        written = channel.ends - channel.begins
        if channel.snapshot is not None and self._keep and written > self._keep and all(link.online for link in links):
            channel.release_snapshot()
            text = f"more than {self._keep >> 20} MB were written since the snapshot, which is given up: no further target can attach to this gateway"
            self._emit(Note(now, "warning", text, {"remedy": "start the gateway again for a new snapshot"}))
        if channel.snapshot is not None:
            return
        if links:
            channel.stream.trim(min(link.acknowledged for link in links) - self._backlog)
        elif self._keep:
            channel.stream.trim(channel.ends - self._keep)
