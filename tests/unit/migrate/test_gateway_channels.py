"""Several channels of one gateway, each with a checkpoint of its own: what the next process asks the source for, and which channel gets what of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.support.fixtures_snapshots import item
from tests.support.scripted_feed import REPLID, ScriptedFeed
from tests.support.scripted_primary import command, payload, sealed
from tests.support.waiting import holds
from valkeep.migrate.feed import Position
from valkeep.migrate.gateway.gateway import Gateway, GatewayOptions
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.gateway.resumption import Resumption
from valkeep.migrate.transform.copies import Copy
from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.wire.commands import Place

BEGIN = 1000
SNAPSHOT = sealed(b"REDIS0012\xfa\x0erepl-stream-db\xc0\x00\xfe\x00" + item(0, "k", "0176"))
FORMATS = (TargetFormat((8, 1)), TargetFormat((9, 1)))
ONE = payload(b"\x00\x011")
UNSAYABLE = command("BITOP DIFF d a b")


class Source(ScriptedFeed):
    """``copies``: how many keys may be read again; who asks for more waits."""

    def __init__(self, copies: int = 0) -> None:
        super().__init__(SNAPSHOT, BEGIN)
        self.copies = copies

    async def read(self, places: Sequence[Place]) -> list[Copy]:
        if not self.copies:
            await asyncio.Event().wait()
        self.copies -= 1
        return [Copy(*place, self.received, ONE) for place in places]


async def lives(tmp_path: Path, *ones: Callable[[Gateway, Source], Any], copies: Sequence[int] = (0, 9)) -> None:
    for live, many in zip(ones, copies, strict=True):
        kept = Resumption(tmp_path / "state", tmp_path, None)
        if not kept.load():
            kept.begin(FieldTtl.KEEP_FIELD, FORMATS)
        source = Source(many)
        options = GatewayOptions(FORMATS, FieldTtl.KEEP_FIELD, ("127.0.0.1", 0), frozenset(), kept.spool_folder)
        async with Gateway(source, options, Ledger(None), lambda _: None, lambda: 0.0, kept) as gateway:
            await live(gateway, source)


async def settled(gateway: Gateway) -> None:
    await holds(lambda: not any(one.wanted or one.held_bytes or one.copying for one in gateway.channels), "it has not settled", 5)


def test_of_a_transaction_cut_by_a_kill_no_channel_gets_a_part_twice(tmp_path: Path) -> None:
    before, after = UNSAYABLE + command("MULTI") + command("INCR x"), command("INCR x") + command("EXEC") + command("SET end 1")

    async def first(gateway: Gateway, source: Source) -> None:
        source.say(before)
        await asyncio.sleep(0.02)
        assert [one.wanted is None for one in gateway.channels].count(True) == 1  # one of them waits for its copy

    async def second(gateway: Gateway, source: Source) -> None:
        await settled(gateway)
        assert source.since is not None
        have = source.since.offset - BEGIN
        source.say((before + after)[have:])
        await settled(gateway)
        for one in gateway.channels:
            text = one.stream.read(one.begins, 1 << 20)
            assert text.count(b"MULTI") == 1, (one.target.display, text)
            assert text.count(b"INCR") == 2, (one.target.display, text)

    asyncio.run(lives(tmp_path, first, second, copies=(1, 9)))


def test_what_waits_for_a_copy_after_a_kill_does_not_count_as_covered(tmp_path: Path) -> None:
    said = UNSAYABLE + command("SET other 1")

    async def first(gateway: Gateway, source: Source) -> None:
        source.received += 10_000  # the keys are read later than what is said
        source.receiver.stream(memoryview(said))
        await asyncio.sleep(0.02)
        assert [one.checkpoint.copying != () for one in gateway.channels] == [True, True]

    async def second(gateway: Gateway, source: Source) -> None:
        await asyncio.sleep(0.02)
        assert [one.covering(BEGIN + len(said)) for one in gateway.channels] == [None, None]
        assert all(one.covering(BEGIN + 1) is None for one in gateway.channels)
        source.copies = 9

    asyncio.run(lives(tmp_path, first, second, copies=(2, 0)))


def test_the_source_is_asked_from_the_lowest_and_has_to_have_the_highest(tmp_path: Path) -> None:
    async def first(gateway: Gateway, source: Source) -> None:
        source.say(UNSAYABLE)
        await asyncio.sleep(0.02)
        source.say(command("MULTI") + command("INCR x"))

    async def second(gateway: Gateway, source: Source) -> None:
        assert source.since == Position(REPLID, BEGIN + len(UNSAYABLE), BEGIN + len(UNSAYABLE + command("MULTI") + command("INCR x")))

    asyncio.run(lives(tmp_path, first, second, copies=(1, 9)))
