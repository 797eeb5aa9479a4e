"""Keys read again from a source that is old, or does not permit it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.replication import ReplicationLink
from valkeep.client.server_info import ServerInfo
from valkeep.errors import Refused, ServerError
from valkeep.migrate.feed.psync import PsyncFeed
from valkeep.migrate.keyread import KeyRead, Seen
from valkeep.migrate.transform.copies import Copy
from valkeep.migrate.verify.scan import KeyScan

SOURCE = Endpoint.parse("redis://h")


class Denying:
    """A connection of a user who may not DUMP: refused in the queue of MULTI, as servers do it."""

    closed = False
    endpoint = SOURCE

    async def call(self, *_: object) -> bytes:
        return b"OK"

    async def execute(self, *_: object, **__: object) -> list[Any]:
        raise ServerError("NOPERM", "User poor has no permissions to run the 'dump' command")


class Old:
    """A Redis 6 in the middle of 2030, whose key has 1,000 ms to live; the second key is gone."""

    closed = False
    endpoint = SOURCE

    async def call(self, *_: object) -> bytes:
        return b"OK"

    async def execute(self, commands: list[tuple[Any, ...]], **_: object) -> list[Any]:
        answers: dict[Any, list[Any]] = {"DUMP": [b"payload", None], "PTTL": [1000, -2], "TIME": [[b"1900000000", b"5999"]] * 4}
        return [answers[name].pop(0) if name in answers else b"master_repl_offset:77\r\n" for name, *_ in commands]


class Following:
    """A link that has come as far as any key is read at."""

    streaming = True
    replid = "?"
    received = 1000

    def __init__(self) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()


def feed(redis_version: tuple[int, ...], connection: object) -> PsyncFeed:
    """The feed of such a source, with this connection for single keys."""
    made = PsyncFeed(SOURCE)
    made._info = ServerInfo("redis", "Redis", redis_version, redis_version, "standalone", "primary", "?", 0, "", 16, {})
    made._connection = cast("Connection", connection)
    made._link = cast("ReplicationLink", Following())
    return made


def test_a_copy_from_a_redis_before_7_has_an_absolute_expiry() -> None:
    async def story() -> None:
        assert await feed((6, 2), Old()).read([(3, b"k"), (3, b"gone")]) == [
            Copy(3, b"k", 77, b"payload", 1_900_000_001_005),
            Copy(3, b"gone", 77, None),
        ]

    asyncio.run(story())


def test_a_copy_whose_expiry_is_unsure_is_read_again() -> None:
    class Stood(Old):
        """Still, for 30 ms, between the first TIME and PTTL; not the second time."""

        times = 0

        async def execute(self, commands: list[tuple[Any, ...]], **_: object) -> list[Any]:
            self.times += 1
            clock = iter([b"5999", b"35999"] if self.times == 1 else [b"40000", b"40010"])
            return [
                [b"1900000000", next(clock)]
                if name == "TIME"
                else {"DUMP": b"payload", "PTTL": 970 if self.times == 1 else 966}.get(name, b"master_repl_offset:77\r\n")
                for name, *_ in commands
            ]

    async def story() -> None:
        source = Stood()
        assert await feed((6, 2), source).read([(3, b"k")]) == [Copy(3, b"k", 77, b"payload", 1_900_000_001_006)]
        assert source.times == 2

    asyncio.run(story())


def test_a_scan_reads_again_only_what_is_unsure() -> None:
    sent: list[list[Any]] = []

    class Stood:
        """Still for 30 ms at the second of two keys, the first time."""

        async def execute(self, commands: list[tuple[Any, ...]], *_: object) -> list[Any]:
            keys = [words[1] for words in commands if words[0] == "DUMP"]
            sent.append(keys)
            still = len(sent) == 1
            return [
                reply
                for key in keys
                for reply in (key, [b"1900000000", b"0"], 1000, [b"1900000000", b"30000" if still and key == b"b" else b"0"])
            ]

    scan = object.__new__(KeyScan)
    scan._read = KeyRead(exact=False)
    found = asyncio.run(scan._look(cast("Connection", Stood()), [b"a", b"b"]))
    assert found == [(b"a", Seen(b"a", 1_900_000_001_000, 2)), (b"b", Seen(b"b", 1_900_000_001_000, 2))]
    assert sent == [[b"a", b"b"], [b"b"]]


def test_a_copy_that_is_denied_is_a_refusal_that_can_be_remedied_and_not_the_end() -> None:
    async def story() -> None:
        with pytest.raises(Refused) as refused:
            await feed((7, 0), Denying()).read([(0, b"k")])
        assert refused.value.code == "VK-COPY-DENIED"
        assert "dump" in refused.value.message

    asyncio.run(story())
