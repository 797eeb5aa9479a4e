"""The source's link breaks, with real servers: the target ends up equal, and the source never made a second snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.proxy import Proxy
from tests.support.waiting import holds
from tests.support.writers import Writers, lost
from valkeep.client import replication
from valkeep.client.endpoint import Endpoint
from valkeep.migrate.feed import psync
from valkeep.migrate.feed.psync import PsyncFeed
from valkeep.migrate.gateway.gateway import Gateway, GatewayOptions
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.report.events import Event, Note
from valkeep.runtime.node import Process

pytestmark = pytest.mark.server
Client = Callable[..., Any]

LARGE = 3 << 20


@dataclass
class Story:
    """A gateway between a source (through a proxy) and a target that has its snapshot. ``here``, ``there``: ordinary clients."""

    gateway: Gateway
    proxy: Proxy
    here: Any
    there: Any
    events: list[Event]

    @property
    def said(self) -> str:
        return "\n".join(event.text for event in self.events if isinstance(event, Note))

    async def goes_on(self, times: int) -> None:
        """Return when the feed has come back so often. Raises what ended it."""
        await self.gateway.beside(holds(lambda: self.said.count("goes on after") >= times, "the feed goes on"))

    async def caught_up(self) -> None:
        """The target has everything that the source wrote up to now."""
        offset = self.here.info("replication")["master_repl_offset"]
        await asyncio.wait_for(self.gateway.beside(self.gateway.drained(offset)), 30)

    @property
    def syncs(self) -> tuple[int, int]:
        stats = self.here.info("stats")
        return stats["sync_full"], stats["sync_partial_ok"]


@asynccontextmanager
async def following(source: Process, target: Process, client: Client, folder: Path) -> AsyncIterator[Story]:
    events: list[Event] = []
    async with AsyncExitStack() as stack:
        proxy = stack.enter_context(Proxy(("127.0.0.1", source.port)))
        options = GatewayOptions((TargetFormat((9, 1)),), FieldTtl.REFUSE, ("127.0.0.1", 0), frozenset({"127.0.0.1"}), folder)
        feed = PsyncFeed(Endpoint("127.0.0.1", proxy.port), patience=20.0, emit=events.append, rng=Random(1))
        gateway = await stack.enter_async_context(Gateway(feed, options, Ledger(None), events.append, asyncio.get_running_loop().time))
        await asyncio.wait_for(gateway.snapshot_taken(), 20)
        there = client(target)
        there.replicaof(*map(str, gateway.address))
        stack.callback(there.replicaof, "NO", "ONE")
        await asyncio.wait_for(gateway.online(gateway.channels[0]), 20)
        yield Story(gateway, proxy, client(source), there, events)


def run(test: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test

    asyncio.run(bounded())


def test_twenty_cuts_under_load_cost_no_second_snapshot_and_no_write(server: Server, client: Client, tmp_path: Path) -> None:
    async def test() -> None:
        source, target = server("redis-8.0", repl_backlog_size="64mb"), server("valkey-9.1")
        rng = Random(20)
        async with following(source, target, client, tmp_path) as story:
            with Writers(source.port, 3, pace=0.002) as writers:
                for number in range(20):
                    story.here.set(f"large:{number % 4}", rng.randbytes(LARGE))  # on its way when the link is cut, or nearly
                    await asyncio.sleep(rng.uniform(0, 0.03))
                    await asyncio.to_thread(story.proxy.cut)
                    await story.goes_on(number + 1)
            await story.caught_up()
            assert story.syncs == (1, 20)
            assert lost(writers.acknowledged(), story.there) == []
            assert writers.acked > 100
            for number in range(4):
                assert story.there.get(f"large:{number}") == story.here.get(f"large:{number}")
            assert story.there.dbsize() == story.here.dbsize()
            assert story.there.info("stats")["unexpected_error_replies"] == 0

    run(test())


def test_a_link_that_is_open_but_dead_is_given_up_and_what_was_swallowed_comes_again(
    server: Server, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psync, "ASK_SECONDS", 0.3)

    async def test() -> None:
        source, target = server("redis-8.0"), server("valkey-9.1")
        async with following(source, target, client, tmp_path) as story:
            story.proxy.mangle = lambda _: b""
            story.here.set("swallowed", 1)
            monkeypatch.setattr(replication, "SILENCE_SECONDS", 0.2)
            await holds(lambda: "said nothing for" in story.said, "silence is noticed")
            monkeypatch.undo()
            story.proxy.mangle = None  # whoever has missed something is gone
            await story.caught_up()
            assert story.there.get("swallowed") == b"1"
            assert story.syncs[0] == 1

    run(test())


def test_a_source_that_is_shut_down_in_order_and_started_again_is_gone_on_with(server: Server, client: Client, tmp_path: Path) -> None:
    async def test() -> None:
        source, target = server("redis-8.0", save="3600 1000"), server("valkey-9.1")
        async with following(source, target, client, tmp_path) as story:
            story.here.set("before", 1)
            await asyncio.to_thread(source.stop)
            await asyncio.to_thread(source.restart)
            story.here.set("after", 2)
            await story.goes_on(1)
            await story.caught_up()
            assert story.there.mget("before", "after") == [b"1", b"2"]
            assert story.syncs == (0, 1)  # of the new process

    run(test())


def test_a_replica_as_the_source_goes_on_when_its_primary_is_replaced(server: Server, client: Client, tmp_path: Path) -> None:
    async def test() -> None:
        first, target = server("redis-8.0"), server("valkey-9.1")
        where = f"127.0.0.1 {first.port}"
        source, other = server("redis-8.0", replicaof=where), server("redis-8.0", replicaof=where)
        at_first, at_other = client(first), client(other)
        for one in (client(source), at_other):
            await holds(lambda one=one: one.info("replication")["master_link_status"] == "up", "replicas are linked")  # type: ignore[misc]
        async with following(source, target, client, tmp_path) as story:
            at_first.set("before", 1)
            await holds(lambda: story.there.get("before") == b"1" and at_other.get("before") == b"1", "both have it")
            at_other.replicaof("NO", "ONE")
            story.here.replicaof("127.0.0.1", str(other.port))
            at_other.set("after", 2)
            await holds(lambda: story.there.get("after") == b"2", "the target has what the new primary wrote")
            assert story.gateway.history == at_other.info("replication")["master_replid"]
            assert story.syncs[0] == 1

    run(test())
