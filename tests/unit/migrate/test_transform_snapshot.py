"""The snapshot's rewriting: what is noted, stripped and refused; refusals come before anything that a target could load."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.fixtures_snapshots import HASH_EX, HASH_EX_ALL, MODULE_AUX, SLOT_INFO, VECTOR_SET, item, text
from tests.support.scripted_primary import crc, sealed
from valkeep.errors import Refused, RemoteProtocolError
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.transform.snapshot import Bytes, SnapshotTransform
from valkeep.migrate.transform.target import FieldTtl, TargetFormat

V8, V9 = TargetFormat((8, 1)), TargetFormat((9, 1))
STRING = item(0, "k", "0176")


class Aside:
    """What waits aside, in memory; counts how much did."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.most = 0

    def write(self, data: Bytes) -> None:
        self.data += data
        self.most = max(self.most, len(self.data))

    def chunks(self) -> Iterator[bytes]:
        yield bytes(self.data)

    def clear(self) -> None:
        self.data.clear()


class Rewriting:
    def __init__(self, target: TargetFormat = V8, policy: FieldTtl = FieldTtl.KEEP_FIELD) -> None:
        self.out = bytearray()
        self.aside = Aside()
        self.ledger = Ledger(None)
        self.transform = SnapshotTransform(target, policy, self.ledger.record, self.out.__iadd__, self.aside)

    def feed(self, data: bytes, step: int = 0) -> bytes:
        """Returns what was not consumed."""
        buffer = bytearray()
        for start in range(0, len(data), step or len(data)):
            buffer += data[start : start + (step or len(data))]
            del buffer[: self.transform.feed(buffer)]
        return bytes(buffer)


@pytest.mark.parametrize("step", [0, 1])
def test_the_header_and_the_checksum_are_the_targets_own(step: int) -> None:
    body = b"\xfe\x00" + STRING
    for target, magic in ((V8, b"REDIS0011"), (V9, b"VALKEY080")):
        for source in (b"REDIS0012", b"REDIS0006"):
            one = Rewriting(target)
            assert one.feed(sealed(source + body), step) == b""
            assert one.transform.done
            assert one.out == sealed(magic + body)
            assert one.transform.keys == 1


def test_a_checksum_of_zero_is_not_checked_and_ours_is_right() -> None:
    one = Rewriting()
    one.feed(b"REDIS0012\xfe\x00" + STRING + b"\xff" + bytes(8))
    assert one.out == sealed(b"REDIS0011\xfe\x00" + STRING)


def test_nothing_behind_the_end_is_consumed() -> None:
    one = Rewriting()
    assert one.feed(sealed(b"REDIS0012") + b"behind") == b"behind"


@pytest.mark.parametrize("step", [0, 1, 5])
def test_what_modules_and_clusters_left_is_stripped_and_noted(step: int) -> None:
    one = Rewriting()
    one.feed(sealed(b"REDIS0012" + MODULE_AUX + b"\xfe\x00" + SLOT_INFO + STRING + MODULE_AUX), step)
    assert one.out == sealed(b"REDIS0011\xfe\x00" + STRING)
    assert one.ledger.counts["stripped", "module-aux", ""] == 2


@pytest.mark.parametrize("step", [0, 1])
def test_lost_field_ttls_have_a_line_a_key_and_conversions_one_line_in_all(step: int) -> None:
    data = sealed(b"REDIS0012\xfe\x00" + item(25, "h", HASH_EX) + item(25, "all", HASH_EX_ALL) + STRING)
    keep, drop, whole = Rewriting(V8), Rewriting(V8, FieldTtl.DROP_FIELD), Rewriting(V9)
    for one in (keep, drop, whole):
        one.feed(data, step)
        assert one.transform.keys == 3
    assert keep.ledger.summary() == [{"action": "degraded", "what": "field-ttl", "policy": "keep-field", "count": 3}]
    assert drop.ledger.summary() == [{"action": "degraded", "what": "field-ttl", "policy": "drop-field", "count": 3}]
    assert (keep.ledger.lines, drop.ledger.lines) == (2, 2)
    assert whole.ledger.summary() == [{"action": "converted", "what": "hash-encoding", "policy": "", "count": 2}]
    assert whole.ledger.lines == 1
    assert (0, b"h") in drop.transform.lost_fields
    assert (0, b"all") in drop.transform.lost_fields
    assert (0, b"h") not in keep.transform.lost_fields
    assert b"\x03all" not in drop.out


