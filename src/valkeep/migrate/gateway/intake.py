"""What the source sends goes in here: the receiver of the gateway's feed.

Channels are made when the source answers with a full resync, one for each target format that was asked for, and each gets every byte: sources are asked for
one snapshot, whatever the number of targets. Or they are made of what an earlier process kept; the source then is asked to go on where the one that has least
ends, and those that have more are given the rest only.

What it does not do: it knows neither targets nor who waits for what. What a channel lacks is somebody else's to fetch (``copy``).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from valkeep.migrate.feed import Position
from valkeep.migrate.gateway.channel import Channel, Joined
from valkeep.migrate.gateway.checkpoint import Kept
from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.report.events import Emit, Note, Phase

if TYPE_CHECKING:
    from valkeep.migrate.feed import Origin
    from valkeep.migrate.gateway.ledger import Ledger
    from valkeep.migrate.gateway.resumption import Resumption
    from valkeep.migrate.transform.stream import Wanted
    from valkeep.migrate.transform.territory import Territory

__all__ = ["Intake"]


class Intake:
    """A `client.replication.Receiver`. ``channels``: as they come. ``history``: the id of the source's stream now, "" before it said so. ``resynced``: there
    are channels; ``snapshot_taken``: they have the whole snapshot. ``origin``, ``address`` (ours): to be set as soon as they are known, before anything comes.

    ``copy``: a channel waits for this. ``go_on``: it has something of its own to work off. ``acknowledge``: the source asked how far we are. ``moved``: called
    at each piece of the stream. ``formats``, ``policy``, ``spool``, ``spool_limit``, ``join``, ``territory``: see ``GatewayOptions``.
    """

    def __init__(
        self,
        ledger: Ledger,
        emit: Emit,
        clock: Callable[[], float],
        *,
        copy: Callable[[Channel, Wanted], None],
        go_on: Callable[[Channel], None],
        acknowledge: Callable[[], None],
        moved: Callable[[], None],
        formats: Sequence[TargetFormat],
        policy: FieldTtl,
        spool: Path,
        spool_limit: int,
        join: Callable[[], Joined] | None,
        resumption: Resumption | None,
        territory: Territory | None = None,
    ) -> None:
        self.channels: list[Channel] = []
        self.history = ""
        self.origin: Origin | None = None
        self.address = ("", 0)
        self.resynced = asyncio.Event()
        self.snapshot_taken = asyncio.Event()
        self._ledger = ledger
        self._emit = emit
        self._clock = clock
        self._copy = copy
        self._go_on = go_on
        self._acknowledge = acknowledge
        self._moved = moved
        self._formats = formats
        self._policy = policy
        self._spool = spool
        self._spool_limit = spool_limit
        self._join = join
        self._resumption = resumption
        self._territory = territory
        self._offset = 0  # of the source, up to which channels were given everything

    def reopen(self, resumption: Resumption, origin: Origin) -> Position:
        """Make channels of what is kept; returns where the source has to go on."""
        for target, (own, kept) in zip(self._formats, resumption.channels.items(), strict=True):
            point = kept.checkpoint
            self.channels.append(self._channel(target, own, point.replid, point.source, None, kept))
        self.resynced.set()
        self.snapshot_taken.set()
        ahead = max(self.channels, key=lambda channel: channel.checkpoint.source)  # it knows the source's newest name
        received = [channel.received for channel in self.channels]
        since = Position(ahead.source_replid, min(received), max(received))
        text = f"goes on behind offset {since.offset} of {since.replid} of {origin.name}, without a full sync"
        self._emit(Note(self._clock(), "info", text))
        return since

    # -- the receiver -------------------------------------------------------------------------------------------------------------

    def full_resync(self, replid: str, offset: int) -> None:
        self.history = replid
        self._emit(Note(self._clock(), "info", f"the source starts a full sync at offset {offset} of {replid}"))
        self._open_channels(replid, offset, None)

    def continued(self, replid: str, offset: int) -> None:
        self.history = replid
        self._emit(Note(self._clock(), "info", f"the source goes on behind offset {offset}, as {replid}"))
        if self._join is not None:
            self._meet(replid, offset, self._join())
        self._offset = offset
        for channel in self.channels:
            if channel.source_replid != replid:
                channel.follow(replid)
            if channel.go_on():
                self._go_on(channel)

    def snapshot(self, data: memoryview) -> None:
        for channel in self.channels:
            channel.feed_snapshot(data)

    def snapshot_end(self) -> None:
        for channel in self.channels:
            channel.end_snapshot()
        self._ledger.flush()
        if self._resumption is not None and self.origin is not None:
            self._resumption.complete(self.origin, self.address, self.channels)
        self._emit(Phase(self._clock(), "snapshot", done=True, detail=f"{self.channels[0].taken.keys} keys"))
        self.snapshot_taken.set()

    def stream(self, data: memoryview) -> None:
        acknowledge = False
        at, self._offset = self._offset, self._offset + len(data)
        for channel in self.channels:
            if channel.given > at:  # it was ahead of the others when it was killed
                channel.feed_stream(data[channel.given - at :])
            else:
                channel.feed_stream(data)
            acknowledge = channel.take_acknowledge() or acknowledge
        if acknowledge:
            self._acknowledge()
        self._moved()

    # -- channels -----------------------------------------------------------------------------------------------------------------

    def _meet(self, replid: str, offset: int, joined: Joined) -> None:
        """The target has the data already. Channels that are gone on with know it by our own id, unless it never came to them."""
        if not self.channels:
            self._open_channels(replid, offset, joined)
        for channel in self.channels:
            channel.joined = joined
            channel.follow(replid)
        if self._resumption is not None and self.origin is not None:
            self._resumption.complete(self.origin, self.address, self.channels)
        self.snapshot_taken.set()

    def _open_channels(self, replid: str, offset: int, joined: Joined | None) -> None:
        self._offset = offset
        for target in self._formats:
            self.channels.append(self._channel(target, secrets.token_hex(20), replid, offset, joined, None))
        self.resynced.set()

    def _channel(
        self, target: TargetFormat, own: str, source_replid: str, offset: int, joined: Joined | None, kept: Kept | None
    ) -> Channel:
        origin = self.origin
        assert origin is not None  # it was looked at before it was started
        return Channel(
            target,
            self._policy,
            self._ledger,
            self._spool,
            own,
            source_version=origin.speaks,
            valkey=origin.valkey,
            source_offset=offset,
            joined=joined,
            spool_limit=self._spool_limit,
            on_wanted=self._copy,
            source_replid=source_replid,
            keep=self._resumption is not None,
            kept=kept,
            territory=self._territory,
        )
