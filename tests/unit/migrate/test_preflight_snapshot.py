"""The full census counts what a snapshot holds, in whatever pieces it comes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.scripted_primary import ScriptedPrimary
from valkeep.client.endpoint import Endpoint
from valkeep.client.replication import HungUp, NotNow
from valkeep.errors import RemoteProtocolError, ValkeepError
from valkeep.migrate.preflight.facts import Census
from valkeep.migrate.preflight.snapshot import SnapshotCounter, explain, read_census


def text(value: bytes) -> bytes:
    return bytes([len(value)]) + value


MODULE_ID = 0
for _letter in "vectorset":
    MODULE_ID = MODULE_ID << 6 | "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(_letter)
MODULE_ID = MODULE_ID << 10 | 1

STRING = b"\x00" + text(b"k") + text(b"v")
EXPIRING = b"\xfc" + bytes(8) + b"\x00" + text(b"e") + text(b"v")
HASH = b"\x04" + text(b"h") + b"\x01" + text(b"f") + text(b"v")
HASH_TTL = b"\x18" + text(b"ttl") + (5).to_bytes(8, "little") + b"\x01" + b"\x01" + text(b"f") + text(b"v")
MODULE = b"\x07" + text(b"vec") + b"\x81" + MODULE_ID.to_bytes(8, "big") + b"\x02\x05" + b"\x05" + text(b"blob") + b"\x00"
END = b"\xff" + bytes(8)
SNAPSHOT = (
    b"REDIS0012\xfa" + text(b"redis-ver") + text(b"7.4.6") + b"\xfe\x00" + STRING + EXPIRING + HASH + b"\xfe\x03" + HASH_TTL + MODULE + END
)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1000])
def test_every_record_is_counted_whatever_the_pieces(size: int) -> None:
    counter = SnapshotCounter()
    for at in range(0, len(SNAPSHOT), size):
        counter.feed(SNAPSHOT[at : at + size])
    assert counter.done
    census = counter.census(1.0)
    assert census.complete
    assert census.kinds == Counter(string=2, hash=2, module=1)
    assert census.field_ttl_hashes == 1
    assert census.modules == {"vectorset": 1}
    assert census.examples == {"field-ttl": ("db3 'ttl'",), "module:vectorset": ("db3 'vec'",)}
    assert census.snapshot_version == 12
    assert census.snapshot_bytes == len(SNAPSHOT)


def test_hashes_with_field_ttls_of_valkey_are_counted_under_its_own_magic() -> None:
    hash_2 = b"\x16" + text(b"h") + b"\x01" + text(b"f") + text(b"v") + (5).to_bytes(8, "little")
    counter = SnapshotCounter()
    counter.feed(b"VALKEY080" + hash_2 + END)
    assert counter.census(0.0).field_ttl_hashes == 1


def test_an_unknown_type_is_an_error_with_its_place() -> None:
    with pytest.raises(RemoteProtocolError, match="byte 9"):
        SnapshotCounter().feed(b"REDIS0012" + b"\x63" + text(b"k") + text(b"v"))


def test_what_is_no_snapshot_is_an_error() -> None:
    with pytest.raises(RemoteProtocolError, match="not an RDB snapshot"):
        SnapshotCounter().feed(b"HTTP/1.1 400 Bad Request\r\n")


def test_an_unfinished_snapshot_is_not_done() -> None:
    counter = SnapshotCounter()
    counter.feed(SNAPSHOT[: -len(END)])
    assert not counter.done


async def census_of(primary: ScriptedPrimary) -> Census:
    return await read_census(Endpoint("127.0.0.1", primary.port), "8.4.0", 5, lambda _: None, lambda: 0.0)


@pytest.mark.parametrize("chunk", [0, 7])
@pytest.mark.parametrize("framing", ["mark", "length"])
def test_a_census_reads_one_snapshot_of_a_server_and_hangs_up(framing: str, chunk: int) -> None:
    async def work() -> Census:
        async with ScriptedPrimary(SNAPSHOT, framing=framing, chunk=chunk) as primary:
            async with asyncio.timeout(20):
                return await census_of(primary)

    census = asyncio.run(work())
    assert (census.total, census.modules, census.snapshot_bytes) == (5, {"vectorset": 1}, len(SNAPSHOT))


class Breaking(ScriptedPrimary):
    """Something else than a snapshot, as a primary sends it."""

    async def _full_resync(self, writer: asyncio.StreamWriter) -> None:
        writer.write(self.snapshot)
        if self.framing == "length":
            writer.close()


FULL = f"+FULLRESYNC {'a' * 40} 7\r\n".encode()


@pytest.mark.parametrize(
    ("said", "kind", "words", "belongs"),
    [
        (lambda: Breaking(b"-LOADING the dataset\r\n"), NotNow, "cannot replicate now: LOADING", "PSYNC FOR CENSUS"),
        (lambda: Breaking(FULL + b"-ERR fork\r\n"), NotNow, "could not make a snapshot", "PSYNC FOR CENSUS"),
        (lambda: Breaking(FULL + b"$100\r\n" + SNAPSHOT[:50], framing="length"), HungUp, "in the snapshot", "PSYNC FOR CENSUS"),
        (lambda: ScriptedPrimary(SNAPSHOT[: -len(END)]), RemoteProtocolError, "in the middle of its data", "SNAPSHOT"),
        (lambda: ScriptedPrimary(b"REDIS0012\x63"), RemoteProtocolError, "byte 9", "SNAPSHOT"),
    ],
)
def test_why_there_is_no_census_is_told_and_where_it_belongs(
    said: Callable[[], Any], kind: type[ValkeepError], words: str, belongs: str
) -> None:
    async def work() -> None:
        async with said() as primary:
            with pytest.raises(kind, match=words) as told:
                await asyncio.wait_for(census_of(primary), 20)
            assert explain(told.value)[0] == belongs

    asyncio.run(work())
