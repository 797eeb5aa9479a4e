"""Looking again at written keys: whatever fails on the way, a key counts as equal only when it was seen equal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import ServerInfo
from valkeep.errors import ConnectionLost, Refused, ServerError, ValkeepError
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

    followed = True

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


class Changing(Server):
    """An eye on a server where every look finds another value; ``until``: so many times."""

    def __init__(self, until: int) -> None:
        super().__init__(b"0")
        self.until = until
        self.looks = 0

    async def look(self, keys: Sequence[Key]) -> Looked:
        self.looks += 1
        record = Record(0, b"k", -1, KIND_STRING, b"%d" % min(self.looks, self.until))
        return Looked([Seen(dump_payload(record, DIALECT_REDIS, 11), -1) for _ in keys], 1)


@pytest.mark.parametrize(("changes", "differ"), [(1, 1), (3, 1), (10_000, 0)])
def test_of_a_source_that_is_not_followed_only_a_value_that_stands_still_can_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: int, differ: int
) -> None:
    monkeypatch.setattr(settle, "DOUBT_SECONDS", 0.02)

    async def barrier(offset: int) -> None:
        del offset

    stream, found = Stream(tmp_path), Found(tmp_path)
    stream.followed = False
    eyes = cast("tuple[Eye, Eye]", (Changing(changes), Server(b"target")))
    settler = Settler(cast("Follower", stream), eyes, barrier, found, Mode.EXACT, exact=True, hides_fields=False)

    async def story() -> None:
        settler.owe([(0, b"k")])
        await settler.pay()
        assert found.counts["different"] == differ
        assert len(settler.debt) == 1 - differ
        settler.owe([(0, b"held")])
        await settler.settle_in_pause(5.0, 100)  # nobody writes: what differs does
        assert found.counts["different"] == 2
        assert settler.debt == {}

    asyncio.run(story())
    assert eyes[0].looks >= settle.DOUBTS  # type: ignore[attr-defined]
    found.close()


def settler_of(folder: Path, barrier: Callable[[int], Awaitable[None]]) -> tuple[Settler, Stream, Found]:
    stream, found = Stream(folder), Found(folder)
    eyes = cast("tuple[Eye, Eye]", (Server(b"same"), Server(b"same")))
    return Settler(cast("Follower", stream), eyes, barrier, found, Mode.EXACT, exact=True, hides_fields=False), stream, found


def test_looking_ends_when_time_is_up_and_owes_the_rest(tmp_path: Path) -> None:
    looks = 0

    async def barrier(offset: int) -> None:
        nonlocal looks
        del offset
        looks += 1
        if looks == 3:
            await asyncio.Event().wait()

    settler, stream, found = settler_of(tmp_path, barrier)
    for number in range(11):
        stream.written.note(0, b"%d" % number, 50)

    async def story() -> None:
        await settler.settle(0.5)
        assert settler.late > 0
        assert (settler.looked, len(settler.debt)) == (4, 7)
        await settler.settle(5.0)
        assert settler.late == 0
        assert (settler.looked, settler.debt) == (11, {})

    asyncio.run(story())
    found.close()


def test_a_time_out_that_is_not_its_own_is_an_error(tmp_path: Path) -> None:
    async def barrier(offset: int) -> None:
        raise TimeoutError(f"waiting for {offset}")

    settler, stream, found = settler_of(tmp_path, barrier)
    stream.written.note(0, b"k", 50)
    with pytest.raises(TimeoutError, match="waiting"):
        asyncio.run(settler.settle(5.0))
    assert len(settler.debt) == 1
    found.close()


def test_more_debt_than_can_be_looked_at_is_never_valid_and_needs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "DEBT", 10)

    async def barrier(offset: int) -> None:
        raise ConnectionLost(f"not {offset}", remedy="wait")

    settler, stream, found = settler_of(tmp_path, barrier)
    for number in range(25):
        stream.written.note(0, b"%d" % number, 50)
    with pytest.raises(ConnectionLost):
        asyncio.run(settler.take_all(5))
    assert len(settler.debt) <= 10
    assert "more than 10 keys" in stream.written.everything
    found.close()


def test_when_one_look_fails_the_other_is_over_before_anybody_hears_of_it(tmp_path: Path) -> None:
    still = True

    async def barrier(offset: int) -> None:
        nonlocal still
        del offset
        try:
            await asyncio.Event().wait()
        finally:
            still = False

    settler, stream, found = settler_of(tmp_path, barrier)
    stream.written.note(0, b"k", 50)

    async def refuse(keys: Sequence[Key]) -> Looked:
        del keys
        await asyncio.sleep(0)
        raise Refused("no DUMP", remedy="permit it")

    settler._source.look = refuse  # type: ignore[method-assign]

    async def story() -> None:
        with pytest.raises(Refused):
            await settler.take_all()
        assert not still

    asyncio.run(story())
    found.close()


def test_a_key_that_differs_counts_once_however_often_it_is_looked_at(tmp_path: Path) -> None:
    found = Found(tmp_path)
    for _ in range(3):
        found.add("different", 0, b"k")
        found.add("different", 1, b"k")
    found.judge_functions({"lib": "not on the target"})
    found.judge_functions({"lib": "not on the target"})
    assert (found.counts["different"], found.functions, len(found)) == (2, 1, 3)
    assert len(list(found.take())) == 2
    found.judge_functions({})
    assert (len(found), found.examples) == (0, [])
    found.close()


# --------------------------------------------------------------------------------------------------------------------------- eyes


class Answering:
    """A connection that answers ``DUMP`` and ``SELECT`` as the test says; ``sent``: every command."""

    endpoint = Endpoint.parse("redis://h:1")

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.sent: list[tuple[Any, ...]] = []

    async def pipeline(self, commands: list[tuple[Any, ...]], _timeout: float) -> list[Any]:
        self.sent += commands
        return [self.answers.get(command[0], -1 if command[0] == "PEXPIRETIME" else b"OK") for command in commands]

    async def call(self, *_: object) -> list[bytes]:
        return [b"1900000000", b"0"]


def eye_on(connection: Answering, *version: int) -> Eye:
    info = cast("ServerInfo", SimpleNamespace(redis_version=version or (7, 2)))
    return Eye(cast("Connection", connection), info)


@pytest.mark.parametrize(("still", "looks", "tolerance"), [(0, 1, 2), (1, 2, 2), (99, 5, 3002)])
def test_an_expiry_is_read_again_while_the_server_stands_still_in_between(still: int, looks: int, tolerance: int) -> None:
    """``still``: so many looks in which it stands still for 3 s between PTTL and the second TIME."""

    class Old(Answering):
        async def pipeline(self, commands: list[tuple[Any, ...]], _timeout: float) -> list[Any]:
            self.sent += commands
            held = 3 if len([one for one in self.sent if one[0] == "EXEC"]) <= still else 0
            inside = [b"payload", [b"1900000000", b"0"], 1000, [b"%d" % (1_900_000_000 + held), b"0"]]
            return [inside if command[0] == "EXEC" else b"OK" for command in commands]

    connection = Old()
    (seen,) = asyncio.run(eye_on(connection, 6, 2).look([(0, b"k")])).seen
    assert seen is not None
    assert seen.tolerance == tolerance
    assert [command[0] for command in connection.sent].count("EXEC") == looks


@pytest.mark.parametrize("kind", ["LOADING", "MASTERDOWN", "BUSY"])
def test_a_server_that_cannot_show_its_keys_now_is_no_refusal(kind: str) -> None:
    with pytest.raises(ValkeepError) as error:
        asyncio.run(eye_on(Answering(DUMP=ServerError(kind, "not now", remedy="wait for it"))).look([(0, b"k")]))
    assert not isinstance(error.value, Refused)
    assert (error.value.remedy, kind in error.value.message) == ("wait for it", True)


@pytest.mark.parametrize("text", ["NOPERM this user has no permissions to run the 'dump' command", "ERR unknown command 'DUMP'"])
def test_a_server_that_denies_dump_is_a_refusal_with_what_to_permit(text: str) -> None:
    kind, _, rest = text.partition(" ")
    with pytest.raises(Refused) as error:
        asyncio.run(eye_on(Answering(DUMP=ServerError(kind, rest))).look([(0, b"k")]))
    assert "permit DUMP" in error.value.remedy


def test_a_database_that_was_not_selected_is_not_taken_for_the_current_one() -> None:
    connection = Answering(SELECT=ServerError("ERR", "DB index is out of range"))
    eye = eye_on(connection)

    async def story() -> None:
        for _ in range(2):
            with pytest.raises(Refused, match="no database 9"):
                await eye.look([(9, b"k")])
        del connection.answers["SELECT"]
        await eye.look([(9, b"k")])
        await eye.look([(9, b"k")])

    asyncio.run(story())
    assert [command[0] for command in connection.sent].count("SELECT") == 3
