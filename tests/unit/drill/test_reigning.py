"""Who reigned when, from made-up samples, log lines and faults: right attributions, and what must not be taken for one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from valkeep.drill.checkers.promise import Settings
from valkeep.drill.checkers.reigns import NEVER, Cause, Loss, Reign, loss_of
from valkeep.drill.reigning import Struck, reigns_of
from valkeep.drill.script import Step, parse_schedule
from valkeep.drill.serverlog import Said
from valkeep.drill.watch import Sample
from valkeep.topology.spec import Kind, Persistence, TopologySpec

MS = 1_000_000
S = 1000 * MS
SENTINEL = TopologySpec.sentinel()
IDS = {letter: letter * 40 for letter in "abcdef"}


def sample(at: int, role: str, replid: str, offset: int) -> Sample:
    return Sample(at, at + MS, role, IDS[replid], offset, 2 if role == "primary" else 0, "", 0)


def promoted(at: int, node: str, old: str, upto: int, new: str) -> Said:
    """``upto``: the last byte of the old stream that it has."""
    text = f"Setting secondary replication ID to {IDS[old]}, valid up to offset: {upto + 1}. New replication ID is {IDS[new]}"
    return Said(at, node, "info", text)


def started(at: int, node: str) -> Said:
    return Said(at, node, "info", "oO0OoO0OoO0Oo Valkey is starting oO0OoO0OoO0Oo")


def struck(text: str, nodes: tuple[str, ...], at: int, healed: int | None = None, took: int = 2 * MS) -> Struck:
    (step,) = parse_schedule(text)
    return Struck(step, nodes, at, at + took, healed)


class Story:
    """n1 reigns under the id a, from 0 to 10 s a byte each ms, seen every 100 ms; n2 and n3 follow. ``until``: the last ms at which n1 was seen."""

    def __init__(self, spec: TopologySpec = SENTINEL, until: int = 10_000, **settings: Any) -> None:
        self.spec = spec
        self.settings = replace(Settings(spec.kind, spec.persistence), **settings)
        self.samples: dict[str, list[Sample]] = {node.name: [] for node in spec.nodes() if node.role != "sentinel"}
        self.lines: list[Said] = []
        self.struck: list[Struck] = []
        self.reigning("n1", "a", 0, until)
        for name in ("n2", "n3"):
            if name in self.samples and spec.kind is not Kind.CLUSTER:
                self.samples[name] = [sample(at * MS, "replica", "a", at) for at in range(0, 10_000, 100)]

    def reigning(self, node: str, replid: str, since: int, until: int) -> None:
        self.samples[node] += [sample(at * MS, "primary", replid, at) for at in range(since, until, 100)]

    def reigns(self, begin: int = 0) -> tuple[Reign, ...]:
        lines = sorted(self.lines, key=lambda line: line.at)
        for line in lines:
            if line.text.startswith("Setting secondary"):  # no replica any more
                self.samples[line.node] = [
                    one for one in self.samples[line.node] if one.at < line.at or one.role == "primary" or one.replid != IDS["a"]
                ]
        return reigns_of(self.spec, self.settings, self.samples, lines, self.struck, begin)


def one_failover(fault: str, *, healed: int | None = None, upto: int = 4980, until: int = 10_000, **settings: Any) -> Reign:
    """n1 is struck at 5 s, n2 succeeds it at 6.5 s with everything up to the byte ``upto``."""
    story = Story(until=until, **settings)
    story.struck = [struck(fault, ("n1",), 5 * S, healed)]
    story.lines = [promoted(6500 * MS, "n2", "a", upto, "b")]
    story.reigning("n2", "b", 6600, 9000)
    first, second = story.reigns()
    assert (first.node, second.node, second.begins, second.deposed) == ("n1", "n2", 6500 * MS, None)
    return first


def test_a_topology_that_nothing_happened_to_has_one_reign_without_end() -> None:
    assert Story().reigns() == (Reign("n1", 0, 0, None),)


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("kill:primary@0", Cause.KILL),
        ("crash:primary@0", Cause.KILL),
        ("term:primary@0", Cause.TERM),
        ("pause:primary@0+3", Cause.PAUSE),
        ("partition:primary@0+3", Cause.PARTITION),
        ("isolate:primary@0+3", Cause.PARTITION),
        ("promote:primary@0", Cause.FAILOVER),
        ("promote:primary(mode=coordinated)@0", Cause.COORDINATED),
        ("slow-link:primary(ms=3000)@0", Cause.FAILOVER),
    ],
)
def test_a_deposition_has_the_cause_and_the_moment_of_the_fault_that_struck_its_primary(fault: str, cause: Cause) -> None:
    deposed = one_failover(fault).deposed
    assert deposed is not None
    assert (deposed.cause, deposed.at, deposed.promoted) == (cause, 5 * S, 6500 * MS)


def test_what_was_acked_before_a_sample_that_the_successor_has_may_not_be_lost() -> None:
    deposed = one_failover("kill:primary@0").deposed
    assert deposed is not None
    assert deposed.bound.since == 4900 * MS  # asked then, and 4900 ≤ 4980
    assert deposed.until == 5 * S + 2 * MS  # the process was dead
    behind = one_failover("kill:primary@0", upto=3210).deposed
    assert behind is not None
    assert behind.bound.since == 3200 * MS


def test_a_coordinated_failover_may_lose_nothing() -> None:
    deposed = one_failover("promote:primary(mode=coordinated)@0").deposed
    assert deposed is not None
    assert deposed.bound.since == NEVER


def test_a_failover_that_no_fault_explains_is_its_own_cause_at_its_own_moment() -> None:
    story = Story()
    story.struck = [struck("kill:replica@0", ("n3",), 5 * S)]
    story.lines = [promoted(6500 * MS, "n2", "a", 6400, "b")]
    first, _ = story.reigns()
    assert first.deposed is not None
    assert (first.deposed.cause, first.deposed.at, first.deposed.bound.since) == (Cause.FAILOVER, 6500 * MS, 6400 * MS)


def test_a_fault_of_the_time_before_a_reign_does_not_explain_its_end() -> None:
    """n2 was killed and started again as a replica; then it was promoted, and then it lost its reign for no reason that is known."""
    story = Story()
    story.struck = [struck("kill:n2@0", ("n2",), 1 * S, 2 * S), struck("promote:primary@0", ("n1",), 5 * S)]
    story.lines = [promoted(5100 * MS, "n2", "a", 5090, "b"), promoted(8000 * MS, "n3", "b", 7900, "c")]
    story.reigning("n2", "b", 5200, 8000)
    first, second, third = story.reigns()
    assert [reign.node for reign in (first, second, third)] == ["n1", "n2", "n3"]
    assert first.deposed is not None
    assert second.deposed is not None
    assert first.deposed.cause is Cause.FAILOVER
    assert (second.deposed.cause, second.deposed.at) == (Cause.FAILOVER, 8000 * MS)


def test_the_newest_of_several_faults_is_the_one_that_deposed() -> None:
    story = Story()
    story.struck = [struck("pause:primary@0+0.2", ("n1",), 2 * S, 2200 * MS), struck("kill:primary@0", ("n1",), 5 * S)]
    story.lines = [promoted(6500 * MS, "n2", "a", 4980, "b")]
    first, _ = story.reigns()
    assert first.deposed is not None
    assert (first.deposed.cause, first.deposed.at) == (Cause.KILL, 5 * S)


def test_a_fault_after_the_succession_did_not_cause_it() -> None:
    story = Story()
    story.struck = [struck("promote:primary@0", ("n1",), 5 * S), struck("kill:n1@0", ("n1",), 7 * S)]
    story.lines = [promoted(5100 * MS, "n2", "a", 5090, "b")]
    first, _ = story.reigns()
    assert first.deposed is not None
    assert (first.deposed.cause, first.deposed.at) == (Cause.FAILOVER, 5 * S)


def test_two_failovers_in_a_row_bring_the_first_primary_back() -> None:
    story = Story(until=5000)
    story.struck = [struck("promote:primary@0", ("n1",), 5 * S), struck("kill:primary@0", ("n2",), 8 * S)]
    story.lines = [promoted(5100 * MS, "n2", "a", 4950, "b"), promoted(9500 * MS, "n1", "b", 7990, "c")]
    story.samples["n1"] += [sample(at * MS, "replica", "b", at) for at in range(6000, 9500, 100)]
    story.reigning("n2", "b", 5200, 8000)
    story.reigning("n1", "c", 9600, 12_000)
    first, second, third = story.reigns()
    assert [(reign.node, reign.begins) for reign in (first, second, third)] == [("n1", 0), ("n2", 5100 * MS), ("n1", 9500 * MS)]
    assert first.deposed is not None
    assert second.deposed is not None
    assert first.deposed.until == 6001 * MS  # it said that it is a replica
    assert (second.deposed.cause, second.deposed.bound.since) == (Cause.KILL, 7900 * MS)


def restarted(fault: str, persistence: Persistence = Persistence.NONE, times: int = 1) -> tuple[Reign, ...]:
    """A standalone server that comes back under a new id 200 ms after it was struck, at 5 s and every 3 s from then on."""
    spec = replace(TopologySpec.standalone(), persistence=persistence)
    story = Story(spec, until=5000, persistence=persistence)
    for number in range(times):
        at = 5000 + 3000 * number
        story.struck.append(struck(fault, ("n1",), at * MS, (at + 200) * MS))
        story.lines.append(started((at + 200) * MS, "n1"))
        story.reigning("n1", "bcdef"[number], at + 250, at + 3000)
    return story.reigns()


@pytest.mark.parametrize(
    ("fault", "cause"), [("crash:primary@0+0.2", Cause.CRASH), ("kill:primary@0+0.2", Cause.RESTART), ("restart:primary@0", Cause.RESTART)]
)
def test_a_node_that_comes_back_succeeds_itself_from_when_it_took_connections_again(fault: str, cause: Cause) -> None:
    first, second = restarted(fault)
    assert (first.node, second.node, second.begins) == ("n1", "n1", 5200 * MS)
    assert first.deposed is not None
    assert (first.deposed.cause, first.deposed.at, first.deposed.until) == (cause, 5 * S, 5200 * MS)


def test_a_node_may_restart_again_and_again() -> None:
    reigns = restarted("restart-empty:primary@0", times=3)
    assert [reign.begins for reign in reigns] == [0, 5200 * MS, 8200 * MS, 11_200 * MS]
    assert [reign.deposed.at for reign in reigns if reign.deposed] == [5 * S, 8 * S, 11 * S]


def test_a_crash_with_every_write_synced_may_lose_nothing() -> None:
    first, _ = restarted("crash:primary@0+0.2", Persistence.ALWAYS)
    assert first.deposed is not None
    assert first.deposed.bound.since == NEVER


def test_a_deposed_primary_that_starts_again_as_a_primary_stands_apart_until_it_is_told() -> None:
    """It was killed, n2 was promoted, and until a sentinel tells it, what was n1 takes writes under a new id; all of them are doomed."""
    story = Story(until=5000)
    story.struck = [struck("kill:primary@0+3", ("n1",), 5 * S, 8 * S)]
    story.lines = [promoted(6500 * MS, "n2", "a", 4980, "b"), started(8 * S, "n1")]
    story.reigning("n2", "b", 6600, 12_000)
    story.reigning("n1", "c", 8100, 9000)
    story.samples["n1"].append(sample(9 * S, "replica", "b", 9000))
    first, second, apart = story.reigns()
    assert [(reign.node, reign.begins, reign.apart) for reign in (first, second, apart)] == [
        ("n1", 0, False), ("n2", 6500 * MS, False), ("n1", 8 * S, True),
    ]  # fmt: skip
    assert second.deposed is None
    assert apart.deposed is not None
    assert (apart.deposed.until, apart.deposed.bound.until) == (9001 * MS, 27 * S)
    assert loss_of(apart.deposed, 8500 * MS) is Loss.STALE_PRIMARY


def test_a_primary_that_did_not_start_again_has_no_excuse_for_a_stream_of_its_own() -> None:
    story = Story(until=5000)
    story.struck = [struck("kill:primary@0+3", ("n1",), 5 * S, 8 * S)]
    story.lines = [promoted(6500 * MS, "n2", "a", 4980, "b")]
    story.reigning("n2", "b", 6600, 12_000)
    story.reigning("n3", "c", 8100, 9000)
    assert [reign.node for reign in story.reigns()] == ["n1", "n2"]


def test_a_primary_that_came_back_from_its_disk_while_another_was_promoted_stands_apart() -> None:
    """With an AOF nothing may be lost by a restart; but the successor goes on with the stream from before it."""
    story = Story(until=5000, persistence=Persistence.EVERYSEC)
    story.struck = [struck("kill:primary@0+1", ("n1",), 5 * S, 6 * S)]
    story.lines = [started(6 * S, "n1"), promoted(6500 * MS, "n2", "a", 4980, "b")]
    story.reigning("n1", "c", 6100, 7000)
    story.reigning("n2", "b", 6600, 12_000)
    first, second, apart = story.reigns()
    assert [(reign.node, reign.apart) for reign in (first, second, apart)] == [("n1", False), ("n2", False), ("n1", True)]
    assert first.deposed is not None
    assert (first.deposed.cause, first.deposed.bound.since) == (Cause.KILL, 4900 * MS)


def test_a_restarted_primary_that_changes_its_id_when_its_first_replica_comes_reigns_once() -> None:
    story = Story(until=5000, persistence=Persistence.EVERYSEC)
    story.struck = [struck("kill:primary@0+0.2", ("n1",), 5 * S, 5200 * MS)]
    story.lines = [started(5200 * MS, "n1")]
    story.reigning("n1", "b", 5300, 6000)
    story.reigning("n1", "c", 6000, 9000)
    assert [(reign.node, reign.begins) for reign in story.reigns()] == [("n1", 0), ("n1", 5200 * MS)]


def test_a_primary_that_is_seen_while_it_still_loads_its_files_reigns_from_its_own_start() -> None:
    """It is seen at 8.25 s, 500 ms before it takes writes; the process before began at 5.2 s."""
    story = Story(replace(TopologySpec.standalone(), persistence=Persistence.EVERYSEC), until=5000)
    story.struck = [struck("crash:primary@0+0.2", ("n1",), at * MS, (at + 200) * MS) for at in (5000, 8000)]
    story.lines = [started(5200 * MS, "n1"), started(8200 * MS, "n1"), Said(8750 * MS, "n1", "info", "Ready to accept connections tcp")]
    story.reigning("n1", "b", 5250, 8000)
    story.reigning("n1", "c", 8250, 9000)
    assert [(reign.node, reign.begins) for reign in story.reigns()] == [("n1", 0), ("n1", 5200 * MS), ("n1", 8200 * MS)]


@pytest.mark.parametrize("old", ["b", "a"])
def test_a_successor_of_the_successor_that_had_less_of_the_first_stream_widens_its_loss(old: str) -> None:
    """n2 had n1's stream up to the byte 4980 and died at once; n3, which follows it, had 4700 of them."""
    story = Story(until=5000)
    story.struck = [struck("kill:primary@0", ("n1",), 5 * S), struck("kill:primary@0", ("n2",), 6600 * MS)]
    story.lines = [promoted(6500 * MS, "n2", "a", 4980, "b"), promoted(8 * S, "n3", old, 4700, "c")]
    story.reigning("n3", "c", 8100, 9000)
    first, second, _ = story.reigns()
    assert first.deposed is not None
    assert second.deposed is not None
    assert (first.deposed.bound.since, first.deposed.promoted) == (4700 * MS, 6500 * MS)
    assert second.deposed.cause is Cause.KILL


