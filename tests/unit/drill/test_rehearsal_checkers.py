"""Every checker of the rehearsal accepts what may be, and catches each planted violation."""

from __future__ import annotations

from typing import Any

import pytest

from valkeep.drill.checkers.counters import check_counters
from valkeep.drill.checkers.expiry import ABSENT, PERSISTENT, check_expiries
from valkeep.drill.checkers.failover import Survival, check_suffix, lost_suffix
from valkeep.drill.checkers.judgement import Judgement, judged, worst
from valkeep.drill.checkers.registers import check_registers
from valkeep.drill.checkers.sequences import check_sequences, check_streams, pack_id
from valkeep.drill.checkers.sets import check_pools
from valkeep.drill.checkers.transactions import Group, check_transactions
from valkeep.drill.history import History

K = b"0|k"


def record(*rows: tuple[Any, ...], function: str = "f") -> History:
    """Rows (process, value, outcome, result?, node?, (invoked, returned)?); times follow each other unless given."""
    history = History()
    for place, row in enumerate(rows):
        process, value, outcome, result, node, times = (*row, *(None, None, None))[:6]
        invoked, returned = times or (place * 10, place * 10 + 5)
        number = history.invoke(process, function, K, value, invoked)
        if outcome == "ok":
            history.ok(number, returned, node or "source", result)
        elif outcome == "fail":
            history.fail(number, returned, node or "source", "NOREPLICAS")
        elif outcome == "info":
            history.info(number, returned, node or "source", "LOST")
    return history


def kinds(judgement: Judgement) -> set[str]:
    return set(judgement.counts)


# ------------------------------------------------------------------------------------------------------------------ registers


@pytest.mark.parametrize("final", [3, 4])
def test_the_last_acked_or_an_indefinite_value_may_stand_in_a_register(final: int) -> None:
    assert check_registers(record((1, 2, "ok"), (1, 3, "ok"), (1, 4, "info"), (1, 5, "fail")), {K: final}).verdict == "valid"


def test_overlapping_writers_leave_either_value() -> None:
    history = record((1, 1, "ok", None, None, (0, 10)), (2, 2, "ok", None, None, (5, 8)))
    assert all(check_registers(history, {K: final}).verdict == "valid" for final in (1, 2))


@pytest.mark.parametrize(
    ("final", "kind", "lost"),
    [(2, "lost", 1), (1, "lost", 2), (None, "lost", 3), (5, "phantom", 0), (99, "changed", 1), (b"text", "changed", 1)],
)
def test_a_lost_refused_or_changed_write_is_found_in_a_register(final: Any, kind: str, lost: int) -> None:
    judgement = check_registers(record((1, 1, "ok"), (1, 2, "ok"), (1, 3, "ok"), (1, 5, "fail")), {K: final})
    assert (judgement.verdict, kinds(judgement), judgement.lost) == ("invalid", {kind}, lost)


def test_a_register_without_acked_writes_keeps_its_first_value() -> None:
    assert check_registers(record((1, 2, "fail")), {K: 7}, initial={K: 7}).verdict == "valid"
    assert check_registers(record((1, 2, "fail")), {K: None}, initial={K: 7}).verdict == "invalid"


# ------------------------------------------------------------------------------------------------------------------- counters


@pytest.mark.parametrize("final", [2, 3])
def test_a_counter_may_include_indefinite_increments(final: int) -> None:
    assert check_counters(record((1, None, "ok", 1), (1, None, "ok", 2), (1, None, "info")), {K: final}).verdict == "valid"


@pytest.mark.parametrize(("final", "kind", "lost"), [(1, "lost", 1), (None, "lost", 2), (4, "duplicated", 0), (b"x", "changed", 2)])
def test_lost_and_duplicated_increments_are_found(final: Any, kind: str, lost: int) -> None:
    judgement = check_counters(record((1, None, "ok", 1), (1, None, "ok", 2), (1, None, "info"), (1, None, "fail")), {K: final})
    assert (judgement.verdict, kinds(judgement), judgement.lost) == ("invalid", {kind}, lost)


def test_one_counter_value_answered_twice_is_a_forgotten_increment() -> None:
    judgement = check_counters(record((1, None, "ok", 1), (1, None, "ok", 2), (2, None, "ok", 2, "target")), {K: 3})
    assert kinds(judgement) == {"duplicated"}
    assert judgement.lost == 1


def test_a_counter_that_runs_backwards_is_found() -> None:
    assert "reordered" in kinds(check_counters(record((1, None, "ok", 2), (1, None, "ok", 1)), {K: 2}))


# ------------------------------------------------------------------------------------------------------- lists and streams


