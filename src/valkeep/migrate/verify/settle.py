"""Looking again at written keys until each was seen equal, or different for good. The package's head says why this is sound."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from valkeep.migrate.keyread import Seen
from valkeep.migrate.verify.explain import explain
from valkeep.migrate.verify.eyes import Eyes, together
from valkeep.migrate.verify.follow import Follower
from valkeep.migrate.verify.found import Found
from valkeep.migrate.verify.judge import is_hash, judge
from valkeep.migrate.verify.look import Eye, Looked
from valkeep.migrate.verify.mode import Mode
from valkeep.migrate.verify.source_side import Unfollowed
from valkeep.migrate.verify.written import Key

__all__ = ["Settler"]

ROUNDS = 60  # of looking again at keys that are written all the time
IDLE_ROUNDS = 12  # without progress, after which the rest is hot …
UNFOLLOWED_ROUNDS = 8  # … and where nobody knows which keys are written: enough of them to tell a difference, after a few changes
ONE_BY_ONE = 64  # keys that are looked at singly when batches get nowhere: the shortest window there is
BATCH = 20_000  # keys that are weighed at once; reads are smaller (`look.BATCH`)
SLOW = 2_000  # keys a second that looking is given time for, on top of ``patience``
DEBT = 2_000_000  # keys that can be looked at again; more are no job for commands
DOUBTS = 4  # looks at a difference, where one look proves nothing …
DOUBT_SECONDS = 2.0  # … over at least so long, until it counts


class Settler:
    """``debt``: keys that have to be looked at again. ``written``: keys that the source's writers touched, ``looked``, ``rounds``, ``expired``: counts.
    ``late``: seconds after which the last look was ended, 0 when it came to its end. ``overwhelmed``: the debt was more than can be looked at.

    ``counts(key)``: whether a key is one of those that are compared.
    ``exact``: the barrier proves what it says. ``hides_fields``: hashes of this source may differ for a moment (see ``keep-field`` in the
    package's head).
    """

    def __init__(
        self,
        follower: Follower | Unfollowed,
        eyes: tuple[Eye | Eyes, Eye | Eyes],
        barrier: Callable[[int], Awaitable[None]],
        found: Found,
        mode: Mode,
        *,
        exact: bool,
        hides_fields: bool,
        counts: Callable[[bytes], bool] = lambda _key: True,
    ) -> None:
        self._follower = follower
        self._source, self._target = eyes
        self._barrier = barrier
        self._found = found
        self._mode = mode
        self._exact = exact
        self._hides_fields = hides_fields
        self._counts = counts
        self.debt: dict[Key, None] = {}
        self.late = 0.0
        self.overwhelmed = False
        self.written = 0
        self.doubts: dict[Key, tuple[int, float, int]] = {}
        self._held = False
        self.looked = 0
        self.rounds = 0
        self.expired = 0

    async def settle(self, patience: float) -> None:
        """Look at everything that is known to be written, then at what is left of it, until nothing moves – or time is up: then it is debt.

        ``patience``: seconds, on top of those that so many keys take.
        """
        await self.bounded(patience, self._settle_all())

    async def bounded(self, patience: float, work: Coroutine[Any, Any, None]) -> None:
        """Some looking, ended when time is up: a slow link, a target that does not come along, keys that never hold still."""
        seconds = patience + (len(self._follower.written) + len(self.debt)) / SLOW
        self.late = 0.0
        try:
            async with asyncio.timeout(seconds) as bound:
                await work
        except TimeoutError:
            if not bound.expired():
                raise
            self.late = seconds

    async def settle_in_pause(self, patience: float, batch: int) -> None:
        """As ``settle``, while the source's writers are held: one look settles everything."""
        self._held = True
        try:
            await self.bounded(patience, self._settle_held(batch))
        finally:
            self._held = False

    async def _settle_all(self) -> None:
        await self.take_all()
        await self.pay()

    async def _settle_held(self, batch: int) -> None:
        debt = list(self.debt)
        await self.take_all(batch)
        debt = [key for key in debt if key in self.debt]
        for key in debt:
            del self.debt[key]
        await self.look_at_all(debt)
        if not self.doubts:  # what is in doubt needs seconds, and writers are waiting
            await self.pay()

    async def take_all(self, batch: int = BATCH) -> None:
        """Look once at everything that is known to be written."""
        self.rounds += 1
        parts = self._follower.written.take(batch)
        try:
            for taken in parts:
                keys = [key for key in taken if self._counts(key[1])]
                self.written += len(keys)
                await self.look(keys)
        except BaseException:
            for keys in parts:  # taken, and not looked at
                self.owe(keys)
            raise

    def owe(self, keys: Iterable[Key]) -> None:
        """These have to be looked at again."""
        self.debt |= dict.fromkeys(key for key in keys if self._counts(key[1]))
        if len(self.debt) > DEBT:
            self.overwhelmed = True
            self._follower.written.everything = f"more than {DEBT} keys would have to be looked at again, one by one"
            self.debt.clear()  # nothing is valid any more, and memory is bounded

    async def pay(self) -> None:
        """Look at the debt, until there is none or nothing moves."""
        idle, patient = 0, IDLE_ROUNDS if self._follower.followed or self._held else UNFOLLOWED_ROUNDS
        for _ in range(ROUNDS):
            if not self.debt or idle > patient:
                return
            debt, self.debt = list(self.debt), {}
            self.rounds += 1
            size = 1 if len(debt) <= ONE_BY_ONE and idle > 2 else BATCH
            await self.look_at_all(debt, size)
            idle = idle + 1 if len(self.debt) >= len(debt) else 0
            if self.doubts:
                await asyncio.sleep(DOUBT_SECONDS / DOUBTS)

    async def look_at_all(self, keys: list[Key], size: int = BATCH) -> None:
        """Look at these keys once, so many at a time. Those that were not looked at when it fails are debt."""
        at = 0
        try:
            while at < len(keys):
                await self.look(keys[at : at + size])
                at += size
        except BaseException:
            self.owe(keys[at + size :])
            raise

    async def look(self, keys: list[Key]) -> None:
        """Look at these keys once, in parts that fit into memory. Those that were not judged when it fails are debt."""
        left = dict.fromkeys(keys)
        try:
            for part in await self._source.parts(keys):
                await self._settle(part)
                for key in part:
                    del left[key]
        except BaseException:  # a link that blinked must not make them equal
            self.owe(left)
            raise

    async def _settle(self, keys: list[Key]) -> None:
        written = self._follower.written
        before, spills = written.position, written.spills
        if self._follower.followed:
            here, there = await together(self._source.look(keys), self._look_at_target(before, keys))
        else:  # the target has to have come as far as the source was when its keys had been read
            here = await self._source.look(keys)
            there = await self._look_at_target(await self._source.offset(), keys)
        await self._follower.tracked(await self._source.offset())
        deadline = max(here.now, there.now)
        self.looked += len(keys)
        for key, one, other in zip(keys, here.seen, there.seen, strict=True):
            if written.last(*key) > before or written.spills != spills:  # written between the two readings, or who knows
                self.debt[key] = None
                continue
            what = judge(one, other, self._mode, deadline)
            if what in ("equal", "expired"):
                self.expired += what == "expired"
                self.doubts.pop(key, None)
            elif self._certain(key, one, other):
                self._found.add(what, *key, explain(one, other, self._mode))
                self.doubts.pop(key, None)
            else:
                self.debt[key] = None
                continue
            self.debt.pop(key, None)
            written.forget(*key)

    async def _look_at_target(self, offset: int, keys: list[Key]) -> Looked:
        await self._barrier(offset)
        return await self._target.look(keys)

    def _certain(self, key: Key, here: Seen | None, there: Seen | None) -> bool:
        """Does this difference count at once, or has it been seen often and long enough – of a source that is not followed, with one value there?"""
        known = self._follower.followed or self._held
        if self._exact and known and not (self._hides_fields and there is not None and is_hash(there.payload)):
            return True
        value = 0 if known or here is None else hash((here.payload, here.expire_ms // (8 * here.tolerance + 1)))
        times, since, before = self.doubts.get(key, (0, time.monotonic(), value))
        if value != before:  # it is being written
            times, since = 0, time.monotonic()
        self.doubts[key] = (times + 1, since, value)
        return times + 1 >= DOUBTS and time.monotonic() - since >= DOUBT_SECONDS
