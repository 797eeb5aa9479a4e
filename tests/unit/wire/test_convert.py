"""Hashes with field expiry, from every form that has it into every form that a target may want."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import pytest

from tests.support.rdb_items import BIG, REDIS, VALKEY, length, ms, record, text
from valkeep.errors import LocalProtocolError, Refused, RemoteProtocolError
from valkeep.wire import listpack, lzf
from valkeep.wire.checksum import crc64
from valkeep.wire.rdb import convert
from valkeep.wire.rdb.convert import DROP_FIELD, KEEP_FIELD, TO_HASH_2, TO_REDIS_EX, HashConverter, RecordConverter
from valkeep.wire.rdb.scan import ATTENTION, END, NEED_MORE, Scanner

Fields = dict[bytes, tuple[bytes, int]]
NOW = 1_700_000_000_000
FIELDS: Fields = {
    b"name": (b"ann", 0),
    b"7": (b"123456789012", NOW + 5),
    b"": (b"", NOW),
    b"n" * 70: (b"-129", 0),
    b"big": (b"v" * 5000, (1 << 48) - 2),
    b"-4000": (b"40000", NOW + 100_000_000),
}


def string(value: bytes) -> bytes:
    """As a server writes it: short integers packed."""
    try:
        number = int(value)
    except ValueError:
        return text(value)
    if b"%d" % number == value:
        for code, size in ((0xC0, 1), (0xC1, 2), (0xC2, 4)):
            if -(1 << 8 * size - 1) <= number < 1 << 8 * size - 1:
                return bytes([code]) + number.to_bytes(size, "little", signed=True)
    return text(value)


def pack(fields: Fields, *, compressed: bool) -> bytes:
    blob = listpack.build([part for name, (value, expiry) in fields.items() for part in (name, value, b"%d" % expiry)])
    if not compressed:
        return text(blob)
    small = lzf.compress(blob)
    return b"\xc3" + length(len(small)) + length(len(blob)) + small


def value_of(form: int, fields: Fields, *, compressed: bool = False) -> bytes:
    """The value part in a source's form: 22 to 25 as under REDIS, 122 HASH_2."""
    least = min((expiry for _, expiry in fields.values() if expiry), default=(1 << 48) - 1)
    pairs = [(string(name) + string(value), expiry) for name, (value, expiry) in fields.items()]
    if form == 22:
        return length(len(pairs)) + b"".join(length(expiry) + pair for pair, expiry in pairs)
    if form == 24:
        return ms(least) + length(len(pairs)) + b"".join(length(expiry - least + 1 if expiry else 0) + pair for pair, expiry in pairs)
    if form == 122:
        return length(len(pairs)) + b"".join(pair + ms(expiry or -1) for pair, expiry in pairs)
    return (ms(least) if form == 25 else b"") + pack(fields, compressed=compressed)


class Cursor:
    """A reader of converted values, as plain as can be."""

    def __init__(self, data: bytes) -> None:
        self.data, self.pos = data, 0

    def take(self, size: int) -> bytes:
        self.pos += size
        assert self.pos <= len(self.data)
        return self.data[self.pos - size : self.pos]

    def length(self) -> int:
        first = self.take(1)[0]
        if first < 64:
            return first
        if first < 128:
            return (first & 63) << 8 | self.take(1)[0]
        return int.from_bytes(self.take({0x80: 4, 0x81: 8}[first]), "big")

    def string(self) -> bytes:
        first = self.data[self.pos]
        if first < 0xC0:
            return self.take(self.length())
        self.take(1)
        return b"%d" % int.from_bytes(self.take({0xC0: 1, 0xC1: 2, 0xC2: 4}[first]), "little", signed=True)


def fields_of(out_type: int, value: bytes, count: int | None = None) -> Fields:
    read = Cursor(value)
    found: Fields = {}
    if out_type == 16:
        parts = listpack.entries(read.string())
        found = {name: (value, 0) for name, value in zip(parts[::2], parts[1::2], strict=True)}
    else:
        least = struct.unpack("<q", read.take(8))[0] if out_type == 24 else 0
        for _ in range(read.length() if count is None else count):
            ttl = read.length() if out_type == 24 else 0
            name, body = read.string(), read.string()
            expiry = struct.unpack("<q", read.take(8))[0] if out_type == 22 else (least + ttl - 1 if ttl else 0)
            found[name] = (body, 0 if expiry == -1 else expiry)
    assert read.pos == len(value)
    return found


def expected(fields: Fields, mode: int) -> Fields:
    if mode == KEEP_FIELD:
        return {name: (value, 0) for name, (value, _) in fields.items()}
    if mode == DROP_FIELD:
        return {name: (value, 0) for name, (value, expiry) in fields.items() if not expiry}
    return fields


