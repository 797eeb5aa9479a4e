"""A drill with other operations than its own: judged as well, and its replay says which. Every mix on two drills: tests/soak/drills.py."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.drilled import unstalled
from valkeep.drill.catalogue import find
from valkeep.drill.run import RunOptions, run_drill

pytestmark = [pytest.mark.server, pytest.mark.timeout(400)]


def test_a_failover_under_streams_is_judged_and_its_replay_names_the_mix_and_the_rate() -> None:
    options = RunOptions(mix="streams", rate=6000, timeout_ms=600, network="none", topology="sentinel:1+1+1")
    drill = find("sentinel-kill-primary", 600)
    outcome = unstalled(lambda: asyncio.run(run_drill(drill, options, lambda _event: None)), lambda one: [(one.verdict, str(one.reasons))])
    assert outcome.verdict == "valid", outcome.reasons
    assert {"streams", "journals", "loss"} <= {one.checker for one in outcome.judgements}
    assert "--mix streams --rate 6000" in outcome.replay
    assert set(outcome.history.functions.names) >= {"xadd", "deliver", "ack"}
    warm = outcome.measures["warm_operations_per_second"]
    assert warm is not None
    assert warm < 9000