def test_a_list_with_every_acked_element_and_perhaps_the_indefinite_ones_is_valid() -> None:
    history = record((1, 1, "ok"), (2, 2, "ok"), (1, 3, "info"), (1, 4, "ok"), (1, 5, "fail"))
    for elements in ([1, 2, 4], [2, 1, 3, 4], [1, 4, 2, 3]):
        assert check_sequences(history, {K: elements}).verdict == "valid"


@pytest.mark.parametrize(
    ("elements", "kind", "lost"),
    [
        ([1, 4], "lost", 1),
        ([], "lost", 3),
        ([1, 2, 2, 4], "duplicated", 0),
        ([4, 2, 1], "reordered", 0),
        ([1, 2, 4, 5], "phantom", 0),
        ([1, 2, 4, 77], "phantom", 0),
    ],
)
def test_lost_duplicated_reordered_and_foreign_elements_are_found(elements: list[int], kind: str, lost: int) -> None:
    judgement = check_sequences(record((1, 1, "ok"), (2, 2, "ok"), (1, 4, "ok"), (1, 5, "fail")), {K: elements})
    assert (judgement.verdict, kinds(judgement), judgement.lost) == ("invalid", {kind}, lost)


def test_a_stream_entry_keeps_the_id_that_was_answered() -> None:
    history = record((1, 1, "ok", pack_id(b"5-0")), (1, 2, "ok", pack_id(b"5-1")))
    assert check_streams(history, {K: [(pack_id(b"5-0"), 1), (pack_id(b"5-1"), 2)]}).verdict == "valid"
    changed = check_streams(history, {K: [(pack_id(b"5-0"), 1), (pack_id(b"6-1"), 2)]})
    assert kinds(changed) == {"changed"}
    assert "5-1 and has 6-1" in changed.anomalies[0].detail
    assert check_streams(history, {K: [(pack_id(b"5-1"), 2)]}).lost == 1


# ----------------------------------------------------------------------------------------------------------------------- sets


def pools(final: set[Any], *rows: tuple[Any, ...]) -> Judgement:
    return check_pools(record(*rows), {K: final}, initial={K: {1, 2, 3, 4}})


def test_popped_members_are_gone_and_the_others_are_there() -> None:
    assert pools({3, 4}, (1, None, "ok", 1), (1, None, "ok", 2), (1, None, "ok", None)).verdict == "valid"
    assert pools({4}, (1, None, "ok", 1), (1, None, "ok", 2), (1, None, "info")).verdict == "valid"


@pytest.mark.parametrize(
    ("final", "kind"), [({1, 3, 4}, "resurrected"), ({3}, "lost"), ({3, 4, 99}, "phantom")], ids=["resurrected", "lost", "phantom"]
)
def test_resurrected_lost_and_foreign_members_are_found(final: set[int], kind: str) -> None:
    assert kinds(pools(final, (1, None, "ok", 1), (1, None, "ok", 2))) == {kind}


def test_a_member_popped_twice_or_out_of_nowhere_is_found() -> None:
    assert kinds(pools({3, 4}, (1, None, "ok", 1), (1, None, "ok", 2), (2, None, "ok", 1, "target"))) == {"duplicated"}
    assert kinds(pools({2, 3, 4}, (1, None, "ok", 1), (1, None, "ok", 9))) == {"phantom"}


# --------------------------------------------------------------------------------------------------------------- transactions


def test_a_whole_transaction_is_valid() -> None:
    assert check_transactions(record((1, 1, "ok"), (1, 2, "ok"), (1, 3, "info")), {K: Group(2, 2, [1, 2])}).verdict == "valid"
    assert check_transactions(record((1, 1, "ok"), (1, 2, "ok"), (1, 3, "info")), {K: Group(3, 3, [1, 2, 3])}).verdict == "valid"


@pytest.mark.parametrize(
    ("group", "kind"),
    [
        (Group(2, 1, [1, 2]), "partial"),
        (Group(2, 2, [1, 2, 3]), "partial"),
        (Group(3, 3, [1, 2]), "partial"),
        (Group(1, 1, [1]), "lost"),
        (Group(2, 2, [1, 2, 2]), "duplicated"),
    ],
)
def test_half_a_transaction_is_found(group: Group, kind: str) -> None:
    assert kind in kinds(check_transactions(record((1, 1, "ok"), (1, 2, "ok"), (1, 3, "info")), {K: group}))


# --------------------------------------------------------------------------------------------------------------------- expiry

WALL = 1_700_000_000_000  # ms at the history's zero


def expiries(final: int, *rows: tuple[Any, ...]) -> Judgement:
    return check_expiries(record(*rows), {K: final}, origin_unix_ns=WALL * 1_000_000, slack_ms=0)


def test_an_expiry_counts_from_a_moment_between_invocation_and_reply() -> None:
    row = (1, 100, "ok", 1, None, (2_000_000, 4_000_000))
    assert all(expiries(WALL + 100_000 + ms, row).verdict == "valid" for ms in (2, 3, 4))


