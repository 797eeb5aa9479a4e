"""Servers' logs as moments on the drill's clock. The lines are real ones, of Valkey 9.1 and Redis 7.0."""

from __future__ import annotations

from valkeep.drill.recovery import recovery
from valkeep.drill.serverlog import moments, said, successions

ORIGIN = 1_795_261_000_000_000_000  # the wall time at monotonic zero

SENTINEL = """\
30412:X 21 Nov 2026 11:57:56.701 # +sdown master valkeep 127.0.1.1 15973
30412:X 21 Nov 2026 11:57:56.769 * Sentinel new configuration saved on disk
30412:X 21 Nov 2026 11:57:56.770 # +odown master valkeep 127.0.1.1 15973 #quorum 3/2
30412:X 21 Nov 2026 11:57:56.771 # +try-failover master valkeep 127.0.1.1 15973
30412:X 21 Nov 2026 11:57:56.900 # +elected-leader master valkeep 127.0.1.1 15973
30412:X 21 Nov 2026 11:57:57.864 # +switch-master valkeep 127.0.1.1 15973 127.0.1.3 15975
30412:X 21 Nov 2026 11:57:58.880 # +sdown slave 127.0.1.1:15973 127.0.1.1 15973 @ valkeep 127.0.1.3 15975
"""
NODE = """\
                _._
           _.-``__ ''-._        a banner has no time
30410:M 21 Nov 2026 11:57:56.994 * Setting secondary replication ID to 790a3cec53745025ebbdffdc90824122d3308d85, valid up to offset: 3175. \
New replication ID is 81b7ce03c549dbe21a4ac07e0a9f2664024ee5e2
30410:M 21 Nov 2026 11:57:56.994 * PRIMARY MODE enabled (user request from 'id=9')
"""
CLUSTER = """\
30578:S 21 Nov 2026 11:58:06.070 * NODE 81efd06fd14378f067ba606ce4f75af4bf2e2997 (127.0.1.1:15973) possibly failing.
30578:S 21 Nov 2026 11:58:06.184 * FAIL message received from c293 (127.0.1.6:15978) about 81ef (127.0.1.1:15973)
30578:S 21 Nov 2026 11:58:06.184 * Starting a failover election for epoch 5, node config epoch is 1
30578:S 21 Nov 2026 11:58:06.225 * Failover election won: I'm the new primary.
"""
OLD = "1234:M 21 Nov 2026 11:57:56.994 * MASTER MODE enabled (user request from 'id=9')\n"


def _at(clock: str) -> int:
    (line,) = said("n1", f"1:M 21 Nov 2026 {clock} * x", ORIGIN)
    return line.at


def test_lines_have_the_drills_clock_and_those_without_a_time_are_left_out() -> None:
    lines = list(said("n3", NODE, ORIGIN))
    assert [line.level for line in lines] == ["info", "info"]
    assert lines[0].at + ORIGIN == 1_795_262_276_994_000_000  # 2026-11-21 11:57:56.994 UTC


def test_a_failover_by_sentinel_is_told_step_by_step() -> None:
    steps = [moment.step for moment in moments([*said("s1", SENTINEL, ORIGIN), *said("n3", NODE, ORIGIN)])]
    assert steps == ["sdown", "odown", "election", "elected", "promoted", "switched"]


def test_a_failover_of_a_cluster_is_told_step_by_step() -> None:
    steps = [moment.step for moment in moments(list(said("n4", CLUSTER, ORIGIN)))]
    assert steps == ["sdown", "odown", "election", "elected", "promoted"]


def test_the_words_of_redis_are_understood_too() -> None:
    assert [moment.step for moment in moments(list(said("n2", OLD, ORIGIN)))] == ["promoted"]


def test_a_succession_says_how_much_of_the_old_stream_the_new_primary_has() -> None:
    (found,) = successions(list(said("n3", NODE, ORIGIN)))
    assert (found.node, found.offset, found.old[:4], found.new[:4]) == ("n3", 3174, "790a", "81b7")


def test_recovery_is_counted_from_the_fault_and_ends_with_the_first_ack_after_the_promotion() -> None:
    told = list(moments([*said("s1", SENTINEL, ORIGIN), *said("n3", NODE, ORIGIN)]))
    fault = _at("11:57:55.600")
    acks = [_at("11:57:55.599"), _at("11:57:57.900")]
    found = recovery("kill primary (n1)", fault, fault + 10**10, told, acks, _at("11:57:58.500"), heirs=frozenset({"n3"}))
    assert [(step.name, round(step.ms)) for step in found.steps] == [
        ("sdown", 1101), ("odown", 1170), ("elected", 1300), ("promoted", 1394), ("switched", 2264), ("first-ack", 2300), ("redundant", 2900),
    ]  # fmt: skip


def test_steps_of_an_earlier_failover_are_not_counted_to_this_fault() -> None:
    told = list(moments(list(said("s1", SENTINEL, ORIGIN))))
    later = _at("11:58:30.000")
    assert recovery("kill", later, later + 10**10, told, [], None, heirs=frozenset()).steps == ()
