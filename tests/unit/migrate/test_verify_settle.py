"""Looking again at written keys: whatever fails on the way, a key counts as equal only when it was seen equal."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from valkeep.errors import ConnectionLost
from valkeep.migrate.keyread import Seen
from valkeep.migrate.verify import settle
from valkeep.migrate.verify.follow import Follower
from valkeep.migrate.verify.found import Found
from valkeep.migrate.verify.look import Eye, Looked
from valkeep.migrate.verify.mode import Mode
from valkeep.migrate.verify.settle import Settler
from valkeep.migrate.verify.written import Key, Written
from valkeep.wire.rdb.encode import dump_payload
from valkeep.wire.rdb.opcodes import DIALECT_REDIS, KIND_STRING
from valkeep.wire.rdb.record import Record


class Stream:
    """A follower whose stream has come as far as anybody asks."""

    def __init__(self, directory: Path) -> None:
        self.written = Written(100, 0, directory)

    async def tracked(self, offset: int) -> None:
        del offset


class Server:
    """An eye on a server that holds ``value`` under every key."""

    def __init__(self, value: bytes, at_once: int = 2) -> None:
        self.at_once = at_once
        record = Record(0, b"k", -1, KIND_STRING, value)
        self.payload = dump_payload(record, DIALECT_REDIS, 11)

    async def parts(self, keys: Sequence[Key]) -> list[list[Key]]:
        return [list(keys[at : at + self.at_once]) for at in range(0, len(keys), self.at_once)]

    async def look(self, keys: Sequence[Key]) -> Looked:
        return Looked([Seen(self.payload, -1) for _ in keys], 1)

    async def offset(self) -> int:
        return 100


@pytest.mark.parametrize("fails_at", [1, 2, 3, 5])
@pytest.mark.parametrize("spilled", [False, True])
def test_a_link_that_blinks_makes_no_key_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int, spilled: bool) -> None:
    monkeypatch.setattr(settle, "BATCH", 4)
    looks = 0

    async def barrier(offset: int) -> None:
        nonlocal looks
        del offset
        looks += 1
        if looks == fails_at:
            raise ConnectionLost("no target is attached", remedy="wait")

    stream = Stream(tmp_path)
    keys = {b"%d" % number for number in range(11)}
    for key in keys:
        stream.written.note(0, key, 50)
        if spilled and key == b"5":
            stream.written.spill()
    found = Found(tmp_path)
    eyes = cast("tuple[Eye, Eye]", (Server(b"source"), Server(b"target")))
    settler = Settler(cast("Follower", stream), eyes, barrier, found, Mode.EXACT, exact=True, hides_fields=False)

    async def story() -> None:
        nonlocal looks
        with pytest.raises(ConnectionLost):
            await settler.take_all(4)
        assert len(found) + len(settler.debt) == 11
        looks = fails_at - 1  # and again, while the debt is looked at
        with pytest.raises(ConnectionLost):
            await settler.pay()
        assert len(found) + len(settler.debt) == 11
        await settler.pay()
        assert settler.debt == {}
        assert found.counts["different"] == 11

    asyncio.run(story())
    found.close()
