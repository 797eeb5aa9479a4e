"""Keys of commands, as far as the servers' GETKEYS can't say them (tests/integration/test_commands.py has the rest)."""

from __future__ import annotations

import pytest

from valkeep.wire.commands import VALKEY_COMMANDS, Keys, keys_of


def keys(line: str, database: int = 0) -> Keys | None:
    return keys_of([word.encode() for word in line.split()], database)


def test_keys_of_other_databases_are_named_with_them() -> None:
    assert keys("MOVE k 5", 2) == Keys(written=((2, b"k"), (5, b"k")))
    assert keys("COPY a b DB 5 REPLACE", 2) == Keys(written=((5, b"b"),), read=((2, b"a"),))
    assert keys("COPY a b replace db 7", 2) == Keys(written=((7, b"b"),), read=((2, b"a"),))
    assert keys("COPY a b", 2) == Keys(written=((2, b"b"),), read=((2, b"a"),))


def test_whole_databases_are_named_as_such() -> None:
    assert keys("FLUSHDB ASYNC", 3) == Keys(databases=(3,))
    assert keys("SWAPDB 1 2", 3) == Keys(databases=(1, 2))
    assert keys("flushall") == Keys(everything=True)


def test_commands_of_redis_8_2_to_8_6_are_known_with_their_keys() -> None:
    for line in ("DELEX k IFEQ v", "XDELEX k DELREF IDS 1 1-1", "XACKDEL k g KEEPREF IDS 1 1-1", "XCFGSET k IDMP-MAXSIZE 5"):
        assert keys(line) == Keys(written=((0, b"k"),)), line
    assert keys("MSETEX 2 a 1 b 2 PXAT 5") == Keys(written=((0, b"a"), (0, b"b")))
    assert keys("BITOP DIFF d a b") == Keys(written=((0, b"d"),), read=((0, b"a"), (0, b"b")))
    assert keys("XREADGROUP GROUP streams c CLAIM 5 STREAMS a >") == Keys(written=((0, b"a"),))


def test_a_command_without_keys_is_known_and_an_unknown_one_is_none() -> None:
    assert keys("PUBLISH channel text") == Keys()
    assert keys("JSON.SET k $ 1") is None
    assert keys_of([]) is None


@pytest.mark.parametrize(
    "line",
    [
        "SET",
        "DEL",
        "RENAME a",
        "COPY a b DB x",
        "MOVE k -1",
        "SWAPDB 1",
        "ZUNIONSTORE d 5 a",
        "ZUNIONSTORE d 99999999999999999999 a",
        "EVAL s x",
        "EVAL s 2 a",
        "MSETEX 3 a 1",
        "MSETEX 0",
        "LMPOP 0 LEFT",
        "SORT k STORE",
        "XREADGROUP GROUP g c STREAMS a",
        "XREADGROUP GROUP g c",
    ],
)
def test_a_form_that_makes_no_sense_is_not_understood(line: str) -> None:
    assert keys(line) is None


def test_a_release_of_valkey_knows_all_names_of_those_before_it() -> None:
    releases = sorted(VALKEY_COMMANDS)
    assert releases == [(7, 2), (8, 0), (8, 1), (9, 0), (9, 1)]
    for older, newer in zip(releases, releases[1:], strict=False):
        assert VALKEY_COMMANDS[older] <= VALKEY_COMMANDS[newer]
    assert b"HPEXPIREAT" not in VALKEY_COMMANDS[8, 1]
    assert b"HGETDEL" not in VALKEY_COMMANDS[9, 0]
    for unsupported in (b"XACKDEL", b"DELEX", b"VADD"):
        assert unsupported not in VALKEY_COMMANDS[9, 1]
