"""The mixes of drills: what they do, and what replies mean."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest

from valkeep.drill.history import Outcome
from valkeep.drill.workloads import keys
from valkeep.drill.workloads.mixes import MIXES, WEIGHTS, Mix, mix_of
from valkeep.errors import ServerError, UsageError
from valkeep.topology.slots import even_ranges, key_slot

TAG = b"7"
REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "workloads.md"


def a_mix(name: str = "mixed", client: int = 1, seed: int = 1) -> Mix:
    return mix_of(name, client, random.Random(seed))


def test_tags_are_spread_evenly_over_shards() -> None:
    for shards in (1, 2, 3, 4, 6):
        found = Counter(
            next(number for number, (first, last) in enumerate(even_ranges(shards)) if first <= key_slot(tag) <= last)
            for tag in keys.tags_for(12)
        )
        assert set(found.values()) == {12 // shards}


@pytest.mark.parametrize("name", MIXES)
def test_a_batch_begins_and_ends_with_an_append_to_the_journal_of_its_tag(name: str) -> None:
    mix = a_mix(name)
    for size in (2, 3, 12):
        steps = mix.batch(TAG, size)
        assert len(steps) == size
        assert {steps[0].key, steps[-1].key} == {keys.journal(TAG)}
        assert steps[0].function == steps[-1].function == "append"
        assert len({key_slot(step.key) for step in steps}) == 1


@pytest.mark.parametrize("name", MIXES)
def test_a_batch_of_one_is_an_append(name: str) -> None:
    assert [step.function for step in a_mix(name).batch(TAG, 1)] == ["append"]


@pytest.mark.parametrize("name", MIXES)
def test_a_mix_is_the_same_for_a_seed(name: str) -> None:
    assert [a_mix(name).batch(TAG, 12) for _ in range(3)] == [a_mix(name).batch(TAG, 12) for _ in range(3)]


def test_no_two_operations_write_the_same_value_whichever_client_sends_them() -> None:
    values = [step.value for client in (1, 2, 3) for step in a_mix(client=client).batch(TAG, 3000) if step.value is not None]
    assert len(values) == len(set(values))
    assert max(values) < 1 << 63


def test_every_key_of_a_step_lies_in_the_slot_of_its_tag() -> None:
    tag = keys.tags_for(12)[5]
    for name in MIXES:
        for step in a_mix(name).batch(tag, 500):
            for command in step.commands:
                assert {key_slot(word) for word in command if isinstance(word, bytes) and b":{" in word} <= {key_slot(tag)}


def test_an_unknown_mix_is_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        a_mix("nonsense")
    assert "registers" in caught.value.remedy


@pytest.mark.parametrize(
    ("function", "replies", "outcome", "result", "error"),
    [
        ("append", [17], Outcome.OK, 17, ""),
        ("write", [b"OK"], Outcome.OK, None, ""),
        ("write", [ServerError("READONLY", "You can't")], Outcome.FAIL, None, "READONLY"),
        ("read", [b"99"], Outcome.OK, 99, ""),
        ("read", [None], Outcome.OK, None, ""),
        ("read", [b"hello"], Outcome.INFO, None, "GARBLED"),
        ("read", [[b"99"]], Outcome.INFO, None, "GARBLED"),
        ("delete", [0], Outcome.OK, 0, ""),
        ("incr", [5], Outcome.OK, 5, ""),
        ("multi", [b"OK", b"QUEUED", b"QUEUED", [b"OK", b"OK"]], Outcome.OK, None, ""),
        ("multi", [b"OK", ServerError("MOVED", "7 h:1"), ServerError("MOVED", "7 h:1"), ServerError("EXECABORT", "")], Outcome.FAIL, None, "MOVED"),
        ("multi", [b"OK", b"QUEUED", b"QUEUED", ServerError("EXECABORT", "because of: NOREPLICAS not enough")], Outcome.FAIL, None, "NOREPLICAS"),
        ("multi", [b"OK", b"QUEUED", b"QUEUED", [b"OK", ServerError("OOM", "")]], Outcome.INFO, None, "PARTIAL"),
    ],
)  # fmt: skip
def test_what_replies_mean(function: str, replies: list[object], outcome: Outcome, result: int | None, error: str) -> None:
    mix = a_mix()
    step = next(step for step in mix.batch(TAG, 500) if step.function == function)
    assert mix.understood(step, replies) == (outcome, result, error)


def test_a_new_operation_of_the_same_kind_has_the_same_key_and_a_value_of_its_own() -> None:
    mix = a_mix()
    for step in mix.batch(TAG, 200):
        twin = mix.again(step)
        assert (twin.function, twin.key) == (step.function, step.key)
        assert step.value is None or twin.value != step.value


# ------------------------------------------------------------------------------------------------------------------- streams


def entry(identifier: bytes, element: int) -> list[object]:
    return [[keys.stream(TAG), [[identifier, [b"n", b"%d" % element]]]]]


def grouped() -> Mix:
    """A mix of streams whose group is there."""
    mix = a_mix("streams")
    assert mix.understood(mix.step("group", keys.stream(TAG)), [b"OK"]).outcome is Outcome.OK
    return mix


def test_the_first_batch_on_a_stream_makes_its_group_and_later_ones_do_not() -> None:
    mix = a_mix("streams")
    first = mix.batch(TAG, 12)
    assert first[1].function == "group"
    assert mix.understood(first[1], [ServerError("BUSYGROUP", "Consumer Group name already exists")]).outcome is Outcome.OK
    assert "group" not in [step.function for step in mix.batch(TAG, 200)]


def test_a_group_that_a_node_lost_is_made_again() -> None:
    mix = grouped()
    lost = mix.understood(mix.step("deliver", keys.stream(TAG)), [ServerError("NOGROUP", "No such key")])
    assert lost == (Outcome.FAIL, None, "NOGROUP")
    assert "group" in [step.function for step in mix.batch(TAG, 12)]


def test_what_was_delivered_is_acknowledged_once_in_the_order_of_delivery() -> None:
    mix = grouped()
    for number in (1, 2):
        assert mix.understood(mix.step("deliver", keys.stream(TAG)), [entry(b"%d-0" % number, number)]).result == number
    acks = [mix.step("ack", keys.stream(TAG)) for _ in range(3)]
    assert [(step.function, step.value) for step in acks] == [("ack", 1), ("ack", 2), ("deliver", None)]
    assert acks[0].commands == ((b"XACK", keys.stream(TAG), keys.GROUP, b"1-0"),)


def test_nothing_new_to_deliver_is_an_answer_without_an_element() -> None:
    mix = grouped()
    assert mix.understood(mix.step("deliver", keys.stream(TAG)), [None]) == (Outcome.OK, None, "")


def test_what_another_client_delivered_is_not_acknowledged_here() -> None:
    mix, other = grouped(), a_mix("streams", client=2)
    mix.understood(mix.step("deliver", keys.stream(TAG)), [entry(b"1-0", 1)])
    assert other.step("ack", keys.stream(TAG)).function == "deliver"


# ---------------------------------------------------------------------------------------------------------------- documents


def test_every_mix_is_in_the_reference_with_its_weights() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|;]+?)(?:;[^|]*)? \|$", REFERENCE.read_text(), re.MULTILINE))
    said = {name: text if len(weights) > 1 else f"{text} 1" for name, weights in WEIGHTS.items() if (text := rows[name])}
    assert said == {name: ", ".join(f"{function} {weight}" for function, weight in weights) for name, weights in WEIGHTS.items()}


def test_every_function_that_a_history_may_hold_is_in_the_reference() -> None:
    text = REFERENCE.read_text()
    for name in MIXES:
        assert all(f"`{step.function}`" in text for step in a_mix(name).batch(TAG, 200))
