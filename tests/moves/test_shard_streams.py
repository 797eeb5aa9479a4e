"""What the shards of real clusters say while slots move, and what lanes make of it; keys that are read again, wherever they are now.

The facts are those of docs/explanation/replication.md ("A cluster's streams").
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.support.cluster_pair import client_of, key_in
from tests.support.moving import move_slot
from tests.support.waiting import holds
from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.replication import ReplicationLink
from valkeep.client.server_info import ServerInfo, server_info
from valkeep.errors import ConnectionLost
from valkeep.migrate.feed.single_keys import single_keys
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.keyread import KeyRead
from valkeep.migrate.transform.copies import Copy
from valkeep.migrate.transform.stream import StreamTransform
from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.migrate.transform.territory import Territory
from valkeep.runtime.local import LocalDeployment
from valkeep.topology.slots import even_ranges, slots_of
from valkeep.topology.spec import TopologySpec
from valkeep.wire import resp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]
SLOTS = iter(range(100, 8000, 10))  # of the first shard; each test moves one of its own


@pytest.fixture(scope="module", params=["redis-7.0", "redis-8.0", "valkey-8.0", "valkey-9.1"])
def cluster(request: pytest.FixtureRequest) -> Iterator[LocalDeployment]:
    """Two shards with a replica each."""
    deployment = LocalDeployment(replace(TopologySpec.cluster(shards=2, replicas=1), server=request.param))
    with asyncio.Runner() as runner:
        runner.run(deployment.__aenter__())
        try:
            yield deployment
        finally:
            runner.run(deployment.__aexit__(None, None, None))


def primaries(cluster: LocalDeployment) -> list[tuple[int, Endpoint]]:
    """Number of the node and where it is: who has the first half of the slots, and who has the second."""
    found: list[tuple[int, int, Endpoint]] = []
    for number, machine in enumerate(cluster.machines.values()):
        node = client_of(machine.endpoint.port, machine.endpoint.host)
        me = node.execute_command("CLUSTER MYID")
        found += [(first, number, machine.endpoint) for first, _, primary, *_ in node.execute_command("CLUSTER SLOTS") if primary[2] == me][
            :1
        ]
        node.close()
    return [(number, endpoint) for _, number, endpoint in sorted(found, key=lambda one: one[0] > 8000)][:2]


class Listener:
    """A replica of one shard, with a lane's translation: ``said``: what came; ``sent``: what the lane makes of it."""

    def __init__(self, slots: range | list[int], info: ServerInfo) -> None:
        self.said: list[list[bytes]] = []
        self.sent: list[list[bytes]] = []
        self.territory = Territory(slots)
        form = TargetFormat((9, 1), databases=1, cluster=True)
        speaks = info.version if info.kind == "valkey" else info.redis_version
        self.transform = StreamTransform(
            speaks, form, FieldTtl.KEEP_FIELD, Ledger(None).record, valkey=info.kind == "valkey", territory=self.territory
        )
        self.ready = asyncio.Event()
        self.link: ReplicationLink | None = None
        self.news = asyncio.Event()
        self._said, self._sent = resp.Parser(), resp.Parser()
        self._buffer = bytearray()
        self._offset = 0

    def full_resync(self, replid: str, offset: int) -> None:
        del replid, offset

    def continued(self, replid: str, offset: int) -> None:
        raise AssertionError

    def snapshot(self, data: memoryview) -> None:
        del data

    def snapshot_end(self) -> None:
        self.ready.set()

    def stream(self, data: memoryview) -> None:
        self._buffer += data
        self._said.feed(bytes(data))
        self.said += _commands(self._said)
        consumed, sent = self.transform.feed(self._buffer, self._offset)
        self._sent.feed(bytes(sent))
        if isinstance(sent, memoryview):
            sent.release()
        self.sent += _commands(self._sent)
        del self._buffer[:consumed]
        self._offset += consumed
        assert self.transform.wants is None, self.transform.wants
        self.news.set()
        if self.transform.acknowledge and self.link is not None:
            self.transform.acknowledge = False
            self.link.acknowledge()


def _commands(parser: resp.Parser) -> list[list[bytes]]:
    return [command for command in parser if isinstance(command, list) and command[0] not in (b"PING", b"SELECT", b"REPLCONF")]


def _removed(commands: list[list[bytes]]) -> set[bytes]:
    return {key for command in commands if command[0] in (b"DEL", b"UNLINK") for key in command[1:]}


async def listening(endpoint: Endpoint, slots: Any) -> Listener:
    async with await Connection.open(endpoint) as connection:
        info = await server_info(connection)
    found = Listener(slots, info)
    found.link = await ReplicationLink.open(endpoint, found, present_as=".".join(map(str, info.version)) if info.kind == "valkey" else "")
    await found.ready.wait()
    return found


async def heard(listener: Listener, *last: bytes) -> None:
    async with asyncio.timeout(60):
        while list(last) not in listener.said:
            listener.news.clear()
            await listener.news.wait()


