"""The full census counts what a snapshot holds, in whatever pieces it comes."""

from __future__ import annotations

from collections import Counter

import pytest

from valkeep.errors import RemoteProtocolError
from valkeep.migrate.preflight.snapshot import SnapshotCounter


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
