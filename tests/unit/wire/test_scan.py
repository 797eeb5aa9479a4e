"""Stepping over records: where they end, what stops the scanner, what it holds back."""

from __future__ import annotations

import pytest

from tests.support.rdb_items import BIG, ITEMS, LZF, META, REDIS, VALKEY, Item, items_of, length, ms, record, text
from valkeep.errors import LocalProtocolError, RemoteProtocolError
from valkeep.wire.rdb import layouts, opcodes, scan
from valkeep.wire.rdb.scan import ATTENTION, END, ITEM, NEED_MORE, Scanner

NOTHING = bytes(256)
BOTH = [(dialect, item) for dialect in (REDIS, VALKEY) for item in items_of(dialect)]


def flags(*types: int) -> bytes:
    table = bytearray(256)
    for number in types:
        table[number] = 1
    return bytes(table)


def scanner(dialect: int = REDIS, attention: bytes = NOTHING) -> Scanner:
    return Scanner(attention, dialect, 80 if dialect == VALKEY else 12)


def named(item: tuple[int, Item]) -> str:
    return f"{item[0]}-{item[1].name}"


@pytest.mark.parametrize("case", BOTH, ids=named)
def test_every_item_is_stepped_over_exactly(case: tuple[int, Item]) -> None:
    dialect, item = case
    step = scanner(dialect)
    data = item.data + b"\xff"
    assert step.scan(data, 0, len(data)) == len(item.data)
    assert (step.stop, step.keys, step.expires, step.inside) == (END, item.keys, item.expires, False)
    assert step.offset == 9 + len(item.data)


@pytest.mark.parametrize("case", BOTH, ids=named)
def test_every_item_is_stepped_over_one_byte_at_a_time(case: tuple[int, Item]) -> None:
    dialect, item = case
    data = item.data * 2 + b"\xff"
    step = scanner(dialect)
    passed = 0
    for end in range(1, len(data) + 1):
        before = passed
        passed = step.scan(data, passed, end)
        assert before <= passed <= end
        if end < len(data):
            assert step.stop == NEED_MORE
            assert end - passed < 64 + len(META) + len(LZF) or not step.inside  # only a header or an incomplete length is held back
        if step.inside:
            assert end - passed < 29
    assert (passed, step.stop, step.keys) == (len(data) - 1, END, 2 * item.keys)


@pytest.mark.parametrize("case", BOTH, ids=named)
def test_a_flagged_type_stops_the_scanner_before_the_item_and_its_prefixes(case: tuple[int, Item]) -> None:
    dialect, item = case
    first = record(0, "first", text(b"v")).data
    if item.type == 0:
        return  # so is the first
    step = scanner(dialect, flags(item.type))
    data = first + item.data + first + b"\xff"
    assert step.scan(data, 0, len(data)) == len(first)
    assert (step.stop, step.type) == (ATTENTION, item.type)
    assert step.scan(data, len(first), len(data)) == len(first)  # and again: nothing moves
    assert (step.stop, step.type) == (ATTENTION, item.type)
    step.take()
    assert step.scan(data, len(first), len(data)) == len(first) + len(item.data)
    assert step.stop == ITEM
    assert step.scan(data, len(first) + len(item.data), len(data)) == len(data) - 1
    assert step.stop == END


def test_the_caller_can_consume_a_flagged_record_itself() -> None:
    one, two = record(4, "h", length(1) + text(b"f") + text(b"v")).data, record(0, "s", text(b"v")).data
    step = scanner(attention=flags(4))
    data = two + one + two + b"\xff"
    assert step.scan(data, 0, len(data)) == len(two)
    step.resume_after(len(one))
    assert step.scan(data, len(two) + len(one), len(data)) == len(data) - 1
    assert (step.keys, step.offset) == (2, 9 + len(data) - 1)


def test_a_taken_record_that_comes_in_pieces_stops_at_its_end_only() -> None:
    item = record(4, "h", length(2) + text(b"f") + BIG + text(b"g") + BIG, prefix=b"\xfc" + ms(5)).data
    step = scanner(attention=flags(4))
    data = item + item
    assert step.scan(data, 0, 20) == 0
    step.take()
    pos = 0
    for end in (3, 9, 12, 15, 100, 20000, 30000, len(data)):
        pos = step.scan(data, pos, end)
        assert step.stop == (ITEM if end == len(data) else NEED_MORE)
    assert pos == len(item)
    assert step.scan(data, pos, len(data)) == pos
    assert step.stop == ATTENTION


def test_a_flagged_prefix_opcode_stops_before_the_records_that_have_it() -> None:
    plain = record(0, "plain", text(b"v")).data
    item = record(0, "k", text(b"v"), prefix=b"\xfc" + ms(5) + META).data
    step = scanner(attention=flags(opcodes.OP_KEY_META))
    data = plain + item + b"\xff"
    assert step.scan(data, 0, len(data)) == len(plain)
    assert (step.stop, step.type) == (ATTENTION, opcodes.OP_KEY_META)


