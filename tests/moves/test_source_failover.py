"""The source fails over under load: the gateway goes on with whoever went on, by PSYNC2, and the target ends up equal to the new primary."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import holds
from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.named_primary import NamedPrimary
from valkeep.client.server_info import parse_info
from valkeep.errors import ValkeepError
from valkeep.migrate.feed.psync import PsyncFeed
from valkeep.migrate.gateway.gateway import Gateway, GatewayOptions
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.report.events import Event, Note
from valkeep.runtime.local import LocalDeployment
from valkeep.topology.spec import TopologySpec

pytestmark = pytest.mark.server


class Story:
    """A topology, a gateway that follows its primary, a target that follows the gateway, and writers that follow the primary."""

    def __init__(self, deployment: LocalDeployment, source: NamedPrimary, target: Endpoint, gateway: Gateway, events: list[Event]) -> None:
        self.deployment = deployment
        self.source = source
        self.target = target
        self.gateway = gateway
        self.events = events
        self.written = 0
        self.writing = asyncio.create_task(self.write())

    @property
    def said(self) -> str:
        return "\n".join(event.text for event in self.events if isinstance(event, Note))

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        try:
            yield
        except AssertionError as error:
            raise AssertionError(f"{error}; it said: {self.said}") from None

    async def write(self) -> None:
        """For ever, to whoever is the primary."""
        number = 0
        while True:
            with contextlib.suppress(ValkeepError):
                async with await Connection.open(await self.source.resolve(), 1.0) as connection:
                    while True:
                        number += 1
                        await connection.pipeline([("RPUSH", "list", number), ("SET", f"key:{number}", "x" * (number % 2000))], timeout=1.0)
                        self.written += 1
                        await asyncio.sleep(0.002)
            await asyncio.sleep(0.05)

    async def more(self, count: int) -> None:
        """So many writes later."""
        goal = self.written + count
        await holds(lambda: self.written >= goal, f"{count} more writes")

    async def equal(self) -> None:
        """When nobody writes any more, the target has what the primary has, key by key, by ordinary commands."""
        await self.stop()
        primary = await self.source.resolve()
        async with await Connection.open(primary) as here, await Connection.open(self.target) as there:
            offset = int(parse_info(await here.call("INFO", "replication"))["master_repl_offset"])
            await self.gateway.drained(offset)
            names = sorted(await here.call("KEYS", "*"))
            assert names == sorted(await there.call("KEYS", "*"))
            ask: list[tuple[Any, ...]] = [("GET", name) if name != b"list" else ("LRANGE", name, 0, -1) for name in names]
            assert await here.pipeline(ask) == await there.pipeline(ask)
            assert len(names) > 100

    async def stop(self) -> None:
        self.writing.cancel()
        await asyncio.gather(self.writing, return_exceptions=True)

    def answers(self, node: Endpoint) -> list[str]:
        """What this node noted of our requests to replicate."""
        (machine,) = [machine for machine in self.deployment.machines.values() if machine.endpoint.address == node.address]
        return [line for line in machine.log().splitlines() if f":{self.gateway.address[1]} " in f"{line} " and "request" in line]


@asynccontextmanager
async def migrating(target: Endpoint, folder: Path) -> AsyncIterator[Story]:
    events: list[Event] = []
    async with LocalDeployment(TopologySpec.sentinel().with_settings(repl_diskless_sync_delay=0)) as deployment:
        sentinels = tuple(machine.endpoint for machine in deployment.of("sentinel"))
        source = NamedPrimary(sentinels, "valkeep", Endpoint(""))
        options = GatewayOptions((TargetFormat((9, 1)),), FieldTtl.REFUSE, ("127.0.0.1", 0), frozenset({"127.0.0.1"}), folder)
        feed = PsyncFeed(source, patience=30.0, emit=events.append)
        loop = asyncio.get_running_loop()
        async with Gateway(feed, options, Ledger(None), events.append, loop.time) as gateway:
            await gateway.snapshot_taken()
            async with await Connection.open(target) as connection:
                await connection.call("REPLICAOF", *gateway.address)
                await gateway.online(gateway.channels[0])
                story = Story(deployment, source, target, gateway, events)
                try:
                    await gateway.beside(story.more(100))
                    yield story
                finally:
                    await story.stop()
                    await connection.call("REPLICAOF", "NO", "ONE")


def run(server: Server, folder: Path, test: Callable[[Story], Awaitable[None]]) -> None:
    node = server("valkey-9.1")

    async def bounded() -> None:
        async with asyncio.timeout(80), migrating(Endpoint("127.0.0.1", node.port), folder) as story:
            await test(story)

    asyncio.run(bounded())


async def _after_the_failover(story: Story, old: Endpoint) -> None:
    with story.explained():
        await story.gateway.beside(holds(lambda: "goes on after" in story.said, "the feed goes on"))
    new = await story.source.resolve()
    assert new != old
    assert f"the source {new.address} goes on" in story.said
    await story.gateway.beside(story.more(100))
    await story.gateway.beside(story.equal())
    noted = story.answers(new)
    assert len(noted) == 1, noted
    assert "Partial resynchronization request" in noted[0]


def test_a_failover_that_sentinels_are_told_to_make_is_followed_without_a_full_sync(server: Server, tmp_path: Path) -> None:
    async def test(story: Story) -> None:
        old = await story.source.resolve()
        async with await Connection.open(story.source.sentinels[0]) as sentinel:
            assert await sentinel.call("SENTINEL", "FAILOVER", "valkeep") == b"OK"
        await _after_the_failover(story, old)
        assert f"nothing more is read from the source {old.address}" in story.said
        assert f"the source {old.address} is not the primary any more" in story.said  # it still answered

    run(server, tmp_path, test)


def test_a_killed_primary_s_successor_is_followed_without_a_full_sync(server: Server, tmp_path: Path) -> None:
    async def test(story: Story) -> None:
        old = await story.source.resolve()
        await story.deployment.machines["n1"].kill()
        await _after_the_failover(story, old)

    run(server, tmp_path, test)


@pytest.mark.slow
def test_a_move_from_a_primary_that_sentinels_know_is_cut_over_at_its_successor(server: Server, tmp_path: Path) -> None:
    node = server("valkey-9.1")
    target = Endpoint("127.0.0.1", node.port)

    async def move() -> None:
        async with LocalDeployment(TopologySpec.sentinel().with_settings(repl_diskless_sync_delay=0)) as deployment:
            sentinels = tuple(machine.endpoint for machine in deployment.of("sentinel"))
            source = NamedPrimary(sentinels, "valkeep", Endpoint(""))
            where = ("--source", source.display, "--target", target.display, "--state", str(tmp_path / "state"))
            with Valkeep("migrate", "run", *where, "--acknowledge", "all", "--cutover", "manual", folder=tmp_path / "run") as run:
                await asyncio.to_thread(run.wait_for, "waiting", 60.0)
                old = await source.resolve()
                async with await Connection.open(old) as connection:
                    await connection.pipeline([("SET", f"before:{number}", number) for number in range(500)])
                async with await Connection.open(sentinels[0]) as sentinel:
                    await sentinel.call("SENTINEL", "FAILOVER", "valkeep")
                await holds(lambda: "goes on after" in run.stderr, "the feed goes on")
                new = await source.resolve()
                assert new != old
                async with await Connection.open(new) as connection:
                    await connection.pipeline([("SET", f"after:{number}", number) for number in range(500)])
                with Valkeep("migrate", "cutover", *where, folder=tmp_path / "go", report=False) as go:
                    assert await asyncio.to_thread(go.wait) == 0, go.stderr
                assert await asyncio.to_thread(run.wait) == 0, run.stderr
                assert run.stderr.count("the source starts a full sync") == 1
            async with await Connection.open(new) as here, await Connection.open(target) as there:
                assert await here.call("CONFIG", "GET", "min-replicas-to-write") == [b"min-replicas-to-write", b"255"]
                assert (await there.call("ROLE"))[0] == b"master"
                names = set(await here.call("KEYS", "*"))
                assert set(await there.call("KEYS", "*")) == names
                assert len(names) == 1000 + 1  # the canary of the topology
                assert await there.pipeline([("GET", f"{when}:499") for when in ("before", "after")]) == [b"499", b"499"]

    asyncio.run(asyncio.wait_for(move(), 110))
