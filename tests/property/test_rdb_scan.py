"""A scanner's boundaries are the decoder's; any chunks and both builds give the same; damage is an error and never a crash or a hang."""

from __future__ import annotations

import tracemalloc
from types import ModuleType
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.interpreted import both
from tests.support.rdb_items import Item, items_of, magic
from tests.support.rdb_records import Case, any_case, cases, snapshot
from valkeep.errors import ValkeepError
from valkeep.wire.rdb.decode import Decoder
from valkeep.wire.rdb.handler import Handler

FIXED = [snapshot(case) for case in cases()]
PREFIXES = {"expiry in ms": {252}, "expiry in s": {253}, "expiry and idle": {252, 248}, "frequency": {249}, "key metadata": {252, 243}}
cuts = st.lists(st.integers(0, 1 << 20), max_size=20)


def scanned(scan: ModuleType, data: bytes, places: list[int], attention: bytes = bytes(256), take: bool = False) -> list[Any]:
    """What became of each piece, as one list that does not depend on the pieces; an error ends it."""
    header = scan.parse_header(data)
    told: list[Any] = []
    try:
        step = scan.Scanner(attention, header.dialect, header.version)
        pos = 9
        for end in [*sorted({9 + place % (len(data) - 8) for place in places}), len(data)]:
            while True:
                pos = step.scan(data, pos, end)
                if step.stop == scan.ATTENTION:
                    if not told or told[-1] != ("attention", pos, step.type):
                        told.append(("attention", pos, step.type))
                    step.take()
                elif step.stop == scan.ITEM:
                    told.append(("item", pos, step.keys, step.database))
                else:
                    break
            assert pos <= end
            if step.stop == scan.END:
                break
        told.append((step.stop, step.keys, step.expires, step.database, pos, step.offset, step.inside))
    except ValkeepError as error:
        told.append((type(error).__name__, error.remedy, *(() if "magic" in error.message else (error.message,))))
    return told


class Boundaries(Handler):
    """Counts records as the decoder tells them."""

    def __init__(self) -> None:
        self.records = 0
        self.expires = 0
        self.database = 0

    def select(self, database: int) -> None:
        self.database = database

    def begin_key(self, key: bytes, expire_ms: int, kind: int, freq: int, idle: int) -> None:
        self.expires += expire_ms != -1

    def end_key(self) -> None:
        self.records += 1


@given(any_case(), cuts)
@settings(max_examples=200)
def test_scanner_and_decoder_agree_about_every_snapshot(case: Case, places: list[int]) -> None:
    data = snapshot(case)
    seen = Boundaries()
    decoder = Decoder(seen)
    decoder.feed(data)
    assert decoder.finished
    scan, twin = both("rdb.scan")
    whole = scanned(scan, data, [])
    assert whole == [(scan.END, seen.records, seen.expires, seen.database, len(data) - 9, len(data) - 9, False)]
    assert scanned(scan, data, places) == scanned(twin, data, places) == whole


def test_the_decoder_finishes_a_record_exactly_where_the_scanner_does() -> None:
    (scan, _) = both("rdb.scan")
    for data in FIXED:
        header = scan.parse_header(data)
        seen = Boundaries()
        decoder = Decoder(seen)
        step = scan.Scanner(bytes(256), header.dialect, header.version)
        decoder.feed(data[:9])
        pos = 9
        for end in range(10, len(data) - 8):
            decoder.feed(data[end - 1 : end])
            pos = step.scan(data, pos, end)
            assert step.keys == seen.records, end


@given(st.lists(st.sampled_from(items_of(0)), max_size=8), cuts, st.sets(st.integers(0, 254)))
@settings(max_examples=200)
def test_taking_flagged_items_gives_their_bounds_in_any_chunks(items: list[Item], places: list[int], types: set[int]) -> None:
    data = magic(0) + b"".join(item.data for item in items) + b"\xff"
    attention = bytes(number in types for number in range(256))
    scan, twin = both("rdb.scan")
    whole = scanned(scan, data, [], attention)
    assert scanned(scan, data, places, attention) == scanned(twin, data, places, attention) == whole
    bounds = []
    pos = 9
    for item in items:
        if {item.type, *PREFIXES.get(item.name, ())} & types:
            bounds.append(pos)
        pos += len(item.data)
    assert [entry[1] for entry in whole if entry[0] == "attention"] == bounds
    assert [entry[0] for entry in whole[:-1]] == ["attention", "item"] * len(bounds)
    assert whole[-1][0] == scan.END


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good snapshot with a few bytes changed, left out or put in, after its header."""
    data = bytearray(draw(st.sampled_from(FIXED)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(9, len(data) - 1))
        kind = draw(st.integers(0, 2))
        if kind == 0:
            data[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0x81, 0xC0, 0xC3, 0xF0, 0xF3, 0xFE, 0xFF]) | st.integers(0, 255))
        elif kind == 1:
            del data[at : at + draw(st.integers(1, 9))]
        else:
            data[at:at] = draw(st.binary(min_size=1, max_size=9))
    return bytes(data)


@given(damaged(), cuts)
@settings(max_examples=500)
def test_damage_is_told_alike_by_both_builds_in_any_chunks(data: bytes, places: list[int]) -> None:
    scan, twin = both("rdb.scan")
    whole = scanned(scan, data, [])
    assert scanned(twin, data, []) == whole
    assert scanned(scan, data, places) == whole
    assert scanned(twin, data, places) == whole


@given(st.binary(max_size=200), cuts)
@settings(max_examples=500)
def test_noise_is_told_alike_and_reserves_no_memory(noise: bytes, places: list[int]) -> None:
    scan, twin = both("rdb.scan")
    tracemalloc.start()
    try:
        whole = scanned(scan, b"REDIS0012" + noise, [])
        assert scanned(twin, b"REDIS0012" + noise, places) == whole
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
