"""What no healthy source sends, and what becomes of it: an error with a remedy or a stream that waits, never something sent on."""

from __future__ import annotations

from pathlib import Path

import pytest

from valkeep.errors import Refused, RemoteProtocolError
from valkeep.migrate.gateway.channel import Channel
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.transform.copies import Copy
from valkeep.migrate.transform.stream import Wanted
from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.wire.checksum import crc64
from valkeep.wire.rdb.encode import SnapshotWriter
from valkeep.wire.resp import encode

SELECTED = encode("SELECT", 0)


def channel(directory: Path, target: tuple[int, ...], policy: FieldTtl, wanted: list[Wanted]) -> Channel:
    return Channel(
        TargetFormat(target), policy, Ledger(None), directory, "f" * 40, source_version=(8, 0), source_offset=0,
        on_wanted=lambda _channel, wish: wanted.append(wish),
    )  # fmt: skip


def streaming(directory: Path, wanted: list[Wanted], policy: FieldTtl = FieldTtl.DROP_FIELD) -> Channel:
    made = channel(directory, (8, 1), policy, wanted)
    made.feed_snapshot(SnapshotWriter(0, 12).finish())
    made.end_snapshot()
    return made


def sealed(data: bytes) -> bytes:
    return data + crc64(data).to_bytes(8, "little")


@pytest.mark.parametrize("target", [(8, 1), (9, 1)])
@pytest.mark.parametrize("policy", list(FieldTtl))
def test_a_path_hash_of_a_newer_valkey_is_refused_by_name(tmp_path: Path, target: tuple[int, ...], policy: FieldTtl) -> None:
    made = channel(tmp_path, target, policy, [])
    with pytest.raises(Refused, match="PATH_HASH"):
        made.feed_snapshot(sealed(b"VALKEY081\x17\x01k" + b"\x05" * 30 + b"\xff"))
    made.close()


@pytest.mark.parametrize("number", [b"x", b"", b"-", b"9" * 5000])
def test_a_stream_database_that_is_no_number_is_an_error_with_a_remedy(tmp_path: Path, number: bytes) -> None:
    made = channel(tmp_path, (8, 1), FieldTtl.REFUSE, [])
    writer = SnapshotWriter(0, 12)
    writer.aux(b"repl-stream-db", number)
    with pytest.raises(RemoteProtocolError, match="repl-stream-db") as caught:
        made.feed_snapshot(writer.finish())
    assert caught.value.remedy
    made.close()


def test_an_aux_field_without_end_is_not_held_back_for_ever(tmp_path: Path) -> None:
    made = channel(tmp_path, (8, 1), FieldTtl.REFUSE, [])
    made.feed_snapshot(b"REDIS0011\xfa\x09redis-ver\x81" + (1 << 38).to_bytes(8, "big"))
    with pytest.raises(RemoteProtocolError, match="AUX field"):
        for _ in range(20):
            made.feed_snapshot(bytes(1 << 16))
    made.close()


def test_a_stream_that_begins_in_a_database_the_target_has_not_is_refused(tmp_path: Path) -> None:
    made = channel(tmp_path, (8, 1), FieldTtl.REFUSE, [])
    writer = SnapshotWriter(0, 12)
    writer.aux(b"repl-stream-db", b"16")
    with pytest.raises(Refused, match="database 16") as caught:
        made.feed_snapshot(writer.finish())
    assert caught.value.code == "VK-DATABASES"
    made.close()


@pytest.mark.parametrize(
    "command",
    [
        (b"SELECT", b"-1"), (b"SELECT", b" 1"), (b"SELECT", b"1_0"), (b"SELECT", b"01"), (b"SELECT", b"9" * 5000), (b"SELECT",),
        (b"COPY", b"h", b"i", b"DB", b"-1"), (b"SWAPDB", b"0", b"x"),
        (b"HPEXPIREAT", b"h", b"1900000000000"), (b"HPEXPIREAT", b"h", b"1900000000000", b"FIELDS", b"0"),
        (b"HPEXPIREAT", b"h", b"1900000000000", b"FIELDS", b"-1", b"f"),
        (b"HSETEX", b"h", b"FIELDS", b"0"), (b"HSETEX", b"h", b"EX", b"5", b"FIELDS", b"0"), (b"HSETEX", b"h", b"EX"),
    ],
)  # fmt: skip
def test_a_command_without_sense_holds_the_stream_and_is_not_sent(tmp_path: Path, command: tuple[bytes, ...]) -> None:
    wanted: list[Wanted] = []
    made = streaming(tmp_path, wanted)
    made.feed_stream(encode(*command))
    assert [wish.hold is not None for wish in wanted] == [True]
    assert made.stream.read(0, 1000) == SELECTED
    made.close()


def test_a_swap_without_sense_holds_the_stream_also_while_copies_are_on_their_way(tmp_path: Path) -> None:
    wanted: list[Wanted] = []
    made = streaming(tmp_path, wanted)
    made.feed_stream(encode("XDELEX", "s", "DELREF", "IDS", 1, "1-1"))
    made.supply([Copy(0, b"s", 1000, None)])
    made.feed_stream(encode("SWAPDB", 0, "x"))
    while made.resume():
        pass
    assert [wish.command for wish in wanted] == [b"XDELEX", b"SWAPDB"]
    assert wanted[1].hold is not None
    made.close()
