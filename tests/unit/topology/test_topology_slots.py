"""Keys and slots, as the cluster specification has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valkeep.errors import RemoteProtocolError
from valkeep.topology.slots import SLOTS, even_ranges, key_slot, ranges_of, slots_of, tag_for


@pytest.mark.parametrize(
    ("key", "slot"),
    [(b"foo", 12182), (b"123456789", 12739), (b"", 0), (b"{user1000}.following", 3443), (b"foo{}{bar}", 8363), (b"foo{{bar}}zap", 4015)],
)
def test_slots_are_those_of_the_specification(key: bytes, slot: int) -> None:
    assert key_slot(key) == slot


@given(
    st.binary(max_size=20).filter(lambda tag: tag and b"{" not in tag and b"}" not in tag),
    st.binary(max_size=9).filter(lambda head: b"{" not in head),
    st.binary(max_size=9),
)
def test_keys_with_one_tag_share_a_slot(tag: bytes, head: bytes, tail: bytes) -> None:
    assert key_slot(head + b"{" + tag + b"}" + tail) == key_slot(tag)


@given(st.integers(1, 300))
def test_even_ranges_cover_every_slot_once(shards: int) -> None:
    ranges = even_ranges(shards)
    assert list(slots_of(ranges)) == list(range(SLOTS))
    sizes = {last - first + 1 for first, last in ranges}
    assert max(sizes) - min(sizes) <= 1


@given(st.sets(st.integers(0, SLOTS - 1), max_size=50))
def test_ranges_hold_exactly_their_slots(slots: set[int]) -> None:
    assert set(slots_of(ranges_of(slots))) == slots


@given(st.integers(0, SLOTS - 1))
def test_a_tag_puts_a_key_into_its_slot(slot: int) -> None:
    assert key_slot(b"journal:{%s}" % tag_for(slot)) == slot


@pytest.mark.parametrize("range_", [(5, 3), (-1, 2), (0, SLOTS)])
def test_a_range_that_is_none_is_refused(range_: tuple[int, int]) -> None:
    with pytest.raises(RemoteProtocolError):
        list(slots_of([range_]))
