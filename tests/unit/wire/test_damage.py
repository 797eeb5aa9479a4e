"""Each way in which a packed value can be damaged is told by name, by both builds; also those that a random change seldom makes."""

from __future__ import annotations

import pytest

from tests.support.interpreted import both
from valkeep.errors import RemoteProtocolError
from valkeep.wire import listpack, ziplist
from valkeep.wire.rdb.encode import length, string


def pack(*entries: bytes | int) -> bytes:
    """A whole listpack."""
    return listpack.build([entry if isinstance(entry, bytes) else b"%d" % entry for entry in entries])


def bare(entries: bytes, count: int = 1) -> bytes:
    """A listpack of raw entries."""
    return (7 + len(entries)).to_bytes(4, "little") + count.to_bytes(2, "little") + entries + b"\xff"


LISTPACKS = {
    "ends inside an entry": [
        bare(b"\xc1"), bare(b"\xe1"), bare(b"\xf0\x01\x00"), bare(b"\xf1\x01"), bare(b"\xf2\x01\x02"), bare(b"\xf3\x01\x02\x03"),
        bare(b"\xf4" + bytes(7)), bare(b"\xe0\x80" + b"x" * 128 + b"\x01"),
    ],
    "has its end in the middle": [bare(b"\xff\x01")],
    "unknown encoding F5": [bare(b"\xf5\x01")],
    "runs past its end": [bare(b"\x85a\x03"), bare(b"\xe1\x00" + b"x" * 9), bare(b"\xf0\xff\xff\xff\xff\x01")],
    "backward length is wrong": [bare(b"\x01\x02"), bare(b"\x01"), bare(b"\xe0\x80" + b"x" * 128 + b"\x01\x03"), bare(b"\xe0\x80" + b"x" * 128 + b"\x81\x82")],
    "says it has 2 entries, and has 1": [bare(b"\x01\x01", 2)],
    "does not end with FF": [bare(b"\x01\x01")[:-1] + b"\xfe"],
    "has only 6 bytes": [b"\x06\x00\x00\x00\x00\x00"],
    "says it has 9 bytes": [b"\x09" + bytes(5) + b"\xff"],
}  # fmt: skip


def bare_ziplist(entries: bytes, count: int = 1) -> bytes:
    return (11 + len(entries)).to_bytes(4, "little") + (10).to_bytes(4, "little") + count.to_bytes(2, "little") + entries + b"\xff"


ZIPLISTS = {
    "ends inside an entry": [
        bare_ziplist(b"\xfe\x00\x00"), bare_ziplist(b"\x00"), bare_ziplist(b"\x00\x80\x00\x00"), bare_ziplist(b"\x00\x40"), bare_ziplist(b"\x00\xc0\x01"),
        bare_ziplist(b"\x00\xd0\x01\x02"), bare_ziplist(b"\x00\xe0" + bytes(7)), bare_ziplist(b"\x00\xf0\x01"), bare_ziplist(b"\x00\xfe"),
    ],
    "has its end in the middle": [bare_ziplist(b"\xff\x00")],
    "unknown encoding 81": [bare_ziplist(b"\x00\x81\x00\x00\x00\x00")],
    "unknown encoding FF": [bare_ziplist(b"\x00\xff\x00")],
    "runs past its end": [bare_ziplist(b"\x00\x05abc"), bare_ziplist(b"\x00\x80\xff\xff\xff\xff")],
    "the entry before has 7 bytes": [bare_ziplist(b"\x07\x01a")],
    "says it has 2 entries": [bare_ziplist(b"\x00\x01a", 2)],
    "names a wrong place for its last entry": [ziplist.build([b"a", b"b"])[:4] + (10).to_bytes(4, "little") + ziplist.build([b"a", b"b"])[8:]],
}  # fmt: skip
ZIPMAPS = {
    "has only 1 bytes": [b"\xff"],
    "has no end": [b"\x01\x01a\x01\x00b"],
    "ends before its 8 bytes do": [b"\x01\x01a\x01\x00b\xff\xff"],
    "says it has 2 fields, and has 1": [b"\x02\x01a\x01\x00b\xff"],
    "ends inside a field": [b"\x01\x01a\xff", b"\x01\x01a\x01"],
    "ends inside a length": [b"\x01\xfe\x01\x00"],
    "has a field that runs past its end": [b"\x01\x05a\xff", b"\x01\x01a\x01\x09b\xff", b"\x01\xfe\xff\xff\xff\xffa\xff"],
}
INTSETS = {
    "has only 7 bytes": [bytes(7)],
}
READERS = (
    ("listpack", "entries", LISTPACKS),
    ("ziplist", "entries", ZIPLISTS),
    ("zipmap", "fields", ZIPMAPS),
    ("intset", "members", INTSETS),
)
PACKED = [
    (name, read, words, blob)
    for name, read, table in READERS
    for words, blobs in table.items()
    for blob in blobs
]  # fmt: skip


