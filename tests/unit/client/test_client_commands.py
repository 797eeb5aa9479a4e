"""What a client knows of commands, and when it tries again."""

from __future__ import annotations

import random
from typing import Any

import pytest

from valkeep.client.commands import may_be_repeated, only_reads, slot_of
from valkeep.client.endpoint import Secret
from valkeep.client.retry import OutOfTime, Patience, passes
from valkeep.errors import ConnectionLost, Refused, ServerError
from valkeep.topology.slots import key_slot


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("GET k", b"k"),
        ("get k", b"k"),
        ("SET k v", b"k"),
        ("MSET k v j w", b"k"),
        ("EVAL return 2 k j x", b"k"),
        ("EVAL return 0", None),
        ("FCALL_RO f 1 k", b"k"),
        ("BITOP AND k j l", b"k"),
        ("OBJECT ENCODING k", b"k"),
        ("MEMORY USAGE k", b"k"),
        ("XINFO STREAM k", b"k"),
        ("XREAD COUNT 1 STREAMS k j 0 0", b"k"),
        ("XREADGROUP GROUP g c STREAMS k >", b"k"),
        ("ZUNION 2 k j", b"k"),
        ("SINTERCARD 2 k j", b"k"),
        ("SPUBLISH k x", b"k"),
        ("PUBLISH k x", None),
        ("PING", None),
        ("DBSIZE", None),
        ("CLUSTER KEYSLOT k", None),
        ("WAIT 1 100", None),
        ("FLUSHALL", None),
        ("UNHEARDOF k x", b"k"),
        ("UNHEARDOF", None),
    ],
)
def test_a_command_goes_to_the_slot_of_its_first_key(command: str, key: bytes | None) -> None:
    assert slot_of(command.split()) == (None if key is None else key_slot(key))
    assert slot_of([word.encode() for word in command.split()]) == (None if key is None else key_slot(key))


def test_a_tag_decides_the_slot_whatever_the_keys_form_is() -> None:
    assert (
        slot_of(["GET", "{tag}:1"])
        == slot_of([b"GET", bytearray(b"x{tag}")])
        == slot_of(["MGET", memoryview(b"{tag}")])
        == key_slot(b"tag")
    )
    assert slot_of(["SET", 7, Secret("v")]) == key_slot(b"7")


@pytest.mark.parametrize(
    ("command", "repeated"),
    [
        ("GET k", True),
        ("PING", True),
        ("MEMORY USAGE k", True),
        ("SET k v", True),
        ("SET k v PX 100", True),
        ("SET k NX", True),  # a value
        ("set k v nx", False),
        ("SET k v GET", False),
        ("SET k v EX 10 XX", False),
        ("SET k v IFEQ w", False),
        ("MSET k NX j GET", True),
        ("EXPIRE k 10", True),
        ("EXPIRE k 10 GT", False),
        ("INCR k", False),
        ("DEL k", False),
        ("SADD k a", False),
        ("RPUSH k a", False),
        ("MEMORY PURGE", False),
        ("EVAL return 0", False),
        ("EVAL_RO return 0", True),
        ("CONFIG SET maxmemory 1", False),
        ("UNHEARDOF k", False),
    ],
)
def test_a_write_is_repeated_only_where_twice_is_as_good_as_once(command: str, repeated: bool) -> None:
    assert may_be_repeated(command.split()) is repeated


def test_only_reads_may_be_asked_of_a_replica() -> None:
    assert only_reads(["hgetall", "k"])
    assert not only_reads(["SET", "k", "v"])
    assert not only_reads(["PING"])


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ServerError("READONLY", "x"), True),
        (ServerError("LOADING", "x"), True),
        (ServerError("MASTERDOWN", "x"), True),
        (ServerError("CLUSTERDOWN", "x"), True),
        (ServerError("NOREPLICAS", "x"), True),
        (ServerError("TRYAGAIN", "x"), False),
        (ServerError("WRONGTYPE", "x"), None),
        (ServerError("OOM", "x"), None),
        (ServerError("NOPERM", "x"), None),
        (ConnectionLost("x", remedy="y"), True),
        (Refused("x", remedy="y"), None),
        (OutOfTime("x", remedy="y"), None),
    ],
)
def test_what_passes_is_tried_again_and_what_stays_is_told(error: Any, again: bool | None) -> None:
    assert passes(error) is again


def test_pauses_grow_to_their_bound_and_are_spread_over_all_of_it() -> None:
    rng = random.Random(7)
    patience = Patience(first=0.01, most=0.2)
    for failures, bound in ((1, 0.01), (2, 0.02), (5, 0.16), (6, 0.2), (1000, 0.2)):
        pauses = [patience.pause(failures, rng) for _ in range(500)]
        assert 0 <= min(pauses) < bound * 0.1
        assert bound * 0.9 < max(pauses) <= bound
    assert patience.pause(3, random.Random(1)) == patience.pause(3, random.Random(1))
