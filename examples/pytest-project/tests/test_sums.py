"""Words counted while slots move and primaries change."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sums import Sums


@pytest.fixture
def sums(valkey_cluster) -> Iterator[Sums]:
    counting = Sums(valkey_cluster.nodes)
    yield counting
    counting.close()


def test_words_are_counted(sums):
    sums.add("to be or not to be")
    assert (sums.of("to"), sums.of("not"), sums.of("that")) == (2, 1, 0)


def test_slots_move_and_sums_stay(sums, faults):
    words = " ".join(str(number) for number in range(200))
    sums.add(words)
    faults.slot_migration("primary:1", to=2)
    sums.add(words)
    assert all(sums.of(str(number)) == 2 for number in range(200))


def test_a_failover_on_purpose_loses_nothing(sums, valkey_cluster, faults):
    old = valkey_cluster.primary(shard=1)
    sums.add("tea cake tea")
    faults.promote("primary:1")
    valkey_cluster.wait_new_primary(old)
    sums.add("tea")
    assert (sums.of("tea"), sums.of("cake")) == (3, 1)