def test_a_slot_that_moves_key_by_key_is_one_lane_s_at_a_time(cluster: LocalDeployment) -> None:
    slot = next(SLOTS)
    key, timed, new = (key_in(slot, name).encode() for name in ("plain", "timed", "new"))

    async def story() -> None:
        (_, giver), (number, taker) = primaries(cluster)
        first, second = (list(slots_of([ranges])) for ranges in even_ranges(2))
        async with await Connection.open(giver) as here, await Connection.open(taker) as there:
            giving, taking = await listening(giver, first), await listening(taker, second)
            also = await listening(taker, [*second, slot])  # as if it had been the taker's lane's already
            await here.call("SET", key, "1")
            await here.call("SET", timed, "2")
            await here.call("PEXPIRE", timed, 500_000)
            moment = await here.call("PEXPIRETIME", timed)
            began = time.monotonic()
            await asyncio.to_thread(move_slot, cluster, slot, number)
            elapsed = 1000 * (time.monotonic() - began)
            await there.call("SET", new, "3")
            await heard(taking, b"SET", new, b"3")
            await heard(also, b"SET", new, b"3")
            assert {command[1] for command in taking.said if command[0] == b"RESTORE-ASKING"} == {key, timed}
            assert taking.sent == []
            restored = {command[1]: command for command in also.sent if command[0] == b"RESTORE"}
            assert set(restored) == {key, timed}
            assert restored[key][2] == b"0"
            assert -1 <= int(restored[timed][2]) - moment <= elapsed + 1  # servers tell each other how long it lives still
            assert {b"REPLACE", b"ABSTTL"} <= set(restored[timed][4:])
            assert also.sent[-1] == [b"SET", new, b"3"]
            assert not [command for command in also.sent if command[0] == b"CLUSTER"]
            await holds(lambda: _removed(giving.sent) == {key, timed}, "what the giver says at last")
            for listener in (giving, taking, also):
                assert listener.link is not None
                listener.link.close()

    asyncio.run(story())


def test_a_slot_that_moves_as_a_whole_is_one_lane_s_at_a_time(cluster: LocalDeployment) -> None:
    slot = next(SLOTS)
    key, new = key_in(slot, "plain").encode(), key_in(slot, "new").encode()

    async def story() -> None:
        (_, giver), (_, taker) = primaries(cluster)
        async with await Connection.open(giver) as here, await Connection.open(taker) as there:
            if (await server_info(here)).version < (9, 0) or (await server_info(here)).kind != "valkey":
                return  # they cannot
            first, second = (list(slots_of([ranges])) for ranges in even_ranges(2))
            giving, taking = await listening(giver, first), await listening(taker, second)
            await here.call("SET", key, "1")
            await here.call("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", await there.call("CLUSTER", "MYID"))
            await heard(giving, b"UNLINK", key)
            await there.call("SET", new, "2")
            await heard(taking, b"SET", new, b"2")
            assert [b"SET", key, b"1"] in taking.said
            assert taking.sent == []
            assert giving.sent == [[b"SET", key, b"1"], [b"UNLINK", key]]
            for listener in (giving, taking):
                assert listener.link is not None
                listener.link.close()

    asyncio.run(story())


def test_keys_of_many_slots_are_read_again_and_what_has_gone_elsewhere_is_not_there(cluster: LocalDeployment) -> None:
    slot, other = next(SLOTS), next(SLOTS)
    stays, goes, never = (key_in(slot, name).encode() for name in ("stays", "goes", "never"))
    elsewhere, plain = key_in(12_000).encode(), key_in(other).encode()

    async def story() -> None:
        (_, giver), (_, taker) = primaries(cluster)
        async with await Connection.open(giver) as here, await Connection.open(taker) as there:
            read = KeyRead.of((await server_info(here)).redis_version)
            for key in (stays, goes, plain):
                await here.call("SET", key, "1")
            await here.call("PEXPIRE", plain, 500_000)
            await there.call("SET", elsewhere, "1")
            mine, theirs = await here.call("CLUSTER", "MYID"), await there.call("CLUSTER", "MYID")
            await there.call("CLUSTER", "SETSLOT", slot, "IMPORTING", mine)
            await here.call("CLUSTER", "SETSLOT", slot, "MIGRATING", theirs)
            await here.call("MIGRATE", taker.host, taker.port, goes, 0, 5000)
            try:
                places = [(0, key) for key in (stays, goes, never, plain, elsewhere)]
                found = {copy.key: copy for one in await single_keys(here, read, places, shard=True) for copy in one.copies}
                assert {key for key, copy in found.items() if copy.payload is None} == {goes, never, elsewhere}
                assert found[plain].expire_ms > 0
                now = int((await server_info(here)).fields["master_repl_offset"])
                assert all(0 < copy.offset <= now for copy in found.values())
                assert await single_keys(here, read, [], shard=True) == []
            finally:
                await here.call("MIGRATE", taker.host, taker.port, stays, 0, 5000)
                for node in (there, here):
                    await node.call("CLUSTER", "SETSLOT", slot, "NODE", theirs)
            (one,) = await single_keys(here, read, [(0, goes)], shard=True)
            assert one.copies == (Copy(0, goes, one.offset, None),)

    asyncio.run(story())


def test_a_replica_that_sends_everybody_away_does_not_make_keys_disappear(cluster: LocalDeployment) -> None:
    key = key_in(next(SLOTS)).encode()

    async def story() -> None:
        (_, primary), _ = primaries(cluster)
        async with await Connection.open(primary) as here:
            await here.call("SET", key, "1")
            read = KeyRead.of((await server_info(here)).redis_version)
        for machine in cluster.machines.values():
            async with await Connection.open(machine.endpoint) as node:
                if (await node.call("ROLE"))[0] != b"master":
                    with pytest.raises(ConnectionLost):
                        await single_keys(node, read, [(0, key)], shard=True)

    asyncio.run(story())
