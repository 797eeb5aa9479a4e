"""The lanes of one run: begun, when their gateways read; proven, when the target has what they brought, and it was compared."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from valkeep.migrate.abreast import Chorus, together
from valkeep.migrate.delivery.reception import reception
from valkeep.migrate.feed.psync import PsyncFeed
from valkeep.migrate.feed.scan import ScanFeed
from valkeep.migrate.gateway.gateway import Gateway
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.proof import Nothing, Proof
from valkeep.migrate.resharding import Holder
from valkeep.migrate.run.lane import Lane, Start
from valkeep.migrate.run.reading import Followed, Reading
from valkeep.migrate.run.scanned import Scanned
from valkeep.migrate.state import MigrationState
from valkeep.migrate.verify import Verifier

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AsyncExitStack
    from pathlib import Path

    from valkeep.client.endpoint import Endpoint
    from valkeep.migrate.cutover.cutover import Successor
    from valkeep.migrate.delivery import Delivery
    from valkeep.migrate.delivery.target import TargetFound
    from valkeep.migrate.gateway.resumption import Resumption
    from valkeep.migrate.journal import Journal
    from valkeep.migrate.outcome import RunOptions
    from valkeep.migrate.run.attempts import Slots

__all__ = ["Lanes"]


@dataclass(frozen=True, slots=True)
class _Begun:
    """A lane whose gateway reads."""

    start: Start
    reading: Reading
    gateway: Gateway


class Lanes:
    """``spool``: the run's folder for what waits on disk. ``goes_on``: with what a killed run left. What is opened is closed with ``stack``."""

    def __init__(self, options: RunOptions, journal: Journal, chorus: Chorus, spool: Path, stack: AsyncExitStack, *, goes_on: bool) -> None:
        self._options = options
        self._journal = journal
        self._chorus = chorus
        self._spool = spool
        self._stack = stack
        self._goes_on = goes_on
        self._begun: list[_Begun] = []

    @property
    def gateways(self) -> dict[str, Gateway]:
        """By lane."""
        return {one.start.name: one.gateway for one in self._begun}

    @property
    def holders(self) -> list[Holder]:
        """Those that hold slots: of a source that is a cluster all of them."""
        return [
            Holder(one.start.name, one.gateway, shard.territory, shard.primary, one.reading.feed)
            for one in self._begun
            if (shard := one.start.shard) is not None and isinstance(one.reading.feed, PsyncFeed)
        ]

    # -- begun -----------------------------------------------------------------------------------------------------------------------

    async def begin(self, starts: Iterable[Start], found: TargetFound, also: frozenset[str]) -> None:
        """Their gateways read the source from here on. ``also``: who else may look at them."""
        with self._chorus.gathering():
            for start in starts:
                await self._begin(start, found, also)

    async def _begin(self, start: Start, found: TargetFound, also: frozenset[str]) -> None:
        options, journal, stack = self._options, self._journal, self._stack
        kept = self._kept(start, found)
        emit = self._chorus.voice(start.name)
        ledger = Ledger(start.resumption.ledger_path, emit, journal.clock, since=start.resumption.ledger)
        stack.callback(ledger.close)
        spool = self._spool
        if start.name:
            spool = spool / start.name
            spool.mkdir()
        reading = self._reading(start, await start.source.resolve(), spool)
        seen = await reception(
            options,
            found,
            kept.spool_folder if kept is not None else spool,
            hold_seconds=options.hold_seconds,
            listen=start.resumption.listen,
            present_as=options.present_as,
            also=also,
        )
        gateway = Gateway(reading.feed, replace(seen, territory=start.territory), ledger, emit, journal.clock, kept)
        self._begun.append(_Begun(start, reading, await stack.enter_async_context(gateway)))

    def _kept(self, start: Start, found: TargetFound) -> Resumption | None:
        """What the gateway goes on with, or leaves for a run after a kill -9."""
        options = self._options
        if options.read != "psync":
            return None
        if self._goes_on:
            start.resumption.expect(options.field_ttl, (found.format,))
        else:
            start.resumption.begin(options.field_ttl, (found.format,))
        return start.resumption

    def _reading(self, start: Start, source: Endpoint, spool: Path) -> Reading:
        options, clock = self._options, self._journal.clock
        emit = self._chorus.voice(start.name)
        if options.read == "scan":
            return Scanned(ScanFeed(source, spool / "scan", emit, clock), self._journal)
        return Followed(PsyncFeed(start.source, patience=options.source_patience, emit=emit, clock=clock))

    # -- proven ----------------------------------------------------------------------------------------------------------------------

    async def prove(self, delivery: Delivery, slots: Slots) -> list[Lane]:
        """As they will be cut over, compared with the target once."""
        lanes = [await self._lane(one, delivery.of(one.start.name), slots) for one in self._begun]
        if not self._options.skip_verify:
            self._journal.begin("verify")
            await together(lane.proof.full() for lane in lanes)
            self._journal.begin("verified")
        return lanes

    async def _lane(self, begun: _Begun, successor: Successor, slots: Slots) -> Lane:
        start, gateway = begun.start, begun.gateway
        verifiers = await self._stack.enter_async_context(contextlib.AsyncExitStack())

        async def renew() -> Verifier | Nothing:
            await verifiers.aclose()
            await slots.settled()
            if start.name in slots.retired or (start.territory is not None and not start.territory.ranges):
                return Nothing()
            at = await start.where.source(gateway, begun.reading)
            return await verifiers.enter_async_context(self._verifier(at, begun, successor))

        def history() -> str:
            return gateway.history if start.territory is None else f"{gateway.history} {start.territory.ranges}"

        verifier = None if self._options.skip_verify else await renew()
        proof = Proof(verifier, self._journal, renew, history, start.name)
        self._stack.push_async_callback(proof.close)
        if start.shard is not None:
            start.state.write(MigrationState("attached", start.source.display, self._options.target.display, os.getpid(), delivery="push"))
        return Lane(start, gateway, begun.reading, successor, proof)

    def _verifier(self, source: Endpoint, begun: _Begun, successor: Successor) -> Verifier:
        gateway, reading, territory = begun.gateway, begun.reading, begun.start.territory

        async def recopy(database: int, key: bytes) -> None:
            await gateway.recopy(((database, key),))

        return Verifier(
            source,
            self._options.target,
            self._options.field_ttl,
            reading.barrier(successor.drained),
            self._chorus.voice(begun.start.name),
            self._spool,
            recopy,
            source_read=reading.verify_by,
            patience=reading.look_seconds,
            slots=territory.ranges if territory is not None else (),
        )