def test_a_key_name_is_held_back_until_it_is_whole() -> None:
    name = b"n" * 200_000
    data = b"\x00" + text(name) + text(b"v")
    step = scanner()
    assert step.scan(data, 0, 150_000) == 0
    assert step.stop == NEED_MORE
    assert step.scan(data, 0, len(data)) == len(data)


def test_a_value_of_half_a_gigabyte_passes_through_without_its_bytes_being_kept() -> None:
    size = 512 << 20
    step = scanner()
    head = b"\x00" + text(b"big") + length(size)
    assert step.scan(head, 0, len(head)) == len(head)
    chunk = memoryview(bytes(1 << 20))
    for _ in range(512):
        assert step.scan(chunk, 0, len(chunk)) == len(chunk)
        assert step.stop == NEED_MORE
    assert step.scan(b"\xff", 0, 1) == 0
    assert (step.stop, step.keys) == (END, 1)


def test_the_selected_database_is_known() -> None:
    step = scanner()
    data = b"\xfe\x03" + record(0, "k", text(b"v")).data + b"\xfe\x40\x50\xff"
    step.scan(data, 0, len(data))
    assert step.database == 0x50


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x06\x01k\x00", "MODULE_PRE_GA"),
        (b"\x08\x01k\x00", "type 8"),
        (b"\x1a\x01k\x00", "STREAM_LISTPACKS_4"),
        (b"\x80\x01k\x00", "type 128"),
        (b"\xf2\x01", "type 242"),
        (b"\xf6\x01a", "FUNCTION_PRE_GA"),
        (b"\xfc" + ms(1) + b"\xfe\x00", "opcode 254 where a record"),
        (b"\xfc" + ms(1) + b"\xff", "opcode 255 where a record"),
        (b"\xfc" + b"\xff" * 8 + b"\x00\x01k\x01v", "expiry"),
        (b"\x00\x81" + b"\xff" * 8, "string of 18446744073709551615 bytes"),
        (b"\x00\x01k\x81\x80" + bytes(7), "string of 9223372036854775808 bytes"),
        (b"\x00\x01k\x81\x7f" + b"\xff" * 7, "string of"),
        (b"\x00\x01k\xc4", "encoding 0xc4"),
        (b"\x00\x01k\x82", "0x82"),
        (b"\x00\x01k\xc3\x00\x05", "compressed string of 0 bytes"),
        (b"\x00\x01k\xc3\x81" + b"\xff" * 8 + b"\x05", "compressed string"),
        (b"\x02\x01k\x81" + b"\xff" * 8, "elements"),
        (b"\x02\x01k\xc0\x01", "0xc0 where a length"),
        (b"\x07\x01k\x01\x06", "module value of kind 6"),
        (b"\xf3\x08", "8 classes"),
        (b"\xfe\x81" + b"\xff" * 8, "database"),
    ],
)
def test_broken_input_is_an_error_with_its_offset_and_a_remedy(data: bytes, what: str) -> None:
    good = record(0, "k", text(b"v")).data
    step = scanner()
    with pytest.raises(RemoteProtocolError, match=what) as caught:
        step.scan(good + data, 0, len(good) + len(data))
    assert caught.value.remedy
    assert "snapshot byte" in caught.value.message
    assert 9 + len(good) <= int(caught.value.message.split()[2].rstrip(":")) <= 9 + len(good) + len(data)


@pytest.mark.parametrize(
    "parts", [b"\x03abcd" * 300_000, b"\x05" + length(1 << 20) + b"x" * (1 << 20), b"\x01" * (3 << 20)], ids=["many", "large", "small"]
)
def test_key_metadata_without_end_is_damage_after_a_mebibyte_in_any_pieces(parts: bytes) -> None:
    data = b"\xf3\x01clas" + parts
    for size in (len(data), 1 << 16):
        step = Scanner(bytes(256), REDIS, 13)
        with pytest.raises(RemoteProtocolError, match="bytes of key metadata"):
            for end in range(size, len(data) + size, size):
                assert step.scan(data, 0, min(end, len(data))) == 0


@pytest.mark.parametrize("prefix", [b"\xfc" + bytes(8), b"\xf9\x07", b"\xf8\x01"])
def test_prefixes_without_end_before_a_record_are_damage_in_any_pieces(prefix: bytes) -> None:
    data = prefix * (3 << 20)
    for size in (len(data), 1 << 17):
        step = Scanner(bytes(256), REDIS, 11)
        with pytest.raises(RemoteProtocolError, match="bytes before a record"):
            for end in range(size, len(data) + size, size):
                assert step.scan(data, 0, min(end, len(data))) == 0


