"""A client library in the recorder: what it showed is what is recorded."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from valkeep.client.endpoint import Endpoint
from valkeep.drill.history import Outcome
from valkeep.drill.script import ClientSpec
from valkeep.drill.workloads.driver import Answer, Shown, driver_of
from valkeep.drill.workloads.library import ByLibrary
from valkeep.drill.workloads.mixes import Step, mix_of
from valkeep.drill.workloads.record import Process, Record
from valkeep.drill.workloads.targets import Targets
from valkeep.errors import ConnectionLost, ServerError, UsageError
from valkeep.topology.spec import Kind

TARGETS = Targets(Kind.STANDALONE, {"n1": Endpoint("127.0.0.1", 1)}, tags=(b"a",))


class Library:
    """Answers what it was given, in order; exceptions are raised."""

    name, version = "library", "1"

    def __init__(self, *answers: Any, opens: bool = True) -> None:
        self.answers = list(answers)
        self.opens = opens
        self.performed: list[Step] = []

    async def open(self, client: ClientSpec, targets: Targets) -> Library:
        if not self.opens:
            raise ConnectionLost("nobody", remedy="start it")
        return self

    async def perform(self, step: Step) -> Answer:
        self.performed.append(step)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Answer([answer], "n1")

    async def close(self) -> None:
        pass


def driven(library: Library, batch: int = 3) -> tuple[ByLibrary, Record]:
    record = Record()
    return ByLibrary(library, ClientSpec("c1"), mix_of("append", 1, random.Random(1)), TARGETS.tags, batch, TARGETS, record), record


def test_answers_are_recorded_with_the_node_that_gave_them() -> None:
    worker, record = driven(Library(1, 2, 3))
    assert asyncio.run(worker.batch())
    assert [(one.outcome, one.result, one.node) for one in record.history] == [(Outcome.OK, number, "n1") for number in (1, 2, 3)]
    assert record.acked == 3


def test_a_refusal_is_a_fail_and_ends_the_batch() -> None:
    worker, record = driven(Library(1, ServerError("READONLY", "no")))
    assert not asyncio.run(worker.batch())
    assert [(one.outcome, one.error) for one in record.history] == [(Outcome.OK, ""), (Outcome.FAIL, "READONLY")]


@pytest.mark.parametrize(("definite", "outcome"), [(False, Outcome.INFO), (True, Outcome.FAIL)])
def test_what_a_library_shows_is_in_doubt_unless_it_surely_was_not_done(definite: bool, outcome: Outcome) -> None:
    worker, record = driven(Library(Shown("TimeoutError", "late", definite=definite)))
    assert not asyncio.run(worker.batch())
    assert [(one.outcome, one.error) for one in record.history] == [(outcome, "TimeoutError")]


def test_an_operation_in_doubt_ends_its_process_and_not_its_session() -> None:
    library = Library(Shown("TimeoutError", "late", definite=False), 1, 2, 3)
    worker, record = driven(library)

    async def twice() -> None:
        await worker.batch()
        await worker.batch()

    asyncio.run(twice())
    assert [one.process for one in record.history] == [0, 1, 1, 1]
    assert record.processes == [Process("c1", ""), Process("c1", "")]


def test_a_library_that_can_not_connect_leaves_a_definite_failure_and_its_reason() -> None:
    worker, record = driven(Library(opens=False))
    assert not asyncio.run(worker.batch())
    assert [(one.outcome, one.error) for one in record.history] == [(Outcome.FAIL, "UNREACHED")]
    assert record.troubles == {("c1", "nobody"): 1}


def test_an_unknown_client_is_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        driver_of("carrier-pigeon")
    assert "valkey-py" in caught.value.remedy