def test_a_partition_of_all_others_cuts_the_primary_off_as_well() -> None:
    """Who names the other half means the same cut; a cut that left both in one half is none between them."""
    story = Story()
    story.struck = [struck("partition:n2,n3,s1,s2,s3@0+30", ("n2", "n3", "s1", "s2", "s3"), 5 * S, 35 * S)]
    story.lines = [promoted(6500 * MS, "n2", "a", 4980, "b")]
    first, _ = story.reigns()
    assert first.deposed is not None
    assert (first.deposed.cause, first.deposed.at, first.deposed.healed) == (Cause.PARTITION, 5 * S, 35 * S)
    story.struck = [struck("partition:n3,s3@0+30", ("n3", "s3"), 5 * S, 35 * S)]
    first, _ = story.reigns()
    assert first.deposed is not None
    assert first.deposed.cause is Cause.FAILOVER


def test_a_partition_during_which_both_reigned_lets_the_old_one_ack_until_it_said_that_it_follows() -> None:
    story = Story(until=20_000)
    story.struck = [struck("partition:primary,c1@0+8", ("n1", "c1"), 5 * S, 13 * S)]
    story.lines = [promoted(6500 * MS, "n2", "a", 4980, "b")]
    story.reigning("n2", "b", 6600, 25_000)
    story.samples["n1"] += [sample(22_000 * MS, "replica", "b", 22_000)]
    first, second = story.reigns()
    assert first.deposed is not None
    assert second.begins < first.deposed.until  # type: ignore[operator]  # they overlap
    assert (first.deposed.healed, first.deposed.until) == (13 * S, 22_001 * MS)
    assert first.deposed.bound.until > 22 * S  # 4 × 2 s + 10 s after the heal


