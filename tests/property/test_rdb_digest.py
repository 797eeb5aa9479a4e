"""Rows are the same in both builds, for any chunks and any encoding."""

from __future__ import annotations

from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.support.interpreted import both
from tests.support.rdb_records import Case, any_case, snapshot
from tests.support.rdb_trace import pieces
from valkeep.wire.rdb import opcodes

KEY = bytes(range(100, 116))
cuts = st.lists(st.integers(0, 1 << 20), max_size=10)


def rows(digest: Any, decode: Any, data: bytes, places: list[int], mode: int) -> tuple[bytes, int, bytes]:
    digester = digest.Digester(KEY, mode)
    decoder = decode.Decoder(digester)
    found = b""
    for chunk in pieces(data, places):
        decoder.feed(chunk)
        found += digester.drain()
    assert decoder.finished
    return found, digester.absent, digester.functions_digest


@given(any_case(), cuts, st.integers(0, 2))
@settings(max_examples=200)
def test_both_builds_give_the_same_rows_in_any_chunks(case: Case, places: list[int], mode: int) -> None:
    data = snapshot(case)
    (digest, twin), (decode, decode_twin) = both("digest"), both("rdb.decode")
    whole = rows(digest, decode, data, [], mode)
    assert rows(digest, decode, data, places, mode) == whole
    assert rows(twin, decode_twin, data, places, mode) == whole


@given(any_case(), any_case())
@settings(max_examples=200)
def test_values_have_equal_rows_exactly_when_they_are_equal(one: Case, two: Case) -> None:
    assume(opcodes.KIND_STREAM not in (one.kind, two.kind))  # their times differ, and are not in the digest
    (digest, _), (decode, _) = both("digest"), both("rdb.decode")
    first, second = (rows(digest, decode, snapshot(case), [], 0)[0] for case in (one, two))
    assert (first == second) == (one.kind == two.kind and one.value == two.value)
