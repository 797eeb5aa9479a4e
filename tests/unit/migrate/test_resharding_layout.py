"""Which slots may go from lane to lane, by what the nodes of a cluster say."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from valkeep.client.cluster_nodes import NodeWord
from valkeep.client.endpoint import Endpoint
from valkeep.client.shard_primary import ShardPrimary
from valkeep.errors import Refused
from valkeep.migrate.resharding.layout import Layout, Move, layout_of, told
from valkeep.topology.members import SlotMigration, cluster_members

A, B, C = (letter * 40 for letter in "abc")
PORTS = {A: 1, B: 2, C: 3}
BROUGHT = {"1": frozenset(range(10)), "2": frozenset(range(10, 20))}


@dataclass(frozen=True)
class Lane:
    name: str
    shard: ShardPrimary


def lanes() -> list[Lane]:
    return [Lane(name, ShardPrimary([Endpoint("h", PORTS[node])], node)) for name, node in (("1", A), ("2", B))]


def word(me: str, slots: dict[str, str], *migrations: SlotMigration, flags: dict[str, str] | None = None, of: str = "-") -> NodeWord:
    """``slots``: node → what stands behind its name, as CLUSTER NODES says it."""
    lines = []
    for node, said in slots.items():
        role = (flags or {}).get(node, "master")
        follows = of if "slave" in role else "-"
        lines.append(f"{node} h:{PORTS[node]}@1 {'myself,' * (node == me)}{role} {follows} 0 0 1 connected {said}")
    return NodeWord(Endpoint("h", PORTS[me]), cluster_members("\n".join(lines)), migrations)


def judged(*words: NodeWord, brought: dict[str, frozenset[int]] = BROUGHT) -> Layout:
    return layout_of({one.me.id: one for one in words}, lanes(), brought)


STILL = {A: "0-9", B: "10-19"}
MOVED = {A: "0-8", B: "9-19"}


def test_where_nothing_moved_nothing_is_wrong() -> None:
    found = judged(word(A, STILL), word(B, STILL))
    assert (found.moves, found.moving, found.over, found.wrong) == ((), frozenset(), (), "")


def test_slots_of_a_node_that_never_answered_are_not_forgotten() -> None:
    """It was away when the lanes were made, and is still: nobody has read what it has."""
    lists = {**STILL, C: "20-29"}
    assert judged(word(A, lists), word(B, lists)).wrong == "slots 20-29 are with a node that does not answer, and was not read"


def test_a_slot_is_handed_over_when_both_say_whose_it_is() -> None:
    found = judged(word(A, MOVED), word(B, MOVED))
    assert found.moves == (Move(9, "1", "2"),)
    assert found.wrong == "slot 9 is elsewhere than before"


def test_not_while_the_giver_has_not_heard_of_it() -> None:
    assert judged(word(A, STILL), word(B, MOVED)).moves == ()
    assert judged(word(A, {A: "0-8", B: "10-19"}), word(B, MOVED)).moves == ()  # it has given it to nobody


def test_not_while_the_giver_does_not_answer_unless_the_cluster_has_given_it_up() -> None:
    assert judged(word(B, MOVED)).moves == ()
    assert judged(word(B, MOVED, flags={A: "master,fail?"})).moves == ()
    assert judged(word(B, {A: "", B: "9-19"}, flags={A: "master,fail"})).moves == (Move(9, "1", "2"),)
    assert judged(word(B, {B: "9-19"})).moves == (Move(9, "1", "2"),)


@pytest.mark.parametrize("said", [{A: f"0-9 [9->-{B}]", B: "10-19"}, {A: "0-9", B: "10-19"}])
def test_a_slot_on_its_way_is_left_alone(said: dict[str, str]) -> None:
    found = judged(word(A, said), word(B, {A: "0-9", B: f"10-19 [9-<-{A}]"}))
    assert found.moving == frozenset({9})
    assert found.moves == ()
    assert found.wrong == "slot 9 is on the way from one shard to another"


def test_a_migration_by_the_servers_is_on_its_way_until_it_is_over() -> None:
    job = SlotMigration("n", ((8, 9),), A, B, "snapshotting")
    assert judged(word(A, STILL, job), word(B, STILL)).moving == frozenset({8, 9})
    assert judged(word(A, STILL, SlotMigration("n", ((8, 9),), A, B, "success")), word(B, STILL)).moving == frozenset()


def test_a_slot_that_two_claim_is_left_alone() -> None:
    found = judged(word(A, {A: "0-9", B: "9-19"}), word(B, MOVED))
    assert found.moves == ()
    assert "slot 9 is" in found.wrong


def test_a_slot_that_no_lane_has_needs_no_giver() -> None:
    brought = {"1": frozenset(range(9)), "2": frozenset(range(10, 20))}
    assert judged(word(A, MOVED), word(B, MOVED), brought=brought).moves == (Move(9, "", "2"),)


def test_a_shard_that_had_no_slots_takes_those_that_come_to_it_over() -> None:
    brought = {"1": frozenset(range(20)), "2": frozenset[int]()}
    come = {A: "0-17", B: "18-19"}
    assert judged(word(A, come), word(B, come), brought=brought).moves == (Move(18, "1", "2"), Move(19, "1", "2"))
    still = {A: "0-19", B: ""}
    assert judged(word(A, still), word(B, still), brought=brought).wrong == ""


def test_slots_that_nobody_serves_any_more_are_not_where_they_were() -> None:
    here = {A: "0-8", B: "10-19"}
    found = judged(word(A, here), word(B, here))
    assert found.moves == ()
    assert "slot 9" in found.wrong


def test_a_shard_without_slots_whose_primary_follows_another_shard_is_over() -> None:
    brought = {"1": frozenset[int](), "2": frozenset(range(20))}
    gone = {A: "", B: "0-19"}
    found = judged(word(A, gone, flags={A: "slave"}, of=B), word(B, gone, flags={A: "slave"}, of=B), brought=brought)
    assert found.over == ("1",)
    assert found.wrong == ""
    assert judged(word(B, {B: "0-19"}), brought=brought).over == ("1",)  # it has left the cluster
    assert judged(word(A, gone), word(B, gone), brought=brought).over == ()  # a primary still: slots may come back


def test_a_shard_that_fails_over_when_slots_have_just_come_to_it_is_not_over() -> None:
    """Nothing of it is in the target yet, and everybody calls its primary failed: the replica that takes over is not promoted yet."""
    brought = {"1": frozenset[int](), "2": frozenset(range(20))}
    failed = {A: "master,fail"}
    assert judged(word(B, {A: "5", B: "0-4 6-19"}, flags=failed), brought=brought).over == ()
    assert judged(word(B, {A: "", B: "0-19"}, flags=failed), brought=brought).over == ("1",)


def test_the_giver_is_believed_also_when_it_follows_another_shard_already() -> None:
    gone = {A: "", B: "0-19"}
    brought = {"1": frozenset({3}), "2": frozenset(range(20)) - {3}}
    found = judged(word(A, gone, flags={A: "slave"}, of=B), word(B, gone, flags={A: "slave"}, of=B), brought=brought)
    assert found.moves == (Move(3, "1", "2"),)
    assert found.over == ()


def test_while_a_shard_has_no_primary_nothing_stands_still() -> None:
    found = judged(word(B, STILL, flags={A: "master,fail"}))
    assert "nobody is the primary" in found.wrong


def test_a_node_that_was_not_there_and_owns_slots_ends_it() -> None:
    here = {A: "0-9", B: "10-18", C: "19"}
    with pytest.raises(Refused) as error:
        judged(word(A, here), word(B, here), word(C, here))
    assert error.value.code == "VK-SOURCE-SHARDS"
    assert "slot 19" in error.value.message


def test_a_node_that_was_not_there_and_owns_none_is_no_matter() -> None:
    here = {A: "0-9", B: "10-19", C: ""}
    assert judged(word(A, here), word(B, here), word(C, here)).wrong == ""


def test_many_slots_are_told_in_short() -> None:
    assert told(frozenset(range(0, 40, 2))) == "slots 0, 2, 4, 6, 8 …"
