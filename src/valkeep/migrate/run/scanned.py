"""What a run does otherwise when its source is read by SCAN (`feed.scan`): offsets, and the time that the last round takes.

The cut-over and the verification ask for an offset of the *source*; the gateway knows those of the feed. So what waits for the target waits for the round
first (``reach``), here and nowhere else: cut-over, gateway and deliveries are what they are for every source.

The last round behind the pause or the fence, and the comparison there, read everything once more. That takes as long as it took before, so it is known
beforehand, said, and compared with the lease: writers that would be held for longer than was allowed are not held at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Literal

from valkeep.migrate.fence import Aborted, FenceMode

if TYPE_CHECKING:
    from valkeep.client.server_info import ServerInfo
    from valkeep.migrate.cutover.cutover import Successor
    from valkeep.migrate.feed.scan import ScanFeed
    from valkeep.migrate.gateway.gateway import Gateway
    from valkeep.migrate.journal import Journal
    from valkeep.migrate.run.reading import Drained

__all__ = ["Reaching", "Scanned"]

LIMITS: Final = (
    "until the cut-over the target holds keys of different moments: transactions may be seen in part, and writes in another order",
    "a key that was written several times between two rounds crosses once, with its newest value",
    "what verification does not compare is not followed either: idle times, counters of use, consumers that own nothing",
    "the pause at the cut-over holds a whole round and a whole comparison",
)
UNFOLLOWED_SECONDS = 3.0  # for looking again at keys that differ: each look waits for a round, and behind the fence all is compared anyway
ROOM = 1.3  # the last round may take so many times as long as the one before
DRAIN, ALL = 0.5, 0.8  # shares of the lease that the cut-over gives to draining, and to draining with the comparison
LONGEST_LEASE = 60_000  # ms


class Reaching:
    """A `Successor` for a source whose offsets are not the feed's."""

    def __init__(self, successor: Successor, reach: Callable[[int], Awaitable[int]]) -> None:
        self._successor = successor
        self._reach = reach

    async def identify(self) -> str:
        return await self._successor.identify()

    async def drained(self, source_offset: int) -> None:
        await self._successor.drained(await self._reach(source_offset))

    async def promote(self, run_id: str) -> float:
        return await self._successor.promote(run_id)


class Scanned:
    """A `Reading`."""

    limits: tuple[str, ...] = LIMITS
    verify_by: Literal["auto", "scan"] = "scan"
    look_seconds: float = UNFOLLOWED_SECONDS

    def __init__(self, feed: ScanFeed, journal: Journal) -> None:
        self.feed: Final = feed
        self._journal = journal

    def is_of(self, server: ServerInfo, history: str) -> bool:
        """By what the feed reads: after a failover another server may answer at the source's address."""
        del history
        return self.feed.reads(server)

    def held(self, mode: FenceMode) -> bool:
        """Both sides are read whole behind the fence."""
        del mode
        return True

    def successor(self, delivery: Successor) -> Reaching:
        return Reaching(delivery, self.feed.reach)

    def barrier(self, drained: Drained) -> Drained:
        """``drained`` for offsets of the source."""

        async def reached(offset: int) -> None:
            await drained(await self.feed.reach(offset))

        return reached

    async def ready(self, gateway: Gateway, mode: FenceMode, lease_ms: int, comparing: float) -> float:
        """Rounds until another one makes the last one no shorter. Returns the seconds that the last one is given where the writers' owner stopped them.

        ``comparing``: seconds that a comparison of everything took. Raises ``Aborted`` when the lease is shorter than what has to be done in it.
        """
        await gateway.beside(self.feed.settled())
        newest = self.feed.rounds[-1]
        needed = (newest.seconds + comparing) * ROOM
        if mode is FenceMode.EXTERNAL:
            self._journal.say(
                "info", f"with the writers stopped, one more round and comparison of {newest.keys:,} keys take about {needed:.1f} s"
            )
            return max(needed * 3, 60.0)
        self._journal.say(
            "info", f"the writers will be kept out for about {needed:.1f} s: one more round and comparison of {newest.keys:,} keys"
        )
        lease = int(1000 * max(newest.seconds * ROOM / DRAIN, needed / ALL)) + 500
        if lease > lease_ms:
            enough = (
                f"say --lease {lease} (or stop the writers yourself: --fence external)"
                if lease <= LONGEST_LEASE
                else "stop the writers yourself, and say --fence external"
            )
            raise Aborted(
                f"the last round and comparison of {newest.keys:,} keys take about {needed:.1f} s, and a lease of {lease_ms / 1000:g} s is too short for them",
                remedy=enough,
                code="VK-SCAN-LEASE",
            )
        return 0.0
