"""The command stream: what a scripted source replicates reaches real targets translated, and the end states are literal (see the fixtures)."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import pytest

from tests.support import nodes
from tests.support.fixtures_snapshots import T
from tests.support.fixtures_streams import SCENARIOS, Scenario
from tests.support.scripted_primary import ScriptedPrimary, command, sealed
from tests.support.scripted_session import ScriptedSession
from valkeep.migrate.transform import commands
from valkeep.migrate.transform.outcomes import Replace
from valkeep.report.events import LedgerEntry

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


@pytest.mark.parametrize("behavior", ["panic", "ignore"])
def test_a_command_that_the_target_does_not_know_would_be_found(behavior: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: a translation that sends HPEXPIREAT all the same. Silently dropped, it still counts; under panic the process ends."""
    monkeypatch.setitem(cast("dict[bytes, Any]", commands._RULES), b"HPEXPIREAT", lambda args, _: Replace((tuple(args),)))
    with nodes.start("valkey-8.1", {"propagation-error-behavior": behavior}) as target:
        session = ScriptedSession(target, "valkey-8.1", "keep-field", ScriptedPrimary(EMPTY))
        with session, contextlib.suppress(ConnectionError, OSError):
            session.play(command("HSET h f v"))
            session.check([("HGETALL h", {b"f": b"v"})])
            session.send(command("HPEXPIREAT h 4102444800000 FIELDS 1 f") + command("INCR n"))
            if behavior == "panic":
                session.wait(lambda: not target.alive)
            else:
                session.drain(session.primary.offset)
            with pytest.raises(AssertionError):
                session.check_target()


def test_a_state_that_is_not_the_literal_one_would_be_found() -> None:
    with nodes.start("valkey-8.1") as target, ScriptedSession(target, "valkey-8.1", "keep-field", ScriptedPrimary(EMPTY)) as session:
        session.play(command("RPUSH l a b") + command("HSET h f v") + command("SADD s a b") + command("SET t v PXAT 4102444800000"))
        session.check(
            [("LRANGE l 0 -1", [b"a", b"b"]), ("HGETALL h", {b"f": b"v"}), ("SMEMBERS s", {b"b", b"a"}), ("PEXPIRETIME t", 4102444800000)]
        )
        for planted in (
            ("LRANGE l 0 -1", [b"b", b"a"]),
            ("HGETALL h", {b"f": b"w"}),
            ("SMEMBERS s", {b"a"}),
            ("PEXPIRETIME t", 4102444800001),
            ("EXISTS gone", 1),
            ("NOSUCH", None),
        ):
            with pytest.raises(AssertionError):
                session.check([planted])


def test_who_watches_is_told_what_was_degraded_and_copied_again() -> None:
    with nodes.start("valkey-8.1") as target, ScriptedSession(target, "valkey-8.1", "drop-field", ScriptedPrimary(EMPTY)) as session:
        session.play(
            command("HSET h f v g w")
            + b"".join(command(f"HPEXPIREAT h {T} FIELDS 1 f") for _ in range(2000))
            + command("XDELEX k IDS 1 1-1")
        )
        session.play(command("XDELEX k IDS 1 2-2") + command("INCR n"))
        session.wait(lambda: told(session) == session.ledger.counts)
        assert session.ledger.counts == {("degraded", "field-ttl", "drop-field"): 2000, ("recopied", "key", ""): 2}
        assert 2 <= sum(isinstance(event, LedgerEntry) for event in session.events) <= 10
        session.check([("HGETALL h", {b"g": b"w"}), ("GET n", b"1")])


def told(session: ScriptedSession) -> Counter[tuple[str, str, str]]:
    counts = Counter[tuple[str, str, str]]()
    for event in session.events:
        if isinstance(event, LedgerEntry):
            counts[event.action, event.what, event.policy] += event.count
    return counts
