"""The way back: a Valkey's stream for an old Redis. What that Redis does not know is said otherwise, copied again, or held; never sent."""

from __future__ import annotations

import pytest

from tests.support.scripted_primary import command, payload
from valkeep.errors import Refused
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.transform.commands import verbatim
from valkeep.migrate.transform.copies import Copy
from valkeep.migrate.transform.stream import StreamTransform
from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.wire.rdb.dump import opened
from valkeep.wire.rdb.opcodes import DIALECT_REDIS

R70, R74, R80 = (TargetFormat(version, valkey=False) for version in ((7, 0), (7, 4), (8, 0)))


def said(target: TargetFormat, *words: str, policy: FieldTtl = FieldTtl.KEEP_FIELD) -> bytes | tuple[tuple[int, bytes], ...]:
    """What is sent for one command of a Valkey 9.1; the keys that it waits for."""
    transform = StreamTransform((9, 1), target, policy, Ledger(None).record, valkey=True)
    _, out = transform.feed(bytearray(command(*words)), 0)
    return transform.wants.places if transform.wants is not None else bytes(out)


@pytest.mark.parametrize("target", [R70, R74, R80], ids=lambda target: target.name)
def test_what_every_redis_knows_passes_as_it_is(target: TargetFormat) -> None:
    for words in (
        ("SET", "k", "v"),
        ("SET", "k", "v", "PXAT", "1"),
        ("HSET", "h", "f", "v"),
        ("XADD", "s", "1-1", "f", "v"),
        ("FUNCTION", "FLUSH"),
    ):
        assert said(target, *words) == command(*words)


@pytest.mark.parametrize("target", [R70, R74, R80], ids=lambda target: target.name)
def test_a_condition_that_held_is_taken_off(target: TargetFormat) -> None:
    assert said(target, "SET", "k", "v", "IFEQ", "u") == command("SET", "k", "v")
    assert said(target, "DELIFEQ", "k", "u") == command("DEL", "k")


def test_commands_of_field_ttls_reach_who_knows_them() -> None:
    expire = ("HPEXPIREAT", "h", "1900000000000", "FIELDS", "1", "f")
    store = ("HSETEX", "h", "PXAT", "1900000000000", "FIELDS", "1", "f", "v")
    assert said(R80, *expire) == said(R74, *expire) == command(*expire)
    assert said(R70, *expire) == b""
    assert said(R80, *store) == command(*store)
    assert said(R74, *store) == ((0, b"h"),)
    assert said(R70, *store) == command("HSET", "h", "f", "v")
    assert said(R74, "HGETDEL", "h", "FIELDS", "1", "f") == said(R70, "HGETDEL", "h", "FIELDS", "1", "f") == command("HDEL", "h", "f")


def test_options_that_only_a_valkey_has_are_copied_instead() -> None:
    assert said(R80, "HSETEX", "h", "NX", "PXAT", "9", "FIELDS", "1", "f", "v") == ((0, b"h"),)
    assert said(TargetFormat((8, 1)), "GEOSEARCHSTORE", "d", "g", "BYPOLYGON", "3", "1", "1", "2", "2", "3", "1") == ((0, b"d"),)
    assert said(R80, "GEOSEARCHSTORE", "d", "g", "BYPOLYGON", "3", "1", "1", "2", "2", "3", "1") == ((0, b"d"),)
    assert said(R80, "MSETEX", "1", "k", "v", "PXAT", "9") == ((0, b"k"),)


def test_under_refuse_a_field_ttl_holds_the_stream_for_a_redis_without_them() -> None:
    transform = StreamTransform((9, 1), R70, FieldTtl.REFUSE, Ledger(None).record, valkey=True)
    transform.feed(bytearray(command("HPEXPIREAT", "h", "1900000000000", "FIELDS", "1", "f")), 0)
    assert transform.wants is not None
    assert transform.wants.hold is not None
    assert "Redis 7.0 has none" in transform.wants.hold.why


@pytest.mark.parametrize(
    ("target", "version"), [(R70, 10), (TargetFormat((7, 2), valkey=False), 11), (R74, 12), (TargetFormat((8, 6), valkey=False), 12)]
)
def test_a_copy_is_sealed_for_the_redis_that_gets_it(target: TargetFormat, version: int) -> None:
    transform = StreamTransform((9, 1), target, FieldTtl.KEEP_FIELD, Ledger(None).record, valkey=True)
    transform.demand(((0, b"k"),), 0)
    transform.supply([Copy(0, b"k", 0, payload(b"\x00\x011", 80))])
    _, out = transform.feed(bytearray(), 0)
    _, found = opened(bytes(out).split(b"\r\n")[8])
    assert (found.version, found.dialect) == (version, DIALECT_REDIS)


def test_a_redis_before_7_is_refused_with_what_to_do() -> None:
    with pytest.raises(Refused, match=r"Redis 6\.2 cannot take") as refused:
        TargetFormat((6, 2), valkey=False)
    assert "--rollback" in refused.value.remedy


def test_nothing_passes_unseen_that_a_redis_does_not_know() -> None:
    for target in (R70, R74, R80):
        assert not verbatim((9, 1), target, valkey=True) & {
            b"DELIFEQ",
            b"MSETEX",
            b"HSETEX",
            b"SET",
            b"GEOSEARCHSTORE",
            b"HGETEX",
        }
