"""Comparisons of the shards of a source as one: nothing that a part found may be lost in the whole."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import permutations
from typing import Any

import pytest

from valkeep.errors import ExitCode
from valkeep.migrate.verify import Comparison, Difference, merged
from valkeep.migrate.verify.result import EXAMPLES


def difference(number: int) -> Difference:
    return Difference(0, b"key:%d" % number, "missing", "not there")


ONE = Comparison(
    keys_source=100,
    keys_target=90,
    missing=1,
    extra=2,
    different=3,
    unsettled=4,
    examples=(difference(1), difference(2)),
    seconds=2.5,
    keys_per_second=40.0,
    source_offset=1000,
    target_offset=2000,
    verdict="invalid",
    expired=5,
    functions=1,
    looked_again=6,
    rounds=7,
    repaired=8,
    reasons=("a link broke", "a slot moved"),
    notes=("field TTLs are dropped",),
    memory_bytes=9,
    source_read="psync",
    target_read="scan",
    source_shards=1,
    target_shards=5,
)
TWO = Comparison(
    keys_source=10_000,
    keys_target=20_000,
    missing=100,
    extra=200,
    different=300,
    unsettled=400,
    examples=(difference(2), difference(3)),
    seconds=1.5,
    keys_per_second=60.0,
    source_offset=7,
    target_offset=8,
    verdict="unknown",
    expired=500,
    functions=3,
    looked_again=600,
    rounds=2,
    repaired=800,
    reasons=("a slot moved", "a worker was killed"),
    notes=("field TTLs are dropped", "the clocks differ"),
    memory_bytes=900,
    source_read="psync",
    target_read="scan",
    source_shards=1,
    target_shards=4,
)
WHOLE = Comparison(
    keys_source=10_100,
    keys_target=20_090,
    missing=101,
    extra=202,
    different=303,
    unsettled=404,
    examples=(difference(1), difference(2), difference(3)),
    seconds=2.5,  # they ran side by side
    keys_per_second=100.0,
    source_offset=1000,  # of the first: every part has its own
    target_offset=2000,
    verdict="invalid",
    expired=505,
    functions=3,  # every shard of a cluster has the same libraries
    looked_again=606,
    rounds=7,
    repaired=808,
    reasons=("a link broke", "a slot moved", "a worker was killed"),
    notes=("field TTLs are dropped", "the clocks differ"),
    memory_bytes=909,
    source_read="psync",
    target_read="scan",
    source_shards=2,
    target_shards=5,  # they write to the same ones
)


@pytest.mark.parametrize("name", [one.name for one in fields(Comparison)])
def test_every_part_counts_in_the_whole(name: str) -> None:
    """Each field has a value of its own in each part, so that one which is forgotten or taken from another shows."""
    assert getattr(ONE, name) != getattr(TWO, name) or name in ("source_read", "target_read", "source_shards")
    assert getattr(merged([ONE, TWO]), name) == getattr(WHOLE, name)


def test_sums_do_not_depend_on_whose_part_comes_first() -> None:
    here: dict[str, Any] = {"source_offset": 0, "target_offset": 0, "examples": (), "reasons": (), "notes": ()}  # in the order of the parts
    assert replace(merged([TWO, ONE]), **here) == replace(merged([ONE, TWO]), **here)
    assert set(merged([TWO, ONE]).examples) == set(WHOLE.examples)
    assert merged([TWO, ONE]).source_offset == TWO.source_offset


@pytest.mark.parametrize(
    ("verdicts", "whole", "code"),
    [
        (("valid", "valid", "valid"), "valid", ExitCode.GOOD),
        (("valid", "unknown", "valid"), "unknown", ExitCode.UNKNOWN),
        (("valid", "valid", "invalid"), "invalid", ExitCode.JUDGED_BAD),
        (("invalid", "unknown", "valid"), "invalid", ExitCode.JUDGED_BAD),
        (("unknown", "unknown", "unknown"), "unknown", ExitCode.UNKNOWN),
    ],
)
def test_the_worst_verdict_of_a_part_is_that_of_the_whole_in_any_order(verdicts: tuple[str, ...], whole: str, code: ExitCode) -> None:
    for order in permutations(verdicts):
        found = merged([Comparison(verdict=verdict) for verdict in order])
        assert (found.verdict, found.exit_code) == (whole, code)


def test_one_difference_in_the_last_of_many_parts_is_told_with_its_key() -> None:
    clean = Comparison(verdict="valid", keys_source=5, keys_target=5)
    found = merged([clean, clean, replace(clean, verdict="invalid", different=1, examples=(difference(9),))])
    assert (found.verdict, found.differences, found.examples) == ("invalid", 1, (difference(9),))


def test_keys_that_never_held_still_in_one_part_can_still_be_settled_in_the_pause() -> None:
    hot = Comparison(verdict="unknown", unsettled=2, keys_source=5)
    assert merged([Comparison(verdict="valid"), hot]).hot_only
    assert not merged([Comparison(verdict="invalid", missing=1), hot]).hot_only


def test_all_differences_are_counted_and_some_of_them_are_shown() -> None:
    many = [Comparison(verdict="invalid", missing=15, examples=tuple(map(difference, range(at, at + 15)))) for at in (0, 100)]
    found = merged(many)
    assert found.differences == 30
    assert len(found.examples) == EXAMPLES < 30
    assert found.examples[:15] == many[0].examples


def test_one_part_is_the_whole_as_it_is() -> None:
    assert merged([ONE]) is ONE


def test_what_is_written_of_the_whole_is_read_again() -> None:
    found: dict[str, Any] = merged([ONE, TWO]).to_json()
    assert Comparison.from_json(found) == WHOLE