def test_a_hash_that_waits_for_its_count_waits_aside() -> None:
    fields = b"".join(b"\x00" + text(b"%06d" % n) + text(b"v" * 20) for n in range(5000))
    one = Rewriting(V8, FieldTtl.DROP_FIELD)
    one.feed(sealed(b"REDIS0012\xfe\x00" + b"\x18\x01h" + bytes(8) + b"\x53\x88" + fields), 3000)
    assert one.transform.done
    assert one.aside.most > 100_000
    assert one.aside.data == b""
    assert b"\x04\x01h\x53\x88" in one.out


REFUSED = {
    "a module's value": (item(7, "vectors", VECTOR_SET), "vectors"),
    "an old module's value": (item(6, "old", VECTOR_SET), "old"),
    "a stream of 8.6": (item(26, "idmp", "00"), "idmp"),
    "a database beyond": (b"\xfe\x10", "database 16"),
    "a stream that goes on beyond": (b"\xfa" + text(b"repl-stream-db") + b"\xc0\x40", "database 64"),
}


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("target", [V8, V9], ids=["8.1", "9.1"])
def test_what_cannot_cross_is_refused_by_name_and_no_whole_snapshot_was_written(target: TargetFormat, case: str, step: int) -> None:
    data, words = REFUSED[case]
    one = Rewriting(target)
    version = b"REDIS0013" if "8.6" in case else b"REDIS0012"
    with pytest.raises(Refused, match=words) as refused:
        one.feed(sealed(version + b"\xfe\x00" + STRING + data), step)
    assert refused.value.remedy
    assert [(action, count) for (action, _, _), count in one.ledger.counts.items()] == [("refused", 1)]
    assert not one.transform.done
    assert one.out[-8:] != crc(bytes(one.out[:-8]))
    assert data not in one.out


@pytest.mark.parametrize("kind", [22, 23, 24, 25])
@pytest.mark.parametrize("step", [0, 1])
def test_under_refuse_the_first_field_ttl_ends_it_and_names_the_key(kind: int, step: int) -> None:
    values = {
        22: bytes.fromhex("02 00 0168 0137 81000003bb2cc3d800 0166 0176"),
        23: bytes.fromhex(HASH_EX)[8:],
        24: bytes.fromhex("00d8c32cbb030000 02 00 0168 0137 01 0166 0176"),
        25: bytes.fromhex(HASH_EX),
    }
    one = Rewriting(V8, FieldTtl.REFUSE)
    with pytest.raises(Refused, match=r"cart.*database 5.*refuse"):
        one.feed(sealed(b"REDIS0012\xfe\x05" + item(kind, "cart", values[kind])), step)
    assert one.ledger.counts == {("refused", "field-ttl", "refuse"): 1}
    one = Rewriting(V8, FieldTtl.REFUSE)
    one.feed(sealed(b"REDIS0012\xfe\x05" + item(24, "cart", "0000000000000100 01 00 0166 0176")), step)
    assert one.transform.done


@pytest.mark.parametrize("step", [0, 1, 7])
def test_damage_anywhere_is_found(step: int) -> None:
    data = sealed(b"REDIS0012\xfe\x00" + STRING + item(1, "l", "02 0161 0162") + item(25, "h", HASH_EX))
    for at in range(len(data)):
        for bit in (1, 0x80):
            broken = bytearray(data)
            broken[at] ^= bit
            one = Rewriting()
            left = b""
            with suppress(RemoteProtocolError, Refused):
                left = one.feed(bytes(broken), step)
            assert not one.transform.done or left, f"bit {bit:#x} of byte {at}"


@pytest.mark.parametrize("data", [b"PNG\x89" * 100, b"REDIS0099" + bytes(50), b"REDISxxxx" + bytes(50), b"-ERR sorry\r\n" + bytes(50)])
def test_what_is_no_snapshot_is_said(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        Rewriting().feed(data)
    assert error.value.remedy