@pytest.mark.parametrize(("name", "read", "words", "blob"), PACKED)
def test_a_damaged_packed_value_is_told_by_name(name: str, read: str, words: str, blob: bytes) -> None:
    for module in both(name):
        with pytest.raises(RemoteProtocolError) as caught:
            getattr(module, read)(blob)
        assert words in caught.value.message
        assert caught.value.remedy


MASTER = (1, 0, 2, b"name", b"age", 0)  # one entry, none deleted, two fields, and the end of the master entry
STREAMS = {
    "has no flags": [pack(*MASTER, b"x", 0, 0, b"ann", 41, 5)],
    "a negative number of fields": [pack(*MASTER, 0, 0, 0, -1, 3), pack(1, 0, -1, 0, 2, 0, 0, 3)],
    "a master entry that does not end with 0": [pack(1, 0, 1, b"name", 1, 2, 0, 0, b"ann", 4)],
    "of a stream of 5 pieces": [pack(*MASTER, 2, 0, 0, b"ann", 41, 6)],
    "counts other entries": [
        pack(2, *MASTER[1:], 2, 0, 0, b"ann", 41, 5), pack(1, 1, *MASTER[2:], 2, 0, 0, b"ann", 41, 5),
        pack(*MASTER, 3, 0, 0, b"ann", 41, 5),
    ],
    "ends inside an entry of a stream": [pack(*MASTER, 2, 0, 0, b"ann"), pack(1, 0, 9, b"name")],
    "has a string or its end where an integer must be": [pack(*MASTER, 2, 0, b"x"), pack(b"x"), pack(), pack(*MASTER, 0, 0, 0, b"x")],
}  # fmt: skip


@pytest.mark.parametrize(("words", "node"), [(words, node) for words, nodes in STREAMS.items() for node in nodes])
def test_a_damaged_node_of_a_stream_is_told_by_name(words: str, node: bytes) -> None:
    value = length(1) + string(bytes(16)) + string(node) + length(1) + length(0) * 2 + length(0)
    for decode, handler in zip(both("rdb.decode"), both("rdb.handler"), strict=True):
        with pytest.raises(RemoteProtocolError) as caught:
            decode.Decoder(handler.Handler()).feed(b"REDIS0009\x0f\x03key" + value)
        assert words in caught.value.message
        assert "key b'key'" in caught.value.message


VALUES = {
    "an odd number of entries": [b"\x10\x01k" + string(pack(b"f")), b"\x11\x01k" + string(pack(b"m")), b"\x0d\x01k" + string(ziplist.build([b"f"]))],
    "is no score": [b"\x11\x01k" + string(pack(b"m", b"1_0")), b"\x03\x01k\x01\x01m\x02xx"],
    "has a field without a value": [b"\x17\x01k" + string(pack(b"f"))],
    "where an integer must be": [b"\x17\x01k" + string(pack(b"f", b"v")), b"\x17\x01k" + string(pack(b"f", b"v", b"soon"))],
    "says that a field expires at": [b"\x17\x01k" + string(pack(b"f", b"v", -1)), b"\x17\x01k" + string(pack(b"f", b"v", 1 << 48))],
    "an idle time of": [b"\xf8\x81" + b"\xff" * 8],
    "its first field expires at": [b"\x18\x01k" + b"\xff" * 8 + b"\x01\x00\x01f\x01v"],
}  # fmt: skip


@pytest.mark.parametrize(("words", "record"), [(words, record) for words, records in VALUES.items() for record in records])
def test_a_damaged_value_is_told_by_name(words: str, record: bytes) -> None:
    for decode, handler in zip(both("rdb.decode"), both("rdb.handler"), strict=True):
        with pytest.raises(RemoteProtocolError) as caught:
            decode.Decoder(handler.Handler()).feed(b"REDIS0012" + record)
        assert words in caught.value.message