@pytest.mark.parametrize(
    ("final", "kind"), [(WALL + 100_005, "ttl-changed"), (WALL + 100_001, "ttl-changed"), (PERSISTENT, "ttl-lost"), (ABSENT, "lost")]
)
def test_a_lost_or_changed_ttl_is_found_to_the_millisecond(final: int, kind: str) -> None:
    judgement = expiries(final, (1, 100, "ok", 1, None, (2_000_000, 4_000_000)))
    assert (judgement.verdict, kinds(judgement), judgement.lost) == ("invalid", {kind}, 1)


def test_a_changed_ttl_is_said_with_how_far_it_is_off_and_in_which_direction() -> None:
    history = record((1, 10, "ok", None, None, (0, 4_000_000)))  # from 9,995 to 10,009 ms, the slack included
    late = check_expiries(history, {K: 10_012}, origin_unix_ns=0)
    early = check_expiries(history, {K: 9_994}, origin_unix_ns=0)
    assert "+3 ms beside 9995 … 10009" in late.anomalies[0].detail
    assert "-1 ms beside 9995 … 10009" in early.anomalies[0].detail


def test_a_key_whose_expire_was_refused_keeps_the_ttl_that_it_had() -> None:
    refused = record((1, 10, "fail"))
    assert check_expiries(refused, {K: 777}, origin_unix_ns=0, initial={K: 777}).verdict == "valid"
    assert check_expiries(refused, {K: 778}, origin_unix_ns=0, initial={K: 777}).verdict == "invalid"
    assert check_expiries(refused, {K: PERSISTENT}, origin_unix_ns=0, initial={K: 777}).verdict == "invalid"
    assert check_expiries(refused, {K: PERSISTENT}, origin_unix_ns=0).verdict == "valid"


def test_an_indefinite_expire_may_have_happened_or_not() -> None:
    rows = (1, 100, "ok", 1, None, (0, 1_000_000)), (1, 500, "info", None, None, (2_000_000, 3_000_000))
    assert expiries(WALL + 100_001, *rows).verdict == "valid"
    assert expiries(WALL + 500_002, *rows).verdict == "valid"


# ------------------------------------------------------------------------------------------------------------------- failover


def survival(lost: set[int], survived: set[int]) -> Survival:
    return Survival(frozenset(survived), frozenset(lost))


def test_a_lost_suffix_is_counted_and_explained() -> None:
    history = record(*[(1, number, "ok", None, "target") for number in range(6)])
    found = survival({3, 5}, {0, 1, 2})
    assert lost_suffix(history, "target", found) == {3, 4, 5}
    judgement = check_suffix(history, "target", found, promised_until=25)
    assert judgement.verdict == "valid"
    assert "3 acked writes lost" in judgement.note


def test_a_hole_before_a_surviving_write_is_a_bug() -> None:
    history = record(*[(1, number, "ok", None, "target") for number in range(6)])
    assert kinds(check_suffix(history, "target", survival({2}, {0, 1, 3, 4, 5}), promised_until=None)) == {"gap"}


def test_a_hole_across_writers_is_found_by_their_times() -> None:
    history = record((1, 0, "ok", None, "target", (0, 5)), (2, 1, "ok", None, "target", (10, 15)))
    assert kinds(check_suffix(history, "target", survival({0}, {1}), promised_until=None)) == {"gap"}
    assert check_suffix(history, "target", survival({1}, {0}), promised_until=None).verdict == "valid"


def test_a_loss_that_the_replica_had_is_not_excused() -> None:
    history = record(*[(1, number, "ok", None, "target") for number in range(6)])
    judgement = check_suffix(history, "target", survival({4, 5}, {0, 1, 2, 3}), promised_until=45)
    assert kinds(judgement) == {"lost"}
    assert judgement.lost == 1


def test_writes_of_other_nodes_are_not_excused_by_a_failover() -> None:
    history = record((1, 0, "ok", None, "source"), (1, 1, "ok", None, "target"))
    assert lost_suffix(history, "target", survival({0, 1}, set())) == {1}


# -------------------------------------------------------------------------------------------------------------------- verdicts


def test_a_checker_that_crashes_says_unknown() -> None:
    def crash() -> Judgement:
        raise KeyError("bug")

    judgement = judged("set", crash)
    assert judgement.verdict == "unknown"
    assert "KeyError" in judgement.note


def test_the_worst_verdict_wins() -> None:
    valid, unknown, invalid = (Judgement("c", verdict, 0, 0, {}) for verdict in ("valid", "unknown", "invalid"))
    assert worst([valid, unknown, invalid]) == "invalid"
    assert worst([valid, unknown]) == "unknown"
    assert worst([valid]) == "valid"
    assert worst([]) == "unknown"