def test_primaries_killed_for_a_lost_quorum_count_as_killed() -> None:
    story = Story(TopologySpec.cluster(), until=5000)
    for node, replid in (("n2", "e"), ("n3", "f")):
        story.reigning(node, replid, 0, 10_000)
    story.struck = [struck("quorum-loss:primary:1@0", ("n1", "n3"), 5 * S, 20 * S)]
    story.lines = [promoted(6500 * MS, "n4", "a", 4980, "b")]
    first = next(reign for reign in story.reigns() if reign.node == "n1")
    assert first.deposed is not None
    assert (first.deposed.cause, first.deposed.until) == (Cause.KILL, 5002 * MS)


def test_shards_are_judged_each_for_itself() -> None:
    story = Story(TopologySpec.cluster(), until=5000)
    for node, replid in (("n2", "e"), ("n3", "f")):
        story.reigning(node, replid, 0, 10_000)
    story.struck = [struck("kill:primary:1@0", ("n1",), 5 * S)]
    story.lines = [promoted(6500 * MS, "n4", "a", 4980, "b")]
    story.reigning("n4", "b", 6600, 10_000)
    assert [(reign.node, reign.shard, reign.deposed is None) for reign in story.reigns()] == [
        ("n1", 0, False),
        ("n4", 0, True),
        ("n2", 1, True),
        ("n3", 2, True),
    ]


