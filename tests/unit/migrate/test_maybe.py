"""The set of keys that may have lost fields: never a wrong no."""

from __future__ import annotations

import random

import pytest

from valkeep.migrate.transform import maybe
from valkeep.migrate.transform.maybe import MaybeSet


def test_what_was_added_is_in_it_and_little_else() -> None:
    chance = random.Random(1)
    keys = [(chance.randrange(4), chance.randbytes(chance.randrange(1, 20))) for _ in range(50_000)]
    found = MaybeSet()
    for database, key in keys:
        found.add(database, key)
    assert all(place in found for place in keys)
    others = [(chance.randrange(4), chance.randbytes(21)) for _ in range(20_000)]
    assert sum(place in found for place in others) < 200


def test_an_empty_set_needs_no_memory_and_holds_nothing() -> None:
    found = MaybeSet()
    assert (0, b"k") not in found
    assert found._layers == []


def test_it_grows_with_what_is_added_and_says_no_to_nothing_that_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maybe, "_FIRST_BITS", 1 << 12)
    found = MaybeSet()
    sizes = []
    for number in range(20_000):
        found.add(number % 3, b"key:%d" % number)
        sizes.append(sum(len(layer.bits) for layer in found._layers))
    assert sizes[0] == 512
    assert sizes[-1] == 512 * 31  # five layers, and no more
    assert all((number % 3, b"key:%d" % number) in found for number in range(20_000))
    few = MaybeSet()
    for number in range(7000):
        few.add(0, b"key:%d" % number)
        few.add(0, b"key:%d" % number)  # what is in it needs no more room
    assert len(few._layers) == 5
    assert sum((0, b"other:%d" % number) in few for number in range(10_000)) < 500


def test_the_same_key_in_another_database_is_another_one() -> None:
    found = MaybeSet()
    found.add(3, b"k")
    assert (3, b"k") in found
    assert (0, b"k") not in found


def test_swapped_databases_take_their_keys_along() -> None:
    found = MaybeSet()
    found.add(0, b"a")
    found.swap(0, 1)
    assert (1, b"a") in found
    assert (0, b"a") not in found
    found.add(0, b"b")
    found.swap(0, 5)
    assert (5, b"b") in found
    assert (1, b"a") in found
    found.swap(1, 5)
    found.swap(5, 0)
    assert (0, b"a") in found
    assert (1, b"b") in found
    found.swap(1, 1)
    assert (1, b"b") in found


def test_what_was_dumped_and_told_since_is_the_same_set() -> None:
    first, told = MaybeSet(), bytearray()
    for number in range(1000):
        first.add(number % 3, b"%d" % number)
    first.swap(0, 1)
    told += b"".join(first.dump())
    first.changed = told.extend
    first.add(0, b"later")
    first.swap(1, 2)
    first.add(1, b"last")
    again = MaybeSet.loaded(bytes(told))
    for database in range(3):
        for key in [b"later", b"last", *(b"%d" % number for number in range(2000))]:
            assert ((database, key) in again) == ((database, key) in first)
    for cut in (1, len(told) - 1):
        with pytest.raises(ValueError, match="cut short"):
            MaybeSet.loaded(bytes(told[:cut]))
    with pytest.raises(ValueError, match="kind"):
        MaybeSet.loaded(b"?" * 40)
