"""Whatever is written is read back, in any chunks and by both builds; whatever is damaged is an error, never a crash, a hang or a hoard."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.interpreted import both
from tests.support.rdb_records import Case, any_case, cases, snapshot, texts
from tests.support.rdb_trace import builds, pieces, told
from valkeep.errors import RemoteProtocolError, ValkeepError
from valkeep.wire import intset, listpack, lzf, ziplist, zipmap
from valkeep.wire.checksum import combine, crc64, key_slot
from valkeep.wire.rdb.decode import Decoder
from valkeep.wire.rdb.encode import dump_payload
from valkeep.wire.rdb.handler import Handler
from valkeep.wire.rdb.record import payload_record, snapshot_records

FIXED = [snapshot(case) for case in cases()]
cuts = st.lists(st.integers(0, 1 << 20), max_size=20)


@given(any_case(), cuts)
@settings(max_examples=300)
def test_what_was_written_is_read_back(case: Case, places: list[int]) -> None:
    data = snapshot(case)
    found = snapshot_records(data)
    assert [record.value for record in found] == [case.value, case.value]
    assert payload_record(dump_payload(case.record(), case.dialect, case.version, case.choice())).value == case.value
    installed, interpreted = builds()
    assert told(interpreted, pieces(data, places)) == told(installed, [data])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good snapshot with a few bytes changed, left out, doubled or put in."""
    data = bytearray(draw(st.sampled_from(FIXED)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            data[at : at + 1] = bytes(
                [draw(st.sampled_from([0, 1, 0x7F, 0x80, 0x81, 0xC0, 0xC3, 0xF0, 0xF4, 0xFE, 0xFF]) | st.integers(0, 255))]
            )
        elif kind == 1:
            del data[at : at + draw(st.integers(1, 9))]
        elif kind == 2:
            data[at:at] = data[at : at + draw(st.integers(1, 40))]
        else:
            data[at:at] = draw(st.binary(min_size=1, max_size=9))
    return bytes(data)


@given(damaged(), cuts)
@settings(max_examples=1000)
def test_damage_is_told_alike_by_both_builds_in_any_chunks(data: bytes, places: list[int]) -> None:
    installed, interpreted = builds()
    whole = told(installed, [data], 1 << 16)
    assert whole[-1][0] in ("RemoteProtocolError", "Refused", "finished")
    assert told(interpreted, [data], 1 << 16) == whole
    cut = told(installed, pieces(data, places), 1 << 16)
    assert cut == whole or ("not an RDB snapshot" in cut[-1][1] and "not an RDB snapshot" in whole[-1][1])  # it shows what was there


@pytest.mark.parametrize("name", ["listpack", "ziplist", "intset", "zipmap"])
@given(st.data())
@settings(max_examples=300)
def test_damaged_packed_values_are_an_error_alike_in_both_builds(name: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(texts, min_size=1, max_size=8))
    if name == "intset":
        good = intset.build(sorted(data.draw(st.sets(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1, max_size=8))))
    elif name == "zipmap":
        good = zipmap.build([(value, value) for value in values])
    else:
        good = (listpack if name == "listpack" else ziplist).build(values)
    blob = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    outcomes = []
    for module in both(name):
        read = {"intset": "members", "zipmap": "fields"}.get(name, "entries")
        try:
            outcomes.append(getattr(module, read)(bytes(blob)))
        except RemoteProtocolError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


@given(st.lists(texts, max_size=40))
def test_listpacks_and_ziplists_keep_their_entries(values: list[bytes]) -> None:
    for module in (*both("listpack"), *both("ziplist")):
        assert module.entries(module.build(values)) == values
    assert both("listpack")[0].build(values) == both("listpack")[1].build(values)


@pytest.mark.parametrize("size", [16373, 16376, 16377, 16378, 16379, 16380, 2097140, 2097141, 2097146, 2097147, 2097150])
def test_listpack_entries_at_the_edges_of_the_backward_length(size: int) -> None:
    blob = listpack.build([b"x" * size, b"after"])
    assert listpack.entries(blob) == [b"x" * size, b"after"]


@given(st.binary(max_size=3000) | st.lists(st.sampled_from([b"ab", b"abc" * 20, b"\0" * 50]), max_size=60).map(b"".join))
def test_lzf_gives_back_what_it_took(data: bytes) -> None:
    packed = lzf.compress(data)
    for module in both("lzf"):
        assert module.decompress(packed, len(data)) == data
        if data:
            with pytest.raises(RemoteProtocolError):
                module.decompress(packed, len(data) - 1)
            with pytest.raises(RemoteProtocolError):
                module.decompress(packed, len(data) + 1)


@given(st.binary(max_size=200), st.integers(0, 400))
@example(b"\x01ab\xe0\xff\x01", 300)
def test_lzf_of_anything_is_an_error_or_the_same_in_both_builds(data: bytes, size: int) -> None:
    outcomes = []
    for module in both("lzf"):
        try:
            outcomes.append(module.decompress(data, size))
        except RemoteProtocolError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_checksums_can_be_continued_and_combined(first: bytes, second: bytes) -> None:
    whole = crc64(first + second)
    assert crc64(second, crc64(first)) == whole
    assert combine(crc64(first), crc64(second), len(second)) == whole


def test_checksums_have_their_published_values() -> None:
    assert crc64(b"123456789") == 0xE9C6D914C4B8D9CA
    assert key_slot(b"123456789") == 0x31C3
    assert key_slot(b"{user1000}.following") == key_slot(b"user1000")
    assert key_slot(b"foo{}{bar}") == key_slot(b"foo{}{bar}") != key_slot(b"bar")
    assert key_slot(b"foo{{bar}}zap") == key_slot(b"{bar")


CLAIMS = {
    "a string": b"\x00\x01k\x81" + b"\x00\x00\x00\x00\x1f\xff\xff\xff",
    "a compressed string": b"\x00\x01k\xc3\x80\x1f\xff\xff\xff\x80\x1f\xff\xff\xff",
    "a list": b"\x01\x01k\x81" + b"\xff" * 8 + b"\x01x" * 100,
    "a hash with expiries": b"\x18\x01k" + bytes(8) + b"\x81" + b"\xff" * 8,
    "a stream": b"\x15\x01k\x81\x7f" + b"\xff" * 7,
    "a stream's groups": b"\x15\x01k\x00\x00\x00\x00\x00\x00\x00\x00\x00\x81" + b"\xff" * 8 + b"\x01g\x00\x00\x00\x81" + b"\xff" * 8,
    "a module": b"\x07\x01k\x01\x05\x81" + b"\x00\x00\x00\x00\x1f\xff\xff\xff",
    "a listpack": b"\x10\x01k\x0d\x0d\x00\x00\x00\x01\x00\xf0\xff\xff\xff\xff\x00\xff",
    "a stream node": b"\x15\x01k\x01\x10"
    + bytes(16)
    + b"\x14\x14\x00\x00\x00\xff\xff\x01\x01\x00\x01\xf4"
    + b"\xff" * 7
    + b"\x7f"
    + b"\xff",
}


@pytest.mark.parametrize("name", CLAIMS)
def test_memory_follows_the_bytes_received_and_not_the_lengths_claimed(name: str) -> None:
    decoder = Decoder(Handler())
    tracemalloc.start()
    try:
        try:
            decoder.feed(b"REDIS0012" + CLAIMS[name])
            for _ in range(64):
                decoder.feed(b"\x01x" * 512)
        except ValkeepError:
            pass
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
