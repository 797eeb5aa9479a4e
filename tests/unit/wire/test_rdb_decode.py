"""Every encoding of every release is decoded to the value it was made of; what is not a snapshot is said clearly."""

from __future__ import annotations

import re
import struct
from types import ModuleType

import pytest

from tests.support.rdb_records import NOW, REDIS, VALKEY, Case, cases, plain_hash, snapshot, stream
from tests.support.rdb_trace import builds, pieces, told, tracer
from valkeep.errors import LocalProtocolError, Refused, RemoteProtocolError
from valkeep.wire import listpack
from valkeep.wire.checksum import crc64
from valkeep.wire.rdb import opcodes
from valkeep.wire.rdb.decode import Decoder, decode_payload
from valkeep.wire.rdb.encode import SnapshotWriter, dump_payload, length
from valkeep.wire.rdb.handler import Handler, module_name
from valkeep.wire.rdb.record import Collect, Record, Stream, payload_record, snapshot_records
from valkeep.wire.rdb.scan import Scanner

ALL = cases()
Build = tuple[ModuleType, ModuleType]


def finish(body: bytes) -> bytes:
    whole = body + b"\xff"
    return whole + crc64(whole).to_bytes(8, "little")


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_every_encoding_gives_back_the_value_with_its_prefixes_and_database(case: Case) -> None:
    first, second = snapshot_records(snapshot(case))
    assert first.value == case.value
    assert second.value == case.value
    assert (first.key, first.database, first.expire_ms, first.kind, first.idle) == (b"key", 0, NOW, case.kind, -1)
    assert (second.key, second.database, second.expire_ms, second.kind, second.idle) == (b"second", 3, -1, case.kind, 100)


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_every_build_and_every_chunking_tells_the_same(case: Case) -> None:
    data = snapshot(case)
    installed, interpreted = builds()
    whole = told(installed, [data])
    assert whole[-1][0] == "finished"
    assert told(installed, [data[i : i + 1] for i in range(len(data))]) == whole
    assert told(interpreted, [data]) == whole
    assert told(interpreted, pieces(data, range(0, len(data), 37))) == whole


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_a_payload_gives_back_its_value(case: Case) -> None:
    found = payload_record(dump_payload(case.record(), case.dialect, case.version, case.choice()), b"key")
    assert found == Record(0, b"key", -1, case.kind, case.value)


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_a_snapshot_cut_short_anywhere_is_said_to_be(case: Case) -> None:
    data = snapshot(case)
    for stop in range(0, len(data), max(1, len(data) // 200)):
        decoder = Decoder(Handler())
        decoder.feed(data[:stop])
        assert not decoder.finished
        with pytest.raises(RemoteProtocolError, match="before it is complete") as caught:
            decoder.close()
        assert caught.value.remedy


def test_opcodes_are_told_in_order() -> None:
    writer = SnapshotWriter(VALKEY, 80)
    writer.aux(b"repl-stream-db", b"0")
    writer.raw(b"\xf3" + length(4) + b"jobA" + length(2) + length(0) + length(5) + length(100) + length(16383))
    writer.raw(b"\xf4" + length(3) + length(9) + length(1))
    writer.record(Record(2, b"k", NOW, opcodes.KIND_STRING, b"v", freq=7))
    data = writer.finish()
    for build in builds():
        assert told(build, [data]) == [
            ("begin", "1", "80"),
            ("aux", "b'repl-stream-db'", "b'0'"),
            ("slot_import", "b'jobA'", "[(0, 5), (100, 16383)]"),
            ("slot_info", "3", "9", "1"),
            ("select", "2"),
            ("begin_key", "b'k'", str(NOW), "0", "7", "-1"),
            ("string", "b'v'"),
            ("end_key",),
            ("end", str(int.from_bytes(data[-8:], "little"))),
            ("finished", b"", len(data)),
        ]


def test_key_metadata_of_version_13_is_told_before_its_key() -> None:
    """From the reported layout: no such server was at hand."""
    meta = b"\xf3" + length(2) + struct.pack("<I", 77) + b"\x02" + length(5) + b"\x00" + struct.pack("<I", 78) + b"\x05\x02hi\x00"
    for build in builds():
        calls = told(build, [finish(b"REDIS0013" + meta + b"\x00\x01k\x01v")])
        assert calls[1:4] == [
            ("key_meta", "77", repr([(2, bytes(7) + b"\x05")])),
            ("key_meta", "78", repr([(5, b"hi")])),
            ("begin_key", "b'k'", "-1", "0", "-1", "-1"),
        ]


def test_expiry_in_seconds_is_told_in_milliseconds() -> None:
    body = b"REDIS0003" + b"\xfd" + struct.pack("<i", -5) + b"\x00\x01k\x01v" + b"\xff"  # version 3 has no footer
    (found,) = snapshot_records(body)
    assert found.expire_ms == -5000


def test_version_1_stream_groups_get_the_position_a_server_would_estimate() -> None:
    for last, read in (((1 << 63, (1 << 64) - 1), 4), ((5, 1), 1), ((5, 0), 0), ((5, 2), -1), ((1 << 63 | 1, 0), -1)):
        made = stream(version=1)
        made.groups = made.groups[1:]
        made.groups[0].last = type(made.last)(*last)
        writer = SnapshotWriter(REDIS, 9)
        writer.record(Record(0, b"s", -1, opcodes.KIND_STREAM, made))
        (found,) = snapshot_records(writer.finish())
        assert isinstance(found.value, Stream)
        assert found.value.groups[0].entries_read == read
        assert found.value.first == (5, 1)


def test_deleted_entries_of_a_stream_are_not_told() -> None:
    builder = listpack.Builder()
    for number in (1, 1, 1):
        builder.append_integer(number)
    builder.append(b"f")
    for number in (0, 3, 0, 0, 55, 4, 2, 0, 1, 66, 4):  # the first entry is deleted; both share the field
        builder.append_integer(number)
    node = builder.finish()
    body = b"REDIS0011\x15\x01s" + length(1) + length(16) + struct.pack(">QQ", 8, 0) + length(len(node)) + node
    body += length(1) + length(8) + length(1) + length(8) + length(1) + length(8) + length(0) + length(2) + length(0)
    (found,) = snapshot_records(finish(body))
    assert [(entry.id, entry.fields) for entry in found.value.entries] == [((8, 1), [b"f", b"66"])]


def test_a_footer_of_zero_means_that_nothing_was_computed() -> None:
    writer = SnapshotWriter(REDIS, 11, checksum=False)
    writer.record(Record(0, b"k", -1, opcodes.KIND_STRING, b"v"))
    collect = Collect()
    decoder = Decoder(collect)
    decoder.feed(writer.finish())
    assert decoder.finished
    assert collect.crc == 0


def test_bytes_behind_the_snapshot_are_handed_back() -> None:
    data = snapshot(ALL[0])
    decoder = Decoder(Handler())
    decoder.feed(data[:-3])
    decoder.feed(data[-3:] + b"$EOF")
    decoder.feed(b"more")
    assert decoder.finished
    assert decoder.unused == b"$EOFmore"
    assert decoder.offset == len(data)


@pytest.mark.parametrize("at", [9, 20, -1, -9])
def test_a_flipped_bit_is_found_by_the_checksum_or_before(at: int) -> None:
    data = bytearray(snapshot(Case("STRING", 0, 0, b"value" * 3)))
    data[at] ^= 1
    with pytest.raises(RemoteProtocolError):
        snapshot_records(bytes(data))


BAD = {
    "not a snapshot": (b"HTTP/1.1 200 OK", "not an RDB snapshot"),
    "a version with letters": (b"REDIS00x1\xff", "not an RDB snapshot"),
    "a version from the future": (b"REDIS0099\xff", "version 99"),
    "a version between the dialects": (b"VALKEY011\xff", "version 11"),
    "an unknown type": (b"REDIS0011\x63\x01k\x01v", "99 is no type or opcode"),
    "a type of the other dialect": (b"VALKEY080\x18\x01k" + bytes(20), "24 is no type or opcode"),
    "a length that is an encoding": (b"REDIS0011\x01\x01k\xc0\x01", "where a length must be"),
    "a length byte that is none": (b"REDIS0011\x00\x01k\x82", "begins with 82"),
    "an unknown string encoding": (b"REDIS0011\x00\x01k\xc9", "encoding 9 is not known"),
    "a string of 2**63 bytes": (b"REDIS0011\x00\x01k\x81\x80" + bytes(7), "claims to be 9223372036854775808 bytes"),
    "a compressed string that claims too much": (b"REDIS0011\x00\x01k\xc3\x03\x80\x00\x0f\xff\xff\x01ab", "not possible"),
    "a listpack with a wrong size": (b"REDIS0011\x10\x01k\x07\x08\x00\x00\x00\x00\x00\xff", "listpack says it has 8 bytes"),
    "a listpack of pairs with one left over": (b"REDIS0011\x10\x01k\x09\x09\x00\x00\x00\x01\x00\x05\x01\xff", "odd number"),
    "a ziplist that is too short": (b"REDIS0011\x0a\x01k\x03abc", "ziplist has only 3 bytes"),
    "an intset with a wrong width": (b"REDIS0011\x0b\x01k\x0a\x03\x00\x00\x00\x01\x00\x00\x00ab", "impossible width 3"),
    "an intset that does not ascend": (
        b"REDIS0011\x0b\x01k\x0c\x02\x00\x00\x00\x02\x00\x00\x00\x05\x00\x05\x00", "do not ascend"),
    "a list node of an unknown container": (b"REDIS0011\x12\x01k\x01\x03\x01x", "unknown container 3"),
    "a score that is none": (b"REDIS0011\x03\x01k\x01\x01m\x03abc", "is no score"),
    "a field that expires before the beginning": (b"VALKEY080\x16\x01k\x01\x01f\x01v" + struct.pack("<q", -9), "not possible"),
    "an expiry that is beyond all": (b"REDIS0012\x16\x01k\x01\x81" + b"\xff" * 8, "not possible"),
    "the end inside a record's prefix": (b"REDIS0011\xfc" + bytes(8) + b"\xff", "prefix of a record"),
    "an unknown module opcode": (b"REDIS0011\x07\x01k\x01\x09", "9 is no module opcode"),
    "more slot ranges than slots": (b"VALKEY080\xf3\x01j\x81" + b"\xff" * 8, "more than there are slots"),
    "a wrong checksum": (b"REDIS0011\xff12345678", "checksum"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_no_server_writes_is_an_error_with_its_place_and_a_remedy(name: str) -> None:
    data, message = BAD[name]
    for build in builds():
        for chunks in ([data], [data[i : i + 1] for i in range(len(data))]):
            last = told(build, chunks)[-1]
            assert last[0] == "RemoteProtocolError", last
            assert re.search(message, last[1]), last
            assert last[2]


@pytest.mark.parametrize(
    "data",
    [b"REDIS0011\x06\x01k", b"REDIS0013\x1a\x01k", b"VALKEY081\x17\x01k", b"VALKEY081\xf2", b"REDIS0011\xf6"],
    ids=["module before 4.0", "stream of 8.6", "path hash", "update", "functions before 7.0"],
)
def test_what_only_its_writer_can_read_is_refused(data: bytes) -> None:
    for build in builds():
        last = told(build, [data])[-1]
        assert last[0] == "Refused", last
        assert "layout is known to its writer only" in last[1]
        assert last[2]


def test_a_failed_decoder_stays_failed() -> None:
    decoder = Decoder(Handler())
    with pytest.raises(RemoteProtocolError):
        decoder.feed(b"nonsense, sure")
    with pytest.raises(LocalProtocolError):
        decoder.feed(b"REDIS0011")


def test_an_exception_of_the_handler_comes_out_as_it_is() -> None:
    class Stops(Handler):
        def string(self, value: bytes) -> None:
            raise ZeroDivisionError(value)

    decoder = Decoder(Stops())
    with pytest.raises(ZeroDivisionError):
        decoder.feed(snapshot(ALL[1]))
    with pytest.raises(LocalProtocolError):
        decoder.feed(b"")


def test_a_payload_must_have_its_checksum_and_nothing_behind_its_value() -> None:
    good = dump_payload(Case("HASH", 4, 4, plain_hash()).record(), REDIS, 11)
    with pytest.raises(RemoteProtocolError, match="too short"):
        decode_payload(good[:9], Handler())
    with pytest.raises(RemoteProtocolError, match="checksum"):
        decode_payload(good[:-8] + bytes(8), Handler())

    def signed(body: bytes, version: int = 11) -> bytes:
        body += version.to_bytes(2, "little")
        return body + crc64(body).to_bytes(8, "little")

    with pytest.raises(RemoteProtocolError, match="stand behind"):
        decode_payload(signed(good[:-10] + b"x"), Handler())
    with pytest.raises(RemoteProtocolError, match="before its value is complete"):
        decode_payload(signed(good[:-11]), Handler())
    with pytest.raises(RemoteProtocolError, match="version 99"):
        decode_payload(signed(good[:-10], 99), Handler())
    with pytest.raises((RemoteProtocolError, Refused)):
        decode_payload(signed(b"\xfe\x00" + good[:-10]), Handler())


@pytest.mark.parametrize(("least", "ttl"), [((1 << 48) - 1, 2), (1 << 48, 1), (1 << 48, 1 << 47), (0, 1)])
def test_a_field_can_not_expire_when_redis_does_not_allow_it_also_when_only_the_sum_says_so(least: int, ttl: int) -> None:
    decoder = Decoder(Handler())
    with pytest.raises(RemoteProtocolError, match="not possible"):
        decoder.feed(b"REDIS0012\x18\x01k" + least.to_bytes(8, "little") + b"\x01\x81" + ttl.to_bytes(8, "big") + b"\x01f\x01v")


def test_a_compressed_string_without_bytes_is_damage_to_decoder_and_scanner_alike() -> None:
    data = b"REDIS0011\x00\x01k\xc3\x00\x00\xff"
    with pytest.raises(RemoteProtocolError, match="has no bytes"):
        Decoder(Handler()).feed(data)
    with pytest.raises(RemoteProtocolError, match="a compressed string of 0 bytes"):
        Scanner(bytes(256), REDIS, 11).scan(data, 9, len(data))


def test_a_module_id_says_its_name_and_version() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    number = 0
    for letter in "ReJSON-RL":
        number = number << 6 | alphabet.index(letter)
    assert module_name(number << 10 | 3) == ("ReJSON-RL", 3)


def test_the_table_names_each_type_and_opcode_once_for_a_dialect() -> None:
    for dialect in (REDIS, VALKEY):
        numbers = [row.id for row in opcodes.TYPES if "RV"[dialect] in row.dialects]
        numbers += [row.id for row in opcodes.OPCODES if "RV"[dialect] in row.dialects]
        assert len(numbers) == len(set(numbers))


def test_the_handler_of_the_tests_knows_every_method() -> None:
    _, handler = builds()[1]
    _made, _calls = tracer(handler)
    public = {name for name in vars(handler.Handler) if not name.startswith("_")}
    from tests.support.rdb_trace import HANDLER_METHODS

    assert public == set(HANDLER_METHODS)
