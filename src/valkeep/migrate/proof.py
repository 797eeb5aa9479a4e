"""The proof of a running migration: what its verification has found so far, and what is looked at next.

    full      everything once, by snapshots, while the writers go on
    settle    what was written meanwhile, again and again, so that little is left for the pause
    round     the same, every few seconds, while a person has not decided yet
    last      in the pause: what was written since must be equal

What makes all of it void, a link that breaks or a FLUSHALL, has everything compared again; while nobody waits for it not at once, if the last time is not long
ago: a comparison of everything makes both sides fork.

A verifier is asked one thing at a time. The cut-over may lose patience with ``last``; that look itself goes on, and whatever is asked next waits for it.

A verifier has links of its own to both servers. When one of them breaks, or when the source's stream went on at another server meanwhile, what it looked at is
void: another verifier is begun, and everything is compared anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from valkeep.errors import ConnectionLost
from valkeep.migrate.fence import Aborted
from valkeep.migrate.outcome import NotEqual
from valkeep.migrate.verify import Comparison, Verifier

if TYPE_CHECKING:
    from valkeep.migrate.journal import Journal

__all__ = ["Nothing", "Proof"]

SETTLING_ROUNDS = 10
REST = 10  # times as long as a comparison of everything took, nobody begins another one who need not
BEGINNINGS = 5  # of comparisons that break off, in a row
AGAIN_SECONDS = 1.0
FEW_KEYS = 100


class Nothing:
    """In the place of a verifier: of a shard that has no slots any more."""

    broken = moved = False

    async def full(self) -> Comparison:
        return Comparison(verdict="valid")

    round = full

    async def final(self, source_offset: int) -> Comparison:
        del source_offset
        return await self.full()


class Proof:
    """``verifier``: None where the user wants no verification; then every step here does nothing. ``comparison``: the newest. ``renew``: another verifier, in
    place of the one before. ``history``: whose stream it is of now, and of a shard also which slots: what was looked at
    holds as long as it stays the same. ``lane``: which shard of the source it is of, "" for a single server."""

    def __init__(
        self,
        verifier: Verifier | Nothing | None,
        journal: Journal,
        renew: Callable[[], Awaitable[Verifier | Nothing]] | None = None,
        history: Callable[[], str] = str,
        lane: str = "",
    ) -> None:
        self.comparison: Comparison | None = None
        self._renew = renew
        self._history = history
        self._seen = history()
        self._verifier = verifier
        self._journal = journal
        self._rested = 0.0  # on the job's clock: from when on everything may be compared again
        self._lane = lane
        self._file = f"verification{'-' if lane else ''}{lane}.json"
        self._looking: asyncio.Future[Comparison] | None = None

    @property
    def differences(self) -> int:
        return self.comparison.differences if self.comparison is not None else 0

    @property
    def seconds(self) -> float:
        """That comparing everything took; 0 when nothing is compared."""
        found = self.comparison
        keys = found.keys_source + found.keys_target if found is not None else 0
        return keys / found.keys_per_second if found is not None and found.keys_per_second else 0.0

    async def full(self) -> None:
        """Raises ``NotEqual``."""
        if self._verifier is None:
            return
        began = self._journal.clock()
        comparison = await self._full(self._verifier)
        self._rested = self._journal.clock() + REST * (self._journal.clock() - began)
        self.comparison = comparison
        self._journal.write(self._file, comparison.to_json())
        if comparison.differences or (comparison.verdict == "unknown" and not comparison.hot_only):
            raise NotEqual(comparison, self._lane)

    async def _full(self, verifier: Verifier | Nothing) -> Comparison:
        broken = 0
        while broken < BEGINNINGS:
            comparison = await verifier.full()
            if comparison.hot_only and comparison.source_read == "psync":
                comparison = await verifier.round()
            if not self._void(verifier) or self._renew is None:
                return comparison
            went = "the source's stream went on at another server" + (", or slots moved" if self._lane else "")
            why = "; ".join(comparison.reasons) or went
            if not verifier.moved and not (self._lane and self._history() != self._seen):  # slots may move for hours
                broken += 1
            self._journal.say("warning", f"the comparison broke off, and begins again: {why}")
            verifier = self._verifier = await self._renewed(self._renew)
        return comparison.because(f"its links broke {BEGINNINGS} times in a row")

    async def _renewed(self, renew: Callable[[], Awaitable[Verifier | Nothing]]) -> Verifier | Nothing:
        """As soon as both servers can be reached again; who waits for that longer than is good ends us."""
        while True:
            self._seen = self._history()
            try:
                return await renew()
            except ConnectionLost:
                await asyncio.sleep(AGAIN_SECONDS)

    def _void(self, verifier: Verifier | Nothing) -> bool:
        """Whether what it looked at tells nothing (any more)."""
        return verifier.broken or self._history() != self._seen

    async def round(self, *, urgent: bool = False) -> int:
        """Returns the number of keys looked at again; none where the source is not followed: ``last`` compares everything there. ``urgent``: somebody waits."""
        if self._verifier is None or (self.comparison is not None and self.comparison.source_read == "scan"):
            return 0
        if self._looking is not None:
            await self._looking
        before = self._looked()
        if self._renew is None or not self._void(self._verifier):
            comparison = await self._verifier.round()
            if self._renew is None or not self._void(self._verifier):
                self.comparison = comparison
                return self._looked() - before
            why = "; ".join(comparison.reasons) or "the source's stream went on at another server"
            self._journal.say("warning", f"the comparison is void: {why}")
        if urgent or self._journal.clock() >= self._rested:
            self._journal.say("info", "everything is compared again")
            self._verifier = await self._renewed(self._renew)
            self._journal.begin("verify")
            await self.full()
            self._journal.begin("verified")
        return 0

    async def settle(self) -> None:
        """Each round is shorter than the one before; ends when there is little left, or it does not get less any more."""
        last = 0
        for _ in range(SETTLING_ROUNDS):
            looked = await self.round(urgent=True)
            if looked <= FEW_KEYS or (last and looked > last * 0.8):
                return
            last = looked

    async def last(self, offset: int, *, held: bool) -> tuple[int, int]:
        """What clients wrote up to this source offset: (keys looked at, differences). Raises ``Aborted`` when it cannot tell.

        ``held``: by a pause, in which no key expires either. Else nobody writes, but keys go on expiring, and are no reason not to be able to tell.
        """
        if self._verifier is None:
            return 0, 0
        before = self._looked()
        self._looking = asyncio.ensure_future(self._verifier.final(offset) if held else self._verifier.round())
        self._looking.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be asking any more
        verifier = self._verifier
        final = await asyncio.shield(self._looking)
        if self._void(verifier) and self._renew is not None:
            raise Aborted(
                f"what changed lately could not be compared: {'; '.join(final.reasons) or 'the source went on at another server'}",
                remedy="everything is compared again before the next cut-over; the source goes on writing",
                code="VK-CUTOVER-LINK",
            )
        self.comparison = final
        if final.verdict == "unknown":
            raise Aborted(
                "what changed lately could not be compared: " + "; ".join(final.reasons or (f"{final.unsettled} keys are unsettled",)),
                remedy="start the migration again; the source goes on writing",
                code="VK-CUTOVER-UNKNOWN",
            )
        return self._looked() - before, final.differences

    def save(self) -> None:
        """The newest comparison into the report, after a cut-over that went well or not."""
        if self.comparison is not None:
            self._journal.write_if_possible(self._file, self.comparison.to_json())

    async def close(self) -> None:
        """Give up a look that nobody waits for."""
        if self._looking is not None and not self._looking.done():
            self._looking.cancel()
            await asyncio.wait({self._looking})

    def _looked(self) -> int:
        return self.comparison.looked_again if self.comparison is not None else 0
