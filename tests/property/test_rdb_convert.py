"""Converted hashes are what the decoder reads as the policy says; whole and in pieces, compiled and interpreted give the same."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.interpreted import both
from tests.support.rdb_records import ttl_hashes
from valkeep.errors import ValkeepError
from valkeep.wire.rdb import opcodes
from valkeep.wire.rdb.convert import DROP_FIELD, KEEP_FIELD, TO_HASH_2, TO_REDIS_EX
from valkeep.wire.rdb.encode import Encoding, SnapshotWriter, length
from valkeep.wire.rdb.record import Field, Record, snapshot_records
from valkeep.wire.rdb.scan import parse_record_prefix

Fields = dict[bytes, Field]
cuts = st.lists(st.integers(0, 1 << 20), max_size=20)
FORMS = [(0, kind, mode) for kind in (22, 23, 24, 25) for mode in (TO_HASH_2, KEEP_FIELD, DROP_FIELD)]
FORMS += [(1, 22, mode) for mode in (KEEP_FIELD, DROP_FIELD, TO_REDIS_EX)]


def record_of(fields: Fields, dialect: int, kind: int, compress: bool) -> bytes:
    writer = SnapshotWriter(dialect, 80 if dialect else 12)
    writer.select(0)
    writer.take()
    writer.record(Record(0, b"key", 99, opcodes.KIND_HASH, fields), Encoding(type_id=kind, compress=compress))
    return writer.take()


def whole(module: ModuleType, data: bytes, dialect: int, mode: int) -> Any:
    """(output, counts, position) or the error."""
    converter = module.RecordConverter(dialect, mode)
    out = bytearray()
    try:
        pos = converter.convert(data, 0, len(data), out)
    except ValkeepError as error:
        return type(error).__name__, error.message
    return bytes(out), converter.fields, converter.fields_with_ttl, converter.fields_dropped, converter.empty, pos


def in_pieces(module: ModuleType, data: bytes, start: int, dialect: int, mode: int, places: list[int]) -> Any:
    """(output, counts, position) or the error, of the value that begins at ``start``."""
    kind = data[start - 5]
    converter = module.HashConverter(kind, dialect, mode)
    out = bytearray()
    pos = start
    try:
        for end in [*sorted({start + place % (len(data) - start + 1) for place in places}), len(data)]:
            pos = converter.feed(data, pos, end, out)
            if converter.done:
                break
    except ValkeepError as error:
        return type(error).__name__, error.message
    return bytes(out), converter.fields, converter.fields_with_ttl, converter.fields_dropped, converter.done, pos


def after(fields: Fields, mode: int) -> Fields:
    if mode == KEEP_FIELD:
        return {name: Field(found.value) for name, found in fields.items()}
    if mode == DROP_FIELD:
        return {name: found for name, found in fields.items() if found.expire_ms == -1}
    return fields


@given(ttl_hashes, st.sampled_from(FORMS), st.booleans(), cuts)
@settings(max_examples=300)
def test_a_converted_hash_is_read_as_the_policy_says(fields: Fields, form: tuple[int, int, int], compress: bool, places: list[int]) -> None:
    dialect, kind, mode = form
    data = record_of(fields, dialect, kind, compress)
    module, twin = both("rdb.convert")
    result = whole(module, data, dialect, mode)
    assert whole(twin, data, dialect, mode) == result
    expired = sum(found.expire_ms != -1 for found in fields.values())
    want = after(fields, mode)
    out, count, with_ttl, dropped, empty, pos = result
    assert (count, with_ttl, dropped, empty, pos) == (len(fields), expired, expired if mode == DROP_FIELD else 0, not want, len(data))

    target = 1 if mode == TO_HASH_2 else 0
    if want:
        writer = SnapshotWriter(target, 80 if target else 12)
        writer.raw(out)
        (record,) = snapshot_records(writer.finish())
        assert (record.key, record.expire_ms, record.value) == (b"key", 99, want)

    prefix = parse_record_prefix(data, 0, len(data))
    assert prefix is not None
    pieces = in_pieces(module, data, prefix.value_pos, dialect, mode, places)
    assert in_pieces(twin, data, prefix.value_pos, dialect, mode, places) == pieces
    body, *counts = pieces
    assert counts == [len(fields), expired, dropped, True, len(data)]
    if mode == DROP_FIELD:
        body = length(len(want)) + body
    out_type = module.HashConverter(kind, dialect, mode).out_type
    writer = SnapshotWriter(target, 80 if target else 12)
    writer.raw(bytes([out_type, 1]) + b"k" + body)
    (record,) = snapshot_records(writer.finish())
    assert record.value == want


@given(ttl_hashes, st.sampled_from(FORMS), st.data(), cuts)
@settings(max_examples=400)
def test_a_damaged_hash_is_told_alike_by_both_builds(
    fields: Fields, form: tuple[int, int, int], draw: st.DataObject, places: list[int]
) -> None:
    dialect, kind, mode = form
    data = bytearray(record_of(fields, dialect, kind, draw.draw(st.booleans())))
    start = data.index(b"\x03key") + 4
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(start, len(data) - 1))
        data[at] = draw.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0x81, 0xC0, 0xC3, 0xF0, 0xF4, 0xFF]) | st.integers(0, 255))
    module, twin = both("rdb.convert")
    assert whole(twin, bytes(data), dialect, mode) == whole(module, bytes(data), dialect, mode)
    one = in_pieces(module, bytes(data), start, dialect, mode, places)
    assert in_pieces(twin, bytes(data), start, dialect, mode, places) == one
    assert in_pieces(module, bytes(data), start, dialect, mode, []) == one
