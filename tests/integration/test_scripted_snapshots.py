"""Snapshots of every RDB version up to 12 and of Valkey 80, from a scripted source into real targets; the end states are literal (see the fixtures)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support import nodes
from tests.support.fixtures_snapshots import SNAPSHOTS, Snapshot
from tests.support.scripted_primary import ScriptedPrimary, command
from tests.support.scripted_session import ScriptedSession
from valkeep.runtime.node import Process

TARGETS = ("valkey-8.0", "valkey-8.1", "valkey-9.1")
FRAMES = (("mark", 0), ("length", 0), ("mark", 211), ("length", 1000))

pytestmark = pytest.mark.server

Targets = Callable[[str], Process]


@pytest.fixture(scope="module")
def target() -> Iterator[Targets]:
    """Servers by spec, started once for this module; each test leaves them detached."""
    with ExitStack() as stack:
        running: dict[str, Process] = {}

        def get(spec: str) -> Process:
            if spec not in running:
                running[spec] = stack.enter_context(nodes.start(spec))
            return running[spec]

        yield get


def on(spec: str, *values: object) -> object:
    """A parameter set whose tests share one worker, and so one server."""
    return pytest.param(spec, *values, marks=pytest.mark.xdist_group(f"scripted-{spec}"))


@pytest.mark.parametrize("snapshot", SNAPSHOTS, ids=lambda one: one.name)
@pytest.mark.parametrize(
    ("spec", "policy"),
    [on(spec, policy) for spec in TARGETS for policy in (("keep-field", "drop-field") if spec < "valkey-9" else ("refuse",))],
)
def test_every_record_type_arrives_as_it_was(target: Targets, spec: str, policy: str, snapshot: Snapshot) -> None:
    framing, chunk = FRAMES[(SNAPSHOTS.index(snapshot) + len(policy)) % len(FRAMES)]
    primary = ScriptedPrimary(snapshot.data, framing=framing, chunk=chunk, info=snapshot.info)
    with ScriptedSession(target(spec), spec, policy, primary) as session:
        effect = None if session.format.field_ttl else policy
        dropped = sum(1 for row in snapshot.rows if policy == "drop-field" and "all fields" in row.name)
        counts = Counter({0: -dropped})
        counts.update(row.database for row in snapshot.rows for _ in range(row.keys))
        session.check(
            [(f"SELECT {database}", b"OK") if turn == 0 else ("DBSIZE", count) for database, count in counts.items() for turn in (0, 1)]
        )
        for row in snapshot.rows:
            session.check(row.expected(effect))
        lost = Counter({row.record: row.lost for row in snapshot.rows if row.lost})
        noted = [count for action, what, _key, _database, count in session.recorded if (action, what) == ("degraded", "field-ttl")]
        assert sorted(noted) == ([] if effect is None else sorted(lost.values()))
        assert [what for action, what, *_ in session.recorded if action == "stripped"] == list(snapshot.stripped)
        # the stream begins in the database that the snapshot named, without a SELECT
        named = b"repl-stream-db" in snapshot.data
        session.play(command("SET first 1"))
        session.check([(f"SELECT {3 if named else 0}", b"OK"), ("GET first", b"1")])