CASES = [(form, mode, False) for form in (22, 23, 24, 25) for mode in (TO_HASH_2, KEEP_FIELD, DROP_FIELD)]
CASES += [(form, mode, True) for form in (23, 25) for mode in (TO_HASH_2, KEEP_FIELD, DROP_FIELD)]
CASES += [(122, mode, False) for mode in (KEEP_FIELD, DROP_FIELD, TO_REDIS_EX)]


def pieces(data: bytes, size: int, form: int, mode: int) -> tuple[HashConverter, bytes]:
    converter = HashConverter(form % 100, VALKEY if form > 100 else REDIS, mode)
    result = bytearray()
    out = bytearray()
    pos = 0
    for end in itertools.chain(range(size, len(data), size), [len(data)]):
        pos = converter.feed(data, pos, end, out)
        assert converter.done or end - pos < 20
        result += out
        out.clear()
    assert converter.done
    assert pos == len(data)
    return converter, bytes(result)


@pytest.mark.parametrize(("form", "mode", "compressed"), CASES)
@pytest.mark.parametrize("size", [1, 2, 7, 1000, 1 << 20])
def test_a_hash_in_pieces_keeps_what_the_mode_keeps(form: int, mode: int, compressed: bool, size: int) -> None:
    converter, out = pieces(value_of(form, FIELDS, compressed=compressed), size, form, mode)
    assert (converter.fields, converter.fields_with_ttl) == (6, 4)
    assert converter.fields_dropped == (4 if mode == DROP_FIELD else 0)
    assert converter.count_known == (mode != DROP_FIELD)
    assert fields_of(converter.out_type, out, None if converter.count_known else 2) == expected(FIELDS, mode)