def test_a_key_longer_than_servers_take_is_damage_at_once_and_not_held_back() -> None:
    for size in (512 << 20, (512 << 20) + 1):
        data = b"\xfc" + bytes(8) + b"\x04" + length(size) + b"key"
        step = Scanner(bytes(256), REDIS, 11)
        if size > 512 << 20:
            with pytest.raises(RemoteProtocolError, match="a key of 536870913 bytes"):
                step.scan(data, 0, len(data))
            with pytest.raises(RemoteProtocolError, match="a key of 536870913 bytes"):
                scan.parse_record_prefix(data, 0, len(data), REDIS)
        else:
            assert step.scan(data, 0, len(data)) == 0
            assert scan.parse_record_prefix(data, 0, len(data), REDIS) is None


def test_key_metadata_is_an_unknown_opcode_under_valkey_and_slot_import_under_redis() -> None:
    with pytest.raises(RemoteProtocolError, match="should follow"):
        scanner(VALKEY).scan(b"\xfc" + ms(1) + META + b"\x00", 0, 9 + len(META))


def test_unknown_versions_are_refused_unless_they_are_wanted() -> None:
    with pytest.raises(RemoteProtocolError, match="99") as caught:
        Scanner(NOTHING, REDIS, 99)
    assert caught.value.remedy
    with pytest.raises(RemoteProtocolError):
        Scanner(NOTHING, VALKEY, 79)
    Scanner(NOTHING, REDIS, 99, version_unknown_ok=True)


def test_impossible_calls_are_our_own_errors() -> None:
    with pytest.raises(LocalProtocolError):
        Scanner(b"", REDIS, 12)
    with pytest.raises(LocalProtocolError):
        scanner().scan(b"abc", 0, 4)
    with pytest.raises(LocalProtocolError):
        scanner().scan(b"abc", 2, 1)


def test_a_record_prefix_is_read_with_its_key() -> None:
    item = record(24, "k", b"value", key=b"name", prefix=b"\xfc" + ms(1234) + b"\xf9\x07" + META).data
    data = b"junk" + item
    found = scan.parse_record_prefix(data, 4, len(data))
    assert found is not None
    assert (found.expire_ms, found.freq, found.idle, found.type, found.key) == (1234, 7, -1, 24, b"name")
    assert data[found.meta_start : found.meta_start + found.meta_length] == META
    assert data[found.type_pos] == 24
    assert data[found.value_pos :] == b"value"
    for end in range(4, len(data) - len(b"value")):
        assert scan.parse_record_prefix(data, 4, end) is None


def test_prefixes_in_seconds_and_idle_times_are_read() -> None:
    data = b"\xfd\x01\x00\x00\x00\xf8\x09\x00" + text(b"k")
    found = scan.parse_record_prefix(data, 0, len(data))
    assert found is not None
    assert (found.expire_ms, found.idle, found.meta_length) == (1000, 9, 0)


def test_keys_that_are_integers_are_read_as_their_digits() -> None:
    found = scan.parse_record_prefix(b"\x00\xc0\x81", 0, 3)
    assert found is not None
    assert found.key == b"-127"


def test_lengths_are_read_in_all_their_forms() -> None:
    for number in (0, 63, 64, 16383, 16384, (1 << 32) - 1, 1 << 32, (1 << 64) - 1):
        data = length(number)
        assert scan.read_length(data, 0, len(data)) == (number, len(data))
        for end in range(len(data)):
            assert scan.read_length(data, 0, end) == (0, -1)
    with pytest.raises(RemoteProtocolError):
        scan.read_length(b"\xc0", 0, 1)


def test_strings_are_read_decoded() -> None:
    assert scan.read_string(b"\x03abc", 0, 4) == (b"abc", 4)
    assert scan.read_string(b"\xc1\x39\x30", 0, 3) == (b"12345", 3)
    assert scan.read_string(b"\x03ab", 0, 3) == (None, -1)


def test_the_layouts_cover_every_type_and_opcode_whose_layout_the_dispatch_table_knows() -> None:
    unknown = {(REDIS, 6), (VALKEY, 6), (REDIS, 26), (REDIS, 27), (REDIS, 28), (VALKEY, 23)}
    for dialect in (REDIS, VALKEY):
        for row in opcodes.TYPES:
            if "RV"[dialect] in row.dialects:
                assert bool(layouts.ENTRIES[dialect][row.id]) == ((dialect, row.id) not in unknown), row
        for op in opcodes.OPCODES:
            if "RV"[dialect] in op.dialects:
                stands_alone = not op.prefix and op.id not in (opcodes.OP_EOF, opcodes.OP_FUNCTION_PRE_GA, opcodes.OP_UPDATE)
                assert bool(layouts.ENTRIES[dialect][op.id]) == stands_alone, op
    assert {item.type for item in ITEMS} >= {row.id for row in opcodes.TYPES} - {6, 26, 27, 28}
