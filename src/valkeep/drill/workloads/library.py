"""A lane's worker whose operations a client library performs: one at a time, each recorded as what the library showed for it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Sequence
from typing import Final

from valkeep.drill.history import Outcome
from valkeep.drill.script import ClientSpec
from valkeep.drill.workloads.driver import Driver, Session, Shown
from valkeep.drill.workloads.mixes import Mix, Step
from valkeep.drill.workloads.record import Record
from valkeep.drill.workloads.targets import Targets
from valkeep.errors import ServerError, ValkeepError

__all__ = ["ByLibrary"]

PAUSE: Final = 0.005  # seconds after an error, as an application would not ask again at once


class ByLibrary:
    """``tags``: whose keys it works on, in turn; ``batch_size``: operations between two looks at the gate and the clock."""

    def __init__(
        self, driver: Driver, client: ClientSpec, mix: Mix, tags: Sequence[bytes], batch_size: int, targets: Targets, record: Record
    ) -> None:
        self._driver, self._client, self._mix, self._targets, self._record = driver, client, mix, targets, record
        self._size = batch_size
        self._turns = itertools.cycle(tags)
        self._session: Session | None = None
        self._process = record.process(client.name)

    async def batch(self) -> bool:
        """Perform operations one after the other, until one shows an error."""
        steps = self._mix.batch(next(self._turns), self._size)
        if self._session is None:
            try:
                self._session = await self._driver.open(self._client, self._targets)
            except ValkeepError as error:
                self._record.trouble(self._client.name, error.message)
                return self._unreached(steps[0])
        for step in steps:
            if not await self._perform(self._session, step):
                return False
        return True

    async def recover(self) -> None:
        await asyncio.sleep(PAUSE)

    async def close(self) -> None:
        if self._session is not None:
            with contextlib.suppress(ValkeepError):
                await self._session.close()

    def _unreached(self, step: Step) -> bool:
        history = self._record.history
        now = time.monotonic_ns()
        history.fail(history.invoke(self._process, step.function, step.key, step.value, now), now, "", "UNREACHED")
        self._record.refused += 1
        return False

    async def _perform(self, session: Session, step: Step) -> bool:
        history, record = self._record.history, self._record
        number = history.invoke(self._process, step.function, step.key, step.value, time.monotonic_ns())
        node = ""
        try:
            replies, node = await session.perform(step)
            outcome, result, word = self._mix.understood(step, replies)
        except (ServerError, Shown) as error:
            outcome, result, word = Outcome.FAIL if error.definite else Outcome.INFO, None, error.kind
        now = time.monotonic_ns()
        if outcome is Outcome.OK:
            history.ok(number, now, node, result)
            record.acked += 1
            record.acked_at[node] = now
        elif outcome is Outcome.FAIL:
            history.fail(number, now, node, word)
            record.refused += 1
        else:
            history.info(number, now, node, word)
            self._process = record.process(self._client.name)
        return outcome is Outcome.OK