@pytest.mark.parametrize(("form", "mode", "compressed"), CASES)
def test_a_whole_record_is_converted_with_its_prefix_and_key(form: int, mode: int, compressed: bool) -> None:
    prefix = b"\xfc" + ms(1234) + b"\xf9\x07"
    value = value_of(form, FIELDS, compressed=compressed)
    data = b"junk" + prefix + bytes([form % 100]) + text(b"key") + value
    converter = RecordConverter(VALKEY if form > 100 else REDIS, mode)
    out = bytearray(b"before")
    for end in range(4, len(data), 1 + len(data) // 300):
        assert converter.convert(data, 4, end, out) == 4
        assert out == b"before"
    assert converter.convert(data + b"after", 4, len(data) + 5, out) == len(data)
    head = b"before" + prefix
    assert out.startswith(head)
    out_type = out[len(head)]
    assert out_type == HashConverter(form % 100, VALKEY if form > 100 else REDIS, mode).out_type or mode == DROP_FIELD
    head += bytes([out_type]) + text(b"key")
    assert out.startswith(head)
    assert fields_of(out_type, bytes(out[len(head) :])) == expected(FIELDS, mode)
    assert (converter.fields, converter.fields_with_ttl) == (6, 4)
    assert not converter.empty
    assert data[converter.key_start : converter.key_end] == text(b"key")


@pytest.mark.parametrize("form", [22, 23, 24, 25, 122])
def test_a_hash_that_loses_all_its_fields_vanishes(form: int) -> None:
    fields = {name: (value, NOW + 1) for name, (value, _) in FIELDS.items()}
    data = bytes([form % 100]) + text(b"key") + value_of(form, fields)
    converter = RecordConverter(VALKEY if form > 100 else REDIS, DROP_FIELD)
    out = bytearray()
    assert converter.convert(data, 0, len(data), out) == len(data)
    assert (bytes(out), converter.empty, converter.fields_dropped) == (b"", True, 6)
    streamed, body = pieces(value_of(form, fields), 50, form, DROP_FIELD)
    assert (streamed.fields, streamed.fields_dropped, body) == (6, 6, b"")


def test_expiry_is_kept_to_the_millisecond_at_its_bounds() -> None:
    for expiry in (1, NOW, (1 << 48) - 1):
        fields = {b"f": (b"v", expiry), b"g": (b"w", 0)}
        for form in (22, 23, 24, 25):
            _, out = pieces(value_of(form, fields), 3, form, TO_HASH_2)
            assert fields_of(22, out) == fields
        _, out = pieces(value_of(122, fields), 3, 122, TO_REDIS_EX)
        assert fields_of(24, out) == fields


@pytest.mark.parametrize(("form", "mode"), [(24, TO_HASH_2), (24, KEEP_FIELD), (24, DROP_FIELD), (22, TO_HASH_2), (122, KEEP_FIELD)])
def test_a_field_of_half_a_gigabyte_streams_through(form: int, mode: int) -> None:
    converter = HashConverter(form % 100, VALKEY if form > 100 else REDIS, mode)
    size = 512 << 20
    ttl = b"" if form == 122 else length(0)
    head = (ms(NOW) if form == 24 else b"") + length(1) + ttl + text(b"f") + length(size)
    out = bytearray()
    assert converter.feed(head, 0, len(head), out) == len(head)
    passed = len(out)
    chunk = memoryview(bytes(4 << 20))
    for _ in range(128):
        out.clear()
        assert converter.feed(chunk, 0, len(chunk), out) == len(chunk)
        assert len(out) in (len(chunk), len(chunk) + 8)
        passed += len(out)
    out.clear()
    tail = ms(-1) if form == 122 else b""
    converter.feed(tail, 0, len(tail), out)
    assert converter.done
    assert passed + len(out) == size + len(text(b"f")) + 5 + (0 if mode == DROP_FIELD else 1) + (8 if mode == TO_HASH_2 else 0)


def test_a_hash_of_many_fields_streams_through_without_being_collected() -> None:
    converter = HashConverter(24, REDIS, TO_HASH_2)
    field = length(1) + text(b"field") + text(b"value")
    chunk = field * 10_000
    head = ms(NOW) + length(1_000_000)
    out = bytearray()
    converter.feed(head, 0, len(head), out)
    assert out == length(1_000_000)
    for _ in range(100):
        out.clear()
        assert converter.feed(chunk, 0, len(chunk), out) == len(chunk)
        assert len(out) == 10_000 * 20
    assert converter.done
    assert converter.fields_with_ttl == 1_000_000


def test_listpacks_with_entries_of_every_size_keep_their_values() -> None:
    for size in (61, 63, 64, 124, 125, 126, 127, 128, 4093, 4095, 4096, 16378, 16379, 16380, 16383, 70_000, (1 << 21) - 6, 1 << 21):
        fields = {b"f" * size: (b"v" * (size + 1), NOW), b"7": (b"w" * size, 0)}
        for mode in (TO_HASH_2, KEEP_FIELD):
            converter, out = pieces(value_of(25, fields), 1 << 20, 25, mode)
            assert fields_of(converter.out_type, out) == expected(fields, mode)
    for number in (
        0,
        127,
        128,
        4095,
        4096,
        -1,
        -4096,
        -4097,
        32767,
        -32769,
        8388607,
        -8388609,
        1 << 31,
        -(1 << 31),
        (1 << 63) - 1,
        -(1 << 63),
    ):
        fields = {b"%d" % number: (b"%d" % -(number + 1), NOW)}
        _, out = pieces(value_of(25, fields), 1 << 20, 25, TO_HASH_2)
        assert fields_of(22, out) == fields


def test_what_would_have_to_be_held_in_memory_is_refused_by_its_claim() -> None:
    claim = ms(NOW) + length(65 << 20)
    with pytest.raises(Refused, match="listpack") as caught:
        HashConverter(25, REDIS, KEEP_FIELD).feed(claim, 0, len(claim), bytearray())
    assert caught.value.remedy
    claim = ms(NOW) + b"\xc3" + length(100) + length(65 << 20)
    with pytest.raises(Refused, match="listpack"):
        HashConverter(25, REDIS, KEEP_FIELD).feed(claim, 0, len(claim), bytearray())
    whole = b"\x19\x01k" + claim + bytes(100)
    with pytest.raises(Refused, match="listpack"):
        RecordConverter(REDIS, KEEP_FIELD).convert(whole, 0, len(whole), bytearray())
    converter = HashConverter(22, VALKEY, DROP_FIELD)
    head = length(1) + text(b"f") + length(512 << 20)
    converter.feed(head, 0, len(head), bytearray())
    chunk = bytes(8 << 20)
    for _ in range(7):
        converter.feed(chunk, 0, len(chunk), bytearray())
    with pytest.raises(Refused, match="field"):
        converter.feed(chunk, 0, len(chunk), bytearray())


BROKEN: list[tuple[int, bytes]] = [
    (24, ms(NOW) + length(1) + b"\xc0\x01" + text(b"f") + text(b"v")),
    (24, ms(NOW) + length(1) + length(1 << 48) + text(b"f") + text(b"v")),
    (24, ms(-1) + length(1) + length(5) + text(b"f") + text(b"v")),
    (24, ms((1 << 48) - 1) + length(1) + length(2) + text(b"f") + text(b"v")),
    (24, ms(NOW) + b"\x81" + b"\xff" * 8),
    (24, ms(NOW) + length(1) + length(0) + b"\x81" + b"\xff" * 8),
    (22, length(1) + length(1 << 48) + text(b"f") + text(b"v")),
    (122, length(1) + text(b"f") + text(b"v") + ms(-2)),
    (25, ms(NOW) + text(b"no listpack")),
    (25, ms(NOW) + b"\xc0\x05"),
    (25, ms(NOW) + b"\xc3" + length(3) + length(20) + b"\x01ab"),
    (25, ms(NOW) + text(listpack.build([b"f", b"v"]))),
    (25, ms(NOW) + text(listpack.build([b"f", b"v", b"later"]))),
    (25, ms(NOW) + text(listpack.build([b"f", b"v", b"-1"]))),
    (25, ms(NOW) + text(listpack.build([b"f", b"v", b"0", b"g"]))),
    (23, text(listpack.build([b"f", b"v", b"%d" % (1 << 48)]))),
    (23, text(listpack.build([b"f", b"v", b"0"])[:-1] + b"\xfe")),
]


@pytest.mark.parametrize(("form", "value"), BROKEN)
def test_broken_hashes_are_errors_with_a_remedy_on_both_paths(form: int, value: bytes) -> None:
    dialect = VALKEY if form > 100 else REDIS
    for mode in (KEEP_FIELD, DROP_FIELD, TO_REDIS_EX if form > 100 else TO_HASH_2):
        with pytest.raises(RemoteProtocolError) as caught:
            HashConverter(form % 100, dialect, mode).feed(value, 0, len(value), bytearray())
        assert caught.value.remedy
        data = bytes([form % 100]) + text(b"k") + value
        with pytest.raises(RemoteProtocolError):
            RecordConverter(dialect, mode).convert(data, 0, len(data), bytearray())


def test_conversions_that_make_no_sense_are_our_own_errors() -> None:
    for kind, dialect, mode in (
        (22, VALKEY, TO_HASH_2),
        (24, VALKEY, KEEP_FIELD),
        (4, REDIS, KEEP_FIELD),
        (24, REDIS, TO_REDIS_EX),
        (24, REDIS, 9),
    ):
        with pytest.raises(LocalProtocolError):
            HashConverter(kind, dialect, mode)
    data = record(4, "h", length(0)).data
    with pytest.raises(LocalProtocolError):
        RecordConverter(REDIS, KEEP_FIELD).convert(data, 0, len(data), bytearray())


# ------------------------------------------------------------------------------------------------------------------- chunks of a snapshot


def snapshot() -> tuple[bytes, list[bytes]]:
    hashes = [bytes([form]) + text(b"hash%d" % form) + value_of(form, FIELDS, compressed=form == 25) for form in (22, 23, 24, 25)]
    plain = [record(0, "s", text(b"v")).data, record(2, "big", length(2) + BIG + BIG).data]
    parts = [b"\xfe\x03", plain[0], hashes[0], hashes[1], plain[1], b"\xfc" + ms(99) + hashes[2], plain[0], hashes[3]]
    return b"".join(parts) + b"\xff", parts


def flagged(*types: int) -> bytes:
    return bytes(int(number in types) for number in range(256))


@pytest.mark.parametrize("mode", [TO_HASH_2, KEEP_FIELD, DROP_FIELD])
@pytest.mark.parametrize("size", [1, 13, 4096, 1 << 20])
def test_a_snapshot_is_translated_the_same_in_any_chunks(mode: int, size: int) -> None:
    data, parts = snapshot()
    want = bytearray()
    for part in parts:
        if b"hash" in part[:20]:
            RecordConverter(REDIS, mode).convert(part, 0, len(part), want)
        else:
            want += part
    converter = RecordConverter(REDIS, mode)
    scanner = Scanner(flagged(22, 23, 24, 25), REDIS, 12)
    got = bytearray()
    pos = 0
    for end in [*range(size, len(data), size), len(data)]:
        pos = converter.translate(scanner, data, pos, end, got)
        assert converter.stop == (END if end == len(data) else NEED_MORE)
    assert got == want
    assert (converter.records, scanner.keys, scanner.offset) == (4, 3, 9 + len(data) - 1)
    lost = () if mode == TO_HASH_2 else (22, 23, 24, 25)
    assert converter.changes == [(b"hash%d" % form, 3, 4, 4 if mode == DROP_FIELD else 0) for form in lost]


def test_translating_leaves_other_flagged_items_and_large_hashes_to_the_caller() -> None:
    converter = RecordConverter(REDIS, KEEP_FIELD)
    scanner = Scanner(flagged(7, 24), REDIS, 12)
    large = b"\x18" + text(b"large") + ms(NOW) + length(2) + length(0) + text(b"f") + length(1 << 20)
    data = b"\x00\x01k\x01v" + large
    out = bytearray()
    assert converter.translate(scanner, data, 0, len(data), out) == 5
    assert converter.stop == NEED_MORE
    data += bytes(70_000)
    assert converter.translate(scanner, data, 5, len(data), out) == 5
    assert converter.stop == ATTENTION
    assert out == b"\x00\x01k\x01v"
    module = b"\x07\x01m\x05\x00"
    assert converter.translate(Scanner(flagged(7, 24), REDIS, 12), module, 0, len(module), out) == 0
    assert converter.stop == ATTENTION


# --------------------------------------------------------------------------------------------------------------------------- payloads


def payload(kind: int, value: bytes, version: int) -> bytes:
    body = bytes([kind]) + value + version.to_bytes(2, "little")
    return body + crc64(body).to_bytes(8, "little")


def opened(data: bytes) -> tuple[int, bytes, int]:
    assert crc64(data[:-8]) == int.from_bytes(data[-8:], "little")
    return data[0], data[1:-10], int.from_bytes(data[-10:-8], "little")


@pytest.mark.parametrize("form", [22, 23, 24, 25, 122])
@pytest.mark.parametrize("target", [(VALKEY, 80), (REDIS, 11), (REDIS, 12)])
@pytest.mark.parametrize("mode", [KEEP_FIELD, DROP_FIELD])
def test_payloads_are_written_anew_for_the_target(form: int, target: tuple[int, int], mode: int) -> None:
    result = convert.reencode_payload(payload(form % 100, value_of(form, FIELDS), 80 if form > 100 else 12), *target, mode)
    kind, value, version = opened(result.payload)
    assert version == target[1]
    if target == (REDIS, 11):
        assert kind in (4, 16)
        assert fields_of(kind, value) == expected(FIELDS, mode)
        assert (result.fields_with_ttl, result.fields_dropped, result.empty) == (4, 4 if mode == DROP_FIELD else 0, False)
    elif target == (VALKEY, 80):
        assert kind == 22
        assert fields_of(22, value) == FIELDS
    elif form == 122:
        assert kind == 24
        assert fields_of(24, value) == FIELDS
    else:
        assert (kind, value) == (form, value_of(form, FIELDS))


def test_other_payloads_only_change_their_version() -> None:
    for kind, value in ((0, text(b"v")), (18, length(1) + b"\x02" + text(b"pack")), (2, length(1) + text(b"m"))):
        result = convert.reencode_payload(payload(kind, value, 12), REDIS, 11, KEEP_FIELD)
        assert opened(result.payload) == (kind, value, 11)


def test_a_payload_that_loses_all_its_fields_is_empty() -> None:
    fields = {b"f": (b"v", NOW)}
    result = convert.reencode_payload(payload(25, value_of(25, fields), 12), REDIS, 11, DROP_FIELD)
    assert (result.empty, result.payload, result.fields_dropped) == (True, b"", 1)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (payload(0, text(b"v"), 12)[:-1] + b"x", RemoteProtocolError),
        (payload(0, text(b"v"), 12)[:-8] + bytes(8), RemoteProtocolError),
        (payload(0, text(b"v") + b"more", 12), RemoteProtocolError),
        (payload(0, b"\x05v", 12), RemoteProtocolError),
        (payload(0, text(b"v") + text(b"v"), 12), RemoteProtocolError),
        (payload(0, text(b"v") + b"\xff", 12), RemoteProtocolError),
        (b"", RemoteProtocolError),
        (payload(7, length(9) + b"\x00", 12), Refused),
        (payload(26, b"\x00" * 9, 13), Refused),
        (payload(23, text(b"path hash"), 81), Refused),
        (payload(243, b"\x00\x00\x01v", 13), Refused),
        (payload(200, b"\x00", 12), Refused),
        (payload(8, b"\x00", 12), RemoteProtocolError),
    ],
)
def test_payloads_that_can_not_cross_are_named(data: bytes, error: type[Any]) -> None:
    with pytest.raises(error) as caught:
        convert.reencode_payload(data, REDIS, 11, KEEP_FIELD)
    assert caught.value.remedy


def test_a_set_as_listpack_is_refused_by_an_older_target() -> None:
    with pytest.raises(Refused, match="SET_LISTPACK"):
        convert.reencode_payload(payload(20, text(b"pack"), 11), REDIS, 10, KEEP_FIELD)
