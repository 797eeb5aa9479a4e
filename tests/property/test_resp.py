"""RESP in any pieces, nested and damaged, by both builds: equal values or an error, never a crash, a hang or memory by claim."""

from __future__ import annotations

import tracemalloc
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.interpreted import both
from valkeep.errors import RemoteProtocolError, ServerError
from valkeep.wire.resp import encode

INSTALLED, INTERPRETED = both("resp")

words = st.binary(max_size=30)
lines = st.text(st.characters(blacklist_characters="\r\n", codec="ascii"), max_size=20).map(str.encode)
leaves = st.one_of(
    words.map(lambda data: b"$%d\r\n%s\r\n" % (len(data), data)),
    lines.map(lambda line: b"+%s\r\n" % line),
    lines.map(lambda line: b"-ERR %s\r\n" % line),
    st.integers(-(2**63), 2**63 - 1).map(lambda number: b":%d\r\n" % number),
    st.floats(allow_nan=False).map(lambda number: b",%s\r\n" % repr(number).encode()),
    st.integers().map(lambda number: b"(%d\r\n" % number),
    st.sampled_from([b"_\r\n", b"#t\r\n", b"#f\r\n", b"$-1\r\n", b"*-1\r\n", b"=7\r\ntxt:abc\r\n", b"!5\r\nERR x\r\n"]),
)


def aggregate(children: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    some = st.lists(children, max_size=4)
    return st.one_of(
        some.map(lambda items: b"*%d\r\n" % len(items) + b"".join(items)),
        some.map(lambda items: b"~%d\r\n" % len(items) + b"".join(items)),
        some.map(lambda items: b">%d\r\n" % len(items) + b"".join(items)),
        some.map(lambda items: b"%%%d\r\n" % len(items) + b"".join(item + item for item in items)),
        some.map(lambda items: b"|%d\r\n" % len(items) + b"".join(item + item for item in items) + b":1\r\n"),
    )


messages = st.recursive(leaves, aggregate, max_leaves=20)
cuts = st.lists(st.integers(0, 4000), max_size=10)


def pieces(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *[place % (len(data) + 1) for place in places]})
    return [data[start:stop] for start, stop in zip(at, at[1:], strict=False)]


def shown(value: Any) -> Any:
    """Comparable between the builds, whose classes differ; errors have no equality of their own."""
    if isinstance(value, ServerError):
        return ("error", value.kind, value.text)
    if isinstance(value, list):
        return (type(value).__name__, [shown(item) for item in value])
    if isinstance(value, (set, frozenset, tuple)):
        return (type(value).__name__, sorted(repr(shown(item)) for item in value))
    if isinstance(value, dict):
        return ("map", sorted(repr((shown(key), shown(item))) for key, item in value.items()))
    return repr(value)


def told(resp: Any, parts: list[bytes]) -> list[Any]:
    """What a parser says of these pieces, an error at the end included."""
    parser = resp.Parser()
    values: list[Any] = []
    for part in parts:
        parser.feed(part)
        try:
            values.extend(map(shown, parser))
        except RemoteProtocolError as error:
            return [*values, "broken" if error.remedy else "without a remedy"]
    return values


@given(st.lists(messages, max_size=5), cuts)
def test_any_chunking_gives_the_same_values_in_both_builds(parts: list[bytes], places: list[int]) -> None:
    data = b"".join(parts)
    whole = told(INSTALLED, [data])
    assert len(whole) == len(parts)
    assert "broken" not in whole
    assert told(INSTALLED, pieces(data, places)) == whole
    assert told(INTERPRETED, pieces(data, places)) == whole


@given(
    st.lists(messages, min_size=1, max_size=3), st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=4), cuts
)
def test_damaged_bytes_are_the_same_error_or_values_in_both_builds(
    parts: list[bytes], damage: list[tuple[int, int]], places: list[int]
) -> None:
    data = bytearray(b"".join(parts))
    for at, byte in damage:
        data[at % len(data)] = byte
    assert told(INSTALLED, pieces(bytes(data), places)) == told(INTERPRETED, pieces(bytes(data), places))


@given(st.binary(max_size=200), cuts)
def test_any_bytes_are_values_or_an_error(data: bytes, places: list[int]) -> None:
    assert told(INSTALLED, pieces(data, places)) == told(INTERPRETED, pieces(data, places))


@given(st.sampled_from([b"$", b"*", b"%", b"~", b">", b"=", b"!", b"|"]), st.integers(1 << 20, 1 << 63))
def test_a_claimed_length_allocates_nothing(kind: bytes, claim: int) -> None:
    tracemalloc.start()
    try:
        for resp in (INSTALLED, INTERPRETED):
            told(resp, [b"%s%d\r\n" % (kind, claim), b"xx"])
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@given(st.lists(words, min_size=1, max_size=6))
def test_a_command_is_read_back_as_it_was_encoded(args: list[bytes]) -> None:
    parser = INSTALLED.Parser()
    parser.feed(encode(*args))
    assert parser.next() == args
