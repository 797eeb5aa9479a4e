"""Where a cluster's slots lie by its nodes' own words, beside where the lanes have them. Asks nobody; shards learn of their members what the words say.

A slot may be handed over when nobody speaks of it as on its way, when its new owner says that it is, and when the one before says so, too: a primary that has
not heard of it yet still takes writes. Who cannot be asked is waited for, unless the cluster has given it up: nobody lists it any more, or everybody as failed
(which takes a majority); whatever that node still acknowledges to somebody, its own cluster has lost.

A node that owns slots and is nobody's of ours was not there when the migration began: its data was never read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from valkeep.client.cluster_nodes import given_up
from valkeep.errors import Refused
from valkeep.topology.slots import SLOTS, ranges_of, slots_of

if TYPE_CHECKING:
    from valkeep.client.cluster_nodes import NodeWord
    from valkeep.client.shard_primary import ShardPrimary

__all__ = ["Layout", "Move", "layout_of", "told"]

_ALL: Final = frozenset(range(SLOTS))


class _Holder(Protocol):
    """See `holder.Holder`."""

    @property
    def name(self) -> str: ...
    @property
    def shard(self) -> ShardPrimary: ...


@dataclass(frozen=True, slots=True)
class Move:
    """This slot is ready to be handed over. ``giver``: the lane that has it, or "": none has."""

    slot: int
    giver: str
    taker: str


@dataclass(frozen=True, slots=True)
class Layout:
    """``primaries``: lane → its primary's own word, of those that have one. ``moving``: slots on their way. ``moves``: that can be made now. ``over``:
    lanes whose shard is no more: it has no slots, and its primary is another's replica, or gone. ``wrong``: what is not as the lanes have it, in a
    sentence, or ""."""

    primaries: Mapping[str, NodeWord]
    moving: frozenset[int]
    moves: tuple[Move, ...]
    over: tuple[str, ...]
    wrong: str


def layout_of(words: Mapping[str, NodeWord], holders: Sequence[_Holder], brought: Mapping[str, frozenset[int]]) -> Layout:
    """``words``: node → what it says. ``brought``: lane → slots that it has brought to the target. Raises ``Refused`` where a node that is none of theirs has
    slots. What shards learn of their members is their own."""
    primaries = {one.name: word for one in holders if (word := one.shard.among(words)) is not None}
    _expect_no_stranger(words, holders)
    claims = {name: frozenset(slots_of(word.me.ranges)) for name, word in primaries.items()}
    moving = frozenset(slot for word in primaries.values() for slot in word.moving)
    apart = frozenset[int]().union(*(claims[name] ^ brought[name] for name in claims))
    moves = _moves(words, holders, primaries, claims, brought, moving) if apart - moving else ()
    over = [one.name for one in holders if one.name not in primaries and not brought[one.name] and one.shard.over(words)]
    missing = [one.shard.address for one in holders if one.name not in primaries and one.name not in over]
    wrong = ""
    if missing:
        wrong = f"nobody is the primary of the shard of {missing[0]} at present"
    elif moving:
        wrong = _are(moving, "on the way from one shard to another")
    elif apart:
        wrong = _are(apart, "elsewhere than before")
    elif unread := _listed(primaries) - frozenset[int]().union(*brought.values()):
        wrong = _are(unread, "with a node that does not answer, and was not read")
    return Layout(primaries, moving, moves, tuple(over), wrong)


def _moves(
    words: Mapping[str, NodeWord],
    holders: Sequence[_Holder],
    primaries: Mapping[str, NodeWord],
    claims: Mapping[str, frozenset[int]],
    brought: Mapping[str, frozenset[int]],
    moving: frozenset[int],
) -> tuple[Move, ...]:
    """``claims``: lane → slots that its shard says are its own."""
    by_name = {one.name: one for one in holders}
    has = {slot: name for name, slots in brought.items() for slot in slots}
    claimants = Counter(slot for slots in claims.values() for slot in slots)
    moves = []
    for taker, claimed in claims.items():
        given: dict[str, frozenset[int]] = {"": _ALL}
        for slot in sorted(claimed - brought[taker] - moving):
            giver = has.get(slot, "")
            if giver not in given:
                given[giver] = _given(words, by_name[giver], primaries[taker].me.id)
            if slot in given[giver] and claimants[slot] == 1:
                moves.append(Move(slot, giver, taker))
    return tuple(moves)


def _listed(primaries: Mapping[str, NodeWord]) -> frozenset[int]:
    """Slots that are somebody's, as one of them has it."""
    return frozenset(slot for word in list(primaries.values())[:1] for one in word.members for slot in slots_of(one.ranges))


def told(slots: frozenset[int]) -> str:
    """For people: ``slots 5-7, 9``"""
    ranges = ranges_of(slots)
    named = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges[:5])
    return f"slot{'s' * (len(slots) > 1)} {named}{' …' if len(ranges) > 5 else ''}"


def _are(slots: frozenset[int], what: str) -> str:
    return f"{told(slots)} {'are' if len(slots) > 1 else 'is'} {what}"


def _given(words: Mapping[str, NodeWord], giver: _Holder, taker: str) -> frozenset[int]:
    """Which slots are the taker's by the giver's own word, or for want of a giver."""
    word = words.get(giver.shard.node_id)
    if word is None:
        return _ALL if given_up(words, giver.shard.node_id) else frozenset()
    owner = word.member(taker)
    return frozenset(slots_of(owner.ranges)) if owner is not None else frozenset()


def _expect_no_stranger(words: Mapping[str, NodeWord], holders: Sequence[_Holder]) -> None:
    ours = {node for one in holders for node in one.shard.members}
    for name, word in words.items():
        if name not in ours and word.me.primary and word.me.ranges:
            slots = frozenset(slots_of(word.me.ranges))
            raise Refused(
                f"{word.endpoint.address} owns slots of the source now ({told(slots)}), and did not when the migration began",
                remedy="start again with --fresh --wipe-target when the cluster has its new shape, or give it the old one and start again",
                code="VK-SOURCE-SHARDS",
            )
