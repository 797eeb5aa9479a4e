"""Keys that are copied again: read by the feed at a known offset, handed to the channel that waits for them.

The offset is what makes it exact: the channel absorbs what the stream says about the key up to there.

What cannot be copied either (a module's value, a denied DUMP) is told as a hold, once, with its remedy, and tried again: the person may delete the
key or permit the command, and then the stream goes on by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from valkeep.errors import ConnectionLost, Refused
from valkeep.migrate.transform.notes import LedgerNote
from valkeep.migrate.transform.outcomes import Hold
from valkeep.migrate.transform.stream import Wanted
from valkeep.report.events import Emit, Note

if TYPE_CHECKING:
    from valkeep.migrate.feed import Feed
    from valkeep.migrate.gateway.channel import Channel
    from valkeep.migrate.gateway.ledger import Ledger
    from valkeep.migrate.transform.target import FieldTtl

__all__ = ["Copier"]

HOLD_RETRY_SECONDS = 2.0


class Copier:
    """Satisfies what channels want. ``moved``: called whenever a channel has gone on; ``patience``: seconds that a hold may last until it is an error (None:
    for ever, somebody watches)."""

    def __init__(
        self,
        feed: Feed,
        policy: FieldTtl,
        ledger: Ledger,
        emit: Emit,
        clock: Callable[[], float],
        moved: Callable[[], None],
        patience: float | None,
    ) -> None:
        self._feed = feed
        self._policy = policy
        self._ledger = ledger
        self._emit = emit
        self._clock = clock
        self._moved = moved
        self._patience = patience

    async def satisfy(self, channel: Channel, wanted: Wanted) -> None:
        """Fetch what the channel waits for; where that does not help, say so and try again: the cause may go away."""
        told = ""
        since = self._clock()
        if wanted.hold is not None:
            told = self._tell_hold(wanted, wanted.hold.why, wanted.hold.remedy)
        while channel.wanted is wanted:
            if wanted.hold is not None and self._impatient(wanted, since):
                raise Refused(f"nothing more can be sent: {wanted.hold.why}", remedy=wanted.hold.remedy, code="VK-HELD")
            if not wanted.places:
                return
            try:
                channel.supply(await self._feed.read(wanted.places))
            except Refused as error:
                if error.message != told:
                    told = self._tell_hold(wanted, error.message, f"{error.remedy}; the stream then goes on by itself")
                    wanted = channel.wanted = replace(wanted, hold=Hold(error.message, error.remedy, wanted.places))
                await asyncio.sleep(HOLD_RETRY_SECONDS)
            except ConnectionLost as error:
                self._emit(Note(self._clock(), "warning", f"a key could not be copied again yet: {error.message}"))
                await asyncio.sleep(HOLD_RETRY_SECONDS)
        await self.work_off(channel)

    async def work_off(self, channel: Channel) -> None:
        """What came while it waited, until it has to wait again."""
        while channel.resume():
            self._moved()
            await asyncio.sleep(0)
        self._moved()

    def _impatient(self, wanted: Wanted, since: float) -> bool:
        """Whether to give up: at once where trying again cannot help, else when a hold has lasted too long."""
        if self._patience is None:
            return False
        return not wanted.places or self._clock() - since > self._patience

    def _tell_hold(self, wanted: Wanted, why: str, remedy: str) -> str:
        key = wanted.places[0][1] if wanted.places else None
        database = wanted.places[0][0] if wanted.places else 0
        what = f"command {wanted.command.decode('ascii', 'replace')}"
        self._ledger.record(LedgerNote("held", what, why, self._policy.value, key, database, wanted.offset))
        self._ledger.flush()
        self._emit(
            Note(
                self._clock(),
                "error",
                f"nothing more is sent from source offset {wanted.offset} on: {why}. {remedy[:1].upper()}{remedy[1:]}.",
                {"code": "VK-HELD", "offset": wanted.offset, "remedy": remedy},
            )
        )
        return why