def test_what_was_before_the_load_is_no_reign() -> None:
    story = Story()
    story.lines = [promoted(50 * MS, "n2", "d", 40, "a")]
    assert [reign.node for reign in story.reigns(begin=100 * MS)] == ["n1"]


def test_a_log_line_may_seem_to_be_a_millisecond_before_its_cause() -> None:
    story = Story()
    story.struck = [struck("promote:primary@0", ("n1",), 5 * S + 900_000)]
    story.lines = [promoted(5 * S, "n2", "a", 4990, "b")]
    first, _ = story.reigns()
    assert first.deposed is not None
    assert first.deposed.at == 5 * S + 900_000


def test_a_shard_whose_primary_nobody_ever_saw_has_no_reign() -> None:
    story = Story()
    story.samples = {name: [] for name in story.samples}
    assert story.reigns() == ()


def test_a_step_is_kept_with_its_fault() -> None:
    assert struck("kill:primary@2", ("n1",), 0).step == Step("kill", "primary", after=2.0)


def test_a_reign_that_came_to_nothing_is_told_once_also_of_a_process_that_was_started_again_before() -> None:
    story = Story()
    story.lines = [started(3 * S, "n3"), promoted(6500 * MS, "n3", "a", 6400, "b")]
    story.reigning("n3", "b", 6600, 9000)
    story.samples["n3"] += [sample(at * MS, "replica", "b", at) for at in range(9000, 10_000, 100)]
    first, void = story.reigns()
    assert first == Reign("n1", 0, 0, None)  # it was promoted again, and goes on
    assert (void.node, void.begins, void.apart) == ("n3", 6500 * MS, True)
