"""The keys of a load on somebody else's topology: known by their tags, on every shard, and none but these."""

from __future__ import annotations

import random

import pytest

from valkeep.drill.workloads import keys
from valkeep.drill.workloads.mixes import MIXES, mix_of
from valkeep.topology.slots import even_ranges, key_slot


@pytest.mark.parametrize(
    "slices",
    [(((0, 16383),),), tuple((span,) for span in even_ranges(3)), (((0, 0), (200, 16383)), ((1, 199),)), (((5, 5),), ((0, 4), (6, 16383)))],
)
def test_every_shard_has_tags_of_its_own_slots(slices: tuple[tuple[tuple[int, int], ...], ...]) -> None:
    tags = keys.tags_in(slices)
    assert len(set(tags)) == len(tags)
    assert all(tag.startswith(b"valkeep-") for tag in tags)
    owners = [next(at for at, spans in enumerate(slices) if any(first <= key_slot(tag) <= last for first, last in spans)) for tag in tags]
    assert set(owners) == set(range(len(slices)))


def test_a_shard_of_many_gets_as_many_tags_as_any_other() -> None:
    tags = keys.tags_in(tuple((span,) for span in even_ranges(5)), 12)
    assert len(tags) == 15


@pytest.mark.parametrize("mix", MIXES)
def test_no_load_writes_a_key_that_is_not_listed(mix: str) -> None:
    tag = keys.tags_in((((0, 16383),),), 1)[0]
    listed, work = set(keys.all_of(tag)), mix_of(mix, 1, random.Random(7))
    steps = [step for _ in range(200) for step in work.batch(tag, 12)]
    written = {
        word
        for step in steps
        if step.writes
        for command in step.commands
        for word in command[1:]
        if isinstance(word, bytes) and tag in word
    }
    assert written
    assert written <= listed
