"""The command stream: what a scripted source replicates reaches real targets translated, and the end states are literal (see the fixtures)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import nodes
from tests.support.fixtures_streams import SCENARIOS, Scenario
from tests.support.scripted_primary import ScriptedPrimary, command, sealed
from tests.support.scripted_session import ScriptedSession

pytestmark = pytest.mark.server

EMPTY = sealed(b"REDIS0012")
START = command("SELECT 0") + command("FLUSHALL") + command("FUNCTION FLUSH")

# Every pair of target and policy once; bytes arrive whole, one by one, or in pieces of seven.
SESSIONS = [
    ("valkey-8.0", "keep-field", 0),
    ("valkey-8.0", "drop-field", 1),
    ("valkey-8.1", "keep-field", 7),
    ("valkey-8.1", "drop-field", 0),
    ("valkey-9.1", "refuse", 1),
    ("valkey-9.1", "drop-field", 0),
]


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest) -> Iterator[ScriptedSession]:
    """One target that follows one source through every scenario."""
    spec, policy, chunk = request.param
    with nodes.start(spec) as target, ScriptedSession(target, spec, policy, ScriptedPrimary(EMPTY)) as running:
        running.chunk = chunk
        yield running


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
@pytest.mark.parametrize(
    "session",
    [
        pytest.param(one, marks=pytest.mark.xdist_group(f"stream-{one[0]}-{one[1]}"), id=f"{one[0]}-{one[1]}-{one[2] or 'whole'}")
        for one in SESSIONS
    ],
    indirect=True,
)
def test_what_is_replicated_has_its_effect(session: ScriptedSession, scenario: Scenario) -> None:
    reads, copied, degraded = scenario.expected(None if session.format.field_ttl else session.policy)
    session.play(START)
    session.primary.values = dict(scenario.values)
    session.primary.copied.clear()
    session.recorded.clear()
    data = scenario.data
    session.play(data, chunk=session.chunk if len(data) < 100_000 else session.chunk << 12)
    session.check(reads)
    assert set(session.primary.copied) == set(copied)
    noted = [count for action, what, _key, _database, count in session.recorded if (action, what) == ("degraded", "field-ttl")]
    assert sum(noted) == degraded
